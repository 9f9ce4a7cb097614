//! One file's unwind table: how it is made, and what the kernel side is told of it.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use tracer_ebpf::unwind::MAPPED_PAGE_BYTES;
use tracer_ebpf::{FileKey, FileTable, MAX_SEGMENTS, Segment};

use crate::bpf::tables::NO_SEGMENT;
use crate::process::files::MappedFile;
use crate::process::maps;
use crate::unwind::{self, CompileOptions, Placement, Rows, Table};

/// A compiled file.
pub(super) struct Compiled {
    pub(super) path: PathBuf,
    pub(super) key: FileKey,
    pub(super) table: Result<Table, String>,
    pub(super) took: Duration,
}

/// What the kernel side is told of a file without a table.
pub(super) const NO_TABLE: FileTable = FileTable {
    page_base: 0,
    page_count: 0,
    segments_len: 0,
    rows: FileTable::ROWS_OF_CALLS,
    segments: [NO_SEGMENT; MAX_SEGMENTS],
};

/// The name of the vDSO's mapping.
pub(super) const VDSO: &str = "[vdso]";

/// The image of the vDSO, which the kernel has mapped into this process as into any other.
pub(super) fn vdso() -> io::Result<Vec<u8>> {
    let mappings = maps::executable_mappings(std::process::id())?;
    let mapping = mappings.iter().find(|mapping| mapping.path.as_os_str() == VDSO);
    let mapping = mapping.ok_or_else(|| io::Error::other("this process has none"))?;
    let mut image = vec![0; usize::try_from(mapping.end - mapping.start).map_err(io::Error::other)?];
    File::open("/proc/self/mem")?.read_exact_at(&mut image, mapping.start)?;
    Ok(image)
}

/// Compiles a file.
pub(super) fn compile(file: &MappedFile, key: FileKey, rows: Rows) -> Compiled {
    compile_bytes(file.path.clone(), key, std::fs::read(file.open_path()), rows)
}

/// Compiles an image.
pub(super) fn compile_bytes(path: PathBuf, key: FileKey, bytes: io::Result<Vec<u8>>, rows: Rows) -> Compiled {
    let began = Instant::now();
    let options = CompileOptions {
        rows,
        ..CompileOptions::default()
    };
    let table = bytes
        .map_err(|error| error.to_string())
        .and_then(|bytes| unwind::compile(&bytes, options).map_err(|error| error.to_string()));
    Compiled {
        path,
        key,
        table,
        took: began.elapsed(),
    }
}

/// What the kernel side is told of a table.
pub(super) fn entry(placement: &Placement, table: &Table, rows: u32) -> FileTable {
    let mut entry = FileTable {
        page_base: placement.page_base(),
        page_count: placement.page_count(),
        rows,
        ..NO_TABLE
    };
    let segments = segments(table);
    entry.segments_len = u32::try_from(segments.len()).unwrap_or(0);
    for (to, from) in entry.segments.iter_mut().zip(segments) {
        *to = from;
    }
    entry
}

/// The executable segments of a table's file, as the kernel side looks for them.
fn segments(table: &Table) -> Vec<Segment> {
    let page = u64::from(MAPPED_PAGE_BYTES);
    let segments = table.segments().iter().map(|segment| Segment {
        file_start: segment.offset - segment.offset % page,
        file_end: segment.offset.saturating_add(segment.file_size),
        to_table: segment
            .address
            .wrapping_sub(segment.offset)
            .wrapping_sub(table.base()),
    });
    segments.take(MAX_SEGMENTS).collect()
}
