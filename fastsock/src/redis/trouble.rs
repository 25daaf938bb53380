//! What Redis refuses: each function that needs it is worse off on its own, which is said once, and taken back.
//!
//! An error reply shows that the link lives. So what is refused is tried again over the same link, and nothing else suffers.
//! Only some replies say that another link would do better: `READONLY` and `MASTERDOWN` if another server is the master now,
//! `NOAUTH`, and `LOADING` for long.

use std::{
    sync::atomic::{AtomicU32, Ordering::Relaxed},
    time::Duration,
};

use tokio::time::Instant;

use super::{
    address::Address,
    connect::{At, open_one},
    error::{DENIED_DELAY, Failure, LinkError, Refusal},
    rights::{NO_SHARD_CHANNELS, Rights},
};
use crate::{locks::Mutex, pure::last_error::LastError};

/// What Redis is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Function {
    /// Over the sub link.
    Downlinks,
    Takeovers,
    Probe,
    Groups,
    /// Over the cmd link.
    Presence,
    Lease,
    Elsewhere,
    Notices,
    Cleanup,
    Mailbox,
    /// Of the spool.
    #[cfg_attr(not(feature = "redis-spool"), allow(dead_code))]
    Take,
    #[cfg_attr(not(feature = "redis-spool"), allow(dead_code))]
    Deliver,
    #[cfg_attr(not(feature = "redis-spool"), allow(dead_code))]
    Remove,
    #[cfg_attr(not(feature = "redis-spool"), allow(dead_code))]
    Read,
}

/// What is refused now.
#[derive(Debug)]
pub(crate) struct Troubles {
    address: Address,
    rights: Rights,
    /// The functions that are refused, a bit each: a look without a lock.
    refused: AtomicU32,
    /// What was said of each function.
    said: Mutex<[LastError; FUNCTIONS]>,
    loading_since: Mutex<Option<Instant>>,
    /// When it was last asked who the master is.
    asked: Mutex<Option<Instant>>,
}

impl Troubles {
    pub(crate) fn new(address: Address, rights: Rights) -> Self {
        Self {
            address,
            rights,
            refused: AtomicU32::new(0),
            said: Mutex::default(),
            loading_since: Mutex::default(),
            asked: Mutex::default(),
        }
    }

    /// What the user of Redis must be allowed for all of this.
    pub(crate) fn rights(&self) -> &Rights {
        &self.rights
    }

    /// A command of a function failed. Returns how long to wait before it is tried again over the same link.
    ///
    /// # Errors
    /// The link is no good any more, or another one would do better.
    pub(crate) async fn weigh(
        &self,
        function: Function,
        failure: Failure,
    ) -> Result<Duration, LinkError> {
        let refusal = match failure {
            Failure::Lost(error) => return Err(error),
            Failure::Refused(refusal) => refusal,
        };
        match &*refusal.code {
            "NOAUTH" | "UNBLOCKED" => return Err(LinkError::new(refusal.text)),
            "LOADING" if self.is_loading_for_long() => {
                let text = format!("{} (for over 5 s)", refusal.text);
                return Err(LinkError::new(text));
            }
            "READONLY" | "MASTERDOWN" if self.is_master_elsewhere().await => {
                let text = format!("{}; another server is the master", refusal.text);
                return Err(LinkError::new(text));
            }
            _ => {}
        }
        self.note(function, &refusal);
        if refusal.code == "NOPERM" {
            self.rights.look.notify_one();
        }
        Ok(match &*refusal.code {
            "NOPERM" => DENIED_DELAY,
            "LOADING" => LOADING_DELAY,
            _ => REFUSED_DELAY,
        })
    }

    /// A function works. Returns whether that is news.
    pub(crate) fn works(&self, function: Function) -> bool {
        if self.refused.load(Relaxed) & function.bit() == 0 {
            return false;
        }
        {
            let mut said = self.said.lock();
            self.refused.fetch_and(!function.bit(), Relaxed);
            said[function as usize].is_over();
        }
        *self.loading_since.lock() = None;
        tracing::warn!(name: "redis_accepted", again = function.again(), "Redis takes again what it had refused");
        true
    }

    /// Whether a function is refused now.
    pub(crate) fn has(&self, function: Function) -> bool {
        self.refused.load(Relaxed) & function.bit() != 0
    }

    /// Whether everything works that devices rely on.
    pub(crate) fn is_whole(&self) -> bool {
        let essential = [
            Function::Downlinks,
            Function::Takeovers,
            Function::Presence,
            Function::Lease,
        ];
        !essential.into_iter().any(|function| self.has(function))
    }

    /// Says what is refused, if that is news.
    fn note(&self, function: Function, refusal: &Refusal) {
        // The words of one refusal differ from command to command.
        let words = match &*refusal.code {
            "NOPERM" | "ERR" => &refusal.text,
            code => code,
        };
        {
            let mut said = self.said.lock();
            if !said[function as usize].is_news(words) {
                return;
            }
            self.refused.fetch_or(function.bit(), Relaxed);
        }
        let mut error = format!("{}: {}", function.lacking(), refusal.text);
        if let Some(right) = &refusal.missing_right {
            error += &format!("; missing right: {right}");
        } else if self.address.is_one_server() && CLUSTER_CODES.contains(&&*refusal.code) {
            error += "; this is a Redis Cluster: FASTSOCK_REDIS_URL takes redis+cluster://";
        }
        if function == Function::Downlinks
            && refusal
                .text
                .to_ascii_lowercase()
                .contains("unknown command")
        {
            error += &format!("; {NO_SHARD_CHANNELS}");
        }
        function.log(&error);
    }

    fn is_loading_for_long(&self) -> bool {
        let mut since = self.loading_since.lock();
        since.get_or_insert_with(Instant::now).elapsed() > LOADING_MAX && since.take().is_some()
    }

    /// Whether the address leads to a master now: then whoever refuses to be written to is none any more.
    async fn is_master_elsewhere(&self) -> bool {
        if self.address.is_cluster() {
            return false; // its client follows by itself
        }
        {
            let mut asked = self.asked.lock();
            if asked.is_some_and(|asked| asked.elapsed() < REFUSED_DELAY) {
                return false;
            }
            *asked = Some(Instant::now());
        }
        let other = open_one(&self.address, At::Any, ROLE_ANSWER, None);
        other.await.is_ok_and(|other| other.is_master)
    }
}

impl Function {
    fn bit(self) -> u32 {
        1 << self as u32
    }

    /// What is worse while it is refused.
    fn lacking(self) -> &'static str {
        match self {
            Self::Downlinks => "devices get no downlinks from Redis",
            Self::Takeovers => "takeovers by other gateways are not heard of",
            Self::Probe => "a link that is deaf would not be noticed",
            Self::Groups => "devices get no messages to groups, and no broadcasts",
            Self::Presence => "presence is not written",
            Self::Lease => "the lease of this gateway is not renewed",
            Self::Elsewhere => "devices of other gateways cannot be sent to",
            Self::Notices => "other gateways are not told of takeovers",
            Self::Cleanup => "devices of gateways that are gone stay in the hash",
            Self::Mailbox => "devices get nothing from their mailboxes",
            Self::Take => "the spool takes no uplinks",
            Self::Deliver => "uplinks in the spool are not delivered from here",
            Self::Remove => "delivered uplinks stay in the spool",
            Self::Read => "uplinks in the spool are not read",
        }
    }

    /// The same once it works.
    fn again(self) -> &'static str {
        match self {
            Self::Downlinks => "devices get downlinks",
            Self::Takeovers => "takeovers by other gateways are heard of",
            Self::Probe => "a link that is deaf would be noticed",
            Self::Groups => "devices get messages to groups, and broadcasts",
            Self::Presence => "presence is written",
            Self::Lease => "the lease of this gateway is renewed",
            Self::Elsewhere => "devices of other gateways can be sent to",
            Self::Notices => "other gateways are told of takeovers",
            Self::Cleanup => "devices of gateways that are gone are removed",
            Self::Mailbox => "devices get what is in their mailboxes",
            Self::Take => "the spool takes uplinks",
            Self::Deliver => "uplinks in the spool are delivered",
            Self::Remove => "delivered uplinks are removed from the spool",
            Self::Read => "uplinks in the spool are read",
        }
    }

    fn log(self, error: &str) {
        match self {
            Self::Downlinks | Self::Takeovers | Self::Probe | Self::Groups => {
                tracing::error!(name: "redis_error", error, "Redis error for subscriber");
            }
            Self::Presence
            | Self::Lease
            | Self::Elsewhere
            | Self::Notices
            | Self::Cleanup
            | Self::Mailbox => {
                tracing::error!(name: "redis_error", error, "Redis error for publisher");
            }
            Self::Take | Self::Deliver | Self::Remove | Self::Read => {
                tracing::error!(name: "spool_error", error, "Redis error for the spool");
            }
        }
    }
}

/// What a server of a cluster answers when it is asked for what others have.
pub(crate) const CLUSTER_CODES: [&str; 5] =
    ["MOVED", "ASK", "TRYAGAIN", "CLUSTERDOWN", "CROSSSLOT"];

/// How many functions there are.
const FUNCTIONS: usize = Function::Read as usize + 1;

/// How soon what was refused is tried again.
const REFUSED_DELAY: Duration = Duration::from_secs(1);

/// The same while Redis reads its data.
const LOADING_DELAY: Duration = Duration::from_millis(100);

/// How long it may do that before it is asked again who the master is.
pub(crate) const LOADING_MAX: Duration = Duration::from_secs(5);

/// How long a server may take to say whether it is the master.
const ROLE_ANSWER: Duration = Duration::from_secs(2);
