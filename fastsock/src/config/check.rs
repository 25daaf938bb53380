//! What one setting alone cannot tell.

use super::{AuthKind, BrokerKind, ClientAuth, Config, SETTINGS, SpoolKind, not_allowed};
use crate::error::{Error, ErrorKind, Result};

impl Config {
    /// Checks what one setting alone cannot tell. `start` calls it.
    ///
    /// # Errors
    /// `Config`, naming the settings.
    pub fn check(&self) -> Result<()> {
        for setting in SETTINGS {
            if !(setting.holds)(self) {
                return Err(not_allowed(setting, setting.variable, &setting.show(self)));
            }
        }
        self.check_batch()?;
        if self.admin_addr.is_some() && !cfg!(feature = "admin") {
            return Err(Error::new(
                ErrorKind::Config,
                "FASTSOCK_ADMIN_ADDR: this build has no admin listener (feature \"admin\")",
            ));
        }
        self.check_admin_token()?;
        self.check_tls()?;
        if self.proxy_protocol && self.trusted_proxies.is_empty() {
            return Err(Error::new(
                ErrorKind::Config,
                "FASTSOCK_PROXY_PROTOCOL: nobody may send a PROXY header; set FASTSOCK_TRUSTED_PROXIES",
            ));
        }
        self.check_auth()?;
        if self.broker != BrokerKind::Embedded && !cfg!(feature = "redis") {
            return Err(Error::new(
                ErrorKind::Config,
                "FASTSOCK_BROKER: this build has no Redis (feature \"redis\"); only \"embedded\" is allowed",
            ));
        }
        if self.spool == SpoolKind::Disk {
            if !cfg!(feature = "disk") {
                return Err(Error::new(
                    ErrorKind::Config,
                    "FASTSOCK_SPOOL: this build has no disk spool (feature \"disk\"); \"disk\" is not allowed",
                ));
            }
            if self.data_dir.is_none() {
                return Err(Error::new(
                    ErrorKind::Config,
                    "FASTSOCK_SPOOL: \"disk\" needs a directory; set FASTSOCK_DATA_DIR",
                ));
            }
        }
        if self.spool == SpoolKind::Redis && !cfg!(feature = "redis-spool") {
            return Err(Error::new(
                ErrorKind::Config,
                "FASTSOCK_SPOOL: this build has no spool in Redis (feature \"redis-spool\"); \"redis\" is not allowed",
            ));
        }
        #[cfg(not(feature = "tls"))]
        for (variable, url) in [
            ("REMOTE_URL", &self.remote_url),
            ("FASTSOCK_EVENTS_URL", &self.events_url),
        ] {
            if url.as_deref().is_some_and(|url| url.starts_with("https:")) {
                let text = format!(
                    "{variable}: this build has no TLS (feature \"tls\"); only http:// is allowed"
                );
                return Err(Error::new(ErrorKind::Config, text));
            }
        }
        Ok(())
    }

    /// Beyond loopback whoever guesses the token can speak for every device.
    fn check_admin_token(&self) -> Result<()> {
        let Some(addr) = self.admin_addr.filter(|addr| !addr.ip().is_loopback()) else {
            return Ok(());
        };
        let length = self
            .admin_token
            .as_ref()
            .map(|token| token.expose().chars().count());
        let text = match length {
            None => format!(
                "FASTSOCK_ADMIN_ADDR: {addr} is beyond loopback, so FASTSOCK_ADMIN_TOKEN is required"
            ),
            Some(length @ ..LEAST_TOKEN_CHARACTERS) => format!(
                "FASTSOCK_ADMIN_TOKEN: it has {length} characters, and needs {LEAST_TOKEN_CHARACTERS} since {addr} is beyond loopback"
            ),
            Some(_) => return Ok(()),
        };
        Err(Error::new(ErrorKind::Config, text))
    }

    /// A batch is of several messages: no reply is for all of them, and they are not one event.
    fn check_batch(&self) -> Result<()> {
        let other = match self.remote_batch > 1 {
            true if self.remote_reply => "FASTSOCK_REMOTE_REPLY",
            true if self.remote_cloudevents => "FASTSOCK_REMOTE_CLOUDEVENTS",
            _ => return Ok(()),
        };
        let text = format!("FASTSOCK_REMOTE_BATCH: {other} needs it to be 1");
        Err(Error::new(ErrorKind::Config, text))
    }

    /// Each way to authenticate needs its own settings.
    fn check_auth(&self) -> Result<()> {
        let needed = match self.auth {
            AuthKind::Tokens if self.auth_tokens_file.is_none() => "FASTSOCK_AUTH_TOKENS_FILE",
            AuthKind::Webhook if self.auth_url.is_none() => "FASTSOCK_AUTH_URL",
            AuthKind::Certificate if self.tls_client_auth == ClientAuth::Off => {
                "FASTSOCK_TLS_CLIENT_AUTH"
            }
            AuthKind::Jwt if !cfg!(feature = "jwt") => {
                let text = "FASTSOCK_AUTH: this build has no JWT (feature \"jwt\")";
                return Err(Error::new(ErrorKind::Config, text));
            }
            AuthKind::Jwt if self.auth_jwt_key.is_none() && self.auth_jwt_jwks.is_none() => {
                "FASTSOCK_AUTH_JWT_KEY or FASTSOCK_AUTH_JWT_JWKS"
            }
            _ => return Ok(()),
        };
        let text = format!("FASTSOCK_AUTH: {} needs {needed}", self.auth.as_str());
        Err(Error::new(ErrorKind::Config, text))
    }

    /// What TLS needs must be there whole: half of it would leave a door open that looks shut.
    fn check_tls(&self) -> Result<()> {
        let (certs, keys) = (self.tls_cert.len(), self.tls_key.len());
        let asks = self.tls_client_auth != ClientAuth::Off;
        let text = if certs != keys {
            format!(
                "FASTSOCK_TLS_CERT: {certs} certificates need as many keys; FASTSOCK_TLS_KEY has {keys}"
            )
        } else if certs > 0 && !cfg!(feature = "tls") {
            "FASTSOCK_TLS_CERT: this build has no TLS (feature \"tls\")".into()
        } else if asks && (certs == 0 || self.tls_client_ca.is_none()) {
            "FASTSOCK_TLS_CLIENT_AUTH: needs FASTSOCK_TLS_CERT and FASTSOCK_TLS_CLIENT_CA".into()
        } else if self.tls_client_ca.is_some() && !asks {
            "FASTSOCK_TLS_CLIENT_CA: nobody is asked for a certificate; set FASTSOCK_TLS_CLIENT_AUTH".into()
        } else {
            return Ok(());
        };
        Err(Error::new(ErrorKind::Config, text))
    }
}

/// As many of an openssl rand -hex are 64 bits.
const LEAST_TOKEN_CHARACTERS: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beyond_loopback_a_token_is_long_enough_not_to_be_guessed() {
        let check = |addr: &str, token: Option<&str>| {
            let config = Config::default().admin_token(token.map(Into::into));
            let addr: std::net::SocketAddr = addr.parse().unwrap();
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
