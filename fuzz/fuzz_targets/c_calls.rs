#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fastsock_ffi::fuzzing::c_calls(bytes));
