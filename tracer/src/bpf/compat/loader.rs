//! Loading an eBPF object: its maps at once, its programs one by one when they are needed.
//!
//! aya's loader reads all of the kernel's type information whenever it is made, which no relocation
//! of ours needs: 40 ms of CPU time of a start-up of 300. Nor can it load programs for links of
//! many uprobes, since what those need is said when a program is loaded.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};

use aya::maps::{Map, MapData};
use aya::programs::ProgramError;
use aya_obj::generated::{bpf_attach_type, bpf_map_type, bpf_prog_type};
use aya_obj::{EbpfSectionKind, ProgramSection, VerifierLog};

use super::map_data;
use super::sys::{self, Program, Types};
use crate::bpf::error::BpfError;

/// The most room that a verifier's account is given, as aya gives it.
const LOG_BYTES_MAX: usize = 16 << 20;

/// The links that a program is loaded for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::bpf) enum LinkKind {
    /// A tracepoint's.
    Tracepoint,
    /// Perf events, one for each uprobe.
    UprobeEvent,
    /// Links of many uprobes.
    UprobeMulti,
}

/// A program in the kernel.
#[derive(Debug)]
pub(in crate::bpf) struct LoadedProgram {
    pub(super) descriptor: OwnedFd,
    pub(super) kind: LinkKind,
    /// It runs at returns of functions.
    pub(super) at_return: bool,
}

/// Values and sizes that an object gets before its maps are made.
#[derive(Default)]
pub(in crate::bpf) struct Overrides<'a> {
    /// Values of its variables, by name; the flag says whether the object must have one.
    pub(in crate::bpf) globals: HashMap<&'a str, (&'a [u8], bool)>,
    /// Numbers of entries of its maps, by name; bytes, for rings.
    pub(in crate::bpf) entries: HashMap<&'a str, u32>,
}

/// An object's maps in the kernel, and its programs, those that are loaded and those that are not.
pub(in crate::bpf) struct LoadedObject {
    maps: BTreeMap<String, Map>,
    code: aya_obj::Object,
    types: Option<OwnedFd>,
    programs: BTreeMap<&'static str, LoadedProgram>,
}

impl LoadedObject {
    /// Makes the maps; no program is loaded yet.
    pub(in crate::bpf) fn new(bytes: &[u8], overrides: Overrides) -> Result<Self, BpfError> {
        let failed = |error: &dyn std::error::Error| BpfError::Relocation(error.to_string());
        let mut code = aya_obj::Object::parse(bytes).map_err(|error| failed(&error))?;
        code.patch_map_data(overrides.globals)
            .map_err(|error| failed(&error))?;
        let types = load_types(&mut code)?;
        let definitions = std::mem::take(&mut code.maps);
        let mut maps = BTreeMap::new();
        for (name, definition) in &definitions {
            let map = make_map(name, definition.clone(), types.as_ref(), &overrides.entries)?;
            maps.insert(name.clone(), map);
        }
        let made = definitions.iter().filter_map(|(name, definition)| {
            let data = map_data(maps.get(name)?)?;
            Some((name.as_str(), data.fd().as_fd().as_raw_fd(), definition))
        });
        let text: HashSet<usize> = code.functions.keys().map(|(section, _)| *section).collect();
        code.relocate_maps(made, &text).map_err(|error| failed(&error))?;
        code.relocate_calls(&text).map_err(|error| failed(&error))?;
        code.sanitize_functions(aya::features());
        Ok(Self {
            maps,
            code,
            types,
            programs: BTreeMap::new(),
        })
    }

    /// The maps, by name.
    pub(in crate::bpf) fn maps(&self) -> &BTreeMap<String, Map> {
        &self.maps
    }

    /// A map to write to.
    pub(in crate::bpf) fn map_mut(&mut self, name: &str) -> Option<&mut Map> {
        self.maps.get_mut(name)
    }

    /// Hands a map over; it stays in the kernel as long as a program uses it.
    pub(in crate::bpf) fn take_map(&mut self, name: &str) -> Option<Map> {
        self.maps.remove(name)
    }

    /// Loads a program for links of this kind, if it is not loaded for them yet.
    pub(in crate::bpf) fn load(&mut self, name: &'static str, kind: LinkKind) -> Result<(), BpfError> {
        if self
            .programs
            .get(name)
            .is_some_and(|program| program.kind == kind)
        {
            return Ok(());
        }
        let missing = || BpfError::Missing(format!("program {name}"));
        let program = self.code.programs.get(name).ok_or_else(missing)?;
        let function = self
            .code
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
        let (program_type, attach_type) = match kind {
            LinkKind::Tracepoint => (bpf_prog_type::BPF_PROG_TYPE_TRACEPOINT, 0),
            LinkKind::UprobeEvent => (bpf_prog_type::BPF_PROG_TYPE_KPROBE, 0),
            LinkKind::UprobeMulti => (
                bpf_prog_type::BPF_PROG_TYPE_KPROBE,
                bpf_attach_type::BPF_TRACE_UPROBE_MULTI as u32,
            ),
        };
        let descriptor = load(&Program {
            name,
            kind: program_type,
            attach_type,
            licence: &program.license,
            instructions: &function.instructions,
            types,
        })
        .map_err(|error| BpfError::program(name, &error))?;
        let at_return = matches!(program.section, ProgramSection::URetProbe { .. });
        self.programs.insert(
            name,
            LoadedProgram {
                descriptor,
                kind,
                at_return,
            },
        );
        Ok(())
    }

    /// A program that is loaded.
    pub(in crate::bpf) fn program(&self, name: &str) -> Result<&LoadedProgram, BpfError> {
        self.programs
            .get(name)
            .ok_or_else(|| BpfError::Missing(format!("program {name}, or it is not loaded")))
    }

    /// The programs that are loaded, by name.
    pub(in crate::bpf) fn programs(&self) -> impl Iterator<Item = (&'static str, &LoadedProgram)> {
        self.programs.iter().map(|(name, program)| (*name, program))
    }
}

impl LoadedProgram {
    /// The number of instructions that the verifier went through; nothing where the kernel does not
    /// tell (before Linux 5.16).
    pub(in crate::bpf) fn verified_instructions(&self) -> Option<u32> {
        let info = sys::program_info(self.descriptor.as_fd()).ok()?;
        (info.verified_insns > 0).then_some(info.verified_insns)
    }

    /// The number of its runs and their nanoseconds, while the kernel kept statistics.
    pub(in crate::bpf) fn runs(&self) -> Option<(u64, u64)> {
        let info = sys::program_info(self.descriptor.as_fd()).ok()?;
        Some((info.run_cnt, info.run_time_ns))
    }

    /// The kernel's number of it.
    pub(in crate::bpf) fn id(&self) -> Option<u32> {
        Some(sys::program_info(self.descriptor.as_fd()).ok()?.id)
    }

    /// It goes to uprobes.
    pub(in crate::bpf) fn is_of_uprobes(&self) -> bool {
        self.kind != LinkKind::Tracepoint
    }

    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

/// Hands the kernel the object's type information. Programs load without it too, if the kernel does
/// not want it: more slowly, and with shorter accounts of the verifier's.
fn load_types(code: &mut aya_obj::Object) -> Result<Option<OwnedFd>, BpfError> {
    let Some(features) = aya::features().btf() else {
        return Ok(None);
    };
    let types = code
        .fixup_and_sanitize_btf(features)
        .map_err(|error| BpfError::Relocation(error.to_string()))?;
    let Some(types) = types else { return Ok(None) };
    match sys::load_types(&types.to_bytes()) {
        Ok(descriptor) => Ok(Some(descriptor)),
        Err(error) => {
            log::warn!("the kernel refused the type information of the eBPF programs: {error}");
            Ok(None)
        }
    }
}

/// Makes a map and, of variables, fills it.
fn make_map(
    name: &str,
    mut definition: aya_obj::Map,
    types: Option<&OwnedFd>,
    entries: &HashMap<&str, u32>,
) -> Result<Map, BpfError> {
    let unknown = || BpfError::Relocation(format!("map {name} has a type that is not known"));
    let kind = bpf_map_type::try_from(definition.map_type()).map_err(|_invalid| unknown())?;
    let wanted = entries.get(name).copied().unwrap_or(definition.max_entries());
    if kind == bpf_map_type::BPF_MAP_TYPE_RINGBUF {
        definition.set_value_size(0);
        definition.set_max_entries(ring_bytes(wanted));
    } else {
        definition.set_max_entries(wanted);
    }
    let values = definition.data().to_vec();
    let is_constant = definition.section_kind() == EbpfSectionKind::Rodata;
    let data = MapData::create(definition, name, types.map(OwnedFd::as_fd))
        .map_err(|error| BpfError::map(name, error))?;
    if !values.is_empty() {
        sys::set_variables(data.fd().as_fd(), &values).map_err(|error| BpfError::map(name, error))?;
    }
    if is_constant {
        sys::freeze(data.fd().as_fd()).map_err(|error| BpfError::map(name, error))?;
    }
    Ok(match kind {
        bpf_map_type::BPF_MAP_TYPE_ARRAY => Map::Array(data),
        bpf_map_type::BPF_MAP_TYPE_CGROUP_ARRAY => Map::CgroupArray(data),
        bpf_map_type::BPF_MAP_TYPE_HASH => Map::HashMap(data),
        bpf_map_type::BPF_MAP_TYPE_LRU_HASH => Map::LruHashMap(data),
        bpf_map_type::BPF_MAP_TYPE_PERCPU_ARRAY => Map::PerCpuArray(data),
        bpf_map_type::BPF_MAP_TYPE_PROG_ARRAY => Map::ProgramArray(data),
        bpf_map_type::BPF_MAP_TYPE_RINGBUF => Map::RingBuf(data),
        bpf_map_type::BPF_MAP_TYPE_STACK_TRACE => Map::StackTraceMap(data),
        _ => return Err(unknown()),
    })
}

/// A ring's size as the kernel wants it: pages, a power of two of them.
fn ring_bytes(wanted: u32) -> u32 {
    let page = u32::try_from(rustix::param::page_size()).unwrap_or(4096);
    wanted.div_ceil(page).max(1).next_power_of_two() * page
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rings_are_powers_of_two_of_pages() {
        assert_eq!(ring_bytes(1), 4096);
        assert_eq!(ring_bytes(4097), 8192);
        assert_eq!(ring_bytes(3 * 4096), 4 * 4096);
        assert_eq!(ring_bytes(1 << 20), 1 << 20);
    }
}
