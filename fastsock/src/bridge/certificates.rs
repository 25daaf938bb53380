//! Certificates that are replaced on disk are loaded without a word from anyone.

use std::{
    path::PathBuf,
    sync::{Arc, Weak},
    time::Duration,
};

use crate::{
    error::{Error, ErrorKind, Result},
    files::{Reader, stamp::Stamp},
    gateway::shared::Shared,
    verbs,
};

/// Looks at the files of the device port's certificates, and reloads them once they have changed and rest. A certificate and its key are two
/// files, and seldom change at once: a look that finds them as the look before did comes after both.
///
/// # Errors
/// `Io` when there is no thread for it.
pub(super) fn watch(shared: &Arc<Shared>) -> Result<()> {
    if shared.tls.is_none() {
        return Ok(());
    }
    let mut watch = Watch::new(shared);
    let reader = Reader::start(move || watch.look());
    let mut reader = reader.map_err(|e| {
        let text = "FASTSOCK_TLS_CERT: there is no thread to look after it";
        Error::new(ErrorKind::Io, text).with_source(e)
    })?;
    shared.workers.spawn_until_stopped(async move {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let _ = reader.read(LONGEST_LOOK).await; // what hangs is looked for again
        }
    });
    Ok(())
}

/// What is known of the files.
struct Watch {
    shared: Weak<Shared>,
    paths: Vec<PathBuf>,
    /// As they were when they were loaded, well or not.
    loaded: Stamps,
    /// As they were at the last look.
    seen: Stamps,
}

/// Of each file, if it is there.
type Stamps = Vec<Option<Stamp>>;

impl Watch {
    fn new(shared: &Arc<Shared>) -> Self {
        let tls = &shared.config.tls;
        let paths = tls.cert.iter().chain(&tls.key).chain(&tls.client_ca);
        let paths: Vec<PathBuf> = paths.cloned().collect();
        let loaded = stamps(&paths);
        Self {
            shared: Arc::downgrade(shared),
            seen: loaded.clone(),
            loaded,
            paths,
        }
    }

    fn look(&mut self) {
        let now = stamps(&self.paths);
        let is_at_rest = self.seen == now;
        self.seen.clone_from(&now);
        if now == self.loaded || !is_at_rest {
            return;
        }
        self.loaded = now;
        if let Some(shared) = self.shared.upgrade() {
            tracing::info!("Certificate files have changed");
            let _ = verbs::reload(&shared); // it logs what came of it
        }
    }
}

fn stamps(paths: &[PathBuf]) -> Stamps {
    paths.iter().map(|path| Stamp::of(path).ok()).collect()
}

const LOOK_EVERY: Duration = Duration::from_secs(1);
const LONGEST_LOOK: Duration = Duration::from_secs(30);
