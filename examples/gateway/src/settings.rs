//! Where settings come from: defaults, then a TOML file, `.env`, the environment, flags; the last one wins.

mod own;
mod print;
pub(crate) mod reload;

use std::{
    ffi::OsString,
    io::ErrorKind::NotFound,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::Path,
};

use fastsock::{BrokerKind, Config, Error, Layers, Merged, Source, Warning};
use serde_json::{Map, Value};

pub use self::own::{OwnSetting, Program};
pub(crate) use self::{own::OWN_SETTINGS, print::Form as PrintForm};
use crate::{dotenv, flags::Flags};

/// One setting, of the bridge or of the program.
pub(crate) type Known = fastsock::Known<Program>;

/// All settings of the gateway, and where each comes from.
#[derive(Debug)]
pub(crate) struct Settings {
    merged: Merged<Program>,
}

impl Settings {
    /// Gathers the settings from everywhere. `.env` is read in `directory`.
    ///
    /// # Errors
    /// A line for each that is wrong, which says which setting, which value, and what is allowed.
    pub(crate) fn gather(
        flags: &Flags,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
        directory: &Path,
    ) -> Result<Self, String> {
        let mut layers = Layers::new(OWN_SETTINGS);
        let mut wrong = Vec::new();
        if let Some(path) = &flags.config_file
            && let Err(why) = read_toml(&mut layers, path)
        {
            wrong.extend(why.iter().map(|why| format!("{}: {why}", path.display())));
        }
        let (dotenv, warnings) = read_dotenv(&directory.join(".env"));
        layers.vars(dotenv, Source::DotEnv);
        layers.vars(environment, Source::Environment);
        for (key, value) in &flags.given {
            let set = layers.set(key, value, Source::Flag);
            wrong.extend(set.err().map(|error| error.to_line()));
        }
        let mut settings = Self::merge(layers);
        settings.merged.warnings.splice(0..0, warnings);
        wrong.extend(to_lines(&settings.merged.wrong));
        if wrong.is_empty() {
            // Of values that were not understood these would say what is not so.
            wrong = to_lines(&settings.config().problems());
        }
        match wrong.is_empty() {
            true => Ok(settings),
            false => Err(wrong.join("\n")),
        }
    }

    /// Lays what was given over the defaults of the gateway.
    fn merge(layers: Layers<Program>) -> Self {
        let defaults = Config::default()
            .broker(BrokerKind::Auto)
            .admin_addr(DEFAULT_ADMIN_ADDR);
        let mut settings = Self {
            merged: layers.merge(defaults, Program::default()),
        };
        settings.follow_redis();
        settings.leave_port_to_devices();
        settings
    }

    /// Those of the bridge.
    pub(crate) fn config(&self) -> &Config {
        &self.merged.config
    }

    /// Those of the program around it.
    pub(crate) fn program(&self) -> &Program {
        &self.merged.host
    }

    /// What looked wrong but is no reason not to run, beside the warnings of the configuration.
    pub(crate) fn warnings(&self) -> &[Warning] {
        &self.merged.warnings
    }

    /// Whether a setting was left at its default.
    pub(crate) fn is_default(&self, variable: &str) -> bool {
        self.merged.source(variable) == Source::Default
    }

    /// The value of a setting as text that reads back, without secrets.
    pub(crate) fn show(&self, known: Known) -> String {
        let text = match known {
            Known::Host(setting) => (setting.show)(self.program()),
            Known::Bridge(setting) => setting.show(self.config()),
        };
        match known.variable() {
            // Empty means the default, and that is not off.
            "FASTSOCK_ADMIN_ADDR" if text.is_empty() => "off".into(),
            _ => text,
        }
    }

    /// Threads to run the bridge on. By default Redis, the backend and the kernel have the other half of the cores; and where one
    /// thread is enough, a second one mostly costs what it takes to wake it.
    pub(crate) fn workers(&self) -> usize {
        match self.program().runtime_workers {
            0 => std::thread::available_parallelism()
                .map_or(1, |cores| (cores.get() / 2).clamp(1, 4)),
            workers => workers,
        }
    }

    /// Whoever names a Redis wants that one, also when it is the one that `auto` tries anyway; unless they say `auto`.
    fn follow_redis(&mut self) {
        let mut names = REDIS_VARIABLES.into_iter();
        if self.is_default("FASTSOCK_BROKER")
            && self.config().redis.broker == BrokerKind::Auto
            && let Some(name) = names.find(|name| !self.is_default(name))
        {
            self.merged.config.redis.broker = BrokerKind::Redis;
            self.merged.imply("FASTSOCK_BROKER", Source::Implied(name));
        }
    }

    /// Who gives devices the default port of the admin listener has asked for no admin listener there: the original had none.
    fn leave_port_to_devices(&mut self) {
        let (listen, admin) = (&self.config().listen, DEFAULT_ADMIN_ADDR);
        let listens_there = |ip: IpAddr| ip.is_unspecified() || ip == admin.ip();
        if self.is_default("FASTSOCK_ADMIN_ADDR")
            && listen.port == admin.port()
            && listen.addr.is_none_or(listens_there)
        {
            self.merged.config.admin.addr = None;
            self.merged
                .imply("FASTSOCK_ADMIN_ADDR", Source::Implied("WEBSOCKET_PORT"));
            self.merged.warnings.push(Warning {
                message: "Running without the admin listener",
                about: "FASTSOCK_ADMIN_ADDR".into(),
                hint: format!(
                    "devices have its port {}; give another address, or off",
                    admin.port()
                ),
            });
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self::merge(Layers::new(OWN_SETTINGS))
    }
}

/// All settings, in the order of the documentation.
pub(crate) fn all_known() -> impl Iterator<Item = Known> {
    Known::all(OWN_SETTINGS)
}

/// The heading that a setting stands under in the documentation.
pub(crate) fn section_of(known: Known) -> &'static str {
    match known {
        Known::Bridge(setting) => setting.section,
        Known::Host(_) => "The log and the threads of the program",
    }
}

/// Adds what is in a TOML file; else says what is wrong with it.
fn read_toml(layers: &mut Layers<Program>, path: &Path) -> Result<(), Vec<String>> {
    let text = std::fs::read_to_string(path).map_err(|e| vec![format!("cannot be read: {e}")])?;
    let map: Map<String, Value> =
        toml::from_str(&text).map_err(|e| vec![toml_mistake(&e, &text)])?;
    // JSON has no such numbers and makes null of them, which would mean the default.
    if let Some(name) = map.iter().find_map(|(name, value)| null_in(name, value)) {
        return Err(vec![format!("{name}: inf and nan are not allowed")]);
    }
    let added = layers.map(map, Source::File);
    added.map_err(|wrong| to_lines(&wrong))
}

/// The name of a value that is null, within sections and arrays too.
fn null_in(name: &str, value: &Value) -> Option<String> {
    match value {
        Value::Null => Some(name.into()),
        Value::Array(items) => items.iter().find_map(|item| null_in(name, item)),
        Value::Object(section) => section
            .iter()
            .find_map(|(key, value)| null_in(&format!("{name}.{key}"), value)),
        _ => None,
    }
}

fn toml_mistake(error: &toml::de::Error, text: &str) -> String {
    let message = error.message().replace('\n', " ");
    let Some(span) = error.span() else {
        return message;
    };
    let line = 1 + text
        .bytes()
        .take(span.start)
        .filter(|b| *b == b'\n')
        .count();
    format!("line {line}: {message}")
}

/// What is in a `.env` file, if there is one, and what looks wrong in it.
fn read_dotenv(path: &Path) -> (Vec<(OsString, OsString)>, Option<Warning>) {
    let warning = |message, hint| {
        let about = path.display().to_string();
        Some(Warning {
            message,
            about,
            hint,
        })
    };
    match std::fs::read(path) {
        Ok(bytes) => {
            let dotenv::Parsed { entries, skipped } =
                dotenv::parse(&String::from_utf8_lossy(&bytes));
            let entries = entries.into_iter();
            let entries = entries.map(|(name, value)| (name.into(), value.into()));
            let message = "A line of a settings file is not NAME=VALUE and is skipped";
            let is_whole = skipped.is_empty();
            let warning = (!is_whole).then(|| warning(message, lines(&skipped)));
            (entries.collect(), warning.flatten())
        }
        Err(error) if error.kind() == NotFound => (Vec::new(), None),
        Err(error) => (
            Vec::new(),
            warning("Settings file cannot be read", error.to_string()),
        ),
    }
}

/// Names lines by their numbers, the first few of many.
fn lines(numbers: &[usize]) -> String {
    let named = numbers.iter().take(NAMED_LINES).map(usize::to_string);
    let named = named.collect::<Vec<_>>().join(", ");
    match numbers {
        [_] => format!("line {named}"),
        [_, ..] if numbers.len() <= NAMED_LINES => format!("lines {named}"),
        _ => format!("lines {named} and {} more", numbers.len() - NAMED_LINES),
    }
}

/// Each on its line.
pub(crate) fn to_lines(errors: &[Error]) -> Vec<String> {
    errors.iter().map(Error::to_line).collect()
}

/// A URL for the log: without user, password, query and fragment.
pub(crate) fn without_secrets(url: &str) -> String {
    let Ok(mut url) = url::Url::parse(url) else {
        return "***".into();
    };
    url.set_query(None);
    url.set_fragment(None);
    // These fail for URLs that have no host, and so no user.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.into()
}

const DEFAULT_ADMIN_ADDR: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 3001);

const REDIS_VARIABLES: [&str; 5] = [
    "REDIS_HOST",
    "REDIS_PORT",
    "REDIS_DB",
    "REDIS_PREFIX",
    "FASTSOCK_REDIS_URL",
];

/// Most lines of a file that a warning names.
const NAMED_LINES: usize = 5;

#[cfg(test)]
mod tests;
