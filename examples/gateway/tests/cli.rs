//! What the command says and how it exits when it does not get as far as running.

mod support;

use std::{
    io::{Read, Write},
    net::TcpListener,
};

use support::Command;

#[test]
fn a_bad_setting_is_one_line_and_exit_code_1() {
    for (name, value, allowed) in [
        ("WEBSOCKET_PORT", "70000", "a port from 0 to 65535"),
        ("WEBSOCKET_PORT", "abc", "a port from 0 to 65535"),
        (
            "WEBSOCKET_PING_INTERVAL",
            "-1",
            "milliseconds from 0 to 86400000",
        ),
        ("REDIS_PORT", "0", "a port from 1 to 65535"),
        ("REMOTE_URL", "ftp://h/", "an http:// or https:// URL"),
        (
            "LOG_LEVEL",
            "loud",
            "error, warn, info, http, verbose, debug or silly",
        ),
        ("FASTSOCK_LOG_PAYLOADS", "some", "capped, full or none"),
        ("FASTSOCK_RUNTIME_WORKERS", "65", "an integer from 0 to 64"),
        ("FASTSOCK_BROKER", "kafka", "embedded, redis or auto"),
    ] {
        let output = Command::new().env(name, value).output();
        let line = format!("fastsock: {name}: {value:?} is not allowed; give {allowed}\n");
        assert_eq!(output.stderr, line);
        assert_eq!((output.code, output.stdout.as_str()), (Some(1), ""));
    }
}

#[test]
fn a_bad_setting_in_dotenv_or_toml_or_a_flag_is_one_line_too() {
    let expected =
        "fastsock: REDIS_DB: \"x\" is not allowed; give an integer from 0 to 2147483647\n";
    let output = Command::new().file(".env", "REDIS_DB=x").output();
    assert_eq!((output.code, output.stderr.as_str()), (Some(1), expected));

    let output = Command::new().args(["--set", "REDIS_DB=x"]).output();
    assert_eq!((output.code, output.stderr.as_str()), (Some(1), expected));

    let toml = Command::new().file("a.toml", "[redis]\nprot = 1");
    let output = toml.args(["--config", "a.toml"]).output();
    let expected =
        "fastsock: a.toml: there is no setting \"redis_prot\"; did you mean \"redis_port\"?\n";
    assert_eq!((output.code, output.stderr.as_str()), (Some(1), expected));

    let output = Command::new().args(["--config", "missing.toml"]).output();
    assert!(
        output
            .stderr
            .starts_with("fastsock: missing.toml: cannot be read: ")
    );
    assert_eq!((output.code, output.stderr.lines().count()), (Some(1), 1));

    let output = Command::new().args(["--wat"]).output();
    assert_eq!((output.code, output.stderr.lines().count()), (Some(1), 1));
}

#[test]
fn settings_that_contradict_each_other_are_one_line() {
    let output = Command::new()
        .env("FASTSOCK_ADMIN_ADDR", "0.0.0.0:0")
        .output();
    let expected = "fastsock: FASTSOCK_ADMIN_ADDR: 0.0.0.0:0 is beyond loopback, so FASTSOCK_ADMIN_TOKEN is required\n";
    assert_eq!((output.code, output.stderr.as_str()), (Some(1), expected));
}

#[test]
fn credentials_without_a_way_to_authenticate_are_refused_wherever_they_are_given() {
    for (variable, value, auth) in [
        ("FASTSOCK_AUTH_TOKENS_FILE", "tokens", "tokens"),
        ("FASTSOCK_AUTH_JWT_KEY", "a key", "jwt"),
        ("FASTSOCK_AUTH_JWT_JWKS", "https://h/", "jwt"),
        ("FASTSOCK_AUTH_URL", "https://h/", "webhook"),
    ] {
        let assignment = format!("{variable}={value}");
        let name = variable.strip_prefix("FASTSOCK_").unwrap().to_lowercase();
        let toml = format!("{name} = '{value}'");
        for command in [
            Command::new().env(variable, value),
            Command::new()
                .env(variable, value)
                .env("FASTSOCK_AUTH", "open"),
            Command::new().file(".env", &assignment),
            Command::new().args(["--set", &assignment]),
            Command::new()
                .file("a.toml", &toml)
                .args(["--config", "a.toml"]),
        ] {
            let output = command.args(["--check"]).output(); // it would run for ever
            let line = format!(
                "fastsock: {variable}: it has no effect while FASTSOCK_AUTH is open; set FASTSOCK_AUTH to {auth}, or remove {variable}\n"
            );
            assert_eq!((output.code, output.stderr), (Some(2), line));
            assert_eq!(output.stdout, "");
        }
    }
}

#[test]
fn a_mistyped_name_that_would_leave_the_door_open_is_refused() {
    for (name, hint) in [
        (
            "FASTSOCK_AUTH_TOKEN_FILE",
            "; did you mean FASTSOCK_AUTH_TOKENS_FILE?",
        ),
        ("FASTSOCK_AUTHENTICATE_ALL_DEVICES", ""),
    ] {
        for command in [
            Command::new().env(name, "x"),
            Command::new().file(".env", &format!("{name}=x")),
        ] {
            let output = command.args(["--check"]).output();
            let line = format!("fastsock: {name}: there is no such setting{hint}\n");
            assert_eq!((output.code, output.stderr), (Some(2), line));
        }
    }
}

#[test]
fn numbers_take_units_or_are_refused_and_those_of_the_original_are_cut_aloud() {
    let output = Command::new()
        .env("WEBSOCKET_PING_INTERVAL", "30s")
        .env("FASTSOCK_REMOTE_TIMEOUT", "30s")
        .file("a.toml", "outbox_bytes = '1MiB'\nremote_batch_wait = 5.0")
        .args([
            "--config",
            "a.toml",
            "--set",
            "hook_timeout=1m",
            "--print-config",
        ])
        .output();
    assert_eq!((output.code, output.stderr.as_str()), (Some(0), ""));
    for line in [
        "# from environment\nWEBSOCKET_PING_INTERVAL=30\n",
        "# from environment\nFASTSOCK_REMOTE_TIMEOUT=30000\n",
        "# from the file\nFASTSOCK_OUTBOX_BYTES=1048576\n",
        "# from the file\nFASTSOCK_REMOTE_BATCH_WAIT=5\n",
        "# from a flag\nFASTSOCK_HOOK_TIMEOUT=60000\n",
    ] {
        assert!(output.stdout.contains(line), "{}", output.stdout);
    }
    let output = Command::new()
        .file(".env", "WEBSOCKET_PING_INTERVAL=30s")
        .env("FASTSOCK_BROKER", "embedded")
        .args(["--check"])
        .output();
    let warning = "WEBSOCKET_PING_INTERVAL: Only the beginning of a number counts: \"30s\" is understood as 30; give milliseconds from 0 to 86400000\n";
    assert!(output.stdout.starts_with(warning), "{}", output.stdout);
    for (name, value) in [
        ("FASTSOCK_REMOTE_TIMEOUT", "3000.5"),
        ("FASTSOCK_REMOTE_TIMEOUT", "0x10"),
        ("FASTSOCK_OUTBOX_BYTES", "1.5GB"),
        ("FASTSOCK_REMOTE_CONCURRENCY", "1k"),
    ] {
        for command in [
            Command::new().env(name, value),
            Command::new().args(["--set", &format!("{name}={value}")]),
        ] {
            let output = command.args(["--check"]).output();
            let line = format!("fastsock: {name}: {value:?} is not allowed; give ");
            assert!(output.stderr.starts_with(&line), "{}", output.stderr);
            assert_eq!(output.code, Some(2));
        }
    }
}

#[test]
fn lines_of_dotenv_that_make_no_sense_are_skipped_and_told_once_without_their_text() {
    let text = "A=1\n<<<<<<< HEAD\nREDIS_DB=5\n# fine\nmy s3cret\n";
    let more = ["s3cret\n"; 4].concat();
    for (text, lines) in [
        (text, "lines 2, 5"),
        ("s3cret=\ns3cret", "line 2"),
        (&format!("{text}{more}"), "lines 2, 5, 6, 7, 8 and 1 more"),
    ] {
        let output = Command::on_free_ports()
            .env("FASTSOCK_BROKER", "embedded")
            .file(".env", text)
            .args(["--check"])
            .output();
        let warning =
            format!(".env: A line of a settings file is not NAME=VALUE and is skipped: {lines}\n");
        assert!(output.stdout.starts_with(&warning), "{}", output.stdout);
        assert_eq!(output.stdout.matches("NAME=VALUE").count(), 1);
        assert_eq!(output.code, Some(0));
        assert!(!output.stdout.contains("s3cret"), "{}", output.stdout);
    }
}

#[test]
fn the_admin_port_is_not_that_of_devices() {
    let command = Command::new().env("WEBSOCKET_PORT", "3001");
    let command = command.env("FASTSOCK_ADMIN_ADDR", "127.0.0.1:3001");
    let output = command.args(["--check"]).output();
    let line = "fastsock: FASTSOCK_ADMIN_ADDR: 127.0.0.1:3001 is the port of devices (WEBSOCKET_PORT); give another one\n";
    assert_eq!((output.code, output.stderr.as_str()), (Some(2), line));
}

#[test]
fn devices_that_have_the_default_port_of_the_admin_listener_keep_it() {
    let print = |addr: Option<&str>| {
        let command = Command::new().env("WEBSOCKET_PORT", "3001");
        let command = addr
            .into_iter()
            .fold(command, |c, addr| c.env("FASTSOCK_LISTEN_ADDR", addr));
        let output = command.args(["--print-config"]).output();
        assert_eq!(output.code, Some(0), "{}", output.stderr);
        output.stdout
    };
    let off = "# WEBSOCKET_PORT is given\nFASTSOCK_ADMIN_ADDR=off\n";
    for addr in [None, Some("0.0.0.0"), Some("127.0.0.1"), Some("::")] {
        assert!(print(addr).contains(off), "{addr:?}");
    }
    let elsewhere = "# default\nFASTSOCK_ADMIN_ADDR=127.0.0.1:3001\n";
    for addr in ["127.0.0.2", "::1"] {
        assert!(print(Some(addr)).contains(elsewhere), "{addr}");
    }
}

#[test]
fn a_gateway_with_devices_at_the_default_port_of_the_admin_listener_says_that_it_has_none() {
    let output = Command::new()
        .env("WEBSOCKET_PORT", "3001")
        .env("FASTSOCK_LISTEN_ADDR", "127.0.0.1")
        .args(["--check"])
        .output();
    let warning = "FASTSOCK_ADMIN_ADDR: Running without the admin listener: devices have its port 3001; give another address, or off\n";
    assert!(output.stdout.contains(warning), "{}", output.stdout);
    assert!(output.stderr.is_empty(), "{}", output.stderr);
}

#[test]
fn check_asks_redis_for_a_spool_alone_too() {
    let free = support::free_port();
    let output = Command::new()
        .env("FASTSOCK_BROKER", "embedded")
        .env("FASTSOCK_SPOOL", "redis")
        .env("FASTSOCK_REDIS_URL", format!("redis://127.0.0.1:{free}"))
        .args(["--check"])
        .output();
    let told = format!("redis: 127.0.0.1:{free}: Connection refused");
    assert!(output.stdout.contains(&told), "{}", output.stdout);
    assert_eq!(output.code, Some(2));
}

#[test]
fn an_origin_that_can_never_match_ends_the_start() {
    let output = Command::new()
        .env("FASTSOCK_LISTEN_ORIGINS", "https://a.example, b.example")
        .args(["--check"])
        .output();
    let line = "fastsock: FASTSOCK_LISTEN_ORIGINS: \"b.example\" has no scheme; give origins such as https://example.com or https://*.example.com, separated by commas\n";
    assert_eq!((output.code, output.stderr.as_str()), (Some(2), line));
}

#[test]
fn an_admin_token_file_without_a_token_ends_the_start() {
    for content in ["", "\n", " \r\n"] {
        for command in [
            Command::new().env("FASTSOCK_ADMIN_TOKEN_FILE", "token"),
            Command::new().args(["--set", "admin_token_file=token"]),
        ] {
            let output = command.file("token", content).args(["--check"]).output();
            let line = "fastsock: FASTSOCK_ADMIN_TOKEN_FILE: there is nothing in \"token\"\n";
            assert_eq!((output.code, output.stderr.as_str()), (Some(2), line));
        }
    }
}

#[test]
fn an_admin_token_that_is_a_path_is_refused_with_the_setting_that_takes_it() {
    for (name, value) in [
        ("FASTSOCK_ADMIN_TOKEN", "/run/secrets/admin-token"),
        ("FASTSOCK_ADMIN_TOKEN", "secrets/token"),
        ("admin_token", "secrets/token"),
    ] {
        let assignment = format!("{name}={value}");
        let command = Command::new();
        std::fs::create_dir(command.directory().path().join("secrets")).unwrap();
        let command = command.file("secrets/token", "s3cret\n");
        let output = command.args(["--set", &assignment, "--check"]).output();
        let line = format!(
            "fastsock: {name}: the value is the path of a file; FASTSOCK_ADMIN_TOKEN_FILE takes that\n"
        );
        assert_eq!((output.code, output.stderr), (Some(2), line));
    }
    // What is in the file may look like one.
    let output = Command::on_free_ports()
        .file("token", "/looks/like/one\n")
        .env("FASTSOCK_ADMIN_TOKEN_FILE", "token")
        .env("FASTSOCK_BROKER", "embedded")
        .args(["--check"])
        .output();
    assert_eq!(output.code, Some(0), "{}", output.stderr);
}

#[test]
fn nothing_is_left_behind_by_a_bad_start() {
    let command = Command::new().env("REDIS_PORT", "x");
    let directory = command.directory();
    command.output();
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
}

#[test]
fn the_settings_are_printed_with_their_sources() {
    let output = Command::new()
        .file(
            ".env",
            "REDIS_PORT=1\nREDIS_DB=5\nREMOTE_HEADERS={\"A\":\"s3cret\"}\n",
        )
        .file(
            "a.toml",
            "remote.url = 'http://user:s3cret@h/p'\nredis.db = 4",
        )
        .env("REDIS_PORT", "")
        .env("LOG_LEVEL", "error")
        .args(["--config", "a.toml", "--port", "7", "--print-config"])
        .output();
    assert_eq!((output.code, output.stderr.as_str()), (Some(0), ""));
    for line in [
        "# from a flag\nWEBSOCKET_PORT=7\n",
        "# default\nREDIS_PORT=6379\n",
        "# from .env\nREDIS_DB=5\n",
        "# REMOTE_URL=http://***@h/p # from the file\n",
        "# REMOTE_HEADERS=*** # from .env\n",
        "# from environment\nLOG_LEVEL=error\n",
        "# REDIS_DB is given\nFASTSOCK_BROKER=redis\n",
        "# default\nFASTSOCK_ADMIN_ADDR=127.0.0.1:3001\n",
        "# default\nFASTSOCK_LOG_FILE=logs/fastsock.log\n",
    ] {
        assert!(
            output.stdout.contains(line),
            "{line} is not in\n{}",
            output.stdout
        );
    }
    assert!(!output.stdout.contains("s3cret"));

    // A file with every default changes nothing.
    let all = Command::new().args(["--print-config=toml"]).output().stdout;
    let again = Command::new().file("all.toml", &all);
    let again = again.args(["--config", "all.toml", "--print-config", "--changed"]);
    assert_eq!(again.output().stdout, "");
}

#[test]
fn help_and_version_are_told() {
    let help = Command::new().args(["--help"]).output();
    assert_eq!(help.code, Some(0));
    assert!(help.stdout.contains("--print-config") && help.stdout.contains("REMOTE_URL"));
    let version = Command::new().args(["--version"]).output();
    assert_eq!(
        version.stdout,
        concat!("fastsock ", env!("CARGO_PKG_VERSION"), "\n")
    );
}

#[test]
fn check_tells_of_redis_and_the_remote() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = listener.local_addr().unwrap();
    let free = support::free_port();

    let output = Command::on_free_ports()
        .env("FASTSOCK_REDIS_URL", format!("redis://127.0.0.1:{free}"))
        .env("REMOTE_URL", format!("http://u:p@{taken}/in?k=v"))
        .args(["--check"])
        .output();
    assert_eq!((output.code, output.stderr.as_str()), (Some(2), ""));
    let lines: Vec<_> = output.stdout.lines().collect();
    assert_eq!(lines[0], "settings: ok");
    assert!(lines[1].starts_with(&format!("redis: 127.0.0.1:{free}: Connection refused")));
    assert_eq!(
        lines[2],
        format!("remote: http://{taken}/in can be connected to")
    );

    let output = Command::on_free_ports()
        .env("FASTSOCK_BROKER", "embedded")
        .env("FASTSOCK_FLUX", "1")
        .args(["--check"])
        .output();
    assert_eq!(output.code, Some(0));
    assert!(
        output
            .stdout
            .starts_with("FASTSOCK_FLUX: Unknown setting is ignored: ")
    );

    let output = Command::new()
        .env("FASTSOCK_BROKER", "embedded")
        .env("REMOTE_URL", format!("http://127.0.0.1:{free}/"))
        .args(["--check"])
        .output();
    assert_eq!(output.code, Some(2));
}

#[test]
fn check_reads_the_files_that_the_settings_name() {
    for (variable, others) in [
        ("FASTSOCK_TLS_CERT", &[("FASTSOCK_TLS_KEY", "none")][..]),
        (
            "FASTSOCK_REMOTE_CA",
            &[("REMOTE_URL", "https://127.0.0.1:1/")],
        ),
        (
            "FASTSOCK_REDIS_CA",
            &[
                ("FASTSOCK_REDIS_URL", "rediss://127.0.0.1:1"),
                ("FASTSOCK_BROKER", "redis"),
            ],
        ),
        ("FASTSOCK_AUTH_TOKENS_FILE", &[("FASTSOCK_AUTH", "tokens")]),
        ("FASTSOCK_AUTH_JWT_KEY", &[("FASTSOCK_AUTH", "jwt")]),
    ] {
        let command = Command::new()
            .env("FASTSOCK_BROKER", "embedded")
            .env(variable, "none");
        let command = others
            .iter()
            .fold(command, |command, (name, value)| command.env(name, value));
        let output = command.args(["--check"]).output();
        let expected = format!("settings: {variable}: ");
        assert!(output.stdout.starts_with(&expected), "{}", output.stdout);
        assert_eq!((output.code, output.stderr.as_str()), (Some(2), ""));
    }
}

#[test]
fn check_asks_a_real_redis() {
    let redis = support::redis("s3cret");
    let check = |url: String| {
        let output = Command::on_free_ports()
            .env("FASTSOCK_REDIS_URL", url)
            .args(["--check"])
            .output();
        let line = output.stdout.lines().find(|l| l.starts_with("redis: "));
        (output.code, line.unwrap_or_default().to_owned())
    };
    let address = format!("127.0.0.1:{}", redis.port());
    let (code, line) = check(format!("redis://{address}"));
    assert!(
        line.starts_with(&format!("redis: {address}: ")) && line.contains("NOAUTH"),
        "{line}"
    );
    assert_eq!(code, Some(2));
    let (code, line) = check(format!("redis://:wrong@{address}"));
    assert!(
        line.contains("WRONGPASS") && !line.contains("wrong@"),
        "{line}"
    );
    assert_eq!(code, Some(2));
    let (code, line) = check(format!("redis://:s3cret@{address}/99"));
    assert!(line.contains("DB index is out of range"), "{line}");
    assert_eq!(code, Some(2));
    let (code, line) = check(format!("redis://:s3cret@{address}"));
    let expected = format!("redis: redis://{address} answers, and allows all that is needed");
    assert_eq!((code, line), (Some(0), expected));
}

#[test]
fn dead_letters_need_a_running_gateway_and_say_so_in_one_line() {
    let free = format!("127.0.0.1:{}", support::free_port());
    let nobody = format!("no gateway answers on {free} (FASTSOCK_ADMIN_ADDR): Connection refused");
    for (addr, expected) in [
        (&*free, &*nobody),
        ("off", "FASTSOCK_ADMIN_ADDR: off; give the address"),
        (
            "127.0.0.1:0",
            "FASTSOCK_ADMIN_ADDR: 127.0.0.1:0 leaves the port open",
        ),
    ] {
        for words in [
            &["list"][..],
            &["list", "--json"],
            &["show", "019ac000-0000-7000-8000-000000000000"],
            &["replay", "--all"],
            &["drop", "019ac000-0000-7000-8000-000000000000"],
        ] {
            let output = Command::new()
                .env("FASTSOCK_ADMIN_ADDR", addr)
                .env("FASTSOCK_SPOOL", "disk")
                .env("FASTSOCK_DATA_DIR", "data")
                .args(["dead-letters"])
                .args(words.iter().copied())
                .output();
            let line = output.stderr.strip_prefix("fastsock: ").unwrap();
            assert!(line.starts_with(expected), "{line}");
            assert_eq!((output.code, line.lines().count()), (Some(1), 1));
            assert_eq!(output.stdout, "");
        }
    }
}

#[test]
fn what_speaks_no_http_is_no_gateway() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    let output = std::thread::scope(|scope| {
        scope.spawn(|| {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 4096];
            assert!(stream.read(&mut request).unwrap() > 0);
            stream.write_all(b"-ERR unknown command\r\n").unwrap();
        });
        Command::new()
            .env("FASTSOCK_ADMIN_ADDR", &addr)
            .args(["dead-letters", "list"])
            .output()
    });
    let expected = format!(
        "fastsock: no gateway answers on {addr} (FASTSOCK_ADMIN_ADDR): it speaks something else"
    );
    assert!(output.stderr.starts_with(&expected), "{}", output.stderr);
    assert_eq!((output.code, output.stderr.lines().count()), (Some(1), 1));
}
