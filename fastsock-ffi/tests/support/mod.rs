//! Where things are.
#![allow(dead_code, reason = "each test file uses its part")]

use std::path::{Path, PathBuf};

/// The root of the repository.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .into()
}

/// libfastsock_ffi.so or .a, as cargo built it beside this test.
pub(crate) fn built(extension: &str) -> PathBuf {
    let here = std::env::current_exe().unwrap();
    let path = here
        .parent()
        .unwrap()
        .join("libfastsock_ffi")
        .with_extension(extension);
    assert!(path.exists(), "{} was not built", path.display());
    path
}
