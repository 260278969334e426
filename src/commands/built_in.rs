//! Commands that print what is built into the program: they need no connection.

use std::io::{self, Write};

use clap::CommandFactory;
use clerk2pg::{
    cli::{Arguments, Command},
    failure::{Cause, Failure},
    print_schema::print_schema,
};

use super::{Exit, printed};

/// Runs such a command if it needs no configuration either; `None` if it is another one.
pub fn print_built_in(arguments: &Arguments) -> Option<Result<Exit, Failure>> {
    let mut command = Arguments::command();
    let text = match arguments.command.as_ref()? {
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
    Some(print(&text))
}

/// Prints the tables of the mirror's schema: `print-schema`.
pub fn run_print_schema(arguments: &Arguments) -> Result<Exit, Failure> {
    print(print_schema(arguments.schema_format()).as_bytes())
}

fn print(text: &[u8]) -> Result<Exit, Failure> {
    printed(io::stdout().write_all(text)).map(|()| Exit::Success)
}
