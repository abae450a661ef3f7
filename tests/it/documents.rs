//! The documents list the same names as the code.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use login::failures::FailureReason;
use login_etl::error::BatchError;

/// Reads the names in the first column of the table with this heading.
fn names(document: &str, heading: &str) -> BTreeSet<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(document);
    let text = fs::read_to_string(path).unwrap();
    let table = text.split_once(&format!("\n| `{heading}` |")).expect("the table is there").1;
    let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
    let names = rows.flat_map(|row| row.split('|').nth(1).unwrap().split('`').skip(1).step_by(2));
    names.map(ToOwned::to_owned).collect()
}

#[test]
fn documents_list_every_reason() {
    let codes = FailureReason::codes().map(ToOwned::to_owned).collect();

    assert_eq!(names("message-format.md", "reason"), codes);
}

#[test]
fn documents_list_every_error_type() {
    let error_types = BatchError::error_types().map(ToOwned::to_owned).collect();

    assert_eq!(names("operations.md", "errorType"), error_types);
}
