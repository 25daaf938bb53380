//! How many connections the admin listener holds, so that a probe is answered whoever else is there.
//!
//! Nobody can tell a probe before its head is whole. So a connection without a whole head holds nothing that the next one
//! could lack: when there are too many, the oldest gives way. A probe is answered at once and needs nothing more; a call of
//! the API, which can take its time, needs a place among the calls.

use std::{collections::BTreeMap, sync::Arc};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::locks::Mutex;

/// The connections of one admin listener.
pub(super) struct Connections {
    unheard: Mutex<Unheard>,
    /// How many more may be unheard.
    room: Arc<Semaphore>,
    /// Those with a call of the API, or kept for the next.
    calls: Arc<Semaphore>,
    /// How many more bytes of bodies may be held.
    bodies: Arc<Semaphore>,
    /// Those that are answered and only wait for their peer to read it.
    pub(super) lingering: Semaphore,
}

/// Those whose first head is not whole yet, oldest first, and how each is told to give way.
#[derive(Default)]
struct Unheard {
    next: u64,
    oldest_first: BTreeMap<u64, oneshot::Sender<()>>,
}

/// A connection whose first head is not whole yet.
pub(super) struct Newcomer {
    connections: Arc<Connections>,
    number: u64,
    _room: OwnedSemaphorePermit,
}

impl Connections {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            unheard: Mutex::default(),
            room: Arc::new(Semaphore::new(UNHEARD_MAX)),
            calls: Arc::new(Semaphore::new(CALLS_MAX)),
            bodies: Arc::new(Semaphore::new(BODIES_MAX_BYTES)),
            lingering: Semaphore::new(LINGERING_MAX),
        })
    }

    /// Makes room for one more, which is told by the receiver when it has to give way itself.
    pub(super) async fn enter(self: &Arc<Self>) -> (Newcomer, oneshot::Receiver<()>) {
        if self.room.available_permits() == 0
            && let Some((_, oldest)) = self.unheard.lock().oldest_first.pop_first()
        {
            let _ = oldest.send(()); // it may be gone already
        }
        // Not longer than until that one has looked.
        let room = self.room.clone().acquire_owned().await;
        let (sender, has_to_go) = oneshot::channel();
        let mut unheard = self.unheard.lock();
        let number = unheard.next;
        unheard.next += 1;
        unheard.oldest_first.insert(number, sender);
        let newcomer = Newcomer {
            connections: self.clone(),
            number,
            _room: room.expect("it is never closed"),
        };
        (newcomer, has_to_go)
    }

    /// Lets a call begin; `None` when there are too many.
    pub(super) fn begin_call(&self) -> Option<OwnedSemaphorePermit> {
        self.calls.clone().try_acquire_owned().ok()
    }

    /// Room for so many bytes of a body; `None` when there is too little.
    pub(super) fn body_room(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let bytes = u32::try_from(bytes).ok()?;
        self.bodies.clone().try_acquire_many_owned(bytes).ok()
    }
}

impl Newcomer {
    /// It is heard, or gone. `false` when it was told to give way before that.
    pub(super) fn leave(&self) -> bool {
        let mut unheard = self.connections.unheard.lock();
        unheard.oldest_first.remove(&self.number).is_some()
    }
}

impl Drop for Newcomer {
    fn drop(&mut self) {
        self.leave();
    }
}

const UNHEARD_MAX: usize = 256;
const CALLS_MAX: usize = 256;
/// Some bodies of the largest size (`messages::BODY_MAX_BYTES`).
const BODIES_MAX_BYTES: usize = 64 << 20;
/// As many may linger: each holds a descriptor and 16 KiB for a moment.
const LINGERING_MAX: usize = 64;
