//! The settings that there are, for hosts that show or check them.

use std::sync::OnceLock;

use fastsock::{Config, Setting};
use macro_rules_attribute::apply;
use safer_ffi::derive_ReprC;

use crate::{
    guard::c_abi,
    sized::{whole, write_sized},
    status::{Failure, fastsock_status},
    text::fastsock_str,
};

/// What there is to know of one setting. All texts are static.
#[derive_ReprC]
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct fastsock_setting {
    /// Its name, such as "redis_port".
    pub name: fastsock_str,
    /// Its environment variable, such as "REDIS_PORT".
    pub variable: fastsock_str,
    /// The heading under which docs/settings.md has it.
    pub section: fastsock_str,
    /// What sort of value it takes: "on or off", "integer", "time", "size", "one word", "text", "address", "path", "list of paths",
    /// "path of a directory", "list of texts" or "JSON object". There may be more.
    pub kind: fastsock_str,
    /// Its default, as text that fastsock_config_set takes; empty when there is none.
    pub default_value: fastsock_str,
    /// What is allowed, in words.
    pub allowed: fastsock_str,
    /// What it does.
    pub about: fastsock_str,
    /// 1 when its value must not be shown.
    pub is_secret: u32,
    /// 0.
    pub reserved: u32,
}

/// Gives a setting by its place in the table, from 0; `setting_size` is sizeof(fastsock_setting) in your build. END after the last.
#[apply(c_abi)]
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastsock_setting_at(
    index: usize,
    setting: *mut fastsock_setting,
    setting_size: usize,
) -> fastsock_status {
    if setting.is_null() {
        return Err(Failure::null("setting"));
    }
    whole(setting_size, size_of::<fastsock_setting>(), "setting")?;
    let row = Config::settings().get(index).ok_or_else(Failure::end)?;
    let view = fastsock_setting::of(row, &defaults()[index]);
    // SAFETY: by contract `setting_size` bytes can be written.
    unsafe { write_sized(&view, setting, setting_size) };
    Ok(())
}

impl fastsock_setting {
    fn of(row: &Setting, default: &'static str) -> Self {
        Self {
            name: fastsock_str::of(row.name),
            variable: fastsock_str::of(row.variable),
            section: fastsock_str::of(row.section),
            kind: fastsock_str::of(row.kind.as_str()),
            default_value: fastsock_str::of(default),
            allowed: fastsock_str::of(row.allowed),
            about: fastsock_str::of(row.about),
            is_secret: row.is_secret.into(),
            reserved: 0,
        }
    }
}

/// The defaults as text, in the order of the table: written once, and for ever.
fn defaults() -> &'static [String] {
    static DEFAULTS: OnceLock<Vec<String>> = OnceLock::new();
    DEFAULTS.get_or_init(|| {
        let config = Config::default();
        let rows = Config::settings().iter();
        rows.map(|row| row.show(&config)).collect()
    })
}
