//! Sums of figures, wide enough not to overflow.

use std::collections::BTreeMap;

use tracer_ebpf::{BUCKETS, Function};

use crate::profile::{Aged, GroupVariance, Marks, Profile, Stack, Values, Variances};

/// The figures of [`Values`], summed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sums {
    /// Calls, failed ones too.
    pub(super) calls: u128,
    /// Bytes allocated, mapped, or unmapped by `munmap`.
    pub(super) bytes: u128,
    /// Bytes freed by the same calls.
    pub(super) bytes_out: u128,
    /// Calls that returned an error.
    pub(super) failed: u128,
    /// Blocks that were allocated.
    pub(super) blocks: u128,
    /// Blocks that were freed.
    pub(super) freed: u128,
    /// Bytes of freed blocks.
    pub(super) freed_bytes: u128,
    /// Temporary blocks: freed by their thread's next call of the allocator.
    pub(super) temporary: u128,
    /// Bytes that the blocks had room for.
    pub(super) usable_bytes: u128,
    /// Blocks that could not be tracked.
    pub(super) untracked: u128,
    /// Bytes of blocks that could not be tracked.
    pub(super) untracked_bytes: u128,
    /// Blocks that are live.
    pub(super) live: u128,
    /// Bytes of live blocks.
    pub(super) live_bytes: u128,
    /// Live blocks with their ages.
    pub(super) aged: AgedSums,
    /// Blocks by size.
    pub(super) sizes: Histogram,
    /// Blocks that were freed, by lifetime.
    pub(super) lifetimes: Histogram,
    /// The variances of estimates.
    pub(super) variances: Variances,
}

/// Counts by powers of two, as in [`HeapValues`](crate::profile::HeapValues).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Histogram(pub(super) [u64; BUCKETS]);

impl Histogram {
    fn add(&mut self, counts: impl IntoIterator<Item = u64>) {
        for (to, from) in self.0.iter_mut().zip(counts) {
            *to = to.saturating_add(from);
        }
    }
}

/// The figures of [`Aged`], summed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct AgedSums {
    /// Live blocks.
    pub(super) live: u128,
    /// Bytes of live blocks.
    pub(super) live_bytes: u128,
    /// Live blocks of at least the age that was asked for.
    pub(super) old: u128,
    /// Bytes of these old blocks.
    pub(super) old_bytes: u128,
    /// Live blocks from before the half-way mark.
    pub(super) kept: u128,
    /// Bytes of these kept blocks.
    pub(super) kept_bytes: u128,
    /// The age of the oldest.
    pub(super) oldest_ns: u64,
    /// Blocks that were live at the half-way mark.
    pub(super) half_live: u128,
    /// Bytes that were live at each mark.
    pub(super) marks_bytes: [u128; Marks::COUNT],
    /// The variance of `live`.
    pub(super) live_variance: u128,
    /// The variance of `live_bytes`.
    pub(super) live_bytes_variance: u128,
    /// The variance of `old_bytes`.
    pub(super) old_bytes_variance: u128,
}

impl AgedSums {
    fn add(&mut self, aged: &Aged) {
        self.add_sums(&Self {
            live: aged.live.into(),
            live_bytes: aged.live_bytes.into(),
            old: aged.old.into(),
            old_bytes: aged.old_bytes.into(),
            kept: aged.kept.into(),
            kept_bytes: aged.kept_bytes.into(),
            oldest_ns: aged.oldest_ns,
            half_live: aged.half_live.into(),
            marks_bytes: aged.marks_bytes.map(u128::from),
            live_variance: aged.live_variance,
            live_bytes_variance: aged.live_bytes_variance,
            old_bytes_variance: aged.old_bytes_variance,
        });
    }

    fn add_sums(&mut self, other: &Self) {
        self.live += other.live;
        self.live_bytes += other.live_bytes;
        self.old += other.old;
        self.old_bytes += other.old_bytes;
        self.kept += other.kept;
        self.kept_bytes += other.kept_bytes;
        self.oldest_ns = self.oldest_ns.max(other.oldest_ns);
        self.half_live += other.half_live;
        for (to, from) in self.marks_bytes.iter_mut().zip(other.marks_bytes) {
            *to += from;
        }
        for (to, from) in [
            (&mut self.live_variance, other.live_variance),
            (&mut self.live_bytes_variance, other.live_bytes_variance),
            (&mut self.old_bytes_variance, other.old_bytes_variance),
        ] {
            *to = to.saturating_add(from);
        }
    }
}

impl Sums {
    /// Adds one stack's figures.
    pub(super) fn add(&mut self, values: &Values) {
        self.calls += u128::from(values.calls);
        self.bytes += u128::from(values.bytes);
        self.bytes_out += u128::from(values.bytes_out);
        self.failed += u128::from(values.failed);
        let heap = &values.heap;
        self.blocks += u128::from(heap.blocks);
        self.freed += u128::from(heap.freed);
        self.freed_bytes += u128::from(heap.freed_bytes);
        self.temporary += u128::from(heap.temporary);
        self.usable_bytes += u128::from(heap.usable_bytes);
        self.untracked += u128::from(heap.untracked);
        self.untracked_bytes += u128::from(heap.untracked_bytes);
        self.live += u128::from(values.live());
        self.live_bytes += u128::from(values.live_bytes());
        self.aged.add(&heap.aged);
        self.sizes.add(heap.sizes.map(u64::from));
        self.lifetimes.add(heap.lifetimes.map(u64::from));
        self.variances.add(&values.variances);
    }

    /// Adds other sums.
    pub(super) fn add_sums(&mut self, other: &Self) {
        self.calls += other.calls;
        self.bytes += other.bytes;
        self.bytes_out += other.bytes_out;
        self.failed += other.failed;
        self.blocks += other.blocks;
        self.freed += other.freed;
        self.freed_bytes += other.freed_bytes;
        self.temporary += other.temporary;
        self.usable_bytes += other.usable_bytes;
        self.untracked += other.untracked;
        self.untracked_bytes += other.untracked_bytes;
        self.live += other.live;
        self.live_bytes += other.live_bytes;
        self.aged.add_sums(&other.aged);
        self.sizes.add(other.sizes.0);
        self.lifetimes.add(other.lifetimes.0);
        self.variances.add(&other.variances);
    }
}

/// Sums by function, in the order of the functions' numbers; functions that were not called are
/// absent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct FunctionSums {
    functions: BTreeMap<Function, Sums>,
    /// The variances that the sum of all allocator functions has at least.
    total_variances: Variances,
}

impl FunctionSums {
    /// Returns the sums of one process, an index into [`Profile::processes`], or of all.
    pub(super) fn of(profile: &Profile, process: Option<usize>) -> Self {
        let mut sums = Self::default();
        for stack in &profile.stacks {
            if process.is_none_or(|it| it == stack.process) {
                sums.add(stack);
            }
        }
        for together in profile.together.iter().filter(|it| it.process == process) {
            sums.vary_together(together);
        }
        sums
    }

    /// Returns the sums of each process, in the order of [`Profile::processes`], in one pass over
    /// the stacks.
    pub(super) fn by_process(profile: &Profile) -> Vec<Self> {
        let mut sums = vec![Self::default(); profile.processes.len()];
        for stack in &profile.stacks {
            sums[stack.process].add(stack);
        }
        for together in &profile.together {
            if let Some(process) = together.process {
                sums[process].vary_together(together);
            }
        }
        sums
    }

    fn add(&mut self, stack: &Stack) {
        self.functions
            .entry(stack.function)
            .or_default()
            .add(&stack.values);
    }

    fn vary_together(&mut self, together: &GroupVariance) {
        let variances = match together.function {
            Some(function) => self.functions.get_mut(&function).map(|sums| &mut sums.variances),
            None => Some(&mut self.total_variances),
        };
        if let Some(variances) = variances {
            variances.calls = variances.calls.max(together.calls_variance);
            variances.bytes = variances.bytes.max(together.bytes_variance);
        }
    }

    /// A function's sums; zero where it was not called.
    pub(super) fn get(&self, function: Function) -> Sums {
        self.functions.get(&function).copied().unwrap_or_default()
    }

    /// The allocator functions that were called.
    pub(super) fn heap(&self) -> impl Iterator<Item = (Function, Sums)> {
        self.functions
            .iter()
            .filter(|(function, _)| function.is_heap())
            .map(|(function, sums)| (*function, *sums))
    }

    /// The sum of all allocator functions.
    pub(super) fn heap_total(&self) -> Sums {
        let mut total = Sums::default();
        for (_, sums) in self.heap() {
            total.add_sums(&sums);
        }
        let (variances, least) = (&mut total.variances, &self.total_variances);
        variances.calls = variances.calls.max(least.calls);
        variances.bytes = variances.bytes.max(least.bytes);
        total
    }
}
