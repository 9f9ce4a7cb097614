//! The summary file, read back.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::{Count, Counts};

/// A summary.
#[derive(Debug, Clone)]
pub struct RecordingSummary {
    /// The whole file.
    pub json: Value,
}

/// The figures of a process.
#[derive(Debug, Clone)]
pub struct ProcessSummary {
    /// The process.
    pub pid: u32,
    /// The number that it has in its own pid namespace.
    pub inner_pid: Option<u32>,
    /// Its name.
    pub comm: String,
    /// True if it had ended.
    pub has_exited: bool,
    /// Its calls to allocators, by function.
    pub functions: Counts,
    /// Its memory-map calls, by function.
    pub regions: BTreeMap<String, Region>,
    /// All of its totals.
    pub totals: Value,
}

/// The totals of one memory-map function.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Region {
    /// Calls, failed ones too.
    pub calls: u64,
    /// Calls that failed.
    pub failed: u64,
    /// Bytes mapped, unmapped, or of the new size; nothing for `brk`.
    pub bytes: u64,
    /// Bytes of the old size; for `mremap`.
    pub old_bytes: u64,
    /// Bytes that the break went up by; for `brk`.
    pub grown_bytes: u64,
    /// Bytes that the break went down by; for `brk`.
    pub shrunk_bytes: u64,
}

impl RecordingSummary {
    /// Reads a file.
    pub fn parse(text: &str) -> Result<Self> {
        let json: Value = serde_json::from_str(text).context("the summary is not JSON")?;
        ensure!(
            json["schema"] == "memtap.summary/1",
            "the summary's schema is {}",
            json["schema"]
        );
        Ok(Self { json })
    }

    /// A number by its path: `/losses/total`.
    pub fn number(&self, path: &str) -> Result<u64> {
        self.json
            .pointer(path)
            .with_context(|| format!("the summary has no {path}"))?
            .as_u64()
            .with_context(|| format!("the summary's {path} is not a whole number"))
    }

    /// Returns whether blocks were followed until they were freed.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.json["settings"]["live"] == true
    }

    /// The calls to allocators, by function.
    pub fn functions(&self) -> Result<Counts> {
        functions(&self.json["totals"])
    }

    /// The memory-map calls, by function.
    pub fn regions(&self) -> Result<BTreeMap<String, Region>> {
        regions(&self.json["totals"])
    }

    /// The processes.
    pub fn processes(&self) -> Result<Vec<ProcessSummary>> {
        let processes = self.json["processes"]
            .as_array()
            .context("the summary has no processes")?;
        processes
            .iter()
            .map(|process| {
                let pid = process["pid"].as_u64().context("a process has no pid")?;
                Ok(ProcessSummary {
                    pid: u32::try_from(pid)?,
                    inner_pid: process["inner_pid"].as_u64().map(u32::try_from).transpose()?,
                    comm: process["comm"]
                        .as_str()
                        .context("a process has no comm")?
                        .to_owned(),
                    has_exited: process["exited"].as_bool().context("a process has no `exited`")?,
                    functions: functions(&process["totals"])?,
                    regions: regions(&process["totals"])?,
                    totals: process["totals"].clone(),
                })
            })
            .collect()
    }

    /// The one process image with this number and name.
    pub fn process(&self, pid: u32, comm: &str) -> Result<ProcessSummary> {
        let mut all = self.processes()?;
        all.retain(|process| process.pid == pid && process.comm == comm);
        ensure!(
            all.len() == 1,
            "the summary has {} processes {comm} {pid}: {}",
            all.len(),
            self.json["processes"]
        );
        all.pop().context("no process")
    }

    /// The named losses, without their total.
    pub fn losses(&self) -> Result<BTreeMap<String, u64>> {
        let losses = self.json["losses"]
            .as_object()
            .context("the summary has no losses")?;
        losses
            .iter()
            .filter(|(name, _)| *name != "total")
            .map(|(name, count)| {
                let count = count
                    .as_u64()
                    .with_context(|| format!("the loss {name} is not a number"))?;
                Ok((name.clone(), count))
            })
            .collect()
    }

    /// Fails if anything was lost, but for records of process life: those are the whole machine's,
    /// and what others do at the same time may leave no room for them.
    pub fn lost_nothing(&self) -> Result<()> {
        ensure!(
            self.number("/losses/total")? == self.number("/losses/life_record_lost")?,
            "something was lost: {}",
            self.json["losses"]
        );
        Ok(())
    }
}

fn functions(totals: &Value) -> Result<Counts> {
    let Some(functions) = totals["functions"].as_object() else {
        return Ok(Counts::new());
    };
    functions
        .iter()
        .filter(|(name, _)| *name != "free")
        .map(|(name, value)| {
            let count = Count {
                calls: required(value, name, "calls")?,
                bytes: required(value, name, "bytes")?,
            };
            Ok((name.clone(), count))
        })
        .collect()
}

fn regions(totals: &Value) -> Result<BTreeMap<String, Region>> {
    let Some(regions) = totals["regions"].as_object() else {
        return Ok(BTreeMap::new());
    };
    ["mmap", "munmap", "mremap", "brk"]
        .into_iter()
        .filter_map(|name| Some((name, regions.get(name)?)))
        .map(|(name, value)| {
            let optional = |field: &str| value[field].as_u64().unwrap_or_default();
            let region = Region {
                calls: required(value, name, "calls")?,
                failed: required(value, name, "failed")?,
                bytes: optional("bytes"),
                old_bytes: optional("old_bytes"),
                grown_bytes: optional("grown_bytes"),
                shrunk_bytes: optional("shrunk_bytes"),
            };
            Ok((name.to_owned(), region))
        })
        .collect()
}

fn required(value: &Value, name: &str, field: &str) -> Result<u64> {
    value[field]
        .as_u64()
        .with_context(|| format!("the summary's {name} has no {field}"))
}
