//! The `clerk-sim` program.

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use clerk_sim::{Options, OrganizationOptions, PerOrganization, RateLimit, Sim};
use tokio::signal::unix::{SignalKind, signal};

/// Simulates what Clerk's Backend API has for users and organizations, on 127.0.0.1, with generated
/// users and faults on demand.
///
/// Prints one line when it listens. Ends with exit code 0 on SIGTERM and SIGINT. Faults, statistics
/// and random changes are under /_sim.
#[derive(Parser)]
#[command(name = "clerk-sim", version)]
struct Arguments {
    /// Number of users to generate
    #[arg(long, value_name = "N", default_value_t = 100)]
    users: usize,
    /// Seed: the same seed gives the same users and organizations
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Port to listen on; 0 takes a free port
    #[arg(long, value_name = "PORT", default_value_t = 8787)]
    port: u16,
    /// Rate limit to apply
    #[arg(long, value_enum, default_value_t = RateLimitArgument::Off)]
    rate_limit: RateLimitArgument,
    /// Latency to add to each answer, such as 80ms
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = humantime::parse_duration)]
    latency: Duration,
    /// Rate of random changes of users, such as 5/s or 30/min; of ten, six update, two create and two delete
    /// [default: none]
    #[arg(long, value_name = "RATE", value_parser = rate)]
    churn: Option<f64>,
    /// Number of organizations to generate; without this option, organizations are switched off
    #[arg(long, value_name = "N")]
    organizations: Option<usize>,
    /// Members of each organization: a number, several such as 0,1,500 in turn, or a range such as
    /// 1..20, in which small numbers are more frequent
    #[arg(long, value_name = "NUMBERS", default_value = "1..20", value_parser = per_organization)]
    members: PerOrganization,
    /// Invitations to each organization, in the same form
    #[arg(long, value_name = "NUMBERS", default_value = "0..5", value_parser = per_organization)]
    invitations: PerOrganization,
    /// Rate of random changes of organizations, memberships and invitations, such as 5/s
    /// [default: none]
    #[arg(long, value_name = "RATE", value_parser = rate)]
    organization_churn: Option<f64>,
    /// Secret key to accept; with sk_live_… the instance is a production instance
    #[arg(long, value_name = "KEY", default_value = "sk_test_clerk_sim")]
    secret_key: String,
    /// Id of the instance [default: derived from the seed]
    #[arg(long, value_name = "ID", default_value = "", hide_default_value = true)]
    instance: String,
}

#[derive(Clone, Copy, ValueEnum)]
enum RateLimitArgument {
    /// 1000 requests in 10 seconds
    Production,
    /// 100 requests in 10 seconds
    Development,
    /// No limit
    Off,
}

/// Reads `5/s`, `30/min` or `100/h` as changes per second.
fn rate(text: &str) -> Result<f64, String> {
    let seconds = |unit: &str| match unit.trim() {
        "s" | "sec" => Some(1.0),
        "m" | "min" => Some(60.0),
        "h" => Some(3600.0),
        _ => None,
    };
    let read = || {
        let (number, unit) = text.split_once('/')?;
        let number: f64 = number.trim().parse().ok()?;
        Some(number / seconds(unit)?).filter(|rate| (0.0..=100_000.0).contains(rate))
    };
    read().ok_or_else(|| "expected a number of changes per s, min or h, such as 5/s or 30/min".to_owned())
}

/// Reads `5`, `0,1,500` or `1..20`.
fn per_organization(text: &str) -> Result<PerOrganization, String> {
    let read = || match text.split_once("..") {
        Some((least, most)) => {
            let (least, most) = (least.trim().parse().ok()?, most.trim().parse().ok()?);
            (least <= most).then_some(PerOrganization::Skewed { least, most })
        }
        None => {
            let sizes = text.split(',').map(|size| size.trim().parse());
            Some(PerOrganization::Sizes(sizes.collect::<Result<_, _>>().ok()?))
        }
    };
    read().ok_or_else(|| "expected a number, several such as 0,1,500, or a range such as 1..20".to_owned())
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let options = Options {
        users: arguments.users,
        seed: arguments.seed,
        port: arguments.port,
        rate_limit: match arguments.rate_limit {
            RateLimitArgument::Production => RateLimit::Production,
            RateLimitArgument::Development => RateLimit::Development,
            RateLimitArgument::Off => RateLimit::Off,
        },
        latency: arguments.latency,
        churn: arguments.churn,
        organizations: OrganizationOptions {
            enabled: arguments.organizations.is_some(),
            number: arguments.organizations.unwrap_or(0),
            members: arguments.members,
            invitations: arguments.invitations,
            churn: arguments.organization_churn,
        },
        secret_key: arguments.secret_key,
        instance_id: arguments.instance,
    };
    tokio::select! {
        // The signal comes first, so that it also ends the program while it generates users.
        biased;
        stopped = stopped() => match stopped {
            Ok(()) => exit(0),
            Err(error) => eprintln!("error: cannot listen for signals: {error}"),
        },
        error = serve(options) => eprintln!("error: {error}"),
    }
    exit(1)
}

/// Exits without freeing a million users one by one. The operating system frees them at once.
fn exit(code: i32) -> ! {
    std::process::exit(code)
}

/// Serves. Returns only if that fails, with the reason.
async fn serve(options: Options) -> String {
    let (port, users) = (options.port, options.users);
    let sim = match Sim::start(options).await {
        Ok(sim) => sim,
        Err(error) => return format!("cannot listen on 127.0.0.1:{port}: {error}\nhint: --port 0 takes a free port"),
    };
    let line = format!(
        "clerk-sim listening on {} (instance {}, {users} users, key {})\n",
        sim.url(),
        sim.instance_id(),
        sim.secret_key()
    );
    let mut stdout = std::io::stdout();
    if let Err(error) = stdout.write_all(line.as_bytes()).and_then(|()| stdout.flush()) {
        return format!("cannot print the address to stdout: {error}");
    }
    std::future::pending().await
}

/// Waits for SIGTERM or SIGINT.
async fn stopped() -> std::io::Result<()> {
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
    Ok(())
}
