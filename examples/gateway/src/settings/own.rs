//! The settings that only the program has: its log and its threads.

use std::path::PathBuf;

use fastsock::{HostSetting, ValueKind};

use crate::logging::{Level, Payloads, rotation::Rotate, text::Format};

/// The settings that only the program has.
#[derive(Debug)]
pub struct Program {
    /// The least important lines to log.
    pub(crate) log_level: Level,
    /// What becomes of the `data` of logged messages.
    pub(crate) log_payloads: Payloads,
    /// Where lines are appended beside stdout.
    pub(crate) log_file: Option<PathBuf>,
    /// Who may read that file, as permission bits. `None` leaves it to the umask.
    pub(crate) log_file_mode: Option<u32>,
    /// The form of lines on stdout.
    pub(crate) log_format: Format,
    /// When the file is put aside for a new one.
    pub(crate) log_rotate: Rotate,
    /// How many of the old ones are kept.
    pub(crate) log_keep: usize,
    /// Threads that run the bridge. 0: half of the cores, 1 to 4.
    pub(crate) runtime_workers: usize,
}

impl Default for Program {
    fn default() -> Self {
        Self {
            log_level: Level::Debug,
            log_payloads: Payloads::Capped,
            log_file: Some("logs/fastsock.log".into()),
            log_file_mode: None,
            log_format: Format::Json,
            log_rotate: Rotate::Off,
            log_keep: 7,
            runtime_workers: 0,
        }
    }
}

/// One row of the program's own table, as [`fastsock::Setting`] is of the bridge's.
pub type OwnSetting = HostSetting<Program>;

pub(crate) static OWN_SETTINGS: &[OwnSetting] = &[
    OwnSetting {
        name: "log_level",
        variable: "LOG_LEVEL",
        kind: ValueKind::Choice,
        allowed: "error, warn, info, http, verbose, debug or silly",
        example: "info",
        about: "Log lines of this level and above.",
        set: |program, text| Level::parse(text).map(|level| program.log_level = level),
        show: |program| program.log_level.as_str().into(),
    },
    OwnSetting {
        name: "log_payloads",
        variable: "FASTSOCK_LOG_PAYLOADS",
        kind: ValueKind::Choice,
        allowed: "capped, full or none",
        example: "none",
        about: "The `data` of logged messages. `capped`: cut at 1 KiB. `full`: whole. `none`: left out.",
        set: |program, text| Payloads::parse(text).map(|payloads| program.log_payloads = payloads),
        show: |program| program.log_payloads.as_str().into(),
    },
    OwnSetting {
        name: "log_file",
        variable: "FASTSOCK_LOG_FILE",
        kind: ValueKind::Path,
        allowed: "the path of a file, or off",
        example: "/var/log/fastsock/fastsock.log",
        about: "File to which the gateway appends its log lines, beside stdout. It makes the folder. SIGHUP opens the file anew.",
        set: |program, text| {
            program.log_file = (text != "off").then(|| text.into());
            Some(())
        },
        show: |program| {
            let path = program.log_file.as_ref();
            path.map_or_else(|| "off".into(), |path| path.display().to_string())
        },
    },
    OwnSetting {
        name: "log_file_mode",
        variable: "FASTSOCK_LOG_FILE_MODE",
        kind: ValueKind::Text,
        allowed: "an octal number from 0600 to 0777",
        example: "0640",
        about: "Permissions of the log file. Empty: as the umask says for a new file.",
        set: |program, text| {
            program.log_file_mode = Some(parse_mode(text)?);
            Some(())
        },
        show: |program| {
            let mode = program.log_file_mode;
            mode.map_or_else(String::new, |mode| format!("{mode:04o}"))
        },
    },
    OwnSetting {
        name: "log_format",
        variable: "FASTSOCK_LOG_FORMAT",
        kind: ValueKind::Choice,
        allowed: "json, text or auto",
        example: "auto",
        about: "The form of lines on stdout. `json`: as in the file. `text`: for people, in colours on a terminal. `auto`: `text` on a terminal, else `json`.",
        set: |program, text| Format::parse(text).map(|format| program.log_format = format),
        show: |program| program.log_format.as_str().into(),
    },
    OwnSetting {
        name: "log_rotate",
        variable: "FASTSOCK_LOG_ROTATE",
        kind: ValueKind::Text,
        allowed: "off, daily, or a size of at least 64KiB",
        example: "100MiB",
        about: "When the gateway puts the log file aside, as `<file>.1`, and begins a new one. `daily`: at midnight UTC. A size: before the file is larger.",
        set: |program, text| Rotate::parse(text).map(|rotate| program.log_rotate = rotate),
        show: |program| program.log_rotate.show(),
    },
    OwnSetting {
        name: "log_keep",
        variable: "FASTSOCK_LOG_KEEP",
        kind: ValueKind::Integer,
        allowed: "an integer from 0 to 1000",
        example: "30",
        about: "How many files that were put aside are kept.",
        set: |program, text| {
            let keep = text.parse().ok().filter(|keep| *keep <= 1000);
            keep.map(|keep| program.log_keep = keep)
        },
        show: |program| program.log_keep.to_string(),
    },
    OwnSetting {
        name: "runtime_workers",
        variable: "FASTSOCK_RUNTIME_WORKERS",
        kind: ValueKind::Integer,
        allowed: "an integer from 0 to 64",
        example: "2",
        about: "Threads that run the bridge. 0: half of the cores, 1 to 4. \
            More carry more when they are busy, and cost more processor time a message when they are not.",
        set: |program, text| parse_workers(text).map(|workers| program.runtime_workers = workers),
        show: |program| program.runtime_workers.to_string(),
    },
];

/// What its owner may not read and write is no log, and more than permissions is no mode.
pub(crate) fn parse_mode(text: &str) -> Option<u32> {
    let digits = text.trim();
    let is_octal =
        (3..=4).contains(&digits.len()) && digits.bytes().all(|b| (b'0'..=b'7').contains(&b));
    let mode = u32::from_str_radix(digits, 8).ok()?;
    (is_octal && mode <= 0o777 && mode & 0o600 == 0o600).then_some(mode)
}

fn parse_workers(text: &str) -> Option<usize> {
    text.trim().parse().ok().filter(|workers| *workers <= 64)
}
