//! The processes that the kernel side knows, and what it has counted of each.

use std::collections::HashMap;
use std::fs::File;
use std::os::fd::AsFd as _;

use aya::maps::CgroupArray;
use tracer_ebpf::{CountWord, Process, ProcessCounts};

use super::compat;
use super::counters::Counted;
use super::error::BpfError;
use super::object::Object;

/// Makes every process of a cgroup a target, and of those below it: its open directory.
pub fn set_cgroup(object: &mut Object, cgroup: &File) -> Result<(), BpfError> {
    let failed = |error| BpfError::map("CGROUP", error);
    let mut array = CgroupArray::try_from(object.map_mut("CGROUP")?).map_err(failed)?;
    array.set(0, cgroup.as_fd(), 0).map_err(failed)
}

/// Makes a process a target, under this number.
pub fn add(object: &mut Object, tgid: u32, number: u32) -> Result<(), BpfError> {
    // The loader knows it already, so there is nothing to announce.
    let process = Process {
        number,
        announced: Process::ANNOUNCED,
        hits: 0,
    };
    object
        .hash_map_mut("PROCESSES")?
        .insert(tgid, process, 0)
        .map_err(|error| BpfError::map("PROCESSES", error))
}

/// Takes an ended process out of the table, unless the id is another process's by now. Returns its
/// hits.
pub fn remove(object: &mut Object, tgid: u32, number: u32) -> Result<Option<u64>, BpfError> {
    let mut processes = object.hash_map_mut::<u32, Process>("PROCESSES")?;
    match processes.get(&tgid, 0) {
        Ok(process) if process.number == number => {
            compat::removed(processes.remove(&tgid)).map_err(|error| BpfError::map("PROCESSES", error))?;
            Ok(Some(process.hits))
        }
        _ => Ok(None),
    }
}

/// The processes in the kernel side's table, by process id.
pub fn listed(object: &Object) -> Result<Vec<(u32, Process)>, BpfError> {
    object.entries("PROCESSES")
}

/// The counts of each process image, as each CPU keeps them for itself, by the image's number. Hits
/// that no CPU could count so are in [`listed`].
pub fn counted(object: &Object) -> Result<HashMap<u32, Counted>, BpfError> {
    let failed = |error| BpfError::map("PROCESS_COUNTS", error);
    let counts = object.per_cpu_array::<ProcessCounts>("PROCESS_COUNTS")?;
    let mut counted = object.counted.clone();
    for cpu in counts.get(&0, 0).map_err(failed)?.iter() {
        for (hits, frees) in cpu.hits.iter().zip(cpu.frees) {
            let (hits, frees) = (CountWord::unpack(*hits), CountWord::unpack(frees));
            add_counted(&mut counted, hits.process, u64::from(hits.count), 0);
            add_counted(&mut counted, frees.process, 0, u64::from(frees.count));
        }
    }
    Ok(counted)
}

/// Takes in what a CPU has counted, and counts anew.
pub fn take_counted(object: &mut Object, new: Counted) {
    add_counted(&mut object.counted, new.process, new.hits, new.frees);
}

/// Adds what was counted of a process; nobody's words have counted nothing.
fn add_counted(counted: &mut HashMap<u32, Counted>, process: u32, hits: u64, frees: u64) {
    if hits == 0 && frees == 0 {
        return;
    }
    let of_process = counted.entry(process).or_insert(Counted {
        process,
        hits: 0,
        frees: 0,
    });
    of_process.hits += hits;
    of_process.frees += frees;
}
