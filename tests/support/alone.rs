//! Tests that look at their whole process, and so need one of their own.

use std::{env, process::Command};

/// Whether this process runs only the named test; if not, a new one is started that does. Panics with its output when it fails.
///
/// ```no_run
/// // #[test]
/// fn a_bridge_leaves_no_thread() {
///     if !support::is_alone("a_bridge_leaves_no_thread") {
///         return;
///     }
///     // … counts threads
/// }
/// ```
#[expect(clippy::print_stdout, reason = "it hands on what the test printed")]
pub fn is_alone(test: &str) -> bool {
    if env::var(MARK).is_ok_and(|name| name == test) {
        return true;
    }
    let mut command = Command::new(env::current_exe().expect("a process knows its program"));
    command
        .args(["--exact", test, "--nocapture", "--include-ignored"])
        .env(MARK, test);
    let output = command.output().expect("a program can start itself");
    let text = String::from_utf8_lossy(&output.stdout);
    print!("{text}");
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{test}: {}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    false
}

const MARK: &str = "FASTSOCK_TEST_ALONE";
