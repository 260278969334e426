//! The pages of the documentation, and their code, which tests run as it stands there.

use std::{fs, path::Path};

/// Reads a page; `path` begins at the repository's root.
pub fn page(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// Returns a page's code blocks in a language, in their order.
pub fn code_blocks<'p>(page: &'p str, language: &str) -> Vec<&'p str> {
    let start = format!("```{language}\n");
    let blocks = page.split(&start).skip(1);
    blocks.map(|block| block.split("```").next().unwrap()).collect()
}
