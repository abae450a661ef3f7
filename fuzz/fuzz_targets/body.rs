//! Fuzzes the way from a message's body to its row.

#![no_main]

libfuzzer_sys::fuzz_target!(|body: &[u8]| login_etl_fuzz::check_body(body));
