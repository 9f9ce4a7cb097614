//! Compressed sections, and a look at them before they are unpacked into memory: what is there
//! counts, not what a header says of it.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, Read};

use crate::elf::sections::{self, Compression, SectionHeader, max_unpacked_bytes};
use crate::elf::{Elf, FileCache};

/// The most bytes that the small symbol table in `.gnu_debugdata` may unpack to. The largest that
/// are shipped have a few MiB.
const MAX_SYMBOL_TABLE_BYTES: u64 = 64 << 20;

/// Memory that a decoder may take itself.
const MAX_DECODER_BYTES: u64 = 64 << 20;

/// The base-2 logarithm of the window that a zstd decoder may take: as much.
const MAX_ZSTD_WINDOW_LOG: u32 = 26;

/// Fails where a file's compressed debug information does not unpack to what it says, or to more
/// than `most_bytes` in all.
pub(super) fn check_debug_info(file: &File, most_bytes: u64) -> Result<(), String> {
    let cache = FileCache::new(file);
    let elf = Elf::parse(&cache).map_err(|error| error.to_string())?;
    let headers = sections::headers(&elf).map_err(|error| error.to_string())?;
    let mut total_bytes = 0u64;
    for header in &headers {
        let name = String::from_utf8_lossy(header.name);
        let compressed = match &header.compressed {
            Ok(None) => continue,
            Ok(Some(compressed)) => compressed,
            Err(error) => return Err(format!("{name}: {error}")),
        };
        let said = compressed.unpacked_bytes;
        let most = max_unpacked_bytes(header.size);
        if said > most {
            return Err(format!(
                "{name} says that its {} bytes unpack to {said}, which is more than {most}",
                header.size
            ));
        }
        total_bytes = total_bytes.saturating_add(said);
        if total_bytes > most_bytes {
            return Err(format!("it unpacks to more than {most_bytes} bytes"));
        }
        let packed = packed_bytes(&elf, header)?;
        let counted = match compressed.kind {
            Compression::Zlib => count(flate2::bufread::ZlibDecoder::new(packed), said),
            Compression::Zstd => count_zstd(packed, said),
            Compression::Other(kind) => {
                return Err(format!(
                    "{name} is compressed in a way (type {kind}) that cannot be read"
                ));
            }
        };
        match counted {
            Ok(bytes) if bytes == said => {}
            Ok(bytes) if bytes > said => {
                return Err(format!(
                    "{name} unpacks to more than the {said} bytes that it says"
                ));
            }
            Ok(bytes) => return Err(format!("{name} unpacks to {bytes} bytes and says {said}")),
            Err(error) => return Err(format!("{name} cannot be unpacked: {error}")),
        }
    }
    Ok(())
}

/// Fails where a file's small symbol table cannot be unpacked in reasonable memory.
pub(super) fn check_small_symbol_table(file: &File) -> Result<(), String> {
    let cache = FileCache::new(file);
    let elf = Elf::parse(&cache).map_err(|error| error.to_string())?;
    let headers = sections::headers(&elf).map_err(|error| error.to_string())?;
    let Some(header) = headers.iter().find(|header| header.name == b".gnu_debugdata") else {
        return Ok(());
    };
    check_xz(packed_bytes(&elf, header)?)
}

fn check_xz(packed: &[u8]) -> Result<(), String> {
    let decoder = xz2::stream::Stream::new_stream_decoder(MAX_DECODER_BYTES, 0);
    let decoder = decoder.map_err(|error| error.to_string())?;
    let unpacked = xz2::bufread::XzDecoder::new_stream(packed, decoder);
    match count(unpacked, MAX_SYMBOL_TABLE_BYTES) {
        Ok(bytes) if bytes <= MAX_SYMBOL_TABLE_BYTES => Ok(()),
        Ok(_) => Err(format!(
            "its small symbol table unpacks to more than {MAX_SYMBOL_TABLE_BYTES} bytes"
        )),
        Err(error) => Err(format!("its small symbol table cannot be unpacked: {error}")),
    }
}

/// The bytes of a section, unpacked where it is compressed. `most` is the number of bytes that may
/// still be unpacked, and is counted down; nothing where that is too few.
///
/// What the section's header says was checked before ([`check_debug_info`]).
pub(super) fn bytes_of<'data, R: crate::elf::ReadRef<'data>>(
    elf: &Elf<'data, R>,
    header: &SectionHeader<'_>,
    most: &mut u64,
) -> Option<Cow<'data, [u8]>> {
    let compressed = match &header.compressed {
        Ok(None) => return Some(Cow::Borrowed(elf.file_bytes(header.offset, header.size))),
        Ok(Some(compressed)) => compressed,
        Err(_) => return None,
    };
    let said = compressed.unpacked_bytes;
    *most = most.checked_sub(said)?;
    let packed = packed_bytes(elf, header).ok()?;
    let mut unpacked = Vec::new();
    unpacked.try_reserve_exact(usize::try_from(said).ok()?).ok()?;
    let read = match compressed.kind {
        Compression::Zlib => {
            let decoder = flate2::bufread::ZlibDecoder::new(packed);
            decoder.take(said).read_to_end(&mut unpacked)
        }
        Compression::Zstd => zstd_decoder(packed).and_then(|decoder| {
            let mut bounded = decoder.take(said);
            bounded.read_to_end(&mut unpacked)
        }),
        Compression::Other(_) => return None,
    };
    let is_whole = read.is_ok() && unpacked.len() as u64 == said;
    is_whole.then_some(Cow::Owned(unpacked))
}

/// The bytes of a section behind its header, all of them.
fn packed_bytes<'data, R: crate::elf::ReadRef<'data>>(
    elf: &Elf<'data, R>,
    header: &SectionHeader<'_>,
) -> Result<&'data [u8], String> {
    let skipped = match &header.compressed {
        Ok(Some(compressed)) => compressed.header_bytes,
        _ => 0,
    };
    let size = header.size.saturating_sub(skipped);
    let bytes = elf.file_bytes(header.offset.saturating_add(skipped), size);
    if bytes.len() as u64 == size {
        Ok(bytes)
    } else {
        Err(format!(
            "{} is not all there",
            String::from_utf8_lossy(header.name)
        ))
    }
}

fn count_zstd(packed: &[u8], most: u64) -> io::Result<u64> {
    count(zstd_decoder(packed)?, most)
}

fn zstd_decoder(packed: &[u8]) -> io::Result<zstd::stream::Decoder<'static, &[u8]>> {
    let mut decoder = zstd::stream::Decoder::with_buffer(packed)?;
    decoder.window_log_max(MAX_ZSTD_WINDOW_LOG)?;
    Ok(decoder)
}

/// Unpacks into nothing. Ends once there is more than `most`.
fn count(unpacked: impl Read, most: u64) -> io::Result<u64> {
    io::copy(&mut unpacked.take(most.saturating_add(1)), &mut io::sink())
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn bytes_are_counted_not_believed() {
        let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
        zlib.write_all(&vec![0; 1 << 20]).expect("room");
        let packed = zlib.finish().expect("room");
        let unpacked = || flate2::bufread::ZlibDecoder::new(&*packed);
        assert_eq!(count(unpacked(), 1 << 20).expect("sound"), 1 << 20);
        assert_eq!(count(unpacked(), 1000).expect("sound"), 1001);
        let packed = zstd::encode_all(&vec![0; 1 << 20][..], 3).expect("room");
        assert_eq!(count_zstd(&packed, 1 << 20).expect("sound"), 1 << 20);
        assert_eq!(count_zstd(&packed, 1000).expect("sound"), 1001);
        assert!(count_zstd(&packed[..packed.len() / 2], 1 << 20).is_err());
    }

    #[test]
    fn small_symbol_table_must_unpack() {
        assert!(check_xz(b"no xz").is_err());
        let mut packed = Vec::new();
        xz2::read::XzEncoder::new(&[7u8; 1000][..], 1)
            .read_to_end(&mut packed)
            .expect("packs");
        assert_eq!(check_xz(&packed), Ok(()));
        assert!(check_xz(&packed[..packed.len() - 9]).is_err());
    }

    #[test]
    fn own_program_is_fit() {
        let own = File::open("/proc/self/exe").expect("readable");
        assert_eq!(check_debug_info(&own, u64::MAX), Ok(()));
        assert_eq!(check_small_symbol_table(&own), Ok(()));
    }
}
