//! Rebuilds when a migration changes: `embed_migrations!` does not declare the folder as an input.

fn main() {
    println!("cargo::rerun-if-changed=migrations");
}
