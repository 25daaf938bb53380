//! One row of the settings table.

use super::{Config, ORIGINAL_NUMBERS, ValueKind, is_telling, masked, value::Why};

/// One row of the settings table.
#[derive(Clone, Copy)]
pub struct Setting {
    /// Its name in `Config`, TOML, JSON, C and Python.
    pub name: &'static str,
    /// Its environment variable.
    pub variable: &'static str,
    /// The heading under which the documentation has it.
    pub section: &'static str,
    /// What sort of value it takes.
    pub kind: ValueKind,
    /// What is allowed, in words.
    pub allowed: &'static str,
    /// A value other than the default, as text that [`Config::set`] takes.
    pub example: &'static str,
    /// What it does.
    pub about: &'static str,
    /// Whether its value must not be shown; such a setting can also be given as `<variable>_FILE`.
    pub is_secret: bool,
    pub(super) set: fn(&mut Config, &str) -> Result<(), Why>,
    pub(super) show: fn(&Config) -> String,
    pub(super) holds: fn(&Config) -> Result<(), Why>,
}

impl std::fmt::Debug for Setting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Setting")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl Setting {
    /// Its value in a configuration as text that `set` reads again, secrets included.
    #[cfg(any(test, inside))]
    pub(crate) fn write(&self, config: &Config) -> String {
        (self.show)(config)
    }

    /// What is allowed under one of its names, in words, units included: the variables of the original take none.
    pub fn allowed_as(&self, key: &str) -> String {
        match self.kind.units() {
            units if !units.is_empty() && !ORIGINAL_NUMBERS.contains(&key) => {
                format!("{}, or {units}", self.allowed)
            }
            _ => self.allowed.into(),
        }
    }

    /// Its value in a configuration as text that `set` reads again; `***` for a secret that is set, and for what may be one
    /// in a URL: user, password and query.
    pub fn show(&self, config: &Config) -> String {
        if self.kind == ValueKind::Tables {
            return config.routing.routes.masked();
        }
        let text = (self.show)(config);
        if self.is_secret && !text.is_empty() && text != "{}" {
            "***".into()
        } else if is_telling(&text) {
            masked(&text)
        } else {
            text
        }
    }
}
