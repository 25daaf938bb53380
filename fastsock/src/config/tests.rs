//! Settings from every source.

use super::*;

#[test]
fn every_default_is_allowed_and_reads_back() {
    let mut config = Config::default();
    for setting in SETTINGS.iter() {
        let text = (setting.show)(&Config::default());
        (setting.set)(&mut config, &text).unwrap_or_else(|_| panic!("{}: {text:?}", setting.name));
    }
    assert_eq!(config, Config::default());
    config.check().unwrap();
}

#[test]
fn no_password_in_a_url_is_shown() {
    for setting in SETTINGS.iter() {
        let secret = "http://user:s3cret@host/path?key=s3cret";
        let mut config = Config::default();
        if config.set(setting.name, secret).is_ok() {
            let shown = setting.show(&config);
            assert!(!shown.contains("s3cret"), "{}: {shown}", setting.name);
        }
    }
    let config = Config::from_vars([("REMOTE_URL", "https://user:pw@host/a?key=k#f")]).unwrap();
    let shown = config.show("remote_url").unwrap();
    assert_eq!(shown, "https://***@host/a?***#f");
    let config = Config::from_vars([("REMOTE_URL", "https://host/a")]).unwrap();
    assert_eq!(config.show("remote_url").unwrap(), "https://host/a");
}

#[test]
fn a_name_is_its_variable_in_lower_case() {
    for setting in SETTINGS.iter() {
        let variable = setting.variable;
        let short = variable.strip_prefix("FASTSOCK_");
        // Node's own, which the original has too.
        let short = short.unwrap_or_else(|| variable.trim_start_matches("NODE_"));
        assert_eq!(setting.name, short.to_lowercase());
    }
}

#[test]
fn a_bad_value_names_the_variable_the_value_and_what_is_allowed() {
    let error = Config::from_vars([("WEBSOCKET_PORT", "99999")]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "WEBSOCKET_PORT: \"99999\" is not allowed; give a port from 0 to 65535"
    );
    for (variable, value) in [
        ("REMOTE_HEADERS", "{secret"),
        ("REMOTE_URL", "htp://user:secret@host/"),
        ("REMOTE_URL", "htp://host/?key=secret"),
        ("FASTSOCK_AUTH_URL", "secret"),
    ] {
        let error = Config::from_vars([(variable, value)]).unwrap_err();
        let error = error.to_string();
        assert!(
            !error.contains("secret") && error.starts_with(variable),
            "{error}"
        );
    }
}

#[test]
fn a_mistyped_variable_that_would_close_a_door_is_refused() {
    for (name, hint) in [
        ("FASTSOCK_AUTHENTICATION", ""),
        ("FASTSOCK_AUTHS", "; did you mean FASTSOCK_AUTH?"),
        (
            "FASTSOCK_AUTH_TOKEN_FILE",
            "; did you mean FASTSOCK_AUTH_TOKENS_FILE?",
        ),
        (
            "FASTSOCK_AUTH_TOKENS_FILE_FILE",
            "; did you mean FASTSOCK_AUTH_TOKENS_FILE?",
        ),
    ] {
        let error = Config::from_vars([(name, "x")]).unwrap_err();
        let line = format!("{name}: there is no such setting{hint}");
        assert_eq!(error.to_string(), line);
    }
    let others = [
        ("FASTSOCK_AUTH_PORT_80_TCP", "tcp://10.0.0.1:80"),
        ("FASTSOCK_AUTH_SERVICE_HOST", "10.0.0.1"),
        ("REDIS_PORT", "tcp://10.0.0.1:6379"),
        ("FASTSOCK_AUTH_URL_FILE", ""),
        ("FASTSOCK_NEW", "x"),
    ];
    assert_eq!(Config::from_vars(others).unwrap(), Config::default());
}

#[test]
fn an_unknown_name_is_answered_with_the_nearest() {
    let error = Config::default().set("websocket_prot", "1").unwrap_err();
    assert_eq!(
        error.to_string(),
        "there is no setting \"websocket_prot\"; did you mean \"websocket_port\"?"
    );
}

#[test]
fn json_sections_nest_and_null_is_the_default() {
    let mut config = Config::default().redis_port(1u16);
    config
        .merge_json(
            r#"{"redis":{"host":"r","port":null},"websocket_port":9,"remote_headers":{"A":1}}"#,
        )
        .unwrap();
    assert_eq!(
        (
            config.redis.host.as_str(),
            config.redis.port,
            config.listen.port
        ),
        ("r", 6379, 9)
    );
    assert_eq!(config.remote.headers.0, [("A".into(), Some("1".into()))]);
}

#[test]
fn an_empty_variable_means_the_default() {
    let config = Config::from_vars([("REDIS_PORT", ""), ("FASTSOCK_BROKER", "")]).unwrap();
    assert_eq!(config, Config::default());
}

#[test]
fn the_lower_case_proxy_wins_in_any_order() {
    for vars in [
        [("http_proxy", "http://a"), ("HTTP_PROXY", "http://b")],
        [("HTTP_PROXY", "http://b"), ("http_proxy", "http://a")],
    ] {
        assert_eq!(
            Config::from_vars(vars).unwrap().remote.http_proxy,
            Some(Secret::new("http://a"))
        );
    }
}

#[test]
fn numbers_are_cut_only_where_the_original_cut_them() {
    for (variable, value, number) in [
        ("WEBSOCKET_PORT", "3000.5", "3000"),
        ("WEBSOCKET_PING_INTERVAL", "30s", "30"),
        ("REDIS_PORT", " 6380x", "6380"),
        ("REDIS_DB", "0x10", "0"),
    ] {
        let config = Config::from_vars([(variable, value)]).unwrap();
        assert_eq!(config.show(variable).unwrap(), number);
        let [warning] = config.warnings() else {
            panic!("{:?}", config.warnings())
        };
        assert_eq!(warning.about, variable);
        let told = format!("{value:?} is understood as {number}; give ");
        assert!(warning.hint.starts_with(&told), "{warning:?}");
        for name in [variable, &variable.to_lowercase()] {
            let set = Config::default().set(name, value);
            assert_eq!(set.is_ok(), value == "30s", "{name}");
        }
    }
    for value in ["3000", " 3000\n", "+3000"] {
        let config = Config::from_vars([("WEBSOCKET_PORT", value)]).unwrap();
        assert_eq!((config.listen.port, config.warnings()), (3000, &[][..]));
    }
    let mut config = Config::default();
    config
        .merge_json(r#"{"websocket_ping_interval": "30s"}"#)
        .unwrap();
    assert_eq!(config.listen.ping_interval, Duration::from_secs(30));
    for (variable, value) in [
        ("FASTSOCK_REMOTE_TIMEOUT", "3000.5"),
        ("FASTSOCK_REMOTE_CONCURRENCY", "1k"),
        ("FASTSOCK_OUTBOX_BYTES", "1.5MiB"),
    ] {
        let line = Config::from_vars([(variable, value)])
            .unwrap_err()
            .to_line();
        let told = format!("{variable}: {value:?} is not allowed; give ");
        assert!(line.starts_with(&told), "{line}");
    }
}

#[test]
fn every_time_and_size_takes_units_and_says_so() {
    for setting in SETTINGS.iter() {
        let (value, unit) = match setting.kind {
            ValueKind::Time => ("2s", "30s"),
            ValueKind::Size => ("64KiB", "64KiB"),
            kind => {
                assert_eq!(kind.units(), "", "{}", setting.name);
                continue;
            }
        };
        Config::default().set(setting.name, value).unwrap();
        assert!(setting.allowed_as(setting.name).contains(unit));
    }
}

#[test]
fn every_example_is_allowed_and_is_not_the_default() {
    for setting in SETTINGS.iter() {
        let mut config = Config::default();
        config.set(setting.name, setting.example).unwrap();
        let default = (setting.show)(&Config::default());
        assert_ne!((setting.show)(&config), default, "{}", setting.name);
    }
}

#[test]
fn the_kind_of_a_setting_is_what_its_words_say() {
    for setting in SETTINGS.iter() {
        let begins = |start: &[&str]| start.iter().any(|start| setting.allowed.starts_with(start));
        let agrees = match setting.kind {
            ValueKind::Switch => setting.allowed == "on or off",
            ValueKind::Integer => begins(&["an integer", "a port"]),
            ValueKind::Time => begins(&["milliseconds from"]),
            ValueKind::Size => begins(&["bytes from"]),
            ValueKind::Path => begins(&["the path of a PEM file", "the path of a file"]),
            ValueKind::Directory => begins(&["the path of a directory"]),
            ValueKind::Paths => begins(&["paths of"]),
            ValueKind::List => setting.allowed.contains("separated by commas"),
            ValueKind::Headers => begins(&["a JSON object of header names"]),
            ValueKind::Tables => begins(&["a JSON array of objects"]),
            ValueKind::Choice => setting.allowed.contains(" or "),
            ValueKind::Text | ValueKind::Address => true,
        };
        assert!(agrees, "{}: {:?}", setting.name, setting.kind);
    }
}

#[test]
fn a_redis_host_is_a_name_or_an_address_alone() {
    for host in [
        "r",
        "my_redis.internal",
        "10.0.0.1",
        "::1",
        "[::1]",
        "fe80::1%eth0",
    ] {
        Config::default().set("redis_host", host).unwrap();
    }
    for host in ["redis://r", "r:6380", "r/0", "u@r", "a,b", "a b"] {
        let line = Config::default()
            .set("redis_host", host)
            .unwrap_err()
            .to_line();
        assert!(
            line.ends_with("FASTSOCK_REDIS_URL takes a URL, REDIS_PORT the port"),
            "{line}"
        );
    }
}

#[test]
fn whitespace_around_a_value_is_no_part_of_it() {
    let mut config = Config::default();
    for (name, value, expected) in [
        ("redis_host", " r\n", "r"),
        ("websocket_port", "7\r\n", "7"),
        ("listen_reuseport", " on ", "on"),
        ("broker", "redis\n", "redis"),
        ("admin_addr", "off\n", ""),
        ("data_dir", " /d ", "/d"),
        ("redis_prefix", " p ", " p "),
    ] {
        config.set(name, value).unwrap();
        assert_eq!(config.show(name).unwrap(), expected, "{name}");
    }
    assert_eq!(config.warnings()[0].about, "redis_prefix");
    config.set("admin_token", "\u{feff} t0ken\n").unwrap();
    assert_eq!(config.admin.token.unwrap().expose(), "t0ken");
    for setting in SETTINGS.iter() {
        let error = Config::default().set(setting.name, " \n").unwrap_err();
        let line = error.to_line();
        let told = format!("{}: there is nothing but whitespace; give ", setting.name);
        assert!(line.starts_with(&told), "{line}");
    }
}

#[test]
fn a_file_without_a_secret_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("secret");
    let secrets: Vec<_> = SETTINGS.iter().filter(|s| s.is_secret).collect();
    assert!(secrets.len() > 5);
    for content in ["", "\n", " \r\n\t", "\u{feff}\n"] {
        std::fs::write(&path, content).unwrap();
        for setting in &secrets {
            let variable = format!("{}_FILE", setting.variable);
            let vars = [(&*variable, path.to_str().unwrap())];
            let line = Config::from_vars(vars).unwrap_err().to_line();
            assert_eq!(line, format!("{variable}: there is nothing in {path:?}"));
        }
    }
}

#[cfg(unix)]
#[test]
fn a_value_of_ours_that_is_not_utf8_is_refused() {
    use std::os::unix::ffi::OsStringExt as _;
    let vars = |name: &str| [(name.into(), OsString::from_vec(vec![b'x', 0xff]))];
    let error = Config::from_os_vars(vars("FASTSOCK_AUTH")).unwrap_err();
    assert_eq!(error.to_line(), "FASTSOCK_AUTH: the value is not UTF-8");
    assert_eq!(
        Config::from_os_vars(vars("PATH")).unwrap(),
        Config::default()
    );
}

#[test]
fn a_secret_can_come_from_a_file_and_is_never_shown() {
    let path = std::env::temp_dir().join(format!("fastsock-secret-{}", std::process::id()));
    std::fs::write(&path, "t0ken\n").unwrap();
    let config =
        Config::from_vars([("FASTSOCK_ADMIN_TOKEN_FILE", path.to_str().unwrap())]).unwrap();
    std::fs::remove_file(path).unwrap();
    assert_eq!(config.admin.token.as_ref().unwrap().expose(), "t0ken");
    assert_eq!(config.show("admin_token").unwrap(), "***");
    assert!(!format!("{config:?}").contains("t0ken"));
}
