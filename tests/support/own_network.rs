//! A test in a network of its own, where every port is free.

use std::{
    env,
    process::{Command, Stdio},
};

/// Runs a test again in a process with a network namespace of its own (Linux): it may listen on a port that is fixed, and
/// nobody else on this machine sees it.
#[derive(Clone, Copy, Debug)]
pub struct OwnNetwork {
    test: &'static str,
}

impl OwnNetwork {
    /// For the test of this name.
    pub fn of(test: &'static str) -> Self {
        Self { test }
    }

    /// Runs the body there. Where the system does not allow such a network, runs it here: it then needs its ports free.
    pub fn run(self, body: impl FnOnce()) {
        if env::var_os(INSIDE).is_some() || !is_allowed() {
            return body();
        }
        let program = env::current_exe().expect("a process knows its program");
        let status = in_own_network()
            .arg(program)
            .args([self.test, "--exact", "--nocapture"])
            .env(INSIDE, "1")
            .status();
        let status = status.expect("it could be run a moment ago");
        assert!(
            status.success(),
            "{} in its own network: {status}",
            self.test
        );
    }
}

/// Whether a process in a network of its own can be had, with a loopback interface that works.
#[expect(
    clippy::print_stderr,
    reason = "a check that runs otherwise than it should says so aloud"
)]
fn is_allowed() -> bool {
    let tried = in_own_network().arg("true").stderr(Stdio::null()).status();
    let is_allowed = tried.is_ok_and(|status| status.success());
    if !is_allowed {
        eprintln!("no network of its own (unshare, ip): the test runs in that of the machine");
    }
    is_allowed
}

/// `sh` that brings loopback up and becomes the program in the arguments.
fn in_own_network() -> Command {
    let mut command = Command::new("unshare");
    command
        .args([
            "--map-root-user",
            "--net",
            "--kill-child",
            "--fork",
            "sh",
            "-c",
        ])
        .args([r#"ip link set lo up && exec "$0" "$@""#]);
    command
}

/// Tells the process inside that it is.
const INSIDE: &str = "FASTSOCK_TEST_OWN_NETWORK";
