//! The migrations are embedded at compile time; cargo does not see by itself that they are sources.

fn main() {
    println!("cargo:rerun-if-changed=migrations");
}
