//! The map of processes that the kernel side has stopped: for user space, and by raw `bpf(2)` calls
//! that take no memory from an allocator for the forked guard.
//!
//! The kernel side enters a process before it stops it, and stops nobody whom it cannot enter. A
//! map without room is therefore what keeps it from stopping anybody: [`StoppedMap::close`] fills
//! the map with keys that are no process's, until [`StoppedMap::open`] takes them out. Whoever has
//! the descriptor can do that, memtap or its guard.

use std::io;
use std::os::fd::RawFd;

use aya_obj::generated::bpf_cmd;

use super::compat;
use super::compat::sys::{self, ElementAttributes};
use super::error::BpfError;
use super::object::Object;

/// The map's descriptor, which the object keeps open.
pub(crate) fn map_fd(object: &Object) -> Result<RawFd, BpfError> {
    object.map_fd("STOPPED")
}

/// The processes that the kernel side has stopped.
pub(crate) fn processes(object: &Object) -> Result<Vec<u32>, BpfError> {
    let stopped = object.hash_map::<u32, u32>("STOPPED")?;
    let pids: Result<Vec<u32>, _> = stopped.keys().collect();
    let mut pids = pids.map_err(|error| BpfError::map("STOPPED", error))?;
    pids.retain(|pid| is_process(*pid));
    Ok(pids)
}

/// Takes a process out of the map, if the guard has not.
pub(crate) fn remove(object: &mut Object, pid: u32) -> Result<(), BpfError> {
    let mut stopped = object.hash_map_mut::<u32, u32>("STOPPED")?;
    compat::removed(stopped.remove(&pid)).map_err(|error| BpfError::map("STOPPED", error))
}

/// Makes a new element alone (`include/uapi/linux/bpf.h`).
const BPF_NOEXIST: u64 = 1;

/// The first of the keys that fill the map: the kernel has no process ids beyond 2²²
/// (`PID_MAX_LIMIT` of its `include/linux/threads.h`).
const FIRST_FILLER: u32 = 1 << 31;

fn is_process(pid: u32) -> bool {
    pid < FIRST_FILLER
}

/// The map of processes that the kernel side has stopped, by a descriptor that the caller keeps
/// open. Its methods are async-signal-safe.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StoppedMap(RawFd);

impl StoppedMap {
    /// Capacity of the map.
    pub(crate) const MAX_ENTRIES: u32 = 4096;

    /// Times that [`close`](Self::close) takes processes out that were stopped meanwhile.
    const MAX_ROUNDS: u32 = 1000;

    /// Wraps a descriptor of the map.
    pub(crate) const fn new(fd: RawFd) -> Self {
        Self(fd)
    }

    /// Calls `take` with every process in the map. It may remove the process.
    pub(crate) fn for_each(self, mut take: impl FnMut(u32)) {
        let mut next = self.next(None);
        for _ in 0..Self::MAX_ENTRIES {
            let Some(pid) = next else { break };
            // Before it is removed: the kernel begins anew from a key that is not there.
            next = self.next(Some(pid));
            if is_process(pid) {
                take(pid);
            }
        }
    }

    /// Fills the map: the kernel side stops nobody any more. Removes the processes in it and calls
    /// `take` with each; one of them may still be about to stop. Returns false if the kernel does
    /// not let it be filled.
    #[must_use]
    pub(crate) fn close(self, mut take: impl FnMut(u32)) -> bool {
        for _ in 0..Self::MAX_ROUNDS {
            self.for_each(|pid| {
                self.remove(pid);
                take(pid);
            });
            // A process that was entered meanwhile has the room of a filler.
            if (0..Self::MAX_ENTRIES).all(|number| self.insert(FIRST_FILLER + number)) {
                return true;
            }
        }
        false
    }

    /// Empties the map of what has filled it: the kernel side stops processes again.
    pub(crate) fn open(self) {
        for number in 0..Self::MAX_ENTRIES {
            self.remove(FIRST_FILLER + number);
        }
    }

    /// Returns true if the map is filled.
    #[must_use]
    pub(crate) fn is_closed(self) -> bool {
        let (key, mut value) = (FIRST_FILLER, 0u32);
        let key = (&raw const key).expose_provenance() as u64;
        let value = (&raw mut value).expose_provenance() as u64;
        // SAFETY: key and value point to live numbers of the sizes of the map's keys and values.
        unsafe { self.call(bpf_cmd::BPF_MAP_LOOKUP_ELEM, key, value, 0) }.is_ok()
    }

    /// Returns the key after `pid` in the map's order, or the first one.
    fn next(self, pid: Option<u32>) -> Option<u32> {
        let mut next = 0u32;
        let key = pid
            .as_ref()
            .map_or(0, |pid| std::ptr::from_ref(pid).expose_provenance() as u64);
        let value = (&raw mut next).expose_provenance() as u64;
        // SAFETY: key and next key point to live numbers of the size of the map's keys, or the key
        // is null, which the kernel takes for "the first".
        let found = unsafe { self.call(bpf_cmd::BPF_MAP_GET_NEXT_KEY, key, value, 0) };
        found.is_ok().then_some(next)
    }

    /// Removes a process. Returns true if it was in the map.
    pub(crate) fn remove(self, pid: u32) -> bool {
        let key = (&raw const pid).expose_provenance() as u64;
        // SAFETY: the key points to a live number of the size of the map's keys; a removal reads no
        // value.
        unsafe { self.call(bpf_cmd::BPF_MAP_DELETE_ELEM, key, 0, 0) }.is_ok()
    }

    /// Enters a key. Returns true if it is in the map now.
    fn insert(self, key: u32) -> bool {
        let value = 1u32;
        let key = (&raw const key).expose_provenance() as u64;
        let value = (&raw const value).expose_provenance() as u64;
        // SAFETY: key and value point to live numbers of the sizes of the map's keys and values.
        match unsafe { self.call(bpf_cmd::BPF_MAP_UPDATE_ELEM, key, value, BPF_NOEXIST) } {
            Ok(()) => true,
            Err(error) => error.raw_os_error() == Some(libc::EEXIST),
        }
    }

    /// Makes a system call on an element. On a descriptor of anything else than a map the kernel
    /// fails and writes nothing.
    ///
    /// # Safety
    /// The addresses of key and value must be those of what the command reads or writes, of the
    /// sizes of this map's keys and values.
    unsafe fn call(self, command: bpf_cmd, key: u64, value: u64, flags: u64) -> io::Result<()> {
        let mut attributes = ElementAttributes {
            map_fd: self.0.cast_unsigned(),
            padding: 0,
            key,
            value,
            flags,
        };
        // SAFETY: the attributes are those of the command; their addresses are as the caller says.
        unsafe { sys::bpf(command, &mut attributes) }.map(drop)
    }
}
