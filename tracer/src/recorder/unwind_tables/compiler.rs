//! Compilation of files' unwind tables on threads, and the entries by which the kernel side finds
//! them.

use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::num::NonZeroUsize;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use tracer_ebpf::unwind::MAPPED_PAGE_BYTES;
use tracer_ebpf::{FileKey, FileTable, MAX_SEGMENTS, Segment};

use crate::bpf::tables::NO_SEGMENT;
use crate::elf::{Elf, FileCache};
use crate::process::files::MappedFile;
use crate::process::maps;
use crate::unwind::{self, CompileOptions, Placement, Rows, Table};

/// A compiled file.
pub(super) struct CompiledTable {
    pub(super) path: PathBuf,
    pub(super) key: FileKey,
    pub(super) table: Result<Table, String>,
    pub(super) took: Duration,
}

/// Tables that are being compiled, each on a thread of its own.
pub(super) struct TableCompiler {
    sender: Sender<CompiledTable>,
    receiver: Receiver<CompiledTable>,
    pending: usize,
}

impl TableCompiler {
    /// Returns a compiler without work.
    pub(super) fn new() -> Self {
        let (sender, receiver) = channel();
        Self {
            sender,
            receiver,
            pending: 0,
        }
    }

    /// Begins to compile a file.
    pub(super) fn begin(&mut self, file: Arc<MappedFile>, key: FileKey, rows: Rows) {
        self.pending += 1;
        let sender = self.sender.clone();
        std::thread::spawn(move || {
            if sender.send(compile(&file, key, rows)).is_err() {
                log::debug!("a table was made too late");
            }
        });
    }

    /// Returns true if files are being compiled.
    pub(super) fn is_busy(&self) -> bool {
        self.pending > 0
    }

    /// Takes a table that is ready.
    pub(super) fn take(&mut self) -> Option<CompiledTable> {
        let compiled = self.receiver.try_recv().ok()?;
        self.pending -= 1;
        Some(compiled)
    }

    /// Waits for a table. Returns nothing if none is being compiled.
    pub(super) fn wait(&mut self) -> Option<CompiledTable> {
        // The compiler has a sender itself: without pending work this would wait for ever.
        if self.pending == 0 {
            return None;
        }
        let compiled = self.receiver.recv().ok()?;
        self.pending -= 1;
        Some(compiled)
    }
}

/// Files that are compiled on as many threads as there are CPUs. Dropping the batch ends it early.
pub(crate) struct TableBatch {
    files: Arc<Vec<Arc<MappedFile>>>,
    receiver: Receiver<CompiledTable>,
}

impl TableBatch {
    /// Begins to compile the tables of call sites of these files, each once.
    pub(crate) fn begin(mut files: Vec<Arc<MappedFile>>) -> Self {
        let mut keys = HashSet::new();
        files.retain(|file| keys.insert(file.key));
        let files = Arc::new(files);
        let next = Arc::new(AtomicUsize::new(0));
        let workers = std::thread::available_parallelism()
            .map_or(1, NonZeroUsize::get)
            .min(files.len());
        let (sender, receiver) = channel();
        for _ in 0..workers {
            let (sender, next, files) = (sender.clone(), Arc::clone(&next), Arc::clone(&files));
            std::thread::spawn(move || {
                while let Some(file) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if sender.send(compile(file, file.key, Rows::CallSites)).is_err() {
                        return;
                    }
                }
            });
        }
        Self { files, receiver }
    }

    /// The files.
    pub(super) fn keys(&self) -> impl Iterator<Item = FileKey> {
        self.files.iter().map(|file| file.key)
    }

    /// The tables in the order in which they are ready.
    pub(super) fn tables(&self) -> impl Iterator<Item = CompiledTable> {
        self.receiver.iter()
    }
}

fn compile(file: &MappedFile, key: FileKey, rows: Rows) -> CompiledTable {
    timed(file.path.clone(), key, || {
        let cache = FileCache::new(file.file());
        let elf = Elf::parse(&cache).map_err(|error| error.to_string())?;
        unwind::compile_elf(&elf, options(rows)).map_err(|error| error.to_string())
    })
}

fn options(rows: Rows) -> CompileOptions {
    CompileOptions {
        rows,
        ..CompileOptions::default()
    }
}

fn timed(path: PathBuf, key: FileKey, compile: impl FnOnce() -> Result<Table, String>) -> CompiledTable {
    let began = Instant::now();
    let table = compile();
    CompiledTable {
        path,
        key,
        table,
        took: began.elapsed(),
    }
}

/// The name of the vDSO's mapping.
pub(super) const VDSO: &str = "[vdso]";

/// Compiles the vDSO. It calls nothing: only signals interrupt it, so that it needs all rows.
pub(super) fn compile_vdso() -> CompiledTable {
    timed(PathBuf::from(VDSO), FileKey::VDSO, || {
        let image = vdso_image().map_err(|error| error.to_string())?;
        unwind::compile(&image, options(Rows::All)).map_err(|error| error.to_string())
    })
}

/// Reads the image of the vDSO, which the kernel has mapped into this process as into any other.
fn vdso_image() -> io::Result<Vec<u8>> {
    let mappings = maps::executable_mappings(std::process::id())?;
    let mapping = mappings.iter().find(|mapping| mapping.path.as_os_str() == VDSO);
    let mapping = mapping.ok_or_else(|| io::Error::other("this process has none"))?;
    let mut image = vec![0; usize::try_from(mapping.end - mapping.start).map_err(io::Error::other)?];
    File::open("/proc/self/mem")?.read_exact_at(&mut image, mapping.start)?;
    Ok(image)
}

/// The kernel side's entry for a file without a table.
pub(super) const NO_TABLE: FileTable = FileTable {
    page_base: 0,
    page_count: 0,
    segments_len: 0,
    rows: FileTable::ROWS_OF_CALLS,
    segments: [NO_SEGMENT; MAX_SEGMENTS],
};

/// The kernel side's entry for a table.
pub(super) fn table_entry(placement: &Placement, table: &Table, rows: u32) -> FileTable {
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

/// The executable segments of a table's file, as the kernel side looks them up.
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
