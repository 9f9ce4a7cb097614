//! One walk at each `malloc` of one process, and nothing else: what `cargo xtask bench` measures walks with.
//! Behind the feature `bench`.

use std::num::NonZeroU32;

use tracer_ebpf::{BpfSettings, Counter};

use super::examined::Examined;
use super::start_error::StartError;
use super::tables::Tables;
use super::targets::{FoundIn, no_allocator_in, plans_in};
use crate::bpf::bench::Walker;
use crate::bpf::load::Wanted;
use crate::bpf::{Limits, Object, btf};
use crate::target::lives::Lives;

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
        let mut lives = Lives::default();
        lives.snapshot(pid.get()).map_err(StartError::Proc)?;
        let files = lives.mapped_files(pid.get());
        let mut tables = Tables::new(&object, limits.tables)?;
        tables.make_now(&mut object, &files)?;

        let plans = plans_in(&files, &mut Examined::default(), &mut FoundIn::new());
        let plans = plans.map_err(|advice| no_allocator_in(pid.get(), advice))?;
        // At the first instruction, where the return address is on top of the stack.
        let found = plans.iter().find_map(|plan| {
            let mut probes = plan.probes.iter();
            let probe = probes.find(|probe| probe.symbol == "malloc" && probe.site.pushed_bytes == 0)?;
            Some((plan, probe))
        });
        let (plan, probe) = found.ok_or_else(|| {
            no_allocator_in(pid.get(), "its malloc does not begin with a cheap instruction")
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
