//! The files that were looked through for allocators, each once: probes are the inode's, and a second one on the same
//! inode would count each call twice.

use std::collections::HashMap;

use tracer_ebpf::FileKey;

use crate::process::files::MappedFile;

/// By the files' keys, the devices that they are on. The same key on two devices is two files: file systems that make
/// clones, and volumes made from one image, have them. A file seen through overlayfs does not tell the device that it
/// really is on: its key decides alone, since containers of one image share their files, and the host may use them too.
#[derive(Debug, Default)]
pub(super) struct Examined(HashMap<FileKey, Vec<Option<u64>>>);

impl Examined {
    /// Takes in a file. True if it is none of those before.
    pub(super) fn insert(&mut self, file: &MappedFile) -> bool {
        self.insert_key(file.key, file.device)
    }

    /// How many files that were.
    pub(super) fn len(&self) -> usize {
        self.0.values().map(Vec::len).sum()
    }

    fn insert_key(&mut self, key: FileKey, device: Option<u64>) -> bool {
        let devices = self.0.entry(key).or_default();
        let is_new = !devices
            .iter()
            .any(|known| known.is_none() || device.is_none() || *known == device);
        if is_new {
            devices.push(device);
        }
        is_new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(inode: u64) -> FileKey {
        FileKey {
            inode,
            size_bytes: 10,
            modified_s: 20,
        }
    }

    #[test]
    fn a_file_is_new_once() {
        let mut examined = Examined::default();
        assert!(examined.insert_key(key(1), Some(5)));
        assert!(!examined.insert_key(key(1), Some(5)));
        assert!(examined.insert_key(key(2), Some(5)));
        assert!(examined.insert_key(key(1), Some(6)));
    }

    #[test]
    fn overlays_show_files_that_are_known() {
        let mut examined = Examined::default();
        assert!(examined.insert_key(key(1), Some(5)));
        assert!(!examined.insert_key(key(1), None));
        assert!(examined.insert_key(key(2), None));
        assert!(!examined.insert_key(key(2), Some(5)));
        assert!(!examined.insert_key(key(2), None));
    }
}
