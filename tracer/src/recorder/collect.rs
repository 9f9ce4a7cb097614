//! The end: what was recorded, from all that both sides have.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use tracer_ebpf::{Counter, Function, Loss, PROCESS_UNKNOWN, STACK_LOST, Sum, SumKey};

use super::budget::control::Followed;
use super::builder::Builder;
use super::figures::{heap_values_of, merged, seen, values_of};
use super::recorder::Recorder;
use crate::bpf::load::BpfError;
use crate::bpf::sums::Counts;
use crate::cost::{float, whole};
use crate::profile::Profile;
use crate::report::session::{Cost, Events, Probe};
use crate::report::{self, Losses};

/// What was recorded.
#[derive(Debug)]
pub struct Recording {
    /// The stacks and their figures.
    pub profile: Profile,
    /// How long was recorded.
    pub duration: Duration,
    /// What became of the events.
    pub events: Events,
    /// What was lost.
    pub losses: Losses,
    /// What tracing cost.
    pub cost: Option<Cost>,
    /// How much was followed at last.
    pub followed: Followed,
    /// The probes that were attached.
    pub probes: Vec<Probe>,
    /// Bytes of kernel memory, by map.
    pub memory: std::collections::BTreeMap<String, u64>,
    /// The stacks as addresses: `# process PID COMM` before those of each process image, then a line for each stack,
    /// `CALLS FUNCTION END ADDRESS…`, the innermost caller first.
    pub raw: String,
    /// The unwind tables, where stacks were walked by them.
    pub tables: Option<report::session::Tables>,
    /// Records of process life that the kernel could not write: names may be missing.
    pub life_records_lost: u64,
}

impl Recorder {
    /// Takes the probes off and makes a profile of what was counted.
    pub fn collect(mut self) -> Result<Recording, BpfError> {
        // What the maps took while it recorded.
        let memory = self.object.memory();
        self.finish();
        Ok(Recording {
            memory,
            ..self.recording()?
        })
    }

    /// What was counted so far.
    pub(super) fn recording(&self) -> Result<Recording, BpfError> {
        let duration = self.duration.unwrap_or_else(|| self.started.elapsed());
        let sums = merged(self.estimated(self.object.sums()?), &self.copied);
        let blocks = if self.live {
            merged(self.object.heap_sums()?, &self.copied)
        } else {
            Vec::new()
        };
        let overflow = self.object.overflow()?;
        let counts = self.object.counts()?;

        let hits: u64 = self.object.hit_counts()?.by_site.iter().sum();
        let by_process = self.hits_by_process()?;
        let cost = self.cost(duration, &by_process);
        let mut builder = Builder::new(self, by_process);
        let aging = self.aging(duration)?;
        let peak = self.snapshots.peak.by_stack(&self.copied);
        let mut unsent = 0;
        for (key, sum) in &sums {
            let Some(function) = Function::from_number(key.function) else {
                continue;
            };
            if sum.calls == 0 {
                continue;
            }
            let known = key.stack != STACK_LOST && self.stacks.contains_key(&key.stack);
            if key.stack != STACK_LOST && !known {
                unsent += seen(sum);
            }
            let mut values = values_of(sum, self.unit);
            if self.live && function.is_heap() {
                // Those that had no room with their stack.
                values.heap.blocks = sum.calls - sum.failed.min(sum.calls);
                values.heap.freed_bytes = sum.bytes_out;
                values.variances.blocks = values.variances.calls;
                if let Some(aging) = &aging {
                    values.heap.aged = aging.without_history(key, &values);
                }
            }
            builder.add(key.process, known.then_some(key.stack), function, &values);
        }
        for (key, sum) in &blocks {
            let Some(function) = Function::from_number(key.function) else {
                continue;
            };
            let known = self.stacks.contains_key(&key.stack);
            if !known {
                unsent += seen(&sum.sum);
            }
            let mut values = heap_values_of(sum, self.unit);
            values.heap.peak_bytes = peak.get(key).copied().unwrap_or(0);
            if let Some(aging) = &aging {
                values.heap.aged = aging.of(key, &values);
            }
            builder.add(key.process, known.then_some(key.stack), function, &values);
        }
        if self.live {
            builder.hold(
                &self.object.process_totals()?,
                &self.object.machine_totals()?,
                self.unit,
            );
        }
        self.hold_together(&mut builder);
        for (function, sum) in &overflow {
            builder.add(PROCESS_UNKNOWN, None, *function, &values_of(sum, self.unit));
        }

        let heap_calls = blocks.iter().map(|(key, sum)| (*key, sum.sum));
        let raw = self.raw(&sums.iter().copied().chain(heap_calls).collect::<Vec<_>>());
        let losses = self.losses(&counts, unsent)?;
        let mut profile = builder.build();
        profile.has_ages = aging.is_some();
        if self.object.has_sampled() {
            profile.sample_bytes = Some(self.object.sampling().interval_bytes);
        }
        profile.marks = aging.and_then(|aging| aging.marks());
        Ok(Recording {
            profile,
            duration,
            events: events(&counts, hits, unsent),
            losses,
            cost,
            followed: self.control.followed(),
            probes: self.probes.listed().to_vec(),
            memory: std::collections::BTreeMap::new(),
            raw,
            tables: self.tables.as_ref().map(|tables| report::session::Tables {
                remembered: counts.events(Counter::StackRemembered),
                awaited: counts.events(Counter::TableAwaited),
                finished_from_copies: counts
                    .events(Counter::StackCopied)
                    .saturating_sub(self.copied.given_up()),
                unfinished: self.copied.given_up(),
                mappings_busy: counts.events(Counter::MappingBusy),
                stops: self.stops,
                ..tables.usage()
            }),
            life_records_lost: self.sideband.lost(),
        })
    }
}

/// What became of the events: so many hits of uprobes, and so many calls whose stacks were counted and never came.
fn events(counts: &Counts, hits: u64, unsent: u64) -> Events {
    Events {
        seen: counts.events(Counter::Seen) + hits.saturating_sub(counts.events(Counter::PassedOver)),
        tallied: counts.events(Counter::Tallied).saturating_sub(unsent),
        nested: counts.events(Counter::Nested),
        filtered: counts.events(Counter::Filtered),
        foreign: counts.events(Counter::Foreign),
        unsampled: counts.events(Counter::Unsampled),
    }
}

impl Recorder {
    /// What was lost; `unsent` events have a stack that user space was never told of.
    fn losses(&self, counts: &Counts, unsent: u64) -> Result<Losses, BpfError> {
        let mut losses: Vec<(Loss, u64)> = Loss::ALL.iter().map(|loss| (*loss, counts.lost(*loss))).collect();
        // While it goes on, what is on its way is not lost.
        if self.is_over {
            losses.push((Loss::RingFull, unsent));
            let mut unfinished = self.object.unfinished_calls()?;
            if self.live {
                unfinished += self.object.pending_calls()?.len() as u64;
            }
            losses.push((Loss::UnfinishedCall, unfinished));
        }
        Ok(Losses::new(losses))
    }

    /// The sums as estimates of the whole time, where probes were in for a part of it.
    fn estimated(&self, mut sums: Vec<(SumKey, Sum)>) -> Vec<(SumKey, Sum)> {
        let now = self.ended.unwrap_or_else(Instant::now);
        for (key, sum) in &mut sums {
            let windows = &self.control.windows;
            if let Some(correction) = windows.correction(key, now) {
                sum.calls = whole(float(sum.calls) + correction.calls);
                sum.bytes = whole(float(sum.bytes) + correction.bytes);
            }
            if let Some(variance) = windows.variance_of(key, now) {
                sum.calls_variance = sum.calls_variance.max(whole(variance.calls));
                sum.bytes_variance = sum.bytes_variance.max(self.unit.of_bytes(variance.bytes));
            }
        }
        sums
    }

    /// How sure sums of several stacks are, where windows say so.
    fn hold_together(&self, builder: &mut Builder<'_>) {
        let now = self.ended.unwrap_or_else(Instant::now);
        for (group, variance) in self.control.windows.group_variances(now) {
            builder.hold_together(
                group.process,
                group.function.and_then(Function::from_number),
                whole(variance.calls).into(),
                self.unit.bytes(self.unit.of_bytes(variance.bytes)),
            );
        }
    }

    fn raw(&self, sums: &[(SumKey, Sum)]) -> String {
        let mut sums: Vec<&(SumKey, Sum)> = sums.iter().filter(|(_, sum)| sum.calls > 0).collect();
        sums.sort_unstable_by_key(|(key, _)| (key.process, key.function, key.stack));
        let mut text = String::new();
        let mut process = None;
        for (key, sum) in sums {
            if process != Some(key.process) {
                process = Some(key.process);
                let (pid, comm) = match self.processes.get(key.process) {
                    Some(tracked) => (tracked.pid, tracked.comm.as_str()),
                    None => (0, "[unknown]"),
                };
                let _infallible = writeln!(text, "# process {pid} {comm}");
            }
            let function = Function::from_number(key.function).map_or("?", Function::name);
            let stack = self.stacks.get(&key.stack);
            let end = stack.map_or("lost", |stack| stack.end.label());
            let _infallible = write!(text, "{} {function} {end}", sum.calls);
            for address in stack.map_or(&[][..], |stack| stack.frames.as_slice()) {
                let _infallible = write!(text, " {address:x}");
            }
            text.push('\n');
        }
        text
    }
}
