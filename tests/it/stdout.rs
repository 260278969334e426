//! How commands write to stdout: with colours or without, and what they do when its reader is gone.

use std::process::Stdio;

use crate::support::{
    delivery::Delivering,
    fixture::Fixture,
    process::NEVER,
    program::{ProgramOutput, wait_for_exit},
    receiver::Receiver,
};

/// The commands that print something, and whether what they print here has colours.
const COMMANDS: [(&[&str], bool); 14] = [
    (&["check"], true),
    (&["status"], true),
    (&["--once"], true),
    (&["--dry-run"], true),
    (&["init"], true),
    (&["endpoints"], true),
    (&["send-test", "app"], true),
    (&["redeliver", "app"], false),
    (&["migrate"], false),
    (&["repin"], false),
    (&["print-schema"], false),
    (&["completions", "bash"], false),
    (&["check", "--format", "json"], false),
    (&["status", "--format", "json"], false),
];

/// Mirrored users and an endpoint that a daemon has delivered to.
async fn scene(receiver: &Receiver) -> Delivering {
    let delivering = Delivering::new(12, &receiver.endpoint("app")).await;
    let daemon = delivering.start().await;
    daemon.kill().await;
    delivering
}

async fn run(delivering: &Delivering, arguments: &[&str], environment: &[(&str, &str)]) -> ProgramOutput {
    let config = delivering.config();
    let arguments = [&["--config", config.to_str().unwrap()], arguments].concat();
    let environment = [&[NEVER], environment].concat();
    delivering.fixture.run_with(&arguments, &environment).await
}

#[tokio::test(flavor = "multi_thread")]
async fn colours_are_for_terminals() {
    let receiver = Receiver::start().await;
    let delivering = scene(&receiver).await;
    let forced = ("CLICOLOR_FORCE", "1");
    for (arguments, has_colours) in COMMANDS {
        for (environment, expected) in [
            (&[][..], false),
            (&[forced], has_colours),
            (&[forced, ("NO_COLOR", "1")], false),
        ] {
            let ran = run(&delivering, arguments, environment).await;
            assert!(!ran.stdout.is_empty(), "{arguments:?} {ran:#?}");
            let context = format!("{arguments:?} {environment:?} {ran:#?}");
            assert_eq!(ran.stdout.contains('\x1b'), expected, "{context}");
            // Log lines go there.
            assert!(!ran.stderr.contains('\x1b') || environment == [forced], "{context}");
        }
    }
    let refused = ["approve", "0"];
    for (environment, expected) in [
        (&[][..], false),
        (&[forced], true),
        (&[("NO_COLOR", "1"), forced], false),
    ] {
        let ran = run(&delivering, &refused, environment).await;
        assert_eq!(ran.stderr.contains('\x1b'), expected, "{environment:?} {ran:#?}");
    }
}

/// Runs a command whose stdout nobody reads.
async fn run_unread(fixture: &Fixture, arguments: &[&str]) -> ProgramOutput {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = fixture.command(arguments);
    command.stdout(Stdio::from(writer));
    wait_for_exit(command.spawn().unwrap()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_has_seen_enough_is_no_failure() {
    let receiver = Receiver::start().await;
    let delivering = scene(&receiver).await;
    let config = delivering.config();
    let with_config = ["--config", config.to_str().unwrap()];
    let watch = (&["status", "--watch"][..], false);
    for (arguments, _) in COMMANDS.into_iter().chain([watch]) {
        let arguments = [&with_config, arguments].concat();
        let unread = run_unread(&delivering.fixture, &arguments).await;
        assert!(!unread.stderr.contains("error:"), "{arguments:?} {unread:#?}");
        assert_eq!(unread.code, Some(0), "{arguments:?} {unread:#?}");
    }

    // The exit code still says how a sync ended.
    let fixture = &delivering.fixture;
    fixture.age_rows().await;
    for id in fixture.sim.user_ids().iter().take(11) {
        fixture.sim.delete(id);
    }
    let unread = run_unread(fixture, &["--dry-run", "--exit-code"]).await;
    assert_eq!(
        (unread.code, unread.stderr.contains("error:")),
        (Some(4), false),
        "{unread:#?}"
    );
    let unread = run_unread(fixture, &["--once"]).await;
    assert_eq!(
        (unread.code, unread.stderr.contains("error:")),
        (Some(3), false),
        "{unread:#?}"
    );
}
