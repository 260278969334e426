//! The command line.

use std::{path::PathBuf, time::Duration};

use chrono::DateTime;
use clap::{ArgGroup, Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use crate::{deliver::event_number, mirror::Redelivery, print_schema::SchemaFormat};

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
    #[arg(long = "format", value_name = "FORMAT", value_enum, default_value_t, global = true)]
    format_name: FormatName,

    /// Command to run instead of syncing
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// Format of the results on stdout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Human,
    /// One JSON object.
    Json,
}

/// What `--format` takes. `print-schema` has formats of its own, but clap knows one option of this name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
enum FormatName {
    /// For people
    #[default]
    Human,
    /// One JSON object
    Json,
    #[value(hide = true)]
    Sql,
    #[value(hide = true)]
    Prisma,
    #[value(hide = true)]
    Drizzle,
    #[value(hide = true)]
    Kysely,
}

impl Arguments {
    /// Returns the format of the results.
    pub fn format(&self) -> Format {
        match self.format_name {
            FormatName::Json => Format::Json,
            _ => Format::Human,
        }
    }

    /// Returns what is wrong with the combination of options; `None` if nothing is.
    pub fn conflict(&self) -> Option<&'static str> {
        let prints_schema = matches!(self.command, Some(Command::PrintSchema));
        match self.format_name {
            _ if self.command.is_some() && (self.once || self.dry_run) => {
                Some("--once and --dry-run cannot be used with a command")
            }
            FormatName::Json if prints_schema => Some("print-schema has the formats sql, prisma, drizzle and kysely"),
            FormatName::Human | FormatName::Json => None,
            _ if prints_schema => None,
            _ => Some("only print-schema has this format; the others are human and json"),
        }
    }

    /// Returns the format of `print-schema`.
    pub fn schema_format(&self) -> SchemaFormat {
        match self.format_name {
            FormatName::Human | FormatName::Json | FormatName::Sql => SchemaFormat::Sql,
            FormatName::Prisma => SchemaFormat::Prisma,
            FormatName::Drizzle => SchemaFormat::Drizzle,
            FormatName::Kysely => SchemaFormat::Kysely,
        }
    }
}

/// Command to run instead of syncing.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum Command {
    /// Look at the environment and the database, write a config.toml if there is none, and say what is missing
    Init {
        /// Propose how a table of the application is kept in sync, for example public."User"
        #[arg(long = "table", value_name = "NAME")]
        tables: Vec<String>,
    },
    /// Try everything that a sync needs, and say what is wrong and how to fix it; write nothing
    Check,
    /// Show the last syncs, freshness, held deletions, rejected users, tables and endpoints
    Status {
        /// Show it again and again, every two seconds or as often as this says
        #[arg(long, value_name = "EVERY", num_args = 0..=1, default_missing_value = "2s", value_parser = pause)]
        watch: Option<Duration>,
    },
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
    /// Show how far events are delivered to each endpoint, and which events are dead
    Endpoints,
    /// Deliver events to an endpoint again: without an option those that are dead
    Redeliver {
        /// The endpoint's name
        endpoint: String,
        /// Which events
        #[command(flatten)]
        which: EventChoice,
    },
    /// Send an event of the type clerk2pg.test to an endpoint now, and show what it answers
    SendTest {
        /// The endpoint's name
        endpoint: String,
    },
    /// Apply migrations and exit
    Migrate,
    /// Ask the daemon on this machine whether it is ready: exit with 0 if it is, else with 1
    Health,
    /// Print the tables of the schema clerk as types: --format sql, prisma, drizzle or kysely
    PrintSchema,
    /// Print completions for a shell: clerk2pg completions bash >> ~/.bashrc
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Write the manual pages into a folder
    Man {
        /// The folder, which exists
        folder: PathBuf,
    },
}

/// Which events `redeliver` delivers again.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
#[group(multiple = false)]
pub struct EventChoice {
    /// Deliver the events that were recorded since then: a time such as 2026-11-28T13:00:00Z, or a
    /// duration such as 2h
    #[arg(long, value_name = "TIME", value_parser = since)]
    pub since: Option<Redelivery>,

    /// Deliver these events: their numbers in clerk.events, or their svix-ids
    #[arg(long, value_name = "ID", num_args = 1.., value_parser = event_id)]
    pub id: Vec<i64>,

    /// Deliver a created event for each user in the mirror
    #[arg(long)]
    pub everything: bool,
}

impl EventChoice {
    /// Returns what is delivered again: without an option, the dead events.
    pub fn redelivery(&self) -> Redelivery {
        match self {
            EventChoice { since: Some(since), .. } => since.clone(),
            EventChoice { everything: true, .. } => Redelivery::Everything,
            EventChoice { id, .. } if !id.is_empty() => Redelivery::Ids(id.clone()),
            EventChoice { .. } => Redelivery::Dead,
        }
    }
}

/// Reads a pause of at least a tenth of a second.
fn pause(text: &str) -> Result<Duration, String> {
    let pause = humantime::parse_duration(text).map_err(|error| format!("{error}, for example 2s"))?;
    Ok(pause.max(Duration::from_millis(100)))
}

/// Reads a time, or how long ago it was.
fn since(text: &str) -> Result<Redelivery, String> {
    if let Ok(ago) = humantime::parse_duration(text) {
        return Ok(Redelivery::Within(ago));
    }
    match DateTime::parse_from_rfc3339(text) {
        Ok(at) => Ok(Redelivery::Since(at.to_utc())),
        Err(_) => Err("it is neither a time such as 2026-11-28T13:00:00Z nor a duration such as 2h".to_owned()),
    }
}

/// Reads the number of an event.
fn event_id(text: &str) -> Result<i64, String> {
    event_number(text).ok_or_else(|| {
        "it is neither the number of an event in clerk.events nor a svix-id that ends with one; \
         --everything sends created events of the mirror again"
            .to_owned()
    })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn a_time_is_one_of_the_calendar_or_a_duration() {
        assert_eq!(since("2h"), Ok(Redelivery::Within(Duration::from_hours(2))));
        assert_eq!(since("1d 30s"), Ok(Redelivery::Within(Duration::from_secs(86_430))));
        let at = DateTime::from_timestamp(1_795_870_800, 0).unwrap();
        for text in [
            "2026-11-28T13:00:00Z",
            "2026-11-28T15:00:00+02:00",
            "2026-11-28 13:00:00.000Z",
        ] {
            assert_eq!(since(text), Ok(Redelivery::Since(at)), "{text}");
        }
        for text in ["", "2", "-2h", "yesterday", "2026-11-28", "2026-11-28T13:00:00"] {
            assert!(since(text).is_err(), "{text}");
        }
    }

    #[test]
    fn redeliver_takes_one_option() {
        let parse = |arguments: &str| {
            let arguments = format!("clerk2pg redeliver {arguments}");
            let parsed = Arguments::try_parse_from(arguments.split_whitespace());
            parsed.map(|arguments| arguments.command.unwrap())
        };
        let check = |arguments: &str, expected| match parse(arguments).unwrap() {
            Command::Redeliver { endpoint, which } => {
                assert_eq!(
                    (endpoint.as_str(), which.redelivery()),
                    ("app", expected),
                    "{arguments}"
                );
            }
            other => panic!("{other:?}"),
        };
        check("app", Redelivery::Dead);
        check("app --since 5m", Redelivery::Within(Duration::from_mins(5)));
        let id = "msg_ABCDEFGHIJKLMNOP00000000017";
        check(&format!("app --id 5 {id}"), Redelivery::Ids(vec![5, 17]));
        check(&format!("--id 5 --id {id} -- app"), Redelivery::Ids(vec![5, 17]));
        check("--everything app", Redelivery::Everything);
        for arguments in [
            "",
            "app --everything --since 2h",
            "app --id 1 --since 2h",
            "app --id",
            "app --id msg_x",
        ] {
            assert!(parse(arguments).is_err(), "{arguments}");
        }
    }

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }
}
