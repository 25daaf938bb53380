//! The `fastsock` command.

use std::process::ExitCode;

/// jemalloc gives back what a storm of devices took; glibc's allocator and mimalloc keep most of its height
/// (docs/performance.md). In the program alone: what embeds the library has its own. Elsewhere the size of a page may be
/// another than where this was built, which jemalloc does not forgive.
#[cfg(all(target_os = "linux", target_env = "gnu", target_arch = "x86_64"))]
mod allocator {
    #[global_allocator]
    static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

    /// Two arenas, since most run on few cores; what is free goes back to the system after a second, and a thread keeps
    /// little of it to itself. `_RJEM_MALLOC_CONF` in the environment comes after these.
    const OPTIONS: &[u8] =
        b"narenas:2,background_thread:true,dirty_decay_ms:1000,muzzy_decay_ms:0,\
        lg_tcache_max:10,tcache_nslots_small_max:20\0";

    /// Where jemalloc looks for a `const char *` before it reads the environment.
    #[unsafe(export_name = "_rjem_malloc_conf")]
    static MALLOC_CONF: &[u8; OPTIONS.len()] = OPTIONS.first_chunk().unwrap();
}

fn main() -> ExitCode {
    fastsock_gateway::run(std::env::args_os())
}
