//! Other tools on the same simulator and server.
//!
//! Each does an initial load into an empty database, and a second run in which nothing has changed.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use tokio::process::Command;

use crate::{
    options::Options,
    run::{Measurement, measure, median, show},
    table::Table,
    world::World,
};

/// Another tool.
struct Peer {
    /// The folder below benches/peers.
    folder: &'static str,
    name: &'static str,
    /// The wanted ratios of the initial load and of the second run.
    wanted: (f64, f64),
}

const PEERS: [Peer; 3] = [
    Peer {
        folder: "node",
        name: "@clerk/backend and Prisma",
        wanted: (8.0, 50.0),
    },
    Peer {
        folder: "dlt",
        name: "dlt",
        wanted: (8.0, 30.0),
    },
    Peer {
        folder: "singer",
        name: "tap-clerk and target-postgres",
        wanted: (20.0, 90.0),
    },
];

const DATABASE: &str = "peers";

pub async fn run(world: &World, options: &Options, table: &mut Table) -> Result<()> {
    println!("{} users, against other tools", world.users);
    let ours = twice(world, options, "clerk2pg", "clerk.users", || world.command(DATABASE)).await?;
    for peer in &PEERS {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("benches/peers")
            .join(peer.folder);
        let installed =
            PathBuf::from(std::env::var("BENCH_PEERS").context("BENCH_PEERS is not set: run `make bench`")?)
                .join(peer.folder);
        let mut setup = Command::new(folder.join("setup"));
        setup.arg(&installed);
        let what = |run: &str| format!("{run}, against {}", peer.name);
        if let Err(error) = measure("setup", setup).await {
            let why = format!("{error:#}");
            table.unmeasured(what("initial load"), format!("≥ {} ×", peer.wanted.0), &why);
            table.unmeasured(what("second run"), format!("≥ {} ×", peer.wanted.1), &why);
            continue;
        }
        let rows = std::fs::read_to_string(folder.join("table"))?;
        let command = || {
            let mut command = Command::new(folder.join("run"));
            command
                .arg(&installed)
                .env("DATABASE_URL", world.server().url(DATABASE))
                .env("CLERK_SECRET_KEY", world.sim.secret_key())
                .env("CLERK_API_URL", world.sim.url());
            command
        };
        let theirs = twice(world, options, peer.name, rows.trim(), command).await?;
        for (run, wanted, ours, theirs) in [
            ("initial load", peer.wanted.0, ours.0, theirs.0),
            ("second run", peer.wanted.1, ours.1, theirs.1),
        ] {
            let ratio = theirs.wall.as_secs_f64() / ours.wall.as_secs_f64();
            let rate = |run: Measurement| world.users as f64 / run.wall.as_secs_f64();
            let measured = format!("{ratio:.1} × ({:.0} and {:.0} users/s)", rate(ours), rate(theirs));
            table.row(what(run), format!("≥ {wanted} ×"), measured, ratio >= wanted);
        }
    }
    Ok(())
}

/// Measures initial loads and second runs.
async fn twice(
    world: &World,
    options: &Options,
    name: &str,
    rows: &str,
    command: impl Fn() -> Command,
) -> Result<(Measurement, Measurement)> {
    let (mut first, mut second) = (Vec::new(), Vec::new());
    for _ in 0..options.runs {
        world.server().empty(DATABASE).await?;
        first.push(measure(name, command()).await?);
        second.push(measure(name, command()).await?);
        let count = world
            .server()
            .number(DATABASE, &format!("SELECT count(*) FROM {rows}"))
            .await?;
        ensure!(usize::try_from(count) == Ok(world.users), "{name} stored {count} users");
    }
    show(&format!("{name}, initial load"), &first);
    show(&format!("{name}, second run"), &second);
    Ok((median(&first), median(&second)))
}
