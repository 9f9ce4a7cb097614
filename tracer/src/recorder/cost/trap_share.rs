//! The share of CPU time that processes spend in the traps of probes, by samples of that time.
//!
//! The instruction pointer in user space tells a trap from the program's own system calls and page
//! faults: it is at the probed instruction from the breakpoint on, and behind it once the kernel
//! has emulated it. Interrupts are off on the way out of the kernel, so that a sample of this time
//! is taken at the first instructions of the program after it.

use std::collections::HashMap;
use std::ops::Range;

use super::to_f64;
use crate::process::task_clocks::{SAMPLE_COST, SAMPLE_PERIOD, TaskSample};

/// The length of the longest instruction.
const LONGEST_INSTRUCTION: u64 = 15;

/// Fewer samples say nothing.
const SAMPLES_THAT_TELL: u64 = 50;

/// The time that a program loses after a trap, in parts of the trap's: it finds its caches and
/// branch predictions gone. Measured with Linux 6.18 (AMD Zen) on a loop of 0.5 µs, which took 3 %
/// longer with probes, and the allocator's functions, which took twice as long: together 75 ns
/// after 1.7 µs.
const AFTER_TRAPS: f64 = 0.045;

/// The addresses at which a process is in a trap.
#[derive(Debug, Clone, Default)]
pub(crate) struct TrapCode {
    /// The probed instructions, in order.
    probes: Vec<u64>,
    /// The kernel's own instructions for single steps and for returns.
    trampolines: Vec<Range<u64>>,
}

impl TrapCode {
    /// Returns the code with these probed instructions and these mappings of the kernel's.
    pub(crate) fn new(probes: impl IntoIterator<Item = u64>, trampolines: Vec<Range<u64>>) -> Self {
        let mut probes: Vec<u64> = probes.into_iter().collect();
        probes.sort_unstable();
        Self { probes, trampolines }
    }

    /// Returns true if the sample is of a trap.
    fn has(&self, sample: &TaskSample) -> bool {
        let at = sample.address;
        if self.trampolines.iter().any(|trampoline| trampoline.contains(&at)) {
            return true;
        }
        // In user space, the probed instruction itself is what the program is about to execute.
        let last = if sample.in_kernel {
            Some(at)
        } else {
            at.checked_sub(1)
        };
        let Some(last) = last else { return false };
        let before = self.probes.partition_point(|probe| *probe <= last);
        let nearest = before.checked_sub(1).and_then(|index| self.probes.get(index));
        nearest.is_some_and(|probe| at - probe <= LONGEST_INSTRUCTION)
    }
}

/// Samples, and those of them that are of traps.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct TrapShare {
    samples: u64,
    traps: u64,
}

impl TrapShare {
    /// Returns the counts of samples, and of those in traps.
    #[cfg(test)]
    pub(crate) const fn new(samples: u64, traps: u64) -> Self {
        Self { samples, traps }
    }

    /// Counts samples of processes with this code. Those of others are left out.
    pub(crate) fn of(samples: &[TaskSample], code: &HashMap<u32, TrapCode>) -> Self {
        let mut share = Self::default();
        for sample in samples {
            if let Some(code) = code.get(&sample.pid) {
                share.samples += 1;
                share.traps += u64::from(code.has(sample));
            }
        }
        share
    }

    /// Adds other samples.
    pub(crate) fn add(&mut self, other: Self) {
        self.samples += other.samples;
        self.traps += other.traps;
    }

    /// The part of the time that was the processes' own, without that of the samples themselves;
    /// nothing of too few samples.
    pub(crate) fn own(&self) -> Option<OwnPart> {
        if self.samples < SAMPLES_THAT_TELL {
            return None;
        }
        let samples = to_f64(self.samples);
        let traps = to_f64(self.traps) / samples;
        let sampling = SAMPLE_COST.as_secs_f64() / SAMPLE_PERIOD.as_secs_f64();
        let counted = (traps * (1.0 - traps) / samples).sqrt();
        Some(OwnPart {
            part: (1.0 - traps - AFTER_TRAPS * traps - sampling).max(0.0),
            error: counted.hypot(AFTER_TRAPS * traps).hypot(sampling),
        })
    }
}

/// A part of CPU time that was the processes' own.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct OwnPart {
    pub(crate) part: f64,
    /// Its standard error: of a binomial proportion, and of what is assumed.
    pub(crate) error: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROBE: u64 = 0x1000;

    fn sample(address: u64, in_kernel: bool) -> TaskSample {
        TaskSample {
            pid: 7,
            address,
            in_kernel,
        }
    }

    fn traps(samples: &[TaskSample]) -> u64 {
        let code = TrapCode::new([PROBE + 0x100, PROBE], vec![0x7000..0x7800, 0x7800..0x8000]);
        TrapShare::of(samples, &HashMap::from([(7, code)])).traps
    }

    #[test]
    fn a_trap_is_known_by_the_probed_instruction() {
        // At the breakpoint, behind it, and once the instruction is emulated.
        for behind in [0, 1, 4, 15, 0x100, 0x10f] {
            assert_eq!(traps(&[sample(PROBE + behind, true)]), 1, "{behind}");
        }
        // System calls and page faults elsewhere.
        for at in [PROBE - 1, PROBE + 16, PROBE + 0x110, 0] {
            assert_eq!(traps(&[sample(at, true)]), 0, "{at:x}");
        }
    }

    #[test]
    fn the_way_out_of_the_kernel_is_a_trap() {
        assert_eq!(traps(&[sample(PROBE + 1, false), sample(PROBE + 4, false)]), 2);
        assert_eq!(traps(&[sample(PROBE, false), sample(PROBE + 16, false)]), 0);
    }

    #[test]
    fn the_kernels_own_instructions_are_traps() {
        assert_eq!(traps(&[sample(0x7000, true), sample(0x7fff, false)]), 2);
        assert_eq!(traps(&[sample(0x8000, true), sample(0x6fff, false)]), 0);
    }

    #[test]
    fn the_part_has_the_error_of_a_proportion() {
        assert_eq!(TrapShare::new(49, 10).own(), None);
        let own = TrapShare::new(400, 300).own().expect("enough samples");
        assert!((0.15..0.25).contains(&own.part), "{own:?}");
        let counted = (0.25_f64 * 0.75).sqrt() / 20.0;
        assert!((counted..0.05).contains(&own.error), "{own:?}");
        let all = TrapShare::new(400, 400).own().expect("enough samples");
        assert!(all.part <= 0.0, "{all:?}");
        let none = TrapShare::new(400, 0).own().expect("enough samples");
        assert!(none.part > 0.95 && none.error < 0.05, "{none:?}");
    }

    #[test]
    fn samples_of_others_are_left_out() {
        let stranger = TaskSample {
            pid: 8,
            ..sample(PROBE, true)
        };
        let code = HashMap::from([(7, TrapCode::new([PROBE], Vec::new()))]);
        assert_eq!(TrapShare::of(&[stranger], &code), TrapShare::default());
    }
}
