#![no_main]

#[path = "../../examples/gateway/src/dotenv.rs"]
mod dotenv;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| dotenv::fuzz(bytes));
