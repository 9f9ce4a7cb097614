//! Links of many uprobes (`BPF_TRACE_UPROBE_MULTI`, Linux 6.6), which aya does not have.
//!
//! A uprobe that is a perf event of its own is taken off under one lock of the whole kernel, a
//! tenth of a second each. Links go off beside each other, each with all its instructions at once.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use aya_obj::generated::{bpf_attach_type, bpf_insn, bpf_prog_type};

use super::loader::LoadedProgram;
use super::sys::{self, Program, Uprobes};

/// Attaches a program to instructions of a file, or to the returns of the functions that begin
/// there.
pub(in crate::bpf) fn link(
    program: &LoadedProgram,
    path: &CStr,
    offsets: &[u64],
    cookies: &[u64],
    pid: u32,
) -> io::Result<OwnedFd> {
    let uprobes = Uprobes {
        path,
        offsets,
        cookies,
        returns: program.at_return,
        pid,
    };
    sys::link_uprobes(program.as_fd(), &uprobes)
}

/// Whether the kernel has such links, and looks at the process: the first that had them looked at
/// the thread.
///
/// `bpf_uprobe_multi_link_attach` of the kernel's `kernel/trace/bpf_trace.c` answers `EBADF` where
/// the path is no regular file; those that look at the process refuse a negative process id before.
pub(in crate::bpf) fn probe() -> io::Result<()> {
    // `r0 = 0; exit`
    let instruction = |code| bpf_insn {
        code,
        _bitfield_align_1: [],
        _bitfield_1: bpf_insn::new_bitfield_1(0, 0),
        off: 0,
        imm: 0,
    };
    let program = sys::load_program(
        &Program {
            name: "memtap_probe",
            kind: bpf_prog_type::BPF_PROG_TYPE_KPROBE,
            attach_type: bpf_attach_type::BPF_TRACE_UPROBE_MULTI as u32,
            licence: c"Dual MIT/GPL",
            instructions: &[instruction(0xb7), instruction(0x95)],
            types: None,
        },
        &mut [],
    )?;
    let answers = |pid, error| is_refused_with(program.as_fd(), pid, error);
    answers(0, libc::EBADF)?;
    answers(u32::MAX, libc::EINVAL)
}

fn is_refused_with(program: BorrowedFd, pid: u32, expected: i32) -> io::Result<()> {
    let uprobes = Uprobes {
        path: c"/",
        offsets: &[0],
        cookies: &[0],
        returns: false,
        pid,
    };
    match sys::link_uprobes(program, &uprobes) {
        Err(error) if error.raw_os_error() == Some(expected) => Ok(()),
        Err(error) => Err(error),
        Ok(_) => Err(io::Error::other("a folder took a uprobe")),
    }
}
