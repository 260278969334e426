//! 100,000 memberships in 10,000 organizations: the first sync against psql's `\copy` of the same
//! rows, and an unchanged full sync against curl fetching the same pages.

use anyhow::{Result, ensure};
use clerk_sim::{OrganizationOptions, PerOrganization, RateLimit};
use tokio::process::Command;

use crate::{
    load::{ScratchFile, psql},
    options::Options,
    run::{Measurement, measure, median, ratio_row, show},
    table::Table,
    unchanged::{curl, page_list},
    world::{Server, World},
};

const DATABASE: &str = "organizations";

const ORGANIZATIONS: usize = 10_000;
const MEMBERS: usize = 10;

/// The ratios, at most.
const MAX_LOAD: f64 = 1.3;
const MAX_UNCHANGED: f64 = 1.5;
/// Peak memory, at most.
const MAX_MB: f64 = 96.0;

const TABLES: [&str; 3] = ["organizations", "organization_memberships", "organization_invitations"];

/// The number of rows that were ever written.
const WRITTEN: &str = "SELECT sum(n_tup_ins + n_tup_upd + n_tup_del)::bigint FROM pg_stat_user_tables
    WHERE schemaname = 'clerk' AND relname LIKE 'organization%'";

fn users_only(world: &World) -> Command {
    let mut command = world.command(DATABASE);
    command.env("CLERK2PG_MIRROR__RESOURCES", "users");
    command
}

pub async fn run(options: &Options, server: &Server, table: &mut Table) -> Result<()> {
    let organizations = OrganizationOptions {
        members: PerOrganization::Sizes(vec![MEMBERS]),
        ..OrganizationOptions::number(ORGANIZATIONS)
    };
    let world = World::with_organizations(ORGANIZATIONS, organizations, RateLimit::Off, server).await?;
    println!("First sync of {} memberships", ORGANIZATIONS * MEMBERS);
    let files = [
        ScratchFile::of(TABLES[0])?,
        ScratchFile::of(TABLES[1])?,
        ScratchFile::of(TABLES[2])?,
    ];
    let (mut loads, mut copies) = (Vec::new(), Vec::new());
    for _ in 0..options.runs {
        server.empty(DATABASE).await?;
        measure("clerk2pg", users_only(&world)).await?;
        server.execute(DATABASE, "CHECKPOINT").await?;
        // The users are in the mirror already.
        loads.push(world.once(DATABASE).await?);
        let rows = "SELECT count(*) FROM clerk.organization_memberships";
        let rows = server.number(DATABASE, rows).await?;
        ensure!(
            rows as usize == ORGANIZATIONS * MEMBERS,
            "the mirror has {rows} memberships"
        );
        let mut copied = Measurement::default();
        for (name, file) in TABLES.iter().zip(&files) {
            let path = file.0.display();
            psql(&world, DATABASE, &format!("\\copy clerk.{name} TO '{path}'")).await?;
            server.execute(DATABASE, &format!("TRUNCATE clerk.{name}")).await?;
            server.execute(DATABASE, "CHECKPOINT").await?;
            let one = psql(&world, DATABASE, &format!("\\copy clerk.{name} FROM '{path}'")).await?;
            copied.wall += one.wall;
            copied.cpu += one.cpu;
        }
        copies.push(copied);
    }
    show("clerk2pg", &loads);
    show("\\copy", &copies);
    let (load, copy) = (median(&loads), median(&copies));
    ratio_row(
        table,
        "first sync of 100,000 memberships, against \\copy",
        MAX_LOAD,
        load.wall,
        copy.wall,
    );
    let peak = loads.iter().map(|load| load.peak_mb).fold(0.0, f64::max);
    table.row(
        "its peak memory",
        format!("< {MAX_MB} MB"),
        format!("{peak:.0} MB"),
        peak < MAX_MB,
    );

    println!("Full sync of {} unchanged memberships", ORGANIZATIONS * MEMBERS);
    server.execute(DATABASE, "VACUUM ANALYZE").await?;
    let written = server.number(DATABASE, WRITTEN).await?;
    let before = world.sim.log().len();
    let mut syncs = vec![world.once(DATABASE).await?];
    let list = page_list(&world, before)?;
    let mut curls = Vec::new();
    for number in 0..options.runs {
        if number > 0 {
            syncs.push(world.once(DATABASE).await?);
        }
        curls.push(measure("curl", curl(&world, &list)).await?);
    }
    show("clerk2pg", &syncs);
    show("curl", &curls);
    let (sync, curl) = (median(&syncs), median(&curls));
    ratio_row(
        table,
        "unchanged full sync of 100,000 memberships, against curl",
        MAX_UNCHANGED,
        sync.wall,
        curl.wall,
    );
    let written = server.number(DATABASE, WRITTEN).await? - written;
    table.row("rows that it writes", "0", written.to_string(), written == 0);
    world.stop().await;
    Ok(())
}
