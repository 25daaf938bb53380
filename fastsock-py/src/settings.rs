//! Settings from Python: keywords, a dictionary, a TOML file, variables.

use std::{ffi::OsString, path::PathBuf, sync::LazyLock, thread::available_parallelism};

use fastsock::{Config, HostSetting, Layers, Setting, Source, ValueKind, Warning};
use fastsock_gateway::OwnSetting;
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
        let mut layers = Layers::new(&OWN);
        if let Some(config) = config {
            let added = layers.map(read(config)?, Source::File);
            added.map_err(|wrong| raised(&wrong[0]))?;
        }
        if let Some(environ) = environ {
            layers.vars(variables(environ)?, Source::Environment);
        }
        if let Some(keywords) = keywords {
            let added = layers.map(map("", keywords)?, Source::Flag);
            added.map_err(|wrong| raised(&wrong[0]))?;
        }
        let merged = layers.merge(Config::default(), Own::default());
        if let Some(wrong) = merged.wrong.first() {
            return Err(raised(wrong));
        }
        merged.config.check().map_err(|e| raised(&e))?;
        if let Some(environ) = environ {
            let mut warnings = merged.warnings.iter();
            warnings.try_for_each(|warning| warn(environ.py(), warning))?;
        }
        Ok(Self {
            config: merged.config,
            workers: merged.host.workers,
            payloads: merged.host.payloads,
        })
    }
}

/// What a dictionary or a TOML file holds.
fn read(config: &Bound<'_, PyAny>) -> PyResult<Map<String, Value>> {
    if let Ok(dict) = config.cast::<PyDict>() {
        return map("", dict);
    }
    let path: PathBuf = config
        .extract()
        .map_err(|_| PyTypeError::new_err("config is a dict or the path of a TOML file"))?;
    let file = path.display();
    let text = std::fs::read_to_string(&path)
        .map_err(|e| config_error(format!("{file}: cannot be read: {e}")))?;
    toml::from_str(&text).map_err(|e| config_error(format!("{file}: {}", e.to_string().trim_end())))
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
fn variables(environ: &Bound<'_, PyAny>) -> PyResult<Vec<(OsString, OsString)>> {
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
        vars.push((name.into(), text.into()));
    }
    Ok(vars)
}

/// Whether it is a variable of the bridge or of the gateway.
fn is_variable(name: &str) -> bool {
    Config::is_variable(name)
        || Config::is_removed(name)
        || OWN.iter().any(|own| own.variable == name)
}

fn warn(py: Python<'_>, warning: &Warning) -> PyResult<()> {
    let fields = PyDict::new(py);
    fields.set_item("variable", &warning.about)?;
    fields.set_item("hint", &warning.hint)?;
    let extra = PyDict::new(py);
    extra.set_item("fields", &fields)?;
    let keywords = PyDict::new(py);
    keywords.set_item("extra", extra)?;
    let text = format!("{} variable=%(variable)s hint=%(hint)s", warning.message);
    py.import(intern!(py, "logging"))?
        .call_method1("getLogger", ("fastsock.settings",))?
        .call_method("warning", (text, fields), Some(&keywords))?;
    Ok(())
}

/// Settings of the gateway that mean something here too.
#[derive(Debug)]
struct Own {
    workers: usize,
    payloads: Payloads,
}

impl Default for Own {
    fn default() -> Self {
        Self {
            workers: DEFAULT_WORKERS,
            payloads: Payloads::default(),
        }
    }
}

/// Those that only the gateway has. A file for the gateway works here too; its log file, for example, is Python's matter here.
static OWN: LazyLock<Vec<HostSetting<Own>>> = LazyLock::new(|| {
    let rows = fastsock_gateway::own_settings().iter();
    let row = |own: &'static OwnSetting| HostSetting {
        name: own.name,
        variable: own.variable,
        kind: own.kind,
        allowed: own.allowed,
        example: own.example,
        about: own.about,
        set: match own.name {
            "runtime_workers" => set_workers,
            "log_payloads" => set_payloads,
            _ => |_, _| Some(()),
        },
        show: |_| String::new(),
    };
    rows.map(row).collect()
});

fn set_workers(own: &mut Own, text: &str) -> Option<()> {
    own.workers = match text.parse().ok().filter(|n| (0..=64).contains(n))? {
        0 => available_parallelism().map_or(1, |cores| (cores.get() / 2).clamp(1, 4)),
        workers => workers,
    };
    Some(())
}

fn set_payloads(own: &mut Own, text: &str) -> Option<()> {
    own.payloads = Payloads::parse(text)?;
    Some(())
}

const DEFAULT_WORKERS: usize = 2;
