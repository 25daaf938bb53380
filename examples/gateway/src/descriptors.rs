//! The descriptor limit of the process, which bounds how many devices can connect.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The limit raised as far as it goes, as Node does; put back when dropped.
#[derive(Debug)]
pub(crate) struct RaisedLimit {
    before: Rlimit,
}

impl RaisedLimit {
    /// Raises the soft limit to the hard one, and logs both.
    pub(crate) fn raise() -> Self {
        let before = getrlimit(Resource::Nofile);
        let raised = Rlimit {
            current: before.maximum,
            maximum: before.maximum,
        };
        match setrlimit(Resource::Nofile, raised) {
            Ok(()) => tracing::info!(
                from = before.current,
                to = raised.current,
                "Descriptor limit"
            ),
            Err(error) => tracing::warn!(
                limit = before.current,
                error = %error,
                "Descriptor limit cannot be raised"
            ),
        }
        Self { before }
    }
}

impl Drop for RaisedLimit {
    fn drop(&mut self) {
        let _ = setrlimit(Resource::Nofile, self.before); // lowering is always allowed
    }
}
