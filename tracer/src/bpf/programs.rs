//! The object's programs: loading them, when they are wanted.

use std::collections::BTreeMap;

use aya::programs::{TracePoint, UProbe};

use super::compat::multi::Multi;
use super::error::BpfError;
use super::object::Object;
use crate::settings::AttachBy;

/// The beginning of a call: at a function's entry, or inside it where the size is known.
pub const CALL_BEGIN: &str = "call_begin";
/// A call inside its function, where the size and the result are known.
pub const CALL_COMPLETE: &str = "call_complete";
/// A call inside its function, where the result is known.
pub const CALL_RESULT: &str = "call_result";
/// The return of a call.
pub const CALL_RETURN: &str = "call_return";
/// The call of a function that gives a block back.
pub const CALL_FREE: &str = "call_free";
/// The entry of a memory-map system call.
pub const REGION_ENTER: &str = "region_enter";
/// Its return.
pub const REGION_EXIT: &str = "region_exit";
/// Nothing, at an instruction.
pub const COST_ENTRY: &str = "cost_entry";
/// Nothing, at a function's return.
pub const COST_RETURN: &str = "cost_return";

impl Object {
    /// Prepares uprobe programs for the best links that there are, and loads them: all of these
    /// `names`, or, where the rest can `wait` until they are attached, the first.
    pub(super) fn load_uprobes(
        &mut self,
        names: &[&'static str],
        attach: AttachBy,
        wait: bool,
    ) -> Result<(), BpfError> {
        let names = if wait {
            names.get(..1).unwrap_or(names)
        } else {
            names
        };
        if attach != AttachBy::Perf && !names.is_empty() {
            match Multi::new(&self.ebpf).and_then(|mut multi| {
                names.iter().try_for_each(|name| multi.load(name))?;
                Ok(multi)
            }) {
                Ok(multi) => {
                    self.multi = Some(multi);
                    return Ok(());
                }
                Err(error) if attach == AttachBy::Multi => return Err(error),
                Err(error) => log::debug!("each uprobe is a perf event: {error}"),
            }
        }
        names.iter().try_for_each(|name| self.need_uprobe(name))
    }

    /// Loads a uprobe program if it is not loaded yet.
    pub fn need_uprobe(&mut self, name: &'static str) -> Result<(), BpfError> {
        if let Some(multi) = &mut self.multi {
            return multi.load(name);
        }
        if self.uprobe(name)?.fd().is_ok() {
            return Ok(());
        }
        self.load_uprobe(name)
    }

    pub(super) fn load_uprobe(&mut self, name: &str) -> Result<(), BpfError> {
        let loaded = self.uprobe(name)?.load();
        loaded.map_err(|error| BpfError::program(name, &error))
    }

    pub(super) fn load_tracepoint(&mut self, name: &str) -> Result<(), BpfError> {
        let loaded = self.tracepoint(name)?.load();
        loaded.map_err(|error| BpfError::program(name, &error))
    }

    pub(super) fn uprobe(&mut self, name: &str) -> Result<&mut UProbe, BpfError> {
        let program = self.ebpf.program_mut(name);
        program
            .and_then(|program| program.try_into().ok())
            .ok_or_else(|| BpfError::Missing(format!("uprobe program {name}")))
    }

    pub(super) fn tracepoint(&mut self, name: &str) -> Result<&mut TracePoint, BpfError> {
        let program = self.ebpf.program_mut(name);
        program
            .and_then(|program| program.try_into().ok())
            .ok_or_else(|| BpfError::Missing(format!("tracepoint program {name}")))
    }

    /// How many instructions the verifier went through for each loaded program; nothing for those
    /// of which the kernel does not tell (before Linux 5.16).
    #[must_use]
    pub fn verified_instructions(&self) -> BTreeMap<String, Option<u32>> {
        let programs = self.ebpf.programs().filter_map(|(name, program)| {
            let info = program.info().ok()?;
            Some((name.to_owned(), info.verified_instruction_count()))
        });
        let multi = self.multi.iter().flat_map(Multi::verified_instructions);
        programs
            .chain(multi.map(|(name, count)| (name.to_owned(), count)))
            .collect()
    }
}
