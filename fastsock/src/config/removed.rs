//! Settings that earlier versions had.

use super::{Result, trimmed};
use crate::error::{Error, ErrorKind};

struct Removed {
    name: &'static str,
    variable: &'static str,
    /// Its value that is what always happens now.
    taken: &'static str,
    /// What replaces it.
    instead: &'static str,
}

const REMOVED: [Removed; 2] = [
    Removed {
        name: "remote_order",
        variable: "FASTSOCK_REMOTE_ORDER",
        taken: "device",
        instead: "the messages of a device are always delivered in order, and FASTSOCK_REMOTE_BATCH lets many share a POST",
    },
    Removed {
        name: "limit_headers",
        variable: "FASTSOCK_LIMIT_HEADERS",
        taken: "100",
        instead: "a request may always have 100 header fields, and FASTSOCK_LIMIT_HEAD_BYTES limits its head",
    },
];

/// Whether an earlier version had a setting of this name or variable.
pub(super) fn is_removed(key: &str) -> bool {
    find(key).is_some()
}

/// Takes the value that is what always happens now; `None` where there never was such a setting.
///
/// # Errors
/// `Config` for any other value, naming what replaces the setting.
pub(super) fn set(key: &str, value: &str) -> Option<Result<()>> {
    let removed = find(key)?;
    let value = trimmed(value);
    if value.is_empty() || value == removed.taken {
        return Some(Ok(()));
    }
    let line = format!("{key}: this setting was removed: {}", removed.instead);
    Some(Err(Error::new(ErrorKind::Config, line)))
}

fn find(key: &str) -> Option<&'static Removed> {
    REMOVED
        .iter()
        .find(|removed| removed.name == key || removed.variable == key)
}

#[cfg(test)]
mod tests {
    use crate::config::Config;

    #[test]
    fn a_removed_setting_or_value_is_refused_with_what_replaces_it() {
        let order = "this setting was removed: the messages of a device are always delivered in order, \
            and FASTSOCK_REMOTE_BATCH lets many share a POST";
        let headers = "this setting was removed: a request may always have 100 header fields, \
            and FASTSOCK_LIMIT_HEAD_BYTES limits its head";
        let fsync = "\"never\" was removed; \"interval\" replaces it; give always or interval";
        let full = "\"close\" was removed; \"pause\" replaces it; give pause or drop_oldest";
        for (variable, name, value, told) in [
            ("FASTSOCK_REMOTE_ORDER", "remote_order", "none", order),
            ("FASTSOCK_LIMIT_HEADERS", "limit_headers", "32", headers),
            ("FASTSOCK_SPOOL_FSYNC", "spool_fsync", "never", fsync),
            ("FASTSOCK_UPLINK_FULL", "uplink_full", "close", full),
        ] {
            let error = Config::from_vars([(variable, value)]).unwrap_err();
            assert_eq!(error.to_line(), format!("{variable}: {told}"));
            let error = Config::default().set(name, value).unwrap_err();
            assert_eq!(error.to_line(), format!("{name}: {told}"));
            let json = format!(r#"{{"{name}":"{value}"}}"#);
            let error = Config::default().merge_json(&json).unwrap_err();
            assert_eq!(error.to_line(), format!("{name}: {told}"));
        }
    }

    #[test]
    fn what_a_removed_setting_always_means_now_is_taken() {
        for (variable, value) in [
            ("FASTSOCK_REMOTE_ORDER", "device"),
            ("FASTSOCK_REMOTE_ORDER", ""),
            ("FASTSOCK_LIMIT_HEADERS", "100"),
        ] {
            let config = Config::from_vars([(variable, value)]).unwrap();
            assert_eq!(config, Config::default());
            Config::default().set(variable, value).unwrap();
        }
        let mut config = Config::default();
        config
            .merge_json(r#"{"remote": {"order": "device"}}"#)
            .unwrap();
        assert_eq!(config, Config::default());
    }
}
