//! Attaching programs, and taking them off.

use std::io;
use std::num::NonZeroU32;
use std::path::Path;

use aya::programs::ProgramError;
use aya::programs::trace_point::TracePointLink;
use aya::programs::uprobe::{UProbeAttachLocation, UProbeAttachPoint, UProbeLink, UProbeScope};

use super::load::{BpfError, Object};
use super::tracefs;

/// How many threads take probes off at once. Each waits for a grace period of the kernel, about 100 ms,
/// without using a CPU.
const DETACH_THREADS: usize = 64;

/// Which processes a uprobe fires in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UprobeScope {
    /// In one process; others pay nothing.
    Process(u32),
    /// In every process that maps the file.
    Machine,
}

#[derive(Debug)]
enum Link {
    Uprobe(UProbeLink),
    Tracepoint(TracePointLink),
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
        source: Box<ProgramError>,
    },
    /// The kernel refused a uprobe.
    #[error("failed to attach a uprobe at {path}+{offset:#x}: {}", root(source))]
    Uprobe {
        /// The file.
        path: String,
        /// The offset in the file.
        offset: u64,
        /// What the kernel said.
        source: Box<ProgramError>,
    },
}

impl AttachError {
    /// Whether the process that the probe was for has gone.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        let Self::Uprobe { source, .. } = self else {
            return false;
        };
        let mut error: Option<&(dyn std::error::Error + 'static)> = Some(source.as_ref());
        while let Some(current) = error {
            if let Some(error) = current.downcast_ref::<io::Error>() {
                return error.raw_os_error() == Some(libc::ESRCH);
            }
            error = current.source();
        }
        false
    }
}

/// The innermost cause, which is the kernel's own answer.
fn root(error: &ProgramError) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

impl Object {
    /// Attaches a program to an instruction of a file, or to the returns of the function that begins there.
    pub fn attach_uprobe(
        &mut self,
        attached: &mut Attached,
        program: &str,
        file: &Path,
        offset: u64,
        cookie: u64,
        scope: UprobeScope,
    ) -> Result<(), AttachError> {
        let program = self.uprobe(program)?;
        let point = UProbeAttachPoint {
            location: UProbeAttachLocation::AbsoluteOffset(offset),
            cookie: Some(cookie),
        };
        let scope = match scope {
            UprobeScope::Process(pid) => {
                NonZeroU32::new(pid).map_or(UProbeScope::AllProcesses, UProbeScope::OneProcess)
            }
            UprobeScope::Machine => UProbeScope::AllProcesses,
        };
        let failed = |source| AttachError::Uprobe {
            path: file.display().to_string(),
            offset,
            source: Box::new(source),
        };
        let id = program.attach(point, file, scope).map_err(failed)?;
        let link = program.take_link(id).map_err(failed)?;
        attached.links.push(Link::Uprobe(link));
        Ok(())
    }

    /// Attaches programs to tracepoints: (program, category, name).
    pub fn attach_tracepoints(
        &mut self,
        attached: &mut Attached,
        points: &[(&str, &str, &str)],
    ) -> Result<(), AttachError> {
        let links = tracefs::with_tracefs(|| {
            points
                .iter()
                .map(|(program, category, name)| {
                    let program = self.tracepoint(program)?;
                    let failed = |source| AttachError::Tracepoint {
                        category: (*category).to_owned(),
                        name: (*name).to_owned(),
                        source: Box::new(source),
                    };
                    let id = program.attach(category, name).map_err(failed)?;
                    Ok(Link::Tracepoint(program.take_link(id).map_err(failed)?))
                })
                .collect::<Result<Vec<_>, AttachError>>()
        })
        .map_err(AttachError::Tracefs)??;
        attached.links.extend(links);
        Ok(())
    }
}

impl Attached {
    /// How many probes are attached.
    #[must_use]
    pub fn len(&self) -> usize {
        self.links.len()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.links.is_empty()
    }

    /// Takes all probes off and waits until the last program has ended.
    pub fn detach(&mut self) {
        let mut links = std::mem::take(&mut self.links);
        let share = links.len().div_ceil(DETACH_THREADS).max(1);
        std::thread::scope(|scope| {
            while !links.is_empty() {
                let rest = links.split_off(links.len().saturating_sub(share));
                scope.spawn(|| {
                    for link in rest {
                        match link {
                            Link::Uprobe(link) => drop(link),
                            Link::Tracepoint(link) => drop(link),
                        }
                    }
                });
            }
        });
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        self.detach();
    }
}
