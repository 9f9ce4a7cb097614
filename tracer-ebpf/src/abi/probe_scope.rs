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
    const COOKIE_BIT: u32 = 63;

    /// The cookie of a probe whose link is for this scope.
    #[must_use]
    pub const fn mark(self, cookie: u64) -> u64 {
        cookie | self.number() << Self::COOKIE_BIT
    }

    /// The number of the scope that a probe's link is for, by its cookie.
    #[inline]
    #[must_use]
    pub const fn number_in(cookie: u64) -> u64 {
        cookie >> Self::COOKIE_BIT
    }

    /// The upper half of a cookie without that bit.
    #[inline]
    #[must_use]
    pub const fn upper_half_of(cookie: u64) -> u32 {
        (cookie << (u64::BITS - Self::COOKIE_BIT) >> (u64::BITS - Self::COOKIE_BIT + 32)) as u32
    }

    /// The scope's number.
    #[must_use]
    pub const fn number(self) -> u64 {
        self as u64
    }
}

#[cfg(test)]
mod tests {
    use super::ProbeScope;

    #[test]
    fn marks_leave_the_cookie() {
        let cookie = 4095 << 32 | 7;
        for scope in [ProbeScope::Processes, ProbeScope::Machine] {
            let marked = scope.mark(cookie);
            assert_eq!(ProbeScope::number_in(marked), scope.number());
            assert_eq!(ProbeScope::upper_half_of(marked), 4095);
            assert_eq!(marked & 0xffff_ffff, 7);
        }
    }
}
