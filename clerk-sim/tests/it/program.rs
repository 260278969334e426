//! The program: its options, output and exit codes.

use std::io::{BufRead, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command, Output, Stdio};

fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_clerk-sim"))
        .args(arguments)
        .output()
        .expect("the program runs")
}

#[test]
fn wrong_usage_is_explained() {
    for (arguments, hint) in [
        (["--user", "5"], "--users"),
        (["--users", "many"], "invalid digit"),
        (["--churn", "often"], "such as 5/s"),
        (["--latency", "80"], "time unit"),
        (["--rate-limit", "prod"], "production"),
        (["--port", "70000"], "65535"),
        (["--members", "9..1"], "such as 1..20"),
        (["--organization-churn", "often"], "such as 5/s"),
    ] {
        let output = run(&arguments);
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(error.contains(hint), "{arguments:?}: {error}");
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn help_shows_the_defaults() {
    let output = run(&["--help"]);
    let help = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success());
    for part in [
        "--users",
        "[default: 100]",
        "[default: 8787]",
        "--churn",
        "--organizations",
        "[default: 1..20]",
        "sk_test_clerk_sim",
        "possible values",
    ] {
        assert!(help.to_lowercase().contains(&part.to_lowercase()), "{part} in {help}");
    }
}

/// Starts the program, and returns it with the line that it prints.
fn start(arguments: &[&str]) -> (Child, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_clerk-sim"));
    let mut child = command
        .args(arguments)
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut line = String::new();
    let stdout = child.stdout.take().expect("its output is piped");
    BufReader::new(stdout).read_line(&mut line).expect("it prints a line");
    (child, line)
}

/// The answer to a request, with its head.
fn get(address: &str, path: &str, key: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("it listens");
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers");
    answer
}

/// The address in the line that the program prints, and what follows it.
fn address(line: &str) -> (&str, &str) {
    let rest = line.strip_prefix("clerk-sim listening on http://");
    rest.and_then(|rest| rest.split_once(' '))
        .expect("the line that scripts read")
}

#[test]
fn it_generates_organizations_as_the_options_say() {
    let organizations = "--port 0 --users 9 --organizations 4 --members 0,3 --invitations 2 --organization-churn 1/h";
    let (mut child, line) = start(&organizations.split(' ').collect::<Vec<_>>());
    let stats = get(address(&line).0, "/_sim/stats", "");
    for count in [
        "\"organizations\":4",
        "\"organization_memberships\":6",
        "\"organization_invitations\":8",
    ] {
        assert!(stats.contains(count), "{count} in {stats}");
    }
    child.kill().expect("it runs");
    child.wait().expect("it ends");
}

#[test]
fn it_prints_its_address_and_ends_on_a_signal() {
    for signal in ["TERM", "INT"] {
        let (mut child, line) = start(&[
            "--port",
            "0",
            "--users",
            "12",
            "--instance",
            "ins_mine",
            "--secret-key",
            "sk_live_x",
            "--churn",
            "60/min",
        ]);
        let (address, rest) = address(&line);
        assert_eq!(rest, "(instance ins_mine, 12 users, key sk_live_x)\n");
        let answer = get(address, "/v1/instance", "sk_live_x");
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(
            answer.contains("ins_mine") && answer.contains("\"production\""),
            "{answer}"
        );
        // An open connection does not keep it from ending.
        let _open = TcpStream::connect(address).expect("it listens");
        let killed = Command::new("kill")
            .args([&format!("-{signal}"), &child.id().to_string()])
            .status();
        assert!(killed.is_ok_and(|status| status.success()));
        assert_eq!(child.wait().expect("it ends").code(), Some(0), "{signal}");
    }
}

#[test]
fn a_port_that_is_taken_is_an_error_with_a_hint() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("an address").port().to_string();
    let output = run(&["--port", &port, "--users", "1"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("hint: --port 0"));
}
