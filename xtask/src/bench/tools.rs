//! The tables of tools. A new row is a new entry in [`calls`], [`live`] or [`walks`].

mod bpftrace;
mod heaptrack;
mod live_bt;
mod memleak;
mod memtap;
mod running;
mod walk;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use super::target::{Build, Target};

pub(crate) use running::Running;

/// What a tool says that it saw of the loop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Seen {
    /// Calls of malloc.
    Calls(u64),
    /// Bytes asked for by malloc.
    Bytes(u64),
    /// Calls of malloc, and the frames that were found at each.
    Walks {
        /// Calls.
        calls: u64,
        /// Frames of each.
        frames: u64,
    },
    /// It does not count.
    Nothing,
}

/// What a row is for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Role {
    /// What additions and ratios are counted from: one for each build of the loop.
    Base,
    /// What is judged: it may cost at most this share of the reference, from this depth on.
    Subject(f64, u32),
    /// What it is judged by.
    Reference,
    /// Shown beside them.
    Other,
}

/// One way of tracing the loop.
pub(crate) struct Tool {
    pub(crate) name: &'static str,
    pub(crate) role: Role,
    /// How the loop is compiled.
    pub(crate) build: Build,
    pub(crate) way: Way,
}

/// How a tool comes to the loop.
pub(crate) enum Way {
    /// Not at all: the loop runs alone.
    Alone,
    /// To the loop that waits.
    Attached(Box<dyn Tracer>),
    /// With the loop, which it starts.
    Launched(Box<dyn Launcher>),
}

impl Way {
    /// Why this tool cannot run here.
    pub(crate) fn missing(&self) -> Option<String> {
        match self {
            Self::Alone => None,
            Self::Attached(tracer) => tracer.missing(),
            Self::Launched(launcher) => launcher.missing(),
        }
    }
}

impl Tool {
    fn new(name: &'static str, role: Role, build: Build, tracer: impl Tracer + 'static) -> Self {
        Self {
            name,
            role,
            build,
            way: Way::Attached(Box::new(tracer)),
        }
    }

    fn untraced(name: &'static str, build: Build) -> Self {
        Self {
            name,
            role: Role::Base,
            build,
            way: Way::Alone,
        }
    }
}

/// A program that attaches to the running loop.
pub(crate) trait Tracer {
    /// Why this tool cannot run here.
    fn missing(&self) -> Option<String>;
    /// Starts tracing the waiting loop; its files go to `folder`.
    fn attach(&self, target: &Target, folder: &Path) -> Result<Running>;
    /// Reads what it saw, after it has stopped.
    fn seen(&self, folder: &Path) -> Result<Seen>;
}

/// A program that starts the loop itself.
pub(crate) trait Launcher {
    /// Why this tool cannot run here.
    fn missing(&self) -> Option<String>;
    /// The command that starts `binary` under the tool, to which the loop's own arguments are added. The loop
    /// has the command's standard input and output, and the command ends after it; files go to `folder`.
    fn command(&self, binary: &Path, folder: &Path) -> Result<Command>;
    /// Reads what it saw, after it has ended.
    fn seen(&self, folder: &Path) -> Result<Seen>;
}

/// The most that memtap may cost, as a share of what the reference tool costs.
const LIMIT: f64 = 0.6;

/// Frames from which on that holds: a call from fewer costs mostly the trap, which is the same for all.
const LIMIT_FROM_DEPTH: u32 = 20;

/// Whole tools, in the order of the rows.
pub(crate) fn calls(memtap: &Path, walk_cost: &Path) -> Vec<Tool> {
    let memtap = |unwind| memtap::Memtap {
        binary: memtap.to_path_buf(),
        unwind,
        blocks: memtap::Blocks::Counted,
    };
    let (framed, frameless) = (Build::FramePointers, Build::NoFramePointers);
    vec![
        Tool::untraced("bare", framed),
        Tool::new(
            "empty uprobe",
            Role::Other,
            framed,
            walk::WalkCost {
                binary: walk_cost.to_path_buf(),
                walker: walk::Walker::Empty,
            },
        ),
        Tool::new(
            "memtap --unwind dwarf",
            Role::Subject(LIMIT, LIMIT_FROM_DEPTH),
            framed,
            memtap("dwarf"),
        ),
        Tool::new(
            "memtap --unwind fp",
            Role::Subject(LIMIT, LIMIT_FROM_DEPTH),
            framed,
            memtap("fp"),
        ),
        Tool::new("bpftrace @[ustack]", Role::Reference, framed, bpftrace::Bpftrace),
        Tool::untraced("bare", frameless),
        Tool::new("memtap --unwind dwarf", Role::Other, frameless, memtap("dwarf")),
    ]
}

/// The most that memtap may cost when it follows blocks, as a share of what the reference tool costs.
const LIVE_LIMIT: f64 = 0.3;

/// Whole tools that follow every block to its free, in the order of the rows.
pub(crate) fn live(memtap: &Path) -> Vec<Tool> {
    let framed = Build::FramePointers;
    let memtap = memtap::Memtap {
        binary: memtap.to_path_buf(),
        unwind: "dwarf",
        blocks: memtap::Blocks::Followed,
    };
    vec![
        Tool::untraced("bare", framed),
        Tool::new(
            "memtap record --live",
            Role::Subject(LIVE_LIMIT, 0),
            framed,
            memtap,
        ),
        Tool::new("bpftrace live.bt", Role::Reference, framed, live_bt::LiveScript),
        Tool {
            name: "heaptrack",
            role: Role::Other,
            build: framed,
            way: Way::Launched(Box::new(heaptrack::Heaptrack)),
        },
        Tool::new("bcc memleak", Role::Other, framed, memleak::Memleak),
    ]
}

/// The most that a fresh walk may add to a hit, as a share of what `bpf_get_stackid` adds.
const FRESH_LIMIT: f64 = 0.7;
/// The same for a remembered one.
const REMEMBERED_LIMIT: f64 = 0.35;

/// Walks without a tool around them, in the order of the rows.
pub(crate) fn walks(walk_cost: &Path) -> Vec<Tool> {
    let row = |name, role, walker| {
        let binary = PathBuf::from(walk_cost);
        Tool::new(
            name,
            role,
            Build::FramePointers,
            walk::WalkCost { binary, walker },
        )
    };
    vec![
        row("empty program", Role::Base, walk::Walker::Empty),
        row(
            "memtap, fresh",
            Role::Subject(FRESH_LIMIT, 0),
            walk::Walker::Fresh,
        ),
        row(
            "memtap, remembered",
            Role::Subject(REMEMBERED_LIMIT, 0),
            walk::Walker::Remembered,
        ),
        row("bpf_get_stackid", Role::Reference, walk::Walker::KernelKept),
        row("bpf_get_stack", Role::Other, walk::Walker::Kernel),
    ]
}
