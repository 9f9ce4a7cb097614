//! The ring of a perf event: the records that the kernel writes for it. Layout: `struct
//! perf_event_mmap_page` in the kernel's `include/uapi/linux/perf_event.h`.

use std::ffi::c_void;
use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, Ordering};

use perf_event_open_sys::bindings::perf_event_mmap_page;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// The ring of an event. It keeps the event open.
#[derive(Debug)]
pub(super) struct PerfRing {
    base: *mut c_void,
    len: usize,
    page: usize,
}

impl PerfRing {
    /// Makes a ring of this many pages, a power of two, for an event.
    pub(super) fn map(event: impl AsFd, pages: usize) -> io::Result<Self> {
        let page = rustix::param::page_size();
        let len = page * (1 + pages);
        // SAFETY: a new shared mapping at an address that the kernel chooses.
        let base = unsafe {
            mmap(
                std::ptr::null_mut(),
                len,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                event,
                0,
            )
        }?;
        Ok(Self { base, len, page })
    }

    /// Hands every record to `take`: its type, its misc bits, and its body after the eight bytes of
    /// header.
    pub(super) fn read(&self, mut take: impl FnMut(u32, u16, &[u8])) {
        let control = self.base.cast::<perf_event_mmap_page>();
        // SAFETY: the first page is the kernel's control page. Head and tail are written by one
        // side each, as aligned words, with the barriers that its description asks for.
        let (head, tail) = unsafe {
            (
                AtomicU64::from_ptr(&raw mut (*control).data_head),
                AtomicU64::from_ptr(&raw mut (*control).data_tail),
            )
        };
        let end = head.load(Ordering::Acquire);
        let mut at = tail.load(Ordering::Relaxed);
        let mut record = Vec::new();
        while at < end {
            let mut header = [0; 8];
            self.copy(at, &mut header);
            let [k0, k1, k2, k3, m0, m1, s0, s1] = header;
            let size = usize::from(u16::from_ne_bytes([s0, s1]));
            if size < header.len() {
                // Cannot be: without a size there is no next record. Drop what is there.
                at = end;
                break;
            }
            record.resize(size, 0);
            self.copy(at, &mut record);
            take(
                u32::from_ne_bytes([k0, k1, k2, k3]),
                u16::from_ne_bytes([m0, m1]),
                &record[8..],
            );
            at += size as u64;
        }
        tail.store(at, Ordering::Release);
    }

    /// Copies what begins at a position, which may run past the end of the data and go on at their
    /// beginning.
    fn copy(&self, from: u64, to: &mut [u8]) {
        let data_len = self.len - self.page;
        let Ok(start) = usize::try_from(from % data_len as u64) else {
            return;
        };
        let before_end = to.len().min(data_len - start);
        let (first, rest) = to.split_at_mut(before_end);
        let data = self.base.cast::<u8>();
        // SAFETY: both parts are inside the data pages, and the kernel does not write there before
        // the tail has passed.
        unsafe {
            data.add(self.page + start)
                .copy_to_nonoverlapping(first.as_mut_ptr(), first.len());
            data.add(self.page)
                .copy_to_nonoverlapping(rest.as_mut_ptr(), rest.len());
        }
    }
}

impl Drop for PerfRing {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `map`, and nothing refers to it any more.
        if let Err(error) = unsafe { munmap(self.base, self.len) } {
            log::debug!("failed to unmap a ring: {error}");
        }
    }
}
