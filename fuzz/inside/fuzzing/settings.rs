//! Settings from text, from JSON, from the environment.

use super::{CANARY, choice, text_with_canary};
use crate::{
    config::{Config, Setting},
    error::{Error, ErrorKind},
};

/// A setting is taken or refused with one line that names it; what was taken reads back the same; a refused one changed
/// nothing; secrets stay secret.
pub fn config(bytes: &[u8]) {
    let (choice, bytes) = choice(bytes);
    let text = text_with_canary(bytes);
    match choice {
        255 => merged(&text),
        254 => from_vars(&text),
        index => set(usize::from(index), &text),
    }
}

fn set(index: usize, value: &str) {
    let settings = Config::settings();
    let setting = &settings[index % settings.len()];
    let mut config = Config::default();
    match config.set(setting.name, value) {
        Ok(()) => reads_back(&config),
        Err(error) => {
            assert!(error.to_string().starts_with(setting.name), "{error}");
            is_a_line(&error, hides_all(setting) && !names_it(value));
            assert_eq!(config, Config::default());
        }
    }
}

/// Whether all of a setting is secret. Routes show all but their own secrets.
fn hides_all(setting: &Setting) -> bool {
    setting.is_secret && setting.name != "routes"
}

/// Whether the canary is the name of a header, which is no secret.
fn names_it(json: &str) -> bool {
    let map: Option<serde_json::Map<_, _>> = serde_json::from_str(json).ok();
    map.is_some_and(|map| map.keys().any(|name| name.contains(CANARY)))
}

fn merged(json: &str) {
    let mut config = Config::default();
    match config.merge_json(json) {
        Ok(()) => reads_back(&config),
        Err(error) => is_a_line(&error, false),
    }
}

fn from_vars(text: &str) {
    // A `…_FILE` would read any file of this machine.
    let vars = text
        .split('\0')
        .filter_map(|line| line.split_once('='))
        .filter(|(name, _)| !name.ends_with("_FILE"));
    match Config::from_vars(vars.clone()) {
        Ok(config) => reads_back(&config),
        Err(error) => {
            is_a_line(&error, false);
            assert!(
                vars.clone()
                    .any(|(name, _)| error.to_string().starts_with(name)),
                "{error}"
            );
        }
    }
}

/// Each value as it is written, set again, is the same; and what is shown of a secret is not it.
fn reads_back(config: &Config) {
    let mut again = Config::default();
    for setting in Config::settings() {
        let written = setting.write(config);
        if let Err(error) = again.set(setting.variable, &written) {
            panic!("{error}");
        }
        assert!(!hides_all(setting) || !setting.show(config).contains(CANARY));
    }
    let mut config = config.clone();
    config.warnings.clear(); // what was cut is whole now
    again.warnings.clear();
    assert_eq!(config, again);
    if let Err(error) = config.check() {
        is_a_line(&error, false);
    }
}

fn is_a_line(error: &Error, is_secret: bool) {
    assert_eq!(error.kind(), ErrorKind::Config);
    let line = error.to_line();
    assert!(!line.contains(['\n', '\r']), "{line:?}");
    assert!(!is_secret || !line.contains(CANARY), "{line:?}");
}
