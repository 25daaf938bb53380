//! Settings in sections, as JSON, TOML and Python's dictionaries have them.

use std::collections::HashMap;

use serde_json::{Map, Value};

use crate::error::{Error, ErrorKind, Result};

/// The names and texts in sections: `{"redis": {"port": 6380}}` is `redis_port` with `6380`. An array becomes a text with commas,
/// null the empty text, which means the default. `name_of` tells the one name of a setting, or `None` for what is none.
///
/// # Errors
/// `Config` for a setting that is given twice, and for an item of an array that has a comma.
pub(super) fn flatten(
    map: Map<String, Value>,
    name_of: &dyn Fn(&str) -> Option<&'static str>,
) -> Result<Vec<(String, String)>> {
    let mut settings = Vec::new();
    gather("", map, name_of, &mut settings)?;
    let mut known = HashMap::new();
    for (key, _) in &settings {
        if let Some(name) = name_of(key)
            && let Some(first) = known.insert(name, key)
        {
            let how = match first == key {
                true => String::from("in two sections"),
                false => format!("as {first:?} and as {key:?}"),
            };
            return Err(mistake(format!("{name}: it is given twice, {how}")));
        }
    }
    Ok(settings)
}

fn gather(
    section: &str,
    map: Map<String, Value>,
    name_of: &dyn Fn(&str) -> Option<&'static str>,
    settings: &mut Vec<(String, String)>,
) -> Result<()> {
    for (key, value) in map {
        let key = match section {
            "" => key,
            section => format!("{section}_{key}"),
        };
        let text = match value {
            Value::Object(map) if name_of(&key).is_none() => {
                gather(&key, map, name_of, settings)?;
                continue;
            }
            // Tables: `[[route]]` in TOML, which is one of the routes.
            Value::Array(items) if items.iter().any(Value::is_object) => {
                let key = match &*key {
                    "route" => "routes".into(),
                    _ => key,
                };
                settings.push((key, Value::Array(items).to_string()));
                continue;
            }
            Value::Array(items) => {
                let items: Vec<_> = items.iter().map(text).collect();
                if items.iter().any(|item| item.contains(',')) {
                    return Err(mistake(format!(
                        "{key}: an item of a list cannot have a comma"
                    )));
                }
                items.join(",")
            }
            value => text(&value),
        };
        settings.push((key, text));
    }
    Ok(())
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        // JSON knows one kind of number: 3000.0 is 3000.
        Value::Number(number) => match number.as_f64() {
            Some(float) if number.is_f64() => float.to_string(),
            _ => number.to_string(),
        },
        value => value.to_string(),
    }
}

fn mistake(line: String) -> Error {
    Error::new(ErrorKind::Config, line)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flat(json: &str) -> Result<Vec<(String, String)>, String> {
        let name_of = |key: &str| match key {
            "redis_port" | "REDIS_PORT" => Some("redis_port"),
            "remote_headers" => Some("remote_headers"),
            "listen_origins" => Some("listen_origins"),
            _ => None,
        };
        flatten(serde_json::from_str(json).unwrap(), &name_of).map_err(|e| e.to_line())
    }

    #[test]
    fn sections_nest_and_values_become_text() {
        for (json, name, value) in [
            (r#"{"redis": {"port": 6380}}"#, "redis_port", "6380"),
            (r#"{"redis_port": 6380.0}"#, "redis_port", "6380"),
            (r#"{"redis_port": 0.5}"#, "redis_port", "0.5"),
            (r#"{"redis": {"port": null}}"#, "redis_port", ""),
            (r#"{"a": {"b": {"c": true}}}"#, "a_b_c", "true"),
            (
                r#"{"remote": {"headers": {"A": 1}}}"#,
                "remote_headers",
                r#"{"A":1}"#,
            ),
            (
                r#"{"route": [{"name": "a"}]}"#,
                "routes",
                r#"[{"name":"a"}]"#,
            ),
            (
                r#"{"listen": {"origins": ["x", 1]}}"#,
                "listen_origins",
                "x,1",
            ),
        ] {
            assert_eq!(flat(json), Ok(vec![(name.into(), value.into())]), "{json}");
        }
    }

    #[test]
    fn what_is_given_twice_or_cannot_be_told_apart_is_refused() {
        for (json, line) in [
            (
                r#"{"redis_port": 1, "redis": {"port": 2}}"#,
                "redis_port: it is given twice, in two sections",
            ),
            (
                r#"{"REDIS_PORT": 1, "redis": {"port": 1}}"#,
                r#"redis_port: it is given twice, as "REDIS_PORT" and as "redis_port""#,
            ),
            (
                r#"{"listen_origins": ["a,b"]}"#,
                "listen_origins: an item of a list cannot have a comma",
            ),
        ] {
            assert_eq!(flat(json).unwrap_err(), line);
        }
    }
}
