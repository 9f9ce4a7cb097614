//! Finding allocators, and attaching to them: at the start, and when a file is mapped later.

use std::path::PathBuf;
use std::sync::Arc;

use super::examined::Examined;
use super::recorder::Recorder;
use super::start_error::StartError;
use super::targets::{FoundIn, Missing, no_allocator, no_allocator_in, plans_in, warn_of_hidden};
use crate::bpf::UprobeScope;
use crate::bpf::links::AttachError;
use crate::probe_plan::libraries;
use crate::probe_plan::plan::{self, Found, Plan};
use crate::process::files::MappedFile;
use crate::process::proc_fs;
use crate::settings::{Record, Target};

/// Up to how many named processes have probes of their own, for which others pay nothing. The kernel asks each process's
/// at every hit: one takes 510 ns, one of ten 650, of fifty 1,340, of two hundred 4,700; and it takes the probes of so
/// many off in 10 s and more. Beyond this the probes are in all processes that map the file, and the program looks which
/// process it is in.
const MOST_SCOPES: usize = 16;

impl Recorder {
    pub(super) fn attach_allocators(
        &mut self,
        command_files: &[Arc<MappedFile>],
        settings: &Record,
        scoped: bool,
    ) -> Result<(), StartError> {
        match &settings.target {
            Target::Pids(pids) if scoped => {
                if pids.len() > MOST_SCOPES {
                    log::warn!(
                        "more than {MOST_SCOPES} processes are named: others that map the same libraries pay for a \
                         trap at each call too"
                    );
                }
                let mut found_in = FoundIn::new();
                for pid in pids {
                    let scope = if pids.len() <= MOST_SCOPES {
                        UprobeScope::Process(*pid)
                    } else {
                        UprobeScope::Machine
                    };
                    let files = self.lives.mapped_files(*pid);
                    let mut examined = Examined::default();
                    let plans = plans_in(&files, &self.functions, &mut examined, &mut found_in, &|_| true);
                    self.examined_in.insert(*pid, examined);
                    let plans = plans.map_err(|missing| no_allocator_in(*pid, missing))?;
                    self.probes.prepare(&mut self.object, &plans, self.live)?;
                    for plan in &plans {
                        if scope == UprobeScope::Machine && !self.examined.insert(&plan.file) {
                            continue;
                        }
                        self.asked_for.extend(plan.asked_for.iter().cloned());
                        self.probes
                            .attach(&mut self.object, plan, scope, self.live)
                            .map_err(|error| match error {
                                AttachError::Uprobe { .. } if error.is_gone() => StartError::Ended(*pid),
                                other => other.into(),
                            })?;
                    }
                }
            }
            Target::Command(command) => {
                let program = command_files
                    .first()
                    .map(|file| file.path.clone())
                    .unwrap_or_default();
                let name = command.first().map(|name| name.to_string_lossy().into_owned());
                let plans = plans_in(
                    command_files,
                    &self.functions,
                    &mut self.examined,
                    &mut FoundIn::new(),
                    &|path| path == program,
                );
                match plans {
                    Ok(plans) => self.attach_plans(&plans)?,
                    // The functions that the user named are elsewhere.
                    Err(Missing::Nothing(_)) if !self.probes.listed().is_empty() => {}
                    Err(missing) => return Err(no_allocator(&name.unwrap_or_default(), missing)),
                }
            }
            _ => {
                let mut files = Vec::new();
                let pids = match &settings.target {
                    Target::Pids(pids) => pids.clone(),
                    _ => proc_fs::all().map_err(StartError::Proc)?,
                };
                for pid in pids {
                    files.extend(self.lives.mapped_files(pid));
                }
                let plans = plans_in(
                    &files,
                    &self.functions,
                    &mut self.examined,
                    &mut FoundIn::new(),
                    &|_| false,
                );
                let plans = plans.map_err(|missing| no_allocator("any process", missing))?;
                self.attach_plans(&plans)?;
            }
        }
        Ok(())
    }

    /// Attaches to files for every process.
    fn attach_plans(&mut self, plans: &[Plan]) -> Result<(), StartError> {
        for plan in plans {
            self.asked_for.extend(plan.asked_for.iter().cloned());
            self.probes
                .attach(&mut self.object, plan, UprobeScope::Machine, self.live)?;
        }
        Ok(())
    }

    /// Attaches to the files that the user names with functions of theirs, whoever maps them.
    pub(super) fn attach_named(&mut self, settings: &Record) -> Result<(), StartError> {
        if matches!(settings.target, Target::Pids(_)) && !settings.follow {
            return Ok(());
        }
        for function in &settings.functions.functions {
            let Some(path) = function.file.as_ref().filter(|path| path.is_absolute()) else {
                continue;
            };
            let file = self.lives.files().of_path(path);
            let file = file.map_err(|error| StartError::NoFile {
                path: path.display().to_string(),
                error,
            })?;
            if !self.examined.insert(&file) {
                continue;
            }
            if let Ok(Found::Allocator(plan)) = plan::examine(&file, &self.functions) {
                self.attach_plans(&[plan])?;
            }
        }
        Ok(())
    }

    /// Fails if something that the user asked for was found nowhere.
    pub(super) fn found_all(&self, settings: &Record) -> Result<(), StartError> {
        let prefixes = settings.functions.prefixes.iter();
        let prefixes =
            prefixes.map(|prefix| (prefix.clone(), format!("an allocator with the prefix {prefix}")));
        let functions = settings.functions.functions.iter();
        let functions =
            functions.map(|function| (function.name(), format!("the function {}", function.name())));
        for (name, asked) in prefixes.chain(functions) {
            if !self.asked_for.contains(&name) {
                return Err(StartError::NotFound {
                    asked,
                    files: self.examined.len(),
                });
            }
        }
        Ok(())
    }

    /// Whose probes those of a process are.
    fn scope_of(&self, pid: u32) -> UprobeScope {
        match (&self.target, self.scope) {
            (Target::Pids(pids), UprobeScope::Process(_)) if pids.len() <= MOST_SCOPES => {
                UprobeScope::Process(pid)
            }
            _ => UprobeScope::Machine,
        }
    }

    /// The files that were looked at for these probes.
    fn examined_for(&mut self, scope: UprobeScope) -> &mut Examined {
        match scope {
            UprobeScope::Machine => &mut self.examined,
            UprobeScope::Process(pid) => self.examined_in.entry(pid).or_default(),
        }
    }

    /// Attaches to allocators that a process may load later, so that its calls are seen from the first on.
    pub(super) fn attach_in_wait(&mut self, programs: &[PathBuf]) {
        // One by one they would take their time, and most are never needed.
        if !self.object.attaches_many() {
            return;
        }
        let mut programs = programs.to_vec();
        if let Target::Pids(pids) = &self.target {
            // A process that runs has most of what it will load, and pays for every file whose probes come and go with the
            // windows of a budget.
            if pids.iter().any(|pid| self.scope_of(*pid) != UprobeScope::Machine) {
                return;
            }
            programs.extend(pids.iter().filter_map(|pid| proc_fs::exe(*pid)));
        }
        let scope = UprobeScope::Machine;
        for path in libraries::that_may_come(&programs) {
            let file = match self.lives.files().of_path(&path) {
                Ok(file) => file,
                Err(error) => {
                    log::debug!("{}: {error}", path.display());
                    continue;
                }
            };
            if !self.examined_for(scope).insert(&file) {
                continue;
            }
            let Ok(Found::Allocator(plan)) = plan::examine(&file, &self.functions) else {
                continue;
            };
            match self
                .probes
                .attach_in_wait(&mut self.object, &plan, scope, self.live)
            {
                Err(error) if error.is_gone() => log::debug!("{}: {error}", path.display()),
                Err(error) => log::warn!("{error}: calls in {} are not seen", path.display()),
                Ok(()) => {}
            }
        }
    }

    /// Looks at a file that a process mapped while we record; attaches if it has an allocator.
    pub(super) fn meet(&mut self, file: &Arc<MappedFile>, pid: u32) {
        if self.is_over || !self.heap {
            return;
        }
        self.probes.arrive(file.key);
        let scope = self.scope_of(pid);
        if !self.examined_for(scope).insert(file) {
            return;
        }
        let plan = match plan::examine(file, &self.functions) {
            Ok(Found::Allocator(plan)) => plan,
            Ok(Found::StaticWithoutSymbols) => {
                log::info!(
                    "{} is linked statically and has no symbols: if it has an allocator, it is not traced",
                    file.path.display()
                );
                return;
            }
            Ok(Found::Hidden(allocator)) => {
                warn_of_hidden(&file.path, allocator);
                return;
            }
            _ => return,
        };
        let attached = self.probes.attach(&mut self.object, &plan, scope, self.live);
        match attached {
            // It may come into the cgroup yet.
            Ok(()) if self.cgroup.is_some() && !self.processes.has_pid(pid) => {}
            Ok(()) => log::warn!(
                "{} was met when process {pid} mapped it: its calls before that were not seen",
                file.path.display()
            ),
            Err(error) => log::warn!("{error}: calls in {} are not seen", file.path.display()),
        }
    }
}
