//! A user of the machine who may call sudo, for as long as a test runs.

use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::context::Context;
use crate::run::run;

/// A user with a group of their own and one that is shared; dropping it removes all of it.
#[derive(Debug)]
pub struct SudoUser<'a> {
    context: &'a Context,
    /// The user's name, which is the name of their own group too.
    pub name: String,
    /// The group that the user is a member of besides.
    pub shared_group: String,
    /// The user's id.
    pub uid: u32,
    /// The id of their own group.
    pub gid: u32,
}

impl<'a> SudoUser<'a> {
    /// Makes the user.
    pub fn create(context: &'a Context) -> Result<Self> {
        let name = format!("memtap-test-{}", std::process::id());
        let shared_group = format!("{name}-s");
        // From here on dropping it removes what there is of it.
        let mut user = Self {
            context,
            name,
            shared_group,
            uid: 0,
            gid: 0,
        };
        user.remove();
        user.privileged("groupadd", [&user.shared_group])?;
        let words = [
            "--no-create-home",
            "--user-group",
            "--groups",
            &user.shared_group,
            &user.name,
        ];
        user.privileged("useradd", words)?;
        user.uid = user.id("-u")?;
        user.gid = user.id("-g")?;
        // sudo leaves out files with a dot in their names, and takes none that others can write.
        let rule = format!("{} ALL=(root) NOPASSWD: ALL\n", user.name);
        let draft = tempfile::NamedTempFile::new()?;
        std::fs::write(draft.path(), rule)?;
        let path = user.rule();
        let words = [
            OsStr::new("--mode=0440"),
            "--owner=root".as_ref(),
            "--group=root".as_ref(),
            draft.path().as_os_str(),
            path.as_os_str(),
        ];
        user.privileged("install", words)?;
        Ok(user)
    }

    /// The id of a group.
    pub fn group_id(name: &str) -> Result<u32> {
        let groups = std::fs::read_to_string("/etc/group")?;
        groups
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':')?.split(':').nth(1))
            .with_context(|| format!("there is no group {name}"))?
            .parse()
            .context("a group without a number")
    }

    /// A shell of the user's that runs `script`, with `arguments` as `$1` and so on.
    pub fn shell<S: AsRef<OsStr>>(
        &self,
        directory: &Path,
        script: &str,
        arguments: impl IntoIterator<Item = S>,
    ) -> Command {
        let mut command = self.context.privileged("setpriv");
        command
            .arg(format!("--reuid={}", self.name))
            .arg(format!("--regid={}", self.name))
            .args(["--init-groups", "--", "sh", "-c", script, "sh"])
            .args(arguments)
            .current_dir(directory);
        command
    }

    /// A directory of the user's own, in which nobody else may do anything.
    pub fn directory(&self) -> Result<tempfile::TempDir> {
        let directory = tempfile::tempdir()?;
        self.privileged(
            "chown",
            [
                OsStr::new(&format!("{}:{}", self.uid, self.gid)),
                directory.path().as_os_str(),
            ],
        )?;
        std::fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o700))?;
        Ok(directory)
    }

    fn rule(&self) -> PathBuf {
        Path::new("/etc/sudoers.d").join(&self.name)
    }

    fn id(&self, option: &str) -> Result<u32> {
        let mut command = Command::new("id");
        command.args([option, &self.name]);
        Ok(run(command)?.succeeded()?.stdout.trim().parse()?)
    }

    fn privileged<S: AsRef<OsStr>>(
        &self,
        program: &str,
        arguments: impl IntoIterator<Item = S>,
    ) -> Result<()> {
        let mut command = self.context.privileged(program);
        command.args(arguments);
        run(command)?.succeeded()?;
        Ok(())
    }

    /// Removes what there is, of this run or of one with the same number that was killed.
    fn remove(&self) {
        let script = "rm -f \"$1\"; userdel \"$2\"; groupdel \"$3\"; true";
        let mut command = self.context.privileged("sh");
        command.args(["-c", script, "sh"]).args([
            self.rule().as_os_str(),
            self.name.as_ref(),
            self.shared_group.as_ref(),
        ]);
        if let Err(error) = run(command) {
            eprintln!("suite: failed to remove the user {}: {error:#}", self.name);
        }
    }
}

impl Drop for SudoUser<'_> {
    fn drop(&mut self) {
        self.remove();
    }
}
