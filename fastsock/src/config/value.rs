//! How one setting is read from text and shown again.

use std::{net::IpAddr, net::SocketAddr, path::PathBuf, time::Duration};

use zeroize::Zeroizing;

/// A type a setting can have.
pub(super) trait Value: Sized {
    /// Whether it must not be printed.
    const IS_SECRET: bool = false;
    /// Reads it; `None` when the text is not allowed.
    fn parse(text: &str) -> Option<Self>;
    /// Writes it so that [`Value::parse`] reads it again.
    fn show(&self) -> String;
}

/// Text that is never printed: passwords, tokens, URLs and headers that may hold them. Its memory is overwritten when it is dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Wraps it.
    pub fn new(text: impl Into<String>) -> Self {
        Self(Zeroizing::new(text.into()))
    }

    /// The text itself. Do not log it.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// The keys of Standard Webhooks in it: one, or two while they are changed, each `whsec_` and the Base64 of 24 to
    /// 64 bytes, separated by spaces or a comma. `None` when it is anything else.
    pub(crate) fn webhook_keys(&self) -> Option<Vec<Vec<u8>>> {
        let words = self.0.split([' ', ',']).filter(|word| !word.is_empty());
        let keys: Vec<_> = words.map(webhook_key).collect::<Option<_>>()?;
        (1..=2).contains(&keys.len()).then_some(keys)
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self::new(text)
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self::new(text)
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

fn webhook_key(secret: &str) -> Option<Vec<u8>> {
    let text = secret.strip_prefix("whsec_")?;
    let key = data_encoding::BASE64.decode(text.as_bytes()).ok()?;
    (24..=64).contains(&key.len()).then_some(key)
}

/// Headers to add to each POST, in order; `None` removes one that would be sent otherwise.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Headers(pub Vec<(String, Option<String>)>);

impl std::fmt::Debug for Headers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_map()
            .entries(self.0.iter().map(|(name, _)| (name, "***")))
            .finish()
    }
}

impl Value for Headers {
    const IS_SECRET: bool = true;

    fn parse(text: &str) -> Option<Self> {
        let serde_json::Value::Object(map) = serde_json::from_str(text).ok()? else {
            return None;
        };
        map.into_iter()
            .map(|(name, value)| {
                http::HeaderName::from_bytes(name.as_bytes()).ok()?;
                let value = match value {
                    serde_json::Value::Null => None,
                    serde_json::Value::String(text) => Some(text),
                    value @ (serde_json::Value::Number(_) | serde_json::Value::Bool(_)) => {
                        Some(value.to_string())
                    }
                    _ => return None,
                };
                if let Some(text) = &value {
                    http::HeaderValue::from_bytes(text.as_bytes()).ok()?;
                }
                Some((name, value))
            })
            .collect::<Option<Vec<_>>>()
            .map(Self)
    }

    fn show(&self) -> String {
        let map = self
            .0
            .iter()
            .map(|(name, value)| (name.clone(), value.clone().into()));
        serde_json::Value::Object(map.collect()).to_string()
    }
}

/// Leading whitespace, a sign and digits; what follows is ignored, as JavaScript's `parseInt(text, 10)` does.
pub(super) fn parse_int(text: &str) -> Option<i64> {
    let text = text.trim_start();
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let end = digits
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(digits.len());
    let number: i64 = digits[..end].parse().ok()?;
    Some(if negative { -number } else { number })
}

macro_rules! integers {
    ($($type:ty),*) => {$(
        impl Value for $type {
            fn parse(text: &str) -> Option<Self> {
                parse_int(text)?.try_into().ok()
            }
            fn show(&self) -> String {
                self.to_string()
            }
        }
    )*};
}
integers!(u16, u32, u64, i64);

/// A number of bytes or things. More than a 32-bit machine can count means as many as it can.
impl Value for usize {
    fn parse(text: &str) -> Option<Self> {
        let number = u64::parse(text)?;
        Some(number.try_into().unwrap_or(Self::MAX))
    }
    fn show(&self) -> String {
        self.to_string()
    }
}

/// Milliseconds.
impl Value for Duration {
    fn parse(text: &str) -> Option<Self> {
        u64::parse(text).map(Self::from_millis)
    }
    fn show(&self) -> String {
        self.as_millis().to_string()
    }
}

impl Value for bool {
    fn parse(text: &str) -> Option<Self> {
        match text.trim().to_ascii_lowercase().as_str() {
            "on" | "true" | "1" | "yes" => Some(true),
            "off" | "false" | "0" | "no" => Some(false),
            _ => None,
        }
    }
    fn show(&self) -> String {
        if *self { "on" } else { "off" }.into()
    }
}

macro_rules! as_text {
    ($($type:ty: $parse:expr, $show:expr;)*) => {$(
        impl Value for $type {
            fn parse(text: &str) -> Option<Self> {
                ($parse)(text)
            }
            fn show(&self) -> String {
                ($show)(self)
            }
        }
    )*};
}
as_text! {
    String: |t: &str| Some(t.to_owned()), |s: &String| s.clone();
    PathBuf: |t: &str| Some(PathBuf::from(t)), |p: &PathBuf| p.display().to_string();
    IpAddr: |t: &str| t.trim().trim_matches(['[', ']']).parse().ok(), ToString::to_string;
    SocketAddr: |t: &str| t.trim().parse().ok(), ToString::to_string;
}

impl Value for Secret {
    const IS_SECRET: bool = true;

    fn parse(text: &str) -> Option<Self> {
        Some(Self::new(text))
    }
    fn show(&self) -> String {
        self.expose().to_owned()
    }
}

/// `off` and the empty text are `None`.
impl<T: Value> Value for Option<T> {
    const IS_SECRET: bool = T::IS_SECRET;

    fn parse(text: &str) -> Option<Self> {
        match text {
            "" | "off" => Some(None),
            text => T::parse(text).map(Some),
        }
    }
    fn show(&self) -> String {
        self.as_ref().map_or_else(String::new, T::show)
    }
}

/// Comma-separated.
impl<T: Value> Value for Vec<T> {
    fn parse(text: &str) -> Option<Self> {
        text.split(',')
            .map(str::trim)
            .filter(|part| !part.is_empty())
            .map(T::parse)
            .collect()
    }
    fn show(&self) -> String {
        self.iter().map(T::show).collect::<Vec<_>>().join(",")
    }
}

/// An enum whose variants are words.
macro_rules! choice {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[non_exhaustive]
        pub enum $name { $($(#[$vdoc])* $variant,)* }

        impl $name {
            /// The word for it in settings.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }
        }

        impl super::value::Value for $name {
            fn parse(text: &str) -> Option<Self> {
                match text.trim() { $($word => Some(Self::$variant),)* _ => None }
            }
            fn show(&self) -> String {
                self.as_str().into()
            }
        }
    };
}
pub(super) use choice;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_read_as_parse_int_reads_them() {
        for (text, number) in [
            ("3000", Some(3000)),
            (" 42abc", Some(42)),
            ("+7", Some(7)),
            ("-1", Some(-1)),
            ("0x10", Some(0)),
            ("abc", None),
            ("", None),
            ("1e3", Some(1)),
        ] {
            assert_eq!(parse_int(text), number, "{text:?}");
        }
    }

    #[test]
    fn more_than_the_machine_can_count_is_as_many_as_it_can() {
        assert_eq!(usize::parse("4294967295"), Some(u32::MAX as usize));
        let sixty_four_gib = 64u64 << 30;
        let expected = usize::try_from(sixty_four_gib).unwrap_or(usize::MAX);
        assert_eq!(usize::parse(&sixty_four_gib.to_string()), Some(expected));
        assert_eq!(usize::parse("-1"), None);
    }

    #[test]
    fn one_or_two_webhook_keys_are_allowed() {
        let secret = |length| {
            let key = data_encoding::BASE64.encode(&vec![7; length]);
            format!("whsec_{key}")
        };
        for (text, lengths) in [
            (secret(24), Some(vec![24])),
            (format!(" {} ", secret(64)), Some(vec![64])),
            (format!("{} {}", secret(24), secret(32)), Some(vec![24, 32])),
            (
                format!("{}, {}", secret(24), secret(32)),
                Some(vec![24, 32]),
            ),
            ([&*secret(24); 3].join(" "), None),
            (secret(23), None),
            (secret(65), None),
            (secret(24).replace("whsec_", ""), None),
            ("whsec_not*base64".into(), None),
            ("whsec_".into(), None),
            (String::new(), None),
        ] {
            let keys = Secret::new(&*text).webhook_keys();
            let found = keys.map(|keys| keys.iter().map(Vec::len).collect::<Vec<_>>());
            assert_eq!(found, lengths, "{text:?}");
        }
    }

    #[test]
    fn headers_take_text_numbers_booleans_and_null() {
        let headers = Headers::parse(r#"{"A":"x","B":1,"C":true,"D":null}"#).unwrap();
        let expected = [
            ("A", Some("x")),
            ("B", Some("1")),
            ("C", Some("true")),
            ("D", None),
        ];
        assert_eq!(
            headers.0,
            expected.map(|(n, v)| (n.to_owned(), v.map(str::to_owned)))
        );
        for bad in [
            "[]",
            "{",
            r#"{"a b":"x"}"#,
            r#"{"A":[1]}"#,
            "{\"A\":\"x\\ny\"}",
        ] {
            assert!(Headers::parse(bad).is_none(), "{bad}");
        }
    }
}
