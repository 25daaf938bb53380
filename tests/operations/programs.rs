//! Programs that are no code of ours and judge what we write. `scripts/setup` installs them.

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// A program of Debian. Without it the test fails: it has shown nothing.
pub(crate) fn found(program: &str, package: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path)
        .map(|dir| dir.join(program))
        .find(|path| path.is_file());
    found.unwrap_or_else(|| {
        panic!("{program} is not installed (Debian: {package}); scripts/setup test installs it")
    })
}

/// The Python with the packages of `scripts/setup test`.
pub(crate) fn python() -> PathBuf {
    let python = root().join("target/tools/venv/bin/python");
    assert!(
        python.is_file(),
        "no {}; run scripts/setup test",
        python.display()
    );
    python
}

/// The root of the project.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("it is below the root")
}

/// Runs a program with this on its standard input. Panics with what it says unless it is content.
pub(crate) fn content(command: &mut Command, input: &str) -> String {
    let command = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let mut stdin = child.stdin.take().expect("it is piped");
    let input = input.to_owned();
    let writer = std::thread::spawn(move || drop(stdin.write_all(input.as_bytes())));
    let output = child.wait_with_output().expect("it runs");
    writer.join().expect("it writes");
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(output.status.success(), "{command:?}: {said}");
    said
}
