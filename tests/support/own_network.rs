//! A test in a network of its own, where every port is free.

use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use tempfile::NamedTempFile;

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
        if env::var_os(INSIDE).is_some() || !is_allowed(&mut in_own_network()) {
            return body();
        }
        self.run_inside(in_own_network());
    }

    /// Runs the body there, with `/etc/hosts` a file of its own, which it gets. Where the system does not allow that, it is
    /// not run.
    pub fn run_with_hosts(self, body: impl FnOnce(&Path)) {
        self.run_with("/etc/hosts", body);
    }

    /// The same with `/etc/resolv.conf`, which says who is asked for addresses.
    pub fn run_with_resolver(self, body: impl FnOnce(&Path)) {
        self.run_with("/etc/resolv.conf", body);
    }

    fn run_with(self, file: &str, body: impl FnOnce(&Path)) {
        if env::var_os(INSIDE).is_some() {
            let own = env::var_os(OWN_FILE).map(PathBuf::from);
            return body(&own.expect("set below"));
        }
        let own = NamedTempFile::new().expect("a temporary file");
        let bind = format!(r#"mount --bind "$FASTSOCK_TEST_FILE" {file} &&"#);
        let command = || {
            let mut command = in_namespaces(&["--net", "--mount"], &bind);
            command.env(OWN_FILE, own.path());
            command
        };
        if is_allowed(&mut command()) {
            self.run_inside(command());
        }
    }

    fn run_inside(self, mut command: Command) {
        let program = env::current_exe().expect("a process knows its program");
        let status = command
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
fn is_allowed(command: &mut Command) -> bool {
    let tried = command.arg("true").stderr(Stdio::null()).status();
    let is_allowed = tried.is_ok_and(|status| status.success());
    if !is_allowed {
        eprintln!(
            "no network of its own (unshare, ip): the test runs in that of the machine, or not at all"
        );
    }
    is_allowed
}

/// `sh` that brings loopback up and becomes the program in the arguments.
fn in_own_network() -> Command {
    in_namespaces(&["--net"], "")
}

/// The same in more namespaces, after one more step.
fn in_namespaces(namespaces: &[&str], step: &str) -> Command {
    let mut command = Command::new("unshare");
    command
        .args(["--map-root-user", "--kill-child", "--fork"])
        .args(namespaces)
        .args(["sh", "-c"])
        .arg(format!(r#"ip link set lo up && {step} exec "$0" "$@""#));
    command
}

/// The file of the test's own.
const OWN_FILE: &str = "FASTSOCK_TEST_FILE";
/// Tells the process inside that it is.
const INSIDE: &str = "FASTSOCK_TEST_OWN_NETWORK";
