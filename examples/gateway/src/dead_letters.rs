//! `fastsock dead-letters`: what a running gateway has given up, listed, shown, replayed or dropped.

use std::{
    fmt::Write as _,
    process::ExitCode,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use hyper::Method;
use serde_json::Value;

use crate::{
    admin::{Admin, Call},
    flags::Letters,
    text::{plain, say, shown, text},
};

/// Does what is asked.
///
/// # Errors
/// One line: no gateway answers, it keeps no dead letters, or there is none with that id.
pub(crate) fn carry_out(admin: &Admin, asked: &Letters, is_json: bool) -> Result<ExitCode, String> {
    match asked {
        Letters::List { limit } => list(admin, *limit, is_json)?,
        Letters::Show { id } => show(admin, id, is_json)?,
        Letters::Replay(which) => each(admin, which.id.as_deref(), &REPLAY, is_json)?,
        Letters::Drop(which) => each(admin, which.id.as_deref(), &DROP, is_json)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn list(admin: &Admin, limit: usize, is_json: bool) -> Result<(), String> {
    let mut left = limit;
    let mut after = None;
    while left > 0 {
        let (letters, next) = page(admin, after.as_deref(), left.min(PAGE))?;
        for letter in &letters {
            let line = if is_json {
                letter.to_string()
            } else {
                line_of(letter, SystemTime::now())
            };
            if !say(&line) {
                return Ok(());
            }
        }
        left = left.saturating_sub(letters.len());
        match next {
            Some(_) => after = next,
            None => break,
        }
    }
    Ok(())
}

/// Letters after one, and where the list goes on.
fn page(
    admin: &Admin,
    after: Option<&str>,
    limit: usize,
) -> Result<(Vec<Value>, Option<String>), String> {
    let path = format!("{PATH}?limit={limit}&after={}", after.unwrap_or_default());
    let mut body = admin.call(Call::get(&path))?.body;
    match body["dead_letters"].take() {
        Value::Array(letters) => Ok((letters, body["next"].as_str().map(Into::into))),
        _ => Err("the gateway that answers knows no dead letters; is it an older one?".into()),
    }
}

fn show(admin: &Admin, id: &str, is_json: bool) -> Result<(), String> {
    let answer = admin.call(Call::get(&path_of(id)?))?;
    if answer.status != 200 {
        return Err(unknown(id));
    }
    let letter = answer.body;
    say(&if is_json {
        letter.to_string()
    } else {
        text_of(&letter)
    });
    Ok(())
}

/// One thing to do with letters.
struct Verb {
    method: Method,
    suffix: &'static str,
    done: &'static str,
}

const REPLAY: Verb = Verb {
    method: Method::POST,
    suffix: "/replay",
    done: "replayed",
};
const DROP: Verb = Verb {
    method: Method::DELETE,
    suffix: "",
    done: "dropped",
};

/// Does it to one letter, or (`None`) to all there are now.
fn each(admin: &Admin, id: Option<&str>, verb: &Verb, is_json: bool) -> Result<(), String> {
    let ids = match id {
        Some(id) => vec![id.to_owned()],
        None => all(admin)?,
    };
    for each in &ids {
        let path = path_of(each)? + verb.suffix;
        match (
            admin.call(Call::new(verb.method.clone(), &path))?.status,
            id,
        ) {
            (200, _) if is_json => {
                say(&serde_json::json!({ "id": each, "status": verb.done }).to_string())
            }
            (200, _) => say(&format!("{each} {}", verb.done)),
            (_, Some(_)) => return Err(unknown(each)),
            (_, None) => true, // somebody else was faster
        };
    }
    Ok(())
}

/// The ids of all letters, gathered first: a replayed one may come back as a letter at once.
fn all(admin: &Admin) -> Result<Vec<String>, String> {
    let mut ids = Vec::new();
    let mut after = None;
    loop {
        let (letters, next) = page(admin, after.as_deref(), PAGE)?;
        ids.extend(letters.iter().map(|letter| text(&letter["id"])));
        if next.is_none() {
            return Ok(ids);
        }
        after = next;
    }
}

/// An id as it is in a path; what is none must not become another path.
fn path_of(id: &str) -> Result<String, String> {
    if id.is_empty()
        || !id
            .bytes()
            .all(|byte| byte.is_ascii_hexdigit() || byte == b'-')
    {
        return Err(format!(
            "{id:?} is not the id of a dead letter; fastsock dead-letters list shows them"
        ));
    }
    Ok(format!("{PATH}/{id}"))
}

fn unknown(id: &str) -> String {
    format!("there is no dead letter {id}")
}

/// `id client_id reason status attempts age`; a device chose its name, so that is quoted unless it is plain.
fn line_of(letter: &Value, now: SystemTime) -> String {
    let status = match &letter["status"] {
        Value::Null => "-".into(),
        status => text(status),
    };
    let attempts = match letter["attempts"].as_u64() {
        Some(1) => "1 attempt".into(),
        attempts => format!("{} attempts", attempts.unwrap_or_default()),
    };
    let given_up =
        UNIX_EPOCH + Duration::from_millis(letter["given_up_ms"].as_u64().unwrap_or_default());
    let age = now.duration_since(given_up).unwrap_or_default().as_secs();
    format!(
        "{} {} {} {status} {attempts} {}",
        text(&letter["id"]),
        plain(&letter["client_id"], char::is_whitespace),
        text(&letter["reason"]),
        humantime::format_duration(Duration::from_secs(age))
            .to_string()
            .replace(' ', "")
    )
}

/// A name and a value a line, the headers, and the message after an empty line.
fn text_of(letter: &Value) -> String {
    let mut text = String::new();
    for name in [
        "id",
        "client_id",
        "session_id",
        "seq",
        "reason",
        "status",
        "error",
        "attempts",
    ] {
        if !letter[name].is_null() {
            let _ = writeln!(text, "{name}: {}", plain(&letter[name], char::is_control));
        }
    }
    for name in ["received", "first_attempt", "last_attempt", "given_up"] {
        if let Some(ms) = letter[format!("{name}_ms")].as_u64() {
            let time = UNIX_EPOCH + Duration::from_millis(ms);
            let _ = writeln!(text, "{name}: {}", humantime::format_rfc3339_millis(time));
        }
    }
    for (name, value) in letter["headers"].as_object().into_iter().flatten() {
        let _ = writeln!(text, "header {name}: {}", plain(value, char::is_control));
    }
    if let Some(encoding) = letter["encoding"].as_str() {
        let _ = writeln!(text, "encoding: {encoding}");
    }
    let _ = write!(
        text,
        "\n{}",
        shown(letter["data"].as_str().unwrap_or_default())
    );
    text
}

const PATH: &str = "/api/v1/dead-letters";
/// How many are asked for at a time.
const PAGE: usize = 1000;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_letter_is_a_line_or_a_page() {
        let mut letter = json!({
            "id": "0-1", "client_id": "dev1", "session_id": 7, "seq": 1, "reason": "rejected", "status": 400,
            "error": "answered 400", "attempts": 1, "received_ms": 1000, "first_attempt_ms": 1001,
            "last_attempt_ms": 1002, "given_up_ms": 2000, "bytes": 2, "headers": {"a": "b"}, "data": "x\u{1b}\ny",
        });
        let now = UNIX_EPOCH + Duration::from_secs(3667);
        assert_eq!(
            line_of(&letter, now),
            "0-1 dev1 rejected 400 1 attempt 1h1m5s"
        );
        let page = text_of(&letter);
        assert!(page.contains("error: answered 400\n"), "{page}");
        assert!(
            page.contains("given_up: 1970-01-01T00:00:02.000Z\nheader a: b\n"),
            "{page}"
        );
        assert!(page.ends_with("\n\nx\\u{1b}\ny"), "{page}");

        letter["client_id"] = json!("a\nb");
        letter["status"] = json!(null);
        letter["attempts"] = json!(0);
        assert_eq!(
            line_of(&letter, UNIX_EPOCH),
            r#"0-1 "a\nb" rejected - 0 attempts 0s"#
        );
    }

    #[test]
    fn only_what_may_be_an_id_gets_into_a_path() {
        assert_eq!(path_of("019a-F").unwrap(), "/api/v1/dead-letters/019a-F");
        for bad in ["", "../stats", "a b", "x", "1?a=b", "1\r\nX: y"] {
            assert!(path_of(bad).is_err(), "{bad}");
        }
    }
}
