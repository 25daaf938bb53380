//! `fastsock --check`: would it start, and are Redis and the remote there?

use std::{
    io,
    net::{TcpStream, ToSocketAddrs},
    time::Duration,
};

use fastsock::{AuthKind, Bridge, BrokerKind, Config, Secret, SpoolKind, Warning};
use tokio::runtime::Builder;
use url::Url;

use crate::{
    is_default_admin_taken,
    logging::file,
    settings::{Program, Settings, to_lines, without_secrets},
};

/// What a test found: one line, and whether the gateway can work that way.
#[derive(Debug)]
pub(crate) struct Finding {
    /// What is tested and how it stands.
    pub(crate) line: String,
    /// Whether that is good enough.
    pub(crate) is_ok: bool,
}

/// Tests what the settings point to, and names all that is wrong. Blocks: for the remote 3 s at most, for Redis as long as it may
/// take to connect.
pub(crate) fn check(settings: &Settings) -> Vec<Finding> {
    let config = settings.config();
    let of_files = Bridge::builder(config.clone()).file_warnings();
    let soon = Bridge::builder(config.clone()).expiring_certificates(SOON);
    let warnings = settings.warnings().iter().chain(config.warnings());
    let warnings = warnings.chain(&of_files).chain(&soon);
    let mut findings: Vec<_> = warnings.map(finding_of).collect();
    findings.extend(check_settings(config));
    findings.extend(check_places(settings));
    findings.extend(check_log(settings.program()));
    findings.push(check_redis(config));
    let of_redis = wait_for(Bridge::builder(config.clone()).redis_warnings());
    findings.extend(of_redis.unwrap_or_default().iter().map(finding_of));
    findings.push(check_remote(config));
    findings.extend(check_others(config));
    for (name, config) in config.of_routes() {
        let of_route = std::iter::once(check_remote(&config)).chain(check_auth(&config));
        findings.extend(of_route.map(|finding| Finding {
            line: format!("route {name}: {}", finding.line),
            ..finding
        }));
    }
    findings
}

/// What looks wrong, and is good enough.
fn finding_of(warning: &Warning) -> Finding {
    Finding {
        line: format!("{}: {}: {}", warning.about, warning.message, warning.hint),
        is_ok: true,
    }
}

/// The settings themselves were read already; these are the files they name, and what only these tell.
fn check_settings(config: &Config) -> Vec<Finding> {
    let problems = to_lines(&Bridge::builder(config.clone()).problems());
    if problems.is_empty() {
        return vec![Finding {
            line: "settings: ok".into(),
            is_ok: true,
        }];
    }
    let finding = |line| Finding {
        line: format!("settings: {line}"),
        is_ok: false,
    };
    problems.into_iter().map(finding).collect()
}

/// The ports and the directory that a gateway has for itself.
fn check_places(settings: &Settings) -> Vec<Finding> {
    let bridge = Bridge::builder(settings.config().clone());
    let problems = match wait_for(bridge.check_places()) {
        Ok(problems) => problems,
        Err(line) => return vec![Finding { line, is_ok: false }],
    };
    let finding = |error| match is_default_admin_taken(settings, &error) {
        true => Finding {
            line: format!("{}; the gateway runs without it", error.to_line()),
            is_ok: true,
        },
        false => Finding {
            line: error.to_line(),
            is_ok: false,
        },
    };
    problems.into_iter().map(finding).collect()
}

/// A gateway without its log file runs, and tries again.
fn check_log(program: &Program) -> Option<Finding> {
    let path = program.log_file.as_deref()?;
    let error = file::check(path, program.log_file_mode).err()?;
    Some(Finding {
        line: format!(
            "FASTSOCK_LOG_FILE: {} cannot be written: {error}; the gateway logs to stdout alone until it can",
            path.display()
        ),
        is_ok: true,
    })
}

fn check_redis(config: &Config) -> Finding {
    if config.redis.broker == BrokerKind::Embedded && config.spool.kind != SpoolKind::Redis {
        return Finding {
            line: "redis: not used; FASTSOCK_BROKER is embedded".into(),
            is_ok: true,
        };
    }
    let bridge = Bridge::builder(config.clone());
    let checked =
        wait_for(bridge.check_redis()).and_then(|checked| checked.map_err(|e| e.to_line()));
    match checked {
        Ok(()) => Finding {
            line: format!(
                "redis: {} answers, and allows all that is needed",
                name_of_redis(config)
            ),
            is_ok: true,
        },
        Err(error) if config.redis.broker == BrokerKind::Auto => Finding {
            line: format!("redis: {error}; the gateway runs embedded until it can use it"),
            is_ok: true,
        },
        Err(error) => {
            let setting = match &config.redis.url {
                Some(_) => "FASTSOCK_REDIS_URL",
                None => "REDIS_HOST, REDIS_PORT",
            };
            Finding {
                line: format!("redis: {error} ({setting})"),
                is_ok: false,
            }
        }
    }
}

/// Waits on a runtime of its own.
fn wait_for<T>(future: impl Future<Output = T>) -> Result<T, String> {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| format!("the runtime cannot be started: {e}"))?;
    let output = runtime.block_on(future);
    runtime.shutdown_background(); // a name may still be looked up
    Ok(output)
}

/// Where Redis is, without secrets.
fn name_of_redis(config: &Config) -> String {
    match &config.redis.url {
        Some(url) => without_secrets(url.expose()),
        None => format!("{}:{}", config.redis.host, config.redis.port),
    }
}

fn check_remote(config: &Config) -> Finding {
    match config.remote.url.as_deref() {
        Some(url) => check_url(config, "remote", "REMOTE_URL", url),
        None if !config.routing.routes.is_empty() => Finding {
            line: "remote: none; a device that matches no route gets 404".into(),
            is_ok: true,
        },
        None => Finding {
            line: "remote: none; uplinks are counted as lost, REMOTE_URL names one".into(),
            is_ok: true,
        },
    }
}

/// The others that the gateway asks or tells.
fn check_others(config: &Config) -> Vec<Finding> {
    let events = config.events.url.as_deref();
    let events = events.map(|url| check_url(config, "events", "FASTSOCK_EVENTS_URL", url));
    events.into_iter().chain(check_auth(config)).collect()
}

/// Who is asked about devices.
fn check_auth(config: &Config) -> Vec<Finding> {
    let is_auth = |kind| config.auth.kind == kind;
    let url = |secret: &Option<Secret>| secret.as_ref().map(|url| url.expose().to_owned());
    let webhook = is_auth(AuthKind::Webhook)
        .then(|| url(&config.auth.url))
        .flatten();
    let jwks = is_auth(AuthKind::Jwt)
        .then(|| config.auth.jwt_jwks.clone())
        .flatten();
    let others = [
        ("auth", "FASTSOCK_AUTH_URL", webhook),
        ("auth", "FASTSOCK_AUTH_JWT_JWKS", jwks),
    ];
    let named = others
        .into_iter()
        .filter_map(|(what, setting, url)| Some((what, setting, url?)));
    named
        .map(|(what, setting, url)| check_url(config, what, setting, &url))
        .collect()
}

/// Whether somebody listens where a URL points to.
fn check_url(config: &Config, what: &str, setting: &str, url: &str) -> Finding {
    let name = without_secrets(url);
    let proxy = match Bridge::builder(config.clone()).proxy_of(url) {
        Ok(proxy) => proxy,
        Err(error) => {
            return Finding {
                line: format!("{what}: {}", error.to_line()),
                is_ok: false,
            };
        }
    };
    let via = proxy.as_ref().map_or("", |_| " through its proxy");
    let reached = address_of(proxy.as_deref().unwrap_or(url)).and_then(|a| connect(&a));
    Finding {
        is_ok: reached.is_ok(),
        line: match reached {
            Ok(_) => format!("{what}: {name} can be connected to{via}"),
            Err(error) => {
                format!("{what}: {name} cannot be connected to{via}: {error} ({setting})")
            }
        },
    }
}

fn address_of(url: &str) -> io::Result<String> {
    let no_address = || io::Error::other("the URL names no host");
    let url = Url::parse(url).map_err(io::Error::other)?;
    let host = url.host_str().ok_or_else(no_address)?;
    let port = url.port_or_known_default().ok_or_else(no_address)?;
    Ok(format!("{host}:{port}"))
}

fn connect(address: &str) -> io::Result<TcpStream> {
    let mut last = io::Error::other("the name has no address");
    for address in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, TIME_OUT) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// A certificate that expires within this time is told.
const SOON: Duration = Duration::from_secs(30 * 86_400);
const TIME_OUT: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_stands_before_remotes_it_is_not_told_to_leave_alone() {
        let is_direct = |no_proxy: &[&str], remote: &str| {
            let config = Config::default()
                .remote_url(Some(remote.to_owned()))
                .http_proxy(Some("p:3128".into()))
                .no_proxy(no_proxy.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>());
            let proxy = Bridge::builder(config).proxy_of(remote).unwrap();
            assert!(
                proxy.as_deref().is_none_or(|p| p == "http://p:3128/"),
                "{proxy:?}"
            );
            proxy.is_none()
        };
        assert!(!is_direct(&[], "http://h/"));
        assert!(is_direct(&[], "https://h/"));
        for direct in ["*", "h.x", ".x", "x", "h.x:80"] {
            assert!(is_direct(&[direct], "http://h.x/"), "{direct}");
        }
        assert!(!is_direct(&["y"], "http://h.x/"));
        assert!(!is_direct(&["h.x:81"], "http://h.x/"));
        // As the bridge itself reads them: networks too.
        assert!(is_direct(&["10.0.0.0/8"], "http://10.1.2.3/"));
        assert!(!is_direct(&["10.0.0.0/8"], "http://11.1.2.3/"));
    }
}
