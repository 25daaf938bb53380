//! Where settings come from: defaults, then a TOML file, `.env`, the environment, flags; the last one wins.

use std::{
    cmp::Reverse,
    collections::BTreeMap,
    ffi::OsString,
    fmt::{self, Write},
    io::ErrorKind::NotFound,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use crate::{
    dotenv,
    flags::Flags,
    logging::{Level, Payloads},
};
use fastsock::{BrokerKind, Config, Error, Setting, ValueKind, Warning};

/// All settings of the gateway, and where each comes from.
#[derive(Debug)]
pub(crate) struct Settings {
    /// Those of the bridge.
    pub(crate) config: Config,
    /// Those of the program around it.
    pub(crate) program: Program,
    /// What looked wrong but is no reason not to run, beside the warnings of `config`.
    pub(crate) warnings: Vec<Warning>,
    sources: BTreeMap<&'static str, Source>,
}

/// The settings that only the program has.
#[derive(Debug)]
pub(crate) struct Program {
    /// The least important lines to log.
    pub(crate) log_level: Level,
    /// What becomes of the `data` of logged messages.
    pub(crate) log_payloads: Payloads,
    /// Where lines are appended beside stdout.
    pub(crate) log_file: Option<PathBuf>,
    /// Who may read that file, as permission bits. `None` leaves it to the umask.
    pub(crate) log_file_mode: Option<u32>,
    /// Threads that run the bridge. 0: the number of cores, at most 4.
    pub(crate) runtime_workers: usize,
}

/// One setting, of the bridge or of the program.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Known {
    /// Of the bridge.
    Bridge(&'static Setting),
    /// Of the program.
    Program(&'static OwnSetting),
}

/// One row of the program's own table, as [`Setting`] is of the bridge's.
#[derive(Debug)]
pub struct OwnSetting {
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
    set: fn(&mut Program, &str) -> Option<()>,
    show: fn(&Program) -> String,
}

impl OwnSetting {
    /// Its default as text.
    pub fn default_text(&self) -> String {
        (self.show)(&Settings::default().program)
    }
}

/// Where a value comes from; a later one wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Source {
    Default,
    /// By another setting.
    Implied(&'static str),
    File,
    DotEnv,
    Environment,
    Flag,
}

/// A value as it was given.
#[derive(Debug)]
struct Given {
    known: Known,
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
        let mut settings = Self::default();
        let mut given = Vec::new();
        if let Some(path) = &flags.config_file {
            given.extend(from_toml(path)?);
        }
        given.extend(settings.read_vars(environment, &directory.join(".env"))?);
        for (key, value) in &flags.given {
            given.extend(Given::named(key, value, Source::Flag)?);
        }
        let mut wrong = settings.apply(&given);
        if wrong.is_empty() {
            // Of values that were not understood these would say what is not so.
            wrong = to_lines(settings.config.problems());
        }
        match wrong.is_empty() {
            true => Ok(settings),
            false => Err(wrong.join("\n")),
        }
    }

    /// Whether a setting was left at its default.
    pub(crate) fn is_default(&self, variable: &str) -> bool {
        !self.sources.contains_key(variable)
    }

    /// The value of a setting as text that reads back, without secrets.
    pub(crate) fn show(&self, known: Known) -> String {
        let text = match known {
            Known::Program(setting) => (setting.show)(&self.program),
            Known::Bridge(setting) => setting.show(&self.config),
        };
        match known.variable() {
            // Empty means the default, and that is not off.
            "FASTSOCK_ADMIN_ADDR" if text.is_empty() => "off".into(),
            _ => text,
        }
    }

    /// Every setting as a line of a `.env` file, with its source as a comment.
    pub(crate) fn print(&self) -> String {
        let mut text = String::new();
        for known in Known::all() {
            let (variable, value) = (known.variable(), quote(&self.show(known)));
            let source = self.sources.get(variable).unwrap_or(&Source::Default);
            let _ = writeln!(text, "{variable}={value} # {source}");
        }
        text
    }

    /// Threads to run the bridge on.
    pub(crate) fn workers(&self) -> usize {
        match self.program.runtime_workers {
            0 => std::thread::available_parallelism().map_or(1, |cores| cores.get().min(4)),
            workers => workers,
        }
    }

    /// The environment and, for names it does not have, `.env`.
    fn read_vars(
        &mut self,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
        dotenv: &Path,
    ) -> Result<Vec<Given>, String> {
        let lossy = |text: OsString| text.to_string_lossy().into_owned();
        let dotenv = self.read_dotenv(dotenv).into_iter();
        let dotenv = dotenv.map(|(name, value)| (name, value.into(), Source::DotEnv));
        let environment = environment.into_iter();
        let environment =
            environment.map(|(name, value)| (lossy(name), value, Source::Environment));
        let mut vars: BTreeMap<String, (String, Source)> = BTreeMap::new();
        for (name, value, source) in dotenv.chain(environment) {
            let is_ours = Known::by_variable(&name).is_some();
            if is_ours && value.to_str().is_none() {
                return Err(format!("{name}: the value is not UTF-8"));
            }
            let value = lossy(value);
            if !Config::is_service_link(&name, &value) {
                vars.insert(name, (value, source));
            }
        }
        let has_url = ["FASTSOCK_REDIS_URL", "FASTSOCK_REDIS_URL_FILE"];
        let has_url = has_url.iter().any(|name| vars.contains_key(*name));
        let mut given = Vec::new();
        for (key, (value, source)) in vars {
            if let Some((known, form)) = Known::by_variable(&key) {
                given.push(Given {
                    known,
                    key,
                    value,
                    source,
                    form,
                });
            } else if MEANT_FOR_REDIS.contains(&&*key) && !value.is_empty() && !has_url {
                self.warnings.push(Warning {
                    message: "This variable is not read",
                    hint: "FASTSOCK_REDIS_URL takes a URL with user and password".into(),
                    about: key,
                });
            } else if key.starts_with("FASTSOCK_") {
                // The core knows of which names a mistake is dangerous, and which it once had.
                Config::from_vars([(&key, &value)]).map_err(|e| e.to_line())?;
                if Config::is_removed(&key) {
                    continue;
                }
                self.warnings.push(Warning {
                    message: "Unknown setting is ignored",
                    hint: nearest_variable(&key),
                    about: key,
                });
            }
        }
        Ok(given)
    }

    fn read_dotenv(&mut self, path: &Path) -> Vec<(String, String)> {
        match std::fs::read(path) {
            Ok(bytes) => {
                let parsed = dotenv::parse(&String::from_utf8_lossy(&bytes));
                if !parsed.skipped.is_empty() {
                    self.warnings.push(Warning {
                        message: "A line of a settings file is not NAME=VALUE and is skipped",
                        about: path.display().to_string(),
                        hint: lines(&parsed.skipped),
                    });
                }
                parsed.entries
            }
            Err(error) if error.kind() == NotFound => Vec::new(),
            Err(error) => {
                self.warnings.push(Warning {
                    message: "Settings file cannot be read",
                    about: path.display().to_string(),
                    hint: error.to_string(),
                });
                Vec::new()
            }
        }
    }

    /// Sets what was given. Returns a line for each that is not allowed.
    fn apply(&mut self, given: &[Given]) -> Vec<String> {
        let mut wrong = Vec::new();
        for known in Known::all() {
            let of_this = given
                .iter()
                .filter(|g| g.known.variable() == known.variable());
            let Some(winner) = of_this.filter(|g| g.counts()).max_by_key(|g| g.rank()) else {
                continue;
            };
            if winner.value.is_empty() {
                continue;
            }
            match self.set(winner) {
                Ok(()) => {
                    self.sources.insert(known.variable(), winner.source);
                }
                Err(line) => wrong.push(line),
            }
        }
        self.follow_redis();
        wrong
    }

    /// Whoever names a Redis wants that one, also when it is the one that `auto` tries anyway.
    fn follow_redis(&mut self) {
        let mut names = REDIS_VARIABLES.into_iter();
        if self.config.broker == BrokerKind::Auto
            && let Some(name) = names.find(|name| !self.is_default(name))
        {
            self.config.broker = BrokerKind::Redis;
            self.sources
                .insert("FASTSOCK_BROKER", Source::Implied(name));
        }
    }

    fn set(&mut self, given: &Given) -> Result<(), String> {
        let Given { key, value, .. } = given;
        match given.known {
            Known::Program(setting) => {
                let set = (setting.set)(&mut self.program, value.trim());
                set.filter(|()| !value.trim().is_empty()).ok_or_else(|| {
                    let allowed = setting.allowed;
                    format!("{key}: {value:?} is not allowed; give {allowed}")
                })
            }
            Known::Bridge(setting) => {
                let set = match (given.source, given.form) {
                    (Source::DotEnv | Source::Environment, _) => {
                        self.config.merge_vars([(key, value)])
                    }
                    (_, Form::File) => {
                        let key = format!("{}_FILE", setting.variable);
                        self.config.merge_vars([(key.as_str(), value)])
                    }
                    _ => self.config.set(key, value),
                };
                set.map_err(|e| e.to_line())
            }
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            config: Config::default()
                .broker(BrokerKind::Auto)
                .admin_addr(DEFAULT_ADMIN_ADDR),
            program: Program {
                log_level: Level::Debug,
                log_payloads: Payloads::Capped,
                log_file: Some("logs/fastsock.log".into()),
                log_file_mode: None,
                runtime_workers: 0,
            },
            warnings: Vec::new(),
            sources: BTreeMap::new(),
        }
    }
}

impl Known {
    /// All settings, in the order of the documentation.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        let bridge = Config::settings().iter().map(Self::Bridge);
        bridge.chain(OWN_SETTINGS.iter().map(Self::Program))
    }

    /// Its name in TOML.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Bridge(setting) => setting.name,
            Self::Program(setting) => setting.name,
        }
    }

    /// Its environment variable.
    pub(crate) fn variable(self) -> &'static str {
        match self {
            Self::Bridge(setting) => setting.variable,
            Self::Program(setting) => setting.variable,
        }
    }

    /// What is allowed, in words.
    pub(crate) fn allowed(self) -> String {
        match self {
            Self::Bridge(setting) => setting.allowed_as(setting.variable),
            Self::Program(setting) => setting.allowed.into(),
        }
    }

    /// What it does.
    pub(crate) fn about(self) -> &'static str {
        match self {
            Self::Bridge(setting) => setting.about,
            Self::Program(setting) => setting.about,
        }
    }

    fn is_secret(self) -> bool {
        matches!(self, Self::Bridge(setting) if setting.is_secret)
    }

    /// The setting of an environment variable.
    fn by_variable(key: &str) -> Option<(Self, Form)> {
        let find = |variable: &str| Self::all().find(|known| known.variable() == variable);
        if let Some(known) = find(key) {
            return Some((known, Form::Plain));
        }
        if matches!(key, "http_proxy" | "https_proxy" | "no_proxy") {
            return Some((find(&key.to_ascii_uppercase())?, Form::LowerProxy));
        }
        let known = find(key.strip_suffix("_FILE")?)?;
        known.is_secret().then_some((known, Form::File))
    }

    /// The setting of a name in TOML or of a flag, where variables are names too.
    fn by_name(key: &str) -> Option<(Self, Form)> {
        let find = |name: &str| Self::all().find(|known| known.name() == name);
        if let Some(known) = find(key) {
            return Some((known, Form::Plain));
        }
        let file = key.strip_suffix("_file").and_then(find);
        file.filter(|known| known.is_secret())
            .map(|known| (known, Form::File))
            .or_else(|| Self::by_variable(key))
    }
}

impl Given {
    /// `None` for the value of a removed setting that is still taken.
    fn named(key: &str, value: &str, source: Source) -> Result<Option<Self>, String> {
        if Config::is_removed(key) {
            let taken = Config::default().set(key, value);
            return taken.map(|()| None).map_err(|e| e.to_line());
        }
        let (known, form) = Known::by_name(key).ok_or_else(|| unknown(key))?;
        Ok(Some(Self {
            known,
            key: key.into(),
            value: value.into(),
            source,
            form,
        }))
    }

    /// Whether it says anything: an empty variable means the default, but an empty file name or lower-case proxy nothing.
    fn counts(&self) -> bool {
        self.form == Form::Plain || !self.value.is_empty()
    }

    /// The greatest one wins. `.env` only adds to the environment, so a lower-case proxy wins over an upper-case one
    /// whichever of the two holds it; a value stands before a file, and a file before an empty value.
    fn rank(&self) -> impl Ord + use<> {
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
pub(crate) fn to_lines(errors: Vec<Error>) -> Vec<String> {
    errors.iter().map(Error::to_line).collect()
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

/// Reads a TOML file. Sections nest as in [`Config::merge_json`].
fn from_toml(path: &Path) -> Result<Vec<Given>, String> {
    let file = path.display();
    let text = std::fs::read_to_string(path).map_err(|e| format!("{file}: cannot be read: {e}"))?;
    let map = toml::from_str(&text).map_err(|e| format!("{file}: {}", toml_mistake(&e, &text)))?;
    let name_of = |key: &str| match Known::by_name(key)? {
        (_, Form::File) => None, // beside the value it is the lesser one, not the same
        (known, _) => Some(known.name()),
    };
    let flat = fastsock::flatten(map, &name_of).map_err(|e| e.to_line());
    let given = flat.and_then(|flat| {
        let named = flat
            .iter()
            .filter_map(|(key, value)| Given::named(key, value, Source::File).transpose());
        named.collect()
    });
    given.map_err(|line| format!("{file}: {line}"))
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

fn unknown(key: &str) -> String {
    let names = Known::all().map(Known::name);
    let hint = fastsock::nearest(key, names)
        .map_or(String::new(), |name| format!("; did you mean {name:?}?"));
    format!("there is no setting {key:?}{hint}")
}

fn nearest_variable(key: &str) -> String {
    fastsock::nearest(key, Known::all().map(Known::variable)).map_or_else(
        || "fastsock --help names all settings".into(),
        |variable| format!("did you mean {variable}?"),
    )
}

/// Quotes a value where a `.env` file needs it.
fn quote(value: &str) -> String {
    let is_plain = value.trim() == value && !value.contains(['#', '\'', '"', '`', '\n', '\r']);
    let quote = ['\'', '`', '"'].into_iter().find(|q| !value.contains(*q));
    match quote {
        Some(quote) if !is_plain => format!("{quote}{value}{quote}"),
        _ => value.into(),
    }
}

/// What its owner may not read and write is no log, and more than permissions is no mode.
fn parse_mode(text: &str) -> Option<u32> {
    let digits = text.trim();
    let is_octal =
        (3..=4).contains(&digits.len()) && digits.bytes().all(|b| (b'0'..=b'7').contains(&b));
    let mode = u32::from_str_radix(digits, 8).ok()?;
    (is_octal && mode <= 0o777 && mode & 0o600 == 0o600).then_some(mode)
}

fn parse_workers(text: &str) -> Option<usize> {
    text.trim().parse().ok().filter(|workers| *workers <= 64)
}

const DEFAULT_ADMIN_ADDR: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 3001);

const REDIS_VARIABLES: [&str; 5] = [
    "REDIS_HOST",
    "REDIS_PORT",
    "REDIS_DB",
    "REDIS_PREFIX",
    "FASTSOCK_REDIS_URL",
];

/// What others call where Redis is and who we are there.
const MEANT_FOR_REDIS: [&str; 5] = [
    "REDIS_URL",
    "REDIS_URI",
    "REDIS_PASSWORD",
    "REDIS_USER",
    "REDIS_USERNAME",
];

pub(crate) static OWN_SETTINGS: &[OwnSetting] = &[
    OwnSetting {
        name: "log_level",
        variable: "LOG_LEVEL",
        kind: ValueKind::Choice,
        allowed: "error, warn, info, http, verbose, debug or silly",
        example: "info",
        about: "Log lines of this level and above.",
        set: |program, text| Level::parse(text).map(|level| program.log_level = level),
        show: |program| program.log_level.as_str().into(),
    },
    OwnSetting {
        name: "log_payloads",
        variable: "FASTSOCK_LOG_PAYLOADS",
        kind: ValueKind::Choice,
        allowed: "capped, full or none",
        example: "none",
        about: "The `data` of logged messages. `capped`: cut at 1 KiB. `full`: whole. `none`: left out.",
        set: |program, text| Payloads::parse(text).map(|payloads| program.log_payloads = payloads),
        show: |program| program.log_payloads.as_str().into(),
    },
    OwnSetting {
        name: "log_file",
        variable: "FASTSOCK_LOG_FILE",
        kind: ValueKind::Path,
        allowed: "the path of a file, or off",
        example: "/var/log/fastsock/fastsock.log",
        about: "File to which the gateway appends its log lines, beside stdout. It makes the folder. SIGHUP opens the file anew.",
        set: |program, text| {
            program.log_file = (text != "off").then(|| text.into());
            Some(())
        },
        show: |program| {
            let path = program.log_file.as_ref();
            path.map_or_else(|| "off".into(), |path| path.display().to_string())
        },
    },
    OwnSetting {
        name: "log_file_mode",
        variable: "FASTSOCK_LOG_FILE_MODE",
        kind: ValueKind::Text,
        allowed: "an octal number from 0600 to 0777",
        example: "0640",
        about: "Permissions of the log file. Empty: as the umask says for a new file.",
        set: |program, text| {
            program.log_file_mode = Some(parse_mode(text)?);
            Some(())
        },
        show: |program| {
            let mode = program.log_file_mode;
            mode.map_or_else(String::new, |mode| format!("{mode:04o}"))
        },
    },
    OwnSetting {
        name: "runtime_workers",
        variable: "FASTSOCK_RUNTIME_WORKERS",
        kind: ValueKind::Integer,
        allowed: "an integer from 0 to 64",
        example: "2",
        about: "Threads that run the bridge. 0: the number of cores, at most 4.",
        set: |program, text| parse_workers(text).map(|workers| program.runtime_workers = workers),
        show: |program| program.runtime_workers.to_string(),
    },
];

/// Most lines of a file that a warning names.
const NAMED_LINES: usize = 5;

#[cfg(test)]
mod tests {
    use super::*;

    /// What is gathered from a `.env`, an environment and a TOML text, each as it is, and `--set` flags.
    fn gather(
        toml: &str,
        dotenv: &str,
        environment: &[(&str, &str)],
        flags: &[(&str, &str)],
    ) -> Result<Settings, String> {
        let directory = tempfile::tempdir().unwrap();
        let toml_path = directory.path().join("fastsock.toml");
        std::fs::write(&toml_path, toml).unwrap();
        std::fs::write(directory.path().join(".env"), dotenv).unwrap();
        let flags = Flags {
            config_file: Some(toml_path),
            given: flags
                .iter()
                .map(|(k, v)| ((*k).into(), (*v).into()))
                .collect(),
            ..Flags::default()
        };
        let environment = environment.iter().map(|(k, v)| (k.into(), v.into()));
        Settings::gather(&flags, environment, directory.path())
    }

    #[test]
    fn a_mode_is_octal_and_lets_its_owner_read_and_write() {
        for (text, mode) in [
            ("0640", Some(0o640)),
            ("640", Some(0o640)),
            ("0777", Some(0o777)),
            ("0600", Some(0o600)),
            ("0440", None),
            ("0644x", None),
            ("4640", None),
            ("0o640", None),
            ("0680", None),
            ("rw-r-----", None),
            ("6", None),
            ("-640", None),
        ] {
            assert_eq!(parse_mode(text), mode, "{text}");
        }
        let gathered = gather("", "FASTSOCK_LOG_FILE_MODE=0640", &[], &[]).unwrap();
        assert!(
            gathered
                .print()
                .contains("FASTSOCK_LOG_FILE_MODE=0640 # from .env\n")
        );
        let gathered = gather("", "", &[], &[]).unwrap();
        assert!(
            gathered
                .print()
                .contains("FASTSOCK_LOG_FILE_MODE= # default\n")
        );
    }

    #[test]
    fn the_last_source_wins_and_is_told() {
        let (toml, dotenv) = ("redis.db = 1", "REDIS_DB=2");
        let (environment, flags) = (&[("REDIS_DB", "3")][..], &[("redis_db", "4")][..]);
        for (expected, source, settings) in [
            (0, "default", gather("", "", &[], &[])),
            (1, "from the file", gather(toml, "", &[], &[])),
            (2, "from .env", gather(toml, dotenv, &[], &[])),
            (
                3,
                "from environment",
                gather(toml, dotenv, environment, &[]),
            ),
            (4, "from a flag", gather(toml, dotenv, environment, flags)),
        ] {
            let settings = settings.unwrap();
            assert_eq!(settings.config.redis_db, expected);
            let line = format!("REDIS_DB={expected} # {source}\n");
            assert!(settings.print().contains(&line), "{}", settings.print());
        }
    }

    #[test]
    fn an_empty_variable_hides_what_lies_below_and_means_the_default_of_the_gateway() {
        let toml = "broker = 'embedded'\n[log]\nlevel = 'error'";
        let dotenv = "REDIS_PORT=1\nLOG_LEVEL=warn\nFASTSOCK_ADMIN_ADDR=off";
        let empty = [
            ("REDIS_PORT", ""),
            ("FASTSOCK_BROKER", ""),
            ("LOG_LEVEL", ""),
            ("FASTSOCK_ADMIN_ADDR", ""),
        ];
        let settings = gather(toml, dotenv, &empty, &[]).unwrap();
        assert_eq!(settings.config, Settings::default().config);
        assert_eq!(settings.program.log_level, Level::Debug);
        assert!(settings.sources.is_empty());
    }

    #[test]
    fn toml_sections_nest_and_headers_stay_whole() {
        let toml = "websocket_port = 1\nlisten_origins = ['https://a', 'https://b']\nready_requires_broker = true\n\
            [remote]\nurl = 'http://h/'\n[remote.headers]\nA = 1\n[log]\nfile = 'off'";
        let Settings {
            config, program, ..
        } = gather(toml, "", &[], &[]).unwrap();
        assert_eq!(config.websocket_port, 1);
        assert_eq!(config.listen_origins, ["https://a", "https://b"]);
        assert!(config.ready_requires_broker);
        assert_eq!(config.remote_url.unwrap(), "http://h/");
        assert_eq!(config.remote_headers.0, [("A".into(), Some("1".into()))]);
        assert_eq!(program.log_file, None);
    }

    #[test]
    fn a_mistake_is_one_line_that_names_it() {
        let line =
            |toml, dotenv, environment: &[_]| gather(toml, dotenv, environment, &[]).unwrap_err();
        for (line, expected) in [
            (
                line("", "", &[("REDIS_PORT", "x\ny")]),
                r#"REDIS_PORT: "x\ny" is not allowed; give a port from 1 to 65535"#,
            ),
            (
                line("", "LOG_LEVEL=trace", &[]),
                r#"LOG_LEVEL: "trace" is not allowed; give error, warn, info, http, verbose, debug or silly"#,
            ),
            (
                line("", "", &[("FASTSOCK_RUNTIME_WORKERS", "65")]),
                r#"FASTSOCK_RUNTIME_WORKERS: "65" is not allowed; give an integer from 0 to 64"#,
            ),
            (
                line("[redis]\nprot = 1", "", &[]),
                r#"there is no setting "redis_prot"; did you mean "redis_port"?"#,
            ),
            (line("a = 1\nb = = 2", "", &[]), "line 2: "),
            (
                line("remote.order = 'none'", "", &[]),
                "remote_order: this setting was removed: ",
            ),
            (
                line("", "FASTSOCK_LIMIT_HEADERS=32", &[]),
                "FASTSOCK_LIMIT_HEADERS: this setting was removed: ",
            ),
        ] {
            assert!(line.contains(expected) && !line.contains('\n'), "{line}");
        }
    }

    #[test]
    fn a_removed_setting_that_means_what_always_happens_is_no_mistake() {
        let (order, given) = (
            [("FASTSOCK_REMOTE_ORDER", "device")],
            [("remote_order", "device")],
        );
        let settings = gather("[remote]\norder = 'device'", "", &order, &given).unwrap();
        assert_eq!(settings.warnings, []);
        assert_eq!(settings.config, Settings::default().config);
    }

    #[test]
    fn an_overridden_mistake_does_not_matter() {
        let settings = gather("", "REDIS_PORT=x", &[("REDIS_PORT", "7")], &[]).unwrap();
        assert_eq!(settings.config.redis_port, 7);
    }

    #[test]
    fn unknown_variables_are_warned_about_with_the_nearest_name() {
        let environment = [
            ("FASTSOCK_REDIS_URI", "x"),
            ("HOME", "/"),
            ("REDIS_HOTS", "y"),
        ];
        let dotenv = "FASTSOCK_DRAIN_WINDOW=1\nFASTSOCK_ADMIN_TOKEN_FILE=\n";
        let warnings = gather("", dotenv, &environment, &[]).unwrap().warnings;
        let about: Vec<_> = warnings.iter().map(|w| w.about.as_str()).collect();
        assert_eq!(about, ["FASTSOCK_DRAIN_WINDOW", "FASTSOCK_REDIS_URI"]);
        assert_eq!(warnings[1].hint, "did you mean FASTSOCK_REDIS_URL?");
    }

    #[test]
    fn other_names_for_redis_are_told_where_they_belong() {
        let other = ("REDIS_PASSWORD", "s3cret");
        let warnings = gather("", "REDIS_URL=redis://h", &[other], &[])
            .unwrap()
            .warnings;
        let about: Vec<_> = warnings.iter().map(|w| w.about.as_str()).collect();
        assert_eq!(about, ["REDIS_PASSWORD", "REDIS_URL"]);
        assert!(warnings[0].hint.starts_with("FASTSOCK_REDIS_URL takes "));
        let known = [other, ("FASTSOCK_REDIS_URL", "redis://:s3cret@h")];
        assert_eq!(gather("", "", &known, &[]).unwrap().warnings, []);
        let meant = gather("", "", &[("FASTSOCK_REMOTE_URL", "http://h/")], &[]).unwrap();
        assert_eq!(meant.warnings[0].hint, "did you mean REMOTE_URL?");
    }

    #[test]
    fn what_kubernetes_sets_for_services_is_passed_over() {
        let environment = [
            ("FASTSOCK_PORT", "tcp://10.0.0.1:80"),
            ("FASTSOCK_SERVICE_HOST", "10.0.0.1"),
            ("FASTSOCK_AUTH_PORT_80_TCP", "tcp://10.0.0.1:80"),
            ("REDIS_PORT", "tcp://10.0.0.2:6379"),
        ];
        let settings = gather("", "REDIS_PORT=7", &environment, &[]).unwrap();
        assert_eq!(settings.warnings, []);
        assert_eq!(settings.config.redis_port, 7);
        let settings = gather("", "", &environment, &[]).unwrap();
        assert_eq!(settings.config, Settings::default().config);
    }

    #[test]
    fn whoever_names_a_redis_means_redis() {
        let broker = |environment: &[_]| gather("", "", environment, &[]).unwrap().config.broker;
        assert_eq!(broker(&[("REDIS_HOST", "")]), BrokerKind::Auto);
        assert_eq!(broker(&[("REDIS_HOST", "127.0.0.1")]), BrokerKind::Redis);
        let embedded = [("REDIS_HOST", "127.0.0.1"), ("FASTSOCK_BROKER", "embedded")];
        assert_eq!(broker(&embedded), BrokerKind::Embedded);
    }

    #[test]
    fn the_lower_case_proxy_wins_even_from_the_file() {
        let proxy = |dotenv, environment: &[_]| {
            let config = gather("", dotenv, environment, &[]).unwrap().config;
            config.http_proxy.unwrap().expose().to_owned()
        };
        let upper = [("HTTP_PROXY", "http://upper")];
        assert_eq!(proxy("http_proxy=http://lower", &upper), "http://lower");
        assert_eq!(proxy("http_proxy=", &upper), "http://upper");
    }

    #[test]
    fn a_secret_from_a_file_counts_like_one_given() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        std::fs::write(&path, "t0ken\n").unwrap();
        let file = [
            ("FASTSOCK_ADMIN_TOKEN_FILE", path.to_str().unwrap()),
            ("FASTSOCK_ADMIN_TOKEN", ""),
        ];
        let token = |dotenv, environment: &[_]| {
            let config = gather("", dotenv, environment, &[]).unwrap().config;
            config.admin_token.unwrap().expose().to_owned()
        };
        assert_eq!(token("", &file), "t0ken");
        assert_eq!(token("FASTSOCK_ADMIN_TOKEN=other", &file[..1]), "t0ken");
        assert_eq!(
            token("", &[file[0], ("FASTSOCK_ADMIN_TOKEN", "given")]),
            "given"
        );
    }

    #[test]
    fn what_is_printed_reads_back_and_holds_no_secret() {
        let dotenv = "REMOTE_URL='http://us3r:pw@h/p?q=#f'\nREMOTE_HEADERS={\"A\":\"s3cret\"}\n\
            REDIS_PREFIX=\" a # b's \"\nFASTSOCK_ADMIN_ADDR=off\nFASTSOCK_REDIS_URL=redis://:s3cret@h\nHTTP_PROXY=http://s3cret@h";
        let printed = gather("", dotenv, &[], &[]).unwrap().print();
        for secret in ["us3r", "pw@", "s3cret"] {
            assert!(!printed.contains(secret), "{printed}");
        }
        let again = dotenv::parse(&printed).entries;
        assert_eq!(again.len(), Known::all().count());
        let value = |name| &again.iter().find(|(n, _)| n == name).unwrap().1;
        assert_eq!(value("REDIS_PREFIX"), " a # b's ");
        assert_eq!(value("FASTSOCK_ADMIN_ADDR"), "off");
        assert_eq!(value("REMOTE_URL"), "http://***@h/p?***#f");
        assert_eq!(value("REMOTE_HEADERS"), "***");
    }

    #[test]
    fn a_url_is_logged_without_its_secrets() {
        assert_eq!(without_secrets("https://u:p@h:1/p?k=v#f"), "https://h:1/p");
    }

    #[test]
    fn every_example_of_the_documentation_is_read() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/settings.md");
        let page = std::fs::read_to_string(path).unwrap();
        let examples = page.split("```toml\n").skip(1);
        let examples: Vec<_> = examples
            .map(|rest| rest.split_once("```").unwrap().0)
            .collect();
        assert!(examples.len() >= Known::all().count());
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("fastsock.toml");
        for example in examples {
            std::fs::write(&path, example).unwrap();
            let given = from_toml(&path).unwrap_or_else(|line| panic!("{example}: {line}"));
            let mut settings = Settings::default();
            let wrong = settings.apply(&given);
            assert!(wrong.is_empty(), "{example}: {wrong:?}");
            assert!(!given.is_empty());
            for given in given {
                let variable = given.known.variable();
                assert!(!settings.is_default(variable), "{variable}: {example}");
            }
        }
    }
}
