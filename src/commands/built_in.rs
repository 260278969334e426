//! Commands that print what is built into the program: they need neither configuration nor a connection.

use std::io::{self, Write};

use clap::CommandFactory;
use clerk2pg::{
    cli::{Arguments, Command},
    failure::{Cause, Failure},
    print_schema::print_schema,
};

use super::{Exit, stdout_failed};

/// Runs such a command; `None` if it is another one.
pub fn print_built_in(arguments: &Arguments) -> Option<Result<Exit, Failure>> {
    let mut command = Arguments::command();
    let text = match arguments.command.as_ref()? {
        Command::PrintSchema => print_schema(arguments.schema_format()).into_bytes(),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut command, "clerk2pg", &mut script);
            script
        }
        Command::Man { folder } => {
            let written = clap_mangen::generate_to(command, folder);
            let failed = |error| Failure::new(Cause::Other, format!("cannot write into {}: {error}", folder.display()));
            return Some(written.map_err(failed).map(|()| Exit::Success));
        }
        _ => return None,
    };
    Some(match io::stdout().write_all(&text) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(stdout_failed(error)),
        _ => Ok(Exit::Success),
    })
}
