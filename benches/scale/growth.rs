//! The cost with ten and a hundred times as many users.

use anyhow::Result;

use crate::{load, run::Measurement, table::Table, world::World};

/// The number of users, with the initial load and the next full sync.
pub type Size = (usize, Measurement, Measurement);

/// The ratio of peak memory, at most.
const MAX_RATIO: f64 = 2.0;

pub async fn measure(world: &World) -> Result<Size> {
    println!("Initial load and unchanged full sync of {} users", world.users);
    let loaded = load::run_once(world).await?;
    world
        .server()
        .execute(load::DATABASE, "VACUUM ANALYZE clerk.users")
        .await?;
    Ok((world.users, loaded, world.once(load::DATABASE).await?))
}

pub fn show(sizes: &[Size], table: &mut Table) {
    println!("\n| users | initial load | CPU | peak | unchanged | CPU | peak |");
    println!("|------:|-------------:|----:|-----:|----------:|----:|-----:|");
    for (users, load, again) in sizes {
        let [load, again] = [load, again].map(|run| {
            format!(
                "{:.2} s | {:.2} s | {:.0} MB",
                run.wall.as_secs_f64(),
                run.cpu,
                run.peak_mb
            )
        });
        println!("| {users} | {load} | {again} |");
    }
    if let ([(few, smallest, _), .., (many, largest, _)], true) = (sizes, sizes.len() > 1) {
        let ratio = largest.peak_mb / smallest.peak_mb;
        let what = format!("peak memory of {many} users, against {few}");
        table.row(
            what,
            format!("≤ {MAX_RATIO} ×"),
            format!("{ratio:.2} ×"),
            ratio <= MAX_RATIO,
        );
    }
}
