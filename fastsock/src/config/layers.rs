//! Settings from several places, one over the other, and where each value comes from.

use std::{cmp::Reverse, collections::BTreeMap, ffi::OsString, fmt};

use serde_json::{Map, Value};

use super::{
    Config, SETTINGS, Setting, ValueKind, Warning, file_setting, flatten, nearest, not_utf8,
    removed, unknown_variable,
};
use crate::error::{Error, ErrorKind, Result};

/// Where a value comes from; a later one wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Source {
    /// Nobody gave it.
    Default,
    /// The setting of this variable implies it.
    Implied(&'static str),
    /// A file, or a dictionary in its place.
    File,
    /// `.env`.
    DotEnv,
    /// An environment variable.
    Environment,
    /// A flag of the command line, or a keyword argument.
    Flag,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::Implied(by) => write!(f, "{by} is given"),
            Self::File => f.write_str("from the file"),
            Self::DotEnv => f.write_str("from .env"),
            Self::Environment => f.write_str("from environment"),
            Self::Flag => f.write_str("from a flag"),
        }
    }
}

/// A setting of the host, which stands in the same files and variables as those of the bridge. `H` holds its value.
#[derive(Debug)]
pub struct HostSetting<H: 'static> {
    /// Its name in TOML.
    pub name: &'static str,
    /// Its environment variable.
    pub variable: &'static str,
    /// What sort of value it takes.
    pub kind: ValueKind,
    /// What is allowed, in words.
    pub allowed: &'static str,
    /// A value other than the default.
    pub example: &'static str,
    /// What it does.
    pub about: &'static str,
    /// Sets it from text without whitespace around it. `None`: the text is not allowed.
    pub set: fn(&mut H, &str) -> Option<()>,
    /// Its value as text that `set` reads.
    pub show: fn(&H) -> String,
}

impl<H: Default> HostSetting<H> {
    /// Its default as text.
    pub fn default_text(&self) -> String {
        (self.show)(&H::default())
    }
}

/// One setting, of the bridge or of its host.
#[derive(Debug)]
pub enum Known<H: 'static> {
    /// Of the bridge.
    Bridge(&'static Setting),
    /// Of the host.
    Host(&'static HostSetting<H>),
}

// Not derived: these would ask the same of `H`.
impl<H> Clone for Known<H> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<H> Copy for Known<H> {}

impl<H> Known<H> {
    /// All settings, in the order of the documentation.
    pub fn all(host: &'static [HostSetting<H>]) -> impl Iterator<Item = Self> {
        let bridge = SETTINGS.iter().map(Self::Bridge);
        bridge.chain(host.iter().map(Self::Host))
    }

    /// Its name in TOML.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bridge(setting) => setting.name,
            Self::Host(setting) => setting.name,
        }
    }

    /// Its environment variable.
    pub fn variable(self) -> &'static str {
        match self {
            Self::Bridge(setting) => setting.variable,
            Self::Host(setting) => setting.variable,
        }
    }

    /// What sort of value it takes.
    pub fn kind(self) -> ValueKind {
        match self {
            Self::Bridge(setting) => setting.kind,
            Self::Host(setting) => setting.kind,
        }
    }

    /// What is allowed, in words.
    pub fn allowed(self) -> String {
        match self {
            Self::Bridge(setting) => setting.allowed_as(setting.variable),
            Self::Host(setting) => setting.allowed.into(),
        }
    }

    /// What it does.
    pub fn about(self) -> &'static str {
        match self {
            Self::Bridge(setting) => setting.about,
            Self::Host(setting) => setting.about,
        }
    }

    fn is_secret(self) -> bool {
        matches!(self, Self::Bridge(setting) if setting.is_secret)
    }
}

/// Settings from several places: [`merge`](Self::merge) lays them over the defaults in the order of [`Source`], whatever the order in
/// which they were added.
///
/// ```
/// use fastsock::{Config, Layers, Source};
///
/// let mut layers = Layers::<()>::new(&[]);
/// layers.set("redis_db", "4", Source::Flag)?;
/// layers.vars([("REDIS_DB".into(), "3".into())], Source::Environment);
/// let merged = layers.merge(Config::default(), ());
/// assert_eq!(merged.config.redis.db, 4);
/// assert_eq!(merged.source("REDIS_DB"), Source::Flag);
/// # Ok::<(), fastsock::Error>(())
/// ```
#[derive(Debug)]
pub struct Layers<H: 'static> {
    host: &'static [HostSetting<H>],
    given: Vec<Given<H>>,
    // By name, since one of the environment hides the one of `.env` whatever it says.
    vars: BTreeMap<String, (String, Source)>,
    wrong: Vec<Error>,
}

/// What [`Layers`] come to.
#[derive(Debug)]
pub struct Merged<H> {
    /// The settings of the bridge, not yet checked against each other.
    pub config: Config,
    /// Those of the host.
    pub host: H,
    /// What looked wrong but is no reason not to run, beside the warnings of `config`.
    pub warnings: Vec<Warning>,
    /// A mistake for each setting whose value is not allowed.
    pub wrong: Vec<Error>,
    sources: BTreeMap<&'static str, Source>,
}

/// A value as it was given.
#[derive(Debug)]
struct Given<H: 'static> {
    known: Known<H>,
    key: String,
    value: String,
    source: Source,
    form: Form,
}

/// How a setting was named.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Form {
    /// By its name or variable.
    Plain,
    /// By the lower-case form of a proxy variable.
    LowerProxy,
    /// By `<variable>_FILE`.
    File,
}

impl<H> Layers<H> {
    /// Nothing yet. `host`: the settings that only the host has.
    pub fn new(host: &'static [HostSetting<H>]) -> Self {
        Self {
            host,
            given: Vec::new(),
            vars: BTreeMap::new(),
            wrong: Vec::new(),
        }
    }

    /// Adds what a file, a dictionary or keywords hold. Sections nest: `{"redis": {"port": 6380}}` is `redis_port`. What is right is
    /// added all the same when something is not.
    ///
    /// # Errors
    /// `Config` for each unknown name (the nearest is told) and each that was removed, or for a setting that is given twice.
    pub fn map(&mut self, map: Map<String, Value>, source: Source) -> Result<(), Vec<Error>> {
        let name_of = |key: &str| match self.by_name(key)? {
            (_, Form::File) => None, // beside the value it is the lesser one, not the same
            (known, _) => Some(known.name()),
        };
        let flat = flatten(map, &name_of).map_err(|error| vec![error])?;
        let wrong = flat
            .into_iter()
            .filter_map(|(key, value)| self.set(&key, &value, source).err())
            .collect::<Vec<_>>();
        match wrong.is_empty() {
            true => Ok(()),
            false => Err(wrong),
        }
    }

    /// Adds variables: [`Source::DotEnv`] or [`Source::Environment`]. Those that are none of ours are passed over, those that look
    /// like ours are warned about.
    pub fn vars(&mut self, vars: impl IntoIterator<Item = (OsString, OsString)>, source: Source) {
        let lossy = |text: OsString| text.to_string_lossy().into_owned();
        for (name, value) in vars {
            let name = lossy(name);
            if self.by_variable(&name).is_some() && value.to_str().is_none() {
                self.wrong.push(not_utf8(&name));
                continue;
            }
            let value = lossy(value);
            let is_hidden = self.vars.get(&name).is_some_and(|(_, by)| *by > source);
            if !is_hidden && !Config::is_service_link(&name, &value) {
                self.vars.insert(name, (value, source));
            }
        }
    }

    /// Adds one value, by the name or the variable of its setting.
    ///
    /// # Errors
    /// `Config` for an unknown name (the nearest is told) and one that was removed. The value is looked at by
    /// [`merge`](Self::merge), since a later one may win.
    pub fn set(&mut self, key: &str, value: &str, source: Source) -> Result<()> {
        if let Some(taken) = removed::set(key, value) {
            return taken;
        }
        let (known, form) = self.by_name(key).ok_or_else(|| self.unknown(key))?;
        self.given.push(Given {
            known,
            key: key.into(),
            value: value.into(),
            source,
            form,
        });
        Ok(())
    }

    /// Lays everything over `config` and `host`, which hold the defaults.
    pub fn merge(mut self, config: Config, host: H) -> Merged<H> {
        let mut merged = Merged {
            config,
            host,
            warnings: Vec::new(),
            wrong: std::mem::take(&mut self.wrong),
            sources: BTreeMap::new(),
        };
        self.name_vars(&mut merged);
        for known in Known::all(self.host) {
            let of_this = self
                .given
                .iter()
                .filter(|g| g.known.variable() == known.variable());
            let Some(winner) = of_this.filter(|g| g.counts()).max_by_key(|g| g.rank()) else {
                continue;
            };
            if winner.value.is_empty() {
                continue;
            }
            match merged.set(winner) {
                Ok(()) => merged.imply(known.variable(), winner.source),
                Err(error) => merged.wrong.push(error),
            }
        }
        merged
    }

    /// Finds the settings of the variables, and warns of those that only look like one.
    fn name_vars(&mut self, merged: &mut Merged<H>) {
        let vars = std::mem::take(&mut self.vars);
        let has_url = ["FASTSOCK_REDIS_URL", "FASTSOCK_REDIS_URL_FILE"];
        let has_url = has_url.iter().any(|name| vars.contains_key(*name));
        for (key, (value, source)) in vars {
            if let Some((known, form)) = self.by_variable(&key) {
                self.given.push(Given {
                    known,
                    key,
                    value,
                    source,
                    form,
                });
            } else if MEANT_FOR_REDIS.contains(&&*key) && !value.is_empty() && !has_url {
                merged.warnings.push(Warning {
                    message: "This variable is not read",
                    hint: "FASTSOCK_REDIS_URL takes a URL with user and password".into(),
                    about: key,
                });
            } else if let Some(meant) = self.mistyped_original(&key) {
                merged.warnings.push(Warning {
                    message: "This variable is not read",
                    hint: format!("did you mean {meant}?"),
                    about: key,
                });
            } else if let Some(taken) = removed::set(&key, &value) {
                merged.wrong.extend(taken.err());
            } else if key.starts_with("FASTSOCK_AUTH") && file_setting(&key).is_none() {
                // Whoever mistypes such a name would leave a door open.
                merged.wrong.push(unknown_variable(&key));
            } else if key.starts_with("FASTSOCK_") {
                merged.warnings.push(Warning {
                    message: "Unknown setting is ignored",
                    hint: self.nearest_variable(&key),
                    about: key,
                });
            }
        }
    }

    /// The variable of the original that a name is one slip away from. Other programs may have names that are less like it.
    fn mistyped_original(&self, key: &str) -> Option<&'static str> {
        let of_original = |name: &&str| ORIGINAL_STARTS.iter().any(|start| name.starts_with(start));
        let mut originals = Known::all(self.host)
            .map(Known::variable)
            .filter(of_original);
        originals.find(|original| strsim::damerau_levenshtein(key, original) == 1)
    }

    fn nearest_variable(&self, key: &str) -> String {
        let variables = Known::all(self.host).map(Known::variable);
        nearest(key, variables).map_or_else(
            || "docs/settings.md names all settings".into(),
            |variable| format!("did you mean {variable}?"),
        )
    }

    fn unknown(&self, key: &str) -> Error {
        let hint = nearest(key, Known::all(self.host).map(Known::name))
            .map_or(String::new(), |name| format!("; did you mean {name:?}?"));
        let text = format!("there is no setting {key:?}{hint}");
        Error::new(ErrorKind::Config, text)
    }

    /// The setting of an environment variable.
    fn by_variable(&self, key: &str) -> Option<(Known<H>, Form)> {
        let find =
            |variable: &str| Known::all(self.host).find(|known| known.variable() == variable);
        if let Some(known) = find(key) {
            return Some((known, Form::Plain));
        }
        if matches!(key, "http_proxy" | "https_proxy" | "no_proxy") {
            return Some((find(&key.to_ascii_uppercase())?, Form::LowerProxy));
        }
        let known = find(key.strip_suffix("_FILE")?)?;
        known.is_secret().then_some((known, Form::File))
    }

    /// The setting of a name in a file or of a flag, where variables are names too.
    fn by_name(&self, key: &str) -> Option<(Known<H>, Form)> {
        let find = |name: &str| Known::all(self.host).find(|known| known.name() == name);
        if let Some(known) = find(key) {
            return Some((known, Form::Plain));
        }
        let file = key.strip_suffix("_file").and_then(find);
        file.filter(|known| known.is_secret())
            .map(|known| (known, Form::File))
            .or_else(|| self.by_variable(key))
    }
}

impl<H> Merged<H> {
    /// Where the value of a setting comes from, by its variable.
    pub fn source(&self, variable: &str) -> Source {
        let source = self.sources.get(variable);
        source.copied().unwrap_or(Source::Default)
    }

    /// Notes where a setting has its value from, by its variable: for a host that derives one from another.
    pub fn imply(&mut self, variable: &'static str, source: Source) {
        self.sources.insert(variable, source);
    }

    fn set(&mut self, given: &Given<H>) -> Result<()> {
        let Given { key, value, .. } = given;
        match given.known {
            Known::Host(setting) => {
                let text = value.trim();
                let set = (setting.set)(&mut self.host, text).filter(|()| !text.is_empty());
                set.ok_or_else(|| {
                    let allowed = setting.allowed;
                    let line = format!("{key}: {value:?} is not allowed; give {allowed}");
                    Error::new(ErrorKind::Config, line)
                })
            }
            Known::Bridge(setting) => match (given.source, given.form) {
                (Source::DotEnv | Source::Environment, _) => self.config.merge_vars([(key, value)]),
                (_, Form::File) => {
                    let key = format!("{}_FILE", setting.variable);
                    self.config.merge_vars([(key.as_str(), value)])
                }
                _ => self.config.set(key, value),
            },
        }
    }
}

impl<H> Given<H> {
    /// Whether it says anything: an empty variable means the default, but an empty file name or lower-case proxy nothing.
    fn counts(&self) -> bool {
        self.form == Form::Plain || !self.value.is_empty()
    }

    /// The greatest one wins. `.env` only adds to the environment, so a lower-case proxy wins over an upper-case one
    /// whichever of the two holds it; a value stands before a file, and a file before an empty value.
    fn rank(&self) -> impl Ord + use<H> {
        let layer = match self.source {
            Source::DotEnv => Source::Environment,
            source => source,
        };
        let is_lower = self.form == Form::LowerProxy;
        (
            layer,
            is_lower,
            self.source,
            !self.value.is_empty(),
            Reverse(self.form == Form::File),
        )
    }
}

/// What others call where Redis is and who we are there.
const MEANT_FOR_REDIS: [&str; 5] = [
    "REDIS_URL",
    "REDIS_URI",
    "REDIS_PASSWORD",
    "REDIS_USER",
    "REDIS_USERNAME",
];

/// How the variables of the original begin, which have no `FASTSOCK_` before them.
const ORIGINAL_STARTS: [&str; 4] = ["WEBSOCKET_", "REDIS_", "REMOTE_", "LOG_"];

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Default, PartialEq)]
    struct Host {
        level: String,
    }

    static HOST: [HostSetting<Host>; 1] = [HostSetting {
        name: "host_level",
        variable: "HOST_LEVEL",
        kind: ValueKind::Text,
        allowed: "a short word",
        example: "low",
        about: "",
        set: |host, text| {
            host.level = text.into();
            (text.len() < 5).then_some(())
        },
        show: |host| host.level.clone(),
    }];

    fn layers(file: &str, vars: &[(&str, &str, Source)], flags: &[(&str, &str)]) -> Merged<Host> {
        let mut layers = Layers::new(&HOST);
        let map = serde_json::from_str(file).unwrap();
        layers.map(map, Source::File).unwrap();
        for (key, value) in flags {
            layers.set(key, value, Source::Flag).unwrap();
        }
        for (key, value, source) in vars {
            layers.vars([((*key).into(), (*value).into())], *source);
        }
        layers.merge(Config::default(), Host::default())
    }

    #[test]
    fn the_later_source_wins_whenever_it_was_added_and_is_told() {
        use Source::*;
        let file = r#"{"redis": {"db": 1}, "host": {"level": "a"}}"#;
        let vars = [
            ("REDIS_DB", "3", Environment),
            ("REDIS_DB", "2", DotEnv),
            ("HOST_LEVEL", "b", DotEnv),
        ];
        for (file, vars, flags, db, level, sources) in [
            ("{}", &vars[..0], &[][..], 0, "", [Default, Default]),
            (file, &vars[..0], &[], 1, "a", [File, File]),
            (file, &vars[1..], &[], 2, "b", [DotEnv, DotEnv]),
            (file, &vars[..], &[], 3, "b", [Environment, DotEnv]),
            (
                file,
                &vars[..],
                &[("redis_db", "4")],
                4,
                "b",
                [Flag, DotEnv],
            ),
        ] {
            let merged = layers(file, vars, flags);
            assert!(merged.wrong.is_empty(), "{:?}", merged.wrong);
            assert_eq!(merged.config.redis.db, db);
            assert_eq!(merged.host.level, level);
            assert_eq!(
                ["REDIS_DB", "HOST_LEVEL"].map(|v| merged.source(v)),
                sources
            );
        }
    }

    #[test]
    fn every_mistake_is_told_and_only_of_values_that_count() {
        let vars = [
            ("REDIS_PORT", "x", Source::Environment),
            ("HOST_LEVEL", "too long", Source::Environment),
            ("WEBSOCKET_PORT", "y", Source::DotEnv),
            ("FASTSOCK_AUTH_TOKNE", "z", Source::Environment),
        ];
        let merged = layers("{}", &vars, &[("websocket_port", "0")]);
        let lines: Vec<_> = merged.wrong.iter().map(Error::to_line).collect();
        assert_eq!(lines.len(), 3, "{lines:?}");
        assert!(lines[0].starts_with("FASTSOCK_AUTH_TOKNE: there is no such setting"));
        assert!(lines[1].starts_with("REDIS_PORT: \"x\" is not allowed; give "));
        assert_eq!(
            lines[2],
            "HOST_LEVEL: \"too long\" is not allowed; give a short word"
        );
        let error = Layers::new(&HOST).set("host_lvel", "x", Source::Flag);
        assert_eq!(
            error.unwrap_err().to_line(),
            "there is no setting \"host_lvel\"; did you mean \"host_level\"?"
        );
    }

    #[test]
    fn a_variable_of_the_original_with_a_slip_in_it_is_told_and_no_name_that_others_have() {
        let of_others = [
            "REDIS_HOSTNAME",
            "REDIS_TTL",
            "REDIS_SENTINEL_PORT",
            "REMOTE_USER",
            "LOG_FORMAT",
            "WEBSOCKET_PATH",
            "PORT",
            "HTTP_PROXY",
        ];
        let mistyped = ["REDIS_HOTS", "REDIS_PREFFIX", "REMOTE_UR", "WEBSOCKET_PROT"];
        let vars: Vec<_> = of_others
            .iter()
            .chain(&mistyped)
            .map(|name| (*name, "x", Source::Environment))
            .collect();
        let merged = layers("{}", &vars, &[]);
        assert!(merged.wrong.is_empty(), "{:?}", merged.wrong);
        let told: Vec<_> = merged
            .warnings
            .iter()
            .map(|w| (w.about.as_str(), w.hint.as_str()))
            .collect();
        let expected = [
            ("REDIS_HOTS", "did you mean REDIS_HOST?"),
            ("REDIS_PREFFIX", "did you mean REDIS_PREFIX?"),
            ("REMOTE_UR", "did you mean REMOTE_URL?"),
            ("WEBSOCKET_PROT", "did you mean WEBSOCKET_PORT?"),
        ];
        assert_eq!(told, expected);
    }
}
