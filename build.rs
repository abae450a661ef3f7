//! Has everything built again when there is another migration: the macro that takes them in cannot say that
//! it did.

fn main() {
    println!("cargo::rerun-if-changed=migrations");
}
