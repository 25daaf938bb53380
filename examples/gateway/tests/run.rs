//! The running gateway: what it logs, and how it stops.

mod support;

use std::{
    io::Read,
    net::{TcpListener, TcpStream},
    time::{Duration, Instant},
};

use support::{Command, Device, wait_until};

/// A gateway on a free port that needs nothing else.
fn gateway() -> Command {
    Command::new()
        .env("WEBSOCKET_PORT", "0")
        .env("FASTSOCK_BROKER", "embedded")
        .env("FASTSOCK_ADMIN_ADDR", "off")
}

#[test]
fn it_says_where_it_runs_and_stops_on_a_signal() {
    for name in ["TERM", "INT"] {
        let mut gateway = gateway()
            .env("REMOTE_URL", "http://user:s3cret@127.0.0.1:1/in?key=s3cret")
            .spawn();
        let ready = gateway.wait_for("WebSocket server running on ws://0.0.0.0:");
        assert_eq!(ready["level"], "info");
        assert_eq!(ready["broker"], "embedded");
        assert_eq!(ready["remote"], "http://127.0.0.1:1/in");
        assert_eq!(ready["admin"], "off");

        gateway.signal(name);
        let output = gateway.end();
        assert_eq!((output.code, output.stderr.as_str()), (Some(0), ""));
        let file = gateway.log_file();
        let messages: Vec<_> = file
            .iter()
            .map(|line| line["message"].as_str().unwrap())
            .collect();
        let last = output.stdout.lines().last().unwrap();
        assert!(
            last.starts_with(r#"{"level":"warn","message":"Shutdown complete.","timestamp":""#),
            "{last}"
        );
        assert!(messages.contains(&"anyone who can reach this port, and any web page in a browser that can, may connect under any client id; FASTSOCK_AUTH says who may, FASTSOCK_LISTEN_ORIGINS which pages"));
        assert!(messages.contains(&"Shutdown initiated... Exit code: 0"));
        assert_eq!(
            file.last().unwrap(),
            &serde_json::from_str::<serde_json::Value>(last).unwrap()
        );
        assert!(!output.stdout.contains("s3cret"));
    }
}

#[test]
fn a_lone_worker_is_enough() {
    let mut gateway = gateway().env("FASTSOCK_RUNTIME_WORKERS", "1").spawn();
    let port = gateway.port();
    let _device = Device::connect(port, "dev1");
    gateway.wait_for("Client connected");
    gateway.signal("TERM");
    assert_eq!(gateway.end().code, Some(0));
}

#[test]
fn devices_are_logged_as_the_original_did() {
    let mut gateway = gateway().spawn();
    let mut device = Device::connect(gateway.port(), "dev1");
    let connected = gateway.wait_for("Client connected");
    assert_eq!(
        (&connected["level"], &connected["client_id"]),
        (&"info".into(), &"dev1".into())
    );
    device.send(&"x".repeat(2000));
    let skipped = gateway.wait_for("Message forwarding skipped");
    assert_eq!(skipped["level"], "warn");
    assert_eq!(skipped["data"], "x".repeat(1024));
    drop(device);
    let disconnected = gateway.wait_for("Client disconnected");
    assert_eq!(disconnected["level"], "info");
}

#[test]
fn a_level_keeps_lesser_lines_away() {
    let mut gateway = gateway().env("LOG_LEVEL", "warn").spawn();
    // There is no ready line to wait for.
    wait_until("it takes signals", || gateway.takes_signals());
    gateway.signal("TERM");
    let output = gateway.end();
    let is_warn: Vec<_> = output
        .stdout
        .lines()
        .map(|line| line.contains(r#""level":"warn""#))
        .collect();
    assert_eq!(
        (output.code, is_warn),
        // Anyone may connect; it stops; it has stopped.
        (Some(0), vec![true, true, true]),
        "{}",
        output.stdout
    );
}

#[test]
fn a_hangup_ends_nothing() {
    let mut gateway = gateway().spawn();
    gateway.port();
    gateway.signal("HUP");
    assert_eq!(gateway.wait_for("Reloaded")["level"], "info");
    gateway.signal("TERM");
    assert_eq!(gateway.end().code, Some(0));
}

#[test]
fn a_hangup_takes_limits_for_whoever_comes_and_sends_nobody_away() {
    let mut gateway = gateway()
        .file(".env", "FASTSOCK_LIMIT_CONNECTIONS=1\n")
        .spawn();
    let port = gateway.port();
    let mut first = Device::connect(port, "dev1");
    assert_eq!(status(port), "503");
    let limit = |gateway: &mut support::Process, limit: &str| {
        let dotenv = gateway.directory.path().join(".env");
        std::fs::write(dotenv, format!("FASTSOCK_LIMIT_{limit}\n")).unwrap();
        gateway.signal("HUP");
        gateway.wait_for("Reloaded");
    };
    limit(&mut gateway, "CONNECTIONS_PER_IP=1"); // the first came before that limit, and is not counted
    let mut second = Device::connect(port, "dev2");
    assert_eq!(status(port), "429");
    limit(&mut gateway, "CONNECTIONS=3");
    let mut third = Device::connect(port, "dev3");
    assert_eq!(status(port), "503");
    limit(&mut gateway, "CONNECTIONS=1");
    assert_eq!(status(port), "503");
    for device in [&mut first, &mut second, &mut third] {
        device.ping();
    }
    gateway.signal("TERM");
    assert_eq!(gateway.end().code, Some(0));
}

/// What a handshake is answered.
fn status(port: u16) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let mut head = [0; 12];
    stream.read_exact(&mut head).unwrap();
    String::from_utf8_lossy(&head[9..]).into()
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let backend = TcpListener::bind("127.0.0.1:0").unwrap(); // it takes connections and never answers
    let url = format!("http://{}/", backend.local_addr().unwrap());
    let mut gateway = gateway().env("REMOTE_URL", url).spawn();
    let mut device = Device::connect(gateway.port(), "dev1");
    device.send("hello");
    let _post = backend.accept().unwrap();
    gateway.signal("TERM");
    gateway.wait_for("Shutdown initiated");
    let before = Instant::now();
    gateway.signal("TERM");
    let output = gateway.end();
    assert_eq!(output.code, Some(1));
    assert!(before.elapsed() < Duration::from_secs(4));
    assert!(output.stdout.contains("Shutdown cut short. Exit code: 1"));
}

#[test]
fn a_signal_sent_to_it_and_to_its_group_is_one() {
    let mut gateway = gateway().spawn();
    gateway.port();
    let pid = gateway.child.id().to_string();
    let kill = std::process::Command::new("kill")
        .args(["-s", "TERM", &pid, &pid])
        .status();
    assert!(kill.unwrap().success());
    assert_eq!(gateway.end().code, Some(0));
}

#[test]
fn what_a_stop_leaves_is_an_error_line() {
    let backend = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", backend.local_addr().unwrap());
    let mut gateway = gateway().env("REMOTE_URL", url).spawn();
    let mut device = Device::connect(gateway.port(), "dev1");
    device.send("hello");
    let _post = backend.accept().unwrap();
    gateway.signal("TERM");
    let left = gateway.wait_for("Shutdown left something behind");
    assert_eq!(
        (&left["level"], &left["uplinks"]),
        (&"error".into(), &1.into())
    );
    assert_eq!(gateway.end().code, Some(0));
}

#[test]
fn a_taken_port_is_one_line_and_exit_code_1() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap();
    for (name, value) in [
        ("WEBSOCKET_PORT", addr.port().to_string()),
        ("FASTSOCK_ADMIN_ADDR", addr.to_string()),
    ] {
        let output = gateway().env(name, &value).output();
        assert_eq!(output.code, Some(1));
        assert_eq!(output.stderr.lines().count(), 1, "{}", output.stderr);
        assert!(
            output.stderr.starts_with("fastsock: ") && output.stderr.contains(name),
            "{}",
            output.stderr
        );
        assert!(output.stderr.contains("in use"), "{}", output.stderr);
    }
}

#[test]
fn an_address_of_another_machine_names_its_setting() {
    let elsewhere = "192.0.2.1"; // reserved for documentation
    let output = gateway().env("FASTSOCK_LISTEN_ADDR", elsewhere).output();
    let line = "fastsock: FASTSOCK_LISTEN_ADDR: cannot listen on 192.0.2.1:";
    assert_eq!(output.code, Some(1));
    assert!(output.stderr.starts_with(line), "{}", output.stderr);
}

#[test]
fn a_taken_default_admin_port_is_a_warning() {
    let _taken = TcpListener::bind("127.0.0.1:3001"); // if this fails, it is taken already
    let mut gateway = gateway().env("FASTSOCK_ADMIN_ADDR", "").spawn();
    let warning = gateway.wait_for("Running without the admin listener");
    assert_eq!(warning["level"], "warn");
    assert!(
        warning["hint"]
            .as_str()
            .unwrap()
            .contains("FASTSOCK_ADMIN_ADDR")
    );
    let ready = gateway.wait_for("WebSocket server running");
    assert_eq!(ready["admin"], "off");
}

#[test]
fn unknown_settings_are_warned_about() {
    let mut gateway = gateway().env("FASTSOCK_LOG_FILES", "x").spawn();
    let line = gateway.line();
    assert_eq!(line["message"], "Unknown setting is ignored");
    assert_eq!(line["about"], "FASTSOCK_LOG_FILES");
    assert_eq!(line["hint"], "did you mean FASTSOCK_LOG_FILE?");
}

#[test]
fn without_a_writable_folder_it_logs_to_the_console() {
    let mut gateway = gateway().file("logs", "in the way").spawn();
    let line = gateway.line();
    assert_eq!(
        (&line["level"], &line["message"]),
        (&"warn".into(), &"Log file cannot be written".into())
    );
    gateway.port();
}

#[test]
fn a_stalled_console_holds_up_nothing() {
    let mut gateway = gateway().spawn();
    let mut device = Device::connect(gateway.port(), "dev1");
    for number in 0..4000 {
        device.send(&format!("{number}:{}", "x".repeat(1000)));
    }
    let is_there = |gateway: &support::Process, text: &str| {
        let path = gateway.directory.path().join("logs/fastsock.log");
        std::fs::read_to_string(path).unwrap().contains(text)
    };
    wait_until("the file has it all, whatever the console does", || {
        is_there(&gateway, "\"3999:xxx")
    });
    gateway.signal("TERM");
    let before = Instant::now();
    let code = gateway.child.wait().unwrap().code();
    assert!(before.elapsed() < Duration::from_secs(5));
    assert_eq!(code, Some(0));
    assert!(is_there(&gateway, "Shutdown complete."));
    let lines = gateway.log_file();
    let forwarded = lines
        .iter()
        .filter(|line| line.get("data").is_some())
        .count();
    assert_eq!(forwarded, 4000);
}
