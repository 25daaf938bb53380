//! What the user of Redis must be allowed (`docs/security.md` has it as lines of an ACL), and what of that is missing.

use std::convert::Infallible;

use redis::aio::{ConnectionLike, MultiplexedConnection};
use tokio::{
    sync::Notify,
    time::{sleep, timeout},
};

use super::{
    error::{DENIED_DELAY, Failure, LinkError},
    script::Script,
};
use crate::pure::last_error::LastError;

/// Commands, keys and channels, as an ACL names them.
#[derive(Debug, Default)]
pub(crate) struct Rights {
    /// Whose these are, to say it.
    of: &'static str,
    needs: Vec<Need>,
    /// Shard channels are used, which Redis has since version 7.
    shard_channels: bool,
    /// Something was refused for want of a right.
    pub(crate) look: Notify,
}

/// One right, and a command that it allows.
#[derive(Debug)]
struct Need {
    right: String,
    /// Whole, as it would be sent: Redis 7.0 crashes when it is asked about a command with too few arguments.
    command: Vec<String>,
    /// Another right that the command needs. Without that one nothing is known of this one.
    beside: Option<String>,
}

impl Rights {
    pub(crate) fn new(of: &'static str) -> Self {
        Self {
            of,
            ..Self::default()
        }
    }

    pub(crate) fn needs_shard_channels(&mut self) {
        self.shard_channels = true;
    }

    /// What the server itself lacks of it.
    pub(crate) async fn lacks(
        &self,
        redis: &mut MultiplexedConnection,
    ) -> Result<Option<&'static str>, LinkError> {
        if !self.shard_channels {
            return Ok(None);
        }
        let mut ask = redis::cmd("SUNSUBSCRIBE");
        ask.arg("fastsock"); // ends nothing
        Ok(match ask.exec_async(redis).await.map_err(Failure::from) {
            Err(Failure::Lost(error)) => return Err(error),
            Err(failure) if failure.is_unknown() => Some(NO_SHARD_CHANNELS),
            Ok(()) | Err(Failure::Refused(_)) => None, // rights and slots are looked at elsewhere
        })
    }

    /// Commands that need no key, with their arguments.
    pub(crate) fn commands(&mut self, commands: &[&str]) {
        for command in commands {
            let words: Vec<_> = command.split(' ').collect();
            let right = match &words[..] {
                ["cluster", subcommand] => format!("+cluster|{subcommand}"),
                _ => format!("+{}", words[0]),
            };
            self.need(&right, &words, None);
        }
    }

    /// Commands with their arguments, of which `%` is this key.
    pub(crate) fn on(&mut self, pattern: &str, key: &str, commands: &[&str]) {
        for command in commands {
            let word = |word| if word == "%" { key } else { word };
            let words: Vec<_> = command.split(' ').map(word).collect();
            let right = format!("+{}", words[0]);
            self.need(&right, &words, Some(format!("~{pattern}")));
        }
    }

    /// Keys by a pattern, and one of them. Whoever may run scripts at all may run this one if the key is allowed.
    pub(crate) fn key(&mut self, pattern: &str, key: &str) {
        self.need(&format!("~{pattern}"), &["EVAL", "", "1", key], None);
    }

    pub(crate) fn channel(&mut self, pattern: &str, command: &str, channel: &str) {
        let beside = format!("+{command}");
        self.need(&format!("&{pattern}"), &[command, channel], Some(beside));
    }

    pub(crate) fn need(&mut self, right: &str, command: &[&str], beside: Option<String>) {
        self.needs.push(Need {
            right: right.to_owned(),
            command: command.iter().map(|&word| word.to_owned()).collect(),
            beside,
        });
    }

    /// What the user of a connection lacks of it; `None` when that cannot be told: Redis 6 cannot be asked.
    pub(crate) async fn missing(
        &self,
        redis: &mut impl ConnectionLike,
    ) -> Result<Option<Vec<String>>, Failure> {
        let mut ask = MAY.on::<&str>(&[]);
        for need in &self.needs {
            ask.arg(need.command.len()).arg(&need.command);
        }
        let refused: Result<Option<Vec<usize>>, _> = ask.query_async(redis).await;
        let refused = match refused.map_err(Failure::from) {
            Ok(Some(refused)) => refused,
            Ok(None) => return Ok(None),
            Err(Failure::Refused(refusal)) if refusal.code == "NOPERM" => {
                return Ok(Some(vec!["+eval".into()])); // and who knows what
            }
            Err(failure) => return Err(failure),
        };
        let refused: Vec<_> = refused.iter().filter_map(|n| self.needs.get(*n)).collect();
        let is_refused = |right: &String| refused.iter().any(|need| need.right == *right);
        let known = refused.iter();
        let known = known.filter(|need| !need.beside.as_ref().is_some_and(is_refused));
        Ok(Some(known.map(|need| need.right.clone()).collect()))
    }

    /// Of the channels alone, those that the user of a connection may not subscribe to. It is subscribed to the others then.
    pub(crate) async fn missing_channels(
        &self,
        redis: &mut MultiplexedConnection,
    ) -> Result<Vec<String>, LinkError> {
        let mut missing = Vec::new();
        for need in self.needs.iter().filter(|need| need.right.starts_with('&')) {
            let channel = &need.command[1];
            let subscribed = match &*need.command[0] {
                "psubscribe" => redis.psubscribe(channel).await,
                _ => redis.subscribe(channel).await,
            };
            match subscribed.map_err(Failure::from) {
                Ok(()) => {}
                Err(Failure::Lost(error)) => return Err(error),
                Err(Failure::Refused(refusal)) => {
                    missing.push(refusal.missing_right.unwrap_or_else(|| need.right.clone()));
                }
            }
        }
        Ok(missing)
    }

    /// Says what the user of a connection lacks, whenever that changes. Returns when the link is lost.
    pub(crate) async fn watch(
        &self,
        mut redis: impl ConnectionLike,
    ) -> Result<Infallible, LinkError> {
        let mut said = LastError::default();
        loop {
            let missing = self.missing(&mut redis).await;
            let lacks = match missing.map(Option::unwrap_or_default) {
                Ok(missing) if missing.is_empty() => {
                    if said.is_over() {
                        tracing::warn!(name: "redis_rights", of = self.of, "The user of Redis has all rights it needs");
                    }
                    false
                }
                Ok(missing) => {
                    let missing = missing.join(" ");
                    if said.is_news(&missing) {
                        tracing::error!(name: "redis_rights", of = self.of, missing, "The user of Redis lacks rights; ACL SETUSER gives them");
                    }
                    true
                }
                Err(Failure::Refused(_)) => said.lasts(), // it is not the rights then
                Err(Failure::Lost(error)) => return Err(error),
            };
            if lacks {
                let _ = timeout(DENIED_DELAY, self.look.notified()).await;
            } else {
                self.look.notified().await;
            }
            sleep(PACE).await;
        }
    }
}

/// Answers which of many commands the user may not run, by their numbers; nothing when Redis cannot tell (before 7.0). None
/// of them is run.
/// `ARGV`: how many words, and the words, of each.
const MAY: Script = Script::new(
    r"
if not redis.acl_check_cmd then
  return false
end
local missing, i, n = {}, 1, 0
while i <= #ARGV do
  local words, count = {}, tonumber(ARGV[i])
  for j = 1, count do
    words[j] = ARGV[i + j]
  end
  local is_known, may = pcall(redis.acl_check_cmd, unpack(words))
  if is_known and not may then
    missing[#missing + 1] = n
  end
  i, n = i + 1 + count, n + 1
end
return missing
",
);

/// What a server without SSUBSCRIBE is told.
pub(crate) const NO_SHARD_CHANNELS: &str =
    "FASTSOCK_REDIS_SUBSCRIBE=sharded needs SSUBSCRIBE: Redis 7 or Valkey";

/// Functions that are refused together ask for one look.
const PACE: std::time::Duration = std::time::Duration::from_millis(100);
