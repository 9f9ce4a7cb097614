//! Reading a hash map in batches: `BPF_MAP_LOOKUP_BATCH` (Linux 5.6), which aya does not have.

use std::io;
use std::os::fd::RawFd;

use aya::Pod;

/// `BPF_MAP_LOOKUP_BATCH` of `enum bpf_cmd` in the kernel's `include/uapi/linux/bpf.h`.
const BPF_MAP_LOOKUP_BATCH: libc::c_long = 24;

/// The `batch` member of `union bpf_attr`, same file.
#[repr(C)]
struct BatchAttributes {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

/// Entries that one call takes: some hundred kilobytes for the largest values here.
const BATCH: u32 = 4096;

/// Every entry of a hash map. Entries that change meanwhile are read as of before or after.
pub(in crate::bpf) fn read_all<K: Pod, V: Pod>(map: RawFd) -> io::Result<Vec<(K, V)>> {
    let mut entries = Vec::new();
    let mut capacity = BATCH;
    // The position is the kernel's own; for hash maps a bucket's number.
    let mut position = 0u64;
    let mut started = false;
    loop {
        let mut keys: Vec<K> = Vec::with_capacity(capacity as usize);
        let mut values: Vec<V> = Vec::with_capacity(capacity as usize);
        let mut next = 0u64;
        let mut attributes = BatchAttributes {
            in_batch: if started { (&raw const position) as u64 } else { 0 },
            out_batch: (&raw mut next) as u64,
            keys: keys.as_mut_ptr() as u64,
            values: values.as_mut_ptr() as u64,
            count: capacity,
            map_fd: u32::try_from(map).map_err(io::Error::other)?,
            elem_flags: 0,
            flags: 0,
        };
        // SAFETY: the attributes are those of the command, and the buffers have room for `count`
        // entries of the map's own key and value types.
        let status = unsafe {
            libc::syscall(
                libc::SYS_bpf,
                BPF_MAP_LOOKUP_BATCH,
                &raw mut attributes,
                size_of::<BatchAttributes>(),
            )
        };
        let error = (status != 0).then(io::Error::last_os_error);
        match error.as_ref().and_then(io::Error::raw_os_error) {
            None | Some(libc::ENOENT) => {}
            // One bucket has more entries than fit: nothing was taken.
            Some(libc::ENOSPC) => {
                capacity *= 2;
                continue;
            }
            _ => return Err(error.unwrap_or_else(|| io::Error::other("unknown"))),
        }
        let count = attributes.count.min(capacity) as usize;
        // SAFETY: the kernel filled `count` keys and values, and any bytes are valid for `Pod`
        // types.
        unsafe {
            keys.set_len(count);
            values.set_len(count);
        }
        entries.extend(keys.into_iter().zip(values));
        if error.is_some() {
            return Ok(entries);
        }
        position = next;
        started = true;
    }
}
