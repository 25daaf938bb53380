//! `/api/v1/clients`: who is connected, how one device is doing, and closing its session.

use hyper::{Method, Request, StatusCode};
use serde::Serialize;
use serde_json::json;

use super::{
    Admin, Answer, bad_request, failure, json as answer_json, method_not_allowed, ok, problem,
};
use crate::{
    inspect,
    types::{Client, ClientId, CloseReason, Presence, unix_ms},
    verbs,
};

/// Where they are; the rest of the path is empty or begins with a slash.
pub(super) const PATH: &str = "/api/v1/clients";

/// Which part of the list.
#[derive(Debug, PartialEq)]
pub(super) struct Page {
    pub(super) prefix: String,
    pub(super) after: String,
    pub(super) limit: usize,
    /// Of all gateways rather than this one.
    pub(super) is_of_fleet: bool,
}

/// A device in the list of all gateways.
#[derive(Serialize)]
struct FleetRow<'a> {
    client_id: &'a str,
    node: &'a str,
    name: &'a str,
    session_id: u64,
    epoch: u64,
    last_seen_ms: u64,
}

/// A device in the list.
#[derive(Serialize)]
struct Row<'a> {
    client_id: &'a str,
    session_id: u64,
    remote_addr: String,
    connected_ms: u64,
    last_seen_ms: u64,
}

/// `GET /api/v1/clients`, `GET` and `DELETE /api/v1/clients/<id>`.
pub(super) async fn answer<B>(
    admin: &Admin,
    request: &Request<B>,
    rest: &str,
) -> Result<Answer, Answer> {
    match (rest.strip_prefix('/'), request.method()) {
        (None, &Method::GET) => list(admin, request.uri().query().unwrap_or_default()).await,
        (None, _) => Err(method_not_allowed("GET")),
        (Some(id), method) => match (client_id(id), method) {
            (Err(refused), _) => Err(refused),
            (Ok(id), &Method::GET) => ok(json!(inspect::device(&admin.shared, &id).await)),
            (Ok(id), &Method::DELETE) => kick(admin, &id).await, // a page needs leave to ask for that
            (Ok(_), _) => Err(method_not_allowed("GET, DELETE")),
        },
    }
}

/// Devices that are connected here, by name, or of all gateways in no order; `next` is where the list goes on, if it does.
async fn list(admin: &Admin, query: &str) -> Result<Answer, Answer> {
    let Page {
        prefix,
        after,
        limit,
        is_of_fleet,
    } = Page::parse(query)?;
    if is_of_fleet {
        let page = verbs::fleet::page(&admin.shared, &prefix, &after, limit)
            .await
            .map_err(failure)?;
        let rows = page.devices.iter().map(|(id, at)| FleetRow {
            client_id: id.as_str(),
            node: &at.id,
            name: &at.name,
            session_id: at.session_id.0,
            epoch: at.epoch,
            last_seen_ms: unix_ms(at.last_seen),
        });
        let body = json!({ "clients": rows.collect::<Vec<_>>(), "next": page.next });
        return ok(body);
    }
    let mut clients = verbs::clients_with(&admin.shared, &prefix, &after, limit + 1);
    let next = (clients.len() > limit).then(|| {
        clients.truncate(limit);
        clients[limit - 1].client_id.to_string()
    });
    let rows: Vec<_> = clients.iter().map(Row::of).collect();
    let connected = admin.shared.registry.len();
    let body = json!({ "clients": rows, "next": next, "connected": connected });
    ok(body)
}

/// Closes its session with 4510, or asks the gateway that has it to.
async fn kick(admin: &Admin, id: &ClientId) -> Result<Answer, Answer> {
    let kicked = verbs::fleet::kick(&admin.shared, id, CloseReason::Kicked).await;
    match kicked.map_err(failure)? {
        Presence::Here => ok(json!({ "status": "kicked" })),
        Presence::Elsewhere => Ok(answer_json(
            StatusCode::ACCEPTED,
            json!({ "status": "asked" }),
        )),
        Presence::Offline => Err(problem(
            StatusCode::NOT_FOUND,
            "the device is not connected to any gateway",
        )),
    }
}

/// The client id that a part of a path names.
pub(super) fn client_id(segment: &str) -> Result<ClientId, Answer> {
    let decoded = percent_encoding::percent_decode_str(segment).decode_utf8();
    let id = decoded.ok().and_then(ClientId::new);
    id.filter(|_| !segment.contains('/'))
        .ok_or_else(|| bad_request("the client id is empty, too long or not UTF-8"))
}

impl<'a> Row<'a> {
    fn of(client: &'a Client) -> Self {
        Self {
            client_id: client.client_id.as_str(),
            session_id: client.session_id.0,
            remote_addr: client.remote_addr.to_string(),
            connected_ms: unix_ms(client.connected_at),
            last_seen_ms: unix_ms(client.last_seen),
        }
    }
}

impl Page {
    pub(super) fn parse(query: &str) -> Result<Self, Answer> {
        let mut page = Self {
            prefix: String::new(),
            after: String::new(),
            limit: LIMIT,
            is_of_fleet: false,
        };
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            match &*name {
                "prefix" => page.prefix = value.into_owned(),
                "after" => page.after = value.into_owned(),
                "limit" => {
                    let limit = value.parse().ok().filter(|n| (1..=MOST).contains(n));
                    page.limit = limit
                        .ok_or_else(|| bad_request("limit: give an integer from 1 to 1000"))?;
                }
                "scope" => {
                    page.is_of_fleet = match &*value {
                        "fleet" => true,
                        "node" => false,
                        _ => return Err(bad_request("scope: give node or fleet")),
                    }
                }
                _ => {
                    return Err(bad_request(
                        "the parameters are prefix, after, limit and scope",
                    ));
                }
            }
        }
        Ok(page)
    }
}

/// How many are listed when nothing is said, and at most.
const LIMIT: usize = 100;
const MOST: usize = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_of_the_list_has_a_prefix_a_beginning_and_a_limit() {
        let page = |prefix: &str, after: &str, limit| {
            Ok(Page {
                prefix: prefix.into(),
                after: after.into(),
                limit,
                is_of_fleet: false,
            })
        };
        for (query, expected) in [
            ("", page("", "", 100)),
            (
                "prefix=%C3%BC%2F&after=a+b&limit=1000",
                page("ü/", "a b", 1000),
            ),
            (
                "scope=fleet&limit=3",
                page("", "", 3).map(|page| Page {
                    is_of_fleet: true,
                    ..page
                }),
            ),
            ("scope=world", Err(400)),
            ("limit=0", Err(400)),
            ("limit=1001", Err(400)),
            ("limit=x", Err(400)),
            ("before=1", Err(400)),
        ] {
            let parsed = Page::parse(query).map_err(|refused| refused.status().as_u16());
            assert_eq!(parsed, expected, "{query}");
        }
    }
}
