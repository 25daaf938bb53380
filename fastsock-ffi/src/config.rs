//! `fastsock_config`: settings by name and text, from JSON, or from the environment.

use std::ffi::c_char;

use fastsock::Config;
use macro_rules_attribute::apply;
use safer_ffi::derive_ReprC;

use crate::{
    guard::c_abi,
    status::{Failure, fastsock_status},
    text,
};

/// The settings of a bridge. Not for two threads at once. docs/settings.md has their names.
#[derive_ReprC]
#[repr(opaque)]
#[derive(Debug)]
pub struct fastsock_config {
    pub(crate) inner: Config,
}

/// Makes settings with all defaults: port 3000, embedded broker, no admin listener. Free them with fastsock_config_free.
#[apply(c_abi)]
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastsock_config_new(config: *mut *mut fastsock_config) -> fastsock_status {
    // SAFETY: by contract.
    let out = unsafe { text::out(config, "config") }?;
    out.put(boxed(Config::default()));
    Ok(())
}

/// Makes settings from the environment variables of this process, as the gateway program does; FASTSOCK_BROKER is then
/// "embedded" if it is not set. Call it while no other thread changes the environment. Free them with fastsock_config_free.
#[apply(c_abi)]
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastsock_config_from_env(
    config: *mut *mut fastsock_config,
) -> fastsock_status {
    // SAFETY: by contract.
    let out = unsafe { text::out(config, "config") }?;
    out.put(boxed(Config::from_os_vars(std::env::vars_os())?));
    Ok(())
}

/// Sets one setting from text, by its name ("remote_url") or its variable ("REMOTE_URL"). Empty text is the default. A time is
/// milliseconds or has a unit ("30s"), a size is bytes or has one ("64MiB"). On CONFIG, fastsock_last_error says what is allowed.
#[apply(c_abi)]
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastsock_config_set(
    config: Option<&mut fastsock_config>,
    name: *const c_char,
    value: *const c_char,
) -> fastsock_status {
    let config = config.ok_or_else(|| Failure::null("config"))?;
    // SAFETY: by contract both are NUL-terminated.
    let (name, value) = unsafe { (text::utf8(name, "name")?, text::utf8(value, "value")?) };
    Ok(config.inner.set(name, value)?)
}

/// As fastsock_config_set, with lengths in place of the NUL at the end. ARGUMENT when there is a NUL inside.
#[apply(c_abi)]
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastsock_config_set_n(
    config: Option<&mut fastsock_config>,
    name: *const c_char,
    name_len: usize,
    value: *const c_char,
    value_len: usize,
) -> fastsock_status {
    let config = config.ok_or_else(|| Failure::null("config"))?;
    // SAFETY: by contract.
    let (name, value) = unsafe {
        (
            text::without_nul(name, name_len, "name")?,
            text::without_nul(value, value_len, "value")?,
        )
    };
    Ok(config.inner.set(name, value)?)
}

/// Overlays settings from a JSON object, such as {"remote_url": "http://…", "redis": {"host": "r"}}. null is the default.
/// On CONFIG it sets nothing.
#[apply(c_abi)]
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastsock_config_merge_json(
    config: Option<&mut fastsock_config>,
    json: *const c_char,
) -> fastsock_status {
    let config = config.ok_or_else(|| Failure::null("config"))?;
    // SAFETY: by contract it is NUL-terminated.
    let json = unsafe { text::utf8(json, "json") }?;
    let mut merged = config.inner.clone();
    merged.merge_json(json)?;
    config.inner = merged;
    Ok(())
}

/// Gives the value of a setting as text, a secret as "***". Free it with fastsock_string_free.
#[apply(c_abi)]
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastsock_config_show(
    config: Option<&fastsock_config>,
    name: *const c_char,
    value: *mut *mut c_char,
) -> fastsock_status {
    let config = config.ok_or_else(|| Failure::null("config"))?;
    // SAFETY: by contract.
    let (name, out) = unsafe { (text::utf8(name, "name")?, text::out(value, "value")?) };
    let shown = config.inner.show(name);
    let shown = shown.ok_or_else(|| Failure::argument(format!("there is no setting {name:?}")))?;
    out.put(text::give(shown)?);
    Ok(())
}

/// Frees settings. A bridge that was started with them has its own copy. NULL is nothing to free.
#[apply(c_abi)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastsock_config_free(config: *mut fastsock_config) -> fastsock_status {
    if !config.is_null() {
        // SAFETY: by contract it came from `boxed` and is not used again.
        drop(unsafe { Box::from_raw(config) });
    }
    Ok(())
}

fn boxed(inner: Config) -> *mut fastsock_config {
    Box::into_raw(Box::new(fastsock_config { inner }))
}
