//! `fastsock --check`: would it start, and are Redis and the remote there?

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{TcpStream, ToSocketAddrs},
    time::Duration,
};

use fastsock::{Bridge, BrokerKind, Config};
use url::Url;

use crate::settings::{Settings, without_secrets};

/// What a test found: one line, and whether the gateway can work that way.
#[derive(Debug)]
pub(crate) struct Finding {
    /// What is tested and how it stands.
    pub(crate) line: String,
    /// Whether that is good enough.
    pub(crate) is_ok: bool,
}

/// Tests what the settings point to. Blocks; each try is given up after 3 s.
pub(crate) fn check(settings: &Settings) -> Vec<Finding> {
    let config = &settings.config;
    let warnings = settings.warnings.iter().map(|warning| Finding {
        line: format!("{}: {}: {}", warning.about, warning.message, warning.hint),
        is_ok: true,
    });
    let mut findings: Vec<_> = warnings.collect();
    findings.push(check_settings(config));
    findings.push(check_redis(config));
    findings.push(check_remote(config));
    findings
}

/// The settings themselves were read already; these are the files they name, and what only these tell.
fn check_settings(config: &Config) -> Finding {
    let checked = Bridge::builder(config.clone()).check();
    Finding {
        is_ok: checked.is_ok(),
        line: match checked {
            Ok(()) => "settings: ok".into(),
            Err(error) => format!("settings: {}", error.to_line()),
        },
    }
}

fn check_redis(config: &Config) -> Finding {
    if config.broker == BrokerKind::Embedded {
        return Finding {
            line: "redis: not used; FASTSOCK_BROKER is embedded".into(),
            is_ok: true,
        };
    }
    let redis = Redis::of(config);
    let mut line = String::from("redis:");
    let mut is_ok = false;
    for address in &redis.addresses {
        let told = match probe_redis(address, redis.has_tls) {
            Ok(told) => {
                is_ok = true;
                told.to_owned()
            }
            Err(error) => error.to_string(),
        };
        line.push_str(&format!(" {address} {told};"));
    }
    line.pop();
    if !is_ok && config.broker == BrokerKind::Auto {
        line.push_str("; the gateway runs embedded until it answers");
        is_ok = true;
    }
    Finding { line, is_ok }
}

fn check_remote(config: &Config) -> Finding {
    let Some(url) = config.remote_url.as_deref() else {
        return Finding {
            line: "remote: none; uplinks are counted as lost, REMOTE_URL names one".into(),
            is_ok: true,
        };
    };
    let name = without_secrets(url);
    let proxy = proxy_of(config, url);
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

/// Where Redis is.
#[derive(Debug, PartialEq)]
struct Redis {
    addresses: Vec<String>,
    has_tls: bool,
}

impl Redis {
    fn of(config: &Config) -> Self {
        match &config.redis_url {
            Some(url) => Self::of_url(url.expose()),
            None => Self {
                addresses: vec![with_port(&config.redis_host, config.redis_port)],
                has_tls: false,
            },
        }
    }

    /// `scheme://user:password@host:port,host:port/…`
    fn of_url(url: &str) -> Self {
        let (scheme, rest) = url.split_once("://").unwrap_or(("redis", url));
        let authority = rest.split(['/', '?', '#']).next().unwrap_or(rest);
        let hosts = authority.rsplit('@').next().unwrap_or(authority);
        let port = if scheme.contains("sentinel") {
            26379
        } else {
            6379
        };
        Self {
            addresses: hosts.split(',').map(|host| with_port(host, port)).collect(),
            has_tls: scheme.starts_with("rediss"),
        }
    }
}

/// A host with its port, or with the usual one if it names none.
fn with_port(host: &str, usual: u16) -> String {
    let is_bare_ipv6 = host.matches(':').count() > 1 && !host.starts_with('[');
    if is_bare_ipv6 {
        format!("[{host}]:{usual}")
    } else if host.contains("]:") || (host.contains(':') && !host.ends_with(']')) {
        host.into()
    } else {
        format!("{host}:{usual}")
    }
}

fn probe_redis(address: &str, has_tls: bool) -> io::Result<&'static str> {
    let mut stream = connect(address)?;
    if has_tls {
        return Ok("can be connected to; TLS is not tested");
    }
    stream.write_all(b"PING\r\n")?;
    let mut answer = Vec::new();
    BufReader::new(stream.take(1024)).read_until(b'\n', &mut answer)?;
    match answer.trim_ascii() {
        b"+PONG" => Ok("answers"),
        answer if answer.starts_with(b"-NOAUTH") => Ok("answers; it wants a password"),
        answer => {
            let answer = String::from_utf8_lossy(answer);
            Err(io::Error::other(format!("answered {answer:?} to PING")))
        }
    }
}

/// The proxy in front of a remote.
fn proxy_of(config: &Config, remote: &str) -> Option<String> {
    let remote = Url::parse(remote).ok()?;
    let host = remote.host_str()?;
    let is_direct = config.no_proxy.iter().any(|name| {
        let name = name.trim_start_matches(['*', '.']);
        name.is_empty() || host == name || host.ends_with(&format!(".{name}"))
    });
    let proxy = match remote.scheme() {
        "https" => config.https_proxy.as_ref(),
        _ => config.http_proxy.as_ref(),
    };
    let proxy = proxy.filter(|_| !is_direct)?.expose();
    Some(if proxy.contains("://") {
        proxy.into()
    } else {
        format!("http://{proxy}")
    })
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
            Ok(stream) => {
                stream.set_read_timeout(Some(TIME_OUT))?;
                stream.set_write_timeout(Some(TIME_OUT))?;
                return Ok(stream);
            }
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
    fn redis_urls_name_one_or_several_addresses() {
        for (url, addresses, has_tls) in [
            ("redis://h", &["h:6379"][..], false),
            ("redis://u:p@[::1]/2", &["[::1]:6379"], false),
            ("redis://[::1]:7", &["[::1]:7"], false),
            ("rediss://u:p@ss@h:1?x", &["h:1"], true),
            ("redis+sentinel://:p@a,b:2/m/0", &["a:26379", "b:2"], false),
            ("redis+cluster://:p@a,b:2", &["a:6379", "b:2"], false),
        ] {
            let redis = Redis::of_url(url);
            assert_eq!(
                (&redis.addresses[..], redis.has_tls),
                (
                    &addresses
                        .iter()
                        .map(|a| (*a).to_owned())
                        .collect::<Vec<_>>()[..],
                    has_tls
                )
            );
        }
        assert_eq!(with_port("::1", 6379), "[::1]:6379");
    }

    #[test]
    fn a_proxy_stands_before_remotes_it_is_not_told_to_leave_alone() {
        let proxy = |no_proxy: &[&str], remote| {
            let config = Config::default()
                .http_proxy(Some("p:3128".into()))
                .no_proxy(no_proxy.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>());
            proxy_of(&config, remote)
        };
        assert_eq!(proxy(&[], "http://h/").as_deref(), Some("http://p:3128"));
        assert_eq!(proxy(&[], "https://h/"), None);
        for direct in ["*", "h.x", ".x", "x"] {
            assert_eq!(proxy(&[direct], "http://h.x/"), None, "{direct}");
        }
        assert!(proxy(&["y"], "http://h.x/").is_some());
    }
}
