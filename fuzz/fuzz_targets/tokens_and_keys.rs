#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fastsock::fuzzing::tokens_and_keys(bytes));
