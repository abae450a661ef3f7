//! Checks the inputs that the fuzzer kept, and the sample events in `events/`.

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
        // The test prints this only if it fails, so the last path is the input that failed.
        println!("{}", path.display());
        check(&fs::read(path).unwrap());
        replayed += 1;
    }
    assert!(replayed > 0, "the folder is empty");
}
