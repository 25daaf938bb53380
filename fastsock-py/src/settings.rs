//! Settings from Python: keywords, a dictionary, a TOML file, variables.

use std::{path::PathBuf, thread::available_parallelism};

use fastsock::{Config, Setting, ValueKind};
use pyo3::{
    exceptions::PyTypeError,
    intern,
    prelude::*,
    types::{PyBool, PyDict, PyFloat, PyInt, PyList, PyMapping, PyString, PyTuple},
};
use serde_json::{Map, Value};

use crate::{
    error::{exception, raised},
    log::Payloads,
};

/// What a bridge is to be started with.
#[derive(Debug)]
pub(crate) struct Settings {
    /// Those of the core.
    pub(crate) config: Config,
    /// Threads of the runtime.
    pub(crate) workers: usize,
    /// How much of a payload the log may show.
    pub(crate) payloads: Payloads,
}

impl Settings {
    /// Gathers them; the later one wins: defaults, `config` (a dictionary or the path of a TOML file), `environ`, keywords.
    pub(crate) fn gather(
        config: Option<&Bound<'_, PyAny>>,
        environ: Option<&Bound<'_, PyAny>>,
        keywords: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Self> {
        let mut settings = Self {
            config: Config::default(),
            workers: DEFAULT_WORKERS,
            payloads: Payloads::default(),
        };
        if let Some(config) = config {
            settings.merge(config)?;
        }
        if let Some(environ) = environ {
            settings.merge_variables(environ)?;
        }
        if let Some(keywords) = keywords {
            settings.apply(map("", keywords)?)?;
        }
        settings.config.check().map_err(|e| raised(&e))?;
        Ok(settings)
    }

    fn merge(&mut self, config: &Bound<'_, PyAny>) -> PyResult<()> {
        if let Ok(dict) = config.cast::<PyDict>() {
            return self.apply(map("", dict)?);
        }
        let path: PathBuf = config
            .extract()
            .map_err(|_| PyTypeError::new_err("config is a dict or the path of a TOML file"))?;
        let file = path.display();
        let text = std::fs::read_to_string(&path)
            .map_err(|e| config_error(format!("{file}: cannot be read: {e}")))?;
        let map: Map<String, Value> = toml::from_str(&text)
            .map_err(|e| config_error(format!("{file}: {}", e.to_string().trim_end())))?;
        self.apply(map)
    }

    fn merge_variables(&mut self, environ: &Bound<'_, PyAny>) -> PyResult<()> {
        let vars = variables(environ)?;
        for (key, variable) in OWN {
            let given = vars.iter().find(|(name, _)| name == variable);
            if let Some((_, text)) = given.filter(|(_, text)| !text.is_empty()) {
                self.set(key, text)?;
            }
        }
        let vars_of_core = vars.iter().map(|(name, text)| (name, text));
        self.config
            .merge_vars(vars_of_core)
            .map_err(|e| raised(&e))?;
        let mut unknown = vars.iter().filter(|(name, _)| !is_variable(name));
        unknown.try_for_each(|(name, _)| warn_unknown(environ.py(), name))
    }

    /// Sections nest: `{"redis": {"port": 6380}}` is `{"redis_port": 6380}`.
    fn apply(&mut self, map: Map<String, Value>) -> PyResult<()> {
        let name_of = |key: &str| setting(key).map(|setting| setting.name);
        for (key, text) in fastsock::flatten(map, &name_of).map_err(|e| raised(&e))? {
            self.set(&key, &text)?;
        }
        Ok(())
    }

    fn set(&mut self, key: &str, text: &str) -> PyResult<()> {
        match key {
            "runtime_workers" => {
                let workers = text.parse().ok().filter(|n| (0..=64).contains(n));
                self.workers = match workers.ok_or_else(|| {
                    config_error(format!(
                        "runtime_workers: {text:?} is not allowed; give an integer from 0 to 64"
                    ))
                })? {
                    0 => available_parallelism().map_or(1, |cores| cores.get().min(4)),
                    workers => workers,
                };
                Ok(())
            }
            "log_payloads" => {
                self.payloads = Payloads::parse(text).ok_or_else(|| {
                    config_error(format!(
                        "log_payloads: {text:?} is not allowed; give capped, full or none"
                    ))
                })?;
                Ok(())
            }
            // A file for the gateway works here too; what is the program's own, such as its log file, is Python's matter.
            _ if is_of_gateway(key) => Ok(()),
            _ => self.config.set(key, text).map_err(|e| raised(&e)),
        }
    }
}

/// The settings: (name, variable, what is allowed, what it does, its default as text) of each.
#[pyfunction]
pub fn setting_table() -> Vec<(&'static str, &'static str, &'static str, String, String)> {
    let default = Config::default();
    let row = |setting: &'static Setting| {
        let about = setting.about.trim().to_owned();
        let shown = setting.show(&default);
        (
            setting.name,
            setting.variable,
            setting.allowed,
            about,
            shown,
        )
    };
    Config::settings().iter().map(row).collect()
}

fn setting(key: &str) -> Option<&'static Setting> {
    Config::settings()
        .iter()
        .find(|setting| setting.name == key || setting.variable == key)
}

fn is_of_gateway(key: &str) -> bool {
    fastsock_gateway::own_settings()
        .iter()
        .any(|own| own.name == key)
}

fn config_error(text: String) -> PyErr {
    exception("ConfigError", (text,))
}

/// The name of a setting in a section.
fn named(section: &str, key: &str) -> String {
    match section {
        "" => key.into(),
        section => format!("{section}_{key}"),
    }
}

fn map(section: &str, dict: &Bound<'_, PyDict>) -> PyResult<Map<String, Value>> {
    dict.iter()
        .map(|(key, value)| {
            let key: String = key
                .extract()
                .map_err(|_| PyTypeError::new_err("the name of a setting is a str"))?;
            let value = json(&named(section, &key), &value)?;
            Ok((key, value))
        })
        .collect()
}

/// A value as JSON. Numbers become text: Python's have no bounds, and the setting says which it allows.
fn json(key: &str, value: &Bound<'_, PyAny>) -> PyResult<Value> {
    let py = value.py();
    if value.is_none() {
        Ok(Value::Null)
    } else if let Ok(flag) = value.cast::<PyBool>() {
        Ok(flag.is_true().into())
    } else if value.is_instance_of::<PyInt>() {
        Ok(value.str()?.extract::<String>()?.into())
    } else if let Ok(number) = value.cast::<PyFloat>() {
        whole(key, number.value()).map(Value::String)
    } else if let Ok(text) = value.cast::<PyString>() {
        Ok(utf8(key, text)?.into())
    } else if let Ok(dict) = value.cast::<PyDict>() {
        map(key, dict).map(Value::Object)
    } else if value.is_instance_of::<PyList>() || value.is_instance_of::<PyTuple>() {
        let items = value.try_iter()?;
        items
            .map(|item| json(key, &item?))
            .collect::<PyResult<_>>()
            .map(Value::Array)
    } else if value.is_instance(&py.import("datetime")?.getattr("timedelta")?)? {
        milliseconds(key, value).map(Value::String)
    } else if value.hasattr(intern!(py, "__index__"))? {
        let number = value.call_method0(intern!(py, "__index__"))?;
        Ok(number.str()?.extract::<String>()?.into())
    } else if let Ok(path) = value.extract::<PathBuf>() {
        let path = path.into_os_string().into_string();
        path.map(Value::String).map_err(|_| not_utf8(key))
    } else {
        let class = value.get_type();
        Err(PyTypeError::new_err(format!(
            "{key}: {class} is not allowed"
        )))
    }
}

/// A float for a setting, all of which are whole numbers. The values of a nested object may be anything.
fn whole(key: &str, number: f64) -> PyResult<String> {
    if number.fract() == 0.0 {
        return Ok(format!("{number:.0}"));
    }
    let Some(setting) = setting(key) else {
        return Ok(number.to_string());
    };
    let hint = match is_time(setting) {
        true => " as a whole number, or a datetime.timedelta",
        false => "",
    };
    let allowed = setting.allowed;
    Err(config_error(format!(
        "{key}: {number} is not allowed; give {allowed}{hint}"
    )))
}

/// A `timedelta` for a setting that is a time.
fn milliseconds(key: &str, delta: &Bound<'_, PyAny>) -> PyResult<String> {
    let part = |name| delta.getattr(name)?.extract::<i64>();
    let (days, seconds, micros) = (part("days")?, part("seconds")?, part("microseconds")?);
    let allowed = match setting(key) {
        Some(setting) if !is_time(setting) => {
            let allowed = setting.allowed;
            let text = format!("{key}: a timedelta is not allowed; give {allowed}");
            return Err(config_error(text));
        }
        Some(setting) => setting.allowed,
        None => "whole milliseconds",
    };
    if micros % 1000 != 0 {
        let text = format!("{key}: {delta} is not whole milliseconds; give {allowed}");
        return Err(config_error(text));
    }
    Ok((days * 86_400_000 + seconds * 1000 + micros / 1000).to_string())
}

fn is_time(setting: &Setting) -> bool {
    setting.kind == ValueKind::Time
}

fn utf8(key: &str, text: &Bound<'_, PyString>) -> PyResult<String> {
    text.extract().map_err(|_| not_utf8(key))
}

fn not_utf8(key: &str) -> PyErr {
    config_error(format!("{key}: the value is not UTF-8"))
}

/// The variables that are ours or look like it, as pairs of text.
fn variables(environ: &Bound<'_, PyAny>) -> PyResult<Vec<(String, String)>> {
    let py = environ.py();
    let items = environ
        .cast::<PyMapping>()
        .map_err(|_| PyTypeError::new_err("environ is a mapping such as os.environ"))?
        .call_method0(intern!(py, "items"))?;
    let mut vars = Vec::new();
    for pair in items.try_iter()? {
        let (name, value): (Bound<'_, PyAny>, Bound<'_, PyAny>) = pair?.extract()?;
        let Ok(name) = name.cast::<PyString>() else {
            let class = name.get_type();
            return Err(PyTypeError::new_err(format!(
                "environ: the name of a variable is a str, not {class}"
            )));
        };
        let Ok(name) = name.extract::<String>() else {
            continue; // ours are ASCII
        };
        if !is_variable(&name) && !name.starts_with("FASTSOCK_") {
            continue;
        }
        let Ok(text) = value.cast::<PyString>() else {
            let class = value.get_type();
            return Err(PyTypeError::new_err(format!(
                "environ: the value of {name} is a str, not {class}"
            )));
        };
        let text = utf8(&name, text)?;
        if !Config::is_service_link(&name, &text) {
            vars.push((name, text));
        }
    }
    Ok(vars)
}

/// Whether it is a variable of the bridge or of the gateway.
fn is_variable(name: &str) -> bool {
    let is_lower_proxy = matches!(name, "http_proxy" | "https_proxy" | "no_proxy");
    let file = name.strip_suffix("_FILE");
    is_lower_proxy
        || Config::is_removed(name)
        || Config::settings()
            .iter()
            .any(|s| s.variable == name || s.is_secret && Some(s.variable) == file)
        || fastsock_gateway::own_settings()
            .iter()
            .any(|own| own.variable == name)
}

fn warn_unknown(py: Python<'_>, name: &str) -> PyResult<()> {
    let known = Config::settings().iter().map(|setting| setting.variable);
    let hint = fastsock::nearest(name, known)
        .map_or(String::new(), |known| format!("did you mean {known}?"));
    let fields = PyDict::new(py);
    fields.set_item("variable", name)?;
    fields.set_item("hint", &hint)?;
    let extra = PyDict::new(py);
    extra.set_item("fields", &fields)?;
    let keywords = PyDict::new(py);
    keywords.set_item("extra", extra)?;
    let text = "Unknown setting is ignored variable=%(variable)s hint=%(hint)s";
    py.import(intern!(py, "logging"))?
        .call_method1("getLogger", ("fastsock.settings",))?
        .call_method("warning", (text, fields), Some(&keywords))?;
    Ok(())
}

/// Settings of the program around a bridge that mean something here too, and their variables.
const OWN: [(&str, &str); 2] = [
    ("runtime_workers", "FASTSOCK_RUNTIME_WORKERS"),
    ("log_payloads", "FASTSOCK_LOG_PAYLOADS"),
];
const DEFAULT_WORKERS: usize = 2;
