//! `fastsock --check`: would it start, and are Redis and the remote there?

use std::{
    io,
    net::{TcpStream, ToSocketAddrs},
    time::Duration,
};

use fastsock::{Bridge, BrokerKind, Config, SpoolKind};
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
    let config = &settings.config;
    let of_files = Bridge::builder(config.clone()).file_warnings();
    let warnings = settings.warnings.iter().chain(config.warnings());
    let warnings = warnings.chain(&of_files);
    let warnings = warnings.map(|warning| Finding {
        line: format!("{}: {}: {}", warning.about, warning.message, warning.hint),
        is_ok: true,
    });
    let mut findings: Vec<_> = warnings.collect();
    findings.extend(check_settings(config));
    findings.extend(check_places(settings));
    findings.extend(check_log(&settings.program));
    findings.push(check_redis(config));
    findings.push(check_remote(config));
    findings
}

/// The settings themselves were read already; these are the files they name, and what only these tell.
fn check_settings(config: &Config) -> Vec<Finding> {
    let problems = to_lines(Bridge::builder(config.clone()).problems());
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
    let bridge = Bridge::builder(settings.config.clone());
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
    if config.broker == BrokerKind::Embedded && config.spool != SpoolKind::Redis {
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
        Err(error) if config.broker == BrokerKind::Auto => Finding {
            line: format!("redis: {error}; the gateway runs embedded until it can use it"),
            is_ok: true,
        },
        Err(error) => {
            let setting = match &config.redis_url {
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
    match &config.redis_url {
        Some(url) => without_secrets(url.expose()),
        None => format!("{}:{}", config.redis_host, config.redis_port),
    }
}

fn check_remote(config: &Config) -> Finding {
    let Some(url) = config.remote_url.as_deref() else {
        return Finding {
            line: "remote: none; uplinks are counted as lost, REMOTE_URL names one".into(),
            is_ok: true,
        };
    };
    let name = without_secrets(url);
    let proxy = match Bridge::builder(config.clone()).proxy_of_remote() {
        Ok(proxy) => proxy,
        Err(error) => {
            return Finding {
                line: format!("remote: {}", error.to_line()),
                is_ok: false,
            };
        }
    };
    let via = proxy.as_ref().map_or("", |_| " through its proxy");
    let reached = address_of(proxy.as_deref().unwrap_or(url)).and_then(|a| connect(&a));
    Finding {
        is_ok: reached.is_ok(),
        line: match reached {
            Ok(_) => format!("remote: {name} can be connected to{via}"),
            Err(error) => format!("remote: {name} cannot be connected to{via}: {error}"),
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
            let proxy = Bridge::builder(config).proxy_of_remote().unwrap();
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
