//! The table of tools. A new row is a new entry in [`table`].

mod bpftrace;
mod memtap;
mod running;

use std::path::{Path, PathBuf};

use anyhow::Result;

use super::target::Target;

pub(crate) use running::Running;

/// What a tool says that it saw of the loop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Seen {
    /// Calls of malloc.
    Calls(u64),
    /// Bytes asked for by malloc.
    Bytes(u64),
}

/// What a row is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// The loop alone.
    Bare,
    /// What is judged.
    Subject,
    /// What it is judged by.
    Reference,
    /// Shown beside them.
    Other,
}

/// One way of tracing the loop.
pub(crate) struct Tool {
    pub(crate) name: &'static str,
    pub(crate) role: Role,
    /// `None` traces nothing.
    pub(crate) tracer: Option<Box<dyn Tracer>>,
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

/// Every tool, in the order of the rows.
pub(crate) fn table(memtap: PathBuf) -> Vec<Tool> {
    let tool = |name, role, tracer| Tool { name, role, tracer };
    vec![
        tool("bare", Role::Bare, None),
        tool(
            "memtap record -p",
            Role::Subject,
            Some(Box::new(memtap::Memtap { binary: memtap })),
        ),
        tool(
            "bpftrace -p",
            Role::Reference,
            Some(Box::new(bpftrace::Bpftrace {
                scope: bpftrace::Scope::Process,
            })),
        ),
        tool(
            "bpftrace /pid == …/",
            Role::Other,
            Some(Box::new(bpftrace::Bpftrace {
                scope: bpftrace::Scope::Filter,
            })),
        ),
    ]
}
