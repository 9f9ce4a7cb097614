//! Allocators that a program may load later: libraries whose files can be told by their names. A
//! probe on a file that nobody maps costs nothing, and sees every call of a process that maps it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::linker_cache::LinkerCache;

/// The beginnings of the names of allocators' libraries.
const NAMES: [&str; 3] = ["libjemalloc", "libtcmalloc", "libmimalloc"];

/// The most libraries that are attached to before anybody has mapped them.
const MAX_LIBRARIES: usize = 16;

/// The allocators' libraries that the dynamic loader knows by its cache and by `LD_LIBRARY_PATH`,
/// and those in the folders of these programs. Each file once.
#[must_use]
pub fn that_may_come(programs: &[PathBuf]) -> Vec<PathBuf> {
    let mut found = BTreeMap::new();
    let mut take = |path: PathBuf| {
        if let Ok(file) = path.canonicalize() {
            found.entry(file).or_insert(path);
        }
    };
    let cache = LinkerCache::of_system();
    let cached = cache.all().filter(|path| is_allocator(path));
    cached.map(Path::to_path_buf).for_each(&mut take);
    let searched = std::env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
    let folders = programs.iter().filter_map(|program| program.parent());
    for folder in std::env::split_paths(&searched).chain(folders.map(Path::to_path_buf)) {
        in_folder(&folder).into_iter().for_each(&mut take);
    }
    found.into_keys().take(MAX_LIBRARIES).collect()
}

fn in_folder(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return Vec::new();
    };
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    paths.filter(|path| is_allocator(path)).collect()
}

fn is_allocator(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    // Those for debugging are heard of when they are mapped.
    NAMES.iter().any(|start| name.starts_with(start)) && name.contains(".so") && !name.contains("debug")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_looked_into() {
        let folder = tempfile::tempdir().expect("made");
        for name in ["libmimalloc.so.2", "libtcmalloc_debug.so", "libjemalloc.a", "app"] {
            std::fs::write(folder.path().join(name), "").expect("written");
        }
        let expected = folder
            .path()
            .join("libmimalloc.so.2")
            .canonicalize()
            .expect("there");
        assert!(that_may_come(&[folder.path().join("app")]).contains(&expected));
        assert_eq!(in_folder(folder.path()).len(), 1);
    }
}
