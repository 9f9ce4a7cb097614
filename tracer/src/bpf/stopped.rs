//! The map of processes that the kernel side has stopped: for user space, and by raw `bpf(2)` calls
//! that take no memory from an allocator for the forked guard.

use std::os::fd::RawFd;

use super::error::BpfError;
use super::object::Object;

/// The map's descriptor, which the object keeps open.
pub(crate) fn map_fd(object: &Object) -> Result<RawFd, BpfError> {
    object.map_fd("STOPPED")
}

/// The processes that the kernel side has stopped.
pub(crate) fn processes(object: &Object) -> Result<Vec<u32>, BpfError> {
    let stopped = object.hash_map::<u32, u32>("STOPPED")?;
    let pids: Result<_, _> = stopped.keys().collect();
    pids.map_err(|error| BpfError::map("STOPPED", error))
}

/// Takes a process out of the map.
pub(crate) fn remove(object: &mut Object, pid: u32) -> Result<(), BpfError> {
    object
        .hash_map_mut::<u32, u32>("STOPPED")?
        .remove(&pid)
        .map_err(|error| BpfError::map("STOPPED", error))
}

/// Commands of `bpf(2)`, from `enum bpf_cmd` in `include/uapi/linux/bpf.h`.
const BPF_MAP_DELETE_ELEM: libc::c_int = 3;
const BPF_MAP_GET_NEXT_KEY: libc::c_int = 4;

/// The part of `union bpf_attr` that commands on map elements read.
#[repr(C)]
struct MapElementAttr {
    map_fd: u32,
    padding: u32,
    key: u64,
    next_key: u64,
}

/// The map of processes that the kernel side has stopped, by a descriptor that the caller keeps
/// open. Its methods are async-signal-safe.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StoppedMap(RawFd);

impl StoppedMap {
    /// Capacity of the map.
    pub(crate) const MAX_ENTRIES: u32 = 4096;

    /// Wraps a descriptor of the map.
    pub(crate) const fn new(fd: RawFd) -> Self {
        Self(fd)
    }

    /// Returns the process after `pid` in the map's order, or the first one.
    pub(crate) fn next(self, pid: Option<u32>) -> Option<u32> {
        let mut next = 0u32;
        let attr = MapElementAttr {
            map_fd: self.0.cast_unsigned(),
            padding: 0,
            key: pid
                .as_ref()
                .map_or(0, |pid| std::ptr::from_ref(pid).expose_provenance() as u64),
            next_key: (&raw mut next).expose_provenance() as u64,
        };
        // SAFETY: the attribute has the size that is passed; its key and next key point to live
        // numbers of the size of the map's keys. On a descriptor of anything else the kernel fails
        // and writes nothing.
        let result = unsafe {
            libc::syscall(
                libc::SYS_bpf,
                BPF_MAP_GET_NEXT_KEY,
                &raw const attr,
                size_of::<MapElementAttr>(),
            )
        };
        (result == 0).then_some(next)
    }

    /// Removes a process. A process that is not in the map is left alone.
    pub(crate) fn remove(self, pid: u32) {
        let attr = MapElementAttr {
            map_fd: self.0.cast_unsigned(),
            padding: 0,
            key: (&raw const pid).expose_provenance() as u64,
            next_key: 0,
        };
        // SAFETY: the attribute has the size that is passed, and its key points to a live number of
        // the size of the map's keys.
        unsafe {
            libc::syscall(
                libc::SYS_bpf,
                BPF_MAP_DELETE_ELEM,
                &raw const attr,
                size_of::<MapElementAttr>(),
            )
        };
    }
}
