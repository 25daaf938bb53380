//! Compilers, and the library as `make install` puts it.
#![allow(dead_code, reason = "each test file uses its part")]

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::OnceLock,
};

/// The root of the repository.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .into()
}

/// libfastsock_ffi.so or .a, as cargo builds it.
pub(crate) fn built(extension: &str) -> PathBuf {
    let path = built_dir()
        .join("libfastsock_ffi")
        .with_extension(extension);
    assert!(path.exists(), "{} was not built", path.display());
    path
}

/// Where cargo puts the library, which it does not build for a test by itself: a test cannot link it as Rust does.
fn built_dir() -> &'static Path {
    static DIR: OnceLock<PathBuf> = OnceLock::new();
    DIR.get_or_init(|| {
        // `scripts/test` says so: it builds the library before the tests start.
        if std::env::var_os("FASTSOCK_LIBRARY_IS_BUILT").is_none() {
            build();
        }
        let here = std::env::current_exe().unwrap();
        here.ancestors().nth(2).unwrap().into() // without `deps`
    })
}

fn build() {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    // With the dependencies that `cargo test --workspace` built: a test target beside the library brings the same features.
    build.args(["build", "--locked", "--quiet", "--workspace", "--lib"]);
    build.args(["--test", "header"]);
    // What cargo tells a test of its package; build scripts that watch these would run again, here and at the next build.
    for (name, _) in std::env::vars_os() {
        let of_package = name.to_str().is_some_and(|name| {
            name == "OUT_DIR"
                || name.starts_with("CARGO_PKG_")
                || name.starts_with("CARGO_MANIFEST_")
        });
        if of_package {
            build.env_remove(name);
        }
    }
    if !cfg!(debug_assertions) {
        build.arg("--release");
    }
    succeed(build.current_dir(root()));
}

/// A place for what a test makes; emptied when the test begins.
pub(crate) fn scratch(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = fs::remove_dir_all(&path);
    fs::create_dir_all(&path).unwrap();
    path
}

/// Where the library is installed for the tests.
pub(crate) fn prefix() -> &'static Path {
    static PREFIX: OnceLock<PathBuf> = OnceLock::new();
    PREFIX.get_or_init(|| {
        let _alone = alone();
        let prefix = Path::new(env!("CARGO_TARGET_TMPDIR")).join("prefix");
        install(&prefix, &[]);
        prefix
    })
}

/// Waits until no other test installs or compiles, in this process or another, until dropped.
fn alone() -> File {
    let lock = Path::new(env!("CARGO_TARGET_TMPDIR")).join("toolchain.lock");
    let lock = File::create(lock).unwrap();
    lock.lock().unwrap();
    lock
}

/// `make install` of what cargo built for the tests.
pub(crate) fn install(prefix: &Path, variables: &[&str]) {
    let mut make = Command::new("make");
    make.current_dir(root())
        .args(["--no-print-directory", "ffi-install"])
        .arg(format!("PREFIX={}", prefix.display()))
        .arg(format!("FASTSOCK_BUILT={}", built_dir().display()))
        .args(variables)
        .env_remove("MAKEFLAGS");
    succeed(&mut make);
}

/// How a program gets at the library.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Link {
    Shared,
    Static,
}

/// Compiles one source file of the repository against the installed library, with all warnings as errors.
pub(crate) fn compile(
    compiler: &str,
    std: &str,
    source: &str,
    link: Link,
    flags: &[&str],
) -> PathBuf {
    let name = format!(
        "{}-{compiler}-{std}-{link:?}{}",
        source.replace('/', "-"),
        flags.concat()
    );
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("programs");
    fs::create_dir_all(&dir).unwrap();
    let program = dir.join(name.replace(['=', ','], "_"));
    let mut command = warnings(compiler, std);
    let _alone = alone();
    if is_newer(&program, source) {
        return program;
    }
    let fresh = program.with_extension("new"); // one that runs cannot be written to
    command
        .args(["-g", "-O1"])
        .args(flags)
        .arg(source)
        .arg("-o")
        .arg(&fresh);
    let lib = prefix().join("lib");
    match link {
        Link::Shared => command
            .arg("-L")
            .arg(&lib)
            .arg(format!("-Wl,-rpath,{}", lib.display()))
            .args(["-lfastsock", "-lpthread"]),
        Link::Static => command.arg(lib.join("libfastsock.a")).args(STATIC_LIBS),
    };
    succeed(&mut command);
    fs::rename(fresh, &program).unwrap();
    program
}

/// Whether a program was compiled after its source, the headers and the library were last changed.
fn is_newer(program: &Path, source: &str) -> bool {
    let changed = |path: &Path| fs::metadata(path).and_then(|m| m.modified());
    let parts = [
        "include/fastsock.h",
        "include/fastsock.hpp",
        "tests/c/device.h",
        source,
    ];
    let included = fs::read_dir(root().join("tests/c/host_safety")).unwrap();
    let included = included.map(|header| header.unwrap().path());
    let newest = parts
        .iter()
        .map(|part| root().join(part))
        .chain(included)
        .map(|part| changed(&part).unwrap())
        .chain([changed(&built("a")).unwrap()])
        .max();
    changed(program).is_ok_and(|time| Some(time) > newest)
}

/// A compiler that sees every warning as an error, with the installed headers.
pub(crate) fn warnings(compiler: &str, std: &str) -> Command {
    let mut command = Command::new(compiler);
    command
        .current_dir(root())
        .arg(format!("-std={std}"))
        .args(["-Wall", "-Wextra", "-Werror", "-pedantic", "-Wconversion"])
        .arg("-I")
        .arg(prefix().join("include"));
    command
}

/// Runs a command to its end; fails with all it said when it fails.
pub(crate) fn succeed(command: &mut Command) -> Output {
    let output = command
        .output()
        .unwrap_or_else(|e| panic!("{command:?}: {e}; `make setup` installs what the tests need"));
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

/// What a program needs beside libfastsock.a.
const STATIC_LIBS: [&str; 6] = ["-lgcc_s", "-lutil", "-lrt", "-lpthread", "-lm", "-ldl"];
