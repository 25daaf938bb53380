//! `/api/v1/nodes` and `/api/v1/online`: what one gateway knows of all that share its Redis.

use std::collections::BTreeMap;

use hyper::{Method, Request, body::Incoming};
use serde::Deserialize;
use serde_json::json;

use super::{Admin, Answer, bad_request, failure, messages::body, ok, only};
use crate::{gateway::shared::Shared, types::ClientId, verbs};

/// Who is asked about.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OnlineBody {
    client_ids: Vec<String>,
}

/// `GET /api/v1/nodes`: the gateways, by name.
pub(super) async fn nodes(shared: &Shared, request: &Request<Incoming>) -> Result<Answer, Answer> {
    only(Method::GET, request)?;
    let nodes = verbs::fleet::nodes(shared).await.map_err(failure)?;
    ok(json!({ "nodes": nodes }))
}

/// `POST /api/v1/online`: for each of some ids whether the device is connected to any gateway.
pub(super) async fn online(admin: &Admin, request: Request<Incoming>) -> Result<Answer, Answer> {
    only(Method::POST, &request)?;
    admin.guard.media_type(&request)?;
    let (body, _room) = body(admin, request.into_body()).await?;
    let asked: OnlineBody = serde_json::from_slice(&body)
        .map_err(|_| bad_request("the body must be {\"client_ids\":[\"dev1\",…]}"))?;
    if asked.client_ids.len() > IDS_MAX {
        return Err(bad_request("client_ids: at most 10000"));
    }
    let ids: Option<Vec<_>> = asked.client_ids.into_iter().map(ClientId::new).collect();
    let ids = ids.ok_or_else(|| bad_request("client_ids: one is empty or too long"))?;
    let online = verbs::fleet::are_online(&admin.shared, &ids)
        .await
        .map_err(failure)?;
    let online: BTreeMap<_, _> = ids.iter().map(ClientId::as_str).zip(online).collect();
    ok(json!({ "online": online }))
}

const IDS_MAX: usize = 10_000;
