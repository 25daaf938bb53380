//! Settings that are read again while the program runs (SIGHUP).

use tracing::{error, info, warn};

use super::{Known, Program, Settings, all_known};

/// Takes the log's settings from what was read again, and names what only a restart changes. Returns what was read, for the bridge.
pub(crate) fn reload(
    running: &Settings,
    again: Result<Settings, String>,
    adjust_log: &impl Fn(&Program),
) -> Option<Settings> {
    let again = match again {
        Ok(again) => again,
        Err(lines) => {
            for line in lines.lines() {
                error!(error = line, "Settings cannot be read again; they stay");
            }
            return None;
        }
    };
    adjust_log(again.program());
    info!(
        level = again.program().log_level.as_str(),
        payloads = again.program().log_payloads.as_str(),
        "Log settings reloaded"
    );
    let differs = |known: &Known| running.show(*known) != again.show(*known);
    let waiting = all_known().filter(differs).map(Known::variable);
    let waiting: Vec<_> = waiting.filter(|name| !AT_ONCE.contains(name)).collect();
    if !waiting.is_empty() {
        warn!(
            settings = waiting.join(", "),
            "Settings have changed that count from the next start on"
        );
    }
    Some(again)
}

/// What counts at once.
const AT_ONCE: [&str; 6] = [
    "LOG_LEVEL",
    "FASTSOCK_LOG_PAYLOADS",
    "FASTSOCK_LIMIT_CONNECTIONS",
    "FASTSOCK_LIMIT_CONNECTIONS_PER_IP",
    "FASTSOCK_LIMIT_ACCEPTS",
    "FASTSOCK_LIMIT_HANDSHAKES",
];
