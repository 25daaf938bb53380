//! What one setting alone cannot tell.

use std::net::{IpAddr, SocketAddr};

use super::{
    AuthKind, BrokerKind, ClientAuth, Config, MailboxKind, RemoteBody, Route, SETTINGS, Secret,
    Setting, SpoolKind, SubprotocolMismatch,
    device_path::{ClientIdForm, DevicePaths},
    not_allowed,
    url_template::{CLIENT_ID, UrlTemplate, leaves_segment},
};
use crate::error::{Error, ErrorKind, Result};

impl Config {
    /// Checks what one setting alone cannot tell. `start` calls it.
    ///
    /// # Errors
    /// `Config`, naming the settings.
    pub fn check(&self) -> Result<()> {
        self.problems().into_iter().next().map_or(Ok(()), Err)
    }

    /// All that [`check`](Self::check) would find, one after the other.
    pub fn problems(&self) -> Vec<Error> {
        let alone = SETTINGS.iter().filter_map(|setting| {
            let why = (setting.holds)(self).err()?;
            let value = setting.show(self);
            Some(not_allowed(setting, setting.variable, &value, &why))
        });
        let parts = [
            Self::check_batch,
            Self::check_remote,
            Self::check_admin,
            Self::check_otlp,
            Self::check_devices,
            Self::check_context,
            Self::check_tls,
            Self::check_proxies,
            Self::check_auth,
            Self::check_unused_certificates,
            Self::check_broker,
            Self::check_spool,
            Self::check_mailbox,
            Self::check_urls,
        ];
        let parts = parts.into_iter().flat_map(|part| part(self));
        let mut found: Vec<_> = alone
            .chain(parts.map(|text| Error::new(ErrorKind::Config, text)))
            .collect();
        found.extend(self.check_routes(&found));
        found
    }

    fn check_admin(&self) -> Vec<String> {
        let Some(addr) = self.admin.addr else {
            return Vec::new();
        };
        let mut found = Vec::new();
        if !cfg!(feature = "admin") {
            let text = "FASTSOCK_ADMIN_ADDR: this build has no admin listener (feature \"admin\")";
            found.push(text.into());
        }
        found.extend(self.check_admin_token(addr));
        let listens_there = |ip: IpAddr| ip.is_unspecified() || ip == addr.ip();
        if addr.port() != 0
            && addr.port() == self.listen.port
            && self.listen.addr.is_none_or(listens_there)
        {
            found.push(format!(
                "FASTSOCK_ADMIN_ADDR: {addr} is the port of devices (WEBSOCKET_PORT); give another one"
            ));
        }
        found
    }

    fn check_otlp(&self) -> Vec<String> {
        let is_missing = self.otlp.url.is_some() && !cfg!(feature = "otlp");
        let text = "FASTSOCK_OTLP_URL: this build sends no spans (feature \"otlp\")";
        is_missing.then(|| text.into()).into_iter().collect()
    }

    fn check_context(&self) -> Vec<String> {
        let is_unused = !self.remote.context && !self.remote.forward_headers.is_empty();
        let text = "FASTSOCK_REMOTE_FORWARD_HEADERS: it has no effect while FASTSOCK_REMOTE_CONTEXT is off";
        is_unused.then(|| text.into()).into_iter().collect()
    }

    /// No two devices may get one client id.
    fn check_devices(&self) -> Vec<String> {
        let devices = &self.devices;
        let paths = DevicePaths::new(&devices.paths, &devices.client_id).err();
        let is_unused =
            devices.subprotocols.is_empty() && devices.mismatch != SubprotocolMismatch::Accept;
        let mismatch =
            "FASTSOCK_SUBPROTOCOL_MISMATCH: it has no effect without FASTSOCK_SUBPROTOCOLS";
        paths
            .into_iter()
            .chain(is_unused.then(|| mismatch.into()))
            .collect()
    }

    fn check_proxies(&self) -> Vec<String> {
        let is_unused = self.proxies.protocol && self.proxies.trusted.is_empty();
        let text =
            "FASTSOCK_PROXY_PROTOCOL: nobody may send a PROXY header; set FASTSOCK_TRUSTED_PROXIES";
        is_unused.then(|| text.into()).into_iter().collect()
    }

    fn check_broker(&self) -> Vec<String> {
        let is_missing = self.redis.broker != BrokerKind::Embedded && !cfg!(feature = "redis");
        let text = "FASTSOCK_BROKER: this build has no Redis (feature \"redis\"); only \"embedded\" is allowed";
        is_missing.then(|| text.into()).into_iter().collect()
    }

    fn check_spool(&self) -> Vec<String> {
        let text = match self.spool.kind {
            SpoolKind::Disk if !cfg!(feature = "disk") => {
                "FASTSOCK_SPOOL: this build has no disk spool (feature \"disk\"); \"disk\" is not allowed"
            }
            SpoolKind::Disk if self.spool.data_dir.is_none() => {
                "FASTSOCK_SPOOL: \"disk\" needs a directory; set FASTSOCK_DATA_DIR"
            }
            SpoolKind::Redis if !cfg!(feature = "redis-spool") => {
                "FASTSOCK_SPOOL: this build has no spool in Redis (feature \"redis-spool\"); \"redis\" is not allowed"
            }
            _ => return Vec::new(),
        };
        vec![text.into()]
    }

    fn check_urls(&self) -> Vec<String> {
        let urls = [
            ("REMOTE_URL", &self.remote.url),
            ("FASTSOCK_EVENTS_URL", &self.events.url),
        ];
        let needs_tls = |url: &Option<String>| {
            !cfg!(feature = "tls") && url.as_deref().is_some_and(|url| url.starts_with("https:"))
        };
        let bad = urls.into_iter().filter(|(_, url)| needs_tls(url));
        let text = |(variable, _)| {
            format!("{variable}: this build has no TLS (feature \"tls\"); only http:// is allowed")
        };
        bad.map(text).collect()
    }

    /// A mailbox in Redis needs Redis for sure, one on the disk a directory.
    fn check_mailbox(&self) -> Vec<String> {
        let text = match self.mailbox.kind {
            MailboxKind::Redis if self.redis.broker == BrokerKind::Embedded => {
                "FASTSOCK_MAILBOX: redis needs FASTSOCK_BROKER to be redis or auto"
            }
            MailboxKind::Disk if !cfg!(feature = "disk") => {
                "FASTSOCK_MAILBOX: this build has no mailbox on the disk (feature \"disk\"); \"disk\" is not allowed"
            }
            MailboxKind::Disk if self.spool.data_dir.is_none() => {
                "FASTSOCK_MAILBOX: \"disk\" needs a directory; set FASTSOCK_DATA_DIR"
            }
            _ => return Vec::new(),
        };
        vec![text.into()]
    }

    /// Beyond loopback whoever guesses the token can speak for every device.
    fn check_admin_token(&self, addr: SocketAddr) -> Option<String> {
        if addr.ip().to_canonical().is_loopback() {
            return None;
        }
        let length = self
            .admin
            .token
            .as_ref()
            .map(|token| token.expose().chars().count());
        match length {
            None => Some(format!(
                "FASTSOCK_ADMIN_ADDR: {addr} is beyond loopback, so FASTSOCK_ADMIN_TOKEN is required"
            )),
            Some(length @ ..LEAST_TOKEN_CHARACTERS) => Some(format!(
                "FASTSOCK_ADMIN_TOKEN: it has {length} characters, and needs {LEAST_TOKEN_CHARACTERS} since {addr} is beyond loopback"
            )),
            Some(_) => None,
        }
    }

    /// A URL has only the named parts that a device has.
    fn check_remote(&self) -> Vec<String> {
        let mut found = Vec::new();
        if let Some(template) = self.remote_template() {
            found.extend(self.check_template(&template));
        }
        if self.remote.content_type.is_some() && self.remote.body == RemoteBody::Json {
            let text = "FASTSOCK_REMOTE_CONTENT_TYPE: it has no effect while FASTSOCK_REMOTE_BODY is json; set that to raw, or remove FASTSOCK_REMOTE_CONTENT_TYPE";
            found.push(text.into());
        }
        found
    }

    /// Each name in a URL is one that every device has, and that can be a segment.
    fn check_template(&self, template: &UrlTemplate) -> Option<String> {
        let devices = &self.devices;
        let paths = DevicePaths::new(&devices.paths, &devices.client_id).ok()?;
        let form = ClientIdForm::parse(&devices.client_id).ok()?;
        let parts: Vec<_> = paths.iter().flat_map(DevicePaths::names).collect();
        let is_unknown = |name: &&str| *name != CLIENT_ID && !parts.contains(name);
        if let Some(name) = template.names().find(is_unknown) {
            let known = [CLIENT_ID].iter().chain(&parts);
            let known: Vec<_> = known.map(|name| format!("{{{name}}}")).collect();
            let (known, verb) = match &known[..] {
                [one] => (one.clone(), "is"),
                all => (all.join(", "), "are"),
            };
            return Some(format!(
                "REMOTE_URL: FASTSOCK_DEVICE_PATHS has no {{{name}}}; {known} {verb} allowed"
            ));
        }
        if !template.names().any(|name| name == CLIENT_ID) {
            return None;
        }
        if parts.contains(&CLIENT_ID) {
            return Some("REMOTE_URL: {client_id} is the client id, and a part of FASTSOCK_DEVICE_PATHS too; give that part another name".into());
        }
        let leaves = form.literals().any(|text| text.contains(leaves_segment));
        leaves.then(|| "REMOTE_URL: FASTSOCK_CLIENT_ID has a slash, a backslash or a control character, so {client_id} is no segment of a path; name the parts, as in /{tenant}/{id}".into())
    }

    /// A batch is of several messages, of several devices: no reply is for all of them, and they are not one event.
    fn check_batch(&self) -> Vec<String> {
        let is_raw = self.remote.body == RemoteBody::Raw;
        let others = [
            ("FASTSOCK_REMOTE_REPLY", self.remote.reply),
            ("FASTSOCK_REMOTE_CLOUDEVENTS", self.remote.cloudevents),
            ("FASTSOCK_REMOTE_BODY=raw", is_raw),
            (
                "REMOTE_URL with named parts",
                self.remote_template().is_some(),
            ),
            ("FASTSOCK_REMOTE_CONTEXT", self.remote.context),
        ];
        let bad = others
            .into_iter()
            .filter(|(_, is_on)| *is_on && self.remote.batch > 1);
        bad.map(|(other, _)| format!("FASTSOCK_REMOTE_BATCH: {other} needs it to be 1"))
            .collect()
    }

    /// Each way to authenticate needs its own settings.
    fn check_auth(&self) -> Vec<String> {
        let needed = match self.auth.kind {
            AuthKind::Tokens if self.auth.tokens_file.is_none() => "FASTSOCK_AUTH_TOKENS_FILE",
            AuthKind::Webhook if self.auth.url.is_none() => "FASTSOCK_AUTH_URL",
            AuthKind::Certificate if self.tls.client_auth == ClientAuth::Off => {
                "FASTSOCK_TLS_CLIENT_AUTH"
            }
            AuthKind::Jwt if !cfg!(feature = "jwt") => {
                return vec!["FASTSOCK_AUTH: this build has no JWT (feature \"jwt\")".into()];
            }
            AuthKind::Jwt if self.auth.jwt_key.is_none() && self.auth.jwt_jwks.is_none() => {
                "FASTSOCK_AUTH_JWT_KEY or FASTSOCK_AUTH_JWT_JWKS"
            }
            _ => return self.check_unused_auth(),
        };
        vec![format!(
            "FASTSOCK_AUTH: {} needs {needed}",
            self.auth.kind.as_str()
        )]
    }

    /// Whoever sets up a way to authenticate believes that it is on: with another way, a door would stand open that looks shut.
    fn check_unused_auth(&self) -> Vec<String> {
        let mut found = Vec::new();
        let default = Self::default();
        let is_set = |setting: &Setting| (setting.show)(self) != (setting.show)(&default);
        for setting in SETTINGS.iter() {
            let users = match setting.name {
                "auth_tokens_file" => &[AuthKind::Tokens][..],
                "auth_timeout" => &[AuthKind::Webhook, AuthKind::Jwt, AuthKind::Tokens],
                "auth_cache" => &[AuthKind::Webhook, AuthKind::Tokens],
                name if name.starts_with("auth_jwt_") => &[AuthKind::Jwt],
                name if name.starts_with("auth_") => &[AuthKind::Webhook],
                _ => continue,
            };
            if is_set(setting) && !users.contains(&self.auth.kind) {
                let (variable, auth) = (setting.variable, self.auth.kind.as_str());
                let users: Vec<_> = users.iter().map(|user| user.as_str()).collect();
                let users = users.join(" or ");
                found.push(format!(
                    "{variable}: it has no effect while FASTSOCK_AUTH is {auth}; set FASTSOCK_AUTH to {users}, or remove {variable}"
                ));
            }
        }
        found
    }

    /// The same for certificates where nothing is said over TLS. (Beside `http://`, `FASTSOCK_REMOTE_CA` is for redirects and proxies.)
    fn check_unused_certificates(&self) -> Vec<String> {
        let uses_redis =
            self.redis.broker != BrokerKind::Embedded || self.spool.kind == SpoolKind::Redis;
        let redis_url = self.redis.url.as_ref().map_or("", Secret::expose);
        let mut urls = vec![
            self.remote.url.as_deref(),
            self.events.url.as_deref(),
            self.auth.url.as_ref().map(Secret::expose),
            self.auth.jwt_jwks.as_deref(),
        ];
        let of_routes = self.routing.routes.iter().flat_map(Route::settings);
        urls.extend(of_routes.map(|(_, text)| Some(text))); // certificates may be for them
        let is_any = |name| urls.iter().flatten().any(|url| scheme(url) == name);
        let (redis, remote) = (
            "the gateway does not use TLS to Redis; FASTSOCK_REDIS_URL takes a rediss:// URL",
            "the gateway sends nothing over TLS; give an https:// URL",
        );
        let is_plain_redis = uses_redis && scheme(redis_url) != "rediss";
        let is_plain_remote = is_any("http") && !is_any("https");
        let all = [
            ("FASTSOCK_REDIS_CA", &self.redis.ca, is_plain_redis, redis),
            (
                "FASTSOCK_REDIS_CERT",
                &self.redis.cert,
                is_plain_redis,
                redis,
            ),
            ("FASTSOCK_REDIS_KEY", &self.redis.key, is_plain_redis, redis),
            (
                "FASTSOCK_REMOTE_CERT",
                &self.remote.cert,
                is_plain_remote,
                remote,
            ),
            (
                "FASTSOCK_REMOTE_KEY",
                &self.remote.key,
                is_plain_remote,
                remote,
            ),
        ];
        all.into_iter()
            .filter(|(_, path, is_unused, _)| *is_unused && path.is_some())
            .map(|(variable, _, _, why)| {
                format!("{variable}: it has no effect, since {why}, or remove {variable}")
            })
            .collect()
    }

    /// What TLS needs must be there whole: half of it would leave a door open that looks shut.
    fn check_tls(&self) -> Vec<String> {
        let (certs, keys) = (self.tls.cert.len(), self.tls.key.len());
        let asks = self.tls.client_auth != ClientAuth::Off;
        let text = if certs != keys {
            format!(
                "FASTSOCK_TLS_CERT: {certs} certificates need as many keys; FASTSOCK_TLS_KEY has {keys}"
            )
        } else if certs > 0 && !cfg!(feature = "tls") {
            "FASTSOCK_TLS_CERT: this build has no TLS (feature \"tls\")".into()
        } else if asks && (certs == 0 || self.tls.client_ca.is_none()) {
            "FASTSOCK_TLS_CLIENT_AUTH: needs FASTSOCK_TLS_CERT and FASTSOCK_TLS_CLIENT_CA".into()
        } else if certs == 0 && !self.tls.ciphers.is_empty() {
            "FASTSOCK_TLS_CIPHERS: the device port has no TLS; set FASTSOCK_TLS_CERT".into()
        } else if self.tls.client_ca.is_some() && !asks {
            "FASTSOCK_TLS_CLIENT_CA: nobody is asked for a certificate; set FASTSOCK_TLS_CLIENT_AUTH".into()
        } else {
            return Vec::new();
        };
        vec![text]
    }
}

/// As many of an openssl rand -hex are 64 bits.
const LEAST_TOKEN_CHARACTERS: usize = 16;

/// What stands before `://`, in lower case.
fn scheme(url: &str) -> String {
    let (scheme, _) = url.split_once("://").unwrap_or_default();
    scheme.to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(vars: &[(&str, &str)]) -> Option<String> {
        let config = Config::from_vars(vars.iter().copied()).unwrap();
        config.check().err().map(|error| error.to_line())
    }

    #[test]
    fn what_authenticates_nobody_is_refused() {
        const NEEDED: [(&str, &[(&str, &str)]); 5] = [
            ("open", &[]),
            ("tokens", &[("FASTSOCK_AUTH_TOKENS_FILE", "f")]),
            ("jwt", &[("FASTSOCK_AUTH_JWT_JWKS", "f")]),
            ("webhook", &[("FASTSOCK_AUTH_URL", "http://h/")]),
            (
                "certificate",
                &[
                    ("FASTSOCK_TLS_CERT", "f"),
                    ("FASTSOCK_TLS_KEY", "f"),
                    ("FASTSOCK_TLS_CLIENT_CA", "f"),
                    ("FASTSOCK_TLS_CLIENT_AUTH", "required"),
                ],
            ),
        ];
        for (variable, value, users) in [
            ("FASTSOCK_AUTH_TOKENS_FILE", "f", &["tokens"][..]),
            ("FASTSOCK_AUTH_JWT_KEY", "k", &["jwt"]),
            ("FASTSOCK_AUTH_JWT_JWKS", "f", &["jwt"]),
            ("FASTSOCK_AUTH_JWT_REFRESH", "1000", &["jwt"]),
            ("FASTSOCK_AUTH_JWT_CLAIM", "c", &["jwt"]),
            ("FASTSOCK_AUTH_JWT_AUDIENCE", "a", &["jwt"]),
            ("FASTSOCK_AUTH_JWT_ISSUER", "i", &["jwt"]),
            ("FASTSOCK_AUTH_JWT_LEEWAY", "1", &["jwt"]),
            ("FASTSOCK_AUTH_URL", "http://h/", &["webhook"]),
            ("FASTSOCK_AUTH_HEADERS", r#"{"A":"1"}"#, &["webhook"]),
            ("FASTSOCK_AUTH_TIMEOUT", "1", &["webhook", "jwt", "tokens"]),
            ("FASTSOCK_AUTH_CONCURRENCY", "1", &["webhook"]),
            ("FASTSOCK_AUTH_CACHE", "1", &["webhook", "tokens"]),
            ("FASTSOCK_AUTH_FORWARD_HEADERS", "x-a", &["webhook"]),
        ] {
            for (auth, needed) in NEEDED {
                let vars = [needed, &[("FASTSOCK_AUTH", auth), (variable, value)]].concat();
                let expected = (!users.contains(&auth)).then(|| {
                    let users = users.join(" or ");
                    format!("{variable}: it has no effect while FASTSOCK_AUTH is {auth}; set FASTSOCK_AUTH to {users}, or remove {variable}")
                });
                assert_eq!(line(&vars), expected, "{vars:?}");
            }
        }
        let with_users = SETTINGS.iter().filter(|s| s.name.starts_with("auth_"));
        assert_eq!(with_users.count(), 14, "a new one belongs into this test");
    }

    #[test]
    fn certificates_that_nobody_looks_at_are_refused() {
        let redis =
            "the gateway does not use TLS to Redis; FASTSOCK_REDIS_URL takes a rediss:// URL";
        let remote = "the gateway sends nothing over TLS; give an https:// URL";
        for (variable, vars, why) in [
            (
                "FASTSOCK_REDIS_CA",
                &[("FASTSOCK_BROKER", "redis")][..],
                Some(redis),
            ),
            (
                "FASTSOCK_REDIS_CERT",
                &[
                    ("FASTSOCK_BROKER", "auto"),
                    ("FASTSOCK_REDIS_URL", "redis://h"),
                ],
                Some(redis),
            ),
            (
                "FASTSOCK_REDIS_KEY",
                &[
                    ("FASTSOCK_SPOOL", "redis"),
                    ("FASTSOCK_REDIS_URL", "redis+cluster://h"),
                ],
                Some(redis),
            ),
            (
                "FASTSOCK_REDIS_CA",
                &[
                    ("FASTSOCK_BROKER", "redis"),
                    ("FASTSOCK_REDIS_URL", "rediss://h"),
                ],
                None,
            ),
            ("FASTSOCK_REDIS_CA", &[], None), // no Redis at all
            (
                "FASTSOCK_REMOTE_CERT",
                &[("REMOTE_URL", "http://h/")],
                Some(remote),
            ),
            (
                "FASTSOCK_REMOTE_CERT",
                &[("FASTSOCK_EVENTS_URL", "http://h/")],
                Some(remote),
            ),
            (
                "FASTSOCK_REMOTE_KEY",
                &[
                    ("FASTSOCK_AUTH_URL", "http://h/"),
                    ("FASTSOCK_AUTH", "webhook"),
                ],
                Some(remote),
            ),
            ("FASTSOCK_REMOTE_CERT", &[], None),
            (
                "FASTSOCK_REMOTE_CERT",
                &[("REMOTE_URL", "HTTPS://h/")],
                None,
            ),
            (
                "FASTSOCK_REMOTE_CERT",
                &[
                    ("REMOTE_URL", "http://h/"),
                    ("FASTSOCK_EVENTS_URL", "https://h/"),
                ],
                None,
            ),
            ("FASTSOCK_REMOTE_CA", &[("REMOTE_URL", "http://h/")], None),
        ] {
            let vars = [vars, &[(variable, "f")]].concat();
            let expected = why.map(|why| {
                format!("{variable}: it has no effect, since {why}, or remove {variable}")
            });
            assert_eq!(line(&vars), expected, "{vars:?}");
        }
    }

    #[test]
    fn beyond_loopback_a_token_is_long_enough_not_to_be_guessed() {
        let check = |addr: &str, token: Option<&str>| {
            let config = Config::default().admin_token(token.map(Into::into));
            let addr: SocketAddr = addr.parse().unwrap();
            config.admin_addr(Some(addr)).check()
        };
        let (short, long) = (Some("0123456789abcdé"), Some("0123456789abcdeé"));
        for (addr, token, told) in [
            ("127.0.0.1:1", None, None),
            ("127.0.0.1:1", Some("x"), None),
            ("[::1]:1", Some("x"), None),
            ("0.0.0.0:1", None, Some("FASTSOCK_ADMIN_TOKEN is required")),
            (
                "0.0.0.0:1",
                short,
                Some("FASTSOCK_ADMIN_TOKEN: it has 15 characters, and needs 16 since 0.0.0.0:1 is"),
            ),
            ("192.0.2.1:1", short, Some("it has 15 characters")),
            ("[::]:1", short, Some("it has 15 characters")),
            ("[::]:1", long, None),
        ] {
            let line = check(addr, token).err().map(|error| error.to_line());
            match (line, told) {
                (None, None) => {}
                (Some(line), Some(told)) => {
                    assert!(line.contains(told) && !line.contains("0123456"), "{line}");
                }
                (line, _) => panic!("{addr} {token:?}: {line:?}"),
            }
        }
    }

    #[test]
    fn what_is_not_built_in_is_answered_with_the_setting_and_the_feature() {
        for (variable, value, feature, is_there) in [
            (
                "FASTSOCK_ADMIN_ADDR",
                "127.0.0.1:0",
                "admin",
                cfg!(feature = "admin"),
            ),
            (
                "FASTSOCK_SPOOL",
                "redis",
                "redis-spool",
                cfg!(feature = "redis-spool"),
            ),
            ("FASTSOCK_SPOOL", "disk", "disk", cfg!(feature = "disk")),
            ("FASTSOCK_MAILBOX", "disk", "disk", cfg!(feature = "disk")),
        ] {
            let mut config = Config::default().data_dir(Some("d".into()));
            config.set(variable, value).unwrap();
            match config.check() {
                Ok(()) => assert!(is_there, "{variable}"),
                Err(error) => {
                    let line = error.to_line();
                    assert!(!is_there && line.starts_with(variable), "{line}");
                    assert!(line.contains(&format!("(feature \"{feature}\")")), "{line}");
                }
            }
        }
    }
}
