//! What ten and a hundred times as many users take.

use anyhow::Result;

use crate::{load, run::Took, table::Table, world::World};

/// How many users, what their initial load took, and what the next full sync took.
pub type Size = (usize, Took, Took);

const MOST: f64 = 2.0;

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
        let [load, again] = [load, again].map(|took| {
            format!(
                "{:.2} s | {:.2} s | {:.0} MB",
                took.wall.as_secs_f64(),
                took.cpu,
                took.peak_mb
            )
        });
        println!("| {users} | {load} | {again} |");
    }
    if let ([(few, least, _), .., (many, most, _)], true) = (sizes, sizes.len() > 1) {
        let ratio = most.peak_mb / least.peak_mb;
        let what = format!("peak memory of {many} users, against {few}");
        table.row(what, format!("≤ {MOST} ×"), format!("{ratio:.2} ×"), ratio <= MOST);
    }
}
