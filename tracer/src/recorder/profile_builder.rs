//! The construction of a profile: addresses become locations in files, and those get names.

use std::collections::HashMap;
use std::sync::Arc;

use tracer_ebpf::{Function, ProcessTotals, StackEnd};

use super::figures::{VarianceUnit, held, held_by_all};
use super::process_table::ProcessTable;
use super::stack_table::StackTable;
use super::unwind_tables::Unwinding;
use crate::bpf::records::RecordedStack;
use crate::process::files::MappedFile;
use crate::process::history::MappedAddress;
use crate::process::proc_fs;
use crate::profile::{
    Frame, FrameName, GroupVariance, HeapTotals, ObjectFile, Profile, ProfiledProcess, SourceLine, Stack,
    Values,
};
use crate::symbolize::{self, Location, Namer, ResolvedFile, ResolvedFrame, ResolvedName};

/// A frame of a stack before it has a name.
enum UnnamedFrame {
    Location(Location),
    /// Code that was compiled at run time, by process and address.
    Compiled(u32, u64),
    Outside(Frame),
}

struct UnnamedStack {
    process: usize,
    function: Function,
    frames: Vec<UnnamedFrame>,
    end: Option<StackEnd>,
    values: Values,
}

/// A profile under construction.
pub(super) struct ProfileBuilder<'a> {
    tracked: &'a ProcessTable,
    recorded: &'a StackTable,
    unwinding: Option<&'a Unwinding>,
    processes: Vec<ProfiledProcess>,
    process_index: HashMap<u32, usize>,
    files: Vec<Arc<MappedFile>>,
    file_index: HashMap<*const MappedFile, usize>,
    stacks: Vec<UnnamedStack>,
    held: Option<HeapTotals>,
    together: Vec<GroupVariance>,
    /// Hits of probes, by the number of the process image.
    hits: HashMap<u32, u64>,
}

impl<'a> ProfileBuilder<'a> {
    /// Returns an empty profile of these processes and stacks.
    pub(super) fn new(
        tracked: &'a ProcessTable,
        recorded: &'a StackTable,
        unwinding: Option<&'a Unwinding>,
        hits: HashMap<u32, u64>,
    ) -> Self {
        Self {
            tracked,
            recorded,
            unwinding,
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

    /// Adds the figures of a stack, or those of calls without one.
    pub(super) fn add(&mut self, number: u32, stack: Option<u64>, function: Function, values: &Values) {
        let process = self.process(number);
        let (frames, end) = match stack.and_then(|identity| self.recorded.get(identity)) {
            Some(stack) => {
                let time_ns = self.recorded.first_seen_ns(number, stack.hash);
                let frames = self.frames(number, stack, time_ns.unwrap_or(u64::MAX), function);
                (frames, Some(stack.end))
            }
            None => (Vec::new(), None),
        };
        self.stacks.push(UnnamedStack {
            process,
            function,
            frames,
            end,
            values: *values,
        });
    }

    /// Sets the present and the largest heaps: of each process, and of `all` together.
    /// `peak_by_stack_bytes` are those in the snapshot of the peak.
    pub(super) fn set_heaps(
        &mut self,
        heaps: &[(u32, ProcessTotals)],
        all: &ProcessTotals,
        peak_by_stack_bytes: u64,
        unit: VarianceUnit,
    ) {
        let mut each = Vec::with_capacity(heaps.len());
        for (number, heap) in heaps {
            let index = self.process(*number);
            let held = held(heap, unit);
            self.processes[index].held = Some(held);
            each.push(held);
        }
        self.held = Some(HeapTotals {
            peak_by_stack_bytes: Some(peak_by_stack_bytes),
            ..held_by_all(&each, all, unit)
        });
    }

    /// Adds the variances of the sum of several stacks: those of a process image, of a function, or
    /// all.
    pub(super) fn add_group_variance(
        &mut self,
        number: Option<u32>,
        function: Option<Function>,
        calls_variance: u128,
        bytes_variance: u128,
    ) {
        let process = number.map(|number| self.process(number));
        self.together.push(GroupVariance {
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
        let made = match self.tracked.get(number) {
            Some(tracked) => {
                let image = self.tracked.image_of(tracked);
                let exited = tracked.is_over || !proc_fs::is_running(tracked.pid);
                // A child without any event yet is not announced in whole.
                let inner_pid = tracked.inner_pid.or_else(|| {
                    let identity = proc_fs::identity(tracked.pid).filter(|_| !exited);
                    identity.map(|identity| identity.inner_pid)
                });
                ProfiledProcess {
                    pid: tracked.pid,
                    inner_pid,
                    comm: image.map_or_else(|| tracked.comm.clone(), |image| image.comm.clone()),
                    exe: image.and_then(|image| image.exe.clone()),
                    exited,
                    held: None,
                    hits: self.hits.get(&number).copied().unwrap_or(0),
                }
            }
            None => ProfiledProcess {
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

    /// The frames of a stack, the innermost first, as locations in files.
    fn frames(
        &mut self,
        number: u32,
        stack: &RecordedStack,
        time_ns: u64,
        function: Function,
    ) -> Vec<UnnamedFrame> {
        let tracked = self.tracked.get(number);
        let image = tracked.and_then(|tracked| self.tracked.image_of(tracked));
        let mut frames: Vec<(UnnamedFrame, bool)> = Vec::with_capacity(stack.frames.len());
        let mut is_interrupted = false;
        for (depth, address) in stack.frames.iter().enumerate() {
            // In the stack of a system call the first address is where the call was made.
            let is_return = !is_interrupted && (depth > 0 || function.is_heap());
            let place_at = |address| image.and_then(|image| image.place(address, time_ns));
            let is_handlers_return = place_at(*address).is_some_and(|place| self.is_signal_frame(&place));
            // A handler returns to the first instruction of a function of the C library: no call is
            // before it.
            let is_call = is_return && !is_handlers_return;
            is_interrupted = is_handlers_return;
            let place = place_at(address.saturating_sub(u64::from(is_call)));
            let mapped = place.is_some();
            let frame = match place {
                Some(place) if place.is_compiled => {
                    let pid = tracked.map_or(0, |tracked| tracked.pid);
                    UnnamedFrame::Compiled(pid, address.saturating_sub(u64::from(is_call)))
                }
                Some(MappedAddress {
                    file: Some(file),
                    file_offset,
                    ..
                }) => UnnamedFrame::Location(Location {
                    file: self.file(&file),
                    offset: file_offset + u64::from(is_call),
                    is_return: is_call,
                }),
                Some(place) => {
                    let frame = symbolize::outside_files(&place.path, place.file_offset, *address);
                    UnnamedFrame::Outside(Frame::from(&frame))
                }
                None => {
                    UnnamedFrame::Outside(Frame::from(&symbolize::outside_files("".as_ref(), 0, *address)))
                }
            };
            frames.push((frame, mapped));
        }
        // Where a chain of frame pointers runs into memory that is none, its last addresses are no
        // code.
        if image.is_some() && stack.end == StackEnd::FramePointer {
            while frames.last().is_some_and(|(_, mapped)| !mapped) {
                frames.pop();
            }
        }
        frames.into_iter().map(|(frame, _)| frame).collect()
    }

    /// Returns true if signal handlers return to this place: the frame behind it was interrupted
    /// anywhere.
    fn is_signal_frame(&self, place: &MappedAddress) -> bool {
        match (&place.file, self.unwinding) {
            (Some(file), Some(unwinding)) => unwinding.is_signal_frame(file, place.file_offset),
            _ => false,
        }
    }

    fn file(&mut self, file: &Arc<MappedFile>) -> usize {
        *self.file_index.entry(Arc::as_ptr(file)).or_insert_with(|| {
            self.files.push(Arc::clone(file));
            self.files.len() - 1
        })
    }

    /// The frames of code that was compiled at run time, where its compiler named it.
    fn compiled(&self, namer: &Namer) -> HashMap<(u32, u64), Frame> {
        let mut wanted: HashMap<u32, Vec<u64>> = HashMap::new();
        for frame in self.stacks.iter().flat_map(|stack| &stack.frames) {
            if let UnnamedFrame::Compiled(pid, address) = frame {
                wanted.entry(*pid).or_default().push(*address);
            }
        }
        let mut frames = HashMap::new();
        for (pid, addresses) in wanted {
            let maps = self.tracked.history().perf_maps().files(pid);
            let found = namer.compiled(&maps, addresses);
            frames.extend(
                found
                    .into_iter()
                    .map(|(address, name)| ((pid, address), without_source(FrameName::Symbol(name)))),
            );
        }
        frames
    }

    /// Names all frames. `is_over`: the recording has ended, so that slow sources of names may be
    /// asked.
    pub(super) fn build(self, namer: &Namer, is_over: bool) -> Profile {
        let mut locations: Vec<Location> = Vec::new();
        for stack in &self.stacks {
            locations.extend(stack.frames.iter().filter_map(|frame| match frame {
                UnnamedFrame::Location(location) => Some(location.clone()),
                UnnamedFrame::Compiled(..) | UnnamedFrame::Outside(_) => None,
            }));
        }
        locations.sort_unstable_by_key(|location| (location.file, location.offset));
        locations.dedup();
        let resolved = namer.name(&self.files, &locations, is_over);
        let by_location: HashMap<&Location, Vec<Frame>> = resolved
            .frames
            .iter()
            .map(|(location, frames)| {
                let frames = frames.iter().map(|frame| Frame {
                    object: Some(location.file),
                    ..Frame::from(frame)
                });
                (location, frames.collect())
            })
            .collect();
        let compiled = self.compiled(namer);
        let no_name = without_source(FrameName::Compiled);

        let mut frames = FrameInterner::default();
        let stacks = self.stacks.into_iter().map(|raw| {
            let mut indices = Vec::new();
            for frame in raw.frames.iter().rev() {
                match frame {
                    UnnamedFrame::Outside(frame) => indices.push(frames.index(frame)),
                    UnnamedFrame::Location(location) => {
                        let expanded = by_location.get(location).map_or(&[][..], Vec::as_slice);
                        indices.extend(expanded.iter().map(|frame| frames.index(frame)));
                    }
                    UnnamedFrame::Compiled(pid, address) => {
                        let index = frames.index(compiled.get(&(*pid, *address)).unwrap_or(&no_name));
                        // A run of them tells no more than one frame does: its length differs in
                        // every recording.
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
            objects: resolved.files.into_iter().map(Into::into).collect(),
            held: self.held,
            together: self.together,
            has_ages: false,
            sample_bytes: None,
            marks: None,
        }
    }
}

/// A frame of a function without source lines.
fn without_source(name: FrameName) -> Frame {
    Frame {
        name,
        source: None,
        inlined: false,
        object: None,
    }
}

impl From<&ResolvedFrame> for Frame {
    fn from(frame: &ResolvedFrame) -> Self {
        Self {
            name: match &frame.name {
                ResolvedName::Symbol(name) => FrameName::Symbol(name.clone()),
                ResolvedName::Offset { module, address } => FrameName::Offset {
                    module: module.clone(),
                    address: *address,
                },
                ResolvedName::Unmapped(address) => FrameName::Unmapped(*address),
            },
            source: frame.source.as_ref().map(|source| SourceLine {
                file: source.file.clone(),
                line: source.line,
            }),
            inlined: frame.inlined,
            object: None,
        }
    }
}

impl From<ResolvedFile> for ObjectFile {
    fn from(file: ResolvedFile) -> Self {
        Self {
            path: file.path,
            build_id: file.build_id,
            debug: file.debug,
            was_fetched: file.was_fetched,
            has_names: file.has_names,
            has_changed: file.has_changed,
            frames: file.frames,
            unnamed: file.unnamed,
        }
    }
}

/// Distinct frames by index.
#[derive(Default)]
struct FrameInterner {
    frames: Vec<Frame>,
    index: HashMap<Frame, usize>,
}

impl FrameInterner {
    fn index(&mut self, frame: &Frame) -> usize {
        if let Some(index) = self.index.get(frame) {
            return *index;
        }
        self.frames.push(frame.clone());
        self.index.insert(frame.clone(), self.frames.len() - 1);
        self.frames.len() - 1
    }
}
