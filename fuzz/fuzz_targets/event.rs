//! Fuzzes from an event to its rows.

#![no_main]

libfuzzer_sys::fuzz_target!(|event: &[u8]| login_etl_fuzz::check_event(event));
