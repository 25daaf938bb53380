//! The `fastsock` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    fastsock_gateway::run(std::env::args_os())
}
