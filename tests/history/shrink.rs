//! Which steps of a history that fails are needed for that.

use std::time::{Duration, Instant};

use futures_util::future::join_all;

use crate::play::{Story, play};

/// Time is part of a history, and differs each time it is played: one counts as failing where any
/// of so many does.
const PLAYED: usize = 4;

/// How long it is looked for steps that can be left out.
const PATIENCE: Duration = Duration::from_secs(300);

/// Leaves out large parts first, then small ones, as long as it still fails.
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
    let played = join_all((0..PLAYED).map(|_| play(story.clone()))).await;
    played.iter().any(Result::is_err)
}
