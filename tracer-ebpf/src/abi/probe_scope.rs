//! The links that count while the probes of a tree of processes go over to the whole machine.

/// The links whose hits count: the value of the map `PROBE_SCOPE`. For a moment there are both, and
/// each hit comes twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u64)]
pub enum ProbeScope {
    /// Those of one process each.
    #[default]
    Processes = 0,
    /// Those of every process that maps the file.
    Machine = 1,
}

impl ProbeScope {
    /// The bit of a probe's cookie that says for which scope its link is.
    pub const COOKIE_SHIFT: u32 = 63;

    /// The scope's number.
    #[must_use]
    pub const fn number(self) -> u64 {
        self as u64
    }
}
