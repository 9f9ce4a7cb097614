//! The tables of a pprof file that is read, with every index checked.

use std::collections::HashMap;

use tracer_ebpf::StackEnd;

use super::document::ProfileDocument;
use super::error::PprofError;
use super::messages::{ProtoLabel, ProtoLocation, ProtoProfile, ProtoSample};
use super::tables::{end_mark, plain_frame};
use super::{LOST, STACK_END};
use crate::profile::{Frame, FrameName};

/// The tables of a message, by number.
pub(super) struct ReadTables<'a> {
    message: &'a ProtoProfile,
    /// The indices of functions.
    functions: HashMap<u64, usize>,
    /// The indices of mappings.
    mappings: HashMap<u64, usize>,
    /// The indices of locations.
    locations: HashMap<u64, usize>,
}

impl<'a> ReadTables<'a> {
    /// Reads the tables. The types of values and the number of each sample's values are checked.
    pub(super) fn of(message: &'a ProtoProfile) -> Result<Self, PprofError> {
        let by_number = |numbers: &mut dyn Iterator<Item = u64>| {
            let mut index = HashMap::new();
            for (place, number) in numbers.enumerate() {
                if number == 0 || index.insert(number, place).is_some() {
                    return Err(PprofError::damaged("two entries of a table have one number"));
                }
            }
            Ok(index)
        };
        let tables = Self {
            message,
            functions: by_number(&mut message.function.iter().map(|it| it.id))?,
            mappings: by_number(&mut message.mapping.iter().map(|it| it.id))?,
            locations: by_number(&mut message.location.iter().map(|it| it.id))?,
        };
        let types = message.sample_type.len();
        if message.sample.iter().any(|sample| sample.value.len() != types) {
            return Err(PprofError::damaged("a sample has not one value of each type"));
        }
        Ok(tables)
    }

    /// A text; bytes that are no UTF-8 become the replacement character.
    pub(super) fn text(&self, index: i64) -> Result<String, PprofError> {
        let text = text_at(&self.message.string_table, index);
        match text {
            Some(text) => Ok(String::from_utf8_lossy(text).into_owned()),
            // A message without any text has none but the empty one.
            None if index == 0 => Ok(String::new()),
            None => Err(PprofError::damaged("a text is not in its table")),
        }
    }

    /// The index of a mapping; nothing for 0.
    pub(super) fn mapping(&self, number: u64) -> Result<Option<usize>, PprofError> {
        match (number, self.mappings.get(&number)) {
            (0, _) => Ok(None),
            (_, Some(index)) => Ok(Some(*index)),
            (_, None) => Err(PprofError::damaged("a mapping is not in its table")),
        }
    }

    /// The frames of a location, the innermost first.
    fn frames(&self, location: &ProtoLocation) -> Result<Vec<Frame>, PprofError> {
        let object = self.mapping(location.mapping_id)?;
        let mut frames = Vec::with_capacity(location.line.len());
        for (index, line) in location.line.iter().enumerate() {
            let function = self
                .functions
                .get(&line.function_id)
                .and_then(|it| self.message.function.get(*it))
                .ok_or_else(|| PprofError::damaged("a function is not in its table"))?;
            let mut name = self.text(function.name)?;
            if name.is_empty() {
                name = self.text(function.system_name)?;
            }
            let file = self.text(function.filename)?;
            let inlined = index + 1 < location.line.len();
            let mut frame = plain_frame(&name, &file, line.line, inlined, object);
            if name.is_empty() {
                frame.name = self.unnamed(location, object)?;
            }
            frames.push(frame);
        }
        if frames.is_empty() {
            frames.push(Frame {
                name: self.unnamed(location, object)?,
                source: None,
                inlined: false,
                object,
            });
        }
        Ok(frames)
    }

    /// The name of a place without a function.
    fn unnamed(&self, location: &ProtoLocation, object: Option<usize>) -> Result<FrameName, PprofError> {
        let Some(mapping) = object.and_then(|it| self.message.mapping.get(it)) else {
            return Ok(FrameName::Unmapped(location.address));
        };
        let file = self.text(mapping.filename)?;
        Ok(FrameName::Offset {
            module: file.rsplit('/').next().unwrap_or_default().into(),
            address: location
                .address
                .wrapping_sub(mapping.memory_start)
                .wrapping_add(mapping.file_offset),
        })
    }

    /// The value of a label: its text, or its number.
    pub(super) fn label(&self, sample: &ProtoSample, key: &str) -> Result<Option<ReadLabel>, PprofError> {
        for label in &sample.label {
            let ProtoLabel { str, num, .. } = *label;
            if text_at(&self.message.string_table, label.key) == Some(key.as_bytes()) {
                return Ok(Some(ReadLabel {
                    text: self.text(str)?,
                    number: num,
                }));
            }
        }
        Ok(None)
    }

    /// The end of a sample's stack, as its label says.
    pub(super) fn stack_end(&self, sample: &ProtoSample) -> Result<Option<StackEnd>, PprofError> {
        match self.label(sample, STACK_END)? {
            None => Ok(Some(StackEnd::Complete)),
            Some(label) if label.text == LOST => Ok(None),
            Some(label) => {
                let known = StackEnd::ALL.iter().find(|it| it.label() == label.text);
                known
                    .map(|end| Some(*end))
                    .ok_or_else(|| PprofError::damaged("the end of a stack is not known"))
            }
        }
    }
}

/// The value of a label.
pub(super) struct ReadLabel {
    /// The text; empty for a number.
    pub(super) text: String,
    /// The number; 0 for a text.
    pub(super) number: i64,
}

/// The frames of a profile that is read, each once.
#[derive(Debug, Default)]
pub(super) struct ReadFrames {
    /// The frames.
    pub(super) frames: Vec<Frame>,
    index: HashMap<Frame, usize>,
    /// The indices of the frames of each location, the outermost first.
    locations: Vec<Vec<usize>>,
}

impl ReadFrames {
    /// Reads the frames of all locations, with those that the document tells better.
    pub(super) fn of(
        message: &ProtoProfile,
        tables: &ReadTables<'_>,
        document: Option<&ProfileDocument>,
    ) -> Result<Self, PprofError> {
        let mut exact: HashMap<(u64, usize), &Frame> = HashMap::new();
        for saved in document.iter().flat_map(|it| &it.frames) {
            if saved.frame.object.is_some_and(|it| it >= message.mapping.len()) {
                return Err(PprofError::damaged("a frame is in no file"));
            }
            exact.insert((saved.location, saved.line), &saved.frame);
        }
        let mut read = Self::default();
        for location in &message.location {
            let mut indices = Vec::new();
            for (line, frame) in tables.frames(location)?.into_iter().enumerate().rev() {
                let frame = exact.remove(&(location.id, line)).map_or(frame, Clone::clone);
                indices.push(read.index(frame));
            }
            read.locations.push(indices);
        }
        if !exact.is_empty() {
            return Err(PprofError::damaged("a frame is of no location"));
        }
        Ok(read)
    }

    fn index(&mut self, frame: Frame) -> usize {
        if let Some(index) = self.index.get(&frame) {
            return *index;
        }
        self.frames.push(frame.clone());
        self.index.insert(frame, self.frames.len() - 1);
        self.frames.len() - 1
    }

    /// The frames of a sample, from the outermost to the innermost, without the mark of one that is
    /// not whole.
    pub(super) fn stack(
        &self,
        sample: &ProtoSample,
        tables: &ReadTables<'_>,
        end: Option<StackEnd>,
    ) -> Result<Vec<usize>, PprofError> {
        let mut frames = Vec::new();
        let marks = usize::from(end_mark(end).is_some());
        for number in sample.location_id.iter().rev().skip(marks) {
            let location = tables
                .locations
                .get(number)
                .and_then(|it| self.locations.get(*it))
                .ok_or_else(|| PprofError::damaged("a location is not in its table"))?;
            frames.extend_from_slice(location);
        }
        Ok(frames)
    }
}

/// A text of a table; nothing where it is not there.
pub(super) fn text_at(strings: &[Vec<u8>], index: i64) -> Option<&[u8]> {
    strings.get(usize::try_from(index).ok()?).map(Vec::as_slice)
}
