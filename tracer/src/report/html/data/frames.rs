//! The frames of a page, and the strings that they are made of.

use std::collections::HashMap;
use std::path::Path;

use serde::Serialize;

use super::NONE;
use crate::message::escape::one_line;
use crate::profile::{Frame, Profile};
use crate::report::label;
use crate::report::merge::Groups;
use crate::report::own_code::CodeClass;
use crate::report::weighed::WeighedStack;

/// The frames; names, files and modules are indices into the strings.
#[derive(Debug, Default, Serialize)]
pub(super) struct FrameColumns {
    name: Vec<i64>,
    file: Vec<i64>,
    line: Vec<u32>,
    module: Vec<i64>,
    /// 1 where the frame was inlined into its caller.
    inlined: Vec<u8>,
    /// The owner of the code: 0 the program, 1 a library, 2 the C library or an allocator.
    class: Vec<u8>,
}

/// The properties by which frames are merged, in the order in which they are sorted.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct FrameKey<'a> {
    name: String,
    source: Option<(&'a str, u32)>,
    module: Option<&'a Path>,
    inlined: bool,
    class: CodeClass,
}

impl<'a> FrameKey<'a> {
    /// Returns the properties of an entry of [`Profile::frames`].
    pub(super) fn of(profile: &'a Profile, classes: &[CodeClass], index: usize) -> Self {
        let frame = &profile.frames[index];
        Self {
            name: label::frame(frame),
            source: frame.source.as_ref().map(|it| (&*it.file, it.line)),
            module: module(profile, frame),
            inlined: frame.inlined,
            class: classes[index],
        }
    }
}

/// The file that a frame is in.
fn module<'a>(profile: &'a Profile, frame: &Frame) -> Option<&'a Path> {
    let object = profile.objects.get(frame.object?)?;
    Some(&object.path)
}

/// The groups of frames that are in stacks, and their numbers on the page.
pub(super) struct UsedFrames {
    /// The number of each group.
    pub(super) numbers: Vec<usize>,
    /// The groups, by number.
    groups: Vec<usize>,
}

impl UsedFrames {
    /// Numbers the frames of the stacks, of this many groups.
    pub(super) fn of(stacks: &[WeighedStack], count: usize) -> Self {
        let mut is_used = vec![false; count];
        for frame in stacks.iter().flat_map(|it| &it.place.frames) {
            is_used[*frame] = true;
        }
        let mut numbers = vec![0; count];
        let mut groups = Vec::new();
        for (group, _) in is_used.iter().enumerate().filter(|(_, is_used)| **is_used) {
            numbers[group] = groups.len();
            groups.push(group);
        }
        Self { numbers, groups }
    }

    /// Returns one entry of [`Profile::frames`] for each number.
    pub(super) fn originals<'a>(&'a self, groups: &'a Groups) -> impl Iterator<Item = usize> + 'a {
        self.groups.iter().map(|group| groups.first[*group])
    }
}

/// Strings, each once, numbered in the order of their first use.
#[derive(Debug, Default)]
pub(super) struct PageStrings {
    numbers: HashMap<String, i64>,
    /// The strings by number.
    pub(super) strings: Vec<String>,
}

impl PageStrings {
    fn number(&mut self, text: &str) -> i64 {
        if let Some(number) = self.numbers.get(text) {
            return *number;
        }
        let number = i64::try_from(self.strings.len()).unwrap_or(NONE);
        self.numbers.insert(text.to_owned(), number);
        self.strings.push(text.to_owned());
        number
    }
}

impl FrameColumns {
    /// Collects the properties of some entries of [`Profile::frames`].
    pub(super) fn of(
        profile: &Profile,
        classes: &[CodeClass],
        frames: impl Iterator<Item = usize>,
        strings: &mut PageStrings,
    ) -> Self {
        let mut columns = Self::default();
        for index in frames {
            let frame = &profile.frames[index];
            columns.name.push(strings.number(&label::frame(frame)));
            let source = frame.source.as_ref();
            let file = source.map_or(NONE, |it| strings.number(&one_line(&it.file)));
            columns.file.push(file);
            columns.line.push(source.map_or(0, |it| it.line));
            let module = module(profile, frame);
            let module = module.map_or(NONE, |it| strings.number(&one_line(&it.to_string_lossy())));
            columns.module.push(module);
            columns.inlined.push(frame.inlined.into());
            columns.class.push(match classes[index] {
                CodeClass::Own => 0,
                CodeClass::Library => 1,
                CodeClass::Libc => 2,
            });
        }
        columns
    }
}
