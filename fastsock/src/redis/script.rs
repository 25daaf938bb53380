//! Lua scripts: what must happen in Redis in one step. All keys of one have one hash slot, so that it works in a cluster too.
//!
//! A script is sent whole (`EVAL`), once for a batch. `EVALSHA`, as `redis::Script` does it, was tried and left: for the longest
//! script with one message it saved Redis less than runs of the same differ. And it would promise less: a Redis that was restarted or
//! failed over has no script cache, and in a pipeline whose steps rely on their order the steps behind a `NOSCRIPT` run all the same.
//! It would also need the rights `+evalsha` and `+script|load`, where `+eval` does today.

use redis::{Cmd, ToRedisArgs};

/// A script, with its keys and arguments as its documentation says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Script(&'static str);

impl Script {
    pub(crate) const fn new(text: &'static str) -> Self {
        Self(text)
    }

    /// The command that runs it on these keys; its arguments are to follow.
    pub(crate) fn on<K: ToRedisArgs>(&self, keys: &[K]) -> Cmd {
        let mut eval = redis::cmd("EVAL");
        eval.arg(self.0).arg(keys.len()).arg(keys);
        eval
    }
}
