//! Runs the pure stages once, for callgrind to count their instructions: see `instructions.py`.

use std::hint::black_box;

mod batch;

fn main() {
    let event = batch::event();
    let mut masker = batch::masker();
    let messages = batch::read(&event);
    let logins = batch::decode(&messages);
    black_box(batch::mask(logins, &mut masker));
}
