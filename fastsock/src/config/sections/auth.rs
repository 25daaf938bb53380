//! Who may connect.

use std::{path::PathBuf, time::Duration};

use super::super::{
    AuthKind, Headers, Secret, forwarded::check_forwarded, is_http_url, is_within, section::section,
};

section! {
    /// Who may connect.
    Auth = auth, "Who may connect";
    /// Who may connect, unless a hook decides. `open`: whoever names a client id as `token`. `tokens`: whoever has a token of a file. `jwt`: whoever has a valid JWT. `webhook`: whomever `FASTSOCK_AUTH_URL` lets in. `certificate`: whoever has a client certificate; the name in it is the client id. All but `open` look for a credential in `Authorization: Bearer` or `Basic`, in a subprotocol `fastsock-token.<token>`, in a client certificate and in `token`, and the first one found counts.
    auth => kind: AuthKind = AuthKind::Open, "FASTSOCK_AUTH", "open, tokens, jwt, webhook or certificate", "tokens";
    /// File of tokens: lines of a client id and the SHA-256 of a token in hexadecimal, or an Argon2id or bcrypt hash of a password. The gateway reloads it within 1 s of its being replaced, or 2 s after it was last written in place. It closes sessions whose token is gone with 4503.
    auth_tokens_file => tokens_file: Option<PathBuf> = None, "FASTSOCK_AUTH_TOKENS_FILE", "the path of a file", "/etc/fastsock/tokens";
    /// Key that JWTs are verified with: PEM public keys (RS256, ES256, EdDSA), the Base64 of one, or an HS256 secret of at least 32 bytes, marked as such.
    auth_jwt_key => jwt_key: Option<Secret> = None, "FASTSOCK_AUTH_JWT_KEY", "PEM blocks PUBLIC KEY, the Base64 of one, hs256:base64:… or hs256:text:…", "hs256:text:0123456789abcdef0123456789abcdef";
    /// Keys that JWTs are verified with, as a JWK set. HS256 secrets in it count only when it is a file. The gateway fetches the set again every `FASTSOCK_AUTH_JWT_REFRESH`, and for an unknown `kid`: five times at once, and then once in 10 s. While it cannot, it keeps the keys it has.
    auth_jwt_jwks => jwt_jwks: Option<String> = None, "FASTSOCK_AUTH_JWT_JWKS", "an http:// or https:// URL, or the path of a file", "https://login.example.com/jwks.json";
    /// Milliseconds after which the gateway fetches the JWK set again.
    auth_jwt_refresh => jwt_refresh: Duration = Duration::from_secs(300), "FASTSOCK_AUTH_JWT_REFRESH", "milliseconds from 1000 to 86400000", "1h", |d| is_within(d, 1000, 86_400_000);
    /// Claim of a JWT that is the client id.
    auth_jwt_claim => jwt_claim: String = "sub".into(), "FASTSOCK_AUTH_JWT_CLAIM", "the name of a claim", "device", |s| !s.is_empty();
    /// Audiences; a JWT must name one of them (`aud`). Empty: a JWT that names any is refused.
    auth_jwt_audience => jwt_audience: Vec<String> = Vec::new(), "FASTSOCK_AUTH_JWT_AUDIENCE", "names separated by commas", "fastsock";
    /// Issuers; a JWT must come from one of them (`iss`). Empty allows any.
    auth_jwt_issuer => jwt_issuer: Vec<String> = Vec::new(), "FASTSOCK_AUTH_JWT_ISSUER", "names separated by commas", "https://login.example.com";
    /// Milliseconds by which clocks may differ. A JWT is valid that long before `nbf` (at least 5 s) and after `exp`, when the gateway closes its session with 4501.
    auth_jwt_leeway => jwt_leeway: Duration = Duration::ZERO, "FASTSOCK_AUTH_JWT_LEEWAY", "milliseconds from 0 to 600000", "5s", |d| is_within(d, 0, 600_000);
    /// Where the gateway asks the webhook who may connect.
    auth_url => url: Option<Secret> = None, "FASTSOCK_AUTH_URL", "an http:// or https:// URL", "http://127.0.0.1:8080/auth", |url| url.as_ref().is_none_or(|url| is_http_url(url.expose()));
    /// Headers for the webhook, as `REMOTE_HEADERS` for uplinks.
    auth_headers => headers: Headers = Headers::default(), "FASTSOCK_AUTH_HEADERS", "a JSON object of header names and texts, numbers, booleans or null", r#"{"Authorization":"Bearer secret"}"#;
    /// Headers of the device that the webhook gets.
    auth_forward_headers => forward_headers: Vec<String> = Vec::new(), "FASTSOCK_AUTH_FORWARD_HEADERS", "names of headers separated by commas; none that frames or belongs to the connection", "User-Agent,X-Serial", |list| check_forwarded(list, &[]);
    /// Milliseconds that a device waits for the webhook, for JWT keys or for the check of its password, its turn included; then it gets a 503.
    auth_timeout => timeout: Duration = Duration::from_secs(3), "FASTSOCK_AUTH_TIMEOUT", "milliseconds from 1 to 60000", "1s", |d| is_within(d, 1, 60_000);
    /// Requests to the webhook at once.
    auth_concurrency => concurrency: usize = 64, "FASTSOCK_AUTH_CONCURRENCY", "an integer from 1 to 10000", "16", |n| (1..=10_000).contains(n);
    /// Milliseconds for which the gateway lets a device in again without asking the webhook, never beyond `expires_at`, or without hashing its password again. 0: it always does.
    auth_cache => cache: Duration = Duration::from_secs(10), "FASTSOCK_AUTH_CACHE", "milliseconds from 0 to 3600000", "1m", |d| is_within(d, 0, 3_600_000);
}
