//! What the host decides: who may connect, and what becomes of an uplink. Each question has a ticket; whoever answers it does so
//! at once or, by the ticket, from any thread within `hook_timeout`.

use std::{
    collections::HashMap,
    mem,
    sync::{
        Arc,
        atomic::{
            AtomicUsize,
            Ordering::{Acquire, Release},
        },
    },
    task::Waker,
    time::Duration,
};

use tokio::{sync::oneshot, time::timeout};

use crate::{
    broker::ANNOUNCED_WITHIN,
    error::{Error, ErrorKind, Result},
    handover::Handover,
    hooks::{Admission, Answer, Decision, UplinkAction},
    locks::Mutex,
    pure::receipts::Pledge,
    registry::downlinks::Downlinks,
    stats::Running,
    status::Status,
    tasks::{BoxFuture, Tasks},
    types::{ConnectRequest, Ticket, Uplink},
    uplinks::{Lanes, Room},
};

/// The questions that are not answered yet.
pub(crate) struct Decisions {
    status: Arc<Status>,
    lanes: Arc<Lanes>,
    downlinks: Downlinks,
    running: Arc<Running>,
    workers: Tasks,
    hook_timeout: Duration,
    /// Who may connect: each handshake that waits.
    admissions: Mutex<HashMap<Ticket, oneshot::Sender<Option<Admission>>>>,
    /// Uplinks that wait until the hash has their device, each with what was decided about it meanwhile.
    unannounced: Mutex<HashMap<Ticket, Option<UplinkAction>>>,
    soon: Mutex<Soon>,
    /// Held while that is done, so that who has it finds nothing half done. Lock order: this, `soon`.
    giving: Mutex<()>,
    /// How many answers in it, or on their way out of it, go back to a device.
    replies: AtomicUsize,
}

/// What a task will see to soon.
#[derive(Default)]
struct Soon {
    handover: Handover,
    has_task: bool,
}

impl Decisions {
    pub(crate) fn new(
        status: Arc<Status>,
        lanes: Arc<Lanes>,
        downlinks: Downlinks,
        running: Arc<Running>,
        workers: Tasks,
        hook_timeout: Duration,
    ) -> Arc<Self> {
        Arc::new(Self {
            status,
            lanes,
            downlinks,
            running,
            workers,
            hook_timeout,
            admissions: Mutex::default(),
            unannounced: Mutex::default(),
            soon: Mutex::default(),
            giving: Mutex::default(),
            replies: AtomicUsize::new(0),
        })
    }

    /// Asks who may connect. `None`: the hook failed, or did not answer in time.
    pub(crate) async fn admission(&self, request: &ConnectRequest) -> Option<Admission> {
        let ticket = self.lanes.ticket();
        let (sender, answer) = oneshot::channel();
        self.admissions.lock().insert(ticket, sender);
        let _forgotten = Forget(self, ticket);
        let asked = self
            .status
            .hook("authenticate", |hooks| hooks.authenticate(request, ticket));
        match asked? {
            Decision::Now(admission) => Some(admission),
            Decision::Failed => {
                self.running.hooks_failed.add(1);
                None
            }
            Decision::Later(_) => {
                let in_time = timeout(self.hook_timeout, answer).await;
                let admission = in_time.ok().and_then(|answered| answered.ok().flatten());
                if admission.is_none() {
                    self.running.hooks_failed.add(1);
                    tracing::error!(
                        hook = "authenticate",
                        "a hook failed, or did not answer in time"
                    );
                }
                admission
            }
        }
    }

    /// Takes an uplink into the lane of its device, and asks what is to become of it if there is someone to ask. `announced`, if
    /// any, is what it waits for before it may be forwarded.
    pub(crate) fn take(
        self: &Arc<Self>,
        uplink: Uplink,
        pledge: Option<Pledge>,
        announced: Option<BoxFuture<'static, ()>>,
    ) -> Room {
        if self.status.has_hooks() {
            return self.ask(uplink, pledge, announced);
        }
        let Some(announced) = announced else {
            return self.lanes.take(uplink, pledge);
        };
        // Decided already, but not told yet.
        let ticket = self.lanes.ticket();
        let room = self.lanes.take_undecided(uplink, pledge, ticket);
        self.hold(ticket, announced);
        let _ = self.decide(ticket, Some(UplinkAction::Forward));
        room
    }

    /// Asks the hook; the message has its place in the order before the hook can answer from another thread.
    fn ask(
        self: &Arc<Self>,
        uplink: Uplink,
        pledge: Option<Pledge>,
        announced: Option<BoxFuture<'static, ()>>,
    ) -> Room {
        let ticket = self.lanes.ticket();
        if self.lanes.take_undecided(uplink.clone(), pledge, ticket) == Room::Closed {
            return Room::Closed; // nothing is left to decide
        }
        if let Some(announced) = announced {
            self.hold(ticket, announced);
        }
        let asked = self
            .status
            .hook("on_uplink", |hooks| hooks.on_uplink(&uplink, ticket));
        let action = match asked {
            Some(Decision::Later(_)) => return Room::Undecided,
            Some(Decision::Now(action)) => Some(action),
            Some(Decision::Failed) => {
                self.running.hooks_failed.add(1);
                None
            }
            None => None, // it panicked, which is counted
        };
        // Only one that timed out already cannot be decided any more.
        let _ = self.decide(ticket, action);
        self.lanes.room(&uplink.client_id)
    }

    /// Lets an uplink wait until other processes can find its device, whatever is decided about it meanwhile: a second at most.
    fn hold(self: &Arc<Self>, ticket: Ticket, announced: BoxFuture<'static, ()>) {
        self.unannounced.lock().insert(ticket, None);
        let decisions = Arc::clone(self);
        // Whoever decides in time must not be late because of this.
        let most = ANNOUNCED_WITHIN.min(self.hook_timeout / 2);
        self.workers.spawn_until_stopped(async move {
            let _ = timeout(most, announced).await;
            let decided = decisions.unannounced.lock().remove(&ticket).flatten();
            if let Some(action) = decided {
                let _ = decisions.decide(ticket, Some(action)); // only one that timed out cannot be
            }
        });
    }

    /// Answers a question.
    ///
    /// # Errors
    /// `Ticket` when it is unknown, answered already, or timed out; `Argument` when the answer is one to the other question.
    pub(crate) fn resolve(&self, ticket: Ticket, answer: Answer) -> Result<()> {
        let is_admission = self.admissions.lock().contains_key(&ticket);
        let wrong_kind = |needs: &str| {
            Error::new(
                ErrorKind::Argument,
                format!("ticket {} needs the answer of {needs}", ticket.0),
            )
        };
        match answer {
            Answer::Uplink(_) if is_admission => Err(wrong_kind("authenticate")),
            Answer::Admission(_) if !is_admission && self.lanes.is_pending(ticket) => {
                Err(wrong_kind("on_uplink"))
            }
            Answer::Admission(admission) => self.answer_admission(ticket, Some(admission)),
            Answer::Failed if is_admission => self.answer_admission(ticket, None),
            Answer::Failed => {
                self.decide(ticket, None)?;
                self.running.hooks_failed.add(1);
                Ok(())
            }
            Answer::Uplink(action) => self.decide(ticket, Some(action)),
        }
    }

    /// Lets a task answer a question.
    pub(crate) fn resolve_soon(self: &Arc<Self>, ticket: Ticket, answer: Answer) {
        self.soon(|handover| handover.answer(ticket, answer));
    }

    /// Lets a task give answers and wake sessions.
    pub(crate) fn hand_over(self: &Arc<Self>, handover: &mut Handover) {
        if !handover.is_empty() {
            self.soon(|all| all.append(handover));
        }
    }

    /// One task sees to all that comes while it runs.
    fn soon(self: &Arc<Self>, add: impl FnOnce(&mut Handover)) {
        let has_task = {
            let mut soon = self.soon.lock();
            let before = soon.handover.replies;
            add(&mut soon.handover);
            self.replies
                .fetch_add(soon.handover.replies - before, Release);
            mem::replace(&mut soon.has_task, true)
        };
        if !has_task {
            self.workers.spawn(Arc::clone(self).take_over());
        }
    }

    async fn take_over(self: Arc<Self>) {
        let mut taken = Handover::default();
        loop {
            self.give(&mut taken);
            tokio::task::yield_now().await;
            let mut soon = self.soon.lock();
            if soon.handover.is_empty() {
                soon.has_task = false;
                return;
            }
        }
    }

    /// Does here what no task has done yet, if a device is to hear of it.
    pub(crate) fn finish_replies(&self) {
        if self.replies.load(Acquire) > 0 {
            self.give(&mut Handover::default());
        }
    }

    /// `taken` is empty before and after; its room is used again.
    fn give(&self, taken: &mut Handover) {
        let _giving = self.giving.lock();
        mem::swap(taken, &mut self.soon.lock().handover);
        for (ticket, answer) in taken.answers.drain(..) {
            let _ = self.resolve(ticket, answer);
        }
        self.replies
            .fetch_sub(mem::take(&mut taken.replies), Release);
        taken.woken.drain(..).for_each(Waker::wake);
    }

    fn answer_admission(&self, ticket: Ticket, admission: Option<Admission>) -> Result<()> {
        let waiting = self.admissions.lock().remove(&ticket);
        match waiting.map(|waiting| waiting.send(admission)) {
            Some(Ok(())) => Ok(()),
            _ => Err(no_ticket(ticket)),
        }
    }

    /// Decides about an uplink; what is to be forwarded while it is held is forwarded then.
    fn decide(&self, ticket: Ticket, action: Option<UplinkAction>) -> Result<()> {
        {
            let is_forwarded = matches!(
                action,
                Some(UplinkAction::Forward | UplinkAction::Replace(_))
            );
            let mut unannounced = self.unannounced.lock();
            match unannounced.get_mut(&ticket) {
                None => {}
                Some(Some(_)) => return Err(no_ticket(ticket)),
                Some(held) if is_forwarded => {
                    *held = action;
                    return Ok(());
                }
                Some(None) => drop(unannounced.remove(&ticket)),
            }
        }
        if let Some((client_id, reply)) = self.lanes.decide(ticket, action)? {
            // A device that gets no reply is no failure of the decision.
            match self.downlinks.put(&client_id, reply) {
                Ok(None) => {}
                Ok(Some(_)) => {
                    tracing::debug!(%client_id, "the device has left before the hook's reply");
                }
                Err(error) if error.kind() == ErrorKind::OutboxFull => {} // counted and told as any downlink
                Err(error) => {
                    tracing::warn!(%client_id, error = error.to_line(), "the hook's reply is lost");
                }
            }
        }
        Ok(())
    }

    /// Lets no handshake wait any longer.
    pub(crate) fn abort(&self) {
        self.admissions.lock().clear();
    }
}

/// Forgets a question about a handshake that nobody waits for any more.
struct Forget<'a>(&'a Decisions, Ticket);

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.0.admissions.lock().remove(&self.1);
    }
}

fn no_ticket(ticket: Ticket) -> Error {
    let text = format!(
        "ticket {} is unknown, answered already, or timed out",
        ticket.0
    );
    Error::new(ErrorKind::Ticket, text)
}
