//! What a device and the gateway agree on in `Sec-WebSocket-Extensions`: permessage-deflate (RFC 7692), never with context takeover.

/// permessage-deflate as both ends do it from now on: each message is compressed by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Deflated {
    /// The largest window that the device can inflate with, as a power of two, if it said so.
    server_max_window_bits: Option<u8>,
}

impl Deflated {
    /// The first offer that the gateway can keep. It passes over others, also over those that RFC 7692 §7.1 has a server decline:
    /// with a parameter that is unknown, there twice, or without a valid value.
    pub(crate) fn choose<'a>(fields: impl Iterator<Item = &'a str>) -> Option<Self> {
        let mut offers = fields.flat_map(|field| split(field, ','));
        offers.find_map(Self::of)
    }

    fn of(offer: &str) -> Option<Self> {
        let mut parts = split(offer, ';').map(|part| part.trim_matches(WHITE));
        if parts.next() != Some(NAME) {
            return None;
        }
        let mut seen = [false; 4];
        let mut server_max_window_bits = None;
        for part in parts {
            let (name, value) = match part.split_once('=') {
                Some((name, value)) => (name.trim_matches(WHITE), Some(unquoted(value)?)),
                None => (part, None),
            };
            let at = PARAMETERS.iter().position(|known| *known == name)?;
            if std::mem::replace(&mut seen[at], true) {
                return None;
            }
            match (at, value) {
                (0 | 1, None) => {}
                (2, Some(value)) => server_max_window_bits = Some(window_bits(value)?),
                // Whatever window the device uses, the gateway inflates with the largest.
                (3, None) => {}
                (3, Some(value)) => drop(window_bits(value)?),
                _ => return None,
            }
        }
        // zlib has no raw stream with a window of 256 bytes.
        (server_max_window_bits != Some(8)).then_some(Self {
            server_max_window_bits,
        })
    }

    /// The window to compress with, as a power of two.
    pub(crate) fn window_bits(self) -> u8 {
        self.server_max_window_bits.unwrap_or(15)
    }

    /// The value of the header that tells the device.
    pub(crate) fn answer(self) -> String {
        let mut answer = format!("{NAME}; server_no_context_takeover; client_no_context_takeover");
        if let Some(bits) = self.server_max_window_bits {
            answer.push_str(&format!("; server_max_window_bits={bits}"));
        }
        answer
    }
}

/// The parts between separators, none of which is inside quotes.
fn split(text: &str, separator: char) -> impl Iterator<Item = &str> {
    let (mut is_quoted, mut is_escaped) = (false, false);
    text.split(move |c| {
        if is_escaped {
            is_escaped = false;
            return false;
        }
        match c {
            '\\' if is_quoted => is_escaped = true,
            '"' => is_quoted = !is_quoted,
            _ => return c == separator && !is_quoted,
        }
        false
    })
}

/// A value, whether it stands in quotes or not.
fn unquoted(value: &str) -> Option<&str> {
    let value = value.trim_matches(WHITE);
    match value.strip_prefix('"') {
        Some(rest) => rest.strip_suffix('"'),
        None => Some(value),
    }
}

/// A decimal number from 8 to 15 without leading zeros.
fn window_bits(value: &str) -> Option<u8> {
    let is_plain = value.bytes().all(|b| b.is_ascii_digit()) && !value.starts_with('0');
    let bits = value.parse().ok().filter(|_| is_plain)?;
    (8..=15).contains(&bits).then_some(bits)
}

const NAME: &str = "permessage-deflate";
const PARAMETERS: [&str; 4] = [
    "server_no_context_takeover",
    "client_no_context_takeover",
    "server_max_window_bits",
    "client_max_window_bits",
];
const WHITE: [char; 2] = [' ', '\t'];

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(fields: &[&str]) -> Option<String> {
        Deflated::choose(fields.iter().copied()).map(Deflated::answer)
    }

    #[test]
    fn the_first_offer_that_can_be_kept_is_taken() {
        let plain = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";
        for offer in [
            "permessage-deflate",
            " permessage-deflate ; client_max_window_bits",
            "permessage-deflate; client_max_window_bits=8",
            "permessage-deflate; server_no_context_takeover;client_no_context_takeover",
            "x-webkit-deflate-frame, permessage-deflate",
            r#"other; text="a, permessage-deflate; b\", c", permessage-deflate"#,
            "permessage-deflate; server_max_window_bits=8, permessage-deflate",
            "permessage-deflate; unknown, permessage-deflate",
        ] {
            assert_eq!(chosen(&[offer]).as_deref(), Some(plain), "{offer}");
        }
        assert_eq!(
            chosen(&["other", "permessage-deflate"]).as_deref(),
            Some(plain)
        );
        for bits in 9..=15u8 {
            let offer = format!("permessage-deflate; server_max_window_bits=\"{bits}\"");
            let answer = format!("{plain}; server_max_window_bits={bits}");
            assert_eq!(chosen(&[&offer]), Some(answer));
        }
    }

    #[test]
    fn what_rfc_7692_has_a_server_decline_is_declined() {
        for offer in [
            "",
            "Permessage-deflate2",
            "permessage-deflate; server_max_window_bits",
            "permessage-deflate; server_max_window_bits=8",
            "permessage-deflate; server_max_window_bits=7",
            "permessage-deflate; server_max_window_bits=16",
            "permessage-deflate; server_max_window_bits=010",
            "permessage-deflate; server_max_window_bits=+10",
            "permessage-deflate; server_max_window_bits=\"10",
            "permessage-deflate; server_max_window_bits=10; server_max_window_bits=10",
            "permessage-deflate; client_max_window_bits=",
            "permessage-deflate; client_max_window_bits=99999999999",
            "permessage-deflate; server_no_context_takeover=1",
            "permessage-deflate; server_no_context_takeover; server_no_context_takeover",
            "permessage-deflate;",
            "permessage-deflate; level=9",
            r#"other; text="permessage-deflate"#,
        ] {
            assert_eq!(chosen(&[offer]), None, "{offer}");
        }
    }
}
