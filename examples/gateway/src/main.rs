//! The `fastsock` command.

use std::process::ExitCode;

/// Gives back what many small sockets took, which `tests/attack.rs` looks at; after 15,000 devices at once it keeps most of
/// its height, as glibc's does (docs/performance.md). Without huge pages, or what it gives back would come again as parts
/// of those. In the program alone: what embeds the library has its own.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    fastsock_gateway::run(std::env::args_os())
}
