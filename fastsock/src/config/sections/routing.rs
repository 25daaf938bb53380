//! Devices that have a backend of their own.

use super::super::{Routes, section::section};

section! {
    /// Devices that have a backend of their own.
    Routing = routing, "Routes";
    /// Routes: devices that have a backend of their own, as a JSON array; in TOML each is a table `[[route]]`. A route has a `name`, a `path` as in `FASTSOCK_DEVICE_PATHS` or a `subprotocol` that its devices offer or both, perhaps a `client_id` as `FASTSOCK_CLIENT_ID`, and settings of the sections about the backend and about who may connect, by their names. The first that a device matches counts. Any other device goes the default route, which all other settings describe; without `REMOTE_URL` it gets 404. docs/routes.md has examples.
    routes => routes: Routes = Routes::default(), "FASTSOCK_ROUTES", "a JSON array of objects with a name, a path or a subprotocol, remote_url and other settings", r#"[{"name":"north","path":"/north/{id}","remote_url":"http://127.0.0.1:8081/"}]"#;
}
