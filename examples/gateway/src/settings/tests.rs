//! Where settings come from, and what is said of them.

use super::{own::parse_mode, *};
use crate::logging::Level;

/// What is gathered from a `.env`, an environment and a TOML text, each as it is, and `--set` flags.
fn gather(
    toml: &str,
    dotenv: &str,
    environment: &[(&str, &str)],
    flags: &[(&str, &str)],
) -> Result<Settings, String> {
    let directory = tempfile::tempdir().unwrap();
    let toml_path = directory.path().join("fastsock.toml");
    std::fs::write(&toml_path, toml).unwrap();
    std::fs::write(directory.path().join(".env"), dotenv).unwrap();
    let flags = Flags {
        config_file: Some(toml_path),
        given: flags
            .iter()
            .map(|(k, v)| ((*k).into(), (*v).into()))
            .collect(),
        ..Flags::default()
    };
    let environment = environment.iter().map(|(k, v)| (k.into(), v.into()));
    Settings::gather(&flags, environment, directory.path())
}

#[test]
fn a_mode_is_octal_and_lets_its_owner_read_and_write() {
    for (text, mode) in [
        ("0640", Some(0o640)),
        ("640", Some(0o640)),
        ("0777", Some(0o777)),
        ("0600", Some(0o600)),
        ("0440", None),
        ("0644x", None),
        ("4640", None),
        ("0o640", None),
        ("0680", None),
        ("rw-r-----", None),
        ("6", None),
        ("-640", None),
    ] {
        assert_eq!(parse_mode(text), mode, "{text}");
    }
    let gathered = gather("", "FASTSOCK_LOG_FILE_MODE=0640", &[], &[]).unwrap();
    assert!(
        gathered
            .print(PrintForm::Env, false)
            .contains("# from .env\nFASTSOCK_LOG_FILE_MODE=0640\n")
    );
    let gathered = gather("", "", &[], &[]).unwrap();
    assert!(
        gathered
            .print(PrintForm::Env, false)
            .contains("# default\nFASTSOCK_LOG_FILE_MODE=\n")
    );
}

#[test]
fn the_last_source_wins_and_is_told() {
    let (toml, dotenv) = ("redis.db = 1", "REDIS_DB=2");
    let (environment, flags) = (&[("REDIS_DB", "3")][..], &[("redis_db", "4")][..]);
    for (expected, source, settings) in [
        (0, "default", gather("", "", &[], &[])),
        (1, "from the file", gather(toml, "", &[], &[])),
        (2, "from .env", gather(toml, dotenv, &[], &[])),
        (
            3,
            "from environment",
            gather(toml, dotenv, environment, &[]),
        ),
        (4, "from a flag", gather(toml, dotenv, environment, flags)),
    ] {
        let settings = settings.unwrap();
        assert_eq!(settings.config().redis.db, expected);
        let line = format!("# {source}\nREDIS_DB={expected}\n");
        assert!(
            settings.print(PrintForm::Env, false).contains(&line),
            "{}",
            settings.print(PrintForm::Env, false)
        );
    }
}

#[test]
fn an_empty_variable_hides_what_lies_below_and_means_the_default_of_the_gateway() {
    let toml = "broker = 'embedded'\n[log]\nlevel = 'error'";
    let dotenv = "REDIS_PORT=1\nLOG_LEVEL=warn\nFASTSOCK_ADMIN_ADDR=off";
    let empty = [
        ("REDIS_PORT", ""),
        ("FASTSOCK_BROKER", ""),
        ("LOG_LEVEL", ""),
        ("FASTSOCK_ADMIN_ADDR", ""),
    ];
    let settings = gather(toml, dotenv, &empty, &[]).unwrap();
    assert_eq!(settings.config(), Settings::default().config());
    assert_eq!(settings.program().log_level, Level::Debug);
    assert!(all_known().all(|known| settings.is_default(known.variable())));
}

#[test]
fn toml_sections_nest_and_headers_stay_whole() {
    let toml = "websocket_port = 1\nlisten_origins = ['https://a', 'https://b']\nready_requires_broker = true\n\
        [remote]\nurl = 'http://h/'\n[remote.headers]\nA = 1\n[log]\nfile = 'off'";
    let settings = gather(toml, "", &[], &[]).unwrap();
    let (config, program) = (settings.config(), settings.program());
    assert_eq!(config.listen.port, 1);
    assert_eq!(config.listen.origins, ["https://a", "https://b"]);
    assert!(config.admin.ready_requires_broker);
    assert_eq!(config.remote.url.as_deref().unwrap(), "http://h/");
    assert_eq!(config.remote.headers.0, [("A".into(), Some("1".into()))]);
    assert_eq!(program.log_file, None);
}

#[test]
fn a_mistake_is_one_line_that_names_it() {
    let line =
        |toml, dotenv, environment: &[_]| gather(toml, dotenv, environment, &[]).unwrap_err();
    for (line, expected) in [
        (
            line("", "", &[("REDIS_PORT", "x\ny")]),
            r#"REDIS_PORT: "x\ny" is not allowed; give a port from 1 to 65535"#,
        ),
        (
            line("", "LOG_LEVEL=trace", &[]),
            r#"LOG_LEVEL: "trace" is not allowed; give error, warn, info, http, verbose, debug or silly"#,
        ),
        (
            line("", "", &[("FASTSOCK_RUNTIME_WORKERS", "65")]),
            r#"FASTSOCK_RUNTIME_WORKERS: "65" is not allowed; give an integer from 0 to 64"#,
        ),
        (
            line("[redis]\nprot = 1", "", &[]),
            r#"there is no setting "redis_prot"; did you mean "redis_port"?"#,
        ),
        (line("a = 1\nb = = 2", "", &[]), "line 2: "),
        (
            line("[remote]\ntimeout = inf", "", &[]),
            "remote.timeout: inf and nan are not allowed",
        ),
        (
            line("listen_origins = ['a', -nan]", "", &[]),
            "listen_origins: inf and nan are not allowed",
        ),
        (
            line("remote.order = 'none'", "", &[]),
            "remote_order: this setting was removed: ",
        ),
        (
            line("", "FASTSOCK_LIMIT_HEADERS=32", &[]),
            "FASTSOCK_LIMIT_HEADERS: this setting was removed: ",
        ),
    ] {
        assert!(line.contains(expected) && !line.contains('\n'), "{line}");
    }
}

#[test]
fn a_removed_setting_that_means_what_always_happens_is_no_mistake() {
    let (order, given) = (
        [("FASTSOCK_REMOTE_ORDER", "device")],
        [("remote_order", "device")],
    );
    let settings = gather("[remote]\norder = 'device'", "", &order, &given).unwrap();
    assert_eq!(settings.warnings(), []);
    assert_eq!(settings.config(), Settings::default().config());
}

#[test]
fn an_overridden_mistake_does_not_matter() {
    let settings = gather("", "REDIS_PORT=x", &[("REDIS_PORT", "7")], &[]).unwrap();
    assert_eq!(settings.config().redis.port, 7);
}

#[test]
fn unknown_variables_are_warned_about_with_the_nearest_name() {
    let environment = [
        ("FASTSOCK_REDIS_URI", "x"),
        ("HOME", "/"),
        ("REDIS_HOTS", "y"),
    ];
    let dotenv = "FASTSOCK_FLUX=1\nFASTSOCK_ADMIN_TOKEN_FILE=\n";
    let settings = gather("", dotenv, &environment, &[]).unwrap();
    let warnings = settings.warnings();
    let about: Vec<_> = warnings.iter().map(|w| w.about.as_str()).collect();
    assert_eq!(about, ["FASTSOCK_FLUX", "FASTSOCK_REDIS_URI", "REDIS_HOTS"]);
    assert_eq!(warnings[1].hint, "did you mean FASTSOCK_REDIS_URL?");
    assert_eq!(warnings[2].hint, "did you mean REDIS_HOST?");
}

#[test]
fn other_names_for_redis_are_told_where_they_belong() {
    let other = ("REDIS_PASSWORD", "s3cret");
    let settings = gather("", "REDIS_URL=redis://h", &[other], &[]).unwrap();
    let warnings = settings.warnings();
    let about: Vec<_> = warnings.iter().map(|w| w.about.as_str()).collect();
    assert_eq!(about, ["REDIS_PASSWORD", "REDIS_URL"]);
    assert!(warnings[0].hint.starts_with("FASTSOCK_REDIS_URL takes "));
    let known = [other, ("FASTSOCK_REDIS_URL", "redis://:s3cret@h")];
    assert_eq!(gather("", "", &known, &[]).unwrap().warnings(), []);
    let meant = gather("", "", &[("FASTSOCK_REMOTE_URL", "http://h/")], &[]).unwrap();
    assert_eq!(meant.warnings()[0].hint, "did you mean REMOTE_URL?");
}

#[test]
fn what_kubernetes_sets_for_services_is_passed_over() {
    let environment = [
        ("FASTSOCK_PORT", "tcp://10.0.0.1:80"),
        ("FASTSOCK_SERVICE_HOST", "10.0.0.1"),
        ("FASTSOCK_AUTH_PORT_80_TCP", "tcp://10.0.0.1:80"),
        ("REDIS_PORT", "tcp://10.0.0.2:6379"),
    ];
    let settings = gather("", "REDIS_PORT=7", &environment, &[]).unwrap();
    assert_eq!(settings.warnings(), []);
    assert_eq!(settings.config().redis.port, 7);
    let settings = gather("", "", &environment, &[]).unwrap();
    assert_eq!(settings.config(), Settings::default().config());
}

#[test]
fn whoever_names_a_redis_means_redis() {
    let broker = |environment: &[_]| {
        gather("", "", environment, &[])
            .unwrap()
            .config()
            .redis
            .broker
    };
    assert_eq!(broker(&[("REDIS_HOST", "")]), BrokerKind::Auto);
    assert_eq!(broker(&[("REDIS_HOST", "127.0.0.1")]), BrokerKind::Redis);
    let embedded = [("REDIS_HOST", "127.0.0.1"), ("FASTSOCK_BROKER", "embedded")];
    assert_eq!(broker(&embedded), BrokerKind::Embedded);
    let auto = [("REDIS_HOST", "127.0.0.1"), ("FASTSOCK_BROKER", "auto")];
    assert_eq!(broker(&auto), BrokerKind::Auto);
}

#[test]
fn the_lower_case_proxy_wins_even_from_the_file() {
    let proxy = |dotenv, environment: &[_]| {
        let settings = gather("", dotenv, environment, &[]).unwrap();
        let config = settings.config();
        config
            .remote
            .http_proxy
            .as_ref()
            .unwrap()
            .expose()
            .to_owned()
    };
    let upper = [("HTTP_PROXY", "http://upper")];
    assert_eq!(proxy("http_proxy=http://lower", &upper), "http://lower");
    assert_eq!(proxy("http_proxy=", &upper), "http://upper");
}

#[test]
fn a_secret_from_a_file_counts_like_one_given() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("token");
    std::fs::write(&path, "t0ken\n").unwrap();
    let file = [
        ("FASTSOCK_ADMIN_TOKEN_FILE", path.to_str().unwrap()),
        ("FASTSOCK_ADMIN_TOKEN", ""),
    ];
    let token = |dotenv, environment: &[_]| {
        let settings = gather("", dotenv, environment, &[]).unwrap();
        let config = settings.config();
        config.admin.token.as_ref().unwrap().expose().to_owned()
    };
    assert_eq!(token("", &file), "t0ken");
    assert_eq!(token("FASTSOCK_ADMIN_TOKEN=other", &file[..1]), "t0ken");
    assert_eq!(
        token("", &[file[0], ("FASTSOCK_ADMIN_TOKEN", "given")]),
        "given"
    );
}

#[test]
fn what_is_printed_reads_back_and_holds_no_secret() {
    let dotenv = "REMOTE_URL='http://us3r:pw@h/p?q=#f'\nREMOTE_HEADERS={\"A\":\"s3cret\"}\n\
        REDIS_PREFIX=\" a # b's \"\nFASTSOCK_ADMIN_ADDR=off\nFASTSOCK_REDIS_URL=redis://:s3cret@h\nHTTP_PROXY=http://s3cret@h";
    let settings = gather("", dotenv, &[], &[]).unwrap();
    let printed = settings.print(PrintForm::Env, false);
    for secret in ["us3r", "pw@", "s3cret"] {
        assert!(!printed.contains(secret), "{printed}");
    }
    let again = dotenv::parse(&printed).entries;
    let value = |name| {
        again
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, value)| value.as_str())
    };
    assert_eq!(value("REDIS_PREFIX"), Some(" a # b's "));
    assert_eq!(value("FASTSOCK_ADMIN_ADDR"), Some("off"));
    // What is not whole is no setting.
    let masked = [
        "REMOTE_URL",
        "REMOTE_HEADERS",
        "FASTSOCK_REDIS_URL",
        "HTTP_PROXY",
    ];
    for name in masked {
        assert_eq!(value(name), None, "{name}");
        assert!(printed.contains(&format!("# {name}=")), "{name}");
    }
    assert_eq!(again.len() + masked.len(), all_known().count());
    assert!(
        printed.contains("# REMOTE_URL='http://***@h/p?***#f' # from .env\n"),
        "{printed}"
    );
}

#[test]
fn what_is_printed_is_a_file_that_means_the_same() {
    let toml = "websocket_port = 7\nlisten_origins = ['https://a', 'https://b']\nready_requires_broker = true\n\
        [remote]\nurl = 'http://h/\"'\n[log]\nfile = 'off'\nrotate = '100MiB'\nformat = 'auto'";
    let settings = gather(toml, "", &[("REDIS_DB", "3")], &[]).unwrap();
    for is_changed_only in [false, true] {
        let printed = |form| settings.print(form, is_changed_only);
        let env = printed(PrintForm::Env);
        let toml = printed(PrintForm::Toml);
        for again in [gather("", &env, &[], &[]), gather(&toml, "", &[], &[])] {
            let again = again.unwrap_or_else(|line| panic!("{line}\n{toml}"));
            assert_eq!(again.config(), settings.config());
            for known in all_known() {
                assert_eq!(again.show(known), settings.show(known), "{toml}");
            }
        }
    }
    // What systemd reads as well: nothing but comments and settings, and nothing behind a value.
    for line in settings.print(PrintForm::Env, false).lines() {
        let is_setting = line.starts_with(|c: char| c.is_ascii_uppercase());
        assert!(is_setting || line.starts_with("# "), "{line}");
        assert!(!is_setting || !line.contains(" # "), "{line}");
    }
    let changed = settings.print(PrintForm::Toml, true);
    assert_eq!(changed.lines().count(), 9, "{changed}");
    assert!(
        changed.contains("websocket_port = 7 # from the file\n"),
        "{changed}"
    );
    assert!(
        changed.contains("redis_db = 3 # from environment\n"),
        "{changed}"
    );
}

#[test]
fn a_url_is_logged_without_its_secrets() {
    assert_eq!(without_secrets("https://u:p@h:1/p?k=v#f"), "https://h:1/p");
}

#[test]
fn every_example_of_the_documentation_is_read() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/settings.md");
    let page = std::fs::read_to_string(path).unwrap();
    let examples = page.split("```toml\n").skip(1);
    let examples: Vec<_> = examples
        .map(|rest| rest.split_once("```").unwrap().0)
        .collect();
    assert!(examples.len() >= all_known().count());
    for example in examples {
        let given = toml::from_str(example).unwrap();
        let mut layers = Layers::new(OWN_SETTINGS);
        let added = layers.map(given, Source::File);
        added.unwrap_or_else(|wrong| panic!("{example}: {wrong:?}"));
        let merged = layers.merge(Config::default(), Program::default());
        assert!(merged.wrong.is_empty(), "{example}: {:?}", merged.wrong);
        let is_given = |known: &Known| merged.source(known.variable()) == Source::File;
        assert_ne!(all_known().filter(is_given).count(), 0, "{example}");
    }
}
