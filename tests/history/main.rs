//! Random histories at Clerk while the real program runs and everything around it breaks.
//!
//! A seed makes a history: what happens to users, what becomes of Clerk's answers, of Postgres and of the program itself, and when. In the
//! end the mirror must equal Clerk, and at no time may anybody be deleted who exists. `make histories` plays some; `HISTORIES=1..1000` chooses others,
//! and `HISTORIES=17` plays one again.

#[allow(dead_code, reason = "shared with the other tests, which use more of it")]
#[path = "../it/harness.rs"]
mod harness;
#[allow(dead_code, reason = "shared with the other tests, which use more of it")]
#[path = "../it/process.rs"]
mod process;
#[allow(dead_code, reason = "shared with the other tests, which use more of it")]
#[path = "../it/proxy.rs"]
mod proxy;

mod clerk;
mod invariants;
mod play;
mod replica;
mod trouble;

use std::{collections::BTreeMap, ops::Range};

use futures_util::{StreamExt, stream};
use play::play;

/// Histories that are played at once: most of the time they wait.
const AT_A_TIME: usize = 3;

/// Those that are played where nobody chooses.
const SAMPLE: Range<u64> = 1..25;

fn seeds() -> Range<u64> {
    let Ok(text) = std::env::var("HISTORIES") else {
        return SAMPLE;
    };
    let number = |text: &str| text.parse().unwrap_or_else(|_| panic!("HISTORIES={text:?} is no seed"));
    match text.split_once("..") {
        Some((first, last)) => number(first)..number(last) + 1,
        None => number(&text)..number(&text) + 1,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_breaks() {
    let seeds = seeds();
    let count = seeds.end - seeds.start;
    let mut tried = BTreeMap::<&str, u64>::new();
    let mut played = stream::iter(seeds).map(play).buffer_unordered(AT_A_TIME);
    while let Some(of_one) = played.next().await {
        of_one
            .into_iter()
            .for_each(|(what, times)| *tried.entry(what).or_default() += times);
    }
    println!("{count} histories");
    for (what, times) in tried {
        println!("{times:>8}  {what}");
    }
}
