//! Which way a device goes: the first route whose path and subprotocol are its own, else the default one.

use std::sync::Arc;

use crate::{
    auth::Auth,
    config::{
        Config,
        device_path::{ClientIdForm, DevicePaths},
        url_template::UrlTemplate,
    },
    context::Parts,
    types::{ClientId, Refusal},
};

/// All ways of a gateway.
pub(crate) struct Routes {
    /// In the order of the settings; the default one is last.
    all: Vec<Route>,
    /// Whether whoever matches no other may go the default way.
    has_default: bool,
}

/// What the handshake of a device that goes this way has to know.
pub(crate) struct Route {
    /// `None`: the default one.
    pub(crate) name: Option<String>,
    /// Paths that name its devices; `None`: no path does.
    paths: Option<DevicePaths>,
    /// What its devices offer.
    pub(crate) subprotocol: Option<String>,
    /// What every client id of its devices begins with, and no other.
    prefix: String,
    pub(crate) auth: Arc<Auth>,
    /// The number of that, for grants.
    pub(crate) auth_number: usize,
    /// The URL of its backend, when it names the device: then not every client id will do.
    pub(crate) url: Option<UrlTemplate>,
    /// Headers of the device that go with its messages, in lower case.
    pub(crate) forward_headers: Vec<String>,
    /// Whether somebody wants the trace of a device's request: the backend, or a collector.
    pub(crate) carries_trace: bool,
    /// Whether what is known of a session is kept.
    pub(crate) keeps_context: bool,
}

/// The way of a device, and what its path says of it.
pub(crate) type Found<'a> = (&'a Route, Option<(Parts, ClientId)>);

impl Routes {
    /// Those of the settings, with who decides about the devices of each: the default one first.
    pub(crate) fn new(config: &Config, auths: &[(usize, Arc<Auth>)]) -> Self {
        let of_routes = config.of_routes();
        let routes = of_routes.iter().zip(config.routing.routes.iter());
        let named = routes
            .zip(&auths[1..])
            .map(|(((name, config), route), auth)| {
                let name = Some(name.clone());
                let prefix = route.client_id.as_deref().map(prefix).unwrap_or_default();
                Route {
                    subprotocol: route.subprotocol.clone(),
                    prefix,
                    ..Route::new(name, config, auth)
                }
            });
        let mut all: Vec<_> = named.collect();
        all.push(Route::new(None, config, &auths[0]));
        Self {
            has_default: all.len() == 1 || config.remote.url.is_some(),
            all,
        }
    }

    /// Whether whoever matches no other may go the default way.
    pub(crate) fn has_default(&self) -> bool {
        self.has_default
    }

    /// Each way; the default one last.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Route> {
        self.all.iter()
    }

    /// The way of a device with this path that offers these subprotocols.
    ///
    /// # Errors
    /// 400 for a path with a segment that programs read in different ways, 404 when there is no way for it.
    pub(crate) fn find(&self, path: &str, offers: &[String]) -> Result<Found<'_>, Refusal> {
        let (default, named) = self.all.split_last().expect("there is a default one");
        for route in named {
            if let Some(name) = &route.subprotocol
                && !offers.contains(name)
            {
                continue;
            }
            match &route.paths {
                None => return Ok((route, None)),
                Some(paths) => {
                    if let Some(found) = paths.find(path) {
                        return Ok((route, Some(found?)));
                    }
                }
            }
        }
        if !self.has_default {
            return Err(Refusal::new(404, "no route is for this device"));
        }
        let found = default.paths.as_ref().map(|paths| paths.named(path));
        Ok((default, found.transpose()?))
    }

    /// Whether a client id is for devices of another route than this.
    pub(crate) fn is_of_another(&self, route: &Route, client_id: &ClientId) -> bool {
        let owns = |other: &Route| {
            !other.prefix.is_empty()
                && client_id.as_str().starts_with(&other.prefix)
                && !route.prefix.starts_with(&other.prefix)
        };
        self.all.iter().any(owns)
    }
}

impl Route {
    fn new(name: Option<String>, config: &Config, auth: &(usize, Arc<Auth>)) -> Self {
        let (auth_number, auth) = auth.clone();
        let forward_headers = config.remote.forward_headers.iter();
        Self {
            keeps_context: name.is_some() || config.keeps_context(),
            name,
            paths: config.paths_of_devices(),
            subprotocol: None,
            prefix: String::new(),
            auth,
            auth_number,
            url: config.remote_template(),
            carries_trace: config.remote.extra_headers || config.otlp.url.is_some(),
            forward_headers: forward_headers
                .map(|name| name.to_ascii_lowercase())
                .collect(),
        }
    }
}

/// What client ids of a form begin with.
fn prefix(form: &str) -> String {
    let form = ClientIdForm::parse(form).ok();
    let prefix = form.as_ref().and_then(|form| form.literals().next());
    prefix.unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routes(vars: &[(&str, &str)]) -> Routes {
        let mut config = Config::default();
        for (name, text) in vars {
            config.set(name, text).unwrap();
        }
        config.check().unwrap();
        let auths = vec![(0, Arc::new(Auth::Open)); config.routing.routes.iter().len() + 1];
        Routes::new(&config, &auths)
    }

    const ROUTES: (&str, &str) = (
        "routes",
        r#"[{"name":"two","path":"/o/{id}","subprotocol":"ocpp2.0.1","client_id":"two:{id}","remote_url":"http://h/"},
            {"name":"path","path":"/o/{id}","client_id":"path:{id}","remote_url":"http://h/"},
            {"name":"tenant","path":"/t/{tenant}/{id}","client_id":"{tenant}:{id}","remote_url":"http://h/"},
            {"name":"mqtt","subprotocol":"mqtt","remote_url":"http://h/"}]"#,
    );

    #[test]
    fn the_first_that_matches_counts() {
        let with_default = routes(&[ROUTES, ("remote_url", "http://h/")]);
        let without = routes(&[ROUTES]);
        for (path, offers, name, id) in [
            ("/o/a", &["ocpp1.6", "ocpp2.0.1"][..], "two", Some("two:a")),
            ("/o/a", &["ocpp1.6"], "path", Some("path:a")),
            ("/o/a", &[], "path", Some("path:a")),
            ("/t/x/a", &["mqtt"], "tenant", Some("x:a")),
            ("/other/", &["mqtt"], "mqtt", None),
            ("/other/", &[], "", None),
            ("/o/a/b", &[], "", None),
            ("/o/..", &[], "", None),
        ] {
            let offers: Vec<_> = offers.iter().map(|&o| o.to_owned()).collect();
            let (route, named) = with_default.find(path, &offers).unwrap();
            let found = route.name.as_deref().unwrap_or_default();
            let named = named.map(|(_, client_id)| client_id.to_string());
            assert_eq!((found, named.as_deref()), (name, id), "{path} {offers:?}");
            let status = without.find(path, &offers).err().map(|r| r.status);
            assert_eq!(status, name.is_empty().then_some(404), "{path}");
        }
        // It is the route's device, and not one that the default one may name.
        let refusal = with_default.find("/t/a:b/c", &[]).err();
        assert_eq!(refusal.unwrap().status, 400);
    }

    #[test]
    fn nobody_gets_an_id_that_begins_as_those_of_another_route() {
        let routes = routes(&[ROUTES, ("remote_url", "http://h/")]);
        let named = |name: &str| {
            let mut all = routes.iter();
            all.find(|r| r.name.as_deref() == Some(name)).unwrap()
        };
        let default = routes.iter().last().unwrap();
        for (route, id, is) in [
            (named("two"), "two:a", false),
            (named("path"), "two:a", true),
            (named("mqtt"), "two:a", true),
            (default, "path:a", true),
            (default, "other", false),
        ] {
            let id = ClientId::new(id).unwrap();
            assert_eq!(routes.is_of_another(route, &id), is, "{id}");
        }
    }
}
