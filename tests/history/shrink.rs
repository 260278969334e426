//! Finds the steps that a failing history needs.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tokio_util::sync::CancellationToken;

use crate::play::{Story, play};

/// Time differs each time a history is played: one fails if any of this many attempts fails.
const PLAYED: usize = 4;

/// How long to search for steps that can be left out.
const PATIENCE: Duration = Duration::from_secs(300);

/// Leaves out large parts first, then small ones, while the history still fails.
pub async fn shrink(mut story: Story) -> Story {
    let started = Instant::now();
    let mut part = story.steps.len().div_ceil(2);
    while part > 0 {
        let mut kept = 0;
        while kept < story.steps.len() {
            if started.elapsed() > PATIENCE {
                return story;
            }
            let mut shorter = story.clone();
            shorter.steps = story
                .steps
                .iter()
                .take(kept)
                .chain(story.steps.iter().skip(kept + part))
                .copied()
                .collect();
            if fails(&shorter).await {
                println!("still fails: {shorter}");
                story = shorter;
            } else {
                kept += part;
            }
        }
        part = if part == 1 { 0 } else { part.div_ceil(2) };
    }
    story
}

async fn fails(story: &Story) -> bool {
    let stop = CancellationToken::new();
    let played = join_all((0..PLAYED).map(|_| play(story.clone(), &stop))).await;
    played.iter().any(Result::is_err)
}
