//! The tables of a pprof file in the making: texts, functions and locations, each once, in an order
//! that depends on nothing but themselves.

use std::collections::{BTreeSet, HashMap};

use super::messages::{ProtoFunction, ProtoLine, ProtoLocation};
use crate::profile::{Frame, FrameName, Profile, SourceLine};
use crate::report::label;

/// Texts by index.
#[derive(Debug)]
pub(super) struct StringTable {
    strings: Vec<Vec<u8>>,
    index: HashMap<String, i64>,
}

impl StringTable {
    /// A table with the empty text.
    pub(super) fn new() -> Self {
        Self {
            strings: vec![Vec::new()],
            index: HashMap::from([(String::new(), 0)]),
        }
    }

    /// The index of a text.
    pub(super) fn index(&mut self, text: &str) -> i64 {
        if let Some(index) = self.index.get(text) {
            return *index;
        }
        let index = i64::try_from(self.strings.len()).unwrap_or(i64::MAX);
        self.strings.push(text.as_bytes().to_vec());
        self.index.insert(text.to_owned(), index);
        index
    }

    /// Returns the texts.
    pub(super) fn into_strings(self) -> Vec<Vec<u8>> {
        self.strings
    }
}

/// Returns the order of things by what they are: the old index of each new one, and the new index
/// of each old one.
pub(super) fn ordered<K: Ord>(keys: &[K]) -> (Vec<usize>, Vec<usize>) {
    let mut order: Vec<usize> = (0..keys.len()).collect();
    order.sort_by(|a, b| keys[*a].cmp(&keys[*b]));
    let mut place = vec![0; keys.len()];
    for (new, old) in order.iter().enumerate() {
        place[*old] = new;
    }
    (order, place)
}

/// Frames as locations: a frame that was not inlined, with those that were inlined into it.
#[derive(Debug)]
pub(super) struct LocationTable {
    /// The frames, sorted, with the new indices of their objects.
    frames: Vec<Frame>,
    /// The new index of each frame of the profile, and of the marks after them.
    place: Vec<usize>,
    /// The locations as new indices of frames, the innermost first; sorted.
    locations: Vec<Vec<usize>>,
    /// The number of each, from 1.
    numbers: HashMap<Vec<usize>, u64>,
    /// The index of the mark of a truncated stack among the profile's frames and marks.
    truncated: usize,
}

/// The mark at the outer end of a stack that is not whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EndMark {
    /// Outer frames are missing.
    Truncated,
    /// The stack was lost.
    Lost,
}

/// Returns the mark of a stack; nothing where it is whole.
pub(super) fn end_mark(end: Option<tracer_ebpf::StackEnd>) -> Option<EndMark> {
    match end {
        Some(end) if end.is_whole() => None,
        Some(_) => Some(EndMark::Truncated),
        None => Some(EndMark::Lost),
    }
}

impl LocationTable {
    /// Makes the locations of all stacks. `objects` has the new index of each object.
    pub(super) fn of(profile: &Profile, objects: &[usize]) -> Self {
        let marks = [label::TRUNCATED, label::STACK_LOST].map(|name| Frame {
            name: FrameName::Symbol(name.into()),
            source: None,
            inlined: false,
            object: None,
        });
        let keys: Vec<Frame> = profile
            .frames
            .iter()
            .map(|frame| Frame {
                object: frame.object.and_then(|it| objects.get(it).copied()),
                ..frame.clone()
            })
            .chain(marks)
            .collect();
        let (order, _) = ordered(&keys);
        let mut frames: Vec<Frame> = Vec::new();
        let mut place = vec![0; keys.len()];
        for old in order {
            if frames.last() != Some(&keys[old]) {
                frames.push(keys[old].clone());
            }
            place[old] = frames.len() - 1;
        }
        let mut table = Self {
            frames,
            place,
            locations: Vec::new(),
            numbers: HashMap::new(),
            truncated: profile.frames.len(),
        };
        let mut locations = BTreeSet::new();
        for stack in &profile.stacks {
            table.split(&stack.frames, end_mark(stack.end), |location| {
                if !locations.contains(location) {
                    locations.insert(location.to_vec());
                }
            });
        }
        table.locations = locations.into_iter().collect();
        table.numbers = (1..)
            .zip(&table.locations)
            .map(|(number, it)| (it.clone(), number))
            .collect();
        table
    }

    /// Gives the locations of a stack, from the outermost to the innermost.
    fn split(&self, frames: &[usize], mark: Option<EndMark>, mut give: impl FnMut(&[usize])) {
        if let Some(mark) = mark {
            give(&[self.place[self.truncated + usize::from(mark == EndMark::Lost)]]);
        }
        // The innermost of a location comes last here.
        let mut location: Vec<usize> = Vec::new();
        for frame in frames.iter().map(|it| self.place[*it]) {
            let begins = location.first().is_some_and(|first| {
                !self.frames[frame].inlined || self.frames[frame].object != self.frames[*first].object
            });
            if begins {
                location.reverse();
                give(&location);
                location.clear();
            }
            location.push(frame);
        }
        if !location.is_empty() {
            location.reverse();
            give(&location);
        }
    }

    /// The numbers of a stack's locations, the innermost first.
    pub(super) fn stack(&self, frames: &[usize], end: Option<tracer_ebpf::StackEnd>) -> Vec<u64> {
        let mut numbers = Vec::with_capacity(frames.len() + 1);
        self.split(frames, end_mark(end), |location| {
            numbers.push(self.numbers.get(location).copied().unwrap_or_default());
        });
        numbers.reverse();
        numbers
    }

    /// The locations in the order of their numbers, each as its frames, the innermost first.
    pub(super) fn locations(&self) -> impl Iterator<Item = Vec<&Frame>> {
        let frames = |location: &Vec<usize>| location.iter().map(|it| &self.frames[*it]).collect();
        self.locations.iter().map(frames)
    }

    /// Makes the messages.
    pub(super) fn messages(&self, strings: &mut StringTable) -> (Vec<ProtoLocation>, Vec<ProtoFunction>) {
        let functions: BTreeSet<(String, &str)> = self
            .locations()
            .flatten()
            .map(|frame| (name(frame), file(frame)))
            .collect();
        let numbers: HashMap<&(String, &str), u64> = functions.iter().zip(1..).collect();
        let locations = (1..).zip(self.locations()).map(|(id, frames)| {
            let outermost = frames.last();
            let line = frames.iter().map(|frame| ProtoLine {
                function_id: numbers[&(name(frame), file(frame))],
                line: frame.source.as_ref().map_or(0, |it| it.line.into()),
                column: 0,
            });
            ProtoLocation {
                id,
                mapping_id: outermost
                    .and_then(|frame| frame.object)
                    .map_or(0, |object| object as u64 + 1),
                address: outermost.map_or(0, |frame| address(frame)),
                line: line.collect(),
                is_folded: false,
            }
        });
        let locations = locations.collect();
        let functions = functions.iter().zip(1..).map(|((name, file), id)| {
            let text = strings.index(name);
            ProtoFunction {
                id,
                name: text,
                system_name: text,
                filename: strings.index(file),
                start_line: 0,
            }
        });
        let functions = functions.collect();
        (locations, functions)
    }
}

/// The name of a frame's function.
fn name(frame: &Frame) -> String {
    match &frame.name {
        FrameName::Symbol(name) if !name.is_empty() => name.to_string(),
        _ => label::frame(frame),
    }
}

/// The source file of a frame's function.
fn file(frame: &Frame) -> &str {
    frame.source.as_ref().map_or("", |it| &it.file)
}

/// The address of a frame that has no better name: that of its file, or in memory.
const fn address(frame: &Frame) -> u64 {
    match &frame.name {
        FrameName::Offset { address, .. } | FrameName::Unmapped(address) => *address,
        FrameName::Symbol(_) | FrameName::Compiled => 0,
    }
}

/// Returns the frame that a line of a function is, as pprof's tables tell.
pub(super) fn plain_frame(name: &str, file: &str, line: i64, inlined: bool, object: Option<usize>) -> Frame {
    Frame {
        name: FrameName::Symbol(name.into()),
        source: (!file.is_empty()).then(|| SourceLine {
            file: file.into(),
            line: u32::try_from(line).unwrap_or_default(),
        }),
        inlined,
        object,
    }
}

/// Returns the frame that a reader takes this one for.
pub(super) fn as_read(frame: &Frame, is_outermost: bool, object: Option<usize>) -> Frame {
    let line = frame.source.as_ref().map_or(0, |it| it.line.into());
    plain_frame(&name(frame), file(frame), line, !is_outermost, object)
}
