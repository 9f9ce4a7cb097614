//! The result of a recording, from the sums of the kernel side and the state of this one.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tracer_ebpf::{Counter, Function, Loss, PROCESS_UNKNOWN, STACK_LOST, Sum, SumKey};

use super::budget::BudgetController;
use super::figures::{AgeLimits, HeapAges, VarianceUnit, heap_values_of, merged, seen, values_of};
use super::heap_history::HeapHistory;
use super::process_table::ProcessTable;
use super::profile_builder::ProfileBuilder;
use super::stack_table::StackTable;
use super::unwind_tables::Unwinding;
use crate::bpf::counters::Counts;
use crate::bpf::load::BpfError;
use crate::bpf::{Object, heap, sums};
use crate::clock::monotonic_ns;
use crate::numeric::{saturating_u64, to_f64};
use crate::profile::cost::Cost;
use crate::profile::session::{EventCounts, Probe, TableUsage};
use crate::profile::{AddressStack, AddressStacks, Losses, Marks, Profile};
use crate::settings::Probed;
use crate::symbolize::Namer;

/// A recording.
#[derive(Debug)]
pub(crate) struct Recording {
    /// The stacks and their figures.
    pub(crate) profile: Profile,
    /// Its length.
    pub(crate) duration: Duration,
    /// Events by outcome.
    pub(crate) events: EventCounts,
    /// Lost events by reason.
    pub(crate) losses: Losses,
    /// The cost of tracing.
    pub(crate) cost: Option<Cost>,
    /// The probes that were attached.
    pub(crate) probes: Vec<Probe>,
    /// Bytes of kernel memory, by map.
    pub(crate) memory: BTreeMap<String, u64>,
    /// The stacks as addresses, by process image.
    pub(crate) address_stacks: Vec<AddressStacks>,
    /// The unwind tables, where stacks were walked by them.
    pub(crate) tables: Option<TableUsage>,
    /// The processes that have probes.
    pub(crate) probed: Probed,
}

/// The beginning and the end of a recording.
#[derive(Debug, Clone, Copy)]
pub(super) struct RecordingClock {
    pub(super) started: Instant,
    /// The end by two clocks, the second in nanoseconds of `CLOCK_MONOTONIC`.
    ended: Option<(Instant, u64)>,
}

impl RecordingClock {
    /// Starts now.
    pub(super) fn start() -> Self {
        Self {
            started: Instant::now(),
            ended: None,
        }
    }

    /// Ends now.
    pub(super) fn end(&mut self) {
        self.ended = Some((Instant::now(), monotonic_ns()));
    }

    /// Returns true after the end.
    pub(super) fn is_over(&self) -> bool {
        self.ended.is_some()
    }

    /// The end, or the present.
    fn now(&self) -> Instant {
        self.ended.map_or_else(Instant::now, |(at, _)| at)
    }

    /// The same in nanoseconds of `CLOCK_MONOTONIC`.
    fn now_ns(&self) -> u64 {
        self.ended.map_or_else(monotonic_ns, |(_, at_ns)| at_ns)
    }
}

/// The settings of a recording that its result depends on.
#[derive(Debug, Clone, Copy)]
pub(super) struct RecordingOptions {
    /// Allocator calls are recorded.
    pub(super) heap: bool,
    /// The unit of the kernel side's variances.
    pub(super) unit: VarianceUnit,
    /// Blocks of at least this age count as old, where ages are reported.
    pub(super) older_than: Duration,
}

/// Everything that a recording is made from.
pub(super) struct RecordingSources<'a> {
    pub(super) options: RecordingOptions,
    pub(super) clock: RecordingClock,
    pub(super) object: &'a Object,
    pub(super) processes: &'a ProcessTable,
    pub(super) stacks: &'a StackTable,
    /// Nothing where stacks are walked by frame pointers alone.
    pub(super) unwinding: Option<&'a Unwinding>,
    /// Nothing where blocks are not followed.
    pub(super) heap_history: Option<&'a HeapHistory>,
    pub(super) budget: &'a BudgetController,
    pub(super) namer: &'a Namer,
    pub(super) probes: &'a [Probe],
    /// The processes that have them.
    pub(super) probed: Probed,
    /// Stops of processes for unwind tables.
    pub(super) stops: u64,
    /// Records of process life that the kernel could not write during the recording.
    pub(super) life_records_lost: u64,
    /// Processes that began before they had probes.
    pub(super) late_processes: u64,
}

impl RecordingSources<'_> {
    /// Reads the sums so far, and makes a recording of them. `memory` is the caller's to fill in.
    pub(super) fn recording(&self) -> Result<Recording, BpfError> {
        let (object, stacks, unit) = (self.object, self.stacks, self.options.unit);
        let duration = self.clock.now().saturating_duration_since(self.clock.started);
        let sums = merged(self.estimated(sums::read(object)?), stacks);
        let blocks = match self.heap_history {
            Some(_) => merged(heap::sums(object)?, stacks),
            None => Vec::new(),
        };
        let overflow = sums::overflow(object)?;
        let counts = object.counts()?;
        let hits: u64 = object.hit_counts()?.by_site.iter().sum();
        let by_process = self.budget.meter().hits_by_process(object, self.processes)?;
        let cost = self
            .options
            .heap
            .then(|| self.budget.cost(duration, &by_process, self.clock.now()));
        let mut builder = ProfileBuilder::new(self.processes, stacks, self.unwinding, by_process);
        let ages = self.ages(duration)?;
        let mut unsent = 0;
        for (key, sum) in &sums {
            let Some(function) = Function::from_number(key.function) else {
                continue;
            };
            if sum.calls == 0 {
                continue;
            }
            let stack = stacks.get(key.stack).filter(|_| key.stack != STACK_LOST);
            if key.stack != STACK_LOST && stack.is_none() {
                unsent += seen(sum);
            }
            let mut values = values_of(sum, unit);
            if self.heap_history.is_some() && function.is_heap() {
                // Blocks for which there was no room with their stack.
                values.heap.blocks = sum.calls - sum.failed.min(sum.calls);
                values.heap.freed_bytes = sum.bytes_out;
                values.variances.blocks = values.variances.calls;
                if let Some(ages) = &ages {
                    values.heap.aged = ages.without_past(key, &values);
                }
            }
            builder.add(key.process, stack.map(|_| key.stack), function, &values);
        }
        let peak = self
            .heap_history
            .map(|history| history.peak_by_stack(stacks))
            .unwrap_or_default();
        for (key, sum) in &blocks {
            let Some(function) = Function::from_number(key.function) else {
                continue;
            };
            let stack = stacks.get(key.stack);
            if stack.is_none() {
                unsent += seen(&sum.sum);
            }
            let mut values = heap_values_of(sum, unit);
            values.heap.peak_bytes = peak.get(key).copied().unwrap_or(0);
            if let Some(ages) = &ages {
                values.heap.aged = ages.of(key, &values);
            }
            builder.add(key.process, stack.map(|_| key.stack), function, &values);
        }
        if let Some(history) = self.heap_history {
            builder.set_heaps(
                &heap::process_totals(object)?,
                &heap::machine_totals(object)?,
                history.peak_bytes(),
                unit,
            );
        }
        self.add_group_variances(&mut builder);
        for (function, sum) in &overflow {
            builder.add(PROCESS_UNKNOWN, None, *function, &values_of(sum, unit));
        }

        let heap_calls = blocks.iter().map(|(key, sum)| (*key, sum.sum));
        let address_stacks = self.address_stacks(&sums.iter().copied().chain(heap_calls).collect::<Vec<_>>());
        let losses = self.losses(&counts, unsent)?;
        let mut profile = builder.build(self.namer, self.clock.is_over());
        profile.has_ages = ages.is_some();
        if object.has_sampled() {
            profile.sample_bytes = Some(object.sampling().interval_bytes);
        }
        profile.marks = ages.and_then(|ages| ages.marks());
        Ok(Recording {
            profile,
            duration,
            events: events(&counts, hits, unsent),
            losses,
            cost,
            probes: self.probes.to_vec(),
            memory: BTreeMap::new(),
            address_stacks,
            tables: self
                .unwinding
                .map(|unwinding| self.table_usage(unwinding, &counts)),
            probed: self.probed,
        })
    }

    /// The use of the unwind tables.
    fn table_usage(&self, unwinding: &Unwinding, counts: &Counts) -> TableUsage {
        let unfinished = unwinding.unfinished() + self.stacks.unjoined();
        TableUsage {
            remembered: counts.events(Counter::StackRemembered),
            awaited: counts.events(Counter::TableAwaited),
            finished_from_copies: counts.events(Counter::StackCopied).saturating_sub(unfinished),
            unfinished,
            mappings_busy: counts.events(Counter::MappingBusy),
            stops: self.stops,
            ..unwinding.usage()
        }
    }

    /// Lost events. `unsent` is the number of events whose stack the kernel side has not sent.
    fn losses(&self, counts: &Counts, unsent: u64) -> Result<Losses, BpfError> {
        let mut losses: Vec<(Loss, u64)> = Loss::ALL.iter().map(|loss| (*loss, counts.lost(*loss))).collect();
        losses.push((Loss::LateProbes, self.late_processes));
        losses.push((Loss::LifeRecordLost, self.life_records_lost));
        // During the recording, a stack or a call that is on its way is not lost.
        if self.clock.is_over() {
            losses.push((Loss::RingFull, unsent));
            let mut unfinished = sums::unfinished_calls(self.object)?;
            if self.heap_history.is_some() {
                unfinished += heap::pending_calls(self.object)?.len() as u64;
            }
            losses.push((Loss::UnfinishedCall, unfinished));
        }
        Ok(Losses::new(losses))
    }

    /// Extends sums to the whole time, where probes were attached for a part of it.
    fn estimated(&self, mut sums: Vec<(SumKey, Sum)>) -> Vec<(SumKey, Sum)> {
        let now = self.clock.now();
        let windows = self.budget.window_sums();
        for (key, sum) in &mut sums {
            if let Some(correction) = windows.correction(key, now) {
                sum.calls = saturating_u64(to_f64(sum.calls) + correction.calls);
                sum.bytes = saturating_u64(to_f64(sum.bytes) + correction.bytes);
            }
            if let Some(variance) = windows.variance_of(key, now) {
                sum.calls_variance = sum.calls_variance.max(saturating_u64(variance.calls));
                let bytes_variance = self.options.unit.of_bytes(variance.bytes);
                sum.bytes_variance = sum.bytes_variance.max(bytes_variance);
            }
        }
        sums
    }

    /// Adds the variances of sums of several stacks, where windows tell them.
    fn add_group_variances(&self, builder: &mut ProfileBuilder<'_>) {
        let unit = self.options.unit;
        for (group, variance) in self.budget.window_sums().group_variances(self.clock.now()) {
            builder.add_group_variance(
                group.process,
                group.function.and_then(Function::from_number),
                saturating_u64(variance.calls).into(),
                unit.bytes(unit.of_bytes(variance.bytes)),
            );
        }
    }

    /// The ages of blocks, where they are reported.
    fn ages(&self, duration: Duration) -> Result<Option<HeapAges<'_>>, BpfError> {
        let Some(timeline) = self.heap_history.and_then(HeapHistory::timeline) else {
            return Ok(None);
        };
        let past = timeline.marks(duration);
        let limits = AgeLimits {
            now_ns: self.clock.now_ns(),
            old_ns: u64::try_from(self.options.older_than.as_nanos()).unwrap_or(u64::MAX),
            half_ns: past.as_ref().map(|(snapshots, _)| snapshots[Marks::HALF].at_ns()),
        };
        let blocks = heap::blocks(self.object)?;
        Ok(Some(HeapAges::new(
            self.processes,
            self.stacks,
            self.options.unit,
            &limits,
            &blocks,
            past,
        )))
    }

    /// The stacks as addresses, by process image.
    fn address_stacks(&self, sums: &[(SumKey, Sum)]) -> Vec<AddressStacks> {
        let mut sums: Vec<&(SumKey, Sum)> = sums.iter().filter(|(_, sum)| sum.calls > 0).collect();
        sums.sort_unstable_by_key(|(key, _)| (key.process, key.function, key.stack));
        let images = sums.chunk_by(|(a, _), (b, _)| a.process == b.process);
        images
            .map(|image| AddressStacks {
                process: self
                    .processes
                    .get(image[0].0.process)
                    .map(|tracked| (tracked.pid, tracked.comm.clone())),
                stacks: image
                    .iter()
                    .map(|(key, sum)| {
                        let stack = self.stacks.get(key.stack);
                        AddressStack {
                            calls: sum.calls,
                            function: Function::from_number(key.function),
                            end: stack.map(|stack| stack.end),
                            addresses: stack.map(|stack| stack.frames.clone()).unwrap_or_default(),
                        }
                    })
                    .collect(),
            })
            .collect()
    }
}

/// Events by outcome, from the hits of uprobes and the calls whose stacks were counted and never
/// sent.
fn events(counts: &Counts, hits: u64, unsent: u64) -> EventCounts {
    EventCounts {
        seen: counts.events(Counter::Seen) + hits.saturating_sub(counts.events(Counter::Skipped)),
        recorded: counts.events(Counter::Recorded).saturating_sub(unsent),
        nested: counts.events(Counter::Nested),
        filtered: counts.events(Counter::Filtered),
        foreign: counts.events(Counter::Foreign),
        unsampled: counts.events(Counter::Unsampled),
    }
}
