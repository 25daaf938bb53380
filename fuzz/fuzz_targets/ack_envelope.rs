#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fastsock::fuzzing::ack_envelope(bytes));
