//! The process: arguments, logging and exit codes.

mod commands;
mod setup;

use std::{io::Write, process::ExitCode, time::Duration};

use clap::{CommandFactory, Parser};
use clerk2pg::{
    check,
    cli::{Arguments, Command},
    config::{self, ClerkSettings, ConfigSource, Loaded},
    failure::{Cause, Failure},
    logging::{self, LogLevel},
    mirror::set_schema,
    output,
    printable::printable,
    progress::Progress,
};
use commands::{Exit, Invocation};
use tracing::warn;

const FAILED: u8 = 1;
const USAGE: u8 = 2;
const HELD: u8 = 3;
const DIFFERENCES: u8 = 4;
const REJECTED: u8 = 5;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Some(message) = arguments.conflict() {
        Arguments::command()
            .error(clap::error::ErrorKind::ArgumentConflict, message)
            .exit();
    }
    if let Some(result) = commands::print_built_in(&arguments) {
        return result.map_or_else(|failure| report_failure(&arguments, &failure), exit_code);
    }
    // `init` writes the file if there is none.
    let is_new = matches!(arguments.command, Some(Command::Init { .. }));
    let file = arguments.config.clone().filter(|file| !is_new || file.exists());
    let loaded = match config::load(&ConfigSource::of_process(file)) {
        Ok(loaded) => loaded,
        Err(error) => return reject_configuration(&arguments, error.into()),
    };
    set_schema(&loaded.settings.database.schema);
    let progress = Progress::default();
    let log = &loaded.settings.log;
    let level = match logging::start(log.format, &log.level, progress.clone()) {
        Ok(level) => level,
        Err(error) => {
            let message = format!("log.level (or RUST_LOG) cannot be used: {error}");
            let failure = Failure::new(Cause::Configuration, message).hint("for example info, or clerk2pg=debug");
            return reject_configuration(&arguments, failure);
        }
    };
    // It fails only if a provider is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            print_error(&format!("cannot start the runtime: {error}"), None);
            return ExitCode::from(FAILED);
        }
    };
    let code = runtime.block_on(run(&arguments, loaded, &level, &progress));
    // A connection that hangs must not keep the process: its work is committed or given up by now.
    runtime.shutdown_timeout(Duration::from_millis(100));
    code
}

/// Runs the command, and returns the exit code.
async fn run(arguments: &Arguments, loaded: Loaded, level: &LogLevel, progress: &Progress) -> ExitCode {
    // A missing key is reported before a missing database. A probe needs neither; `check` reports
    // both. Only the daemon delivers events.
    let both = || loaded.require_key().and_then(|()| loaded.require_database());
    let required = match arguments.command {
        None if arguments.once || arguments.dry_run => both(),
        None => both().and_then(|()| loaded.require_endpoints().map(|_| ())),
        Some(Command::Check | Command::Health | Command::Init { .. } | Command::PrintSchema) => Ok(()),
        // It needs the database only for the instance's id.
        Some(Command::SendTest { .. }) => Ok(()),
        Some(_) => loaded.require_database(),
    };
    if let Err(error) = required {
        return reject_configuration(arguments, error.into());
    }
    if arguments.command.is_none() {
        warn_of_exposed_secrets(&loaded);
    }
    let format = arguments.format();
    let result = match &arguments.command {
        Some(Command::Init { tables }) => commands::run_init(&loaded, arguments, tables).await,
        Some(Command::Check) => commands::run_check(&loaded, format).await,
        Some(Command::Status { watch: None }) => commands::run_status(&loaded, format).await,
        Some(Command::Status { watch: Some(pause) }) => commands::watch_status(&loaded, format, *pause).await,
        Some(Command::Approve { sum }) => commands::run_approve(&loaded, format, sum).await,
        Some(Command::Repin { instance }) => commands::run_repin(&loaded, format, instance.as_deref(), progress).await,
        Some(Command::Endpoints) => commands::run_endpoints(&loaded, format).await,
        Some(Command::Redeliver { endpoint, which }) => {
            commands::run_redeliver(&loaded, format, endpoint, &which.redelivery()).await
        }
        Some(Command::SendTest { endpoint }) => commands::run_send_test(&loaded, format, endpoint).await,
        Some(Command::Migrate) => commands::run_migrate(&loaded, format).await,
        Some(Command::Health) => commands::run_health(&loaded, format).await,
        Some(Command::PrintSchema) => commands::run_print_schema(arguments),
        // They need no configuration, and are done already.
        Some(Command::Completions { .. } | Command::Man { .. }) => Ok(Exit::Success),
        None if arguments.dry_run => commands::run_dry_run(&loaded, arguments, progress).await,
        None if arguments.once => commands::run_once(&loaded, arguments, progress).await,
        None => {
            let invocation = Invocation {
                arguments,
                loaded,
                level,
                progress,
            };
            commands::run_daemon(invocation).await
        }
    };
    result.map_or_else(|failure| report_failure(arguments, &failure), exit_code)
}

fn exit_code(exit: Exit) -> ExitCode {
    ExitCode::from(match exit {
        Exit::Success => 0,
        Exit::Incomplete => FAILED,
        Exit::Unusable => USAGE,
        Exit::Held => HELD,
        Exit::Differences => DIFFERENCES,
        Exit::Rejected => REJECTED,
    })
}

/// Logs where others can read a secret.
fn warn_of_exposed_secrets(loaded: &Loaded) {
    for file in loaded.exposed() {
        let file = file.display().to_string();
        let hint = format!("chmod o-r {file}");
        warn!(
            file,
            hint, "other users of this machine can read the secret in this file"
        );
    }
    let clerk: &ClerkSettings = &loaded.settings.clerk;
    if clerk.sends_key_in_clear() {
        warn!(
            api_url = clerk.api_url,
            "the secret key is sent to another machine in clear text; set clerk.api_url to an https:// address"
        );
    }
}

/// Reports a configuration that cannot be used; for `check` it is a finding.
fn reject_configuration(arguments: &Arguments, failure: Failure) -> ExitCode {
    if arguments.command != Some(Command::Check) {
        return report_failure(arguments, &failure);
    }
    let result = commands::report_findings(arguments.format(), &check::unusable(&failure));
    result.map_or_else(|failure| report_failure(arguments, &failure), exit_code)
}

/// Reports a failure to people on stderr, and a failed sync to programs on stdout.
fn report_failure(arguments: &Arguments, failure: &Failure) -> ExitCode {
    print_error(&failure.message, failure.hint.as_deref());
    let syncs_once = arguments.command.is_none() && (arguments.once || arguments.dry_run);
    if syncs_once
        && let Err(error) = output::failure(arguments.format(), failure)
        && !output::is_closed(&error)
    {
        print_error(&format!("cannot write to stdout: {error}"), None);
    }
    ExitCode::from(match failure.cause {
        Cause::Configuration => USAGE,
        _ => FAILED,
    })
}

fn print_error(message: &str, hint: Option<&str>) {
    let error = anstyle::AnsiColor::Red.on_default().bold();
    let mut stderr = anstream::stderr().lock();
    // If stderr is closed, nobody can be informed.
    let _ = writeln!(stderr, "{error}error:{error:#} {}", printable(message));
    if let Some(hint) = hint {
        let _ = writeln!(stderr, "hint: {}", printable(hint));
    }
}
