//! The end: from sums and addresses to a profile with names.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use tracer_ebpf::{
    Counter, Function, Heap, HeapSum, Loss, PROCESS_UNKNOWN, STACK_LOST, StackEnd, Sum, SumKey,
};

use super::copied::Copied;
use super::recorder::Recorder;
use crate::bpf::load::BpfError;
use crate::profile::{Frame, HeapValues, Held, Process, Profile, Stack, Values};
use crate::report::session::{Events, Probe};
use crate::report::{self, Losses};
use crate::symbolize::{self, Location};
use crate::target::files::MappedFile;
use crate::target::lives::Place;
use crate::target::process;

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
        let sums = merged(self.object.sums()?, &self.copied);
        let blocks = if self.live {
            merged(self.object.heap_sums()?, &self.copied)
        } else {
            Vec::new()
        };
        let overflow = self.object.overflow()?;
        let counts = self.object.counts()?;

        let mut builder = Builder::new(self);
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
                unsent += sum.calls;
            }
            let mut values = values_of(sum);
            if self.live && function.is_heap() {
                // Those that had no room with their stack.
                values.heap.blocks = sum.calls - sum.failed.min(sum.calls);
                values.heap.freed_bytes = sum.bytes_out;
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
                unsent += sum.sum.calls;
            }
            let mut values = heap_values_of(sum);
            values.heap.peak_bytes = peak.get(key).copied().unwrap_or(0);
            if let Some(aging) = &aging {
                values.heap.aged = aging.of(key, &values);
            }
            builder.add(key.process, known.then_some(key.stack), function, &values);
        }
        if self.live {
            builder.hold(&self.object.heaps()?, &self.object.heap()?);
        }
        for (function, sum) in &overflow {
            builder.add(PROCESS_UNKNOWN, None, *function, &values_of(sum));
        }

        let heap_calls = blocks.iter().map(|(key, sum)| (*key, sum.sum));
        let raw = self.raw(&sums.iter().copied().chain(heap_calls).collect::<Vec<_>>());
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
        let mut profile = builder.build();
        profile.has_ages = aging.is_some();
        profile.marks = aging.and_then(|aging| aging.marks());
        Ok(Recording {
            profile,
            duration,
            events: Events {
                seen: counts.events(Counter::Seen),
                tallied: counts.events(Counter::Tallied).saturating_sub(unsent),
                nested: counts.events(Counter::Nested),
                filtered: counts.events(Counter::Filtered),
                foreign: counts.events(Counter::Foreign),
            },
            losses: Losses::new(losses),
            probes: self.probes.clone(),
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
                ..tables.usage()
            }),
            life_records_lost: self.sideband.lost(),
        })
    }
}

/// Figures that can be added to others of the same stack.
trait Additive: Copy {
    fn add(&mut self, other: &Self);
}

impl Additive for Sum {
    fn add(&mut self, other: &Self) {
        self.calls += other.calls;
        self.bytes += other.bytes;
        self.bytes_out += other.bytes_out;
        self.failed += other.failed;
        self.sent |= other.sent;
    }
}

impl Additive for HeapSum {
    fn add(&mut self, other: &Self) {
        self.sum.add(&other.sum);
        self.blocks += other.blocks;
        self.freed += other.freed;
        self.freed_bytes += other.freed_bytes;
        self.temporary += other.temporary;
        self.usable_bytes += other.usable_bytes;
        self.untracked += other.untracked;
        self.untracked_bytes += other.untracked_bytes;
        for (to, from) in self.sizes.iter_mut().zip(other.sizes) {
            *to += from;
        }
        for (to, from) in self.lifetimes.iter_mut().zip(other.lifetimes) {
            *to += from;
        }
    }
}

/// The sums with one entry for each stack: provisional identities are replaced.
fn merged<T: Additive>(sums: Vec<(SumKey, T)>, copied: &Copied) -> Vec<(SumKey, T)> {
    let mut merged: HashMap<SumKey, T> = HashMap::with_capacity(sums.len());
    for (key, sum) in sums {
        match merged.entry(copied.named(key)) {
            Entry::Occupied(mut total) => total.get_mut().add(&sum),
            Entry::Vacant(new) => {
                new.insert(sum);
            }
        }
    }
    merged.into_iter().collect()
}

fn values_of(sum: &Sum) -> Values {
    Values {
        calls: sum.calls,
        bytes: sum.bytes,
        bytes_out: sum.bytes_out,
        failed: sum.failed,
        heap: HeapValues::default(),
    }
}

fn heap_values_of(sum: &HeapSum) -> Values {
    Values {
        heap: HeapValues {
            blocks: sum.blocks,
            freed: sum.freed,
            freed_bytes: sum.freed_bytes,
            temporary: sum.temporary,
            usable_bytes: sum.usable_bytes,
            untracked: sum.untracked,
            untracked_bytes: sum.untracked_bytes,
            sizes: sum.sizes,
            lifetimes: sum.lifetimes,
            ..HeapValues::default()
        },
        ..values_of(&sum.sum)
    }
}

fn held(heap: &Heap) -> Held {
    Held {
        live_bytes: heap.live_bytes,
        live: heap.live,
        peak_bytes: heap.peak_bytes,
        peak: heap.peak,
        peak_by_stack_bytes: None,
        free_calls: heap.free_calls,
        unmatched: heap.unmatched,
        missed: heap.missed,
    }
}

impl Recorder {
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

/// A frame of a stack before it has a name.
enum Unnamed {
    Location(Location),
    Outside(Frame),
}

struct RawStack {
    process: usize,
    function: Function,
    frames: Vec<Unnamed>,
    end: Option<StackEnd>,
    values: Values,
}

struct Builder<'a> {
    recorder: &'a Recorder,
    processes: Vec<Process>,
    process_index: HashMap<u32, usize>,
    files: Vec<Arc<MappedFile>>,
    file_index: HashMap<*const MappedFile, usize>,
    stacks: Vec<RawStack>,
    held: Option<Held>,
}

impl<'a> Builder<'a> {
    fn new(recorder: &'a Recorder) -> Self {
        Self {
            recorder,
            processes: Vec::new(),
            process_index: HashMap::new(),
            files: Vec::new(),
            file_index: HashMap::new(),
            stacks: Vec::new(),
            held: None,
        }
    }

    fn add(&mut self, number: u32, stack: Option<u64>, function: Function, values: &Values) {
        let process = self.process(number);
        let (frames, end) = match stack.and_then(|hash| self.recorder.stacks.get(&hash)) {
            Some(stack) => {
                let time = self.recorder.seen_in.get(&(number, stack.hash)).copied();
                let frames = self.frames(number, stack, time.unwrap_or(u64::MAX), function);
                (frames, Some(stack.end))
            }
            None => (Vec::new(), None),
        };
        self.stacks.push(RawStack {
            process,
            function,
            frames,
            end,
            values: *values,
        });
    }

    /// Says what processes hold, and held at the most.
    fn hold(&mut self, heaps: &[(u32, Heap)], all: &Heap) {
        let mut total = Held {
            peak_by_stack_bytes: Some(self.recorder.snapshots.peak.bytes()),
            peak_bytes: all.peak_bytes,
            peak: all.peak,
            ..Held::default()
        };
        for (number, heap) in heaps {
            let index = self.process(*number);
            let held = held(heap);
            total.live_bytes += held.live_bytes;
            total.live += held.live;
            total.free_calls += held.free_calls;
            total.unmatched += held.unmatched;
            total.missed += held.missed;
            self.processes[index].held = Some(held);
        }
        self.held = Some(total);
    }

    fn process(&mut self, number: u32) -> usize {
        if let Some(index) = self.process_index.get(&number) {
            return *index;
        }
        let made = match self.recorder.processes.get(number) {
            Some(tracked) => {
                let image = self.recorder.lives.image(tracked.pid, tracked.since_ns);
                Process {
                    pid: tracked.pid,
                    comm: image.map_or_else(|| tracked.comm.clone(), |image| image.comm.clone()),
                    exe: image.and_then(|image| image.exe.clone()),
                    exited: tracked.over || !process::is_running(tracked.pid),
                    held: None,
                }
            }
            None => Process {
                pid: 0,
                comm: "[unknown]".to_owned(),
                exe: None,
                exited: false,
                held: None,
            },
        };
        self.processes.push(made);
        self.process_index.insert(number, self.processes.len() - 1);
        self.processes.len() - 1
    }

    /// The frames of a stack, innermost first, as places in files.
    fn frames(
        &mut self,
        number: u32,
        stack: &crate::bpf::records::Stack,
        time_ns: u64,
        function: Function,
    ) -> Vec<Unnamed> {
        let tracked = self.recorder.processes.get(number);
        let image = tracked.and_then(|tracked| self.recorder.lives.image(tracked.pid, tracked.since_ns));
        let mut frames: Vec<(Unnamed, bool)> = Vec::with_capacity(stack.frames.len());
        let mut is_interrupted = false;
        for (depth, address) in stack.frames.iter().enumerate() {
            // In the stack of a system call the first address is where the call was made.
            let is_return = !is_interrupted && (depth > 0 || function.is_heap());
            let place_at = |address| image.and_then(|image| image.place(address, time_ns));
            let is_handlers_return = place_at(*address).is_some_and(|place| self.is_signal_frame(&place));
            // A handler returns to the first instruction of what the C library has for that: no call is before it.
            let is_call = is_return && !is_handlers_return;
            is_interrupted = is_handlers_return;
            let place = place_at(address.saturating_sub(u64::from(is_call)));
            let mapped = place.is_some();
            let frame = match place {
                Some(place) => match place.file {
                    Some(file) => Unnamed::Location(Location {
                        file: self.file(&file),
                        offset: place.file_offset + u64::from(is_call),
                        is_return: is_call,
                    }),
                    None => {
                        Unnamed::Outside(symbolize::outside_files(&place.path, place.file_offset, *address))
                    }
                },
                None => Unnamed::Outside(symbolize::outside_files("".as_ref(), 0, *address)),
            };
            frames.push((frame, mapped));
        }
        // Where a chain of frame pointers runs into memory that is none, its last addresses are no code.
        if image.is_some() && stack.end == StackEnd::FramePointer {
            while frames.last().is_some_and(|(_, mapped)| !mapped) {
                frames.pop();
            }
        }
        frames.into_iter().map(|(frame, _)| frame).collect()
    }

    /// Whether this is where signal handlers return to: the frame behind it was interrupted anywhere.
    fn is_signal_frame(&self, place: &Place) -> bool {
        let Some(file) = &place.file else { return false };
        let Some(tables) = &self.recorder.tables else {
            return false;
        };
        tables.is_signal_frame(file, place.file_offset)
    }

    fn file(&mut self, file: &Arc<MappedFile>) -> usize {
        *self.file_index.entry(Arc::as_ptr(file)).or_insert_with(|| {
            self.files.push(Arc::clone(file));
            self.files.len() - 1
        })
    }

    fn build(self) -> Profile {
        let mut locations: Vec<Location> = Vec::new();
        for stack in &self.stacks {
            locations.extend(stack.frames.iter().filter_map(|frame| match frame {
                Unnamed::Location(location) => Some(location.clone()),
                Unnamed::Outside(_) => None,
            }));
        }
        locations.sort_unstable_by_key(|location| (location.file, location.offset));
        locations.dedup();
        let named = symbolize::symbolize(&self.files, &locations);

        let mut frames = Interner::default();
        let stacks = self.stacks.into_iter().map(|raw| {
            let mut indices = Vec::new();
            for frame in raw.frames.iter().rev() {
                match frame {
                    Unnamed::Outside(frame) => indices.push(frames.index(frame)),
                    Unnamed::Location(location) => {
                        let expanded = named.get(location).map_or(&[][..], Vec::as_slice);
                        indices.extend(expanded.iter().map(|frame| frames.index(frame)));
                    }
                }
            }
            Stack {
                process: raw.process,
                function: raw.function,
                frames: indices,
                end: raw.end,
                values: raw.values,
            }
        });
        let stacks = stacks.collect();
        Profile {
            processes: self.processes,
            frames: frames.frames,
            stacks,
            held: self.held,
            has_ages: false,
            marks: None,
        }
    }
}

#[derive(Default)]
struct Interner {
    frames: Vec<Frame>,
    index: HashMap<Frame, usize>,
}

impl Interner {
    fn index(&mut self, frame: &Frame) -> usize {
        if let Some(index) = self.index.get(frame) {
            return *index;
        }
        self.frames.push(frame.clone());
        self.index.insert(frame.clone(), self.frames.len() - 1);
        self.frames.len() - 1
    }
}
