//! The command line.

use std::path::PathBuf;

use clap::{ArgGroup, Parser, Subcommand, ValueEnum};

/// Keeps a Postgres database in sync with Clerk's users, without a webhook.
///
/// Without a command it runs as a daemon until SIGTERM: a full sync at start and every hour, and
/// every five seconds an incremental sync, which finds changes and deletions. The users are in the
/// table clerk.users of the database, and their changes in clerk.user_events.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "\
Environment:
  CLERK_SECRET_KEY   the Clerk instance's secret key (sk_live_… or sk_test_…)
  DATABASE_URL       postgres://user:password@host:port/database; what it leaves
                     out comes from PGHOST, PGSSLMODE and so on, as for psql
  CLERK_API_URL      another address than https://api.clerk.com
  CLERK_WEBHOOK_SIGNING_SECRET
                     signs what endpoints get that have no secret of their own
  RUST_LOG           log levels, for example clerk2pg=debug
Each of the first four also works as <NAME>_FILE and as a systemd credential,
and every setting of config.toml as CLERK2PG_<SECTION>__<KEY>.

Exit codes:
  0  in sync         1  failed        2  wrong usage or configuration
  3  done, but deletions are held
With --exit-code also:
  4  a dry run found differences      5  in sync, but users are rejected",
    group = ArgGroup::new("single").multiple(true)
)]
pub struct Arguments {
    /// Configuration file [default: ./config.toml, else /etc/clerk2pg/config.toml, if it exists]
    #[arg(long, value_name = "FILE", global = true)]
    pub config: Option<PathBuf>,

    /// Run one full sync, then exit
    #[arg(long, group = "single")]
    pub once: bool,

    /// Print the plan of one full sync; write nothing, not even migrations
    #[arg(long, group = "single")]
    pub dry_run: bool,

    /// With --once or --dry-run: exit with 5 if users are rejected; with --dry-run: exit with 4 if
    /// there are differences
    #[arg(long, requires = "single")]
    pub exit_code: bool,

    /// Format of the results on stdout; logs go to stderr
    #[arg(long, value_enum, default_value_t, global = true)]
    pub format: Format,

    /// Command to run instead of syncing
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// Format of the results on stdout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Format {
    /// For people
    #[default]
    Human,
    /// One JSON object
    Json,
}

/// Command to run instead of syncing.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum Command {
    /// Try everything that a sync needs, and say what is wrong and how to fix it; write nothing
    Check,
    /// Show the last syncs, freshness, held deletions, rejected users and tables
    Status,
    /// Approve the held deletions with this checksum, once
    Approve {
        /// The checksum, as in the report, the log or `clerk2pg status`
        sum: String,
    },
    /// Mirror another Clerk instance in this database; without its id, show the instance of the key
    ///
    /// Rows of users that the new instance does not know are held until you approve their deletion.
    Repin {
        /// The instance that the key belongs to, as this command shows it
        instance: Option<String>,
    },
    /// Apply migrations and exit
    Migrate,
    /// Ask the daemon on this machine whether it is ready: exit with 0 if it is, else with 1
    Health,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }
}
