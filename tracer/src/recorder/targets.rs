//! The targets that the user asked for, found on this machine, and the errors that keep a recording
//! from starting.

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::process::Child;
use std::sync::Arc;

use super::process_table::ProcessTable;
use crate::bpf::links::AttachError;
use crate::bpf::load::BpfError;
use crate::bpf::{Object, processes};
use crate::privileges::User;
use crate::probe_plan::detect::dynamic_linker::DynamicLinker;
use crate::probe_plan::detect::{libraries, loader, roots};
use crate::process::cgroup::{Cgroup, CgroupError};
use crate::process::files::MappedFile;
use crate::process::history::NewInScope;
use crate::process::launch::{self, HeldCommand};
use crate::process::proc_fs;
use crate::settings::{Probed, Record, Target};

/// The processes, the cgroup or the command that was asked for.
pub(super) struct Targets {
    /// Processes that exist already; a command's own is held.
    pub(super) pids: Vec<u32>,
    /// The cgroup whose processes are targets.
    pub(super) cgroup: Option<Cgroup>,
    /// The command, held before its first instruction.
    pub(super) command: LaunchedCommand,
    command_paths: Vec<PathBuf>,
}

/// A launched command that waits, if there is one.
#[derive(Debug, Default)]
pub(super) struct LaunchedCommand {
    held: Option<HeldCommand>,
    name: String,
}

impl LaunchedCommand {
    /// Returns true if there is a command that waits.
    pub(super) fn is_held(&self) -> bool {
        self.held.is_some()
    }

    /// Lets the command run. Returns nothing if there is none, or if it runs already.
    pub(super) fn release(&mut self) -> Result<Option<Child>, StartError> {
        let Some(held) = self.held.take() else {
            return Ok(None);
        };
        held.release().map(Some).map_err(|error| StartError::Command {
            command: self.name.clone(),
            error,
        })
    }
}

/// The processes that are targets, or may become targets.
#[derive(Debug)]
pub(super) struct TargetScope {
    target: Target,
    cgroup: Option<Cgroup>,
}

impl TargetScope {
    /// Returns the scope of a recording.
    pub(super) fn new(target: Target, cgroup: Option<Cgroup>) -> Self {
        Self { target, cgroup }
    }

    /// Makes every process of the cgroup a target on the kernel side.
    pub(super) fn enter_cgroup(&self, object: &mut Object) -> Result<(), BpfError> {
        match &self.cgroup {
            Some(cgroup) => processes::set_cgroup(object, cgroup.directory()),
            None => Ok(()),
        }
    }

    /// Returns true if processes that are no targets yet may be in scope.
    pub(super) fn is_open(&self) -> bool {
        self.target == Target::All || self.cgroup.is_some()
    }

    /// Returns true if a process is a target by its cgroup.
    pub(super) fn takes_in(&self, pid: u32) -> bool {
        self.cgroup.as_ref().is_some_and(|cgroup| cgroup.has(pid))
    }

    /// The processes of the cgroup, where there is one.
    pub(super) fn cgroup_processes(&self) -> Vec<u32> {
        let processes = self.cgroup.as_ref().map(Cgroup::processes);
        // It may have been removed.
        processes.and_then(Result::ok).unwrap_or_default()
    }

    /// Returns true if every process is a target.
    pub(super) fn is_everything(&self) -> bool {
        self.target == Target::All
    }

    /// Returns true if processes are targets by their cgroup.
    pub(super) fn is_cgroup(&self) -> bool {
        self.cgroup.is_some()
    }

    /// Returns true if there may be targets later, though there is none now.
    pub(super) fn waits_for_more(&self) -> bool {
        match &self.cgroup {
            Some(cgroup) => cgroup.exists(),
            None => matches!(self.target, Target::All | Target::Comm(_)),
        }
    }

    /// Returns true if the targets are named or launched, and do not come and go.
    pub(super) fn is_fixed(&self) -> bool {
        matches!(self.target, Target::Pids(_) | Target::Command(_))
    }
}

/// The processes that come into the scope of these settings by themselves.
pub(super) fn new_in_scope(settings: &Record) -> NewInScope {
    match settings.target {
        Target::All => NewInScope::All,
        Target::Cgroup(_) => NewInScope::Children,
        _ if settings.follow => NewInScope::Children,
        _ => NewInScope::None,
    }
}

/// The most named processes that have probes of their own, for which others pay nothing. The kernel
/// asks each process's probe at every hit: one takes 510 ns, one of ten 650, of fifty 1,340, of two
/// hundred 4,700; and detaching so many takes 10 s and more. Beyond this the probes are in all
/// processes that map the file, and the program checks the process.
pub(super) const MAX_SCOPES: usize = 16;

/// Returns true if the targets are few named processes, which have probes of their own, and stay
/// the only ones.
pub(super) fn has_process_scopes(settings: &Record) -> bool {
    let are_few = matches!(&settings.target, Target::Pids(pids) if pids.len() <= MAX_SCOPES);
    settings.probed == Probed::Tree && !settings.follow && are_few
}

/// Returns true if targets may come, each of which gets probes of its own.
pub(super) fn has_tree(settings: &Record) -> bool {
    let may_come = settings.follow || !matches!(settings.target, Target::Pids(_));
    settings.heap && settings.probed == Probed::Tree && may_come
}

/// The files that a command will map first: its program, the programs that its arguments name,
/// their libraries.
#[derive(Debug, Default)]
pub(super) struct CommandFiles {
    /// Those of them that can be opened.
    pub(super) files: Vec<Arc<MappedFile>>,
    /// Libraries of allocators that the targets may load later.
    pub(super) speculative: Vec<Arc<MappedFile>>,
}

impl Targets {
    /// Finds the targets, and launches a command.
    pub(super) fn find(settings: &Record) -> Result<Self, StartError> {
        let mut targets = Self {
            pids: Vec::new(),
            cgroup: None,
            command: LaunchedCommand::default(),
            command_paths: Vec::new(),
        };
        match &settings.target {
            Target::Pids(pids) => {
                for pid in pids {
                    if proc_fs::group_of(*pid) != Some(*pid) || !proc_fs::is_running(*pid) {
                        return Err(if proc_fs::is_hidden(*pid) {
                            StartError::Unseen(*pid)
                        } else {
                            StartError::NoProcess(*pid)
                        });
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
            Target::Command(command) => targets.launch(command)?,
        }
        Ok(targets)
    }

    fn launch(&mut self, command: &[OsString]) -> Result<(), StartError> {
        let Some(name) = command.first() else {
            return Err(StartError::Command {
                command: String::new(),
                error: io::Error::other("there is no command to run"),
            });
        };
        self.command.name = name.to_string_lossy().into_owned();
        let failed = |error| StartError::Command {
            command: self.command.name.clone(),
            error,
        };
        let user = User::behind_sudo();
        let program = loader::program(name).map_err(failed)?;
        if !loader::is_executable(&program) {
            return Err(failed(io::Error::from(io::ErrorKind::PermissionDenied)));
        }
        let linker = DynamicLinker::of_system(user.as_ref());
        self.command_paths = loader::files_of(&program, &linker);
        // Wrappers execute the program that their arguments name (`env`, `timeout`, `sh -c`):
        // tables that are made now are there from its first call on.
        for program in loader::programs_in(&command[1..]) {
            self.command_paths.extend(loader::files_of(&program, &linker));
        }
        // `chroot DIR …` changes to a root with libraries of its own.
        self.command_paths.extend(roots::files_in(&command[1..]));
        let held = launch::hold(command, user.as_ref()).map_err(failed)?;
        self.pids = vec![held.pid];
        self.command.held = Some(held);
        Ok(())
    }

    /// Notes the mappings of running processes.
    pub(super) fn snapshot(&self, target: &Target, processes: &mut ProcessTable) -> Result<(), StartError> {
        let all;
        let pids = match target {
            Target::Pids(pids) => pids,
            Target::Command(_) => return Ok(()),
            Target::All | Target::Comm(_) | Target::Cgroup(_) => {
                all = proc_fs::all().map_err(StartError::Proc)?;
                &all
            }
        };
        for pid in pids {
            if let Err(error) = processes.history_mut().snapshot(*pid)
                && self.pids.contains(pid)
                && matches!(target, Target::Pids(_))
            {
                log::debug!("process {pid}: {error}");
                return Err(if error.kind() == io::ErrorKind::PermissionDenied {
                    StartError::NotPermitted { pid: *pid, error }
                } else {
                    StartError::ended(*pid)
                });
            }
        }
        Ok(())
    }

    /// Opens the files that the command will map first.
    pub(super) fn command_files(&self, settings: &Record, processes: &mut ProcessTable) -> CommandFiles {
        let mut open = |path: &PathBuf| match processes.history_mut().files().of_path(path) {
            Ok(file) => Some(file),
            Err(error) => {
                log::debug!("{}: {error}", path.display());
                None
            }
        };
        let files = self.command_paths.iter().filter_map(&mut open).collect();
        let may_come = self.libraries_that_may_come(settings);
        CommandFiles {
            files,
            speculative: may_come.iter().filter_map(open).collect(),
        }
    }

    /// The libraries of allocators that a target may load later.
    fn libraries_that_may_come(&self, settings: &Record) -> Vec<PathBuf> {
        // A running process has most of what it will load, and pays for every file whose probes
        // come and go with the windows of a budget.
        if !settings.heap || has_process_scopes(settings) {
            return Vec::new();
        }
        let mut programs = self.command_paths.clone();
        if let Target::Pids(pids) = &settings.target {
            programs.extend(pids.iter().filter_map(|pid| proc_fs::exe(*pid)));
        }
        libraries::that_may_come(&programs)
    }
}

/// An error at the start, with advice.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A process that was named does not exist.
    #[error("there is no process {0}: it may have ended; `ps -e` lists what runs")]
    NoProcess(u32),
    /// A process ended while the probes were being attached.
    #[error("process {0} ended while memtap was attaching to it: nothing was recorded")]
    Ended(u32),
    /// The command cannot be run.
    #[error("failed to run {command}: {}", why_not_run(.error))]
    Command {
        /// Its name.
        command: String,
        /// The reason: part of the message.
        error: io::Error,
    },
    /// Nothing to attach to.
    #[error("no allocator found in {place}: {advice}")]
    NoAllocator {
        /// The place that was searched.
        place: String,
        /// The reason, and advice.
        advice: &'static str,
    },
    /// A process exists, and cannot be seen.
    #[error(
        "process {0} runs, and /proc does not show it to this user: run memtap as root, with CAP_SYS_PTRACE (/proc may be \
         mounted with hidepid)"
    )]
    Unseen(u32),
    /// A process cannot be read.
    #[error(
        "failed to read the mappings of process {pid}: {error}: run memtap as root of the machine, with CAP_SYS_PTRACE"
    )]
    NotPermitted {
        /// The process.
        pid: u32,
        /// The reason: part of the message.
        error: io::Error,
    },
    /// A program has an allocator that cannot be found.
    #[error(
        "{path} has {allocator} linked in, and no symbols by which its functions could be found: install its debug package (or \
         say by --debug-dir where its symbols are), use a build that is not stripped, or name functions by \
         `--symbol {path}:OFFSET=SHAPE`"
    )]
    Hidden {
        /// The program.
        path: String,
        /// The allocator.
        allocator: &'static str,
    },
    /// A function or a prefix that was named is nowhere.
    #[error(
        "failed to find {asked} in any of the {files} files with code that the target maps; `nm FILE` and `nm -D FILE` list \
         a file's functions, and `--symbol FILE:NAME=SHAPE` names a file that is loaded later"
    )]
    NotFound {
        /// The user's words.
        asked: String,
        /// The number of files that were searched.
        files: usize,
    },
    /// A file that was named cannot be read.
    #[error("failed to open {path}: {error}")]
    NoFile {
        /// The file.
        path: String,
        /// The reason: part of the message.
        error: io::Error,
    },
    /// Calls were to be followed by one probe each, and none can be.
    #[error("no allocator function was found that one probe can follow: `-v` says why; use --probes auto")]
    NoSingle,
    /// The kernel refuses its events of process life.
    #[error(
        "failed to listen to process life (perf_event_open): {}", why_no_events(.0)
    )]
    Sideband(io::Error),
    /// The kernel side.
    #[error(transparent)]
    Bpf(#[from] BpfError),
    /// A probe.
    #[error(transparent)]
    Attach(#[from] AttachError),
    /// The cgroup that was named cannot be traced.
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    /// `/proc` cannot be read.
    #[error("failed to read /proc: {0}")]
    Proc(io::Error),
}

impl StartError {
    /// The error for a process that seems to have ended.
    pub(super) fn ended(pid: u32) -> Self {
        if proc_fs::is_hidden(pid) {
            Self::Unseen(pid)
        } else {
            Self::Ended(pid)
        }
    }
}

/// An error of the kernel's events, and advice.
fn why_no_events(error: &io::Error) -> String {
    let advice = match error.kind() {
        io::ErrorKind::PermissionDenied => {
            "run memtap as root of the machine: root of a user namespace, or of a container without CAP_PERFMON, may not"
        }
        _ => "the kernel must be built with CONFIG_PERF_EVENTS",
    };
    format!("{error}; {advice}")
}

/// The meaning of an error of executing a command, and advice.
fn why_not_run(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "there is no such program; check the path, or PATH".to_owned(),
        io::ErrorKind::PermissionDenied => {
            "it is not executable for this user; `chmod +x` makes a program executable".to_owned()
        }
        _ => error.to_string(),
    }
}
