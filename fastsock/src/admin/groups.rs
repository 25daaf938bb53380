//! `/api/v1/groups` and `/api/v1/broadcast`: one message for many devices, and who is in which group.

use hyper::{Method, Request, StatusCode, body::Incoming};
use serde_json::json;

use super::{
    Admin, Answer, bad_request,
    clients::{self, Page},
    failure, json as answer_json,
    messages::{self, status_of},
    method_not_allowed, nothing_here, ok, only,
};
use crate::verbs;

pub(super) const PATH: &str = "/api/v1/groups";
pub(super) const BROADCAST: &str = "/api/v1/broadcast";

/// Answers a call; `rest` is what follows [`PATH`].
pub(super) async fn answer(
    admin: &Admin,
    request: Request<Incoming>,
    rest: &str,
) -> Result<Answer, Answer> {
    match rest.strip_prefix('/').filter(|rest| !rest.is_empty()) {
        None => list(admin, &request),
        Some(rest) => {
            if let Some(group) = rest.strip_suffix("/messages") {
                send(admin, request, group).await
            } else if let Some((group, id)) = rest.split_once("/members/") {
                change(admin, &request, group, id).await
            } else {
                Err(nothing_here())
            }
        }
    }
}

/// `POST /api/v1/broadcast`: 202, and how many gateways heard it.
pub(super) async fn broadcast(admin: &Admin, request: Request<Incoming>) -> Result<Answer, Answer> {
    let (payload, _room) = messages::plain(admin, request).await?;
    let sent = verbs::broadcast(&admin.shared, payload).await;
    heard(sent.map_err(failure)?)
}

/// `GET /api/v1/groups`: those that have members on this gateway.
fn list(admin: &Admin, request: &Request<Incoming>) -> Result<Answer, Answer> {
    only(Method::GET, request)?;
    let page = Page::parse(request.uri().query().unwrap_or_default())?;
    let mut found = verbs::groups(&admin.shared, &page.prefix, &page.after, page.limit + 1);
    let next = (found.len() > page.limit).then(|| {
        found.truncate(page.limit);
        found[page.limit - 1].name.clone()
    });
    let rows = found.iter();
    let rows: Vec<_> = rows
        .map(|group| json!({ "name": group.name, "members": group.members }))
        .collect();
    ok(json!({ "groups": rows, "next": next }))
}

/// `POST /api/v1/groups/<name>/messages`: 202, and how many gateways heard it.
async fn send(admin: &Admin, request: Request<Incoming>, group: &str) -> Result<Answer, Answer> {
    let group = name(group)?;
    let (payload, _room) = messages::plain(admin, request).await?;
    let sent = verbs::send_group(&admin.shared, &group, payload).await;
    heard(sent.map_err(failure)?)
}

fn heard(gateways: u64) -> Result<Answer, Answer> {
    Ok(answer_json(
        StatusCode::ACCEPTED,
        json!({ "gateways": gateways }),
    ))
}

/// `PUT` and `DELETE /api/v1/groups/<name>/members/<id>`: 200 done here, 202 passed on, 410 offline.
async fn change(
    admin: &Admin,
    request: &Request<Incoming>,
    group: &str,
    id: &str,
) -> Result<Answer, Answer> {
    let joins = match *request.method() {
        Method::PUT => true,
        Method::DELETE => false,
        _ => return Err(method_not_allowed("PUT, DELETE")),
    };
    let (group, client_id) = (name(group)?, clients::client_id(id)?);
    let changed = verbs::change_group(&admin.shared, &client_id, &group, joins)
        .await
        .map_err(failure)?;
    Ok(answer_json(
        status_of(changed),
        json!({ "device": changed.as_str() }),
    ))
}

/// The name of a group in a path.
fn name(segment: &str) -> Result<String, Answer> {
    let decoded = percent_encoding::percent_decode_str(segment).decode_utf8();
    let name = decoded.ok().filter(|_| !segment.contains('/'));
    name.map(|name| name.into_owned()).ok_or_else(|| {
        bad_request("the name of the group is not UTF-8, or has a / that is not encoded")
    })
}
