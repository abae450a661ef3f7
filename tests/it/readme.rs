//! The README's lists, which must be those of the code.

use std::collections::BTreeSet;

use login_etl::handler::BatchError;
use login_etl::report::Reason;

const README: &str = include_str!("../../README.md");

/// The names in the first column of the table with this heading.
fn names(heading: &str) -> BTreeSet<&'static str> {
    let table = README.split_once(&format!("\n| `{heading}` |")).expect("the table is there").1;
    let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
    rows.flat_map(|row| row.split('|').nth(1).unwrap().split('`').skip(1).step_by(2)).collect()
}

#[test]
fn every_reason_is_in_the_readme_and_no_other() {
    assert_eq!(names("reason"), Reason::codes().collect());
}

#[test]
fn every_error_type_is_in_the_readme_and_no_other() {
    assert_eq!(names("errorType"), BatchError::error_types().collect());
}
