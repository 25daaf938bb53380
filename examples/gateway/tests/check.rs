//! `fastsock --check` names all that a start, or the work after it, would fail at, and leaves nothing behind.

mod support;

use std::{
    fs,
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use support::{Command, Output};

#[test]
fn a_port_that_is_taken_is_named() {
    let listener = TcpListener::bind("[::]:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let command = alone().env("WEBSOCKET_PORT", port.to_string());
    let line = format!("WEBSOCKET_PORT: cannot listen on [::]:{port}: Address already in use");
    names(&command.args(["--check"]).output(), &line);

    let admin = alone().env("FASTSOCK_ADMIN_ADDR", format!("127.0.0.1:{port}"));
    let line = format!("FASTSOCK_ADMIN_ADDR: cannot listen on 127.0.0.1:{port}: Address already");
    names(&admin.args(["--check"]).output(), &line);

    let nowhere = alone().env("FASTSOCK_LISTEN_ADDR", "192.0.2.1");
    let line = "FASTSOCK_LISTEN_ADDR: cannot listen on 192.0.2.1:0: ";
    names(&nowhere.args(["--check"]).output(), line);
}

#[test]
fn the_default_admin_port_that_is_taken_is_no_problem() {
    let _listener = TcpListener::bind("127.0.0.1:3001"); // or someone else has it
    let command = Command::new()
        .env("WEBSOCKET_PORT", "0")
        .env("FASTSOCK_BROKER", "embedded");
    let output = command.args(["--check"]).output();
    let line = "FASTSOCK_ADMIN_ADDR: cannot listen on 127.0.0.1:3001: Address already in use";
    let line = output.stdout.lines().find(|l| l.starts_with(line));
    let line = line.unwrap_or_else(|| panic!("{}", output.stdout));
    assert!(line.ends_with("; the gateway runs without it"), "{line}");
    assert_eq!(output.code, Some(0));
}

#[test]
fn a_port_that_only_root_may_have_is_named() {
    let first = fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").unwrap();
    let port = (1..first.trim().parse::<u16>().unwrap()).rev();
    let port = port
        .into_iter()
        .find(|p| TcpListener::bind(("::", *p)).is_ok());
    let Some(port) = port else {
        return; // nobody is refused any port here
    };
    let command = alone()
        .env("WEBSOCKET_PORT", port.to_string())
        .without("net_bind_service");
    let line = format!("WEBSOCKET_PORT: cannot listen on [::]:{port}: Permission denied");
    names(&command.args(["--check"]).output(), &line);
}

#[test]
fn a_directory_that_cannot_be_written_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let sealed = directory.path().join("sealed");
    fs::create_dir(&sealed).unwrap();
    fs::set_permissions(&sealed, fs::Permissions::from_mode(0o555)).unwrap();
    for data_dir in [sealed.clone(), sealed.join("a/b"), "/proc/no/such".into()] {
        let command = spooled(&data_dir).without("dac_override");
        let line = format!("FASTSOCK_DATA_DIR: cannot make {}", data_dir.display());
        names(&command.args(["--check"]).output(), &line);
    }
    let in_the_way = directory.path().join("file");
    fs::write(&in_the_way, "x").unwrap();
    for data_dir in [in_the_way.join("a"), in_the_way] {
        let line = format!("FASTSOCK_DATA_DIR: cannot make {}", data_dir.display());
        names(&spooled(&data_dir).args(["--check"]).output(), &line);
    }
}

#[test]
fn a_directory_of_another_gateway_is_named_and_is_free_once_that_has_ended() {
    let directory = tempfile::tempdir().unwrap();
    let data_dir = directory.path().join("data");
    let check = || spooled(&data_dir).args(["--check"]).output();
    is_green(&check());
    assert!(!data_dir.exists(), "nothing is made");
    let mut gateway = spooled(&data_dir).spawn();
    gateway.port();
    let line = format!("FASTSOCK_DATA_DIR: {}/spool", data_dir.display());
    let output = check();
    names(&output, &line);
    assert!(output.stdout.contains("is in use; each process needs"));
    drop(gateway);
    is_green(&check());
    is_green(&check());
    fs::write(data_dir.join("spool.redb"), "no spool").unwrap();
    let output = check();
    names(&output, &line);
    assert!(output.stdout.contains("cannot be read as a spool"));
}

#[test]
fn a_log_that_cannot_be_written_is_told_and_no_problem() {
    for (path, why) in [
        ("file/fastsock.log", "Not a directory"),
        ("file/a/b.log", "Not a directory"),
        (".", "Is a directory"),
        ("/proc/no/such.log", "No such file"),
    ] {
        let command = alone().file("file", "x").env("FASTSOCK_LOG_FILE", path);
        let output = command.args(["--check"]).output();
        let begin = format!("FASTSOCK_LOG_FILE: {path} cannot be written: {why}");
        let line = output.stdout.lines().find(|line| line.starts_with(&begin));
        let line = line.unwrap_or_else(|| panic!("{path}: {}", output.stdout));
        assert!(
            line.ends_with("logs to stdout alone until it can"),
            "{line}"
        );
        assert_eq!(output.code, Some(0));
    }
}

#[test]
fn nothing_is_left_behind() {
    for log in ["logs/fastsock.log", "fastsock.log"] {
        let command = alone()
            .env("FASTSOCK_LOG_FILE", log)
            .env("FASTSOCK_SPOOL", "disk")
            .env("FASTSOCK_DATA_DIR", "a/b");
        let directory = command.directory();
        is_green(&command.args(["--check"]).output());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}

#[test]
fn all_problems_are_named() {
    let taken = TcpListener::bind("[::]:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let free = support::free_port();
    let output = alone()
        .env("WEBSOCKET_PORT", &port)
        .env("FASTSOCK_ADMIN_ADDR", "192.0.2.1:1")
        .env("FASTSOCK_ADMIN_TOKEN", "0123456789abcdef")
        .env("FASTSOCK_SPOOL", "disk")
        .env("FASTSOCK_DATA_DIR", "/proc/no/such")
        .env("FASTSOCK_BROKER", "redis")
        .env("REDIS_PORT", free.to_string())
        .env("REMOTE_URL", format!("https://127.0.0.1:{free}/"))
        .env("FASTSOCK_REMOTE_CA", "no-ca")
        .env("FASTSOCK_TLS_CERT", "no-cert")
        .env("FASTSOCK_TLS_KEY", "no-key")
        .env("FASTSOCK_AUTH", "tokens")
        .env("FASTSOCK_AUTH_TOKENS_FILE", "no-tokens")
        .args(["--check"])
        .output();
    for line in [
        "settings: FASTSOCK_REMOTE_CA: ",
        "settings: FASTSOCK_AUTH_TOKENS_FILE: ",
        "settings: FASTSOCK_TLS_CERT: ",
        "WEBSOCKET_PORT: ",
        "FASTSOCK_ADMIN_ADDR: ",
        "FASTSOCK_DATA_DIR: ",
        &format!(
            "redis: 127.0.0.1:{free}: Connection refused (os error 111) (REDIS_HOST, REDIS_PORT)"
        ),
        &format!("remote: https://127.0.0.1:{free}/ cannot be connected to: "),
    ] {
        names(&output, line);
    }

    let output = Command::new()
        .env("WEBSOCKET_PORT", "x")
        .env("FASTSOCK_REMOTE_TIMEOUT", "1.5")
        .args(["--check"])
        .output();
    let lines: Vec<_> = output.stderr.lines().collect();
    assert!(lines[0].starts_with("fastsock: WEBSOCKET_PORT: \"x\""));
    assert!(lines[1].starts_with("fastsock: FASTSOCK_REMOTE_TIMEOUT: \"1.5\""));
    assert_eq!((lines.len(), output.code), (2, Some(2)));

    let file = r#"
        webscoket_port = 1
        limit_call = 2
        remote_timeout = "1.5"
        [[route]]
        name = "A"
        path = "/a/{id}"
        [[route]]
        name = "b"
        path = "/b/{id}"
    "#;
    let output = Command::new()
        .file("bad.toml", file)
        .env("FASTSOCK_AUTH_TOKNE", "x")
        .args(["--config", "bad.toml", "--set", "redis_prot=1", "--check"])
        .output();
    let lines: Vec<_> = output.stderr.lines().collect();
    for begin in [
        "bad.toml: there is no setting \"webscoket_port\"; did you mean \"websocket_port\"?",
        "bad.toml: there is no setting \"limit_call\"",
        "there is no setting \"redis_prot\"",
        "FASTSOCK_AUTH_TOKNE: there is no such setting",
        "remote_timeout: \"1.5\"",
        "routes: route \"A\": its name is not",
    ] {
        let begin = format!("fastsock: {begin}");
        assert!(lines.iter().any(|l| l.starts_with(&begin)), "{lines:#?}");
    }
    let of_routes = "; route \"b\": it needs remote_url";
    assert!(lines.iter().any(|l| l.contains(of_routes)), "{lines:#?}");
    assert_eq!((lines.len(), output.code), (6, Some(2)));

    let output = Command::new()
        .env("FASTSOCK_AUTH_URL", "https://h/")
        .env("FASTSOCK_AUTH_CACHE", "1")
        .env("FASTSOCK_SPOOL", "disk")
        .env("WEBSOCKET_PORT", "3001")
        .env("FASTSOCK_ADMIN_ADDR", "127.0.0.1:3001")
        .args(["--check"])
        .output();
    for name in ["AUTH_URL", "AUTH_CACHE", "SPOOL", "ADMIN_ADDR"] {
        let begin = format!("fastsock: FASTSOCK_{name}: ");
        let count = output.stderr.lines().filter(|l| l.starts_with(&begin));
        assert_eq!(count.count(), 1, "{name}: {}", output.stderr);
    }
    assert_eq!(output.code, Some(2));
}

#[test]
fn whoever_is_asked_or_told_is_tried() {
    let (free, listener) = (
        support::free_port(),
        TcpListener::bind("127.0.0.1:0").unwrap(),
    );
    let dead = format!("http://127.0.0.1:{free}/path?key=s3cret");
    let alive = format!("http://{}/", listener.local_addr().unwrap());
    let refused = format!(
        "http://127.0.0.1:{free}/path cannot be connected to: Connection refused (os error 111)"
    );
    let webhook = alone()
        .env("FASTSOCK_EVENTS_URL", &dead)
        .env("FASTSOCK_AUTH", "webhook")
        .env("FASTSOCK_AUTH_URL", &dead)
        .args(["--check"])
        .output();
    names(
        &webhook,
        &format!("events: {refused} (FASTSOCK_EVENTS_URL)"),
    );
    names(&webhook, &format!("auth: {refused} (FASTSOCK_AUTH_URL)"));
    assert!(!webhook.stdout.contains("s3cret"));
    let jwt = |url: &str| {
        let command = alone().env("FASTSOCK_AUTH", "jwt");
        command
            .env("FASTSOCK_AUTH_JWT_JWKS", url)
            .args(["--check"])
            .output()
    };
    names(
        &jwt(&dead),
        &format!("auth: {refused} (FASTSOCK_AUTH_JWT_JWKS)"),
    );
    is_green(&jwt(&alive));
}

#[test]
fn a_certificate_that_expires_soon_is_told() {
    for (days, is_told) in [("10", true), ("100", false)] {
        let directory = tempfile::tempdir().unwrap();
        let made = std::process::Command::new("openssl")
            .args([
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
                "-nodes",
            ])
            .args([
                "-subj",
                "/CN=gateway.example",
                "-keyout",
                "key.pem",
                "-out",
                "cert.pem",
                "-days",
                days,
            ])
            .current_dir(directory.path())
            .output()
            .expect("scripts/setup installs openssl");
        assert!(made.status.success(), "{made:?}");
        let output = alone()
            .env("FASTSOCK_TLS_CERT", directory.path().join("cert.pem"))
            .env("FASTSOCK_TLS_KEY", directory.path().join("key.pem"))
            .args(["--check"])
            .output();
        is_green(&output);
        let line = "FASTSOCK_TLS_CERT: A certificate expires soon: ";
        let told = output.stdout.lines().find(|l| l.starts_with(line));
        assert_eq!(told.is_some(), is_told, "{}", output.stdout);
        assert!(told.is_none_or(|line| line.contains("gateway.example expires ")));
    }
}

/// A command that needs nobody else.
fn alone() -> Command {
    Command::on_free_ports().env("FASTSOCK_BROKER", "embedded")
}

fn spooled(data_dir: &Path) -> Command {
    let data_dir = PathBuf::from(data_dir);
    alone()
        .env("FASTSOCK_SPOOL", "disk")
        .env("FASTSOCK_DATA_DIR", data_dir)
}

/// One line begins so, and the command fails.
fn names(output: &Output, begin: &str) {
    let count = output.stdout.lines().filter(|line| line.starts_with(begin));
    assert_eq!(count.count(), 1, "{begin}: {}", output.stdout);
    assert_eq!(output.code, Some(2));
}

fn is_green(output: &Output) {
    assert_eq!(output.code, Some(0), "{}{}", output.stdout, output.stderr);
}
