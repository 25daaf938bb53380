//! Settings: what each means, its unit, default and effect, and the ways to give it.

mod check;
mod choices;
pub(crate) mod cipher;
pub(crate) mod device_path;
mod forwarded;
mod kind;
mod layers;
mod nested;
pub(crate) mod origin;
mod removed;
mod routes;
mod section;
pub mod sections;
mod service_links;
mod setting;
pub(crate) mod url_template;
mod value;

use std::{collections::HashSet, ffi::OsString, net::IpAddr, sync::LazyLock, time::Duration};

use ipnet::{IpNet, Ipv4Net};

use self::nested::flatten;
use crate::error::{Error, ErrorKind, Result};

pub use self::{
    choices::{
        AuthKind, BrokerKind, ClientAuth, DownlinkBinary, DuplicatePolicy, Fsync, Full, Gone,
        Http2, MailboxKind, RemoteBody, SpoolKind, SubprotocolMismatch, Subscribe, UplinkBinary,
        UplinkFull,
    },
    kind::ValueKind,
    layers::{HostSetting, Known, Layers, Merged, Source},
    routes::{Route, Routes},
    setting::Setting,
    value::{Headers, Secret},
};

/// All settings of a bridge, in sections. Fields are public, [`Default`] gives the defaults, and each setting has a chained setter:
///
/// ```
/// let config = fastsock::Config::default().websocket_port(0u16).remote_url(Some("http://127.0.0.1:8080/".into()));
/// assert_eq!(config.redis.prefix, "fastsock");
/// ```
///
/// The name of a setting is its environment variable in lower case, without `FASTSOCK_`.
/// Nothing here reads the environment; a host that wants it calls [`Config::from_vars`].
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Config {
    /// Where devices connect.
    pub listen: sections::Listen,
    /// What a device is called, and what it speaks.
    pub devices: sections::Devices,
    /// TLS for devices.
    pub tls: sections::Tls,
    /// Proxies in front of the gateway.
    pub proxies: sections::Proxies,
    /// Redis.
    pub redis: sections::Redis,
    /// The backend that takes uplinks.
    pub remote: sections::Remote,
    /// Devices that have a backend of their own.
    pub routing: sections::Routing,
    /// Uplinks in memory.
    pub uplinks: sections::Uplinks,
    /// Acknowledgements of uplinks.
    pub ack: sections::Ack,
    /// Lifecycle events.
    pub events: sections::Events,
    /// The spool and dead letters.
    pub spool: sections::Spool,
    /// Downlinks and outboxes.
    pub downlinks: sections::Downlinks,
    /// Mailboxes.
    pub mailbox: sections::Mailbox,
    /// Groups and broadcasts.
    pub groups: sections::Groups,
    /// Sessions and limits.
    pub limits: sections::Limits,
    /// Who may connect.
    pub auth: sections::Auth,
    /// The admin listener.
    pub admin: sections::Admin,
    /// Spans for a collector.
    pub otlp: sections::Otlp,
    pub(crate) warnings: Vec<Warning>,
}

/// Something that looks wrong but is no reason not to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// What happens, as a fixed sentence.
    pub message: &'static str,
    /// The variable or file it is about.
    pub about: String,
    /// What may help.
    pub hint: String,
}

impl Warning {
    pub(crate) fn log(&self) {
        let Self {
            message,
            about,
            hint,
        } = self;
        tracing::warn!(about, hint, "{message}");
    }
}

impl Config {
    /// The settings table, in the order of the documentation.
    pub fn settings() -> &'static [Setting] {
        &SETTINGS
    }

    /// Sets one setting from text, by its name or its variable; empty text means the default.
    ///
    /// # Errors
    /// `Config` when there is no such setting (the nearest name is told) or the value is not allowed.
    pub fn set(&mut self, key: &str, value: &str) -> Result<()> {
        match find(key) {
            Some(setting) => self.apply(setting, key, value),
            None => removed::set(key, value).unwrap_or_else(|| Err(unknown(key))),
        }
    }

    /// The value of a setting as text, secrets as `***`; `None` when there is no such setting.
    pub fn show(&self, key: &str) -> Option<String> {
        find(key).map(|setting| setting.show(self))
    }

    /// As [`Config::from_vars`], from what `std::env::vars_os` gives.
    ///
    /// # Errors
    /// As there; also for a setting whose value is not UTF-8.
    pub fn from_os_vars(vars: impl IntoIterator<Item = (OsString, OsString)>) -> Result<Self> {
        let mut pairs = Vec::new();
        for (key, value) in vars {
            let Ok(key) = key.into_string() else {
                continue; // no name of ours
            };
            match value.into_string() {
                Ok(value) => pairs.push((key, value)),
                Err(_) if Self::is_variable(&key) => return Err(not_utf8(&key)),
                Err(_) => {}
            }
        }
        Self::from_vars(pairs)
    }

    /// The defaults overlaid with environment variables, by the names of docs/settings.md. Other variables are ignored.
    /// `<variable>_FILE` reads a secret from a file, without whitespace around it. Of the numbers that the original had, only the
    /// digits they begin with count, as there (`WEBSOCKET_PORT=3000.5` is 3000); [`Config::warnings`] then says so. What Kubernetes sets for services (`FASTSOCK_PORT=tcp://…`) is passed over.
    ///
    /// ```
    /// let config = fastsock::Config::from_vars([("WEBSOCKET_PORT", "4000"), ("HOME", "/root")])?;
    /// assert_eq!(config.listen.port, 4000);
    /// # Ok::<(), fastsock::Error>(())
    /// ```
    ///
    /// # Errors
    /// `Config`, naming the variable, its value and what is allowed. Also for a name that begins with `FASTSOCK_AUTH` and is none
    /// of ours: whoever mistypes it would leave a door open.
    pub fn from_vars<K: AsRef<str>, V: AsRef<str>>(
        vars: impl IntoIterator<Item = (K, V)>,
    ) -> Result<Self> {
        let mut config = Self::default();
        config.merge_vars(vars)?;
        Ok(config)
    }

    /// Overlays environment variables on what is set already.
    ///
    /// # Errors
    /// As [`Config::from_vars`].
    pub fn merge_vars<K: AsRef<str>, V: AsRef<str>>(
        &mut self,
        vars: impl IntoIterator<Item = (K, V)>,
    ) -> Result<()> {
        // A proxy may be named in both cases; the lower one wins whatever the order.
        let mut lower = HashSet::new();
        for (key, value) in vars {
            let (key, value) = (key.as_ref(), value.as_ref());
            if Self::is_service_link(key, value) {
                continue;
            }
            let is_lower_proxy = matches!(key, "http_proxy" | "https_proxy" | "no_proxy");
            let variable = if is_lower_proxy {
                key.to_ascii_uppercase()
            } else {
                key.to_owned()
            };
            if let Some(setting) = SETTINGS.iter().find(|s| s.variable == variable) {
                if is_lower_proxy && !value.is_empty() {
                    lower.insert(setting.variable);
                } else if lower.contains(setting.variable) {
                    continue;
                }
                if ORIGINAL_NUMBERS.contains(&setting.variable) {
                    self.apply_cut(setting, key, value)?;
                } else if !value.is_empty() || !is_lower_proxy {
                    self.apply(setting, key, value)?;
                }
            } else if let Some(setting) = file_setting(key)
                && !value.is_empty()
            {
                self.apply(setting, key, &secret_of_file(key, trimmed(value))?)?;
            } else if let Some(taken) = removed::set(key, value) {
                taken?;
            } else if key.starts_with("FASTSOCK_AUTH") && file_setting(key).is_none() {
                return Err(unknown_variable(key));
            }
        }
        Ok(())
    }

    /// Overlays a JSON object: names with texts, numbers, booleans or null (the default); sections may nest, so
    /// `{"redis":{"port":6380}}` is `{"redis_port":6380}`.
    ///
    /// # Errors
    /// `Config`, naming the setting, its value and what is allowed; also for one that is given twice.
    pub fn merge_json(&mut self, json: &str) -> Result<()> {
        let value: serde_json::Value = serde_json::from_str(json).map_err(|e| {
            Error::new(ErrorKind::Config, "the settings are not valid JSON").with_source(e)
        })?;
        let serde_json::Value::Object(map) = value else {
            return Err(Error::new(
                ErrorKind::Config,
                "the settings are not a JSON object",
            ));
        };
        for (key, value) in flatten(map, &|key| find(key).map(|setting| setting.name))? {
            self.set(&key, &value)?;
        }
        Ok(())
    }

    /// What looked wrong in what was given but is no reason not to run. The bridge logs it when it starts.
    pub fn warnings(&self) -> &[Warning] {
        &self.warnings
    }

    /// Whether a variable is none of ours but of Kubernetes, which gives each container some for each service of its namespace.
    /// One of a service called `fastsock` or `redis` looks like a setting: `REDIS_PORT=tcp://10.0.0.1:6379`.
    pub fn is_service_link(name: &str, value: &str) -> bool {
        service_links::is_service_link(name, value)
    }

    /// Whether a name is the variable of a setting, or the `_FILE` form of a secret one.
    pub fn is_variable(name: &str) -> bool {
        matches!(name, "http_proxy" | "https_proxy" | "no_proxy")
            || SETTINGS.iter().any(|s| s.variable == name)
            || file_setting(name).is_some()
    }

    /// Whether it was a setting of an earlier version: one value of it is still taken, any other refused.
    pub fn is_removed(name: &str) -> bool {
        removed::is_removed(name)
    }

    /// Whether anything is carried by Redis, or kept in it.
    #[cfg(feature = "redis")]
    pub(crate) fn uses_redis(&self) -> bool {
        self.redis.broker != BrokerKind::Embedded || self.spool.kind == SpoolKind::Redis
    }

    /// Whether Redis was configured in any way, so that its absence is an error and not a choice.
    #[cfg(feature = "redis")]
    pub(crate) fn names_redis(&self) -> bool {
        let default = Self::default();
        self.redis.url.is_some()
            || (
                &self.redis.host,
                self.redis.port,
                self.redis.db,
                &self.redis.prefix,
            ) != (
                &default.redis.host,
                default.redis.port,
                default.redis.db,
                &default.redis.prefix,
            )
    }

    /// The settings that name files to be read, as far as they are given.
    pub(crate) fn named_files(&self) -> String {
        let is_file = |setting: &&Setting| {
            let value = (setting.show)(self);
            let is_path = matches!(setting.kind, ValueKind::Path | ValueKind::Paths)
                || setting.name == "auth_jwt_jwks" && !value.starts_with("http");
            is_path && !value.is_empty()
        };
        let files = SETTINGS
            .iter()
            .filter(is_file)
            .map(|setting| setting.variable);
        files.collect::<Vec<_>>().join(", ")
    }

    /// The paths that name devices, if any do. For settings that were checked.
    pub(crate) fn paths_of_devices(&self) -> Option<device_path::DevicePaths> {
        let devices = &self.devices;
        device_path::DevicePaths::new(&devices.paths, &devices.client_id)
            .ok()
            .flatten()
    }

    /// How named parts form a client id. For settings that were checked.
    #[cfg(feature = "jwt")]
    pub(crate) fn client_id_form(&self) -> device_path::ClientIdForm {
        let form = device_path::ClientIdForm::parse(&self.devices.client_id);
        form.unwrap_or_else(|_| device_path::ClientIdForm::id())
    }

    /// Whether what is known of a session is kept: someone may ask for more than its name.
    pub(crate) fn keeps_context(&self) -> bool {
        !self.devices.paths.is_empty()
            || !self.devices.subprotocols.is_empty()
            || self.remote.context
    }

    /// Whether there is a backend for uplinks, of the default route or of another one.
    pub(crate) fn has_remote(&self) -> bool {
        self.remote.url.is_some() || !self.routing.routes.is_empty()
    }

    /// Those of `listen.origins`.
    pub(crate) fn origins(&self) -> Vec<origin::Origin> {
        let texts = self.listen.origins.iter();
        texts
            .filter_map(|text| origin::Origin::parse(text).ok())
            .collect()
    }

    /// The form of `remote_url`, if it names the device of a message.
    pub(crate) fn remote_template(&self) -> Option<url_template::UrlTemplate> {
        let url = self.remote.url.as_deref()?;
        url_template::UrlTemplate::parse(url).ok().flatten()
    }

    /// The networks of `proxies.trusted`.
    pub(crate) fn trusted_networks(&self) -> Vec<IpNet> {
        let texts = self.proxies.trusted.iter();
        texts.filter_map(|text| network(text)).collect()
    }

    fn apply(&mut self, setting: &Setting, key: &str, given: &str) -> Result<()> {
        if given.is_empty() {
            let default = (setting.show)(&Self::default());
            (setting.set)(self, &default).expect("a default is allowed");
            return Ok(());
        }
        let trimmed = trimmed(given);
        let value = match setting.variable {
            PREFIX => given, // as the original: others write the same keys
            _ => trimmed,
        };
        if setting.variable == ADMIN_TOKEN && !key.ends_with("_FILE") && is_path(trimmed) {
            let text =
                format!("{key}: the value is the path of a file; {ADMIN_TOKEN}_FILE takes that");
            return Err(Error::new(ErrorKind::Config, text));
        }
        let set = match trimmed {
            "" => Err("there is nothing but whitespace".into()),
            _ => (setting.set)(self, value),
        };
        set.map_err(|why| not_allowed(setting, key, value, &why))?;
        if value != trimmed {
            self.warn(
                "Whitespace is a part of the setting",
                key,
                format!("{value:?} begins or ends with it"),
            );
        }
        Ok(())
    }

    /// A number as the original read it.
    fn apply_cut(&mut self, setting: &Setting, key: &str, given: &str) -> Result<()> {
        let Some(number) = value::parse_int(given).map(|number| number.to_string()) else {
            return self.apply(setting, key, given);
        };
        (setting.set)(self, &number).map_err(|why| not_allowed(setting, key, given, &why))?;
        if trimmed(given).parse::<i64>().is_err() {
            let allowed = setting.allowed;
            self.warn(
                "Only the beginning of a number counts",
                key,
                format!("{given:?} is understood as {number}; give {allowed}"),
            );
        }
        Ok(())
    }

    fn warn(&mut self, message: &'static str, about: &str, hint: String) {
        let about = about.to_owned();
        self.warnings.push(Warning {
            message,
            about,
            hint,
        });
    }
}

/// The known name nearest to a mistyped one, if any is near. `FASTSOCK_` counts for nothing: some have it and some do not.
fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let bare = |name: &'_ str| name.strip_prefix("FASTSOCK_").unwrap_or(name).to_owned();
    let name = bare(name);
    known
        .into_iter()
        .map(|candidate| {
            let distance = strsim::damerau_levenshtein(&name, &bare(candidate));
            (distance, candidate)
        })
        .filter(|(distance, _)| *distance <= name.len().div_ceil(3))
        .min()
        .map(|(_, candidate)| candidate)
}

fn find(key: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|s| s.name == key || s.variable == key)
}

fn file_setting(key: &str) -> Option<&'static Setting> {
    let variable = key.strip_suffix("_FILE")?;
    SETTINGS
        .iter()
        .find(|s| s.is_secret && s.variable == variable)
}

fn unknown(key: &str) -> Error {
    let hint = nearest(key, SETTINGS.iter().map(|s| s.name))
        .map_or(String::new(), |name| format!("; did you mean {name:?}?"));
    Error::new(
        ErrorKind::Config,
        format!("there is no setting {key:?}{hint}"),
    )
}

fn unknown_variable(key: &str) -> Error {
    let hint = nearest(key, SETTINGS.iter().map(|s| s.variable))
        .map_or(String::new(), |name| format!("; did you mean {name}?"));
    let text = format!("{key}: there is no such setting{hint}");
    Error::new(ErrorKind::Config, text)
}

fn not_utf8(key: &str) -> Error {
    Error::new(ErrorKind::Config, format!("{key}: the value is not UTF-8"))
}

fn not_allowed(setting: &Setting, key: &str, value: &str, why: &str) -> Error {
    let wrong = if !why.is_empty() {
        why.into()
    } else if setting.is_secret || is_telling(value) {
        "the value is not allowed".into()
    } else {
        format!("{value:?} is not allowed")
    };
    let line = format!("{key}: {wrong}; give {}", setting.allowed_as(key));
    Error::new(ErrorKind::Config, line)
}

/// Whether someone means what is in a file: as a secret, a path is one that others know.
fn is_path(value: &str) -> bool {
    value.starts_with('/') || std::path::Path::new(value).is_file()
}

const ADMIN_TOKEN: &str = "FASTSOCK_ADMIN_TOKEN";

/// The secret in a file.
fn secret_of_file(key: &str, path: &str) -> Result<String> {
    let failed = |what: &str| Error::new(ErrorKind::Config, format!("{key}: {what} {path:?}"));
    let text = std::fs::read_to_string(path).map_err(|e| failed("cannot read").with_source(e))?;
    match trimmed(&text) {
        "" => Err(failed("there is nothing in")),
        secret => Ok(secret.to_owned()),
    }
}

/// Without the whitespace around it that editors, shells and `echo` leave, nor the mark that editors of Windows put before it.
fn trimmed(text: &str) -> &str {
    text.trim_matches(|c: char| c.is_whitespace() || c == '\u{feff}')
}

/// Whether it may be a URL with a password, or with a key in its query.
fn is_telling(value: &str) -> bool {
    value.contains("://") && value.contains(['@', '?'])
}

/// The same URL without its secrets.
fn masked(text: &str) -> String {
    let Ok(mut url) = url::Url::parse(text) else {
        return "***".into();
    };
    if !url.username().is_empty() || url.password().is_some() {
        // These fail for URLs that have no host, and so no user.
        let _ = url.set_username("***");
        let _ = url.set_password(None);
    }
    if url.query().is_some() {
        url.set_query(Some("***"));
    }
    url.into()
}

fn is_within(duration: &Duration, least_ms: u128, most_ms: u128) -> bool {
    (least_ms..=most_ms).contains(&duration.as_millis())
}

/// An address, or a network as address and prefix length.
fn network(text: &str) -> Option<IpNet> {
    let text = text.trim();
    let network = text.parse().ok();
    let network = network.or_else(|| text.parse().ok().map(IpAddr::into))?;
    Some(match network {
        // An IPv4 device is never seen as ::ffff:…, so its network is not either.
        IpNet::V6(v6) if v6.prefix_len() >= MAPPED_BITS => match v6.addr().to_canonical() {
            IpAddr::V4(ip) => Ipv4Net::new(ip, v6.prefix_len() - MAPPED_BITS).ok()?.into(),
            IpAddr::V6(_) => network,
        },
        network => network,
    })
}

/// What comes before the IPv4 address in ::ffff:192.0.2.1.
const MAPPED_BITS: u8 = 96;

/// Whether it is a name or an address alone. An underscore is fine: services of Docker Compose have them.
fn is_host(text: &str) -> bool {
    let address = text.trim_matches(['[', ']']);
    let is_name = !text.contains(|c: char| c.is_whitespace() || ":/@?#,".contains(c));
    let is_ipv6 = address
        .split('%')
        .next()
        .is_some_and(|ip| ip.parse::<std::net::Ipv6Addr>().is_ok());
    !text.is_empty() && (is_name || is_ipv6)
}

/// Whether it is a URL for uplinks; one with named parts has them where they can be.
fn check_remote_url(url: Option<&str>) -> Result<(), String> {
    match url {
        Some(url) if !is_http_url(url) => Err(String::new()),
        Some(url) => url_template::UrlTemplate::parse(url).map(drop),
        None => Ok(()),
    }
}

/// Whether it is the value of a `Content-Type`.
fn is_media_type(text: &str) -> bool {
    let (kind, subtype) = text.split_once('/').unwrap_or_default();
    !kind.is_empty() && !subtype.is_empty() && http::HeaderValue::from_str(text).is_ok()
}

fn is_http_url(text: &str) -> bool {
    url::Url::parse(text)
        .is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
}

/// All rows, in the order of the documentation.
static SETTINGS: LazyLock<Vec<Setting>> = LazyLock::new(sections::rows);

const PREFIX: &str = "REDIS_PREFIX";

/// The numbers that the original had. In the environment and `.env` they are read as it did, by `parseInt`.
const ORIGINAL_NUMBERS: [&str; 4] = [
    "WEBSOCKET_PORT",
    "WEBSOCKET_PING_INTERVAL",
    "REDIS_PORT",
    "REDIS_DB",
];

#[cfg(test)]
mod tests;
