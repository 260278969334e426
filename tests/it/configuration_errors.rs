//! Errors in the configuration are reported before anything starts: exit code 2, a message and a
//! hint.

use crate::support::{
    program::{ProgramOutput, command},
    summary::Exit,
};

/// A valid environment, as far as the program can tell without a connection. Nothing listens at its
/// addresses.
const FINE: [(&str, &str); 3] = [
    ("CLERK_SECRET_KEY", "sk_test_hidden"),
    (
        "DATABASE_URL",
        "postgres://app:hidden@127.0.0.1:1/app?connect_timeout=1",
    ),
    ("CLERK_API_URL", "http://127.0.0.1:1"),
];

/// Runs with these variables on top of [`FINE`]. An empty value removes a variable.
async fn run(arguments: &[&str], environment: &[(&str, &str)]) -> ProgramOutput {
    let mut command = command();
    command.args(arguments).envs(FINE);
    for (name, value) in environment {
        if value.is_empty() {
            command.env_remove(name);
        } else {
            command.env(name, value);
        }
    }
    command.output().await.unwrap().into()
}

#[track_caller]
fn assert_unusable(ran: &ProgramOutput, what: &str, hint: &str) {
    assert_eq!(ran.stdout, "", "{ran:#?}");
    ran.assert_error(Exit::Usage, what, hint);
    assert!(!ran.stderr.contains("hidden"), "{ran:#?}");
}

async fn check(environment: &[(&str, &str)], what: &str, hint: &str) {
    assert_unusable(&run(&["--once"], environment).await, what, hint);
}

#[tokio::test]
async fn key_errors() {
    const WHERE: &str = "Clerk's dashboard under Configure → API keys";
    let ran = run(&["--once"], &[("CLERK_SECRET_KEY", "")]).await;
    assert_unusable(&ran, "CLERK_SECRET_KEY is not set", WHERE);
    assert!(
        ran.stderr.starts_with("error: CLERK_SECRET_KEY is not set\nhint: "),
        "{ran:#?}"
    );
    // Compose files set missing variables to empty strings.
    let output = command().envs(FINE).env("CLERK_SECRET_KEY", "").output().await.unwrap();
    assert_unusable(&output.into(), "CLERK_SECRET_KEY is not set", WHERE);

    check(
        &[("CLERK_SECRET_KEY", "pk_live_hidden")],
        "publishable key",
        "the secret key is needed",
    )
    .await;
    check(
        &[("CLERK_SECRET_KEY", "hidden")],
        "not a secret key of Clerk",
        "sk_live_",
    )
    .await;
    for cut in [
        "sk_live_hid\nden",
        "sk_live_hidden\nsk_live_hidden",
        "sk_live_hid den",
        "sk_live_hiddén",
    ] {
        check(&[("CLERK_SECRET_KEY", cut)], "holds characters that no key has", WHERE).await;
    }
    for arguments in [&[][..], &["--once"], &["--dry-run"]] {
        let ran = run(arguments, &[("CLERK_SECRET_KEY", ""), ("DATABASE_URL", "")]).await;
        assert_unusable(&ran, "CLERK_SECRET_KEY is not set", WHERE);
    }
}

#[tokio::test]
async fn database_url_errors() {
    const EXAMPLE: &str = "postgres://user:password@localhost:5432/app";
    for arguments in [
        &[][..],
        &["--once"],
        &["--dry-run"],
        &["status"],
        &["migrate"],
        &["approve", "0"],
    ] {
        // Commands that do not talk to Clerk do not need its key.
        let key = if arguments.first().is_some_and(|first| !first.starts_with('-')) {
            ""
        } else {
            "sk_test_hidden"
        };
        let ran = run(arguments, &[("DATABASE_URL", ""), ("CLERK_SECRET_KEY", key)]).await;
        assert_unusable(&ran, "DATABASE_URL is not set", EXAMPLE);
    }
    for url in [
        "hidden",
        "mysql://app:hidden@localhost/app",
        "postgres://app:hidden@localhost:port/app",
    ] {
        check(
            &[("DATABASE_URL", url)],
            "database.url (DATABASE_URL) cannot be used",
            EXAMPLE,
        )
        .await;
    }
    let with = |parameter| format!("postgres://app:hidden@localhost/app?{parameter}");
    let full = "sslmode=full, expected disable, allow, prefer, require, verify-ca, verify-full";
    check(&[("DATABASE_URL", &with("sslmode=full"))], full, EXAMPLE).await;
    let unknown = "there is no parameter sslmod; did you mean sslmode?";
    check(&[("DATABASE_URL", &with("sslmod=require"))], unknown, EXAMPLE).await;
    check(
        &[("PGSSLMODE", "on")],
        "PGSSLMODE cannot be used: it is on, expected disable",
        EXAMPLE,
    )
    .await;
    let missing = "sslrootcert=/nowhere/ca.pem cannot be used: there is no such file";
    check(
        &[("DATABASE_URL", &with("sslmode=verify-full&sslrootcert=/nowhere/ca.pem"))],
        missing,
        "sslrootcert=FILE",
    )
    .await;
}

#[tokio::test]
async fn errors_in_environment_variables() {
    check(
        &[("CLERK2PG_SCHEDULE__FUL", "x")],
        "no setting CLERK2PG_SCHEDULE__FUL",
        "did you mean CLERK2PG_SCHEDULE__FULL?",
    )
    .await;
    check(
        &[("CLERK2PG_SCHEDULE__FULL", "hourly")],
        "schedule.full = hourly",
        "six fields",
    )
    .await;
    check(
        &[("CLERK2PG_SCHEDULE__FULL", "0 * * * *")],
        "schedule.full = 0 * * * *",
        "six fields",
    )
    .await;
    check(
        &[("CLERK2PG_SCHEDULE__FULL", "61 * * * * *")],
        "schedule.full = 61",
        "six fields",
    )
    .await;
    for nonsense in ["101", "-1", "NaN"] {
        check(
            &[("CLERK2PG_DELETES__MAX_PERCENT", nonsense)],
            "deletes.max_percent",
            "a percentage from 0 to 100",
        )
        .await;
    }
    for (name, hint) in [
        ("privat_metadata", "did you mean private_metadata?"),
        ("created_at", "that no sync needs"),
        ("primary_phone", "derived from, for example phone_numbers"),
    ] {
        let exclude = format!("locale,{name}");
        check(
            &[("CLERK2PG_MIRROR__EXCLUDE", &exclude)],
            &format!("mirror.exclude = {name} cannot be used"),
            hint,
        )
        .await;
    }
    check(
        &[("CLERK2PG_CLERK__REQUEST_BUDGET", "0")],
        "clerk.request_budget",
        "above 0 and up to 1",
    )
    .await;
    for nonsense in ["0", "65"] {
        let variable = ("CLERK2PG_CLERK__CONCURRENCY", nonsense);
        check(&[variable], "clerk.concurrency", "a number from 1 to 64").await;
    }
    for listen in ["0.0.0.0:9465", "[::]:9465", "192.0.2.1:80"] {
        let what = format!("http.listen = {listen} cannot be used");
        check(&[("CLERK2PG_HTTP__LISTEN", listen)], &what, "http.allow_remote = true").await;
    }
    check(
        &[("CLERK2PG_HTTP__LISTEN", "9465")],
        "http.listen = 9465",
        "127.0.0.1:9465",
    )
    .await;
    check(&[("CLERK_API_URL", "api.clerk.com")], "clerk.api_url", "https://").await;
    check(&[("RUST_LOG", "clerk2pg=loud")], "RUST_LOG", "clerk2pg=debug").await;
    // The type states the allowed values.
    for (name, value) in [
        ("CLERK2PG_DELETES__MAX_PERCENT", "many"),
        ("CLERK2PG_DELETES__MODE", "purge"),
        ("CLERK2PG_CLERK__TIMEOUT", "soon"),
    ] {
        let ran = run(&["--once"], &[(name, value)]).await;
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(2), ""), "{ran:#?}");
        assert!(
            ran.stderr.starts_with("error: ") && ran.stderr.contains(value),
            "{ran:#?}"
        );
    }
}

/// Runs one sync with this configuration file.
async fn with_file(text: &str) -> (ProgramOutput, String) {
    run_with_file(&["--once"], text).await
}

/// Runs with this configuration file.
async fn run_with_file(arguments: &[&str], text: &str) -> (ProgramOutput, String) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("clerk2pg.toml").display().to_string();
    std::fs::write(&file, text).unwrap();
    let arguments = [arguments, &["--config", &file]].concat();
    (run(&arguments, &[]).await, file)
}

#[tokio::test]
async fn errors_in_the_file() {
    for (text, what, hint) in [
        (
            "[deletes]\nmax_percnt = 3\n",
            "there is no setting deletes.max_percnt",
            "did you mean deletes.max_percent?",
        ),
        (
            "[delete]\nmax_percent = 3\n",
            "there is no setting delete.max_percent",
            "did you mean deletes.max_percent?",
        ),
        (
            "[deletes]\nmax_percent = nan\n",
            "deletes.max_percent",
            "a percentage from 0 to 100",
        ),
        ("[schedule]\nfull = \"daily\"\n", "schedule.full = daily", "six fields"),
    ] {
        let (ran, file) = with_file(text).await;
        assert_unusable(&ran, what, hint);
        assert!(ran.stderr.contains(&file), "{ran:#?}");
    }
    let (ran, file) = with_file("[clerk]\nsecret_key = \"sk_live_hidden\n").await;
    ran.assert_exit(Exit::Usage);
    assert!(ran.stderr.contains(&file) && ran.stderr.contains("line 2"), "{ran:#?}");
    assert!(!ran.stderr.contains("hidden"), "{ran:#?}");
}

#[tokio::test]
async fn errors_in_endpoints() {
    const APP: &str = "[[endpoints]]\nname = \"app\"\nurl = \"https://example.com/\"\n";
    let signed = format!("{APP}secret = \"whsec_AAAA\"\n");
    for (text, what, hint) in [
        (
            format!("{signed}evens = []\n"),
            "[[endpoints]] app: there is no key \"evens\"",
            "did you mean events?",
        ),
        (
            format!("{signed}concurrency = 65\n"),
            "[[endpoints]] app: concurrency = 65 cannot be used",
            "a number from 1 to 64",
        ),
        (
            signed.replace("https://", "https://ann:hidden@"),
            "[[endpoints]] app: url contains a user or a password",
            "your handler verifies the signature",
        ),
    ] {
        for arguments in [&[][..], &["--once"], &["status"]] {
            let (ran, file) = run_with_file(arguments, &text).await;
            assert_unusable(&ran, &format!("{file}: {what}"), hint);
        }
    }
    // Only the daemon signs.
    for (text, what, hint) in [
        (
            APP.to_owned(),
            "app has no secret",
            "Webhooks → endpoint → Signing Secret",
        ),
        (
            format!("{APP}secret = \"whsec_hidden!\"\n"),
            "app: secret is not a signing secret",
            "openssl rand -base64 24",
        ),
    ] {
        let (ran, file) = run_with_file(&[], &text).await;
        assert_unusable(&ran, &format!("{file}: [[endpoints]] {what}"), hint);
        for arguments in [["--once"], ["status"]] {
            let (ran, _) = run_with_file(&arguments, &text).await;
            ran.assert_exit(Exit::Failed);
        }
    }
}

#[tokio::test]
async fn unreadable_files() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("missing.toml").display().to_string();
    for file in [missing.as_str(), directory.path().to_str().unwrap()] {
        let ran = run(&["--once", "--config", file], &[]).await;
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(2), ""), "{ran:#?}");
        assert!(ran.stderr.contains(&format!("{file} cannot be read")), "{ran:#?}");
    }
    let key_in_file = [("CLERK_SECRET_KEY", ""), ("CLERK_SECRET_KEY_FILE", &missing)];
    check(
        &key_in_file,
        &format!("{missing} cannot be read"),
        "named by CLERK_SECRET_KEY_FILE",
    )
    .await;
}

#[tokio::test]
async fn command_line_errors() {
    for arguments in [
        &["--exit-code"][..],
        &["status", "--exit-code"],
        &["--format", "xml"],
        &["approve"],
        &["synchronise"],
        &["--onces"],
        &["--once", "extra"],
    ] {
        let ran = run(arguments, &[]).await;
        assert_eq!(
            (ran.code, ran.stdout.as_str()),
            (Some(2), ""),
            "{arguments:?}: {ran:#?}"
        );
        assert!(ran.stderr.starts_with("error: "), "{ran:#?}");
    }
    let nothing = command().arg("--version").output().await.unwrap();
    let version = ProgramOutput::from(nothing);
    assert_eq!(
        (version.code, version.stdout),
        (Some(0), format!("clerk2pg {}\n", env!("CARGO_PKG_VERSION")))
    );
    let help = ProgramOutput::from(command().arg("--help").output().await.unwrap());
    assert_eq!((help.code, help.stderr.as_str()), (Some(0), ""));
    for word in [
        "--once",
        "--dry-run",
        "--exit-code",
        "--format",
        "--config",
        "status",
        "approve",
        "migrate",
        "health",
        "CLERK_SECRET_KEY",
        "DATABASE_URL",
        "Exit codes",
    ] {
        assert!(help.stdout.contains(word), "--help does not speak of {word}");
    }
}
