#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fastsock::fuzzing::spool_record(bytes));
