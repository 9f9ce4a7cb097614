//! The loaded object: its programs, its maps by name, its probes' specs, its settings that change
//! while it runs, its counters.

use std::collections::{BTreeMap, HashMap as StdHashMap};
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, RawFd};

use aya::Pod;
use aya::maps::{Array, HashMap, Map, MapData, MapError, PerCpuArray, PerCpuValues};
use aya_log::EbpfLogger;
use tracer_ebpf::{
    CaptureMode, Counter, HitCounts, MAX_SITES, MAX_SPECS, ProbeScope, ProbeSpec, Sampler, sampling,
};

use super::compat::loader::{LinkKind, LoadedObject, LoadedProgram};
use super::compat::{batch, map_data, multi};
use super::counters::{Counted, Counts};
use super::error::BpfError;
use super::sampling::Sampling;
use crate::settings::AttachBy;

/// The loaded eBPF object.
#[expect(missing_debug_implementations, reason = "aya's logger has none")]
pub struct Object {
    pub(super) loaded: LoadedObject,
    /// The links that uprobe programs are loaded for.
    pub(super) uprobe_links: LinkKind,
    pub(super) sampling: Sampling,
    pub(super) has_sampled: bool,
    pub(super) functions_len: u32,
    pub(super) specs_len: u32,
    /// Counts of process images that CPUs have given up, by the images' numbers.
    pub(super) counted: StdHashMap<u32, Counted>,
    pub(super) messages: Option<EbpfLogger<&'static dyn log::Log>>,
}

/// The most functions that can be probed.
#[expect(clippy::cast_possible_truncation, reason = "a small constant")]
pub(super) const MAX_FUNCTIONS: u32 = MAX_SITES as u32;

impl Object {
    /// Hands the kernel side's messages to the log.
    pub fn flush_messages(&mut self) {
        if let Some(messages) = &mut self.messages {
            messages.flush();
        }
    }

    pub(super) fn map(&self, name: &str) -> Result<&Map, BpfError> {
        self.loaded
            .maps()
            .get(name)
            .ok_or_else(|| BpfError::Missing(format!("map {name}")))
    }

    pub(super) fn map_mut(&mut self, name: &str) -> Result<&mut Map, BpfError> {
        self.loaded
            .map_mut(name)
            .ok_or_else(|| BpfError::Missing(format!("map {name}")))
    }

    pub(super) fn map_fd(&self, name: &str) -> Result<RawFd, BpfError> {
        map_data(self.map(name)?)
            .map(|data| data.fd().as_fd().as_raw_fd())
            .ok_or_else(|| BpfError::Missing(format!("map {name}")))
    }

    pub(super) fn array<V: Pod>(&self, name: &str) -> Result<Array<&MapData, V>, BpfError> {
        Array::try_from(self.map(name)?).map_err(|error| BpfError::map(name, error))
    }

    fn array_mut<V: Pod>(&mut self, name: &str) -> Result<Array<&mut MapData, V>, BpfError> {
        Array::try_from(self.map_mut(name)?).map_err(|error| BpfError::map(name, error))
    }

    pub(super) fn per_cpu_array<V: Pod>(&self, name: &str) -> Result<PerCpuArray<&MapData, V>, BpfError> {
        PerCpuArray::try_from(self.map(name)?).map_err(|error| BpfError::map(name, error))
    }

    pub(super) fn hash_map<K: Pod, V: Pod>(&self, name: &str) -> Result<HashMap<&MapData, K, V>, BpfError> {
        HashMap::try_from(self.map(name)?).map_err(|error| BpfError::map(name, error))
    }

    pub(super) fn hash_map_mut<K: Pod, V: Pod>(
        &mut self,
        name: &str,
    ) -> Result<HashMap<&mut MapData, K, V>, BpfError> {
        HashMap::try_from(self.map_mut(name)?).map_err(|error| BpfError::map(name, error))
    }

    /// Every entry of a hash map, read in batches.
    pub(super) fn entries<K: Pod, V: Pod>(&self, name: &str) -> Result<Vec<(K, V)>, BpfError> {
        batch::read_all(self.map_fd(name)?).map_err(|error| BpfError::map(name, error))
    }

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
            self.uprobe_links = LinkKind::UprobeMulti;
            let loaded = multi::probe()
                .map_err(BpfError::Multi)
                .and_then(|()| names.iter().try_for_each(|name| self.need_uprobe(name)));
            match loaded {
                Err(error) if attach != AttachBy::Multi => {
                    log::debug!("each uprobe is a perf event: {error}");
                }
                loaded => return loaded,
            }
        }
        self.uprobe_links = LinkKind::UprobeEvent;
        names.iter().try_for_each(|name| self.need_uprobe(name))
    }

    /// Loads a uprobe program if it is not loaded yet.
    pub fn need_uprobe(&mut self, name: &'static str) -> Result<(), BpfError> {
        self.loaded.load(name, self.uprobe_links)
    }

    pub(super) fn load_tracepoint(&mut self, name: &'static str) -> Result<(), BpfError> {
        self.loaded.load(name, LinkKind::Tracepoint)
    }

    pub(super) fn program(&self, name: &str) -> Result<&LoadedProgram, BpfError> {
        self.loaded.program(name)
    }

    /// Numbers a function whose calls are to be probed: its hits are counted under that number.
    pub fn add_function(&mut self) -> Result<u32, BpfError> {
        let number = self.functions_len;
        if number >= MAX_FUNCTIONS {
            return Err(BpfError::map("HITS", io::Error::from(io::ErrorKind::StorageFull)));
        }
        self.functions_len += 1;
        Ok(number)
    }

    /// Hands the kernel side the spec of a probe of a function. Returns the cookie that the probe
    /// must carry.
    pub fn add_spec(&mut self, function: u32, spec: ProbeSpec) -> Result<u64, BpfError> {
        let failed = |error| BpfError::map("SPECS", error);
        let index = self.specs_len;
        self.array_mut("SPECS")?
            .set(index, ProbeSpec { index, ..spec }, 0)
            .map_err(failed)?;
        self.specs_len += 1;
        Ok(u64::from(index) << 32 | u64::from(function))
    }

    /// How many further functions can be probed.
    #[must_use]
    pub fn functions_left(&self) -> usize {
        let left = MAX_FUNCTIONS
            .saturating_sub(self.functions_len)
            .min(MAX_SPECS.saturating_sub(self.specs_len));
        usize::try_from(left).unwrap_or(usize::MAX)
    }

    /// Whether many uprobes are one link: then they come and go at once, however many there are.
    #[must_use]
    pub fn attaches_many(&self) -> bool {
        self.uprobe_links == LinkKind::UprobeMulti
    }

    /// Sets what the kernel side captures.
    pub fn set_capture_mode(&mut self, mode: CaptureMode) -> Result<(), BpfError> {
        self.array_mut("CAPTURE_MODE")?
            .set(0, mode.number(), 0)
            .map_err(|error| BpfError::map("CAPTURE_MODE", error))
    }

    /// Sets the links whose hits count, where probes are those of a tree's processes.
    pub fn set_probe_scope(&mut self, scope: ProbeScope) -> Result<(), BpfError> {
        self.array_mut("PROBE_SCOPE")?
            .set(0, scope.number(), 0)
            .map_err(|error| BpfError::map("PROBE_SCOPE", error))
    }

    /// Changes how much is sampled, from the next call on. Does nothing where `BpfSettings.sampled`
    /// is 0. Fails where an allocation could stand for more than 2^31 others.
    pub fn set_sampling(&mut self, sampling: Sampling) -> Result<(), BpfError> {
        let rate = sampling.rate().ok_or(BpfError::Sampling {
            interval_bytes: sampling.interval_bytes,
            share: sampling.share,
        })?;
        self.array_mut("RATE")?
            .set(0, rate.pack(), 0)
            .map_err(|error| BpfError::map("RATE", error))?;
        self.sampling = sampling;
        self.has_sampled |= sampling != Sampling::EVERY;
        Ok(())
    }

    /// How much is sampled now.
    #[must_use]
    pub fn sampling(&self) -> Sampling {
        self.sampling
    }

    /// Whether allocations may have been left out at any time: figures are estimates then.
    #[must_use]
    pub fn has_sampled(&self) -> bool {
        self.has_sampled
    }

    /// Gives each CPU its random numbers: those of a seed, or unforeseeable ones.
    pub fn seed(&mut self, seed: Option<u64>) -> Result<(), BpfError> {
        let failed = |source: std::io::Error| BpfError::map("SAMPLERS", source);
        let cpus = aya::util::nr_cpus().map_err(|(_, error)| failed(error))?;
        let samplers = (0..cpus as u64).map(|cpu| {
            let random = match seed {
                // Far apart: each is a place of its own in one sequence of 2^64 numbers.
                Some(seed) => sampling::random(sampling::random(seed).wrapping_add(cpu)),
                None => unforeseeable()?,
            };
            Ok(Sampler {
                random,
                ..Sampler::default()
            })
        });
        let samplers: Vec<Sampler> = samplers.collect::<std::io::Result<_>>().map_err(failed)?;
        let values = PerCpuValues::try_from(samplers).map_err(failed)?;
        let failed = |error| BpfError::map("SAMPLERS", error);
        let mut map =
            PerCpuArray::<&mut MapData, Sampler>::try_from(self.map_mut("SAMPLERS")?).map_err(failed)?;
        map.set(0, values, 0).map_err(failed)
    }

    /// Reads the counters.
    pub fn counts(&self) -> Result<Counts, BpfError> {
        let counters = self.per_cpu_array::<u64>("COUNTERS")?;
        let slots = (0..Counter::SLOTS).map(|index| {
            let values = counters.get(&index, 0)?;
            Ok(values.iter().sum())
        });
        slots
            .collect::<Result<_, MapError>>()
            .map(Counts::new)
            .map_err(|error| BpfError::map("COUNTERS", error))
    }

    /// Hits of probes in allocators since the start, over all CPUs.
    pub fn hit_counts(&self) -> Result<Box<HitCounts>, BpfError> {
        let failed = |error| BpfError::map("HITS", error);
        let hits = self.per_cpu_array::<HitCounts>("HITS")?;
        let mut total = Box::<HitCounts>::default();
        for counts in hits.get(&0, 0).map_err(failed)?.iter() {
            for (total, count) in total.by_site.iter_mut().zip(counts.by_site) {
                *total += count;
            }
            for (total, count) in total.by_size.iter_mut().zip(counts.by_size) {
                *total += count;
            }
        }
        Ok(total)
    }

    /// Bytes of kernel memory that each map takes, as the kernel accounts for it.
    #[must_use]
    pub fn memory(&self) -> BTreeMap<String, u64> {
        let sizes = self.loaded.maps().iter().filter_map(|(name, map)| {
            let fd = map_data(map)?.fd().as_fd().as_raw_fd();
            let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).ok()?;
            let line = info.lines().find_map(|line| line.strip_prefix("memlock:"))?;
            Some((name.clone(), line.trim().parse().ok()?))
        });
        sizes.collect()
    }
}

/// 64 bits from the kernel.
fn unforeseeable() -> std::io::Result<u64> {
    let mut bytes = [0; 8];
    // SAFETY: a valid buffer and its length.
    let written = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    // So few bytes come whole or not at all (getrandom(2)).
    if written < 0 {
        return Err(std::io::Error::last_os_error());
    }
    Ok(u64::from_ne_bytes(bytes))
}
