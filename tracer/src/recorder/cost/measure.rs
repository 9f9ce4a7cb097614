//! Measuring what a hit of a probe costs on this machine, on a child process of our own that nobody
//! else's work depends on.
//!
//! The child is a copy of memtap that calls little functions in a loop and says how much CPU time
//! of its thread that took. The probes are in that child alone. Rounds with and without probes
//! alternate and the median counts, so that a busy machine changes little.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc;

use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};

use super::{Traps, functions};
use crate::bpf::links::AttachError;
use crate::bpf::load::BpfError;
use crate::bpf::{Attached, Object, Uprobe, UprobeScope};
use crate::clock;
use crate::process::files::Files;
use crate::process::maps;

/// Rounds that count.
const ROUNDS: usize = 7;

/// A function of the child, and how often a round calls it.
type Kind = (extern "C" fn(), u32);

/// The functions that the child can call, and the number of calls. Of the stepped one few: a step
/// costs ten microseconds on a virtual machine.
const KINDS: [Kind; 4] = [
    (functions::bare, 400),
    (functions::emulated, 400),
    (functions::stepped, 40),
    (functions::returning, 200),
];

/// The reasons for which the cost cannot be measured.
#[derive(Debug, thiserror::Error)]
pub enum MeasureError {
    /// The child could not be made, or said nothing.
    #[error("failed to measure in a process of our own: {0}")]
    Child(#[from] io::Error),
    /// memtap's own code is mapped in no way that a probe could be put on.
    #[error("failed to find memtap's own code in a file")]
    NoFile,
    /// A program.
    #[error(transparent)]
    Bpf(#[from] BpfError),
    /// A probe.
    #[error(transparent)]
    Attach(#[from] AttachError),
}

/// The measured costs, or the reason why there are none.
pub type Measured = Result<Traps, MeasureError>;

/// A measurement that is prepared, and then runs: the child waits, and its probes are attached.
#[derive(Debug)]
pub struct Measuring {
    go: mpsc::Sender<()>,
    outcome: mpsc::Receiver<io::Result<Traps>>,
    /// The outcome, once it was waited for.
    settled: Option<Measured>,
}

impl Measuring {
    /// Prepares it. The programs are those of `object`, loaded with
    /// [`Wanted::cost`](crate::bpf::load::Wanted::cost), which can be used for other things
    /// meanwhile.
    pub fn prepare(object: &mut Object) -> Result<Self, MeasureError> {
        let child = Child::start()?;
        let file = Files::default().of_path(Path::new("/proc/self/exe"))?;
        let uprobe = |(program, kind): (&'static str, usize)| {
            Ok(Uprobe {
                program,
                file: Arc::clone(&file),
                offset: file_offset(KINDS[kind].0).ok_or(MeasureError::NoFile)?,
                cookie: 0,
                scope: UprobeScope::Process(child.pid),
            })
        };
        let places = [
            ("cost_return", 3),
            ("cost_entry", 1),
            ("cost_entry", 2),
            ("cost_entry", 3),
        ];
        let uprobes: Vec<Uprobe> = places
            .into_iter()
            .map(uprobe)
            .collect::<Result<_, MeasureError>>()?;
        let mut attached = Attached::default();
        attached.attach_uprobes(object, &uprobes)?;
        let (go, told) = mpsc::channel();
        let (sender, outcome) = mpsc::channel();
        std::thread::spawn(move || {
            if told.recv().is_err() {
                // Nobody wants to know.
                return;
            }
            if sender.send(measure(child)).is_err() {
                log::debug!("nobody waits for what hits of probes cost");
            }
            // It takes a while, and nobody waits for that either.
            drop(attached);
        });
        Ok(Self {
            go,
            outcome,
            settled: None,
        })
    }

    /// Starts it. It takes some 20 ms on a thread and in the child, and is best started when memtap
    /// has no other work for all CPUs: traps come out dearer on a core that is shared.
    pub fn start(self) -> Result<Self, MeasureError> {
        self.go.send(()).map_err(|_gone| thread_ended())?;
        Ok(self)
    }

    /// Waits for its outcome and keeps it, so that nothing runs beside the measurement.
    #[must_use]
    pub fn settle(mut self) -> Self {
        self.settled = Some(self.receive());
        self
    }

    /// Returns its outcome, and waits for it where that was not done.
    pub fn finish(mut self) -> Measured {
        self.settled.take().unwrap_or_else(|| self.receive())
    }

    fn receive(&self) -> Measured {
        Ok(self.outcome.recv().map_err(|_gone| thread_ended())??)
    }
}

fn thread_ended() -> io::Error {
    io::Error::other("the measuring thread ended early")
}

/// Returns the place of a function of memtap's own in its file.
fn file_offset(function: extern "C" fn()) -> Option<u64> {
    let address = function as usize as u64;
    let mappings = maps::executable_mappings(std::process::id()).ok()?;
    let mapping = mappings
        .iter()
        .find(|mapping| mapping.start <= address && address < mapping.end)?;
    Some(address - mapping.start + mapping.file_offset)
}

fn measure(mut child: Child) -> io::Result<Traps> {
    let mut rounds = [const { Vec::new() }; KINDS.len()];
    // The first round is to warm up.
    for round in 0..=ROUNDS {
        for (kind, times) in rounds.iter_mut().enumerate() {
            let time_ns = child.call(kind)?;
            if round > 0 {
                times.push(time_ns / f64::from(KINDS[kind].1));
            }
        }
    }
    let [bare, emulated, stepped, returning] = rounds.map(super::median);
    log::debug!(
        "ns per call: bare {bare:.1}, emulated {emulated:.0}, stepped {stepped:.0}, with return {returning:.0}"
    );
    Ok(Traps {
        emulated_ns: (emulated - bare).max(0.0),
        stepped_ns: (stepped - bare).max(0.0),
        return_ns: (returning - emulated).max(0.0),
        is_measured: true,
    })
}

/// The child. It ends when its end of the pipe is closed, or when memtap does.
struct Child {
    pid: u32,
    orders: File,
    answers: File,
}

impl Child {
    fn start() -> io::Result<Self> {
        let (order_reader, order_writer) = io::pipe()?;
        let (answer_reader, answer_writer) = io::pipe()?;
        // SAFETY: the child makes system calls and calls its own assembly alone: no lock, no
        // allocation.
        match unsafe { libc::fork() } {
            -1 => Err(io::Error::last_os_error()),
            0 => serve(order_reader.as_raw_fd(), answer_writer.as_raw_fd()),
            pid => Ok(Self {
                pid: pid.cast_unsigned(),
                orders: File::from(OwnedFd::from(order_writer)),
                answers: File::from(OwnedFd::from(answer_reader)),
            }),
        }
    }

    /// Has it call a function; returns nanoseconds of CPU time.
    fn call(&mut self, kind: usize) -> io::Result<f64> {
        self.orders
            .write_all(&[u8::try_from(kind).map_err(io::Error::other)?])?;
        let mut answer = [0; 8];
        self.answers.read_exact(&mut answer)?;
        Ok(super::to_f64(u64::from_ne_bytes(answer)))
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // The child has not been waited for, so the id is its own; it is waited for once.
        let Some(pid) = Pid::from_raw(self.pid.cast_signed()) else {
            return;
        };
        let ended = kill_process(pid, Signal::KILL).and_then(|()| waitpid(Some(pid), WaitOptions::empty()));
        if let Err(error) = ended {
            log::debug!("the process that costs are measured on: {error}");
        }
    }
}

/// In the child: does as it is told.
fn serve(orders: i32, answers: i32) -> ! {
    // SAFETY: system calls on descriptors that are open and buffers that are as long as is said.
    // Every other descriptor is closed: this process must not keep alive what the parent lets go
    // of.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        if libc::dup2(orders, 0) != 0 || libc::dup2(answers, 1) != 1 {
            libc::_exit(1);
        }
        libc::syscall(libc::SYS_close_range, 2, libc::c_uint::MAX, 0);
        loop {
            let mut order = 0u8;
            if libc::read(0, (&raw mut order).cast(), 1) != 1 {
                libc::_exit(0);
            }
            let Some((function, times)) = KINDS.get(usize::from(order)) else {
                libc::_exit(1);
            };
            let before = thread_time_ns();
            functions::call(*function, *times);
            let time_ns = thread_time_ns() - before;
            if libc::write(1, (&raw const time_ns).cast(), 8) != 8 {
                libc::_exit(1);
            }
        }
    }
}

/// CPU time of this thread, in nanoseconds.
fn thread_time_ns() -> u64 {
    clock::thread_cpu_ns()
}
