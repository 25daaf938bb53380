//! How one setting is read from text and shown again.

use std::{borrow::Cow, net::IpAddr, net::SocketAddr, path::PathBuf, time::Duration};

use zeroize::Zeroizing;

use super::ValueKind;

/// What is wrong with a text, for a line that goes on with what is allowed; empty where that says it all. Never a part of a secret.
pub(super) type Why = Cow<'static, str>;

/// A type a setting can have.
pub(super) trait Value: Sized {
    /// Whether it must not be printed.
    const IS_SECRET: bool = false;
    /// What sort of value it is.
    const KIND: ValueKind;
    /// Reads it. Text comes without whitespace around it.
    fn parse(text: &str) -> Result<Self, Why>;
    /// Writes it so that [`Value::parse`] reads it again.
    fn show(&self) -> String;
}

/// What a check of a value says.
pub(super) trait Verdict {
    fn verdict(self) -> Result<(), Why>;
}

impl Verdict for bool {
    fn verdict(self) -> Result<(), Why> {
        if self { Ok(()) } else { Err(Why::default()) }
    }
}

impl Verdict for Result<(), String> {
    fn verdict(self) -> Result<(), Why> {
        self.map_err(Why::from)
    }
}

/// For what either is a value or is not.
fn plainly<T>(value: Option<T>) -> Result<T, Why> {
    value.ok_or_else(Why::default)
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
    const KIND: ValueKind = ValueKind::Headers;

    fn parse(text: &str) -> Result<Self, Why> {
        let json: serde_json::Value = serde_json::from_str(text).map_err(|e| {
            let (line, column) = (e.line(), e.column());
            format!("the value is not valid JSON (line {line}, column {column})")
        })?;
        let serde_json::Value::Object(map) = json else {
            return Err("the value is JSON, but not an object".into());
        };
        let headers = map.into_iter().map(|(name, value)| {
            if http::HeaderName::from_bytes(name.as_bytes()).is_err() {
                let why = "a header name is empty, or has a character that is not allowed in one";
                return Err(why.into());
            }
            Ok((name.clone(), header_text(&name, value)?))
        });
        headers.collect::<Result<_, _>>().map(Self)
    }

    fn show(&self) -> String {
        let map = self
            .0
            .iter()
            .map(|(name, value)| (name.clone(), value.clone().into()));
        serde_json::Value::Object(map.collect()).to_string()
    }
}

/// The text of a header, or `None` for one that is to be removed.
fn header_text(name: &str, value: serde_json::Value) -> Result<Option<String>, Why> {
    let text = match value {
        serde_json::Value::Null => return Ok(None),
        serde_json::Value::String(text) => text,
        value @ (serde_json::Value::Number(_) | serde_json::Value::Bool(_)) => value.to_string(),
        _ => return Err(format!("the header {name:?} is an array or an object").into()),
    };
    match http::HeaderValue::from_bytes(text.as_bytes()) {
        Ok(_) => Ok(Some(text)),
        Err(_) => Err(format!(
            "the text of the header {name:?} has a line break or another control character"
        )
        .into()),
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
            const KIND: ValueKind = ValueKind::Integer;

            fn parse(text: &str) -> Result<Self, Why> {
                plainly(text.parse().ok())
            }
            fn show(&self) -> String {
                self.to_string()
            }
        }
    )*};
}
integers!(u16, u32, u64, i64);

/// A number of things. More than a 32-bit machine can count means as many as it can.
impl Value for usize {
    const KIND: ValueKind = ValueKind::Integer;

    fn parse(text: &str) -> Result<Self, Why> {
        let number = u64::parse(text)?;
        Ok(number.try_into().unwrap_or(Self::MAX))
    }
    fn show(&self) -> String {
        self.to_string()
    }
}

/// Milliseconds, or with a unit. What is no whole number of milliseconds is no value.
impl Value for Duration {
    const KIND: ValueKind = ValueKind::Time;

    fn parse(text: &str) -> Result<Self, Why> {
        if let Ok(milliseconds) = text.parse() {
            return Ok(Self::from_millis(milliseconds));
        }
        // For humantime `5M` is five months; whoever writes it means minutes.
        let duration = humantime::parse_duration(text).ok();
        let is_exact = |d: &Self| d.subsec_nanos().is_multiple_of(1_000_000) && !text.contains('M');
        plainly(duration.filter(is_exact))
    }
    fn show(&self) -> String {
        self.as_millis().to_string()
    }
}

/// A number of bytes: how a `usize` or a `u64` is read that is one.
pub(super) mod bytes {
    use super::{Value, Why, plainly};

    /// Bytes, or with a unit. (The crates bytesize and parse-size round and saturate: a value would be cut.)
    pub(in crate::config) fn parse<T: Value>(text: &str) -> Result<T, Why> {
        T::parse(&plainly(count(text))?.to_string())
    }

    fn count(text: &str) -> Option<u64> {
        let end = text
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(text.len());
        let (number, unit) = text.split_at(end);
        let unit = unit.trim_start().to_ascii_lowercase();
        let factor = match unit.strip_suffix('b').unwrap_or(&unit) {
            "" => 1,
            "k" => 1000,
            "m" => 1000_u64.pow(2),
            "g" => 1000_u64.pow(3),
            "t" => 1000_u64.pow(4),
            "ki" => 1 << 10,
            "mi" => 1 << 20,
            "gi" => 1 << 30,
            "ti" => 1 << 40,
            _ => return None,
        };
        number.parse::<u64>().ok()?.checked_mul(factor)
    }
}

impl Value for bool {
    const KIND: ValueKind = ValueKind::Switch;

    fn parse(text: &str) -> Result<Self, Why> {
        match text.to_ascii_lowercase().as_str() {
            "on" | "true" | "1" | "yes" => Ok(true),
            "off" | "false" | "0" | "no" => Ok(false),
            _ => Err(Why::default()),
        }
    }
    fn show(&self) -> String {
        if *self { "on" } else { "off" }.into()
    }
}

macro_rules! as_text {
    ($($type:ty, $kind:ident: $parse:expr, $show:expr;)*) => {$(
        impl Value for $type {
            const KIND: ValueKind = ValueKind::$kind;

            fn parse(text: &str) -> Result<Self, Why> {
                plainly(($parse)(text))
            }
            fn show(&self) -> String {
                ($show)(self)
            }
        }
    )*};
}
as_text! {
    String, Text: |t: &str| Some(t.to_owned()), |s: &String| s.clone();
    PathBuf, Path: |t: &str| Some(PathBuf::from(t)), |p: &PathBuf| p.display().to_string();
    IpAddr, Address: |t: &str| t.trim_matches(['[', ']']).parse().ok(), ToString::to_string;
    SocketAddr, Address: |t: &str| t.parse().ok(), ToString::to_string;
}

impl Value for Secret {
    const IS_SECRET: bool = true;
    const KIND: ValueKind = ValueKind::Text;

    fn parse(text: &str) -> Result<Self, Why> {
        Ok(Self::new(text))
    }
    fn show(&self) -> String {
        self.expose().to_owned()
    }
}

/// `off` and the empty text are `None`.
impl<T: Value> Value for Option<T> {
    const IS_SECRET: bool = T::IS_SECRET;
    const KIND: ValueKind = T::KIND;

    fn parse(text: &str) -> Result<Self, Why> {
        match text {
            "" | "off" => Ok(None),
            text => T::parse(text).map(Some),
        }
    }
    fn show(&self) -> String {
        self.as_ref().map_or_else(String::new, T::show)
    }
}

/// Comma-separated.
impl<T: Value> Value for Vec<T> {
    const KIND: ValueKind = T::KIND.list();

    fn parse(text: &str) -> Result<Self, Why> {
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

/// An enum whose variants are words. A word that was removed is refused with the one that replaces it.
macro_rules! choice {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $word:literal,)* }
        $(removed { $($gone:literal: $instead:literal,)* })?) => {
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
            const KIND: super::ValueKind = super::ValueKind::Choice;

            fn parse(text: &str) -> Result<Self, super::value::Why> {
                match text {
                    $($word => Ok(Self::$variant),)*
                    $($($gone => Err(concat!("\"", $gone, "\" was removed; \"", $instead, "\" replaces it").into()),)*)?
                    _ => Err(super::value::Why::default()),
                }
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
        assert_eq!(usize::parse("4294967295"), Ok(u32::MAX as usize));
        let sixty_four_gib = 64u64 << 30;
        let expected = usize::try_from(sixty_four_gib).unwrap_or(usize::MAX);
        assert_eq!(usize::parse(&sixty_four_gib.to_string()), Ok(expected));
        assert_eq!(bytes::parse::<usize>("64GiB"), Ok(expected));
        assert!(usize::parse("-1").is_err());
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
        for (bad, why) in [
            ("[]", "the value is JSON, but not an object"),
            ("{", "the value is not valid JSON (line 1, column 1)"),
            (
                r#"{"a b":"x"}"#,
                "a header name is empty, or has a character that is not allowed in one",
            ),
            (r#"{"A":[1]}"#, r#"the header "A" is an array or an object"#),
            (
                r#"{"A":"x\ny"}"#,
                r#"the text of the header "A" has a line break or another control character"#,
            ),
        ] {
            assert_eq!(Headers::parse(bad).unwrap_err(), why);
        }
    }

    #[test]
    fn a_number_is_whole_or_refused() {
        for text in [
            "", "x", "30s", "1GB", "3000.5", "3000.0", "0x10", "1e3", "1 0", "1_0", "٣",
        ] {
            assert!(u16::parse(text).is_err(), "{text:?}");
            assert!(i64::parse(text).is_err(), "{text:?}");
            assert!(usize::parse(text).is_err(), "{text:?}");
        }
        assert_eq!(u16::parse("3000"), Ok(3000));
        assert_eq!(i64::parse("+7"), Ok(7));
    }

    #[test]
    fn a_time_is_milliseconds_or_has_a_unit() {
        for (text, milliseconds) in [
            ("0", 0),
            ("250", 250),
            ("250ms", 250),
            ("30s", 30_000),
            ("30 s", 30_000),
            ("1.5s", 1500),
            ("5m", 300_000),
            ("5min", 300_000),
            ("1h", 3_600_000),
            ("1h 30m", 5_400_000),
            ("1d", 86_400_000),
        ] {
            let time = Duration::from_millis(milliseconds);
            assert_eq!(Duration::parse(text), Ok(time), "{text:?}");
        }
        for text in [
            "",
            "x",
            "s",
            "-1",
            "-1s",
            "3000.5",
            "0x10",
            "1e3",
            "1 000",
            "30x",
            "30S",
            "30s x",
            "s30",
            "5M",
            "1month",
            "500us",
            "0.5ms",
            "1.0001s 1us",
            "99999999999999999999s",
            "1GB",
        ] {
            // A month is a month; only the one letter is not what it seems.
            assert_eq!(Duration::parse(text).is_ok(), text == "1month", "{text:?}");
        }
    }

    #[test]
    fn a_size_is_bytes_or_has_a_unit() {
        for (text, bytes) in [
            ("0", 0),
            ("65536", 65_536),
            ("64B", 64),
            ("64KiB", 64 << 10),
            ("64 KiB", 64 << 10),
            ("64Ki", 64 << 10),
            ("64MiB", 64 << 20),
            ("2GiB", 2 << 30),
            ("1TiB", 1 << 40),
            ("1kB", 1000),
            ("1KB", 1000),
            ("1k", 1000),
            ("5MB", 5_000_000),
            ("1GB", 1_000_000_000),
            ("1gb", 1_000_000_000),
            ("1TB", 1_000_000_000_000),
        ] {
            assert_eq!(bytes::parse::<u64>(text), Ok(bytes), "{text:?}");
        }
        for text in [
            "",
            "x",
            "kB",
            "-1",
            "1.5GiB",
            "3000.5",
            "0x10",
            "1e3",
            "1 000",
            "1Kib2",
            "1EB",
            "1bb",
            "30s",
            "1kk",
            "99999999999999999999",
            "99999999999TiB",
        ] {
            assert!(bytes::parse::<u64>(text).is_err(), "{text:?}");
        }
    }
}
