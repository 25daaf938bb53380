//! The log when its disk is full, when its file is moved away, and signals that mean nothing.

mod support;

use std::{
    fs,
    io::{ErrorKind, Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command as Program, Stdio},
};

use support::{Command, Device, wait_until};

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
fn a_hangup_changes_the_level_and_names_what_waits_for_a_restart() {
    let mut gateway = gateway().file(".env", "LOG_LEVEL=info\n").spawn();
    gateway.port();
    let dotenv = gateway.directory.path().join(".env");
    fs::write(&dotenv, "LOG_LEVEL=debug\nFASTSOCK_CLOSE_TIMEOUT=5s\n").unwrap();
    gateway.signal("HUP");
    let reloaded = gateway.wait_for("Log settings reloaded");
    assert_eq!(reloaded["level"], "info");
    let waits = gateway.wait_for("Settings have changed that count from the next start on");
    assert_eq!(waits["settings"], "FASTSOCK_CLOSE_TIMEOUT");
    gateway.signal("USR1");
    assert_eq!(gateway.wait_for("Signal is ignored")["level"], "debug");

    fs::write(&dotenv, "LOG_LEVEL=loud\n").unwrap();
    gateway.signal("HUP");
    let error = gateway.wait_for("Settings cannot be read again; they stay");
    assert!(error["error"].as_str().unwrap().starts_with("LOG_LEVEL: "));
    gateway.signal("USR2");
    gateway.wait_for("Signal is ignored");
    gateway.signal("TERM");
    assert_eq!(gateway.end().code, Some(0));
}

#[test]
fn stdout_can_be_text_while_the_file_is_json() {
    for (format, is_text) in [("text", true), ("auto", false), ("json", false)] {
        let mut gateway = gateway().env("FASTSOCK_LOG_FORMAT", format).spawn();
        let log = gateway.directory.path().join("logs/fastsock.log");
        wait_until("it runs", || {
            read(&log).contains("WebSocket server running")
        });
        gateway.signal("TERM");
        let stdout = gateway.end().stdout;
        let first = stdout.lines().next().unwrap();
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(first).is_err(),
            is_text,
            "{first}"
        );
        if is_text {
            // No colours: this is no terminal.
            let line = stdout
                .lines()
                .find(|line| line.contains("WebSocket server running"))
                .unwrap();
            assert!(
                !stdout.contains('\u{1b}') && line[12..].starts_with(" INFO    WebSocket"),
                "{line}"
            );
        }
        assert_eq!(gateway.log_file().len(), stdout.lines().count());
    }
}

#[test]
fn a_log_file_that_grows_is_put_aside_and_the_oldest_go() {
    let mut gateway = gateway()
        .env("FASTSOCK_LOG_ROTATE", "64KiB")
        .env("FASTSOCK_LOG_KEEP", "2")
        .spawn();
    let mut device = Device::connect(gateway.port(), "dev");
    drop(gateway.stdout.take()); // nobody reads it
    for _ in 0..300 {
        device.send(&"x".repeat(900));
    }
    device.ping();
    gateway.signal("TERM");
    assert_eq!(gateway.child.wait().unwrap().code(), Some(0));
    let folder = gateway.directory.path().join("logs");
    let mut names: Vec<_> = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["fastsock.log", "fastsock.log.1", "fastsock.log.2"]);
    for name in names {
        let text = read(&folder.join(name));
        assert!(text.len() <= 64 << 10, "{}", text.len());
        text.lines()
            .for_each(|line| drop(serde_json::from_str::<serde_json::Value>(line).unwrap()));
    }
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

/// The first one is told at once, the others with their number, also when no other follows, and at the end.
#[test]
fn how_many_were_turned_away_is_told_also_of_the_last() {
    let mut gateway = gateway()
        .env("FASTSOCK_LIMIT_CONNECTIONS", "1")
        .env("LOG_LEVEL", "info")
        .spawn();
    let port = gateway.port();
    let _device = Device::connect(port, "dev");
    let turn_away = || {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let mut answer = [0; 13];
        stream.read_exact(&mut answer).unwrap();
        answer == *b"HTTP/1.1 503 "
    };
    assert!(turn_away());
    let told = "A limit turns devices away";
    assert_eq!(gateway.wait_for(told)["count"], 1);
    assert!(turn_away() && turn_away());
    assert_eq!(gateway.wait_for(told)["count"], 2);
    assert!(turn_away());
    gateway.signal("TERM");
    assert_eq!(gateway.wait_for(told)["count"], 1);
    assert_eq!(gateway.end().code, Some(0));
}

#[test]
fn two_devices_that_fight_for_a_client_id_are_told_of() {
    let mut gateway = gateway().spawn();
    let port = gateway.port();
    let _fighting: Vec<_> = (0..102).map(|_| Device::connect(port, "dev")).collect();
    let line = gateway.wait_for("Devices are turned away with 4429");
    assert_eq!(
        (&line["level"], &line["client_id"], &line["count"]),
        (&"warn".into(), &"dev".into(), &1.into())
    );
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
