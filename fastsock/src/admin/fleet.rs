//! `/api/v1/nodes` and `/api/v1/online`: what one gateway knows of all that share its Redis.

use std::collections::BTreeMap;

use hyper::{Request, StatusCode, body::Incoming};
use serde::Deserialize;
use serde_json::json;

use super::{Admin, Answer, failure, json as answer_json, messages::body, problem};
use crate::{gateway::shared::Shared, types::ClientId, verbs};

/// Who is asked about.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OnlineBody {
    client_ids: Vec<String>,
}

/// `GET /api/v1/nodes`: the gateways, by name.
pub(super) async fn nodes(shared: &Shared) -> Result<Answer, Answer> {
    let nodes = verbs::fleet::nodes(shared).await;
    let nodes = nodes.map_err(|error| failure(&error))?;
    Ok(answer_json(StatusCode::OK, json!({ "nodes": nodes })))
}

/// `POST /api/v1/online`: for each of some ids whether the device is connected to any gateway.
pub(super) async fn online(admin: &Admin, request: Request<Incoming>) -> Result<Answer, Answer> {
    admin.guard.media_type(&request)?;
    let (body, _room) = body(admin, request.into_body()).await?;
    let bad = |text: &str| problem(StatusCode::BAD_REQUEST, text);
    let asked: OnlineBody = serde_json::from_slice(&body)
        .map_err(|_| bad("the body must be {\"client_ids\":[\"dev1\",…]}"))?;
    if asked.client_ids.len() > IDS_MAX {
        return Err(bad("client_ids: at most 10000"));
    }
    let ids: Option<Vec<_>> = asked.client_ids.into_iter().map(ClientId::new).collect();
    let ids = ids.ok_or_else(|| bad("client_ids: one is empty or too long"))?;
    let online = verbs::fleet::are_online(&admin.shared, &ids).await;
    let online = online.map_err(|error| failure(&error))?;
    let online: BTreeMap<_, _> = ids.iter().map(ClientId::as_str).zip(online).collect();
    Ok(answer_json(StatusCode::OK, json!({ "online": online })))
}

const IDS_MAX: usize = 10_000;
