//! Bodies of answers about users: any bytes. What is asserted is in `way.rs`, which the tests share.

#![no_main]

mod way;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| way::go(bytes));
