//! Programs for links of many uprobes (`BPF_TRACE_UPROBE_MULTI`, Linux 6.6), which aya does not
//! have.
//!
//! A uprobe that is a perf event of its own is taken off under one lock of the whole kernel, a
//! tenth of a second each. Links go off beside each other, each with all its instructions at once.
//! What they need is said when a program is loaded, so that aya's programs will not do: the same
//! code is loaded once more, with the maps that aya has made.

use std::collections::{BTreeMap, HashSet};
use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};

use aya::Ebpf;
use aya::programs::ProgramError;
use aya_obj::generated::{bpf_attach_type, bpf_insn, bpf_prog_type};
use aya_obj::{ProgramSection, VerifierLog};

use super::sys::{self, Program, Types, Uprobes};
use crate::bpf::compat::map_data;
use crate::bpf::embedded::object_bytes;
use crate::bpf::error::BpfError;

/// The programs: their code, and those that are loaded, by name.
pub(in crate::bpf) struct Multi {
    object: aya_obj::Object,
    types: Option<OwnedFd>,
    programs: BTreeMap<&'static str, Loaded>,
}

struct Loaded {
    descriptor: OwnedFd,
    at_return: bool,
}

impl Multi {
    /// Takes the maps and the type information of what aya has loaded; no program is loaded yet.
    pub(in crate::bpf) fn new(ebpf: &Ebpf) -> Result<Self, BpfError> {
        probe().map_err(BpfError::Multi)?;
        Ok(Self {
            object: relocated(ebpf)?,
            types: types_of(ebpf)?,
            programs: BTreeMap::new(),
        })
    }

    /// Loads a program, if it is not loaded yet.
    pub(in crate::bpf) fn load(&mut self, name: &'static str) -> Result<(), BpfError> {
        if self.programs.contains_key(name) {
            return Ok(());
        }
        let missing = || BpfError::Missing(format!("uprobe program {name}"));
        let program = self.object.programs.get(name).ok_or_else(missing)?;
        let function = self
            .object
            .functions
            .get(&program.function_key())
            .ok_or_else(missing)?;
        let (functions, lines) = (
            function.func_info.func_info_bytes(),
            function.line_info.line_info_bytes(),
        );
        let types = self.types.as_ref().map(|btf| Types {
            btf: btf.as_fd(),
            functions: (&functions, function.func_info_rec_size),
            lines: (&lines, function.line_info_rec_size),
        });
        let descriptor = load(&Program {
            name,
            kind: bpf_prog_type::BPF_PROG_TYPE_KPROBE,
            attach_type: bpf_attach_type::BPF_TRACE_UPROBE_MULTI,
            licence: &program.license,
            instructions: &function.instructions,
            types,
        })
        .map_err(|error| BpfError::program(name, &error))?;
        let at_return = matches!(program.section, ProgramSection::URetProbe { .. });
        let loaded = Loaded {
            descriptor,
            at_return,
        };
        self.programs.insert(name, loaded);
        Ok(())
    }

    /// Attaches a program to instructions of a file, or to the returns of the functions that begin
    /// there.
    pub(in crate::bpf) fn link(
        &self,
        program: &str,
        path: &CStr,
        offsets: &[u64],
        cookies: &[u64],
        pid: u32,
    ) -> io::Result<OwnedFd> {
        let loaded = self
            .programs
            .get(program)
            .ok_or_else(|| io::Error::other(format!("the program {program} is not loaded")))?;
        let uprobes = Uprobes {
            path,
            offsets,
            cookies,
            returns: loaded.at_return,
            pid,
        };
        sys::link_uprobes(loaded.descriptor.as_fd(), &uprobes)
    }

    /// How often each program has run and for how many nanoseconds, while the kernel kept
    /// statistics.
    pub(in crate::bpf) fn runs(&self) -> impl Iterator<Item = (&'static str, u64, u64)> {
        self.programs.iter().filter_map(|(name, loaded)| {
            let info = sys::program_info(loaded.descriptor.as_fd()).ok()?;
            Some((*name, info.run_cnt, info.run_time_ns))
        })
    }

    /// How many instructions the verifier went through for each program, where the kernel tells.
    pub(in crate::bpf) fn verified_instructions(&self) -> impl Iterator<Item = (&'static str, Option<u32>)> {
        self.programs.iter().filter_map(|(name, loaded)| {
            let count = sys::verified_instructions(loaded.descriptor.as_fd()).ok()?;
            Some((*name, count))
        })
    }
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
            attach_type: bpf_attach_type::BPF_TRACE_UPROBE_MULTI,
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

/// The object's code, with the maps that aya has made.
fn relocated(ebpf: &Ebpf) -> Result<aya_obj::Object, BpfError> {
    let failed = |error: &dyn std::error::Error| BpfError::Relocation(error.to_string());
    let mut object = aya_obj::Object::parse(object_bytes()).map_err(|error| failed(&error))?;
    let maps = std::mem::take(&mut object.maps);
    let made = maps.iter().filter_map(|(name, map)| {
        let data = map_data(ebpf.map(name)?)?;
        Some((name.as_str(), data.fd().as_fd().as_raw_fd(), map))
    });
    let text: HashSet<usize> = object.functions.keys().map(|(section, _)| *section).collect();
    object
        .relocate_maps(made, &text)
        .map_err(|error| failed(&error))?;
    object.relocate_calls(&text).map_err(|error| failed(&error))?;
    object.sanitize_functions(aya::features());
    Ok(object)
}

/// The type information that aya has loaded: that of any of its programs.
fn types_of(ebpf: &Ebpf) -> Result<Option<OwnedFd>, BpfError> {
    let mut ids = ebpf
        .programs()
        .filter_map(|(_, program)| program.info().ok()?.btf_id());
    ids.next()
        .map(sys::btf_by_id)
        .transpose()
        .map_err(BpfError::Types)
}

/// The most room that a verifier's account is given, as aya gives it.
const LOG_BYTES_MAX: usize = 16 << 20;

/// Loads a program; if it is refused, again for the verifier's account.
fn load(program: &Program) -> Result<OwnedFd, ProgramError> {
    let mut log = Vec::new();
    loop {
        let error = match sys::load_program(program, &mut log) {
            Ok(descriptor) => return Ok(descriptor),
            Err(error) => error,
        };
        let is_short = log.is_empty() || error.raw_os_error() == Some(libc::ENOSPC);
        if is_short && log.len() < LOG_BYTES_MAX {
            log = vec![0; (log.len() * 10).clamp(1 << 16, LOG_BYTES_MAX)];
            continue;
        }
        let end = log.iter().position(|byte| *byte == 0).unwrap_or(log.len());
        return Err(ProgramError::LoadError {
            io_error: error,
            verifier_log: VerifierLog::new(String::from_utf8_lossy(&log[..end]).into_owned()),
        });
    }
}
