//! Fuzzes the bodies of answers about users with any bytes. `properties.rs`, which the tests share,
//! has the assertions.

#![no_main]

mod properties;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| properties::check_body(bytes));
