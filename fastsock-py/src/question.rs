//! What a hook is asked to decide.

/// Which decision is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Question {
    /// Who may connect.
    Authenticate,
    /// What becomes of an uplink.
    OnUplink,
}

impl Question {
    /// The name of its hook.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Authenticate => "authenticate",
            Self::OnUplink => "on_uplink",
        }
    }
}
