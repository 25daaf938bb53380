//! What a link is for, what can be wrong with it, and which are up.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use redis::{ErrorKind, RedisError};

use crate::broker::LinkChange;

/// What a link is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Publishes and writes.
    Cmd,
    /// Subscribes, and nothing else: what it is pushed is not held up behind answers.
    Sub,
}

impl Kind {
    pub(super) fn response_timeout(self) -> Duration {
        match self {
            Self::Cmd => Duration::from_secs(2),
            Self::Sub => Duration::from_secs(5),
        }
    }

    pub(super) fn log_connected(self) {
        match self {
            Self::Cmd => tracing::info!(name: "redis_connected", "Connected to Redis as publisher"),
            Self::Sub => {
                tracing::info!(name: "redis_connected", "Connected to Redis as subscriber");
            }
        }
    }
}

/// Why a link cannot be had or is lost, on one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LinkError {
    pub(crate) text: String,
    /// Redis forbids it: a wrong password, or rights that are missing. Only an operator can change that.
    pub(crate) is_denied: bool,
}

impl LinkError {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            is_denied: false,
        }
    }

    /// All that is wrong, where several were tried.
    pub(super) fn and(self, other: Self) -> Self {
        Self {
            text: match self.text.contains(&other.text) {
                true => self.text,
                false => format!("{}; {}", self.text, other.text),
            },
            is_denied: self.is_denied && other.is_denied,
        }
    }

    pub(super) fn about(mut self, address: &str) -> Self {
        self.text = format!("{address}: {}", self.text);
        self
    }
}

impl fmt::Display for LinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl From<RedisError> for LinkError {
    fn from(error: RedisError) -> Self {
        let mut text = match error.kind() {
            ErrorKind::RESP3NotSupported => {
                "Redis before 6.0 is not supported (it does not know HELLO)".into()
            }
            _ if error.is_timeout() => "no answer in time".into(),
            _ => error.to_string(),
        };
        let missing_right = missing_right(&text);
        let denials = ["NOAUTH", "WRONGPASS", "NOPERM"];
        let is_denied = error.kind() == ErrorKind::AuthenticationFailed
            || error.code().is_some_and(|code| denials.contains(&code))
            || denials.iter().any(|word| text.contains(word))
            || missing_right.is_some();
        if let Some(right) = missing_right {
            text += &format!("; missing right: {right}");
        }
        Self { text, is_denied }
    }
}

/// The command that an ACL forbids, by the words of Redis.
fn missing_right(text: &str) -> Option<String> {
    let (_, command) = text.split_once("to run the '")?;
    let (command, _) = command.split_once('\'')?;
    Some(format!("+{command}"))
}

/// What the error of a command says of its link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// It is no good any more.
    Lost(LinkError),
    /// It lives: Redis has answered, with a refusal.
    Refused(Refusal),
}

/// An error that Redis answers a command with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// Its first word, such as `OOM`.
    pub(crate) code: String,
    /// All of it, on one line.
    pub(crate) text: String,
    /// The right that the user of Redis lacks, as an ACL names it, if that is known.
    pub(crate) missing_right: Option<String>,
}

impl Failure {
    /// Redis refuses, for this reason.
    #[cfg_attr(not(feature = "redis-spool"), allow(dead_code))]
    pub(crate) fn refused(text: String) -> Self {
        Self::Refused(Refusal {
            code: String::new(),
            text,
            missing_right: None,
        })
    }

    /// The first word of Redis's answer; empty when there was none.
    pub(crate) fn code(&self) -> &str {
        match self {
            Self::Lost(_) => "",
            Self::Refused(refusal) => &refusal.code,
        }
    }

    /// The same of a command for channels that match a pattern.
    pub(super) fn of_channel(mut self, pattern: &str) -> Self {
        if let Self::Refused(refusal) = &mut self
            && refusal.code == "NOPERM"
            && refusal.text.contains("channel")
        {
            refusal.missing_right = Some(format!("&{pattern}"));
        }
        self
    }
}

impl From<LinkError> for Failure {
    fn from(error: LinkError) -> Self {
        Self::Lost(error)
    }
}

impl From<RedisError> for Failure {
    fn from(error: RedisError) -> Self {
        match error.kind() {
            ErrorKind::Server(_) | ErrorKind::Extension => Self::Refused(error.into()),
            _ => Self::Lost(error.into()),
        }
    }
}

impl From<RedisError> for Refusal {
    fn from(error: RedisError) -> Self {
        // Made by us, of what a server would have said.
        let code = error.code().unwrap_or_default().to_owned();
        let own = match error.detail() {
            Some(detail) => format!("{code} {detail}"),
            None => error.to_string(),
        };
        let mut refusal = match error.into_server_errors().as_deref() {
            Some([(_, first), ..]) => {
                let (code, details) = (first.code(), first.details().unwrap_or_default());
                Self {
                    code: code.to_owned(),
                    text: format!("{code} {details}"),
                    missing_right: None,
                }
            }
            _ => Self {
                code,
                text: own,
                missing_right: None,
            },
        };
        // Before Redis 7 what a command of a script was refused with stands within an ERR of the script.
        if refusal.code == "ERR" {
            let words = refusal.text.split([' ', ':']);
            let mut inner = words.filter_map(|word| word.strip_prefix('-'));
            let is_code =
                |word: &&str| word.len() > 1 && word.chars().all(|c| c.is_ascii_uppercase());
            if let Some(code) = inner.find(is_code) {
                refusal.code = code.to_owned();
            }
        }
        if refusal.code == "ERR" && refusal.text.contains("The user executing the script can't") {
            refusal.code = "NOPERM".into(); // before Redis 7.2
        }
        if refusal.code == "NOPERM" {
            refusal.missing_right = missing_right(&refusal.text);
        }
        refusal
    }
}

/// Which links are up, and what there is to tell when that changes. No I/O.
#[derive(Debug)]
pub(super) struct Links {
    is_up: [bool; 2],
    ups: [u64; 2],
    /// The last moment the sub link was known to deliver, while it is lost.
    gap_from: Option<SystemTime>,
    /// Whether `Down` is what was told last.
    told_down: bool,
    /// Whether Redis refuses nothing that devices rely on.
    is_whole: bool,
    /// Which could not be had when that was tried last.
    has_failed: [bool; 2],
}

impl Links {
    pub(super) fn new() -> Self {
        Self {
            is_up: [false; 2],
            ups: [0; 2],
            gap_from: None,
            told_down: false,
            is_whole: true,
            has_failed: [false; 2],
        }
    }

    /// Whether a link could not be had when that was tried last. At the start nothing is known yet.
    pub(super) fn has_failed(&self, kind: Kind) -> bool {
        self.has_failed[kind as usize]
    }

    pub(super) fn is_up(&self, kind: Kind) -> bool {
        self.is_up[kind as usize]
    }

    pub(super) fn are_up(&self) -> bool {
        self.is_up == [true; 2] && self.is_whole
    }

    /// How often a link came up.
    pub(super) fn ups(&self, kind: Kind) -> u64 {
        self.ups[kind as usize]
    }

    /// A link works. Returns what to tell, in order.
    pub(super) fn up(&mut self, kind: Kind, now: SystemTime) -> Vec<LinkChange> {
        self.is_up[kind as usize] = true;
        self.has_failed[kind as usize] = false;
        self.ups[kind as usize] += 1;
        let mut tell = Vec::new();
        if kind == Kind::Sub
            && let Some(from) = self.gap_from.take()
        {
            tell.push(LinkChange::Gap { from, to: now });
        }
        if self.are_up() {
            self.told_down = false;
            tell.push(LinkChange::Up);
        }
        tell
    }

    /// Redis refuses something that devices rely on, or nothing any more. Returns what to tell.
    pub(super) fn whole(&mut self, is_whole: bool) -> Option<LinkChange> {
        self.is_whole = is_whole;
        if !is_whole {
            let tell = !std::mem::replace(&mut self.told_down, true);
            return tell.then_some(LinkChange::Down);
        }
        let tell = self.are_up() && std::mem::take(&mut self.told_down);
        tell.then_some(LinkChange::Up)
    }

    /// A link does not work, or still does not. Returns whether it did, and what to tell. One that cannot be had at the start
    /// makes a gap as well: devices are there already, and others may reach Redis.
    pub(super) fn down(&mut self, kind: Kind, last_good: SystemTime) -> (bool, Option<LinkChange>) {
        let was_up = std::mem::take(&mut self.is_up[kind as usize]);
        self.has_failed[kind as usize] = true;
        if kind == Kind::Sub {
            self.gap_from.get_or_insert(last_good);
        }
        let tell = !std::mem::replace(&mut self.told_down, true);
        (was_up, tell.then_some(LinkChange::Down))
    }
}

#[cfg(test)]
mod tests {
    use redis::Value;

    use super::*;

    fn at(second: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(second)
    }

    #[test]
    fn up_is_told_when_both_are_and_down_once() {
        let mut links = Links::new();
        assert_eq!(
            links.down(Kind::Cmd, at(0)),
            (false, Some(LinkChange::Down))
        );
        assert_eq!(links.down(Kind::Cmd, at(0)), (false, None));
        assert_eq!(links.up(Kind::Cmd, at(1)), []);
        assert_eq!(links.up(Kind::Sub, at(1)), [LinkChange::Up]);
        assert_eq!(links.down(Kind::Cmd, at(2)), (true, Some(LinkChange::Down)));
        assert_eq!(links.up(Kind::Cmd, at(3)), [LinkChange::Up]);
    }

    #[test]
    fn a_refusal_is_down_as_well_and_makes_no_gap() {
        let mut links = Links::new();
        links.up(Kind::Cmd, at(1));
        assert_eq!(links.whole(false), Some(LinkChange::Down));
        assert_eq!(links.whole(false), None);
        assert_eq!(links.up(Kind::Sub, at(1)), []);
        assert!(!links.are_up());
        assert_eq!(links.whole(true), Some(LinkChange::Up));
        assert_eq!(links.whole(true), None);
        links.whole(false);
        links.down(Kind::Sub, at(2));
        assert_eq!(links.whole(true), None, "a link is still away");
        let gap = LinkChange::Gap {
            from: at(2),
            to: at(3),
        };
        assert_eq!(links.up(Kind::Sub, at(3)), [gap, LinkChange::Up]);
    }

    #[test]
    fn a_gap_is_the_time_the_sub_link_was_away() {
        let mut links = Links::new();
        links.up(Kind::Cmd, at(1));
        links.up(Kind::Sub, at(1));
        links.down(Kind::Sub, at(5));
        links.down(Kind::Cmd, at(6));
        assert_eq!(links.down(Kind::Sub, at(7)), (false, None), "still away");
        let gap = LinkChange::Gap {
            from: at(5),
            to: at(9),
        };
        assert_eq!(links.up(Kind::Sub, at(9)), [gap]);
        assert_eq!(links.up(Kind::Cmd, at(10)), [LinkChange::Up]);
        assert!(links.are_up());
    }

    #[test]
    fn a_sub_link_that_is_late_at_the_start_is_a_gap_since_the_start() {
        let mut links = Links::new();
        links.down(Kind::Sub, at(0));
        links.down(Kind::Sub, at(0));
        let gap = LinkChange::Gap {
            from: at(0),
            to: at(9),
        };
        assert_eq!(links.up(Kind::Sub, at(9)), [gap]);
        let mut prompt = Links::new();
        prompt.down(Kind::Cmd, at(0));
        assert_eq!(prompt.up(Kind::Sub, at(1)), []);
    }

    #[test]
    fn a_denial_is_told_from_a_fault() {
        let denied = RedisError::from((ErrorKind::AuthenticationFailed, "no"));
        assert!(LinkError::from(denied).is_denied);
        let refused = RedisError::from(std::io::Error::from(std::io::ErrorKind::ConnectionRefused));
        assert!(!LinkError::from(refused).is_denied);
    }
    #[test]
    fn a_refusal_is_told_from_a_link_that_is_lost() {
        let server = |line: &str| {
            let value = redis::parse_redis_value(format!("-{line}\r\n").as_bytes());
            let error = value.and_then(Value::extract_error).unwrap_err();
            Failure::from(error)
        };
        let oom = "OOM command not allowed when used memory > 'maxmemory'.";
        // As Redis 6 words it: what was refused is within.
        let within = "ERR Error running script (call to f_1): @user_script:5: @user_script: 5: -MISCONF Redis is set up to save";
        let script = "ERR The user executing the script can't run this command or subcommand script: 1, on @user_script:1.";
        for (line, code) in [
            (script, "NOPERM"),
            (oom, "OOM"),
            (
                "READONLY You can't write against a read only replica.",
                "READONLY",
            ),
            ("LOADING Redis is loading the dataset in memory", "LOADING"),
            ("ERR unknown command 'x-Y', with args", "ERR"),
            (within, "MISCONF"),
        ] {
            let Failure::Refused(refusal) = server(line) else {
                panic!("{line}");
            };
            assert_eq!((refusal.code.as_str(), refusal.text.as_str()), (code, line));
        }
        let denied = "NOPERM this user has no permissions to run the 'hget' command";
        let Failure::Refused(refusal) = server(denied) else {
            panic!("{denied}");
        };
        assert_eq!(refusal.missing_right.as_deref(), Some("+hget"));
        let closed = RedisError::from(std::io::Error::from(std::io::ErrorKind::BrokenPipe));
        assert!(matches!(Failure::from(closed), Failure::Lost(_)));
    }
}
