//! What is installed: by `make install`, by the Debian package, and what systemd, logrotate, man and the shells say to it.

mod support;

use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use support::Command as Gateway;

#[test]
fn make_install_puts_the_command_its_man_page_and_its_completions_in_their_places() {
    let dir = tempfile::tempdir().unwrap();
    let mut make = Command::new("make");
    make.current_dir(root())
        .args(["--no-print-directory", "bin-install", "PREFIX=/usr/local"])
        .arg(format!("DESTDIR={}", dir.path().display()))
        .arg(format!("FASTSOCK_BUILT={}", built().display()))
        .env_remove("MAKEFLAGS");
    succeed(&mut make);
    let prefix = dir.path().join("usr/local");
    let said = succeed(Command::new(prefix.join("bin/fastsock")).arg("--version"));
    assert_eq!(said, concat!("fastsock ", env!("CARGO_PKG_VERSION"), "\n"));

    let page = prefix.join("share/man/man1/fastsock.1");
    let mut man = Command::new("man");
    man.args(["--warnings", "--encoding=UTF-8", "--local-file"])
        .arg(&page)
        .envs([
            ("LC_ALL", "C.UTF-8"),
            ("MANWIDTH", "100"),
            ("MAN_KEEP_FORMATTING", ""),
        ]);
    let output = run(&mut man);
    assert_eq!(String::from_utf8_lossy(&output.stderr), "", "groff warns");
    let text = String::from_utf8_lossy(&output.stdout);
    for words in ["FASTSOCK_DRAIN_WINDOW=", "EXIT STATUS", "fastsock kick"] {
        assert!(text.contains(words), "{words}: {text}");
    }

    let bash = prefix.join("share/bash-completion/completions/fastsock");
    let script = format!(
        "source '{}'; COMP_WORDS=(fastsock dead-letters re); COMP_CWORD=2; _fastsock fastsock re dead-letters; echo ${{COMPREPLY[@]}}",
        bash.display()
    );
    assert_eq!(
        succeed(Command::new("bash").args(["-c", &script])),
        "replay\n"
    );
    let zsh = prefix.join("share/zsh/site-functions/_fastsock");
    assert!(
        fs::read_to_string(&zsh)
            .unwrap()
            .starts_with("#compdef fastsock\n")
    );
    succeed(Command::new("zsh").arg("-n").arg(&zsh));
    let fish = prefix.join("share/fish/vendor_completions.d/fastsock.fish");
    let script = format!(
        "source '{}'; complete -C 'fastsock dead-letters rep'",
        fish.display()
    );
    let offered = succeed(Command::new("fish").args(["-N", "-c", &script]));
    assert!(offered.starts_with("replay\t"), "{offered}");
}

#[test]
fn what_the_debian_package_installs_starts_and_a_purge_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let package = package(dir.path());
    let root = dir.path().join("root");
    for folder in [
        "var/lib/dpkg/info",
        "var/lib/dpkg/updates",
        "var/lib/dpkg/triggers",
    ] {
        fs::create_dir_all(root.join(folder)).unwrap();
    }
    fs::write(root.join("var/lib/dpkg/status"), "").unwrap();
    let dpkg = |args: &[&str]| {
        let mut dpkg = Command::new("dpkg");
        dpkg.arg(format!("--root={}", root.display()))
            // An empty root has no C library and no shell; the scripts are told where it is (DPKG_ROOT).
            .args([
                "--force-depends",
                "--force-not-root",
                "--force-script-chrootless",
            ])
            .args(["--force-bad-path", "--log=/dev/null"])
            .args(args);
        succeed(&mut dpkg)
    };
    dpkg(&["--install", package.to_str().unwrap()]);
    assert!(dpkg(&["--status", "fastsock"]).contains("Status: install ok installed"));
    assert_eq!(dpkg(&["--verify", "fastsock"]), "");

    // As the unit does: settings from /etc, data and working directory in /var/lib.
    let settings = root.join("etc/fastsock/fastsock.env");
    assert_eq!(
        settings.metadata().unwrap().permissions().mode() & 0o777,
        0o600
    );
    let data = root.join("var/lib/fastsock");
    fs::create_dir_all(&data).unwrap();
    fs::copy(&settings, data.join(".env")).unwrap();
    let mut gateway = Command::new(root.join("usr/bin/fastsock"));
    gateway
        .current_dir(&data)
        .env_clear()
        .envs([("WEBSOCKET_PORT", "0"), ("FASTSOCK_ADMIN_ADDR", "off")])
        .envs([("FASTSOCK_LOG_FILE", "off"), ("FASTSOCK_SPOOL", "disk")])
        .env("FASTSOCK_DATA_DIR", &data)
        .stdout(Stdio::piped());
    let mut child = gateway.spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut lines = lines.map(Result::unwrap);
    let ready = lines.find(|line| line.contains("WebSocket server running on"));
    assert!(ready.is_some());
    succeed(Command::new("kill").arg(child.id().to_string()));
    assert!(lines.any(|line| line.contains("Shutdown complete.")));
    assert_eq!(child.wait().unwrap().code(), Some(0));

    dpkg(&["--purge", "fastsock"]);
    let left = succeed(
        Command::new("find")
            .arg(&root)
            .args(["-path", "*fastsock*"]),
    );
    let left: Vec<_> = left
        .lines()
        .filter(|path| !path.contains("/var/lib/fastsock"))
        .collect();
    assert_eq!(left, [] as [&str; 0]);
}

#[test]
fn the_debian_package_is_the_same_each_time_and_says_what_it_needs() {
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let packages = [first.path(), second.path()].map(package);
    let [a, b] = packages.each_ref().map(|path| fs::read(path).unwrap());
    assert!(a == b, "two builds differ");
    let control = succeed(Command::new("dpkg-deb").arg("--info").arg(&packages[0]));
    assert!(control.contains("Depends: libc6 (>= 2."), "{control}");
    let listed = succeed(Command::new("dpkg-deb").arg("--contents").arg(&packages[0]));
    for path in [
        "./lib/systemd/system/fastsock.service",
        "./lib/systemd/system/fastsock.socket",
        "./etc/logrotate.d/fastsock",
        "./usr/share/bash-completion/completions/fastsock",
        "./usr/share/man/man1/fastsock.1.gz",
        "./usr/share/doc/fastsock/copyright",
        "./usr/share/doc/fastsock/fastsock-gateway.cdx.json",
        "./usr/share/doc/fastsock/THIRD-PARTY-LICENSES.txt.gz",
    ] {
        assert!(listed.contains(path), "{path}: {listed}");
    }
    assert!(listed.lines().all(|line| line.contains(" root/root ")));
}

#[test]
fn systemd_takes_the_units_and_finds_them_hardened() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["fastsock.service", "fastsock.socket"] {
        let unit = fs::read_to_string(root().join("deploy/systemd").join(name)).unwrap();
        let unit = unit.replace("/usr/bin/fastsock", env!("CARGO_BIN_EXE_fastsock"));
        fs::write(dir.path().join(name), unit).unwrap();
    }
    let units = ["fastsock.service", "fastsock.socket"].map(|name| dir.path().join(name));
    let mut verify = Command::new("systemd-analyze");
    let output = run(verify.args(["verify", "--man=no"]).args(&units));
    let said = String::from_utf8_lossy(&output.stderr);
    let ours: Vec<_> = said
        .lines()
        .filter(|line| line.contains("fastsock"))
        .collect();
    assert!(output.status.success() && ours.is_empty(), "{said}");
    // 0 is safe, 10 is not; this is in tenths.
    let mut security = Command::new("systemd-analyze");
    security.args(["security", "--offline=yes", "--threshold=20", "--no-pager"]);
    succeed(security.arg(&units[0]));
}

/// A time that systemd gives must hold the longest stop: there is nobody to ask when it does not.
#[test]
fn the_unit_gives_a_stop_its_time() {
    let unit = fs::read_to_string(root().join("deploy/systemd/fastsock.service")).unwrap();
    let value = |name: &str| unit.lines().find_map(|line| line.strip_prefix(name));
    let seconds: u64 = value("TimeoutStopSec=")
        .unwrap()
        .trim_end_matches('s')
        .parse()
        .unwrap();
    assert!(seconds > 8, "a stop takes 8 s");
    assert_eq!(value("Type="), Some("notify"));
    assert_eq!(value("ExecStartPre="), Some("-/usr/bin/fastsock --check"));
    assert!(value("WatchdogSec=").is_some() && value("StateDirectory=").is_some());
}

#[test]
fn logrotate_moves_the_log_away_and_the_gateway_goes_on_in_a_new_one() {
    let shipped = fs::read_to_string(root().join("deploy/logrotate/fastsock")).unwrap();
    succeed(
        logrotate()
            .arg("-d")
            .arg(root().join("deploy/logrotate/fastsock")),
    );

    let gateway = Gateway::on_free_ports().env("FASTSOCK_LOG_FILE", "log/fastsock.log");
    let mut gateway = gateway.spawn();
    gateway.port();
    let dir = gateway.directory.path();
    let hangup = "systemctl kill --kill-whom=main --signal=HUP fastsock.service";
    assert!(shipped.contains(hangup), "{shipped}");
    let ours = shipped
        .replace("/var/log/fastsock", dir.join("log").to_str().unwrap())
        .replace(hangup, &format!("kill -s HUP {}", gateway.child.id()));
    let config = dir.join("rotate");
    fs::write(&config, ours).unwrap();
    fs::set_permissions(&config, fs::Permissions::from_mode(0o644)).unwrap();
    let state = dir.join("state");
    succeed(
        logrotate()
            .arg("--force")
            .arg("--state")
            .arg(state)
            .arg(config),
    );
    // It says this once the new file is open.
    gateway.wait_for("Reloaded");
    gateway.signal("TERM");
    assert_eq!(gateway.end().code, Some(0));
    let read = |name: &str| fs::read_to_string(gateway.directory.path().join(name)).unwrap();
    let (old, new) = (read("log/fastsock.log.1"), read("log/fastsock.log"));
    assert!(old.contains("WebSocket server running on") && !old.contains("Shutdown complete."));
    assert!(new.contains("Shutdown complete.") && !new.contains("WebSocket server running on"));
}

/// The root of the project.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .canonicalize()
        .unwrap()
}

/// Where the command was built.
fn built() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_fastsock")).parent().unwrap()
}

fn package(dir: &Path) -> PathBuf {
    let mut deb = Command::new(root().join("scripts/deb"));
    deb.arg(env!("CARGO_BIN_EXE_fastsock"))
        .arg(dir)
        .env("COMPRESSION", "none")
        .env_remove("MAKEFLAGS");
    succeed(&mut deb).trim_end().into()
}

fn logrotate() -> Command {
    // Where root has its programs, which is not in everybody's path.
    let mut command = Command::new("/usr/sbin/logrotate");
    command.stdin(Stdio::null());
    command
}

fn run(command: &mut Command) -> Output {
    let name = format!("{command:?}");
    command
        .output()
        .unwrap_or_else(|e| panic!("{name}: {e}; scripts/setup test installs what is missing"))
}

/// Runs a program that must succeed, and gives what it said.
fn succeed(command: &mut Command) -> String {
    let name = format!("{command:?}");
    let output = run(command);
    let (said, cried) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success(), "{name}: {said}{cried}");
    said.into_owned()
}
