//! This gateway among the others: its lease, and what gateways that are gone have left.

use std::{collections::VecDeque, convert::Infallible};

use tokio::time::{Instant, sleep};

use super::{Shared, cleanup::Gone, script};
use crate::redis::{
    connect::Redis,
    error::{Failure, LinkError},
    lease::Lease,
    trouble::Function,
};

/// The membership of this node, for as long as one connection lasts.
pub(super) struct Membership {
    lease: Lease,
    /// Nodes that are gone and whose ids are being removed.
    gone: VecDeque<Gone>,
    /// Redis refuses to remove them; until when that is not tried again.
    rest_until: Option<Instant>,
}

impl Membership {
    pub(super) fn new(shared: &Shared) -> Self {
        Self {
            lease: Lease::new(&shared.names.nodes, &shared.node),
            gone: VecDeque::new(),
            rest_until: None,
        }
    }

    /// Makes the first renewals of a link: more than one, so that the clock is known well from the first seat on. Waits while
    /// Redis reads its data; if it refuses otherwise, [`Membership::keep`] tries again.
    pub(super) async fn begin(
        &mut self,
        shared: &Shared,
        redis: &mut Redis,
    ) -> Result<(), LinkError> {
        let mut renewals = 0;
        while renewals < FIRST_RENEWALS {
            let failure = match self.renew(shared, redis).await {
                Ok(_) => {
                    shared.works(Function::Lease);
                    renewals += 1;
                    continue;
                }
                Err(failure) => failure,
            };
            let is_loading = failure.code() == "LOADING";
            let wait = shared.failed(Function::Lease, failure).await?;
            if !is_loading {
                break;
            }
            sleep(wait).await;
        }
        self.lease.renewed();
        Ok(())
    }

    /// Renews the lease and looks at the others. Returns whether it had stood until now.
    async fn renew(&mut self, shared: &Shared, redis: &mut Redis) -> Result<bool, Failure> {
        let asked_us = shared.now_us();
        let renewal = self.lease.renew(redis).await?;
        let answered_us = shared.now_us();
        shared
            .clock
            .lock()
            .said(renewal.clock_us, asked_us, answered_us);
        for (node, ends) in renewal.gone {
            let mut expire = script::EXPIRE.on(&[&shared.names.nodes]);
            let expired: i64 = expire.arg(&node).arg(ends).query_async(redis).await?;
            if expired == 1 && self.gone.iter().all(|gone| gone.node != node) {
                self.gone.push_back(Gone::new(node));
            }
        }
        Ok(renewal.stood)
    }

    /// Renews each second, and between removes what nodes that are gone have left. Returns when the link fails.
    pub(super) async fn keep(mut self, shared: &Shared, mut redis: Redis) -> LinkError {
        let mut removing = redis.clone();
        let error = async {
            loop {
                let is_resting = self.rest_until.is_some_and(|until| Instant::now() < until);
                let gone = self.gone.front_mut().filter(|_| !is_resting);
                let removed = match gone {
                    None => {
                        self.lease.due().await;
                        None
                    }
                    Some(gone) => tokio::select! {
                        biased;
                        () = self.lease.due() => None,
                        removed = gone.remove_some(shared, &mut removing) => Some(removed),
                    },
                };
                match removed {
                    None => self.renew_or_rest(shared, &mut redis).await?,
                    Some(Ok(is_done)) => {
                        shared.works(Function::Cleanup);
                        is_done.then(|| self.gone.pop_front());
                    }
                    Some(Err(failure)) => {
                        let wait = shared.failed(Function::Cleanup, failure).await?;
                        self.rest_until = Some(Instant::now() + wait);
                    }
                }
            }
        };
        let never: Result<Infallible, LinkError> = error.await;
        match never {
            Err(error) => error,
        }
    }

    async fn renew_or_rest(&mut self, shared: &Shared, redis: &mut Redis) -> Result<(), LinkError> {
        match self.renew(shared, redis).await {
            Ok(stood) => {
                shared.works(Function::Lease);
                if !stood {
                    shared.restore.notify_one();
                }
            }
            Err(failure) => {
                let wait = shared.failed(Function::Lease, failure).await?;
                self.lease.refused(wait).await;
            }
        }
        Ok(())
    }
}

/// Renewals of a new link.
const FIRST_RENEWALS: usize = 4;
