//! From addresses to a profile with names.

use std::collections::HashMap;
use std::sync::Arc;

use tracer_ebpf::{Function, ProcessTotals, StackEnd};

use super::figures::{Unit, held};
use super::recorder::Recorder;
use crate::process::files::MappedFile;
use crate::process::history::Place;
use crate::process::proc_fs;
use crate::profile::{Frame, FrameName, Held, Process, Profile, Stack, Together, Values};
use crate::symbolize::{self, Location};

/// A frame of a stack before it has a name.
enum Unnamed {
    Location(Location),
    /// Code that was compiled at run time, by process and address.
    Compiled(u32, u64),
    Outside(Frame),
}

struct RawStack {
    process: usize,
    function: Function,
    frames: Vec<Unnamed>,
    end: Option<StackEnd>,
    values: Values,
}

/// A profile in the making: stacks of addresses become places in files, and those get names.
pub(super) struct Builder<'a> {
    recorder: &'a Recorder,
    processes: Vec<Process>,
    process_index: HashMap<u32, usize>,
    files: Vec<Arc<MappedFile>>,
    file_index: HashMap<*const MappedFile, usize>,
    stacks: Vec<RawStack>,
    held: Option<Held>,
    together: Vec<Together>,
    /// Hits of probes, by the number of the process image.
    hits: HashMap<u32, u64>,
}

impl<'a> Builder<'a> {
    pub(super) fn new(recorder: &'a Recorder, hits: HashMap<u32, u64>) -> Self {
        Self {
            recorder,
            processes: Vec::new(),
            process_index: HashMap::new(),
            files: Vec::new(),
            file_index: HashMap::new(),
            stacks: Vec::new(),
            held: None,
            together: Vec::new(),
            hits,
        }
    }

    pub(super) fn add(&mut self, number: u32, stack: Option<u64>, function: Function, values: &Values) {
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
    pub(super) fn hold(&mut self, heaps: &[(u32, ProcessTotals)], all: &ProcessTotals, unit: Unit) {
        let mut total = Held {
            peak_by_stack_bytes: Some(self.recorder.snapshots.peak.bytes()),
            ..held(
                &ProcessTotals {
                    peak_bytes: all.peak_bytes,
                    peak: all.peak,
                    peak_variance: all.peak_variance,
                    peak_bytes_variance: all.peak_bytes_variance,
                    ..ProcessTotals::default()
                },
                unit,
            )
        };
        for (number, heap) in heaps {
            let index = self.process(*number);
            let held = held(heap, unit);
            total.live_bytes += held.live_bytes;
            total.live += held.live;
            total.free_calls += held.free_calls;
            total.unmatched += held.unmatched;
            total.missed += held.missed;
            total.variances.live += held.variances.live;
            total.variances.live_bytes += held.variances.live_bytes;
            self.processes[index].held = Some(held);
        }
        self.held = Some(total);
    }

    /// Says how sure the sums are of the stacks of a process image, of a function, or of all.
    pub(super) fn hold_together(
        &mut self,
        number: Option<u32>,
        function: Option<Function>,
        calls_variance: u128,
        bytes_variance: u128,
    ) {
        let process = number.map(|number| self.process(number));
        self.together.push(Together {
            process,
            function,
            calls_variance,
            bytes_variance,
        });
    }

    fn process(&mut self, number: u32) -> usize {
        if let Some(index) = self.process_index.get(&number) {
            return *index;
        }
        let made = match self.recorder.processes.get(number) {
            Some(tracked) => {
                let image = self.recorder.lives.image(tracked.pid, tracked.since_ns);
                let exited = tracked.over || !proc_fs::is_running(tracked.pid);
                // A child that has done nothing yet has not said what it is.
                let inner_pid = tracked.inner_pid.or_else(|| {
                    let identity = proc_fs::identity(tracked.pid).filter(|_| !exited);
                    identity.map(|identity| identity.inner_pid)
                });
                Process {
                    pid: tracked.pid,
                    inner_pid,
                    comm: image.map_or_else(|| tracked.comm.clone(), |image| image.comm.clone()),
                    exe: image.and_then(|image| image.exe.clone()),
                    exited,
                    held: None,
                    hits: self.hits.get(&number).copied().unwrap_or(0),
                }
            }
            None => Process {
                pid: 0,
                inner_pid: None,
                comm: "[unknown]".to_owned(),
                exe: None,
                exited: false,
                held: None,
                hits: 0,
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
                Some(place) if place.is_compiled => {
                    let pid = tracked.map_or(0, |tracked| tracked.pid);
                    Unnamed::Compiled(pid, address.saturating_sub(u64::from(is_call)))
                }
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

    /// The frames of code that was compiled at run time, where its compiler named it.
    fn compiled(&self) -> HashMap<(u32, u64), Frame> {
        let mut wanted: HashMap<u32, Vec<u64>> = HashMap::new();
        for frame in self.stacks.iter().flat_map(|stack| &stack.frames) {
            if let Unnamed::Compiled(pid, address) = frame {
                wanted.entry(*pid).or_default().push(*address);
            }
        }
        let mut frames = HashMap::new();
        for (pid, addresses) in wanted {
            let maps = self.recorder.lives.perf_maps().files(pid);
            let names = symbolize::compiled(&maps, addresses);
            frames.extend(names.into_iter().map(|(address, name)| {
                let frame = Frame {
                    name: FrameName::Symbol(name),
                    source: None,
                    inlined: false,
                };
                ((pid, address), frame)
            }));
        }
        frames
    }

    pub(super) fn build(self) -> Profile {
        let mut locations: Vec<Location> = Vec::new();
        for stack in &self.stacks {
            locations.extend(stack.frames.iter().filter_map(|frame| match frame {
                Unnamed::Location(location) => Some(location.clone()),
                Unnamed::Compiled(..) | Unnamed::Outside(_) => None,
            }));
        }
        locations.sort_unstable_by_key(|location| (location.file, location.offset));
        locations.dedup();
        let recorder = self.recorder;
        let named = recorder.namer.name(&self.files, &locations, recorder.is_over);
        let compiled = self.compiled();
        let no_name = Frame {
            name: FrameName::Compiled,
            source: None,
            inlined: false,
        };

        let mut frames = Interner::default();
        let stacks = self.stacks.into_iter().map(|raw| {
            let mut indices = Vec::new();
            for frame in raw.frames.iter().rev() {
                match frame {
                    Unnamed::Outside(frame) => indices.push(frames.index(frame)),
                    Unnamed::Location(location) => {
                        let expanded = named.frames.get(location).map_or(&[][..], AsRef::as_ref);
                        indices.extend(expanded.iter().map(|frame| frames.index(frame)));
                    }
                    Unnamed::Compiled(pid, address) => {
                        let index = frames.index(compiled.get(&(*pid, *address)).unwrap_or(&no_name));
                        // A run of them tells no more than one: how many there are is another number in every run.
                        if indices.last() != Some(&index) || frames.frames[index] != no_name {
                            indices.push(index);
                        }
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
            objects: named.objects,
            held: self.held,
            together: self.together,
            has_ages: false,
            sample_bytes: None,
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
