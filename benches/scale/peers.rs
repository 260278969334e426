//! Other tools on the same simulator and server.
//!
//! Each does an initial load into an empty database, and a second run in which nothing has changed.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use tokio::process::Command;

use crate::{
    app_table::{self, AppTable},
    options::Options,
    run::{Measurement, measure, median, show},
    table::Table,
    world::World,
};

/// Another tool.
struct Peer {
    /// The folder below benches/peers.
    folder: &'static str,
    /// The script that `run` starts, if the folder has several.
    script: Option<&'static str>,
    name: &'static str,
    /// The table that it fills.
    rows: &'static str,
    /// The wanted ratios of the initial load and of the second run.
    wanted: [f64; 2],
}

const PEERS: [Peer; 3] = [
    Peer {
        folder: "node",
        script: None,
        name: "@clerk/backend and Prisma",
        rows: r#"public."User""#,
        wanted: [8.0, 50.0],
    },
    Peer {
        folder: "dlt",
        script: None,
        name: "dlt",
        rows: "clerk.users",
        wanted: [8.0, 30.0],
    },
    Peer {
        folder: "singer",
        script: None,
        name: "tap-clerk and target-postgres",
        rows: "clerk.users",
        wanted: [20.0, 90.0],
    },
];

/// Fills the application's table, and nothing else.
const PRISMA_COLUMNS: Peer = Peer {
    folder: "node",
    script: Some("sync-app.mjs"),
    name: "Prisma for the same columns",
    rows: app_table::NAME,
    wanted: [25.0, 80.0],
};

/// Stores everything, as clerk2pg does beside the application's table.
const PRISMA_EVERYTHING: Peer = Peer {
    name: "Prisma for everything",
    wanted: [25.0, 80.0],
    ..PEERS[0]
};

const DATABASE: &str = "peers";

/// Measures the peers that store everything of a user.
pub async fn run(world: &World, options: &Options, table: &mut Table) -> Result<()> {
    println!("{} users, against other tools", world.users);
    let runs = ["initial load", "second run"];
    let ours = twice(world, options, "clerk2pg", ("clerk.users", ""), || {
        world.command(DATABASE)
    })
    .await?;
    for peer in &PEERS {
        against(world, options, peer, "", (runs, ours), table).await?;
    }
    Ok(())
}

/// Measures the script that fills the application's table, and the one that stores everything.
pub async fn run_prisma(world: &World, options: &Options, table: &mut Table) -> Result<()> {
    println!("{} users and an application's table, against Prisma", world.users);
    let runs = ["initial load of a table", "second run with a table"];
    let app = AppTable::new()?;
    let rows = (app_table::NAME, app_table::CREATE);
    let ours = twice(world, options, "clerk2pg", rows, || app.command(world, DATABASE)).await?;
    let content = world.server().number(DATABASE, app_table::CONTENT).await?;
    against(world, options, &PRISMA_COLUMNS, app_table::CREATE, (runs, ours), table).await?;
    ensure!(
        world.server().number(DATABASE, app_table::CONTENT).await? == content,
        "clerk2pg and {} filled the table differently",
        PRISMA_COLUMNS.name
    );
    against(world, options, &PRISMA_EVERYTHING, "", (runs, ours), table).await
}

/// Measures a peer, and adds its ratios to `ours`: the names and the measurements of the initial
/// load and the second run. `create` makes the tables that exist before.
async fn against(
    world: &World,
    options: &Options,
    peer: &Peer,
    create: &str,
    (runs, ours): ([&str; 2], [Measurement; 2]),
    table: &mut Table,
) -> Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("benches/peers")
        .join(peer.folder);
    let installed = PathBuf::from(std::env::var("BENCH_PEERS").context("BENCH_PEERS is not set: run `make bench`")?)
        .join(peer.folder);
    let mut setup = Command::new(folder.join("setup"));
    setup.arg(&installed);
    let what = |run: &str| format!("{run}, against {}", peer.name);
    if let Err(error) = measure("setup", setup).await {
        for (run, wanted) in runs.into_iter().zip(peer.wanted) {
            table.unmeasured(what(run), format!("≥ {wanted} ×"), format!("{error:#}"));
        }
        return Ok(());
    }
    let command = || {
        let mut command = Command::new(folder.join("run"));
        command
            .arg(&installed)
            .args(peer.script)
            .env("DATABASE_URL", world.server().url(DATABASE))
            .env("CLERK_SECRET_KEY", world.sim.secret_key())
            .env("CLERK_API_URL", world.sim.url());
        command
    };
    let theirs = twice(world, options, peer.name, (peer.rows, create), command).await?;
    for (index, run) in runs.into_iter().enumerate() {
        let (ours, theirs, wanted) = (ours[index], theirs[index], peer.wanted[index]);
        let ratio = theirs.wall.as_secs_f64() / ours.wall.as_secs_f64();
        let rate = |run: Measurement| world.users as f64 / run.wall.as_secs_f64();
        let measured = format!("{ratio:.1} × ({:.0} and {:.0} users/s)", rate(ours), rate(theirs));
        table.row(what(run), format!("≥ {wanted} ×"), measured, ratio >= wanted);
    }
    Ok(())
}

/// Measures initial loads and second runs. `create` makes the tables that exist before, and `rows`
/// is the one that must have all users at the end.
async fn twice(
    world: &World,
    options: &Options,
    name: &str,
    (rows, create): (&str, &str),
    command: impl Fn() -> Command,
) -> Result<[Measurement; 2]> {
    let (mut first, mut second) = (Vec::new(), Vec::new());
    for _ in 0..options.runs {
        world.server().empty(DATABASE).await?;
        world.server().execute(DATABASE, create).await?;
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
    Ok([median(&first), median(&second)])
}
