//! The unwind tables of the files that targets map: compiled on threads of their own, placed in the kernel side's
//! arrays, shared by all processes that map the same file.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use tracer_ebpf::unwind::MAPPED_PAGE_BYTES;
use tracer_ebpf::{FileKey, FileTable, MAX_SEGMENTS, Segment};

use crate::bpf::Object;
use crate::bpf::load::BpfError;
use crate::bpf::tables::{NO_SEGMENT, TableMaps};
use crate::report::session::Tables as Usage;
use crate::target::files::MappedFile;
use crate::target::maps::FileId;
use crate::unwind::{self, Arena, Capacity, Options, Placement, Rows, Table};

/// What is known of a file.
#[derive(Debug)]
enum State {
    /// Being compiled.
    Awaited,
    /// In the arrays.
    Placed(#[expect(dead_code, reason = "held for as long as the file may be mapped")] Placement),
    /// There is none, or no room for it.
    Without,
}

/// A compiled file.
struct Compiled {
    file: Arc<MappedFile>,
    key: FileKey,
    table: Result<Table, String>,
    took: Duration,
}

/// The tables of all files.
pub(super) struct Tables {
    maps: TableMaps,
    arena: Arena,
    files: HashMap<FileKey, State>,
    sender: Sender<Compiled>,
    receiver: Receiver<Compiled>,
    awaited: usize,
}

/// What the kernel side is told of a file without a table.
const NO_TABLE: FileTable = FileTable {
    page_base: 0,
    page_count: 0,
    segments_len: 0,
    awaited: 0,
    segments: [NO_SEGMENT; MAX_SEGMENTS],
};

/// A file as the kernel side knows it.
pub(super) fn key_of(file: FileId) -> FileKey {
    let (major, minor) = file.device;
    FileKey {
        inode: file.inode,
        device: (u64::from(major) << 20) | u64::from(minor),
    }
}

impl Tables {
    pub(super) fn new(object: &Object, capacity: Capacity) -> Result<Self, BpfError> {
        let (sender, receiver) = channel();
        Ok(Self {
            maps: object.table_maps(&capacity)?,
            arena: Arena::new(capacity),
            files: HashMap::new(),
            sender,
            receiver,
            awaited: 0,
        })
    }

    /// Makes the tables of these files, several at once, and waits for them.
    pub(super) fn make_now(
        &mut self,
        object: &mut Object,
        files: &[Arc<MappedFile>],
    ) -> Result<(), BpfError> {
        let mut wanted = Vec::new();
        for file in files {
            let key = key_of(file.id);
            if let Entry::Vacant(unknown) = self.files.entry(key) {
                unknown.insert(State::Awaited);
                wanted.push((Arc::clone(file), key));
            }
        }
        let next = std::sync::atomic::AtomicUsize::new(0);
        let workers = std::thread::available_parallelism()
            .map_or(1, NonZeroUsize::get)
            .min(wanted.len());
        let (sender, receiver) = channel();
        std::thread::scope(|scope| {
            for _ in 0..workers {
                let (sender, next, wanted) = (sender.clone(), &next, &wanted);
                scope.spawn(move || {
                    while let Some((file, key)) =
                        wanted.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed))
                    {
                        if sender.send(compile(Arc::clone(file), *key)).is_err() {
                            return;
                        }
                    }
                });
            }
            drop(sender);
            for compiled in receiver {
                self.place(object, compiled)?;
            }
            Ok::<(), BpfError>(())
        })?;
        self.maps.change_generation();
        Ok(())
    }

    /// Makes a file's table on a thread; [`take_made`](Self::take_made) places it.
    pub(super) fn make_later(
        &mut self,
        object: &mut Object,
        file: Option<Arc<MappedFile>>,
        key: FileKey,
    ) -> Result<(), BpfError> {
        if self.files.contains_key(&key) {
            return Ok(());
        }
        let Some(file) = file else {
            // The process has gone, and the file's name with it: whoever maps the file again will have to do without.
            self.files.insert(key, State::Without);
            return object.set_file_table(key, NO_TABLE);
        };
        self.files.insert(key, State::Awaited);
        self.awaited += 1;
        let sender = self.sender.clone();
        std::thread::spawn(move || {
            if sender.send(compile(file, key)).is_err() {
                log::debug!("a table was made too late");
            }
        });
        Ok(())
    }

    /// Whether tables are being made.
    pub(super) fn is_waiting(&self) -> bool {
        self.awaited > 0
    }

    /// Places the tables that are ready.
    pub(super) fn take_made(&mut self, object: &mut Object) -> Result<(), BpfError> {
        if self.awaited == 0 {
            return Ok(());
        }
        let mut placed = false;
        while let Ok(compiled) = self.receiver.try_recv() {
            self.awaited -= 1;
            self.place(object, compiled)?;
            placed = true;
        }
        if placed {
            self.maps.change_generation();
        }
        Ok(())
    }

    fn place(&mut self, object: &mut Object, compiled: Compiled) -> Result<(), BpfError> {
        let Compiled {
            file,
            key,
            table,
            took,
        } = compiled;
        let path = file.path.display();
        let mut entry = NO_TABLE;
        let state = match table {
            Err(reason) => {
                log::debug!("{path}: no unwind table: {reason}");
                State::Without
            }
            Ok(table) => match self.arena.insert(&table) {
                Err(full) => {
                    log::warn!("{path} is walked by frame pointers: {full}; --unwind-memory makes room");
                    State::Without
                }
                Ok(inserted) => {
                    log::debug!(
                        "{path}: {} rows of unwind table in {} ms",
                        inserted.placement.row_count(),
                        took.as_millis()
                    );
                    self.maps.write(&inserted.delta);
                    entry.page_base = inserted.placement.page_base();
                    entry.page_count = inserted.placement.page_count();
                    let segments = segments(&table);
                    entry.segments_len = u32::try_from(segments.len()).unwrap_or(0);
                    for (to, from) in entry.segments.iter_mut().zip(segments) {
                        *to = from;
                    }
                    State::Placed(inserted.placement)
                }
            },
        };
        self.files.insert(key, state);
        object.set_file_table(key, entry)
    }

    pub(super) fn usage(&self) -> Usage {
        let count =
            |wanted: fn(&State) -> bool| self.files.values().filter(|state| wanted(state)).count() as u64;
        Usage {
            files: count(|state| matches!(state, State::Placed(_))),
            files_without: count(|state| matches!(state, State::Without)),
            bytes: self.arena.usage().bytes(),
            ..Usage::default()
        }
    }
}

fn compile(file: Arc<MappedFile>, key: FileKey) -> Compiled {
    let began = Instant::now();
    let table = std::fs::read(file.open_path())
        .map_err(|error| error.to_string())
        .and_then(|bytes| {
            let options = Options {
                rows: Rows::CallSites,
                ..Options::default()
            };
            unwind::compile(&bytes, options).map_err(|error| error.to_string())
        });
    Compiled {
        file,
        key,
        table,
        took: began.elapsed(),
    }
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
