//! The log when its disk is full, when its file is moved away, and signals that mean nothing.

mod support;

use std::{
    fs,
    io::{ErrorKind, Write},
    path::{Path, PathBuf},
    process::{Child, Command as Program, Stdio},
    thread,
    time::{Duration, Instant},
};

use support::{Command, Device};

fn gateway() -> Command {
    Command::new()
        .env("WEBSOCKET_PORT", "0")
        .env("FASTSOCK_BROKER", "embedded")
        .env("FASTSOCK_ADMIN_ADDR", "off")
}

#[test]
fn stdout_and_log_file_go_on_once_a_full_disk_has_room() {
    let Some(mut gateway) = OnSmallDisk::start() else {
        return;
    };
    let port = gateway.port();
    let mut device = Device::connect(port, "dev");
    device.send("before");
    gateway.wait_in_both("\"before\"");

    gateway.fill();
    // More than is kept for stdout (1 MiB and a batch) and in the queue before it (4 MiB, and as much in a batch).
    for number in 0..14_000 {
        device.send(&format!("{number}:{}", "x".repeat(900)));
    }
    device.ping(); // all of them are read, and logged
    gateway.empty();
    let mut number = 0;
    gateway.wait_until("both go on", |gateway| {
        number += 1;
        device.send(&format!("after {number}"));
        ["out", "log"].map(|file| gateway.read(file).contains("\"after ")) == [true, true]
    });
    gateway.wait_in_both("Log lines dropped");
    assert!(gateway.read("log").contains("file_failed"));
    // What stdout kept goes on where it stopped: no line of it is torn.
    for line in gateway.read("out").lines() {
        serde_json::from_str::<serde_json::Value>(line).unwrap_or_else(|e| panic!("{e}: {line}"));
    }
    gateway.signal("TERM");
    assert_eq!(gateway.child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_hangup_opens_the_log_file_anew() {
    let mut gateway = gateway().spawn();
    let mut device = Device::connect(gateway.port(), "dev");
    device.send("one");
    gateway.wait_for("Message forwarding skipped");
    let log = gateway.directory.path().join("logs/fastsock.log");
    let old = log.with_extension("log.1");
    wait_until("it is written", || read(&log).contains("\"one\""));

    // As logrotate does it.
    fs::rename(&log, &old).unwrap();
    gateway.signal("HUP");
    gateway.wait_for("Reloaded");
    device.send("two");
    wait_until("the new one is written", || read(&log).contains("\"two\""));
    assert!(read(&log).contains("\"Reloaded\""));
    assert!(read(&old).contains("\"one\"") && !read(&old).contains("\"two\""));

    // One that cannot be opened costs a warning, and what is open stays.
    fs::rename(&log, log.with_extension("log.2")).unwrap();
    fs::create_dir(&log).unwrap();
    gateway.signal("HUP");
    let warning = gateway.wait_for("Log file cannot be written");
    assert_eq!(warning["level"], "warn");
    device.send("three");
    let second = log.with_extension("log.2");
    wait_until("it goes on", || read(&second).contains("\"three\""));
    fs::remove_dir(&log).unwrap();
    gateway.signal("HUP");
    wait_until("it is there again", || read(&log).contains("\"Reloaded\""));
    gateway.signal("TERM");
    assert_eq!(gateway.end().code, Some(0));
}

#[test]
fn signals_that_mean_nothing_do_no_harm() {
    let mut gateway = gateway().spawn();
    gateway.port();
    for name in ["USR1", "USR2"] {
        gateway.signal(name);
        let line = gateway.wait_for("Signal is ignored");
        assert_eq!(
            (&line["level"], &line["signal"]),
            (&"debug".into(), &format!("SIG{name}").into())
        );
    }
    gateway.signal("TERM");
    gateway.wait_for("Shutdown initiated");
    assert_eq!(gateway.end().code, Some(0));
}

#[test]
fn a_log_file_that_may_grow_no_more_ends_nothing() {
    let mut gateway = gateway().file_limit(16).spawn();
    let mut device = Device::connect(gateway.port(), "dev");
    for _ in 0..100 {
        device.send(&"x".repeat(1000));
    }
    let warning = gateway.wait_for("Log file cannot be written");
    assert!(
        warning["error"]
            .as_str()
            .unwrap()
            .contains("File too large")
    );
    device.send("the end");
    while gateway.wait_for("Message forwarding skipped")["data"] != "the end" {}
    gateway.signal("TERM");
    assert_eq!(gateway.end().code, Some(0));
}

/// A gateway whose stdout and log file are on a disk of 24 MiB, in a mount namespace of its own. Killed when dropped.
struct OnSmallDisk {
    child: Child,
    /// The disk, as this process sees it.
    disk: PathBuf,
    _directory: tempfile::TempDir,
}

impl OnSmallDisk {
    /// `None`, and a line that says so, where the system allows no such disk.
    #[expect(clippy::print_stderr, reason = "a check that cannot run says so aloud")]
    fn start() -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let disk = directory.path().join("disk");
        fs::create_dir(&disk).unwrap();
        let run = |then: &str| {
            let mut program = Program::new("unshare");
            program
                .args(["--map-root-user", "--mount", "sh", "-c"])
                .arg(format!("mount -t tmpfs -o size=24m tmpfs \"$0\" && {then}"))
                .arg(&disk)
                .stdin(Stdio::null())
                .stderr(Stdio::null());
            program
        };
        if !run("true").status().is_ok_and(|status| status.success()) {
            eprintln!("not run: no disk of its own (unshare, mount) for this test");
            return None;
        }
        let binary = env!("CARGO_BIN_EXE_fastsock");
        let child = run(&format!("cd \"$0\" && exec {binary} >out"))
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("WEBSOCKET_PORT", "0")
            .env("WEBSOCKET_PING_INTERVAL", "0")
            .env("FASTSOCK_BROKER", "embedded")
            .env("FASTSOCK_ADMIN_ADDR", "off")
            .env("FASTSOCK_LOG_FILE", "log")
            .spawn()
            .unwrap();
        let seen = format!("/proc/{}/root{}", child.id(), disk.display());
        Some(Self {
            child,
            disk: seen.into(),
            _directory: directory,
        })
    }

    fn port(&mut self) -> u16 {
        const READY: &str = "WebSocket server running on ws://0.0.0.0:";
        self.wait_until("it is ready", |gateway| gateway.read("out").contains(READY));
        let out = self.read("out");
        let (_, rest) = out.split_once(READY).unwrap();
        rest.split('"').next().unwrap().parse().unwrap()
    }

    fn read(&self, file: &str) -> String {
        read(&self.disk.join(file))
    }

    fn wait_in_both(&mut self, text: &str) {
        self.wait_until(text, |gateway| {
            ["out", "log"]
                .iter()
                .all(|file| gateway.read(file).contains(text))
        });
    }

    fn wait_until(&mut self, what: &str, mut check: impl FnMut(&Self) -> bool) {
        wait_until(what, || {
            assert!(self.child.try_wait().unwrap().is_none(), "it has ended");
            check(self)
        });
    }

    /// Leaves no room on the disk.
    fn fill(&self) {
        let mut file = fs::File::create(self.disk.join("fill")).unwrap();
        loop {
            match file.write(&[0; 4096]) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::StorageFull => return,
                Err(error) => panic!("{error}"),
            }
        }
    }

    fn empty(&self) {
        fs::remove_file(self.disk.join("fill")).unwrap();
    }

    fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let kill = Program::new("kill").args(["-s", name, &pid]).status();
        assert!(kill.unwrap().success());
    }
}

impl Drop for OnSmallDisk {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read(path: &Path) -> String {
    String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
}

fn wait_until(what: &str, mut check: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !check() {
        assert!(Instant::now() < deadline, "{what}");
        thread::sleep(Duration::from_millis(20));
    }
}
