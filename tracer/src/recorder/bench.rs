//! Parts that are measured alone, behind the feature `bench`: one walk at each `malloc` of one
//! process, for `cargo xtask bench`; and probes that are detached and reattached.

use std::num::NonZeroU32;
use std::sync::Arc;

use tracer_ebpf::{BpfSettings, Counter};

use super::attach::{AllocatorSearch, AttachedUprobes, NoPlan, ProbeChoice, no_allocator_in};
use super::targets::StartError;
use super::unwind_tables::TableBatch;
use super::unwind_tables::table_set::UnwindTables;
use crate::bpf::bench::{self, Walker};
use crate::bpf::load::Wanted;
use crate::bpf::{Attached, Object, UprobeScope, btf};
use crate::probe_plan::plan::Plan;
use crate::process::files::MappedFile;
use crate::process::history::ProcessHistory;
use crate::settings::{AttachBy, Limits, Probing};
use crate::unwind::Capacity;

/// An attached walker; dropping it detaches the probe.
#[expect(missing_debug_implementations, reason = "the object has none")]
pub struct Walks {
    // Detached before the maps go that it writes to.
    _attached: Attached,
    object: Object,
    walker: Walker,
    // The tables' maps are written through it, and its files stay open with it.
    _tables: UnwindTables,
}

/// The outcome of walks.
#[derive(Debug, Clone, Copy)]
pub struct WalkOutcome {
    /// Hits of the probe.
    pub hits: u64,
    /// Frames of all hits together.
    pub frames: u64,
    /// Walks that did not reach the stack's end.
    pub failed: u64,
    /// Walks that were answered from the walk cache.
    pub remembered: u64,
}

impl Walks {
    /// Makes the tables of a running process's files and attaches the walker to its `malloc`.
    pub fn start(pid: NonZeroU32, walker: Walker) -> Result<Self, StartError> {
        let limits = Limits::default();
        let kernel = btf::Btf::of_kernel().map_err(|error| StartError::Bpf(error.into()))?;
        let settings = BpfSettings {
            max_size: u64::MAX,
            unwind: BpfSettings::UNWIND_TABLES,
            own_tgid: std::process::id(),
            offsets: kernel
                .kernel_offsets()
                .map_err(|error| StartError::Bpf(error.into()))?,
            ..BpfSettings::default()
        };
        let wanted = Wanted {
            tables: true,
            ..Wanted::default()
        };
        let mut object = Object::load(&settings, &limits, wanted)?;
        let mut lives = ProcessHistory::default();
        lives.snapshot(pid.get()).map_err(StartError::Proc)?;
        let files = lives.mapped_files(pid.get());
        let mut tables = UnwindTables::new(&object, Capacity::of_bytes(limits.unwind_bytes))?;
        tables.place_batch(&mut object, &TableBatch::begin(files.clone()))?;

        let plans = plans_of(pid.get(), &files)?;
        // At the first instruction, where the return address is on top of the stack.
        let found = plans.iter().find_map(|plan| {
            let mut probes = plan.probes.iter();
            let probe = probes.find(|probe| probe.symbol == "malloc" && probe.is_at_return_address())?;
            Some((plan, probe))
        });
        let (plan, probe) = found.ok_or_else(|| {
            no_allocator_in(
                pid.get(),
                NoPlan::Nothing("its malloc does not begin with a cheap instruction"),
            )
        })?;
        let attached = bench::attach_walker(
            &mut object,
            walker,
            &plan.file.open_path(),
            probe.file_offset,
            pid,
        )?;
        Ok(Self {
            _attached: attached,
            object,
            walker,
            _tables: tables,
        })
    }

    /// The outcome of the walks so far.
    pub fn outcome(&mut self) -> Result<WalkOutcome, StartError> {
        let counts = bench::walk_counts(&self.object)?;
        let frames = match self.walker {
            // One place calls malloc, so there is one stack; several would mean that figures are
            // mixed.
            Walker::KernelKept => match bench::kernel_stack_lengths(&self.object)?[..] {
                [length] => counts.hits * length as u64,
                _ => 0,
            },
            _ => counts.frames,
        };
        Ok(WalkOutcome {
            hits: counts.hits,
            frames,
            failed: counts.failed,
            remembered: self.object.counts()?.events(Counter::StackRemembered),
        })
    }
}

/// The probes of a process's allocator, blocks followed, to be detached and reattached.
#[expect(missing_debug_implementations, reason = "the object has none")]
pub struct Switch {
    // Detached before the maps go that they write to.
    uprobes: AttachedUprobes,
    object: Object,
}

impl Switch {
    /// Attaches to the allocator that a process has mapped. Nothing is recorded.
    pub fn start(pid: u32, attach: AttachBy, scope: UprobeScope) -> Result<Self, StartError> {
        let settings = BpfSettings {
            max_size: u64::MAX,
            live: 1,
            own_tgid: std::process::id(),
            ..BpfSettings::default()
        };
        let wanted = Wanted {
            heap: true,
            live: true,
            attach,
            ..Wanted::default()
        };
        let mut object = Object::load(&settings, &Limits::default(), wanted)?;
        let mut lives = ProcessHistory::default();
        lives.snapshot(pid).map_err(StartError::Proc)?;
        let files = lives.mapped_files(pid);
        let plans = plans_of(pid, &files)?;
        let mut uprobes = AttachedUprobes::new(ProbeChoice {
            probing: Probing::Two,
            live: true,
            counts_frees: false,
        });
        for plan in &plans {
            uprobes.attach(&mut object, plan, &[scope])?;
        }
        Ok(Self { uprobes, object })
    }

    /// Detaches all.
    pub fn detach(&mut self) {
        self.uprobes.detach();
    }

    /// Reattaches them.
    pub fn reattach(&mut self) -> Result<(), StartError> {
        Ok(self.uprobes.reattach(&mut self.object)?)
    }
}

/// The plans for the allocators that a process maps.
fn plans_of(pid: u32, files: &[Arc<MappedFile>]) -> Result<Vec<Plan>, StartError> {
    let plans = AllocatorSearch::default().plans_in(files, UprobeScope::Machine, &|_| false);
    plans.map_err(|missing| no_allocator_in(pid, missing))
}
