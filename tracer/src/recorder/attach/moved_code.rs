//! Code of targets that is in no file any more: probes are of files, and do not see it.

use std::path::PathBuf;

use crate::process::maps;

/// Warns of files whose code these processes have moved to anonymous memory, where `has_allocator`
/// says that probes belong into it.
pub(super) fn warn_of_moved(
    pids: impl IntoIterator<Item = u32>,
    has_allocator: &mut dyn FnMut(&PathBuf, u32) -> bool,
) {
    for pid in pids {
        // One that has ended has no mappings.
        for moved in maps::moved_code(pid).unwrap_or_default() {
            if has_allocator(&moved.path, pid) {
                log::warn!(
                    "process {pid} has moved the code of {} to anonymous memory (as for huge pages): its calls are not \
                     seen",
                    moved.path.display()
                );
            }
        }
    }
}
