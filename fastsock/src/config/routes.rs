//! Routes: devices that have a backend of their own, found by their path or subprotocol.

use serde_json::{Map, Value as Json};

use super::{
    Config, SETTINGS, Setting, ValueKind,
    device_path::{DevicePath, check_subprotocols},
    find, flatten, nearest, secret_of_file,
    sections::rows_of_routes,
    trimmed,
    value::{Value, Why},
};
use crate::error::{Error, ErrorKind, Result};

/// The routes of `FASTSOCK_ROUTES`, in the order in which a device is compared with them.
#[derive(Clone, Default, PartialEq)]
pub struct Routes(pub(crate) Vec<Route>);

/// Devices that have a backend of their own, and what of the settings is different for them.
#[derive(Clone, PartialEq)]
#[non_exhaustive]
pub struct Route {
    /// What metrics, logs, the spool and dead letters call it: 1 to 32 small letters, digits, `-` and `_`.
    pub name: String,
    /// The path of its devices, as in `FASTSOCK_DEVICE_PATHS`.
    pub path: Option<String>,
    /// The subprotocol that its devices offer. They get it, whatever `FASTSOCK_SUBPROTOCOLS` says.
    pub subprotocol: Option<String>,
    /// The form of their client ids, as `FASTSOCK_CLIENT_ID`.
    pub client_id: Option<String>,
    /// Names and texts of its settings.
    settings: Vec<(String, String)>,
}

impl Routes {
    /// Each of them, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Route> {
        self.0.iter()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// As JSON, without secrets.
    pub(super) fn masked(&self) -> String {
        self.json(|name, text| {
            let mut scratch = Config::default();
            find(name).map_or_else(String::new, |setting| {
                let _ = (setting.set)(&mut scratch, text); // it was checked
                setting.show(&scratch)
            })
        })
    }

    /// As JSON; empty when there are none.
    fn json(&self, text_of: impl Fn(&str, &str) -> String) -> String {
        if self.is_empty() {
            return String::new();
        }
        let route = |route: &Route| {
            let own = [
                ("name", Some(&route.name)),
                ("path", route.path.as_ref()),
                ("subprotocol", route.subprotocol.as_ref()),
                ("client_id", route.client_id.as_ref()),
            ];
            let own = own
                .into_iter()
                .filter_map(|(name, text)| Some((name.to_owned(), text?.clone())));
            let settings = route.settings.iter();
            let settings = settings.map(|(name, text)| (name.clone(), text_of(name, text)));
            let all = own.chain(settings);
            Json::Object(all.map(|(name, text)| (name, text.into())).collect())
        };
        Json::Array(self.iter().map(route).collect()).to_string()
    }
}

impl Route {
    /// Names and texts of the settings that are different for its devices. Secrets are among them.
    pub fn settings(&self) -> impl ExactSizeIterator<Item = (&str, &str)> {
        self.settings.iter().map(|(name, text)| (&**name, &**text))
    }

    /// Whether it says who may connect.
    pub(crate) fn has_own_auth(&self) -> bool {
        self.sets("auth")
    }

    fn sets(&self, name: &str) -> bool {
        self.settings.iter().any(|(known, _)| known == name)
    }

    fn read(json: Json) -> Result<Self, String> {
        let Json::Object(mut map) = json else {
            return Err("a route is not an object".into());
        };
        let mut take = |name: &str| match map.remove(name) {
            None | Some(Json::Null) => Ok(None),
            Some(Json::String(text)) if !text.is_empty() => Ok(Some(text)),
            Some(_) => Err(format!("the {name} of a route is not a text")),
        };
        let name = take("name")?.ok_or("a route has no name")?;
        let route = Self {
            path: take("path")?,
            subprotocol: take("subprotocol")?,
            client_id: take("client_id")?,
            settings: Vec::new(),
            name,
        };
        let called = route.name.clone();
        let of = |what: String| format!("route {called:?}: {what}");
        route.check().map_err(of)?;
        let settings = own_settings(map).map_err(of)?;
        let route = Self { settings, ..route };
        route.check_settings().map_err(of)?;
        Ok(route)
    }

    fn check(&self) -> Result<(), String> {
        let is_of_a_name =
            |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_');
        if !(1..=32).contains(&self.name.len()) || !self.name.bytes().all(is_of_a_name) {
            return Err(
                "its name is not 1 to 32 small letters, digits, hyphens and underscores".into(),
            );
        }
        if RESERVED.contains(&&*self.name) {
            return Err("this name has another meaning; give it another one".into());
        }
        if let Some(path) = &self.path {
            DevicePath::parse(path)?;
        }
        if let Some(name) = &self.subprotocol {
            check_subprotocols(std::slice::from_ref(name))?;
        }
        match (&self.path, &self.subprotocol, &self.client_id) {
            (None, None, _) => Err("it needs a path or a subprotocol".into()),
            (None, _, Some(_)) => Err("client_id needs a path".into()),
            _ => Ok(()),
        }
    }

    /// Why it cannot stand behind those before it.
    fn clashes_with(&self, before: &[Self]) -> Option<String> {
        let name = &self.name;
        if before.iter().any(|other| other.name == *name) {
            return Some(format!("route {name:?}: it is there twice"));
        }
        let finds = |r: &Self| (r.path.clone(), r.subprotocol.clone());
        let other = before.iter().find(|other| finds(other) == finds(self))?;
        let other = &other.name;
        Some(format!(
            "route {name:?}: {other:?} has the same path and subprotocol, so no device would go this way"
        ))
    }

    fn check_settings(&self) -> Result<(), String> {
        if !self.sets("remote_url") {
            return Err("it needs remote_url".into());
        }
        let needs_auth = |(name, _): &&(String, String)| name.starts_with("auth_");
        match self.settings.iter().find(needs_auth) {
            Some((name, _)) if !self.sets("auth") => Err(format!(
                "{name} needs auth: a route has all settings about who may connect, or none"
            )),
            _ => Ok(()),
        }
    }
}

/// Those of the sections that a route may have of its own.
fn own_settings(map: Map<String, Json>) -> Result<Vec<(String, String)>, String> {
    let known = |key: &str| find(key).or_else(|| secret_in_file(key));
    let name_of = |key: &str| known(key).map(|setting| setting.name);
    let flat = flatten(map, &name_of).map_err(|error| error.to_line())?;
    let mut settings = Vec::new();
    for (key, text) in flat {
        let Some(setting) = known(&key) else {
            let hint = nearest(&key, rows_of_routes().map(|setting| setting.name));
            let hint = hint.map_or(String::new(), |name| format!("; did you mean {name:?}?"));
            return Err(format!("there is no setting {key:?}{hint}"));
        };
        if !is_of_routes(setting) {
            return Err(format!("{key} is the same for all devices"));
        }
        let mut scratch = Config::default();
        let text = match find(&key) {
            None if !text.is_empty() => secret_of_file(&key, trimmed(&text)),
            _ => Ok(text),
        };
        let text = text.map_err(|error| error.to_line())?;
        scratch
            .apply(setting, &key, &text)
            .map_err(|error| error.to_line())?;
        if !text.is_empty() {
            settings.push((setting.name.to_owned(), (setting.show)(&scratch)));
        }
    }
    settings.sort(); // as what is written reads back
    Ok(settings)
}

/// The secret whose value a file holds, by its name with `_file` behind it or its variable with `_FILE`.
fn secret_in_file(key: &str) -> Option<&'static Setting> {
    let name = key.strip_suffix("_file").or(key.strip_suffix("_FILE"))?;
    find(name).filter(|setting| setting.is_secret)
}

/// Whether devices of a route may have it otherwise.
fn is_of_routes(setting: &Setting) -> bool {
    rows_of_routes().any(|row| row.name == setting.name)
}

impl Value for Routes {
    const IS_SECRET: bool = true;
    const KIND: ValueKind = ValueKind::Tables;

    fn parse(text: &str) -> Result<Self, Why> {
        if text.is_empty() {
            return Ok(Self::default());
        }
        let json: Json = serde_json::from_str(text).map_err(|e| {
            let (line, column) = (e.line(), e.column());
            format!("the value is not valid JSON (line {line}, column {column})")
        })?;
        let Json::Array(all) = json else {
            return Err("the value is JSON, but not an array".into());
        };
        let mut routes: Vec<Route> = Vec::new();
        let mut wrong = Vec::new();
        for json in all {
            match Route::read(json) {
                Ok(route) => {
                    wrong.extend(route.clashes_with(&routes));
                    routes.push(route);
                }
                Err(why) => wrong.push(why),
            }
        }
        match wrong.is_empty() {
            true => Ok(Self(routes)),
            false => Err(wrong.join("; ").into()),
        }
    }

    fn show(&self) -> String {
        self.json(|_, text| text.to_owned())
    }
}

impl std::fmt::Debug for Routes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.masked())
    }
}

impl std::fmt::Debug for Route {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Route({})", self.name)
    }
}

impl Config {
    /// What holds for the devices of each route, by its name. For settings that were checked.
    pub fn of_routes(&self) -> Vec<(String, Self)> {
        let routes = self.routing.routes.iter();
        routes
            .filter_map(|route| Some((route.name.clone(), self.of_route(route).ok()?)))
            .collect()
    }

    /// What holds for the devices of a route. What is about a backend and its secrets, and who may connect if the route says so, begins
    /// with the defaults; how a backend is reached is as for all others, unless the route says otherwise.
    ///
    /// # Errors
    /// `Config`, naming the setting.
    pub(super) fn of_route(&self, route: &Route) -> Result<Self> {
        let mut config = self.clone();
        config.routing = Default::default();
        config.warnings.clear();
        let fresh = Self::default();
        let is_new = |setting: &&Setting| {
            let name = setting.name;
            let is_auth = name == "auth" || name.starts_with("auth_");
            let is_remote = name.starts_with("remote_") && !CARRIAGE.contains(&name);
            (is_auth && route.sets("auth")) || is_remote
        };
        for setting in SETTINGS.iter().filter(is_new) {
            let default = (setting.show)(&fresh);
            (setting.set)(&mut config, &default).expect("a default is allowed");
        }
        for (name, text) in route.settings() {
            config.set(name, text)?;
        }
        if let Some(path) = &route.path {
            config.devices.paths = vec![path.clone()];
        }
        if let Some(form) = &route.client_id {
            config.devices.client_id = form.clone();
        }
        Ok(config)
    }

    /// What is wrong with routes, beside what is wrong without them.
    pub(super) fn check_routes(&self, known: &[Error]) -> Vec<Error> {
        let known: Vec<_> = known.iter().map(Error::to_line).collect();
        let mut found = Vec::new();
        for route in self.routing.routes.iter() {
            let problems = match self.of_route(route) {
                Ok(config) => config.problems(),
                Err(error) => vec![error],
            };
            let lines = problems.iter().map(Error::to_line);
            let lines = lines.filter(|line| !known.contains(line));
            found.extend(lines.map(|line| {
                let text = format!("FASTSOCK_ROUTES: route {:?}: {line}", route.name);
                Error::new(ErrorKind::Config, text)
            }));
        }
        found
    }
}

/// How a backend is reached: of the section about it, what is not about this one.
const CARRIAGE: [&str; 8] = [
    "remote_ca",
    "remote_concurrency",
    "remote_connect_timeout",
    "remote_timeout",
    "remote_http2",
    "remote_connection_age",
    "remote_max_age",
    "remote_batch_wait",
];
/// What metrics call the default destinations.
const RESERVED: [&str; 3] = ["remote", "events", "default"];

#[cfg(test)]
mod tests {
    use super::*;

    fn routes(json: &str) -> Result<Config, String> {
        let mut config = Config::default();
        config.set("routes", json).map_err(|e| e.to_line())?;
        Ok(config)
    }

    #[test]
    fn a_route_is_the_settings_with_its_own_over_them() {
        let json = r#"[{"name":"north","path":"/north/{id}","client_id":"north/{id}","remote":{"url":"http://n/","timeout":"2s"},
            "remote_headers":{"Authorization":"hush"},"auth":"tokens","auth_tokens_file":"/t"},
            {"name":"south","subprotocol":"ocpp1.6","remote_url":"http://s/","remote_batch":5}]"#;
        let mut config = routes(json).unwrap();
        config.set("remote_url", "http://default/").unwrap();
        config.set("remote_headers", r#"{"X-Key":"mine"}"#).unwrap();
        config.set("remote_connect_timeout", "1s").unwrap();
        config.set("auth", "webhook").unwrap();
        config.set("auth_url", "http://auth/").unwrap();
        config.check().unwrap();
        let of = config.of_routes();
        let [(north, n), (south, s)] = &of[..] else {
            panic!("{of:?}");
        };
        assert_eq!((&**north, &**south), ("north", "south"));
        assert_eq!(n.remote.url.as_deref(), Some("http://n/"));
        assert_eq!(n.remote.timeout.as_secs(), 2);
        assert_eq!(n.remote.connect_timeout.as_secs(), 1);
        assert_eq!((n.auth.kind.as_str(), &n.auth.url), ("tokens", &None));
        assert_eq!(n.devices.paths, ["/north/{id}"]);
        // A secret of one backend is not for another.
        assert!(s.remote.headers.0.is_empty());
        assert_eq!((s.remote.batch, s.auth.kind.as_str()), (5, "webhook"));
        // It reads back, and shows no secret.
        let written = config.routing.routes.show();
        assert_eq!(Routes::parse(&written).unwrap(), config.routing.routes);
        let shown = config.show("routes").unwrap();
        assert!(
            shown.contains("http://n/") && !shown.contains("hush"),
            "{shown}"
        );
        assert!(!format!("{config:?}").contains("hush"));
    }

    #[test]
    fn a_secret_of_a_route_may_be_in_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).unwrap();
            path.to_str().unwrap().to_owned()
        };
        let headers = write("headers", "{\"X-Key\":\"hush\"}\n");
        let secret = write(
            "secret",
            "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=\n",
        );
        let url = write("url", " http://auth/?key=hush\n");
        let json = serde_json::json!([{
            "name": "a", "path": "/{id}", "auth": "webhook", "auth_url_file": url,
            "remote": {"url": "http://h/", "headers_file": headers}, "FASTSOCK_REMOTE_SECRET_FILE": secret,
        }]);
        let config = routes(&json.to_string()).unwrap();
        let [(_, a)] = &config.of_routes()[..] else {
            panic!("one route");
        };
        assert_eq!(a.remote.headers.0, [("X-Key".into(), Some("hush".into()))]);
        assert!(a.remote.secret.is_some());
        assert_eq!(
            a.auth.url.as_ref().unwrap().expose(),
            "http://auth/?key=hush"
        );
        assert!(!config.show("routes").unwrap().contains("hush"));

        for (settings, line) in [
            (r#""remote_secret_file":"/nowhere""#, "remote_secret_file"),
            (r#""remote_url_file":"/nowhere""#, "there is no setting"),
            (r#""redis_url_file":"/nowhere""#, "the same for all devices"),
            (
                r#""remote_secret":"x","remote_secret_file":"/x""#,
                "given twice",
            ),
        ] {
            let json =
                format!(r#"[{{"name":"a","path":"/{{id}}","remote_url":"http://h/",{settings}}}]"#);
            let error = routes(&json).unwrap_err();
            assert!(error.contains(line), "{json}: {error}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_route_is_named() {
        for (json, line) in [
            ("{}", "routes: the value is JSON, but not an array"),
            ("[{}]", "a route has no name"),
            (r#"[{"name":"A"}]"#, r#"route "A": its name is not"#),
            (r#"[{"name":"remote"}]"#, "another meaning"),
            (
                r#"[{"name":"a"}]"#,
                r#"route "a": it needs a path or a subprotocol"#,
            ),
            (r#"[{"name":"a","path":"/x"}]"#, "has no {id}"),
            (r#"[{"name":"a","path":"/{id}"}]"#, "it needs remote_url"),
            (
                r#"[{"name":"a","path":"/{id}","remote_url":"http://h/","auth_url":"http://h/"}]"#,
                "auth_url needs auth",
            ),
            (
                r#"[{"name":"a","path":"/{id}","remote_url":"h"}]"#,
                r#"remote_url: "h" is not allowed"#,
            ),
            (
                r#"[{"name":"a","path":"/{id}","remote_url":"http://h/","remot_body":"raw"}]"#,
                r#"did you mean "remote_body"?"#,
            ),
            (
                r#"[{"name":"a","path":"/{id}","remote_url":"http://h/","redis_port":1}]"#,
                "redis_port is the same for all devices",
            ),
            (
                r#"[{"name":"a","path":"/{id}","remote_url":"http://h/"},{"name":"a","path":"/x/{id}","remote_url":"http://h/"}]"#,
                "it is there twice",
            ),
            (
                r#"[{"name":"a","path":"/{id}","remote_url":"http://h/"},{"name":"b","path":"/{id}","remote_url":"http://h/"}]"#,
                "no device would go this way",
            ),
        ] {
            let error = routes(json).unwrap_err();
            assert!(error.contains(line), "{json}: {error}");
        }
        let json =
            r#"[{"name":"a","path":"/{id}","remote_url":"http://h/{tenant}","auth":"tokens"}]"#;
        let problems = routes(json).unwrap().problems();
        let lines: Vec<_> = problems.iter().map(Error::to_line).collect();
        assert_eq!(
            lines,
            [
                r#"FASTSOCK_ROUTES: route "a": REMOTE_URL: FASTSOCK_DEVICE_PATHS has no {tenant}; {client_id}, {id} are allowed"#,
                r#"FASTSOCK_ROUTES: route "a": FASTSOCK_AUTH: tokens needs FASTSOCK_AUTH_TOKENS_FILE"#,
            ]
        );
    }
}
