//! Giving back the room of unwind tables that no process needs any more.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use tracer_ebpf::FileKey;

use super::tables::{State, Tables, Use};
use crate::bpf::Object;
use crate::bpf::load::BpfError;

/// How long a table stays after the last process that had its file mapped: programs are often run again.
const LINGER: Duration = Duration::from_secs(5);

impl Tables {
    /// Gives back the room of tables whose last process has been gone for a while. `mapped` are the files of the
    /// processes that run.
    pub(super) fn release(
        &mut self,
        object: &mut Object,
        mapped: impl Iterator<Item = FileKey>,
    ) -> Result<(), BpfError> {
        let mapped: HashSet<FileKey> = mapped.collect();
        let now = Instant::now();
        let mut over = Vec::new();
        for (key, state) in &mut self.files {
            let State::Placed { use_, .. } = state else {
                continue;
            };
            match use_ {
                _ if mapped.contains(key) => *use_ = Use::Now,
                Use::Now => *use_ = Use::Over(now),
                Use::Over(since) if now.duration_since(*since) >= LINGER => over.push(*key),
                Use::Not | Use::Over(_) => {}
            }
        }
        self.remove(object, &over)
    }

    /// Gives back the room of all tables that no running process needs. False if there are none.
    pub(super) fn release_all(&mut self, object: &mut Object) -> Result<bool, BpfError> {
        let is_over = |state: &State| {
            matches!(
                state,
                State::Placed {
                    use_: Use::Over(_),
                    ..
                }
            )
        };
        let over = self.files.iter().filter(|(_, state)| is_over(state));
        let over: Vec<FileKey> = over.map(|(key, _)| *key).collect();
        self.remove(object, &over)?;
        Ok(!over.is_empty())
    }

    /// Takes tables away from the kernel side, and their room once no walk can be looking at them.
    fn remove(&mut self, object: &mut Object, keys: &[FileKey]) -> Result<(), BpfError> {
        if keys.is_empty() {
            return Ok(());
        }
        for key in keys {
            object.remove_file_table(*key)?;
        }
        self.maps.change_generation();
        wait_for_walks();
        for key in keys {
            if let Some(State::Placed { placement, .. }) = self.files.remove(key) {
                self.released += 1;
                self.arena.remove(placement);
            }
        }
        log::debug!(
            "{} unwind tables given back: their processes have ended",
            keys.len()
        );
        Ok(())
    }
}

/// Returns when every walk that had begun has ended. Walks are in RCU read-side sections, as all programs of uprobes and
/// tracepoints are, and this is how user space waits for those.
pub(super) fn wait_for_walks() {
    const MEMBARRIER_CMD_GLOBAL: libc::c_int = 1;
    // SAFETY: a system call without pointers.
    if unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) } != 0 {
        // Kernels with CPUs that have no tick refuse. A walk takes microseconds.
        std::thread::sleep(Duration::from_millis(100));
    }
}
