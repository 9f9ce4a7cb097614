//! From a pprof file to a profile: memtap's own is what it was, another program's is what its
//! tables tell.

use std::collections::HashMap;
use std::io::{self, Read as _};

use flate2::read::MultiGzDecoder;
use prost::Message as _;
use tracer_ebpf::StackEnd;

use super::document::{DocumentSchema, PREFIX, ProfileDocument, SCHEMA};
use super::messages::{ProtoLabel, ProtoLocation, ProtoProfile, ProtoSample};
use super::tables::{end_mark, plain_frame};
use super::{FUNCTION, IMAGE, LOST, STACK_END, foreign, limits, writer};
use crate::message::escape::one_line;
use crate::profile::text::function_named;
use crate::profile::{Frame, FrameName, Profile, Session, Stack};
use crate::report::source::{ForeignFacts, Origin, ReportSource, ReportView};

/// The most bytes of a file when it is uncompressed.
const MAX_UNPACKED_BYTES: u64 = 1 << 30;

/// The most bytes of memory that its messages may take.
const MAX_DECODED_BYTES: u64 = 4 << 30;

/// The reasons for which a file cannot be read. Each says what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PprofError {
    /// There is nothing in it.
    #[error("the file is empty; was memtap stopped before it wrote it? record again")]
    Empty,
    /// It is something else.
    #[error("the file is no pprof profile, but {0}; memtap reads what `record -o FILE.pb.gz` writes")]
    OtherFormat(&'static str),
    /// It is cut off.
    #[error("the file ends early; copy it again, or record again")]
    Truncated,
    /// It is not what was written.
    #[error("the file is damaged ({0}); copy it again, or record again")]
    Damaged(String),
    /// It would take too much memory.
    #[error(
        "the file is larger than memtap reads ({0}); record with a larger --sample or a smaller --max-stacks"
    )]
    TooLarge(&'static str),
    /// A memtap of another version has written it.
    #[error("the file was written as {} by another version of memtap; this one reads {SCHEMA}; use that version", one_line(.0))]
    Version(String),
    /// Its samples are of something else.
    #[error("the file has no figures of memory, but {}; memtap reads alloc_space, inuse_space and the like", one_line(.0))]
    NoMemory(String),
    /// Its figures are differences.
    #[error("the file has negative figures: it is the difference of two profiles; give memtap diff the two")]
    Difference,
}

/// A profile that was read.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SavedProfile {
    /// The stacks.
    pub profile: Profile,
    /// The facts beside them.
    pub origin: SavedOrigin,
    /// The report that the recording printed.
    pub view: ReportView,
    /// True if another program has changed a file of memtap's, so that what memtap alone keeps had
    /// to be left out.
    pub is_altered: bool,
}

/// The facts beside the stacks, by who recorded them: see [`Origin`].
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum SavedOrigin {
    /// memtap.
    Recording(Box<Session>),
    /// Another program.
    Foreign(ForeignFacts),
}

impl SavedProfile {
    /// Returns the profile as exporters take it.
    #[must_use]
    pub(crate) fn source(&self) -> ReportSource<'_> {
        ReportSource {
            profile: &self.profile,
            origin: match &self.origin {
                SavedOrigin::Recording(session) => Origin::Recording(session),
                SavedOrigin::Foreign(facts) => Origin::Foreign(facts),
            },
            view: &self.view,
        }
    }
}

/// Reads a file, compressed or not.
pub(crate) fn read(file: &[u8]) -> Result<SavedProfile, PprofError> {
    let message = unpack(file)?;
    match limits::decoded_bytes(&message) {
        None if is_packed(file) => return Err(damaged("it is no protobuf message")),
        None => {
            return Err(PprofError::OtherFormat(
                "bytes of another format, or one that is cut off",
            ));
        }
        Some(bytes) if bytes > MAX_DECODED_BYTES => return Err(PprofError::TooLarge("4 GiB in memory")),
        Some(_) => {}
    }
    let mut message =
        ProtoProfile::decode(&*message).map_err(|error| PprofError::Damaged(error.to_string()))?;
    let (document, is_altered) = match take_document(&mut message)? {
        Some((document, true)) if document.digest == writer::digest(&message) => (Some(document), false),
        Some(_) => (None, true),
        None => (None, false),
    };
    let tables = ReadTables::of(&message)?;
    match document {
        Some(document) => recorded(&message, &tables, document),
        None => Ok(SavedProfile {
            is_altered,
            ..foreign::profile(&message, &tables)?
        }),
    }
}

/// Returns true for gzip.
fn is_packed(file: &[u8]) -> bool {
    file.starts_with(&[0x1f, 0x8b])
}

/// Returns the message, uncompressed.
fn unpack(file: &[u8]) -> Result<Vec<u8>, PprofError> {
    if file.is_empty() {
        return Err(PprofError::Empty);
    }
    if !is_packed(file) {
        if file.len() as u64 > MAX_UNPACKED_BYTES {
            return Err(PprofError::TooLarge("1 GiB"));
        }
        return match other_format(file) {
            Some(format) => Err(PprofError::OtherFormat(format)),
            None => Ok(file.to_vec()),
        };
    }
    let mut message = Vec::new();
    let unpacked = MultiGzDecoder::new(file)
        .take(MAX_UNPACKED_BYTES + 1)
        .read_to_end(&mut message);
    match unpacked {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(PprofError::Truncated),
        Err(error) => Err(PprofError::Damaged(error.to_string())),
        Ok(_) if message.len() as u64 > MAX_UNPACKED_BYTES => Err(PprofError::TooLarge("1 GiB")),
        Ok(_) if message.is_empty() => Err(PprofError::Empty),
        Ok(_) => match other_format(&message) {
            Some(format) => Err(PprofError::OtherFormat(format)),
            None => Ok(message),
        },
    }
}

/// Returns the format that these bytes are of, if it is not pprof's: a message begins with a field,
/// whose tag is none of these characters.
fn other_format(bytes: &[u8]) -> Option<&'static str> {
    const FORMATS: [(&[u8], &str); 8] = [
        (b"{", "JSON"),
        (b"[", "JSON"),
        (b"<", "an SVG or an HTML page"),
        (b"\x7fELF", "a program"),
        (b"PERFILE2", "perf's data"),
        (b"PK\x03\x04", "a ZIP archive"),
        (b"\x28\xb5\x2f\xfd", "compressed by zstd"),
        (
            b"heap profile:",
            "tcmalloc's text (`pprof -proto` makes a profile of it)",
        ),
    ];
    if let Some((_, name)) = FORMATS.iter().find(|(start, _)| bytes.starts_with(start)) {
        return Some(name);
    }
    let is_text = |it: &u8| *it == b'\n' || *it == b'\r' || *it == b'\t' || (b' '..0x7f).contains(it);
    let start = &bytes[..bytes.len().min(256)];
    (start.iter().all(is_text) && limits::decoded_bytes(bytes).is_none()).then_some("text")
}

/// Takes the document out of the message, and returns it with true, where it is the last text and
/// the last comment; with false where another program has put it elsewhere.
fn take_document(message: &mut ProtoProfile) -> Result<Option<(ProfileDocument, bool)>, PprofError> {
    let is_document = |index: &i64| {
        text_at(&message.string_table, *index).is_some_and(|it| it.starts_with(PREFIX.as_bytes()))
    };
    let Some(index) = message.comment.iter().copied().find(is_document) else {
        return Ok(None);
    };
    let text = text_at(&message.string_table, index).unwrap_or_default();
    let json = &text[1..];
    let damaged = |error: serde_json::Error| PprofError::Damaged(format!("memtap's comment: {error}"));
    let schema: DocumentSchema = serde_json::from_slice(json).map_err(damaged)?;
    if schema.schema != SCHEMA {
        return Err(PprofError::Version(schema.schema));
    }
    let document: ProfileDocument = serde_json::from_slice(json).map_err(damaged)?;
    let is_last = message.comment.last() == Some(&index)
        && usize::try_from(index).is_ok_and(|index| index + 1 == message.string_table.len());
    if is_last {
        message.comment.pop();
        message.string_table.pop();
    }
    Ok(Some((document, is_last)))
}

fn text_at(strings: &[Vec<u8>], index: i64) -> Option<&[u8]> {
    strings.get(usize::try_from(index).ok()?).map(Vec::as_slice)
}

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

fn damaged(what: &str) -> PprofError {
    PprofError::Damaged(what.to_owned())
}

impl<'a> ReadTables<'a> {
    /// Reads the tables. The types of values and the number of each sample's values are checked.
    fn of(message: &'a ProtoProfile) -> Result<Self, PprofError> {
        let by_number = |numbers: &mut dyn Iterator<Item = u64>| {
            let mut index = HashMap::new();
            for (place, number) in numbers.enumerate() {
                if number == 0 || index.insert(number, place).is_some() {
                    return Err(damaged("two entries of a table have one number"));
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
            return Err(damaged("a sample has not one value of each type"));
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
            None => Err(damaged("a text is not in its table")),
        }
    }

    /// The index of a mapping; nothing for 0.
    pub(super) fn mapping(&self, number: u64) -> Result<Option<usize>, PprofError> {
        match (number, self.mappings.get(&number)) {
            (0, _) => Ok(None),
            (_, Some(index)) => Ok(Some(*index)),
            (_, None) => Err(damaged("a mapping is not in its table")),
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
                .ok_or_else(|| damaged("a function is not in its table"))?;
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
                    .ok_or_else(|| damaged("the end of a stack is not known"))
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
                return Err(damaged("a frame is in no file"));
            }
            exact.insert((saved.location, saved.line), &saved.frame);
        }
        let mut read = Self::default();
        for location in &message.location {
            let mut indices = Vec::new();
            for (line, frame) in tables.frames(location)?.into_iter().enumerate().rev() {
                let frame = exact.get(&(location.id, line)).map_or(frame, |it| (*it).clone());
                indices.push(read.index(frame));
            }
            read.locations.push(indices);
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
                .ok_or_else(|| damaged("a location is not in its table"))?;
            frames.extend_from_slice(location);
        }
        Ok(frames)
    }
}

/// Makes the profile that memtap wrote.
fn recorded(
    message: &ProtoProfile,
    tables: &ReadTables<'_>,
    document: ProfileDocument,
) -> Result<SavedProfile, PprofError> {
    if document.objects.len() != message.mapping.len() {
        return Err(damaged("its files are not its mappings"));
    }
    let is_process = |index: usize| index < document.processes.len();
    if document
        .together
        .iter()
        .filter_map(|it| it.process)
        .any(|it| !is_process(it))
    {
        return Err(damaged("a process is not in its table"));
    }
    let frames = ReadFrames::of(message, tables, Some(&document))?;
    let rows = document
        .figures
        .rows(message.sample.len())
        .map_err(PprofError::Damaged)?;
    let mut stacks = Vec::with_capacity(rows.len());
    for (sample, values) in message.sample.iter().zip(rows) {
        let process = tables
            .label(sample, IMAGE)?
            .and_then(|label| usize::try_from(label.number).ok()?.checked_sub(1))
            .filter(|it| is_process(*it))
            .ok_or_else(|| damaged("a process is not in its table"))?;
        let function = match tables.label(sample, FUNCTION)? {
            Some(label) => function_named(&label.text).ok_or_else(|| damaged("a function is not known"))?,
            None => tracer_ebpf::Function::Unknown,
        };
        let end = tables.stack_end(sample)?;
        stacks.push(Stack {
            process,
            function,
            frames: frames.stack(sample, tables, end)?,
            end,
            values,
        });
    }
    let view = document
        .view
        .view()
        .ok_or_else(|| damaged("a metric is not known"))?;
    Ok(SavedProfile {
        profile: Profile {
            processes: document.processes,
            frames: frames.frames,
            stacks,
            objects: document.objects,
            held: document.held,
            together: document.together,
            has_ages: document.has_ages,
            sample_bytes: document.sample_bytes,
            marks: document.marks,
        },
        origin: SavedOrigin::Recording(Box::new(document.session)),
        view,
        is_altered: false,
    })
}
