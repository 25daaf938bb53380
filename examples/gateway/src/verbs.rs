//! `fastsock status`, `clients`, `send`, `call`, `kick`, `drain` and `trace`: one question to a running gateway each.

use std::{
    io::{self, Read},
    process::ExitCode,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use fastsock::Config;
use hyper::Method;
use serde_json::{Value, json};

use crate::{
    admin::{Admin, Call, TIME_OUT, segment},
    dead_letters,
    flags::Verb,
    text::{plain, say, shown},
    top,
};

/// Asks the gateway that the settings name.
///
/// # Errors
/// One line: no gateway answers, or it refuses.
pub(crate) fn carry_out(verb: &Verb, config: &Config) -> Result<ExitCode, String> {
    let admin = Admin::of(config)?;
    match verb {
        Verb::Status { json } => status(&admin, *json),
        Verb::Clients {
            client_id: Some(id),
            json,
            ..
        } => client(&admin, id, *json),
        Verb::Clients {
            prefix,
            limit,
            json,
            ..
        } => clients(&admin, prefix, *limit, *json),
        Verb::Send {
            client_id,
            message,
            raw,
        } => send(&admin, client_id, message.as_deref(), *raw),
        Verb::Call {
            client_id,
            message,
            ocpp,
            r#match,
            timeout,
        } => ask(&admin, client_id, message, *ocpp, r#match, *timeout),
        Verb::Kick { client_id } => kick(&admin, client_id),
        Verb::Drain { window } => drain(&admin, window.as_deref()),
        Verb::Top { every, count } => top::run(&admin, *every, *count),
        Verb::Trace {
            client_id,
            payloads,
            json,
        } => trace(&admin, client_id, *payloads, *json),
        Verb::DeadLetters { asked, json } => dead_letters::carry_out(&admin, asked, *json),
    }
}

fn status(admin: &Admin, is_json: bool) -> Result<ExitCode, String> {
    let now = admin.call(Call::get("/api/v1/status"))?.body;
    let lines = match is_json {
        true => vec![now.to_string()],
        false => top::lines(&now, None),
    };
    lines.iter().all(|line| say(line));
    Ok(match now["state"].as_str() {
        Some("running" | "degraded") => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    })
}

fn clients(
    admin: &Admin,
    prefix: &str,
    limit: Option<usize>,
    is_json: bool,
) -> Result<ExitCode, String> {
    let (mut left, mut after) = (limit.unwrap_or(usize::MAX), String::new());
    while left > 0 {
        let (prefix, begin, most) = (segment(prefix), segment(&after), left.min(PAGE));
        let path = format!("/api/v1/clients?prefix={prefix}&after={begin}&limit={most}");
        let body = admin.call(Call::get(&path))?.body;
        let page = body["clients"].as_array().ok_or(OLDER)?;
        for client in page {
            let line = match is_json {
                true => client.to_string(),
                false => format!(
                    "{} {} connected {} ago, last message {} ago",
                    plain(&client["client_id"], char::is_whitespace),
                    plain(&client["remote_addr"], char::is_whitespace),
                    age(&client["connected_ms"]),
                    age(&client["last_seen_ms"]),
                ),
            };
            if !say(&line) {
                return Ok(ExitCode::SUCCESS);
            }
        }
        left = left.saturating_sub(page.len());
        match body["next"].as_str() {
            Some(next) => after = next.into(),
            None => break,
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn client(admin: &Admin, id: &str, is_json: bool) -> Result<ExitCode, String> {
    let path = format!("/api/v1/clients/{}", segment(id));
    let device = admin.call(Call::get(&path))?.body;
    if is_json {
        say(&device.to_string());
        return Ok(ExitCode::SUCCESS);
    }
    say(&format!(
        "{} is {}",
        plain(&device["client_id"], char::is_control),
        plain(&device["presence"], char::is_control)
    ));
    let node = &device["node"];
    if device["presence"] == "elsewhere" && node.is_object() {
        say(&format!(
            "  at {} ({}), session {}",
            plain(&node["name"], char::is_control),
            plain(&node["id"], char::is_control),
            node["session_id"]
        ));
    }
    let session = &device["session"];
    if session.is_object() {
        let when = |name: &str| match &session[name] {
            Value::Null => "never".into(),
            ms => format!("{} ago", age(ms)),
        };
        let protocol = session["protocol"].as_str().filter(|p| !p.is_empty());
        say(&format!(
            "  session {} from {} since {}",
            session["session_id"],
            plain(&session["remote_addr"], char::is_control),
            date(&session["connected_ms"])
        ));
        say(&format!("  protocol {}", protocol.unwrap_or("none")));
        say(&format!(
            "  last uplink {}, last downlink {}",
            when("last_uplink_ms"),
            when("last_downlink_ms")
        ));
        say(&format!(
            "  last pong {}, round trip {}",
            when("last_pong_ms"),
            top::time(&session["round_trip_ms"])
        ));
        say(&format!(
            "  outbox {} messages, {} bytes",
            session["outbox_messages"], session["outbox_bytes"]
        ));
    }
    say(&format!(
        "  waiting uplinks {}, {} bytes",
        device["uplinks_waiting"], device["uplinks_waiting_bytes"]
    ));
    let last = &device["last_disconnect"];
    if last.is_object() {
        let code = last["code"]
            .as_u64()
            .map_or_else(String::new, |code| format!(" ({code})"));
        let reason = plain(&last["reason"], char::is_control);
        say(&format!(
            "  last disconnect {reason}{code} at {}, {} ago",
            date(&last["left_ms"]),
            age(&last["left_ms"])
        ));
    }
    Ok(ExitCode::SUCCESS)
}

fn send(admin: &Admin, id: &str, message: Option<&str>, is_raw: bool) -> Result<ExitCode, String> {
    let path = format!("/api/v1/clients/{}/messages", segment(id));
    let call = Call::new(Method::POST, &path);
    let call = match message {
        Some(message) => call.with("application/json", json!({ "data": message }).to_string()),
        None => {
            let mut read = Vec::new();
            let done = io::stdin().lock().read_to_end(&mut read);
            done.map_err(|e| format!("standard input cannot be read: {e}"))?;
            if !is_raw && read.ends_with(b"\n") {
                read.pop(); // of the line that was typed
            }
            call.with("application/octet-stream", read)
        }
    };
    let answer = admin.call(call)?;
    match answer.body["sent"].as_str() {
        Some("here") => say("sent"),
        Some("elsewhere") => say("passed on to the gateway that has the device"),
        _ => return Err(format!("{id:?} is not connected to any gateway")),
    };
    Ok(ExitCode::SUCCESS)
}

fn ask(
    admin: &Admin,
    id: &str,
    message: &str,
    is_ocpp: bool,
    matcher: &[String],
    timeout_ms: u64,
) -> Result<ExitCode, String> {
    let mut body = json!({ "data": message, "timeout": timeout_ms });
    match matcher {
        [pointer, value] => {
            let value = serde_json::from_str::<Value>(value);
            let value = value.map_err(|e| format!("--match: the value is not JSON: {e}"))?;
            body["match"] = json!({ "pointer": pointer, "value": value });
        }
        _ => body["ocpp"] = is_ocpp.into(),
    }
    let path = format!("/api/v1/clients/{}/call", segment(id));
    let mut call = Call::new(Method::POST, &path).with("application/json", body.to_string());
    call.patience = Duration::from_millis(timeout_ms) + TIME_OUT;
    let answer = admin.call(call)?;
    match (answer.body["data"].as_str(), answer.status) {
        (Some(data), 200) => say(&shown(data)),
        _ => return Err(format!("{id:?} is not connected to any gateway")),
    };
    Ok(ExitCode::SUCCESS)
}

fn kick(admin: &Admin, id: &str) -> Result<ExitCode, String> {
    let path = format!("/api/v1/clients/{}", segment(id));
    let answer = admin.call(Call::new(Method::DELETE, &path))?;
    if answer.status == 404 {
        return Err(format!("{id:?} is not connected to any gateway"));
    }
    match answer.status {
        202 => say("the gateway that has the device is asked to kick it"),
        _ => say("kicked"),
    };
    Ok(ExitCode::SUCCESS)
}

fn drain(admin: &Admin, window: Option<&str>) -> Result<ExitCode, String> {
    let body = window.map_or_else(|| json!({}), |window| json!({ "window": window }));
    let call = Call::new(Method::POST, "/api/v1/drain").with("application/json", body.to_string());
    let answer = admin.call(call)?;
    say(&format!(
        "draining over {}",
        top::time(&answer.body["window_ms"])
    ));
    Ok(ExitCode::SUCCESS)
}

fn trace(admin: &Admin, id: &str, payloads: bool, is_json: bool) -> Result<ExitCode, String> {
    let path = format!(
        "/api/v1/trace?client_id={}&payloads={payloads}",
        segment(id)
    );
    admin.events(&path, |event| {
        say(&match is_json {
            true => event.to_string(),
            false => line_of(&event),
        })
    })?;
    Ok(ExitCode::SUCCESS)
}

/// `time event name=value …`, and the payload behind it.
fn line_of(event: &Value) -> String {
    let time = event["at_ms"].as_u64().unwrap_or_default();
    let time = humantime::format_rfc3339_millis(UNIX_EPOCH + Duration::from_millis(time));
    let mut line = format!("{time} {}", plain(&event["event"], char::is_whitespace));
    for (name, value) in event.as_object().into_iter().flatten() {
        if !matches!(name.as_str(), "at_ms" | "event" | "client_id" | "data") && !value.is_null() {
            line += &format!(" {name}={}", plain(value, char::is_whitespace));
        }
    }
    if let Some(data) = event["data"].as_str() {
        line += &format!(" {}", shown(data).replace('\n', "\\n"));
    }
    line
}

fn age(ms: &Value) -> String {
    let at = UNIX_EPOCH + Duration::from_millis(ms.as_u64().unwrap_or_default());
    let age = SystemTime::now().duration_since(at).unwrap_or_default();
    top::time(&json!(age.as_millis() as u64))
}

fn date(ms: &Value) -> String {
    let at = UNIX_EPOCH + Duration::from_millis(ms.as_u64().unwrap_or_default());
    humantime::format_rfc3339_seconds(at).to_string()
}

const PAGE: usize = 1000;
const OLDER: &str = "the gateway that answers cannot list its devices; is it an older one?";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_a_line_whatever_a_device_sent() {
        let event = json!({
            "at_ms": 1500, "client_id": "dev1", "event": "uplink", "session_id": 7, "seq": 1, "bytes": 4,
            "is_text": true, "data": "a\n\u{1b}[2J", "error": null,
        });
        let line = line_of(&event);
        assert!(
            line.starts_with("1970-01-01T00:00:01.500Z uplink "),
            "{line}"
        );
        assert!(
            line.contains(" seq=1 ") && !line.contains("error"),
            "{line}"
        );
        assert!(line.ends_with(r" a\n\u{1b}[2J"), "{line}");
    }
}
