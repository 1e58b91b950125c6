// SPDX-License-Identifier: MPL-2.0

//! What the property `stats` and the element messages say.

/// What the inner pipeline is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum State {
    /// The element is not PLAYING.
    #[default]
    Stopped,
    Running,
    /// Until the next start.
    Waiting,
    /// There will be no other start.
    Ended,
}

impl State {
    fn as_str(self) -> &'static str {
        match self {
            Self::Stopped => "stopped",
            Self::Running => "running",
            Self::Waiting => "waiting",
            Self::Ended => "ended",
        }
    }
}

#[derive(Debug, Clone, Default)]
pub(super) struct Stats {
    pub(super) state: State,
    pub(super) starts: u64,
    pub(super) failures: u64,
    pub(super) error: Option<String>,
}

impl Stats {
    pub(super) fn structure(&self) -> gst::Structure {
        gst::Structure::builder("supervisor")
            .field("state", self.state.as_str())
            .field("starts", self.starts)
            .field("failures", self.failures)
            .field_if_some("error", self.error.as_ref())
            .build()
    }
}
