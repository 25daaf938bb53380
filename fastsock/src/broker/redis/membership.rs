//! This gateway among the others: its lease, and what gateways that are gone have left.

use std::{convert::Infallible, sync::atomic::Ordering::Relaxed, time::Duration};

use tokio::time::{Instant, sleep, sleep_until};

use super::{
    Shared,
    cleanup::Gone,
    control::{self, Control},
    script,
};
use crate::redis::{
    connect::Redis,
    error::{Failure, LinkError},
    lease::{LEASE, Lease, ROUNDING},
    trouble::Function,
};

/// The membership of this node, for as long as one connection lasts.
pub(super) struct Membership {
    lease: Lease,
    /// Nodes that are gone and that this one clears up after.
    gone: Vec<Gone>,
    /// Redis refuses to remove them; until when that is not tried again.
    rest_until: Option<Instant>,
}

impl Membership {
    pub(super) fn new(shared: &Shared) -> Self {
        Self {
            lease: Lease::new(&shared.names.nodes, &shared.node),
            gone: Vec::new(),
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
            if failure.forbids_scripts() {
                shared.set_plain(true);
            }
            let is_loading = failure.code() == "LOADING";
            let wait = shared.failed(Function::Lease, failure).await?;
            if !is_loading {
                break;
            }
            sleep(wait).await;
        }
        self.lease.renewed();
        if shared.is_plain() {
            return Ok(());
        }
        if let Err(failure) = shared.show_card(redis).await {
            shared.failed(Function::Lease, failure).await?;
        }
        let node = shared.node.to_string();
        control::tell(shared, redis.clone(), &[Control::Joined { node }]).await
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
        let has_company = renewal.nodes.len() > 1;
        shared.has_company.fetch_or(has_company, Relaxed);
        if renewal.has_company {
            tell_of_company(shared);
        }
        let is_resting = self.is_resting();
        let mut held = Vec::new();
        for mut gone in std::mem::take(&mut self.gone) {
            // While this node may not clear up, another may.
            if !is_resting && gone.hold(shared, redis).await? {
                held.push(gone);
            }
        }
        self.gone = held;
        for (node, ends) in renewal.gone {
            let mut condemn = script::CONDEMN.on(&[&shared.names.nodes]);
            let mark: u64 = condemn.arg(&node).arg(ends).query_async(redis).await?;
            if mark != 0 && self.gone.iter().all(|gone| gone.node != node) {
                self.gone.push(Gone::new(node, mark));
            }
        }
        let before = shared.leased_at.lock().replace(Instant::now());
        if let Some(teller) = shared.teller() {
            let away = before.map_or(Duration::ZERO, |before| before.elapsed());
            // Whoever removed its devices from Redis may have told of one that it saw leave that no gateway has it.
            let is_long = away + ROUNDING * 2 >= LEASE;
            if renewal.was_given_up && has_company && is_long {
                teller.came_back();
            }
        }
        Ok(renewal.stood)
    }

    fn is_resting(&self) -> bool {
        self.rest_until.is_some_and(|until| Instant::now() < until)
    }

    /// Renews each second, and between clears up after nodes that are gone. Returns when the link fails.
    pub(super) async fn keep(mut self, shared: &Shared, mut redis: Redis) -> LinkError {
        let mut removing = redis.clone();
        let error = async {
            loop {
                let is_resting = self.is_resting();
                let gone = self.gone.iter_mut().filter(|_| !is_resting);
                let next = gone.enumerate().min_by_key(|(_, gone)| gone.due());
                let removed = match next {
                    None => {
                        self.lease.due().await;
                        None
                    }
                    Some((at, gone)) => tokio::select! {
                        biased;
                        () = self.lease.due() => None,
                        removed = async {
                            sleep_until(gone.due()).await;
                            gone.go_on(shared, &mut removing).await
                        } => Some((at, removed)),
                    },
                };
                match removed {
                    None => self.renew_or_rest(shared, &mut redis).await?,
                    Some((at, Ok(is_done))) => {
                        shared.works(Function::Cleanup);
                        is_done.then(|| self.gone.remove(at));
                    }
                    Some((_, Err(failure))) => {
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
                shared.set_plain(false);
                if !stood {
                    shared.restore.notify_one();
                }
                if let Err(failure) = shared.show_card(redis).await {
                    shared.failed(Function::Lease, failure).await?;
                }
            }
            Err(failure) => {
                if failure.forbids_scripts() {
                    shared.set_plain(true);
                }
                let wait = shared.failed(Function::Lease, failure).await?;
                self.lease.refused(wait).await;
            }
        }
        Ok(())
    }
}

/// Says, once, that another gateway is there, where each delivers its own uplinks or has mailboxes of its own.
fn tell_of_company(shared: &Shared) {
    if shared.forwards_apart.swap(false, Relaxed) {
        tracing::warn!(
            name: "order",
            "Several gateways share this Redis, and each delivers what its own devices said. When a device moves while the backend \
             is away, its uplinks may arrive out of order. FASTSOCK_SPOOL=redis keeps their order"
        );
    }
    if shared.keeps_apart.swap(false, Relaxed) {
        tracing::warn!(
            name: "mailboxes_apart",
            "Several gateways share this Redis, and FASTSOCK_MAILBOX=disk is for one alone: a message that one of them keeps reaches \
             its device only there. FASTSOCK_MAILBOX=redis is for all"
        );
    }
}

/// Renewals of a new link.
const FIRST_RENEWALS: usize = 4;
