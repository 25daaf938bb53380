//! examples/esp32, as far as it can be checked without its toolchains: the shared header on this machine, the programs by their syntax.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

#[test]
fn the_shared_header_reads_and_writes_messages_and_never_past_a_buffer() {
    let dir = tempfile::TempDir::new().unwrap();
    let program = dir.path().join("messages");
    let mut compile = Command::new("cc");
    compile
        .args(["-std=c99", "-Wall", "-Wextra", "-Werror", "-g"])
        .args(["-fsanitize=address,undefined", "-o"])
        .arg(&program)
        .arg(here().join("test/messages.c"));
    run(compile);
    run(Command::new(program));
}

#[test]
fn the_programs_have_no_errors_of_syntax_and_type_by_the_stubs() {
    let mut idf = Command::new("cc");
    idf.args(["-std=gnu17"]).arg(here().join("idf/main/main.c"));
    let mut arduino = Command::new("c++");
    arduino
        .args(["-std=gnu++17", "-include", "Arduino.h", "-x", "c++"])
        .arg(here().join("fastsock_device/fastsock_device.ino"));
    for mut check in [idf, arduino] {
        check
            .args(["-Wall", "-Wextra", "-Werror", "-fsyntax-only"])
            .arg("-I")
            .arg(here().join("test/stubs"))
            .arg("-I")
            .arg(here().join("fastsock_device"));
        run(check);
    }
}

fn run(mut command: Command) {
    let done = command.output().expect("`scripts/setup test` brings it");
    assert!(
        done.status.success(),
        "{command:?}\n{}",
        String::from_utf8_lossy(&done.stderr)
    );
}

fn here() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/esp32")
}
