#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fastsock_inside::inside::fuzzing::redis_pushes(bytes));
