//! `/api/v1/dead-letters`: what was given up, to be looked at, replayed or dropped.

use hyper::{Method, Request, StatusCode, body::Incoming};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    Answer, bad_request, failure, guard::Guard, method_not_allowed, nothing_here, ok, problem,
};
use crate::{
    dead_letters::Outline, error::Error, gateway::shared::Shared, types::DeadLetter, verbs,
};

/// Where they are; the rest of the path is empty or begins with a slash.
pub(super) const PATH: &str = "/api/v1/dead-letters";

/// What is asked for.
#[derive(Debug, PartialEq)]
enum Asked {
    /// `GET /api/v1/dead-letters?after=&limit=`
    List,
    /// `GET`, `DELETE /api/v1/dead-letters/<id>`
    One(Uuid),
    /// `POST /api/v1/dead-letters/<id>/replay`
    Replay(Uuid),
}

/// Which part of the list.
#[derive(Debug, PartialEq)]
struct Page {
    after: Option<Uuid>,
    limit: usize,
}

pub(super) async fn answer(
    shared: &Shared,
    guard: &Guard,
    request: &Request<Incoming>,
    rest: &str,
) -> Result<Answer, Answer> {
    match (Asked::parse(rest)?, request.method()) {
        (Asked::List, &Method::GET) => {
            list(shared, request.uri().query().unwrap_or_default()).await
        }
        (Asked::One(id), &Method::GET) => show(shared, id).await,
        (Asked::One(id), &Method::DELETE) => drop(shared, id).await, // a page needs leave to ask for that
        (Asked::Replay(id), &Method::POST) => replay(shared, guard, request, id).await,
        (Asked::List, _) => Err(method_not_allowed("GET")),
        (Asked::One(_), _) => Err(method_not_allowed("GET, DELETE")),
        (Asked::Replay(_), _) => Err(method_not_allowed("POST")),
    }
}

/// The letters after one, oldest uplink first, without their messages; `next` is where the list goes on, if it does.
async fn list(shared: &Shared, query: &str) -> Result<Answer, Answer> {
    let Page { mut after, limit } = Page::parse(query)?;
    let mut lines: Vec<Value> = Vec::new();
    while lines.len() < limit {
        // Few at a time: their messages are read too, and may be large.
        let wanted = (limit - lines.len()).min(READ_AT_ONCE);
        let letters = verbs::dead_letters(shared, after, wanted)
            .await
            .map_err(failure)?;
        lines.extend(letters.iter().map(|letter| json!(Outline::of(letter))));
        if letters.len() < wanted {
            return page(lines, None);
        }
        after = letters.last().map(|letter| letter.uplink.id);
    }
    page(lines, after)
}

fn page(lines: Vec<Value>, next: Option<Uuid>) -> Result<Answer, Answer> {
    let next = next.map(|id| id.to_string());
    ok(json!({ "dead_letters": lines, "next": next }))
}

async fn show(shared: &Shared, id: Uuid) -> Result<Answer, Answer> {
    let found = verbs::dead_letter(shared, id).await.map_err(failure)?;
    ok(json!(found.ok_or_else(|| unknown(id))?))
}

async fn replay(
    shared: &Shared,
    guard: &Guard,
    request: &Request<Incoming>,
    id: Uuid,
) -> Result<Answer, Answer> {
    guard.media_type(request)?;
    done(verbs::replay_dead_letter(shared, id).await, id, "replayed")
}

async fn drop(shared: &Shared, id: Uuid) -> Result<Answer, Answer> {
    done(verbs::drop_dead_letter(shared, id).await, id, "dropped")
}

fn done(outcome: Result<bool, Error>, id: Uuid, word: &str) -> Result<Answer, Answer> {
    match outcome.map_err(failure)? {
        true => ok(json!({ "status": word })),
        false => Err(unknown(id)),
    }
}

fn unknown(id: Uuid) -> Answer {
    problem(
        StatusCode::NOT_FOUND,
        format!("there is no dead letter {id}"),
    )
}

impl Asked {
    fn parse(rest: &str) -> Result<Self, Answer> {
        let id = |text: &str| {
            let parsed = text.parse();
            parsed.map_err(|_| bad_request("the id of a dead letter is a UUID"))
        };
        if rest.is_empty() {
            return Ok(Self::List);
        }
        let rest = rest.strip_prefix('/').ok_or_else(nothing_here)?;
        match rest.split_once('/') {
            None => id(rest).map(Self::One),
            Some((text, "replay")) => id(text).map(Self::Replay),
            Some(_) => Err(nothing_here()),
        }
    }
}

impl Page {
    fn parse(query: &str) -> Result<Self, Answer> {
        let mut page = Self {
            after: None,
            limit: LIMIT,
        };
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            match &*name {
                "after" if value.is_empty() => page.after = None,
                "after" => {
                    let id = value.parse();
                    page.after =
                        Some(id.map_err(|_| bad_request("after: give the id of a dead letter"))?);
                }
                "limit" => {
                    let limit = value.parse().ok();
                    let limit = limit.filter(|n| (1..=DeadLetter::MAX_LISTED).contains(n));
                    page.limit = limit
                        .ok_or_else(|| bad_request("limit: give an integer from 1 to 1000"))?;
                }
                _ => return Err(bad_request("the parameters are after and limit")),
            }
        }
        Ok(page)
    }
}

/// How many are listed when nothing is said.
const LIMIT: usize = 100;
/// How many a list takes from the spool at a time.
const READ_AT_ONCE: usize = 50;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_parameters_are_what_they_should_be() {
        let id = Uuid::now_v7();
        let status = |refused: Answer| refused.status().as_u16();
        for (rest, expected) in [
            (String::new(), Ok(Asked::List)),
            (format!("/{id}"), Ok(Asked::One(id))),
            (format!("/{id}/replay"), Ok(Asked::Replay(id))),
            ("s".into(), Err(404)),
            (format!("/{id}/drop"), Err(404)),
            ("/".into(), Err(400)),
            ("/x/replay".into(), Err(400)),
        ] {
            assert_eq!(Asked::parse(&rest).map_err(status), expected, "{rest}");
        }
        let page = |after, limit| Ok(Page { after, limit });
        for (query, expected) in [
            (String::new(), page(None, 100)),
            ("after=&limit=1".into(), page(None, 1)),
            (format!("limit=1000&after={id}"), page(Some(id), 1000)),
            ("limit=0".into(), Err(400)),
            ("limit=1001".into(), Err(400)),
            ("limit=-1".into(), Err(400)),
            ("after=1".into(), Err(400)),
            ("before=1".into(), Err(400)),
        ] {
            assert_eq!(Page::parse(&query).map_err(status), expected, "{query}");
        }
    }
}
