//! Random histories at Clerk while the real program runs and everything around it fails.
//!
//! A seed determines a history: what happens to users, to Clerk's answers, to Postgres and to the
//! program, and when. In the end the mirror must equal Clerk, and no existing user may ever be
//! deleted. `make test` plays a few. `make histories` plays others: `HISTORIES=1..1000` selects
//! them, and `HISTORIES=17` repeats one. For a failing history, the steps that it needs are
//! searched: `STEPS=3,8,11` plays only those. With `UNTIL_FAILURE=1`, the first failure ends the
//! test, and no steps are searched: `make mutants` needs no more.

#[allow(dead_code, reason = "the suite of tests uses more of it")]
#[path = "../it/support/mod.rs"]
mod support;

mod application;
mod breaking;
mod clerk;
mod clock;
mod faults;
mod inbox;
mod invariants;
mod organizations;
mod play;
mod replica;
mod scenes;
mod server;
mod shrink;
mod subscriber;
mod subscriptions;
mod tables;

use std::collections::BTreeSet;

use futures_util::{StreamExt, stream};
use play::{Story, Tried, play};
use tokio_util::sync::CancellationToken;

/// Histories played concurrently: they mostly wait.
const AT_A_TIME: usize = 9;

/// The histories that `make test` plays.
const SAMPLE: std::ops::Range<u64> = 1..19;

fn chosen() -> Vec<Story> {
    let Ok(text) = std::env::var("HISTORIES") else {
        return SAMPLE.map(Story::whole).collect();
    };
    let number = |text: &str| text.parse().unwrap_or_else(|_| panic!("{text:?} is no number"));
    let seeds = match text.split_once("..") {
        Some((first, last)) => number(first)..=number(last),
        None => number(&text)..=number(&text),
    };
    let mut stories: Vec<Story> = seeds.map(Story::whole).collect();
    if let Ok(steps) = std::env::var("STEPS") {
        let steps: BTreeSet<u64> = steps.split(',').filter(|step| !step.is_empty()).map(number).collect();
        stories.iter_mut().for_each(|story| story.steps.clone_from(&steps));
    }
    stories
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_breaks() {
    let stories = chosen();
    let count = stories.len();
    let mut tried = Tried::new();
    let mut failed = Vec::new();
    let until_failure = std::env::var_os("UNTIL_FAILURE").is_some();
    let stop = CancellationToken::new();
    let mut played = stream::iter(stories)
        .map(async |story| (story.clone(), play(story, &stop).await))
        .buffer_unordered(AT_A_TIME);
    let mut done = 0;
    while let Some((story, result)) = played.next().await {
        done += 1;
        if done % 100 == 0 {
            println!("{done} of {count}");
        }
        match result {
            Ok(of_one) => of_one
                .into_iter()
                .for_each(|(what, times)| *tried.entry(what).or_default() += times),
            Err(_) if until_failure => {
                // Those that are under way end.
                stop.cancel();
                panic!("history {} failed, after {done} of {count}", story.seed);
            }
            Err(_) => failed.push(story),
        }
    }
    println!("{count} histories, {} failed", failed.len());
    for (what, times) in tried {
        println!("{times:>8}  {what}");
    }
    if let Some(story) = failed.first() {
        let shrunk = shrink::shrink(story.clone()).await;
        let seeds: Vec<_> = failed.iter().map(|story| story.seed).collect();
        panic!("failed: {seeds:?}; the first of them with the fewest steps: {shrunk} make histories");
    }
}
