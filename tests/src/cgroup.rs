//! A cgroup of a test's own.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context as _, Result, ensure};

use crate::run::{LIMIT, eventually, run};
use crate::{Context, Fixture};

/// Cgroups that this process has made.
static MADE: AtomicU32 = AtomicU32::new(0);

/// A cgroup of version 2. Dropping it ends what is in it, and removes it with all below it.
#[derive(Debug)]
pub struct TestCgroup<'a> {
    context: &'a Context,
    path: PathBuf,
    name: String,
}

impl<'a> TestCgroup<'a> {
    /// Makes one.
    pub fn create(context: &'a Context) -> Result<Self> {
        let root = mount_point().context("no cgroup2 is mounted")?;
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let name = format!("memtap-suite-{}-{number}", std::process::id());
        let cgroup = Self {
            context,
            path: root.join(&name),
            name,
        };
        cgroup.below("")?;
        Ok(cgroup)
    }

    /// Makes one below it. Returns its directory.
    pub fn below(&self, name: &str) -> Result<PathBuf> {
        let path = self.path.join(name);
        let mut command = self.context.privileged("mkdir");
        command.arg("-p").arg(&path);
        run(command)?.succeeded()?;
        Ok(path)
    }

    /// Its directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its path from the root of the hierarchy on.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Moves a process into it, or, with a `name`, into the one of that name below it.
    pub fn take(&self, pid: u32, name: &str) -> Result<()> {
        enter(self.context, pid, &self.path.join(name))
    }

    /// Moves a process to the root of the hierarchy.
    pub fn leave(&self, pid: u32) -> Result<()> {
        enter(self.context, pid, self.path.parent().context("no root")?)
    }

    /// A command that runs a fixture in it, or, with a `name`, in the one of that name below it.
    #[must_use]
    pub fn command(&self, name: &str, fixture: &Fixture) -> Command {
        let mut command = self.context.privileged("sh");
        let procs = self.path.join(name).join("cgroup.procs");
        command
            .args(["-c", "echo 0 >\"$0\" && exec \"$@\""])
            .arg(procs)
            .arg(&fixture.path);
        command
    }

    /// Ends what is in it, and removes it with all below it.
    pub fn remove(&self) -> Result<()> {
        let script = "for procs in $(find \"$0\" -name cgroup.procs); do kill -9 $(cat $procs) 2>/dev/null; done; \
                      find \"$0\" -depth -type d -exec rmdir {} +";
        let is_gone = eventually(LIMIT, || {
            if self.path.exists() {
                let mut command = self.context.privileged("sh");
                command.args(["-c", script]).arg(&self.path);
                run(command)?;
            }
            Ok(!self.path.exists())
        })?;
        ensure!(is_gone, "{} cannot be removed", self.path.display());
        Ok(())
    }
}

impl Drop for TestCgroup<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.remove() {
            eprintln!("suite: {error:#}");
        }
    }
}

fn enter(context: &Context, pid: u32, cgroup: &Path) -> Result<()> {
    let mut command = context.privileged("sh");
    command
        .args(["-c", "echo \"$1\" >\"$0\""])
        .arg(cgroup.join("cgroup.procs"))
        .arg(pid.to_string());
    run(command)?.succeeded()?;
    Ok(())
}

/// Returns where the hierarchy of version 2 is mounted so that it can be written to.
#[must_use]
pub(crate) fn mount_point() -> Option<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").ok()?;
    mounts.lines().find_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let (path, kind, options) = (fields.next()?, fields.next()?, fields.next()?);
        let is_writable = options.split(',').any(|option| option == "rw");
        (kind == "cgroup2" && is_writable).then(|| PathBuf::from(path))
    })
}
