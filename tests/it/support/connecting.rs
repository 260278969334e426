//! Runs `clerk2pg migrate` with one database URL, and asserts that it connects or is refused.

use crate::support::{
    postgres::Postgres,
    program::{ProgramOutput, command},
    summary::Exit,
};

/// Runs `clerk2pg migrate` with the test's own home directory.
pub async fn migrate(server: &Postgres, url: &str, environment: &[(&str, &str)]) -> ProgramOutput {
    let mut command = command();
    command
        .arg("migrate")
        .env("DATABASE_URL", url)
        .env("HOME", server.files.path())
        .envs(environment.iter().copied());
    command.output().await.unwrap().into()
}

/// Returns the URL of a role at `localhost`, the name in the server's certificate.
pub fn url(server: &Postgres, role: &str, parameters: &str) -> String {
    format!(
        "postgres://{role}:hidden@localhost:{}/postgres?{parameters}",
        server.port
    )
}

#[track_caller]
pub fn assert_accepted(ran: &ProgramOutput) {
    ran.assert_exit(Exit::Ok);
    assert!(!ran.stderr.contains("WARN"), "{ran:#?}");
}

#[track_caller]
pub fn assert_refused(ran: &ProgramOutput, exit: Exit, what: &str, hint: &str) {
    ran.assert_error(exit, what, hint);
    assert!(!ran.stderr.contains("hidden"), "{ran:#?}");
}
