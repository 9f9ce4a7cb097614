//! From a pprof file to a profile: memtap's own is what it was, another program's is what its
//! tables tell.

use prost::Message as _;
use tracer_ebpf::Function;

use super::document::{DocumentSchema, PREFIX, ProfileDocument, SCHEMA};
use super::error::{PprofError, shown};
use super::messages::ProtoProfile;
use super::read_tables::{ReadFrames, ReadTables, text_at};
use super::saved::{SavedOrigin, SavedProfile};
use super::unpack::{is_packed, unpack};
use super::{FUNCTION, IMAGE, foreign, limits, writer};
use crate::profile::text::function_named;
use crate::profile::{Profile, Stack};

/// The most bytes of memory that a file's messages may take.
const MAX_DECODED_BYTES: u64 = 4 << 30;

/// Reads a file, compressed or not.
pub(crate) fn read(file: &[u8]) -> Result<SavedProfile, PprofError> {
    let message = unpack(file)?;
    match limits::decoded_bytes(&message) {
        None if is_packed(file) => return Err(PprofError::damaged("it is no protobuf message")),
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
    let damaged =
        |error: serde_json::Error| PprofError::Damaged(shown(&format!("memtap's comment: {error}")));
    let schema: DocumentSchema = serde_json::from_slice(json).map_err(damaged)?;
    if schema.schema != SCHEMA {
        return Err(PprofError::Version(shown(&schema.schema)));
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

/// Makes the profile that memtap wrote.
fn recorded(
    message: &ProtoProfile,
    tables: &ReadTables<'_>,
    document: ProfileDocument,
) -> Result<SavedProfile, PprofError> {
    if document.objects.len() != message.mapping.len() {
        return Err(PprofError::damaged("its files are not its mappings"));
    }
    let is_process = |index: usize| index < document.processes.len();
    if document
        .together
        .iter()
        .filter_map(|it| it.process)
        .any(|it| !is_process(it))
    {
        return Err(PprofError::damaged("a process is not in its table"));
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
            .ok_or_else(|| PprofError::damaged("a process is not in its table"))?;
        let function = match tables.label(sample, FUNCTION)? {
            Some(label) => {
                function_named(&label.text).ok_or_else(|| PprofError::damaged("a function is not known"))?
            }
            None => Function::Unknown,
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
        .ok_or_else(|| PprofError::damaged("a metric is not known"))?;
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
