//! Connects the parts.

fn main() {}
