//! The cost of a hit for the process that runs into the probe: the trap, and the programs.
//! [`measure`] finds out what a trap costs here, `trap_share` how much of their time processes
//! spend in traps; the rest of this module is arithmetic.

mod functions;
pub mod measure;
pub(crate) mod trap_share;

use crate::numeric::to_f64;

/// The cost of the traps of one hit, in nanoseconds, with programs that do nothing.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Traps {
    /// The trap at an instruction that the kernel emulates.
    pub emulated_ns: f64,
    /// The trap at an instruction that the kernel single-steps.
    pub stepped_ns: f64,
    /// The addition of a probe at the function's return.
    pub return_ns: f64,
    /// True if the costs were measured here; else they are [`Traps::ELSEWHERE`].
    pub is_measured: bool,
}

impl Traps {
    /// As measured on a virtual machine with Linux 6.18 (AMD Zen 4): where they cannot be measured.
    pub const ELSEWHERE: Self = Self {
        emulated_ns: 700.0,
        stepped_ns: 9_500.0,
        return_ns: 530.0,
        is_measured: false,
    };

    /// Returns the cost of a hit at a probe of this kind.
    #[must_use]
    pub fn of(&self, site: SiteKind) -> f64 {
        let entry = if site.single_stepped {
            self.stepped_ns
        } else {
            self.emulated_ns
        };
        entry + if site.has_return { self.return_ns } else { 0.0 }
    }
}

/// The properties of a probe that decide its cost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SiteKind {
    /// True if the kernel must single-step the instruction.
    pub single_stepped: bool,
    /// True if the call's return is probed as well.
    pub has_return: bool,
    /// True for a call that frees a block.
    pub is_free: bool,
}

/// The cost of the programs at a hit, in nanoseconds, as far as it is known.
///
/// The kernel tells what all hits together took; what of that is the work for allocations that are
/// followed is told apart by how many of them there were.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Work {
    /// The cost of a hit that is not traced further.
    pub passed_ns: f64,
    /// The addition of an allocation that is traced.
    pub followed_ns: f64,
    /// True once the kernel's statistics were read.
    pub is_measured: bool,
}

/// The share of traced hits below which their mean says nothing of the cost of tracing.
const SHARE_THAT_TELLS: f64 = 0.02;

/// Of a new figure so much goes into the one that is kept.
const NEW_PART: f64 = 0.5;

impl Work {
    /// Returns the costs assumed until there are figures: as measured with Linux 6.18 (AMD Zen 4),
    /// on stacks of some twenty frames.
    #[must_use]
    pub const fn assumed(live: bool) -> Self {
        Self {
            passed_ns: if live { 150.0 } else { 100.0 },
            followed_ns: if live { 1_500.0 } else { 900.0 },
            is_measured: false,
        }
    }

    /// Takes in what the kernel says: the mean time of all programs per hit, while this share of
    /// the hits was followed.
    pub fn learn(&mut self, mean_ns: f64, followed_share: f64) {
        let part = if self.is_measured { NEW_PART } else { 1.0 };
        if followed_share >= SHARE_THAT_TELLS {
            // A mean below what passing takes: that was assumed too high.
            self.passed_ns = self.passed_ns.min(mean_ns);
            let followed_ns = (mean_ns - self.passed_ns) / followed_share;
            // The fewer are followed, the more does noise in the mean weigh.
            let part = if self.is_measured {
                part * followed_share
            } else {
                part
            };
            self.followed_ns += part * (followed_ns - self.followed_ns);
        } else {
            let passed_ns = (mean_ns - followed_share * self.followed_ns).max(0.0);
            self.passed_ns += part * (passed_ns - self.passed_ns);
        }
        self.is_measured = true;
    }

    /// Returns the mean cost of a hit while this share of the hits is traced.
    #[must_use]
    pub fn mean_ns(&self, followed_share: f64) -> f64 {
        self.passed_ns + followed_share * self.followed_ns
    }
}

/// The middle of some figures; 0 of none.
fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_unstable_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hit_costs_what_its_probe_is() {
        let traps = Traps::ELSEWHERE;
        let plain = SiteKind::default();
        let stepped = SiteKind {
            single_stepped: true,
            has_return: true,
            ..plain
        };
        assert!((traps.of(plain) - traps.emulated_ns).abs() < 1e-9);
        assert!((traps.of(stepped) - traps.stepped_ns - traps.return_ns).abs() < 1e-9);
    }

    #[test]
    fn work_is_told_apart_by_how_much_is_followed() {
        let mut work = Work::assumed(false);
        // What is true: 80 ns for a hit that is passed, 600 ns more for one that is followed.
        let mean_ns = |share: f64| 80.0 + share * 600.0;
        for share in [1.0, 0.01, 0.001, 0.3, 0.001, 0.5, 0.001, 1.0, 1.0, 1.0] {
            work.learn(mean_ns(share), share);
        }
        assert!((work.passed_ns - 80.0).abs() < 4.0, "{work:?}");
        assert!((work.followed_ns - 600.0).abs() < 30.0, "{work:?}");
        assert!((work.mean_ns(0.5) - mean_ns(0.5)).abs() < 10.0, "{work:?}");
        assert!(work.is_measured);
    }

    #[test]
    fn cheap_programs_lower_what_was_assumed() {
        let mut work = Work::assumed(true);
        work.learn(40.0, 1.0);
        assert!(work.passed_ns <= 40.0 && work.followed_ns >= 0.0, "{work:?}");
    }

    #[test]
    fn the_middle_is_not_moved_by_one_that_is_far_off() {
        assert!((median(vec![3.0, 900.0, 1.0, 2.0, 4.0]) - 3.0).abs() < 1e-9);
        assert!(median(Vec::new()).abs() < 1e-9);
    }
}
