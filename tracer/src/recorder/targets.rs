//! Who is traced, found on this machine, and where their allocators are.

use std::collections::HashMap;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::examined::Examined;
use super::start_error::StartError;
use crate::privileges::User;
use crate::probe_plan::functions::Table;
use crate::probe_plan::plan::{self, Found, Plan};
use crate::probe_plan::{loader, roots};
use crate::process::cgroup::Cgroup;
use crate::process::files::MappedFile;
use crate::process::history::ProcessHistory;
use crate::process::launch::{self, HeldCommand};
use crate::process::maps::FileId;
use crate::process::proc_fs;
use crate::settings::{Record, Target};

/// What was asked for, found on this machine.
pub(super) struct Targets {
    pub(super) pids: Vec<u32>,
    pub(super) held: Option<HeldCommand>,
    pub(super) cgroup: Option<Cgroup>,
    pub(super) command_name: String,
    command_files: Vec<PathBuf>,
}

impl Targets {
    pub(super) fn find(settings: &Record) -> Result<Self, StartError> {
        let mut targets = Self {
            pids: Vec::new(),
            held: None,
            cgroup: None,
            command_name: String::new(),
            command_files: Vec::new(),
        };
        match &settings.target {
            Target::Pids(pids) => {
                for pid in pids {
                    if proc_fs::group_of(*pid) != Some(*pid) || !proc_fs::is_running(*pid) {
                        return Err(StartError::NoProcess(*pid));
                    }
                }
                targets.pids.clone_from(pids);
            }
            Target::All => {}
            Target::Comm(name) => targets.pids = proc_fs::named(name).map_err(StartError::Proc)?,
            Target::Cgroup(path) => {
                let cgroup = Cgroup::open(path)?;
                targets.pids = cgroup.processes()?;
                targets.cgroup = Some(cgroup);
            }
            Target::Command(command) => targets.hold(command)?,
        }
        Ok(targets)
    }

    fn hold(&mut self, command: &[OsString]) -> Result<(), StartError> {
        let Some(name) = command.first() else {
            return Err(StartError::Command {
                command: String::new(),
                error: io::Error::other("there is no command to run"),
            });
        };
        self.command_name = name.to_string_lossy().into_owned();
        let failed = |error| StartError::Command {
            command: self.command_name.clone(),
            error,
        };
        let user = User::behind_sudo();
        let program = loader::program(name).map_err(failed)?;
        if !loader::is_executable(&program) {
            return Err(failed(io::Error::from(io::ErrorKind::PermissionDenied)));
        }
        self.command_files = loader::files_of(&program, user.as_ref());
        // Wrappers execute what their arguments name (`env`, `timeout`, `sh -c`): tables that are made now are there
        // from its first call on.
        for program in loader::programs_in(&command[1..]) {
            self.command_files
                .extend(loader::files_of(&program, user.as_ref()));
        }
        // `chroot DIR …` changes to a root with libraries of its own.
        self.command_files.extend(roots::files_in(&command[1..]));
        let held = launch::hold(command, user.as_ref()).map_err(failed)?;
        self.pids = vec![held.pid];
        self.held = Some(held);
        Ok(())
    }

    /// The programs of a command, those that its arguments name too, and their libraries.
    pub(super) fn command_paths(&self) -> &[PathBuf] {
        &self.command_files
    }

    pub(super) fn command_files(&self, lives: &mut ProcessHistory) -> Vec<Arc<MappedFile>> {
        let open = |path: &PathBuf| match lives.files().of_path(path) {
            Ok(file) => Some(file),
            Err(error) => {
                log::debug!("{}: {error}", path.display());
                None
            }
        };
        self.command_files.iter().filter_map(open).collect()
    }
}

/// Why there are no plans.
pub(super) enum Missing {
    /// Nothing was found: why, and what to do.
    Nothing(&'static str),
    /// A program has this allocator linked in, and no symbols.
    Hidden(PathBuf, &'static str),
}

/// No allocator was found in a process: most likely it has ended meanwhile, and with it its mappings.
pub(super) fn no_allocator_in(pid: u32, missing: Missing) -> StartError {
    if proc_fs::is_running(pid) {
        no_allocator(&describe(pid), missing)
    } else {
        StartError::Ended(pid)
    }
}

fn describe(pid: u32) -> String {
    let comm = proc_fs::comm(pid).unwrap_or_default();
    let exe = proc_fs::exe(pid).map_or_else(String::new, |exe| format!(", {}", exe.display()));
    format!("{comm} ({pid}{exe})")
}

/// What was found in files: processes map the same ones.
pub(super) type FoundIn = HashMap<FileId, Option<Found>>;

/// The allocators in files, each file once; without any, why. A program whose allocator cannot be found is an error where
/// it `is_wanted`; of others it is said.
pub(super) fn plans_in(
    files: &[Arc<MappedFile>],
    table: &Table,
    examined: &mut Examined,
    found_in: &mut FoundIn,
    is_wanted: &dyn Fn(&Path) -> bool,
) -> Result<Vec<Plan>, Missing> {
    let mut plans = Vec::new();
    let mut advice = "it maps no file with functions of a known allocator; name them by `--allocator PREFIX` or \
                      `--symbol NAME=SHAPE`, or use `--events region`, which needs none";
    for file in files {
        if !examined.insert(file) {
            continue;
        }
        let found = found_in.entry(file.id).or_insert_with(|| {
            plan::examine(file, table)
                .inspect_err(|error| log::debug!("{error}"))
                .ok()
        });
        match found {
            Some(Found::Allocator(plan)) => plans.push(plan.clone()),
            Some(Found::StaticWithoutSymbols) => {
                advice = "it is linked statically and has no symbols; install its debug package (or say by --debug-dir \
                          where its symbols are), use a build that is not stripped, name functions by \
                          `--symbol FILE:OFFSET=SHAPE`, or use `--events region`, which needs none";
            }
            Some(Found::Hidden(allocator)) if is_wanted(&file.path) => {
                return Err(Missing::Hidden(file.path.clone(), allocator));
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
        Err(Missing::Nothing(advice))
    } else {
        Ok(plans)
    }
}

/// Says that a program's allocator cannot be found.
pub(super) fn warn_of_hidden(path: &Path, allocator: &'static str) {
    log::warn!(
        "{}; its calls are not seen",
        StartError::Hidden {
            path: path.display().to_string(),
            allocator
        }
    );
}

pub(super) fn no_allocator(place: &str, missing: Missing) -> StartError {
    match missing {
        Missing::Nothing(advice) => StartError::NoAllocator {
            place: place.to_owned(),
            advice,
        },
        Missing::Hidden(path, allocator) => StartError::Hidden {
            path: path.display().to_string(),
            allocator,
        },
    }
}
