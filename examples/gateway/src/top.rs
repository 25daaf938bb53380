//! `fastsock top`: a gateway in the terminal, looked at again and again.

use std::{
    io::{self, IsTerminal, Write},
    process::ExitCode,
    thread,
    time::Duration,
};

use serde_json::Value;

use crate::{
    admin::{Admin, Call},
    text::{plain, say, text},
};

/// Looks each `every` seconds, so many times; 0: until it is ended. On a terminal each look takes the place of the one before.
pub(crate) fn run(admin: &Admin, every: f64, count: u64) -> Result<ExitCode, String> {
    let every = Duration::try_from_secs_f64(every.clamp(0.1, 3600.0));
    let every = every.map_err(|_| "--every: give seconds from 0.1 to 3600".to_owned())?;
    let mut before = None;
    let mut looked = 0;
    loop {
        let now = admin.call(Call::get("/api/v1/status"))?.body;
        let lines = lines(&now, before.as_ref());
        if !show(&lines) {
            return Ok(ExitCode::SUCCESS);
        }
        looked += 1;
        if looked == count {
            return Ok(ExitCode::SUCCESS);
        }
        before = Some(now);
        thread::sleep(every);
    }
}

/// `false` when nobody reads any more.
fn show(lines: &[String]) -> bool {
    if !io::stdout().is_terminal() {
        return lines.iter().all(|line| say(line)) && say("");
    }
    let size = rustix::termios::tcgetwinsize(io::stdout()).ok();
    let (columns, rows) = size
        .map(|size| (usize::from(size.ws_col), usize::from(size.ws_row)))
        .filter(|size| *size != (0, 0)) // a terminal that does not know
        .unwrap_or((80, 24));
    // To the corner, each line up to its end and cut at the edge, and nothing below.
    let mut screen = String::from("\x1b[?7l\x1b[H");
    screen += &fitted(lines, columns, rows).join("\x1b[K\n");
    screen += "\x1b[K\x1b[J\x1b[?7h";
    let mut out = io::stdout().lock();
    out.write_all(screen.as_bytes())
        .and_then(|()| out.flush())
        .is_ok()
}

/// The same in a terminal of that size: a longer line goes on below its text, from a comma or a semicolon, and what is too much is left out
/// at the end.
fn fitted(lines: &[String], columns: usize, rows: usize) -> Vec<String> {
    let mut fitted = Vec::new();
    for line in lines {
        let mut row = String::new();
        for part in line.split_inclusive([',', ';']) {
            let width = row.chars().count() + part.trim_end().chars().count();
            if width > columns && !row.trim().is_empty() {
                fitted.push(std::mem::replace(&mut row, " ".repeat(INDENT)));
                row += part.trim_start();
            } else {
                row += part;
            }
        }
        fitted.push(row);
    }
    fitted.truncate(rows.max(1));
    fitted
}

/// Where the text of a line begins, behind what it is about.
const INDENT: usize = 11;

/// A gateway in some lines, with rates since the look before.
pub(crate) fn lines(now: &Value, before: Option<&Value>) -> Vec<String> {
    let seconds =
        before.map(|before| (float(&now["uptime_ms"]) - float(&before["uptime_ms"])) / 1e3);
    let rate = |part: &str, of: &str| match (before, seconds) {
        (Some(before), Some(seconds)) if seconds > 0.0 => {
            let grown = float(&now[part][of]) - float(&before[part][of]);
            format!("{:.1}/s", grown.max(0.0) / seconds)
        }
        _ => format!("{} since the start", now[part][of]),
    };
    let (up, down, spool) = (&now["uplinks"], &now["downlinks"], &now["spool"]);
    // Of the last minute; what was long ago says nothing of now.
    let p = |of: &Value| match of["recent"].as_u64() {
        Some(0) => "none in the last minute".into(),
        _ => format!(
            "50 % within {}, 99 % within {}",
            time(&of["recent_p50_ms"]),
            time(&of["recent_p99_ms"])
        ),
    };
    let mut lines = vec![
        format!(
            "fastsock {} {}, up {}, node {}",
            text(&now["version"]),
            text(&now["state"]),
            time(&now["uptime_ms"]),
            text(&now["node"])
        ),
        format!(
            "devices    {} connected, {} since the start, {} handshakes refused",
            now["devices"], now["sessions_opened"], now["handshakes_refused"]
        ),
        format!(
            "uplinks    {} received, {} delivered, {} lost",
            rate("uplinks", "received"),
            rate("uplinks", "delivered"),
            up["lost"]
        ),
        format!(
            "           {} held ({}), the oldest for {}; device to 2xx: {}",
            up["held"],
            bytes(&up["held_bytes"]),
            time(&up["oldest_ms"]),
            p(&up["delivery"])
        ),
        format!(
            "downlinks  {} received, {} delivered, {} lost",
            rate("downlinks", "received"),
            rate("downlinks", "delivered"),
            down["lost"]
        ),
        format!(
            "           {} held ({}); the slowest socket has taken nothing for {}",
            down["held"],
            bytes(&down["held_bytes"]),
            time(&down["stalled_ms"])
        ),
    ];
    for to in now["destinations"].as_array().into_iter().flatten() {
        lines.push(format!(
            "{:<10} breaker {}, {} POSTs ok, {} failed, {} in flight",
            text(&to["name"]),
            text(&to["breaker"]),
            to["posts_ok"],
            to["posts_failed"],
            to["in_flight"],
        ));
        lines.push(format!("           a POST: {}", p(&to["post"])));
    }
    let redis = &now["redis"];
    lines.push(match redis.is_object() {
        false => "redis      none".into(),
        true => {
            let up = |name: &str| if redis[name] == true { "up" } else { "DOWN" };
            let refusing = if redis["is_refusing"] == true {
                ", REFUSES something (see the log)"
            } else {
                ""
            };
            format!(
                "redis      commands {}, downlinks {}{refusing}, heard {} ago, {} gaps ({})",
                up("is_cmd_up"),
                up("is_sub_up"),
                time(&redis["heard_ms_ago"]),
                redis["gaps"],
                time(&redis["gap_ms"])
            )
        }
    });
    let failing = if spool["is_failing"] == true {
        ", TAKES NOTHING"
    } else {
        ""
    };
    lines.push(format!(
        "spool      {}{failing}{}, {} dead letters",
        text(&spool["kind"]),
        fill(&now["limits"]),
        spool["dead_letters"]
    ));
    for limit in now["limits"].as_array().into_iter().flatten() {
        let part = used(limit);
        if part >= 50.0 {
            lines.push(format!(
                "limit      {} is {part:.0} % used",
                text(&limit["name"])
            ));
        }
    }
    let slowest = now["slowest"].as_array().into_iter().flatten().take(5);
    let slowest: Vec<_> = slowest
        .map(|device| {
            format!(
                "{} {}",
                plain(&device["client_id"], char::is_whitespace),
                time(&device["round_trip_ms"])
            )
        })
        .collect();
    if !slowest.is_empty() {
        lines.push(format!("round trip {}", slowest.join(", ")));
    }
    lines
}

/// Milliseconds as people say them.
pub(crate) fn time(ms: &Value) -> String {
    let Some(ms) = ms.as_f64() else {
        return "-".into();
    };
    match ms {
        ms if ms >= 86_400e3 => format!("{:.1} d", ms / 86_400e3),
        ms if ms >= 3_600e3 => format!("{:.1} h", ms / 3_600e3),
        ms if ms >= 60e3 => format!("{:.1} min", ms / 60e3),
        ms if ms >= 1e3 => format!("{:.1} s", ms / 1e3),
        ms => format!("{ms:.1} ms"),
    }
}

fn bytes(value: &Value) -> String {
    match float(value) {
        n if n >= 1048576.0 => format!("{:.1} MiB", n / 1048576.0),
        n if n >= 1024.0 => format!("{:.1} KiB", n / 1024.0),
        n => format!("{n:.0} B"),
    }
}

fn float(value: &Value) -> f64 {
    value.as_f64().unwrap_or_default()
}

/// How full it is where uplinks wait: by bytes or by messages, whichever comes to its limit first.
fn fill(limits: &Value) -> String {
    let is_spool = |limit: &&Value| {
        let name = limit["name"].as_str().unwrap_or_default();
        [
            "spool_max_bytes",
            "spool_max_messages",
            "uplink_total_bytes",
        ]
        .contains(&name)
    };
    let all = limits.as_array().into_iter().flatten().filter(is_spool);
    // The last of equals is taken: from behind that is the first.
    let fullest = all.rev().max_by(|a, b| used(a).total_cmp(&used(b)));
    fullest.map_or_else(String::new, |limit| {
        let name = text(&limit["name"]);
        let show = match name.ends_with("bytes") {
            true => bytes,
            false => text,
        };
        format!(
            ", {:.0} % of {name} used ({} of {})",
            used(limit),
            show(&limit["used"]),
            show(&limit["limit"])
        )
    })
}

/// How much of a limit is used, in percent.
fn used(limit: &Value) -> f64 {
    100.0 * float(&limit["used"]) / float(&limit["limit"]).max(1.0)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn two_looks_make_rates_and_a_name_is_quoted_where_a_terminal_could_mistake_it() {
        let look = |uptime: u64, received: u64| {
            json!({
                "version": "1", "state": "running", "uptime_ms": uptime, "node": "n", "devices": 1, "sessions_opened": 1,
                "handshakes_refused": 0, "uplinks": {"received": received, "delivered": 0, "lost": 0, "held": 2,
                "held_bytes": 2048, "oldest_ms": 61000.0, "delivery": {"recent": 7, "recent_p50_ms": null, "recent_p99_ms": 2.5}},
                "downlinks": {"received": 0, "delivered": 0, "lost": 0, "held": 0, "held_bytes": 0, "stalled_ms": 0.0},
                "destinations": [{"name": "remote", "breaker": "open", "in_flight": 0, "posts_ok": 1, "posts_failed": 2,
                "post": {"recent": 0, "recent_p50_ms": null, "recent_p99_ms": null}}], "redis": null,
                "spool": {"kind": "memory", "is_failing": false, "dead_letters": 0},
                "limits": [{"name": "limit_connections", "used": 9, "limit": 10},
                {"name": "uplink_total_bytes", "used": 2048, "limit": 8192}],
                "slowest": [{"client_id": "a\u{1b}[2J", "round_trip_ms": 1234.5}],
            })
        };
        let (before, now) = (look(1000, 10), look(3000, 30));
        let text = lines(&now, Some(&before)).join("\n");
        for part in [
            "10.0/s received",
            "2 held (2.0 KiB), the oldest for 1.0 min",
            "99 % within 2.5 ms",
            "a POST: none in the last minute",
            "breaker open",
            "limit_connections is 90 % used",
            "spool      memory, 25 % of uplink_total_bytes used (2.0 KiB of 8.0 KiB), 0 dead",
            r#""a\u{1b}[2J" 1.2 s"#,
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
        assert!(lines(&now, None)[2].contains("30 since the start received"));
    }

    #[test]
    fn the_spool_is_as_full_as_the_limit_that_it_comes_to_first() {
        let fullness = |messages: u64| {
            fill(&json!([
                {"name": "limit_connections", "used": 10, "limit": 10},
                {"name": "spool_max_messages", "used": messages, "limit": 1000},
                {"name": "spool_max_bytes", "used": 2048, "limit": 4096},
                {"name": "dead_letters_max", "used": 10, "limit": 10},
            ]))
        };
        assert!(
            fullness(500).contains("spool_max_messages"),
            "the first of equals"
        );
        assert_eq!(
            fullness(400),
            ", 50 % of spool_max_bytes used (2.0 KiB of 4.0 KiB)"
        );
        assert_eq!(
            fullness(900),
            ", 90 % of spool_max_messages used (900 of 1000)"
        );
    }

    #[test]
    fn a_narrow_terminal_gets_more_rows_and_loses_no_word() {
        let lines = [
            "devices    12 connected, 345 since the start, 6 handshakes refused".to_owned(),
            "spool      memory".to_owned(),
        ];
        for columns in [40, 80, 200] {
            let shown = fitted(&lines, columns, 24);
            assert!(shown.iter().all(|row| row.chars().count() <= columns));
            let words = |lines: &[String]| {
                let words = lines.iter().flat_map(|line| line.split_whitespace());
                words.map(str::to_owned).collect::<Vec<_>>()
            };
            assert_eq!(words(&shown), words(&lines), "{columns}");
        }
        let shown = fitted(&lines, 40, 24);
        assert_eq!(shown[1], "           345 since the start,");
        assert_eq!(shown.len(), 4);
        assert_eq!(fitted(&lines, 40, 2).len(), 2);
        assert_eq!(fitted(&lines, 1, 0).len(), 1);
    }
}
