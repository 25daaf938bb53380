//! The cmd link of the spool, over which it writes, removes, and keeps its lease.

use std::{sync::Arc, time::Duration};

use super::{Shared, append::append, ownership::Ownership, removal::remove_delivered};
use crate::{
    pure::last_error::LastError,
    redis::{
        connect,
        error::LinkError,
        supervisor::{Supervised, supervise},
    },
};

/// Keeps the link until told to stop.
pub(super) async fn keep(shared: Arc<Shared>) {
    let mut link = SpoolLink {
        shared: &shared,
        last_error: LastError::default(),
        is_up: false,
    };
    supervise(&mut link, &shared.cut).await;
    *shared.cmd.lock() = None;
}

struct SpoolLink<'a> {
    shared: &'a Shared,
    last_error: LastError,
    is_up: bool,
}

impl Supervised for SpoolLink<'_> {
    async fn serve(&mut self) -> Result<(), LinkError> {
        let shared = self.shared;
        let connection = connect::open(&shared.address, ANSWER).await?;
        let redis = connection.redis.clone();
        shared.shards.lock().ack_again();
        let mut ownership = Ownership::new(shared);
        let tended = async {
            ownership.begin(shared, &redis).await?;
            *shared.cmd.lock() = Some(redis.clone());
            if self.last_error.is_over() {
                tracing::warn!(name: "spool_up", "the spool in Redis is back");
            }
            self.is_up = true;
            tokio::select! {
                kept = ownership.keep(shared, &redis) => kept,
                error = append(shared, &redis) => Err(error),
                error = remove_delivered(shared, &redis) => Err(error),
                watched = shared.troubles.rights().watch(redis.clone()) => match watched {
                    Err(error) => Err(error),
                },
            }
        };
        tokio::select! {
            () = connection.lost.notified() => Err(LinkError::new("the connection was lost")),
            (error, _) = connection.moved(&shared.address) => Err(error),
            tended = tended => tended,
        }
    }

    fn down(&mut self, error: &LinkError) -> bool {
        *self.shared.cmd.lock() = None;
        self.shared.tell(|lanes| lanes.failing(true));
        if self.last_error.is_news(&error.text) {
            tracing::error!(name: "spool_error", error = %error, "the spool in Redis is away; uplinks wait until it is back");
        }
        std::mem::take(&mut self.is_up)
    }
}

/// How long an answer of Redis may take: less than a lease, so that a frozen one is noticed in time.
const ANSWER: Duration = Duration::from_secs(2);
