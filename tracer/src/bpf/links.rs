//! Attaching programs, and taking them off.

use std::collections::HashMap;
use std::ffi::CString;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt as _;
use std::sync::{Arc, Mutex, PoisonError};

use super::close_later::close_later;
use super::compat::{multi, perf};
use super::error::BpfError;
use super::object::Object;
use super::tracefs;
use crate::process::files::MappedFile;

/// How many threads take links off at once, each waiting for grace periods of the kernel without
/// using a CPU: links of many uprobes do so beside each other.
const DETACH_THREADS: usize = 256;

/// The same for perf events, which wait for each other. More threads would not help.
const DETACH_THREADS_PERF: usize = 16;

/// Bytes of stack of such a thread, which makes a system call.
const DETACH_STACK_BYTES: usize = 64 << 10;

/// Which processes a uprobe fires in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum UprobeScope {
    /// In one process; others pay nothing.
    Process(u32),
    /// In every process that maps the file.
    Machine,
}

impl UprobeScope {
    /// The process's id, or 0 for all.
    const fn pid(self) -> u32 {
        match self {
            Self::Process(pid) => pid,
            Self::Machine => 0,
        }
    }
}

/// A uprobe to be attached.
#[derive(Debug, Clone)]
pub struct Uprobe {
    /// The program; one of returns is attached to the returns of the function that begins at the
    /// offset.
    pub program: &'static str,
    /// The file.
    pub file: Arc<MappedFile>,
    /// Where in the file, in bytes.
    pub offset: u64,
    /// What the program knows the probe by.
    pub cookie: u64,
    /// Where it fires.
    pub scope: UprobeScope,
}

/// A link: closing it takes its program off.
#[derive(Debug)]
enum Link {
    /// Of many uprobes.
    Uprobes(OwnedFd),
    /// Of a perf event: one uprobe, or a tracepoint.
    Event(OwnedFd),
}

impl Link {
    fn into_descriptor(self) -> OwnedFd {
        match self {
            Self::Uprobes(descriptor) | Self::Event(descriptor) => descriptor,
        }
    }
}

/// Attached probes. Dropping them takes them off, several at once.
#[derive(Debug, Default)]
pub struct Attached {
    links: Vec<Link>,
}

/// Why a probe could not be attached.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// The loader's own fault.
    #[error(transparent)]
    Bpf(#[from] BpfError),
    /// tracefs is not mounted and could not be mounted privately.
    #[error("failed to mount tracefs privately: {0}; mount it: mount -t tracefs nodev /sys/kernel/tracing")]
    Tracefs(#[source] io::Error),
    /// The kernel has no such tracepoint, or refused it.
    #[error("failed to attach to the tracepoint {category}:{name}: {source}")]
    Tracepoint {
        /// Its category.
        category: String,
        /// Its name.
        name: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// Every address that would do is held by another tracer.
    #[error(
        "failed to attach to {symbol} in {path}: another tracer holds its instruction at {offset:#x} (with a reference \
         counter, as memleak does); end that tracer and try again{}",
        if *.at_return { ", or trace without --live" } else { "" }
    )]
    Held {
        /// The function.
        symbol: String,
        /// The file.
        path: String,
        /// Where in the file the last one is.
        offset: u64,
        /// Its return is wanted too, which fewer addresses do for.
        at_return: bool,
    },
    /// The kernel refused a uprobe.
    #[error("failed to attach a uprobe at {path}+{offset:#x}: {}", root(source.as_ref()))]
    Uprobe {
        /// The file.
        path: String,
        /// The offset in the file.
        offset: u64,
        /// What the kernel said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl AttachError {
    fn uprobe(uprobe: &Uprobe, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Uprobe {
            path: uprobe.file.path.display().to_string(),
            offset: uprobe.offset,
            source: Box::new(source),
        }
    }

    /// Whether the process that the probe was for has gone.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.answer() == Some(libc::ESRCH)
    }

    /// The offset of a uprobe whose address another tracer holds: the kernel takes it by one
    /// reference counter alone (`insert_uprobe` of its `kernel/events/uprobes.c`).
    #[must_use]
    pub fn held_offset(&self) -> Option<u64> {
        match self {
            Self::Uprobe { offset, .. } if self.answer() == Some(libc::EINVAL) => Some(*offset),
            _ => None,
        }
    }

    /// The offset of a uprobe that the kernel refused, for whatever reason but that the process has
    /// gone.
    #[must_use]
    pub fn refused_offset(&self) -> Option<u64> {
        match self {
            Self::Uprobe { offset, .. } if !self.is_gone() => Some(*offset),
            _ => None,
        }
    }

    /// The number of the kernel's answer to a uprobe.
    fn answer(&self) -> Option<i32> {
        let Self::Uprobe { source, .. } = self else {
            return None;
        };
        let mut error: Option<&(dyn std::error::Error + 'static)> = Some(source.as_ref());
        while let Some(current) = error {
            if let Some(error) = current.downcast_ref::<io::Error>() {
                return error.raw_os_error();
            }
            error = current.source();
        }
        None
    }
}

/// The innermost cause, which is the kernel's own answer.
fn root(error: &(dyn std::error::Error + Send + Sync + 'static)) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

/// Loads the programs of uprobes that are not loaded yet.
pub fn load_programs(object: &mut Object, uprobes: &[Uprobe]) -> Result<(), BpfError> {
    uprobes
        .iter()
        .try_for_each(|uprobe| object.need_uprobe(uprobe.program))
}

/// The path by which the kernel opens a uprobe's file.
fn path_of(uprobe: &Uprobe) -> Result<CString, AttachError> {
    let path = uprobe.file.open_path().into_os_string().into_vec();
    CString::new(path).map_err(|error| AttachError::uprobe(uprobe, error))
}

/// Attaches a uprobe as a perf event of its own.
fn attach_alone(object: &Object, uprobe: &Uprobe) -> Result<Link, AttachError> {
    let program = object.program(uprobe.program)?;
    let path = path_of(uprobe)?;
    let pid = uprobe.scope.pid();
    perf::link_uprobe(program, &path, uprobe.offset, uprobe.cookie, pid)
        .map(Link::Event)
        .map_err(|source| AttachError::uprobe(uprobe, source))
}

/// Attaches a program to a tracepoint.
fn attach_tracepoint(
    object: &Object,
    program: &str,
    category: &str,
    name: &str,
) -> Result<Link, AttachError> {
    let program = object.program(program)?;
    tracefs::tracepoint_number(category, name)
        .and_then(|number| perf::link_tracepoint(program, number))
        .map(Link::Event)
        .map_err(|source| AttachError::Tracepoint {
            category: category.to_owned(),
            name: name.to_owned(),
            source,
        })
}

impl Attached {
    /// Attaches uprobes, in their order as far as they are links of their own: those of a program
    /// in a file go in together, when it is the turn of the last of them. Programs that are not
    /// loaded yet are.
    pub fn attach_uprobes(&mut self, object: &mut Object, uprobes: &[Uprobe]) -> Result<(), AttachError> {
        load_programs(object, uprobes)?;
        if !object.attaches_many() {
            return uprobes.iter().try_for_each(|uprobe| {
                self.links.push(attach_alone(object, uprobe)?);
                Ok(())
            });
        }
        for group in groups(uprobes) {
            let first = group[0];
            let program = object.program(first.program)?;
            let path = path_of(first)?;
            let link = |group: &[&Uprobe]| {
                let offsets: Vec<u64> = group.iter().map(|uprobe| uprobe.offset).collect();
                let cookies: Vec<u64> = group.iter().map(|uprobe| uprobe.cookie).collect();
                multi::link(program, &path, &offsets, &cookies, first.scope.pid())
            };
            let made = link(&group).map_err(|error| {
                // The kernel does not tell which.
                let refused = group
                    .iter()
                    .find_map(|uprobe| Some((*uprobe, link(&[*uprobe]).err()?)));
                let (uprobe, error) = refused.unwrap_or((first, error));
                AttachError::uprobe(uprobe, error)
            })?;
            self.links.push(Link::Uprobes(made));
        }
        Ok(())
    }

    /// Attaches programs to tracepoints: (program, category, name).
    pub fn attach_tracepoints(
        &mut self,
        object: &Object,
        points: &[(&str, &str, &str)],
    ) -> Result<(), AttachError> {
        let links = tracefs::with_tracefs(|| {
            points
                .iter()
                .map(|(program, category, name)| attach_tracepoint(object, program, category, name))
                .collect::<Result<Vec<_>, AttachError>>()
        })
        .map_err(AttachError::Tracefs)??;
        self.links.extend(links);
        Ok(())
    }

    /// A link of a perf event.
    #[cfg(feature = "bench")]
    pub(super) fn of_event(link: OwnedFd) -> Self {
        Self {
            links: vec![Link::Event(link)],
        }
    }

    /// How many probes are attached.
    #[must_use]
    pub fn len(&self) -> usize {
        self.links.len()
    }

    /// Takes in others.
    pub fn append(&mut self, mut other: Self) {
        self.links.append(&mut other.links);
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.links.is_empty()
    }

    /// Takes all off without waiting for it. For programs that do nothing any more: they may run
    /// for a moment yet, also after memtap has ended.
    pub fn detach_later(&mut self) {
        let links = std::mem::take(&mut self.links).into_iter();
        close_later(links.map(Link::into_descriptor).collect());
    }

    /// Takes all probes off and waits until the last program has ended.
    pub fn detach(&mut self) {
        let links = std::mem::take(&mut self.links);
        let is_perf = |link: &Link| !matches!(link, Link::Uprobes(_));
        let most = if links.iter().any(is_perf) {
            DETACH_THREADS_PERF
        } else {
            DETACH_THREADS
        };
        let threads = links.len().min(most);
        let links = Mutex::new(links);
        let next = || links.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let detach_all = || {
            while let Some(link) = next() {
                drop(link.into_descriptor());
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..threads {
                let thread = std::thread::Builder::new().stack_size(DETACH_STACK_BYTES);
                if let Err(error) = thread.spawn_scoped(scope, detach_all) {
                    // Those that there are do it, this one at least.
                    log::debug!("a thread that detaches probes: {error}");
                    break;
                }
            }
            detach_all();
        });
    }
}

/// The uprobes of each program, file and scope, in the order of the last of each.
fn groups(uprobes: &[Uprobe]) -> Vec<Vec<&Uprobe>> {
    let mut places = HashMap::new();
    let mut groups: Vec<Vec<&Uprobe>> = Vec::new();
    for uprobe in uprobes.iter().rev() {
        let key = (uprobe.program, uprobe.file.id, uprobe.scope);
        let place = *places.entry(key).or_insert_with(|| {
            groups.push(Vec::new());
            groups.len() - 1
        });
        groups[place].push(uprobe);
    }
    groups.reverse();
    groups
}

impl Drop for Attached {
    fn drop(&mut self) {
        self.detach();
    }
}
