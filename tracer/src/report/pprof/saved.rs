//! Profiles that were read.

use crate::profile::{Profile, Session};
use crate::report::source::{ForeignFacts, Origin, ReportSource, ReportView};

/// A profile that was read.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SavedProfile {
    /// The stacks.
    pub profile: Profile,
    /// The facts beside them.
    pub origin: SavedOrigin,
    /// The report that the recording printed.
    pub view: ReportView,
    /// True if another program has changed a file of memtap's, so that what memtap alone keeps had
    /// to be left out.
    pub is_altered: bool,
}

/// The facts beside the stacks, by who recorded them: see [`Origin`].
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum SavedOrigin {
    /// memtap.
    Recording(Box<Session>),
    /// Another program.
    Foreign(ForeignFacts),
}

impl SavedProfile {
    /// Returns the profile as exporters take it.
    #[must_use]
    pub(crate) fn source(&self) -> ReportSource<'_> {
        ReportSource {
            profile: &self.profile,
            origin: match &self.origin {
                SavedOrigin::Recording(session) => Origin::Recording(session),
                SavedOrigin::Foreign(facts) => Origin::Foreign(facts),
            },
            view: &self.view,
        }
    }
}
