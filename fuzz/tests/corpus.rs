//! Replays what the fuzzer found worth keeping, and the events that users run.

use std::fs;
use std::path::Path;

use login_etl_fuzz::{check_body, check_event};

#[test]
fn every_kept_event_holds() {
    replay("corpus/event", check_event);
}

#[test]
fn every_kept_body_holds() {
    replay("corpus/body", check_body);
}

#[test]
fn every_sample_event_holds() {
    replay("../events", check_event);
}

fn replay(folder: &str, check: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let inputs = fs::read_dir(folder).unwrap();
    let mut replayed = 0;
    for input in inputs {
        let path = input.unwrap().path();
        // It is captured, and so shown if this is the one that panics.
        println!("{}", path.display());
        check(&fs::read(path).unwrap());
        replayed += 1;
    }
    assert!(replayed > 0, "there is nothing to replay");
}
