//! Fuzzes from the body of a message to its row.

#![no_main]

libfuzzer_sys::fuzz_target!(|body: &[u8]| login_etl_fuzz::check_body(body));
