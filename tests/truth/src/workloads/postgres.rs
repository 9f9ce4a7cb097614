//! postgres in its single-user mode, on a cluster that is made for it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use super::{ScratchDirectory, TracedJob, copied};
use crate::job::{Restored, become_user};
use test_support::{privilege, process, workspace};

/// The directory in which Debian has one for each version.
const VERSIONS: &str = "/usr/lib/postgresql";

/// It refuses to run as root, and becomes this user.
const USER: &str = "postgres";

/// A few statements, each a line of the input.
pub(crate) fn prepare(scratch: &ScratchDirectory) -> Result<Option<TracedJob>> {
    let Some(programs) = programs() else {
        return Ok(None);
    };
    let user = privilege::is_root().then_some(USER);
    // The server's user writes here.
    if let Some(user) = user {
        let mut chown = Command::new("chown");
        chown.arg(user).arg(scratch.path());
        process::output(&mut chown, "give the cluster's directory to its user")?;
    }
    let (cluster, copy) = (scratch.path().join("cluster"), scratch.path().join("copy"));
    let initdb = programs.join("initdb");
    let mut command = match user.map(become_user) {
        None => workspace::untouched(&initdb),
        Some([program, rest @ ..]) => {
            let mut command = workspace::untouched(Path::new(&program));
            command.args(rest).arg(&initdb);
            command
        }
    };
    command
        .current_dir(scratch.path())
        .args([
            "--no-sync",
            "--auth=trust",
            "--encoding=UTF8",
            "--locale=C",
            "--username=postgres",
            "-D",
        ])
        .arg(&copy);
    process::output(&mut command, "create a cluster")?;

    let arguments = [
        "--single".into(),
        "-D".into(),
        cluster.clone().into_os_string(),
        "-c".into(),
        "fsync=off".into(),
        "template1".into(),
    ];
    let mut job =
        TracedJob::new::<std::ffi::OsString>(&programs.join("postgres"), arguments, scratch.path())?;
    job.input = Some(copied(scratch, "postgres.sql")?);
    job.user = user;
    job.restored = Some(Restored {
        directory: cluster,
        copy,
    });
    Ok(Some(job))
}

/// The directory of the newest version that is here.
fn programs() -> Option<PathBuf> {
    let versions = fs::read_dir(VERSIONS).ok()?;
    let mut versions: Vec<PathBuf> = versions
        .flatten()
        .map(|version| version.path().join("bin"))
        .filter(|programs| programs.join("postgres").is_file() && programs.join("initdb").is_file())
        .collect();
    versions.sort();
    versions.pop()
}
