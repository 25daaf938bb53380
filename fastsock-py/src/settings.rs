//! Settings from Python: keywords, a dictionary, a TOML file, variables.

use std::path::PathBuf;

use fastsock::Config;
use pyo3::{
    exceptions::PyTypeError,
    intern,
    prelude::*,
    types::{PyBool, PyDict, PyFloat, PyInt, PyList, PyMapping, PyString, PyTuple},
};
use serde_json::{Map, Value};

use crate::error::{exception, raised};

/// What a bridge is to be started with.
#[derive(Debug)]
pub(crate) struct Settings {
    /// Those of the core.
    pub(crate) config: Config,
    /// Threads of the runtime.
    pub(crate) workers: usize,
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
        };
        if let Some(config) = config {
            settings.merge(config)?;
        }
        if let Some(environ) = environ {
            let vars = variables(environ)?;
            settings.config.merge_vars(vars).map_err(|e| raised(&e))?;
        }
        if let Some(keywords) = keywords {
            settings.apply("", map(keywords)?)?;
        }
        settings.config.check().map_err(|e| raised(&e))?;
        Ok(settings)
    }

    fn merge(&mut self, config: &Bound<'_, PyAny>) -> PyResult<()> {
        if let Ok(dict) = config.cast::<PyDict>() {
            return self.apply("", map(dict)?);
        }
        let path: PathBuf = config
            .extract()
            .map_err(|_| PyTypeError::new_err("config is a dict or the path of a TOML file"))?;
        let file = path.display();
        let text = std::fs::read_to_string(&path)
            .map_err(|e| config_error(format!("{file}: cannot be read: {e}")))?;
        let map: Map<String, Value> = toml::from_str(&text)
            .map_err(|e| config_error(format!("{file}: {}", e.to_string().trim_end())))?;
        self.apply("", map)
    }

    /// Sections nest: `{"redis": {"port": 6380}}` is `{"redis_port": 6380}`.
    fn apply(&mut self, section: &str, map: Map<String, Value>) -> PyResult<()> {
        for (key, value) in map {
            let key = match section {
                "" => key,
                section => format!("{section}_{key}"),
            };
            let text = match value {
                Value::Object(map) if !is_setting(&key) => {
                    self.apply(&key, map)?;
                    continue;
                }
                Value::Array(items) => items.iter().map(as_text).collect::<Vec<_>>().join(","),
                value => as_text(&value),
            };
            self.set(&key, &text)?;
        }
        Ok(())
    }

    fn set(&mut self, key: &str, text: &str) -> PyResult<()> {
        match key {
            "runtime_workers" => {
                let allowed = text.parse().ok().filter(|n| (1..=64).contains(n));
                self.workers = allowed.ok_or_else(|| {
                    config_error(format!(
                        "runtime_workers: {text:?} is not allowed; give an integer from 1 to 64"
                    ))
                })?;
                Ok(())
            }
            // Those of the gateway's own log: a file for the gateway works here too, and `logging` is Python's matter.
            "log_level" | "log_payloads" | "log_file" | "log_file_mode" => Ok(()),
            _ => self.config.set(key, text).map_err(|e| raised(&e)),
        }
    }
}

/// The settings: (name, variable, what is allowed, what it does, its default as text) of each.
#[pyfunction]
pub fn setting_table() -> Vec<(&'static str, &'static str, &'static str, String, String)> {
    let default = Config::default();
    let row = |setting: &'static fastsock::Setting| {
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

fn is_setting(key: &str) -> bool {
    Config::settings().iter().any(|setting| setting.name == key)
}

fn config_error(text: String) -> PyErr {
    exception("ConfigError", (text,))
}

/// Null is the empty text, and that means the default.
fn as_text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        value => value.to_string(),
    }
}

fn map(dict: &Bound<'_, PyDict>) -> PyResult<Map<String, Value>> {
    dict.iter()
        .map(|(key, value)| {
            let key: String = key
                .extract()
                .map_err(|_| PyTypeError::new_err("the name of a setting is a str"))?;
            let value = json(&value)
                .map_err(|class| PyTypeError::new_err(format!("{key}: {class} is not allowed")))?;
            Ok((key, value))
        })
        .collect()
}

/// A value as JSON; the error is the name of a class that has none.
fn json(value: &Bound<'_, PyAny>) -> Result<Value, String> {
    let class = || value.get_type().to_string();
    let bad = |_: PyErr| class();
    if value.is_none() {
        Ok(Value::Null)
    } else if let Ok(flag) = value.cast::<PyBool>() {
        Ok(flag.is_true().into())
    } else if value.is_instance_of::<PyInt>() {
        // As text: Python's integers have no bounds, and the setting says which it allows.
        Ok(Value::String(value.str().map_err(bad)?.to_string()))
    } else if let Ok(number) = value.cast::<PyFloat>() {
        let number = number.value();
        let text = if number.fract() == 0.0 {
            format!("{number:.0}")
        } else {
            number.to_string()
        };
        Ok(Value::String(text))
    } else if let Ok(text) = value.cast::<PyString>() {
        Ok(text.to_string().into())
    } else if let Ok(dict) = value.cast::<PyDict>() {
        map(dict).map(Value::Object).map_err(bad)
    } else if value.is_instance_of::<PyList>() || value.is_instance_of::<PyTuple>() {
        let items = value.try_iter().map_err(bad)?;
        items
            .map(|item| json(&item.map_err(bad)?))
            .collect::<Result<_, _>>()
            .map(Value::Array)
    } else {
        let path: PathBuf = value.extract().map_err(bad)?;
        Ok(path.to_string_lossy().into_owned().into())
    }
}

/// Pairs of text; what is not text is no variable of ours.
fn variables(environ: &Bound<'_, PyAny>) -> PyResult<Vec<(String, String)>> {
    let items = environ
        .cast::<PyMapping>()
        .map_err(|_| PyTypeError::new_err("environ is a mapping such as os.environ"))?
        .call_method0(intern!(environ.py(), "items"))?;
    let pairs = items.try_iter()?.map(|pair| Ok(pair?.extract().ok()));
    Ok(pairs
        .collect::<PyResult<Vec<_>>>()?
        .into_iter()
        .flatten()
        .collect())
}

const DEFAULT_WORKERS: usize = 2;
