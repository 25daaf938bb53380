//! Why a link is lost, and why Redis refuses a command.

use std::{fmt, time::Duration};

use redis::{ErrorKind, RedisError};

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
    pub(crate) fn and(self, other: Self) -> Self {
        Self {
            text: match self.text.contains(&other.text) {
                true => self.text,
                false => format!("{}; {}", self.text, other.text),
            },
            is_denied: self.is_denied && other.is_denied,
        }
    }

    pub(crate) fn about(mut self, address: &str) -> Self {
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

    /// Whether Redis runs no scripts for us: the user may not, or the server has none.
    pub(crate) fn forbids_scripts(&self) -> bool {
        let Self::Refused(refusal) = self else {
            return false;
        };
        let text = refusal.text.to_ascii_lowercase();
        refusal.missing_right.as_deref() == Some("+eval")
            || text.starts_with("err unknown command") && text.contains("eval")
    }

    /// Whether the server does not know the command.
    pub(crate) fn is_unknown(&self) -> bool {
        matches!(self, Self::Refused(refusal) if refusal.text.to_ascii_lowercase().starts_with("err unknown command"))
    }

    /// The same of a command for channels that match a pattern.
    pub(crate) fn of_channel(mut self, pattern: &str) -> Self {
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

/// How soon what only an operator can change is tried again: trying it more often only fills the log of Redis.
pub(crate) const DENIED_DELAY: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use redis::Value;

    use super::*;

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
        for (line, forbids) in [
            (denied, false),
            (
                "NOPERM this user has no permissions to run the 'eval' command",
                true,
            ),
            (
                "ERR unknown command 'EVAL', with args beginning with: ",
                true,
            ),
        ] {
            assert_eq!(server(line).forbids_scripts(), forbids, "{line}");
        }
        let closed = RedisError::from(std::io::Error::from(std::io::ErrorKind::BrokenPipe));
        assert!(matches!(Failure::from(closed), Failure::Lost(_)));
    }
}
