//! JSON Web Tokens (RFC 7519, with RFC 8725 in mind): whose key has signed one, for whom it is, and how long it is good.

mod jwks;
pub(crate) mod key;
pub(crate) mod setting;
mod unique;

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use serde::Deserialize;
use serde_json::Value;
use tokio::time::Instant;

use self::{
    jwks::{Jwks, More},
    key::{Fault, Key, verify},
};
use super::{Authenticate, Denied, Grant, Principal, Profile, Shown};
use crate::{
    config::{Config, device_path::ClientIdForm},
    error::Result,
    tasks::{BoxFuture, Tasks},
    types::ClientId,
};

/// Lets in whoever has a token that one of the keys has signed.
pub(crate) struct Jwt {
    rules: Rules,
    /// From `auth_jwt_key`.
    keys: Vec<Key>,
    jwks: Option<Arc<Jwks>>,
    timeout: Duration,
}

/// What a token must claim.
struct Rules {
    claim: String,
    form: ClientIdForm,
    audience: Vec<String>,
    issuer: Vec<String>,
    leeway: Duration,
    /// Whether the claim `groups` has its meaning.
    has_groups: bool,
}

/// The claims that have a meaning here.
#[derive(Deserialize)]
struct Claims {
    exp: Option<f64>,
    nbf: Option<f64>,
    iss: Option<String>,
    aud: Option<Audience>,
    #[serde(flatten)]
    others: serde_json::Map<String, Value>,
}

/// RFC 7519 §4.1.3: one name, or a list.
#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Any(Vec<String>),
}

impl Jwt {
    /// Reads the keys; a set that is fetched from a URL comes later, by a task of `tasks`.
    ///
    /// # Errors
    /// `Config`, naming the variable: a key or a file that cannot be used.
    pub(crate) fn start(config: &Config, tasks: &Tasks) -> Result<Arc<Self>> {
        let keys = match &config.auth.jwt_key {
            Some(text) => setting::keys(text.expose())?,
            None => Vec::new(),
        };
        let jwks = match &config.auth.jwt_jwks {
            Some(place) => Some(Jwks::start(place, config, tasks)?),
            None => None,
        };
        Ok(Arc::new(Self {
            rules: Rules {
                claim: config.auth.jwt_claim.clone(),
                form: config.client_id_form(),
                audience: config.auth.jwt_audience.clone(),
                issuer: config.auth.jwt_issuer.clone(),
                leeway: config.auth.jwt_leeway,
                has_groups: config.groups.on,
            },
            keys,
            jwks,
            timeout: config.auth.timeout,
        }))
    }

    pub(crate) async fn decide(&self, token: &str) -> Result<Principal, Denied> {
        let payload = self.verified(token).await?;
        let (client_id, until, groups) = self.rules.validate(&payload, SystemTime::now())?;
        let profile = Profile {
            groups,
            ..Profile::default()
        };
        Ok(Principal {
            client_id,
            grant: Some(Box::new(Grant::until(until))),
            profile: profile
                .checked()
                .map_err(|_| Denied::Forbidden(BAD_GROUPS))?,
        })
    }

    /// The payload of a token that a key has signed, one perhaps that the set gets meanwhile.
    async fn verified(&self, token: &str) -> Result<Vec<u8>, Denied> {
        let deadline = Instant::now() + self.timeout;
        let so_far = self.jwks.as_ref().map_or(0, |jwks| jwks.looks_begun());
        loop {
            let fault = match self.verify(token) {
                Ok(payload) => return Ok(payload),
                Err(fault) => fault,
            };
            let is_hopeless = match &self.jwks {
                Some(jwks) if jwks.may_help(fault) => {
                    jwks.look_for_more(so_far, deadline).await? == More::None
                }
                _ => true,
            };
            if is_hopeless {
                return Err(Denied::Invalid(fault.as_str()));
            }
        }
    }

    fn verify(&self, token: &str) -> Result<Vec<u8>, Fault> {
        match &self.jwks {
            Some(jwks) => jwks.with(|keys| verify(token, self.keys.iter().chain(keys))),
            None => verify(token, self.keys.iter()),
        }
    }
}

impl Authenticate for Jwt {
    fn authenticate<'a>(&'a self, shown: Shown<'a>) -> BoxFuture<'a, Result<Principal, Denied>> {
        Box::pin(async move {
            match shown.certified() {
                Some(principal) => principal,
                None => self.decide(shown.credential).await,
            }
        })
    }
}

impl Rules {
    /// Who a verified payload names, until when, and its groups.
    fn validate(
        &self,
        payload: &[u8],
        now: SystemTime,
    ) -> Result<(ClientId, SystemTime, Vec<String>), Denied> {
        let claims: Claims =
            unique::parse(payload).ok_or(Denied::Invalid("the token's claims are malformed"))?;
        let time = |seconds: f64| super::unix_time(seconds).ok_or(Denied::Invalid(BAD_TIME));
        let until = time(
            claims
                .exp
                .ok_or(Denied::Invalid("the token never expires"))?,
        )?;
        let until = until.checked_add(self.leeway).unwrap_or(until);
        if now >= until {
            return Err(Denied::Invalid("the token has expired"));
        }
        if let Some(from) = claims.nbf
            && time(from)? > now + self.leeway.max(NBF_LEEWAY)
        {
            return Err(Denied::Invalid("the token is not valid yet"));
        }
        let is_issued = |iss: &String| self.issuer.contains(iss);
        if !self.issuer.is_empty() && !claims.iss.as_ref().is_some_and(is_issued) {
            return Err(Denied::Invalid("the token is of another issuer"));
        }
        let is_for_us = match &claims.aud {
            None => self.audience.is_empty(),
            Some(Audience::One(name)) => self.audience.contains(name),
            Some(Audience::Any(names)) => names.iter().any(|name| self.audience.contains(name)),
        };
        if !is_for_us {
            return Err(Denied::Invalid("the token is for another audience"));
        }
        let text = |claim: &str| match claim {
            "iss" => claims.iss.as_deref(),
            claim => claims.others.get(claim).and_then(Value::as_str),
        };
        let client_id = self.form.fill(|part| match part {
            "id" => text(&self.claim),
            part => text(part),
        });
        let client_id = client_id.ok_or(Denied::Forbidden("the token names no client id"))?;
        let groups = match claims.others.get("groups").filter(|_| self.has_groups) {
            None | Some(Value::Null) => Vec::new(),
            Some(groups) => Vec::deserialize(groups).map_err(|_| Denied::Forbidden(BAD_GROUPS))?,
        };
        Ok((client_id, until, groups))
    }
}

/// A token that was made this moment is good, though the clock of its maker is a little ahead.
const NBF_LEEWAY: Duration = Duration::from_secs(5);
const BAD_GROUPS: &str = "the token's groups are not at most 64 names of 256 bytes";
const BAD_TIME: &str = "the token has a bad time";

#[cfg(test)]
mod tests;
