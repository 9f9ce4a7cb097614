//! The loaded object: its maps, its probes' specs, its processes, its rate of sampling.

use std::collections::{BTreeMap, HashMap as StdHashMap};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _};

use aya::Ebpf;
use aya::maps::{Array, CgroupArray, HashMap, Map, MapData, PerCpuArray, PerCpuValues};
use aya_log::EbpfLogger;
use tracer_ebpf::{MAX_SITES, MAX_SPECS, ProbeSpec, Process, Sampler, sampling};

use super::compat::{map_data, multi::Multi};
use super::error::BpfError;
use super::sampling::Sampling;

/// The loaded eBPF object.
#[expect(missing_debug_implementations, reason = "aya's logger has none")]
pub struct Object {
    pub(super) ebpf: Ebpf,
    /// The uprobe programs, where they are not aya's.
    pub(super) multi: Option<Multi>,
    pub(super) sampling: Sampling,
    pub(super) has_sampled: bool,
    pub(super) functions_len: u32,
    pub(super) specs_len: u32,
    /// Counts of process images that CPUs have given up, by the images' numbers.
    pub(super) counted: StdHashMap<u32, Counted>,
    pub(super) messages: Option<EbpfLogger<&'static dyn log::Log>>,
}

/// The counts of a process image by one CPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counted {
    /// The number of the image.
    pub process: u32,
    /// Hits of probes in allocators.
    pub hits: u64,
    /// Calls of `free`, where blocks are followed.
    pub frees: u64,
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

    pub(super) fn map_mut(&mut self, name: &str) -> Result<&mut Map, BpfError> {
        self.ebpf
            .map_mut(name)
            .ok_or_else(|| BpfError::Missing(format!("map {name}")))
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
        let mut specs = Array::<&mut MapData, ProbeSpec>::try_from(self.map_mut("SPECS")?).map_err(failed)?;
        specs.set(index, ProbeSpec { index, ..spec }, 0).map_err(failed)?;
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
        self.multi.is_some()
    }

    /// Makes every process of a cgroup a target, and of those below it: its open directory.
    pub fn set_cgroup(&mut self, cgroup: &File) -> Result<(), BpfError> {
        let failed = |error| BpfError::map("CGROUP", error);
        let mut array = CgroupArray::try_from(self.map_mut("CGROUP")?).map_err(failed)?;
        array.set(0, cgroup.as_fd(), 0).map_err(failed)
    }

    /// Makes a process a target, under this number.
    pub fn add_process(&mut self, tgid: u32, number: u32) -> Result<(), BpfError> {
        // The loader knows it already, so there is nothing to announce.
        let process = Process {
            number,
            announced: Process::ANNOUNCED,
            hits: 0,
        };
        let mut processes = HashMap::<&mut MapData, u32, Process>::try_from(self.map_mut("PROCESSES")?)
            .map_err(|error| BpfError::map("PROCESSES", error))?;
        processes
            .insert(tgid, process, 0)
            .map_err(|error| BpfError::map("PROCESSES", error))
    }

    /// Takes an ended process out of the table, unless the id is another process's by now. Returns
    /// its hits.
    pub fn remove_process(&mut self, tgid: u32, number: u32) -> Result<Option<u64>, BpfError> {
        let mut processes = HashMap::<&mut MapData, u32, Process>::try_from(self.map_mut("PROCESSES")?)
            .map_err(|error| BpfError::map("PROCESSES", error))?;
        match processes.get(&tgid, 0) {
            Ok(process) if process.number == number => {
                processes
                    .remove(&tgid)
                    .map_err(|error| BpfError::map("PROCESSES", error))?;
                Ok(Some(process.hits))
            }
            _ => Ok(None),
        }
    }

    /// The table of processes that the kernel side has stopped.
    pub fn stopped_fd(&self) -> Result<std::os::fd::RawFd, BpfError> {
        self.map_fd("STOPPED")
    }

    /// The processes that the kernel side has stopped.
    pub fn stopped(&self) -> Result<Vec<u32>, BpfError> {
        let failed = |error| BpfError::map("STOPPED", error);
        let map = self
            .ebpf
            .map("STOPPED")
            .ok_or_else(|| BpfError::Missing("map STOPPED".to_owned()))?;
        let stopped = HashMap::<&MapData, u32, u32>::try_from(map).map_err(failed)?;
        stopped.keys().collect::<Result<_, _>>().map_err(failed)
    }

    /// Takes a process out of that table.
    pub fn forget_stopped(&mut self, tgid: u32) -> Result<(), BpfError> {
        let failed = |error| BpfError::map("STOPPED", error);
        let mut stopped =
            HashMap::<&mut MapData, u32, u32>::try_from(self.map_mut("STOPPED")?).map_err(failed)?;
        stopped.remove(&tgid).map_err(failed)
    }

    /// Bytes of kernel memory that each map takes, as the kernel accounts for it.
    #[must_use]
    pub fn memory(&self) -> BTreeMap<String, u64> {
        let sizes = self.ebpf.maps().filter_map(|(name, map)| {
            let fd = map_data(map)?.fd().as_fd().as_raw_fd();
            let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).ok()?;
            let line = info.lines().find_map(|line| line.strip_prefix("memlock:"))?;
            Some((name.to_owned(), line.trim().parse().ok()?))
        });
        sizes.collect()
    }

    pub(super) fn map_fd(&self, name: &str) -> Result<std::os::fd::RawFd, BpfError> {
        self.ebpf
            .map(name)
            .and_then(map_data)
            .map(|data| data.fd().as_fd().as_raw_fd())
            .ok_or_else(|| BpfError::Missing(format!("map {name}")))
    }

    /// Changes how much is sampled, from the next call on. Does nothing where `BpfSettings.sampled`
    /// is 0. Fails where an allocation could stand for more than 2^31 others.
    pub fn set_sampling(&mut self, sampling: Sampling) -> Result<(), BpfError> {
        let rate = sampling.rate().ok_or(BpfError::Sampling {
            interval_bytes: sampling.interval_bytes,
            share: sampling.share,
        })?;
        let failed = |error| BpfError::map("RATE", error);
        let mut map = Array::<&mut MapData, u64>::try_from(self.map_mut("RATE")?).map_err(failed)?;
        map.set(0, rate.pack(), 0).map_err(failed)?;
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
