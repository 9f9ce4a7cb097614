//! Discovery of allocators: the plans of probes for mapped files, each file once.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};

use tracer_ebpf::FileKey;

use crate::bpf::UprobeScope;
use crate::probe_plan::detect::functions::FunctionTable;
use crate::probe_plan::plan::{self, Found, Plan};
use crate::process::files::MappedFile;
use crate::process::maps::FileId;
use crate::process::proc_fs;
use crate::recorder::targets::StartError;
use crate::settings::Record;
use crate::symbolize;

/// The files that were searched for allocators: by key, the devices that they are on. Probes belong
/// to the inode, and a second one on the same inode would count each call twice.
///
/// The same key on two devices is two files: file systems that make clones, and volumes made from
/// one image, have them. A file seen through overlayfs does not tell its real device: its key
/// decides alone, since containers of one image share their files, and the host may use them too.
#[derive(Debug, Default)]
struct ExaminedFiles(HashMap<FileKey, Vec<Option<u64>>>);

impl ExaminedFiles {
    /// Adds a file. Returns true if it is new.
    fn insert(&mut self, file: &MappedFile) -> bool {
        self.insert_key(file.key, file.device)
    }

    /// The number of files.
    fn len(&self) -> usize {
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

/// A reason for having no plan.
pub(crate) enum NoPlan {
    /// Nothing was found: a reason, and advice.
    Nothing(&'static str),
    /// A program has this allocator linked in, and no symbols.
    Hidden(PathBuf, &'static str),
}

/// The error for a process without an allocator: most likely it has ended meanwhile, and with it
/// its mappings.
pub(crate) fn no_allocator_in(pid: u32, missing: NoPlan) -> StartError {
    if proc_fs::is_running(pid) && !proc_fs::is_exiting(pid) {
        no_allocator(&describe(pid), missing)
    } else {
        StartError::ended(pid)
    }
}

fn describe(pid: u32) -> String {
    let comm = proc_fs::comm(pid).unwrap_or_default();
    let exe = proc_fs::exe(pid).map_or_else(String::new, |exe| format!(", {}", exe.display()));
    format!("{comm} ({pid}{exe})")
}

/// A search for allocators in mapped files.
#[derive(Debug, Default)]
pub(crate) struct AllocatorSearch {
    /// The functions that are looked for.
    functions: Arc<FunctionTable>,
    /// Outcomes of files that a thread examines ahead, as they are ready.
    ahead: Option<Receiver<(FileId, Option<Found>)>>,
    examined: ExaminedFiles,
    /// Files that were examined for the probes of one process alone.
    examined_by_process: HashMap<u32, ExaminedFiles>,
    /// Outcomes by file: processes map the same ones.
    found: HashMap<FileId, Option<Found>>,
}

impl AllocatorSearch {
    /// Returns a search for the known functions and those that the user names.
    pub(in crate::recorder) fn new(settings: &Record) -> Self {
        let functions = FunctionTable::new(settings.functions.clone())
            .with_separate_symbols(symbolize::debug_file_of, &settings.symbols.debug_directories);
        Self {
            functions: Arc::new(functions),
            ..Self::default()
        }
    }

    /// Examines files on a thread, ahead of the plans: the kernel verifies the programs meanwhile.
    pub(in crate::recorder) fn examine_ahead(&mut self, files: Vec<Arc<MappedFile>>) {
        let (sender, receiver) = channel();
        let functions = Arc::clone(&self.functions);
        std::thread::spawn(move || {
            let mut seen = HashSet::new();
            for file in files.iter().filter(|file| seen.insert(file.id)) {
                if sender.send((file.id, examined(file, &functions))).is_err() {
                    return;
                }
            }
        });
        self.ahead = Some(receiver);
    }

    /// The outcome for a file, which is examined if it was not before.
    fn outcome(&mut self, file: &Arc<MappedFile>) -> Option<&Found> {
        if let Some(outcomes) = self.ahead.take() {
            self.found.extend(outcomes);
        }
        let functions = &self.functions;
        let found = self.found.entry(file.id);
        found.or_insert_with(|| examined(file, functions)).as_ref()
    }

    /// Notes that a file is examined for probes of this scope. Returns true if it is the first
    /// time.
    pub(super) fn is_new(&mut self, file: &MappedFile, scope: UprobeScope) -> bool {
        let examined = match scope {
            UprobeScope::Machine => &mut self.examined,
            UprobeScope::Process(pid) => self.examined_by_process.entry(pid).or_default(),
        };
        examined.insert(file)
    }

    /// Examines a file that may come, or takes its outcome.
    pub(super) fn examine(&mut self, file: &Arc<MappedFile>) -> Option<Found> {
        self.outcome(file).cloned()
    }

    /// Examines a file that was mapped during the recording: one of the same identity may have held
    /// another program before.
    pub(super) fn examine_afresh(&self, file: &Arc<MappedFile>) -> Option<Found> {
        examined(file, &self.functions)
    }

    /// The number of files that were examined for probes of all processes.
    pub(super) fn files(&self) -> usize {
        self.examined.len()
    }

    /// Plans the probes of files that were not examined before; without any, returns the reason. A
    /// program whose allocator cannot be found is an error where it `is_wanted`, else a warning.
    pub(crate) fn plans_in(
        &mut self,
        files: &[Arc<MappedFile>],
        scope: UprobeScope,
        is_wanted: &dyn Fn(&Path) -> bool,
    ) -> Result<Vec<Plan>, NoPlan> {
        let mut plans = Vec::new();
        let mut advice = "it maps no file with functions of a known allocator; name them by `--allocator PREFIX` or \
                          `--symbol NAME=SHAPE`, or use `--events region`, which needs none";
        for file in files {
            if !self.is_new(file, scope) {
                continue;
            }
            match self.outcome(file) {
                Some(Found::Allocator(plan)) => plans.push(plan.clone()),
                Some(Found::StaticWithoutSymbols) => {
                    advice = "it is linked statically and has no symbols; install its debug package (or say by --debug-dir \
                              where its symbols are), use a build that is not stripped, name functions by \
                              `--symbol FILE:OFFSET=SHAPE`, or use `--events region`, which needs none";
                }
                Some(Found::Hidden(allocator)) if is_wanted(&file.path) => {
                    return Err(NoPlan::Hidden(file.path.clone(), allocator));
                }
                Some(Found::Hidden(allocator)) => warn_of_hidden(&file.path, allocator),
                Some(Found::Forwards) => {
                    log::info!(
                        "{}: it hands its calls on to another allocator, whose functions are traced",
                        file.path.display()
                    );
                }
                Some(Found::Nothing) | None => {}
            }
        }
        if plans.is_empty() {
            Err(NoPlan::Nothing(advice))
        } else {
            Ok(plans)
        }
    }
}

fn examined(file: &Arc<MappedFile>, functions: &FunctionTable) -> Option<Found> {
    plan::examine(file, functions)
        .inspect_err(|error| log::debug!("{error}"))
        .ok()
}

/// Warns that a program's allocator cannot be found.
pub(crate) fn warn_of_hidden(path: &Path, allocator: &'static str) {
    log::warn!(
        "{}; its calls are not seen",
        StartError::Hidden {
            path: path.display().to_string(),
            allocator
        }
    );
}

/// The error for a place without an allocator.
pub(crate) fn no_allocator(place: &str, missing: NoPlan) -> StartError {
    match missing {
        NoPlan::Nothing(advice) => StartError::NoAllocator {
            place: place.to_owned(),
            advice,
        },
        NoPlan::Hidden(path, allocator) => StartError::Hidden {
            path: path.display().to_string(),
            allocator,
        },
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
        let mut examined = ExaminedFiles::default();
        assert!(examined.insert_key(key(1), Some(5)));
        assert!(!examined.insert_key(key(1), Some(5)));
        assert!(examined.insert_key(key(2), Some(5)));
        assert!(examined.insert_key(key(1), Some(6)));
    }

    #[test]
    fn overlays_show_files_that_are_known() {
        let mut examined = ExaminedFiles::default();
        assert!(examined.insert_key(key(1), Some(5)));
        assert!(!examined.insert_key(key(1), None));
        assert!(examined.insert_key(key(2), None));
        assert!(!examined.insert_key(key(2), Some(5)));
        assert!(!examined.insert_key(key(2), None));
    }
}
