//! Owners of files: the user who called sudo, and others who would have them somewhere else.

use std::ffi::OsStr;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt, symlink};
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use memtap_tests::{Context, Finished, Need, SudoUser, run};

use super::{RECORD, are_all_there, ended_with, names, shell};
use crate::case::{Case, case};

pub(crate) const CASES: &[Case] = &[
    case("output_files::users_own", &[Need::Sudo], users_own),
    case(
        "output_files::supplementary_group",
        &[Need::Sudo],
        supplementary_group,
    ),
    case("output_files::closed_directory", &[Need::Sudo], closed_directory),
    case(
        "output_files::planted_links",
        &[Need::Sudo, Need::Python],
        planted_links,
    ),
    case("output_files::foreign_name", &[Need::Sudo], foreign_name),
];

/// Runs `sudo memtap …` as the user.
fn sudo(user: &SudoUser, context: &Context, directory: &Path, arguments: &str) -> Result<Finished> {
    let script = format!("umask 027; exec sudo -n -- \"$1\" {arguments}");
    run(user.shell(directory, &script, [&context.memtap]))
}

/// Files are the user's, with the user's group and umask.
fn users_own(context: &Context) -> Result<()> {
    let user = SudoUser::create(context)?;
    let directory = user.directory()?;
    for _ in 0..2 {
        // The second time in place of those that are there.
        ended_with(sudo(&user, context, directory.path(), RECORD)?, 0)?;
        for metadata in are_all_there(directory.path())? {
            let found = (metadata.uid(), metadata.gid(), metadata.mode() & 0o7777);
            ensure!(
                found == (user.uid, user.gid, 0o640),
                "owner, group and mode are {found:?} of {}",
                user.uid
            );
        }
    }
    Ok(())
}

/// A directory that only members of another of the user's groups may write to.
fn supplementary_group(context: &Context) -> Result<()> {
    let user = SudoUser::create(context)?;
    let directory = tempfile::tempdir()?;
    let group = SudoUser::group_id(&user.shared_group)?;
    std::os::unix::fs::chown(directory.path(), None, Some(group))?;
    for (mode, expected) in [(0o770, user.gid), (0o2770, group)] {
        std::fs::set_permissions(directory.path(), PermissionsExt::from_mode(mode))?;
        ended_with(sudo(&user, context, directory.path(), RECORD)?, 0)?;
        for metadata in are_all_there(directory.path())? {
            let found = (metadata.uid(), metadata.gid());
            ensure!(
                found == (user.uid, expected),
                "with {mode:o} owner and group are {found:?}"
            );
        }
    }
    Ok(())
}

/// Root does not write for the user where they may not: neither a new file nor an old one.
fn closed_directory(context: &Context) -> Result<()> {
    let user = SudoUser::create(context)?;
    let closed = tempfile::tempdir()?;
    std::fs::set_permissions(closed.path(), PermissionsExt::from_mode(0o755))?;
    let old = closed.path().join("old.svg");
    std::fs::write(&old, "root's")?;
    let directory = user.directory()?;
    for name in ["new.svg", "old.svg"] {
        let path = closed.path().join(name);
        let arguments = format!("record -o {} -- touch ran", path.display());
        let finished = ended_with(sudo(&user, context, directory.path(), &arguments)?, 1)?;
        let lines = finished.stderr_lines();
        ensure!(lines.len() == 1, "{} lines", lines.len());
        for word in [path.to_str().context("a plain path")?, &user.name, "denied"] {
            ensure!(lines[0].contains(word), "{word} is not named: {}", lines[0]);
        }
        ensure!(!directory.path().join("ran").exists(), "the command ran");
    }
    ensure!(names(closed.path())? == ["old.svg"], "something was made");
    ensure!(std::fs::read_to_string(&old)? == "root's", "it was overwritten");
    Ok(())
}

/// Plants links to a file of root's at every name that could be told beforehand: of the output, and
/// of a temporary file beside it that has the number of a process which is yet to come.
const PLANT: &str = "
import os, sys
last = int(open('/proc/loadavg').read().split()[4])
for pid in range(last, last + 400):
    for name in ('.out.svg.%d.part', 'out.svg.%d.part'):
        os.symlink(sys.argv[1], name % pid)
os.symlink(sys.argv[1], 'out.svg')
";

/// Links in a directory of somebody else's, and the output's own name being one, are replaced; what
/// they lead to is not touched, whoever calls memtap.
fn planted_links(context: &Context) -> Result<()> {
    let user = SudoUser::create(context)?;
    let secret = tempfile::tempdir()?;
    let victim = secret.path().join("victim");
    std::fs::write(&victim, "root's")?;
    std::fs::set_permissions(&victim, PermissionsExt::from_mode(0o600))?;
    std::fs::set_permissions(secret.path(), PermissionsExt::from_mode(0o755))?;
    for is_behind_sudo in [true, false] {
        let directory = user.directory()?;
        let script = "exec /usr/bin/python3 -c \"$1\" \"$2\"";
        let arguments = [OsStr::new(PLANT), victim.as_os_str()];
        run(user.shell(directory.path(), script, arguments))?.succeeded()?;
        let before = names(directory.path())?;
        let arguments = "record -o out.svg -- sh -c :";
        let finished = if is_behind_sudo {
            sudo(&user, context, directory.path(), arguments)?
        } else {
            shell(context, directory.path(), &format!("\"$1\" {arguments}"))?
        };
        ended_with(finished, 0)?;
        ensure!(
            std::fs::read_to_string(&victim)? == "root's",
            "the link was followed"
        );
        let metadata = victim.metadata()?;
        ensure!(
            (metadata.uid(), metadata.mode() & 0o777) == (0, 0o600),
            "it was given away"
        );
        let output = directory.path().join("out.svg");
        let owner = if is_behind_sudo { user.uid } else { 0 };
        let metadata = output.symlink_metadata()?;
        ensure!(
            metadata.is_file() && metadata.uid() == owner,
            "no file in place of the link"
        );
        ensure!(std::fs::read_to_string(&output)?.contains("</svg>"), "no picture");
        ensure!(names(directory.path())? == before, "something was left");
    }
    Ok(())
}

/// In a directory for all, such as /tmp: another user's file or link at the output's own name.
fn foreign_name(context: &Context) -> Result<()> {
    let user = SudoUser::create(context)?;
    let directory = tempfile::tempdir()?;
    std::fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o1777))?;
    let victim = directory.path().join("victim");
    std::fs::write(&victim, "root's")?;
    let (link, null) = (
        directory.path().join("out.svg"),
        directory.path().join("null.svg"),
    );
    symlink(&victim, &link)?;
    symlink("/dev/null", &null)?;
    for path in [&link, &null] {
        std::os::unix::fs::lchown(path, Some(65534), Some(65534))?;
    }
    // Of nobody's names the user may replace none, and is told so before anything runs.
    let finished = ended_with(
        sudo(&user, context, directory.path(), "record -o out.svg -- touch ran")?,
        1,
    )?;
    ensure!(
        finished.stderr.contains("65534"),
        "no reason: {}",
        finished.stderr
    );
    // Root may, and does not follow either.
    for name in ["out.svg", "null.svg"] {
        let finished = shell(
            context,
            directory.path(),
            &format!("\"$1\" record -o {name} -- true"),
        )?;
        match name {
            "out.svg" => drop(ended_with(finished, 0)?),
            // A link to a device that somebody else has made.
            _ => drop(ended_with(finished, 1)?),
        }
    }
    ensure!(
        std::fs::read_to_string(&victim)? == "root's",
        "the link was followed"
    );
    ensure!(link.symlink_metadata()?.is_file(), "no file in place of the link");
    ensure!(
        names(directory.path())? == ["null.svg", "out.svg", "victim"],
        "something was left"
    );
    Ok(())
}
