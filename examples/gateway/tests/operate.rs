//! docs/operate.md, tried: each command of "When something is wrong" against a gateway that runs, each alert has its row, each name
//! of the kernel is one.

mod support;

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Output,
};

use support::{Command, Device, free_port};

#[test]
fn every_command_of_the_page_does_what_it_says() {
    let redis = support::redis("secret");
    let admin = free_port();
    let settings = format!(
        "FASTSOCK_REDIS_URL=redis://:secret@127.0.0.1:{}\nFASTSOCK_ADMIN_ADDR=127.0.0.1:{admin}\n\
         WEBSOCKET_PORT={}\nFASTSOCK_SPOOL=disk\nFASTSOCK_DATA_DIR=data\n",
        redis.port(),
        free_port()
    );
    let redis_cli = format!(
        "#!/bin/sh\nexec /usr/bin/redis-cli -p {} -a secret --no-auth-warning \"$@\"\n",
        redis.port()
    );
    let gateway = Command::new().file(".env", &settings);
    let mut gateway = gateway.file("redis-cli", &redis_cli).spawn();
    let dir = gateway.directory.path().to_owned();
    let executable = fs::Permissions::from_mode(0o755);
    fs::set_permissions(dir.join("redis-cli"), executable).unwrap();
    let mut device = Device::connect(gateway.port(), "dev1");
    device.ping();

    let run = |line: &str| {
        let line = line.replace("127.0.0.1:3001", &format!("127.0.0.1:{admin}"));
        let built = Path::new(env!("CARGO_BIN_EXE_fastsock")).parent().unwrap();
        let path = format!("{}:{}:/usr/bin:/bin", dir.display(), built.display());
        let mut bash = std::process::Command::new("bash");
        bash.args(["-ec", &line]).env_clear().env("PATH", path);
        bash.current_dir(&dir).output().unwrap()
    };
    let page = page();
    let commands: BTreeSet<_> = section(&page, "## When something is wrong")
        .lines()
        .flat_map(|line| line.split('`').skip(1).step_by(2))
        .filter(|code| PROGRAMS.iter().any(|program| code.starts_with(program)))
        .collect();
    assert!(commands.len() > 12, "{commands:?}");
    for command in commands {
        // These two go on until they are stopped, and a check finds the ports of a running gateway taken.
        let (line, code) = match command {
            "fastsock top" | "fastsock trace dev1" => (format!("timeout 1 {command}"), 124),
            "fastsock --check" => (command.to_owned(), 2),
            _ => (command.to_owned(), 0),
        };
        let output = run(&line);
        assert_eq!(
            output.status.code(),
            Some(code),
            "{command}: {}",
            said(&output)
        );
    }

    // What the table says is to be looked at is there.
    for (command, words) in [
        ("fastsock clients dev1", &["is here", "since 20"][..]),
        (
            "fastsock status",
            &[
                "device to 2xx",
                "the oldest for",
                "spool      disk, 0 % of spool_max_bytes used",
                "heard",
                " held (",
            ],
        ),
        (
            "curl -s http://127.0.0.1:3001/metrics",
            &[
                "fastsock_sessions_closed_total",
                "fastsock_posts_total",
                "fastsock_build_info",
            ],
        ),
        (
            "fastsock --print-config --changed",
            &["FASTSOCK_SPOOL=disk"],
        ),
        (
            "fastsock --check",
            &[
                "WEBSOCKET_PORT: cannot listen",
                "FASTSOCK_DATA_DIR",
                "redis: ",
            ],
        ),
    ] {
        let said = said(&run(command));
        for words in words {
            assert!(said.contains(words), "{command}: {words}: {said}");
        }
    }
    assert!(said(&run("fastsock kick dev1")).contains("kicked"));
    let left = said(&run("fastsock clients dev1"));
    assert!(left.contains("last disconnect kicked (4510)"), "{left}");

    // The upgrade of the page: a second one with other places finds nothing, and the first one drains and ends.
    let beside = "fastsock --check --port 0 --set FASTSOCK_ADMIN_ADDR=127.0.0.1:0 --set FASTSOCK_DATA_DIR=other";
    assert!(page.contains("`--port 0 --set FASTSOCK_ADMIN_ADDR=127.0.0.1:0`"));
    let output = run(beside);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert!(page.contains("`fastsock drain --window 60s`"));
    let output = run("fastsock drain --window 1s");
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(gateway.end().code, Some(0));
}

#[test]
fn every_alert_has_its_row() {
    let page = page();
    let rows: BTreeSet<_> = section(&page, "## When something is wrong")
        .lines()
        .filter_map(|line| line.strip_prefix("| `Fastsock"))
        .map(|rest| format!("Fastsock{}", rest.split('`').next().unwrap()))
        .collect();
    let rules = read("deploy/prometheus/fastsock.rules.yml");
    let alerts: BTreeSet<_> = rules
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- alert: "))
        .map(str::to_owned)
        .collect();
    assert!(alerts.len() > 10 && rows == alerts, "{rows:?} {alerts:?}");
}

#[test]
fn the_kernel_has_what_the_page_sets() {
    let page = page();
    let (_, rest) = page.split_once("<!-- kernel: ").unwrap();
    let (_, rest) = rest.split_once("```ini\n").unwrap();
    let block = rest.split_once("```").unwrap().0;
    let lines = block.lines().filter(|line| !line.starts_with('#'));
    let names: Vec<_> = lines
        .map(|line| line.split_once(" = ").unwrap().0)
        .collect();
    assert!(names.len() > 3, "{names:?}");
    for name in names {
        let path = Path::new("/proc/sys").join(name.replace('.', "/"));
        assert!(path.exists(), "{name}");
    }
}

/// tests/redis_rights.rs tries those of security.md.
#[test]
fn the_rights_in_redis_are_those_that_are_tested() {
    let page = page();
    let mut lines = page.lines().filter(|line| line.starts_with("ACL SETUSER"));
    let line = lines.next().unwrap();
    assert!(
        read("docs/security.md")
            .lines()
            .any(|tested| tested == line)
    );
}

/// What is in the table of the spool follows from the two limits.
#[test]
fn the_capacity_of_the_spool_is_reckoned_right() {
    let (messages, bytes, each) = (1_000_000_f64, f64::from(1 << 30), 256.0 + 128.0);
    let most = messages.min(bytes / each);
    let minutes = |rate: f64| most / rate / 60.0;
    let page = page();
    for (rate, shown) in [
        (10.0, format!("{:.0} h", (minutes(10.0) / 60.0).floor())),
        (200.0, format!("{:.0} min", minutes(200.0).floor())),
        (2000.0, format!("{:.0} min", minutes(2000.0).floor())),
    ] {
        assert!(
            page.contains(&format!(" a second | {shown} |")),
            "{rate}: {shown}"
        );
    }
}

/// What the page calls on, beside what it explains in words.
const PROGRAMS: [&str; 4] = ["fastsock ", "redis-cli ", "curl ", "df "];

fn said(output: &Output) -> String {
    let text = [&output.stdout[..], &output.stderr].concat();
    String::from_utf8_lossy(&text).into_owned()
}

fn section<'a>(page: &'a str, heading: &str) -> &'a str {
    let (_, rest) = page.split_once(heading).unwrap();
    rest.split_once("\n## ")
        .map_or(rest, |(section, _)| section)
}

fn page() -> String {
    read("docs/operate.md")
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}
