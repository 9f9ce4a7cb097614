//! What is measured alone, behind the feature `bench`: one walk at each `malloc` of one process, for `cargo xtask bench`;
//! and probes that are taken off and put back in.

use std::num::NonZeroU32;
use std::sync::Arc;

use tracer_ebpf::{BpfSettings, Counter};

use super::examined::Examined;
use super::probes::Probes;
use super::start_error::StartError;
use super::tables::Tables;
use super::targets::{FoundIn, Missing, no_allocator_in, plans_in};
use crate::bpf::bench::Walker;
use crate::bpf::links::AttachBy;
use crate::bpf::load::Wanted;
use crate::bpf::{Limits, Object, UprobeScope, btf};
use crate::probe_plan::functions::Table;
use crate::probe_plan::plan::Plan;
use crate::process::files::MappedFile;
use crate::process::history::ProcessHistory;
use crate::settings::Probing;
use crate::unwind::Capacity;

/// A walker that is attached; dropping it takes the probe off.
#[expect(missing_debug_implementations, reason = "the object has none")]
pub struct Walks {
    object: Object,
    walker: Walker,
    // The tables' maps are written through it, and its files stay open with it.
    _tables: Tables,
}

/// What the walks came to.
#[derive(Debug, Clone, Copy)]
pub struct Outcome {
    /// Hits of the probe.
    pub hits: u64,
    /// Frames of all hits together.
    pub frames: u64,
    /// Walks that did not reach the stack's end.
    pub failed: u64,
    /// Walks that were answered from memory.
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
        let mut tables = Tables::new(&object, Capacity::of_bytes(limits.unwind_bytes))?;
        tables.make_now(&mut object, &files)?;

        let plans = plans_of(pid.get(), &files)?;
        // At the first instruction, where the return address is on top of the stack.
        let found = plans.iter().find_map(|plan| {
            let mut probes = plan.probes.iter();
            let probe = probes.find(|probe| probe.symbol == "malloc" && probe.site.pushed_bytes == 0)?;
            Some((plan, probe))
        });
        let (plan, probe) = found.ok_or_else(|| {
            no_allocator_in(
                pid.get(),
                Missing::Nothing("its malloc does not begin with a cheap instruction"),
            )
        })?;
        object.attach_walker(walker, &plan.file.open_path(), probe.file_offset, pid)?;
        Ok(Self {
            object,
            walker,
            _tables: tables,
        })
    }

    /// What the walks came to so far.
    pub fn outcome(&mut self) -> Result<Outcome, StartError> {
        let counts = self.object.walk_counts()?;
        let frames = match self.walker {
            // One place calls malloc, so there is one stack; several would mean that figures are mixed.
            Walker::KernelKept => match self.object.kernel_stack_lengths()?[..] {
                [length] => counts.hits * length as u64,
                _ => 0,
            },
            _ => counts.frames,
        };
        Ok(Outcome {
            hits: counts.hits,
            frames,
            failed: counts.failed,
            remembered: self.object.counts()?.events(Counter::StackRemembered),
        })
    }
}

/// The probes of a process's allocator, blocks followed, to be taken off and put back in.
#[expect(missing_debug_implementations, reason = "the object has none")]
pub struct Switch {
    // They go before the maps that they write to.
    probes: Probes,
    object: Object,
}

impl Switch {
    /// Attaches to the allocator that a process has mapped. Nothing is taken in.
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
        let mut probes = Probes::new(Probing::Two);
        for plan in &plans {
            probes.attach(&mut object, plan, scope, true)?;
        }
        Ok(Self { probes, object })
    }

    /// Takes all off.
    pub fn take_off(&mut self) {
        self.probes.take_off();
    }

    /// Puts them back in.
    pub fn put_back(&mut self) -> Result<(), StartError> {
        Ok(self.probes.put_back(&mut self.object)?)
    }
}

/// Where the allocators are that a process maps.
fn plans_of(pid: u32, files: &[Arc<MappedFile>]) -> Result<Vec<Plan>, StartError> {
    let plans = plans_in(
        files,
        &Table::default(),
        &mut Examined::default(),
        &mut FoundIn::new(),
        &|_| false,
    );
    plans.map_err(|missing| no_allocator_in(pid, missing))
}
