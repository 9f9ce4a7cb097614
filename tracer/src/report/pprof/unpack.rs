//! The message in a file, whether it is compressed or not.

use std::io::{self, Read as _};

use flate2::read::MultiGzDecoder;

use super::error::PprofError;
use super::limits;

/// The most bytes of a file when it is uncompressed.
const MAX_UNPACKED_BYTES: u64 = 1 << 30;

/// Returns true for gzip.
pub(super) fn is_packed(file: &[u8]) -> bool {
    file.starts_with(&[0x1f, 0x8b])
}

/// Returns the message, uncompressed.
pub(super) fn unpack(file: &[u8]) -> Result<Vec<u8>, PprofError> {
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
