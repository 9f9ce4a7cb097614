//! Cgroups: where they are mounted, which one is meant, and which processes are in it.
//!
//! Of version 2 alone: there each process is in one cgroup, which the kernel side can ask for. The
//! files are described in the kernel's `Documentation/admin-guide/cgroup-v2.rst`.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::proc_fs;

/// A cgroup of version 2.
#[derive(Debug)]
pub(crate) struct Cgroup {
    /// Its directory.
    path: PathBuf,
    /// The directory of the hierarchy's root.
    mount: PathBuf,
    directory: File,
    inode: u64,
}

/// The reasons for which a cgroup cannot be traced.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// The machine has no hierarchy of version 2.
    #[error(
        "--cgroup {path}: cgroup v2 is not mounted{}", if *.has_v1 {
            ", only v1 is, by which the kernel cannot tell processes apart here; start the machine with \
             systemd.unified_cgroup_hierarchy=1, or name processes with -p or --comm"
        } else {
            "; mount it: mount -t cgroup2 none /sys/fs/cgroup"
        }
    )]
    NotMounted {
        /// The path of the cgroup, as the user gave it.
        path: String,
        /// True if there are hierarchies of version 1.
        has_v1: bool,
    },
    /// The cgroup is one of version 1.
    #[error(
        "--cgroup {path}: this is a cgroup of version 1, by which the kernel cannot tell processes apart here; version 2 is \
         mounted at {mount}, and /proc/PID/cgroup shows after `0::` where a process is in it"
    )]
    Version1 {
        /// The path of the cgroup, as the user gave it.
        path: String,
        /// The mount point of version 2.
        mount: String,
    },
    /// The path is something else, or nothing.
    #[error(
        "--cgroup {path}: {what}; give a directory below {mount}, absolute or from there on, as /proc/PID/cgroup shows it after \
         `0::`"
    )]
    NoCgroup {
        /// The path of the cgroup, as the user gave it.
        path: String,
        /// The kind of file that it is.
        what: String,
        /// The mount point of version 2.
        mount: String,
    },
    /// Its processes cannot be read.
    #[error("--cgroup {path}: failed to list its processes: {error}")]
    Unreadable {
        /// The path of the cgroup, as the user gave it.
        path: String,
        /// The error of the kernel.
        error: io::Error,
    },
}

/// `CGROUP2_SUPER_MAGIC` and `CGROUP_SUPER_MAGIC` of the kernel's `include/uapi/linux/magic.h`.
const VERSION_2: i64 = 0x6367_7270;
const VERSION_1: i64 = 0x0027_e0eb;

impl Cgroup {
    /// Opens a cgroup: an absolute path, or one from the root of the hierarchy on, with or without
    /// a slash before it.
    pub(crate) fn open(path: &Path) -> Result<Self, CgroupError> {
        let mounts = std::fs::read("/proc/self/mountinfo").unwrap_or_default();
        Self::open_among(path, &mounts)
    }

    fn open_among(path: &Path, mounts: &[u8]) -> Result<Self, CgroupError> {
        let asked = path.display().to_string();
        let Some(mount) = mount_points(mounts, "cgroup2").next() else {
            return Err(CgroupError::NotMounted {
                path: asked,
                has_v1: mount_points(mounts, "cgroup").next().is_some(),
            });
        };
        let no_cgroup = |what: String| CgroupError::NoCgroup {
            path: asked.clone(),
            what,
            mount: mount.display().to_string(),
        };
        // As `/proc/PID/cgroup` has it: from the root of the hierarchy on.
        let below = mount.join(path.strip_prefix("/").unwrap_or(path));
        let opened = |path: PathBuf| -> io::Result<(PathBuf, File, i64)> {
            let directory = File::open(&path)?;
            let kind = rustix::fs::fstatfs(&directory)?.f_type;
            Ok((path, directory, kind))
        };
        let as_said = path.is_absolute().then(|| opened(path.to_owned()));
        let found = match as_said {
            Some(Ok(found @ (_, _, VERSION_1 | VERSION_2))) => Ok(found),
            Some(Ok(other)) => opened(below).or(Ok(other)),
            Some(Err(_)) | None => opened(below),
        };
        let (path, directory, kind) = found.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => no_cgroup("there is no such cgroup".to_owned()),
            _ => no_cgroup(error.to_string()),
        })?;
        match kind {
            VERSION_2 => {}
            VERSION_1 => {
                return Err(CgroupError::Version1 {
                    path: asked,
                    mount: mount.display().to_string(),
                });
            }
            _ => return Err(no_cgroup("this is no cgroup".to_owned())),
        }
        match directory.metadata() {
            Ok(metadata) if metadata.is_dir() => Ok(Self {
                path,
                mount,
                inode: metadata.ino(),
                directory,
            }),
            Ok(_) => Err(no_cgroup("this is a file of a cgroup".to_owned())),
            Err(error) => Err(no_cgroup(error.to_string())),
        }
    }

    /// Its open directory.
    #[must_use]
    pub(crate) fn directory(&self) -> &File {
        &self.directory
    }

    /// Returns true if it still exists: a container's manager removes the cgroup at its end.
    #[must_use]
    pub(crate) fn exists(&self) -> bool {
        std::fs::metadata(&self.path).is_ok_and(|metadata| metadata.ino() == self.inode)
    }

    /// Returns true if a process is in it, or below it; false where that cannot be told.
    pub(crate) fn has(&self, pid: u32) -> bool {
        let cgroups = std::fs::read(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        let mut cgroups = cgroups.split(|byte| *byte == b'\n');
        let path = cgroups.find_map(|line| line.strip_prefix(b"0::/"));
        path.is_some_and(|path| self.mount.join(OsStr::from_bytes(path)).starts_with(&self.path))
    }

    /// The processes that are in it and below it now, but for kernel threads, those that have
    /// ended, and this one.
    pub(crate) fn processes(&self) -> Result<Vec<u32>, CgroupError> {
        let mut pids = Vec::new();
        collect(&self.path, &mut pids).map_err(|error| CgroupError::Unreadable {
            path: self.path.display().to_string(),
            error,
        })?;
        pids.sort_unstable();
        pids.dedup();
        let own = std::process::id();
        pids.retain(|pid| *pid != own && proc_fs::exe(*pid).is_some());
        Ok(pids)
    }
}

/// A cgroup that a process stays in, though it was to leave it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CgroupMoveError {
    /// The kernel refuses.
    #[error("failed to move process {pid} to {}: {error}", .to.display())]
    Refused {
        /// The process.
        pid: u32,
        /// The file that it was to be written to.
        to: PathBuf,
        /// The error of the kernel.
        error: io::Error,
    },
    /// The cgroup is the topmost in this cgroup namespace, and has others above it.
    #[error("process {pid} is in the topmost cgroup of a cgroup namespace")]
    Namespace {
        /// The process.
        pid: u32,
    },
}

/// Moves a process that has memtap's cgroups to the topmost ones, where it is not killed with
/// memtap's service, session or container. Returns those that it stays in: of version 2, and of the
/// hierarchy that systemd has for itself beside those of version 1. Others do not kill.
pub(crate) fn move_to_top(pid: u32) -> Vec<CgroupMoveError> {
    let mounts = std::fs::read("/proc/self/mountinfo").unwrap_or_default();
    let own = std::fs::read("/proc/self/cgroup").unwrap_or_default();
    killing_hierarchies(&own, &mounts)
        .into_iter()
        .filter_map(|(path, mount)| {
            let to = mount.join("cgroup.procs");
            if path != b"/"
                && let Err(error) = std::fs::write(&to, pid.to_string())
            {
                return Some(CgroupMoveError::Refused { pid, to, error });
            }
            // The root of version 2 has no such file.
            let has_parent = mount.join("cgroup.events").exists();
            has_parent.then_some(CgroupMoveError::Namespace { pid })
        })
        .collect()
}

/// Returns the paths of a process's cgroups that are killed as a whole, and the mount points of
/// their hierarchies, from `/proc/PID/cgroup` (`cgroups(7)`: lines `ID:CONTROLLERS:PATH`) and
/// `/proc/PID/mountinfo`.
fn killing_hierarchies<'a>(own: &'a [u8], mounts: &[u8]) -> Vec<(&'a [u8], PathBuf)> {
    let lines = own.split(|byte| *byte == b'\n');
    lines
        .filter_map(|line| {
            let mut fields = line.splitn(3, |byte| *byte == b':');
            let (_, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
            let mount = match controllers {
                b"" => mount_points(mounts, "cgroup2").next()?,
                b"name=systemd" => mounts_with_option(mounts, "cgroup", "name=systemd").next()?,
                _ => return None,
            };
            Some((path, mount))
        })
        .collect()
}

/// Adds the processes of a cgroup and of those below it.
fn collect(directory: &Path, pids: &mut Vec<u32>) -> io::Result<()> {
    let numbers = |text: String| -> Vec<u32> { text.lines().filter_map(|line| line.parse().ok()).collect() };
    match std::fs::read_to_string(directory.join("cgroup.procs")) {
        Ok(text) => pids.extend(numbers(text)),
        // Its threads are in several cgroups: the file can be read where all of them are.
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {
            let threads = numbers(std::fs::read_to_string(directory.join("cgroup.threads"))?);
            pids.extend(threads.into_iter().filter_map(proc_fs::group_of));
        }
        Err(error) => return Err(error),
    }
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir()
            && let Err(error) = collect(&entry.path(), pids)
        {
            // It was removed meanwhile: nothing is in it then.
            log::debug!("{}: {error}", entry.path().display());
        }
    }
    Ok(())
}

/// Returns the mount points of a file system's type, from `/proc/PID/mountinfo` (the kernel's
/// `Documentation/filesystems/proc.rst`, 3.5): of each mount
/// `36 35 98:0 /root /mount-point options tags… - type …`.
fn mount_points(mounts: &[u8], wanted: &str) -> impl Iterator<Item = PathBuf> {
    mounts_with_option(mounts, wanted, "")
}

/// Returns those with an option of the file system too, in the last field, if `option` is one.
fn mounts_with_option(mounts: &[u8], wanted: &str, option: &str) -> impl Iterator<Item = PathBuf> {
    mounts.split(|byte| *byte == b'\n').filter_map(move |line| {
        let mut fields = line.split(|byte| *byte == b' ');
        let mount_point = fields.nth(4)?;
        let mut fields = fields.skip_while(|field| *field != b"-").skip(1);
        let file_system = fields.next()?;
        let mut options = fields.nth(1)?.split(|byte| *byte == b',');
        (file_system == wanted.as_bytes()
            && (option.is_empty() || options.any(|found| found == option.as_bytes())))
        .then(|| PathBuf::from(unescaped(mount_point)))
    })
}

/// A path without the kernel's escapes: spaces, tabs, line breaks and backslashes as three octal
/// digits.
fn unescaped(text: &[u8]) -> OsString {
    let mut path = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, after)) = rest.split_first() {
        let escaped = (*first == b'\\')
            .then(|| u8::from_str_radix(OsStr::from_bytes(after.get(..3)?).to_str()?, 8).ok())
            .flatten();
        (path, rest) = match escaped {
            Some(byte) => ([path, vec![byte]].concat(), &after[3..]),
            None => ([path, vec![*first]].concat(), after),
        };
    }
    OsString::from_vec(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: &[u8] = b"22 1 0:20 / /sys rw - sysfs sysfs rw\n\
        30 22 0:26 / /sys/fs/cgroup/cpu rw,relatime shared:9 master:3 - cgroup cgroup rw,cpu\n\
        31 22 0:27 / /sys/fs/cgroup/a\\040b rw - cgroup2 cgroup2 rw\n";

    #[test]
    fn mounts_are_found_by_type() {
        let points = |wanted| mount_points(BOTH, wanted).collect::<Vec<_>>();
        assert_eq!(points("cgroup2"), [PathBuf::from("/sys/fs/cgroup/a b")]);
        assert_eq!(points("cgroup"), [PathBuf::from("/sys/fs/cgroup/cpu")]);
        assert!(points("tracefs").is_empty());
        let cpu = mounts_with_option(BOTH, "cgroup", "cpu").collect::<Vec<_>>();
        assert_eq!(cpu, [PathBuf::from("/sys/fs/cgroup/cpu")]);
        assert_eq!(mounts_with_option(BOTH, "cgroup", "cpuset").count(), 0);
        assert_eq!(unescaped(br"\134x\1"), r"\x\1");
    }

    #[test]
    fn hierarchies_that_kill_are_found() {
        let mounts = b"1 2 0:3 / /v1 rw - cgroup cgroup rw,xattr,name=systemd\n\
            4 2 0:5 / /v2 rw - cgroup2 cgroup2 rw\n\
            6 2 0:7 / /cpu rw - cgroup cgroup rw,cpu\n";
        let own = b"3:name=systemd:/system.slice/x:y\n2:cpu:/a\n0::/\n\n";
        let found = killing_hierarchies(own, mounts);
        assert_eq!(
            found,
            [
                (&b"/system.slice/x:y"[..], PathBuf::from("/v1")),
                (&b"/"[..], PathBuf::from("/v2"))
            ]
        );
        assert!(killing_hierarchies(own, b"").is_empty());
    }

    #[test]
    fn what_is_wrong_is_said() {
        let said = |path: &str, mounts: &[u8]| {
            let error = Cgroup::open_among(Path::new(path), mounts).expect_err("no cgroup");
            error.to_string()
        };
        assert!(said("x", b"").contains("mount -t cgroup2"));
        let old = b"30 22 0:26 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n";
        assert!(said("x", old).contains("only v1"));
        assert!(said("no-such-thing", BOTH).contains("there is no such cgroup"));
        let wrong = said("/usr", BOTH);
        assert!(
            wrong.contains("no cgroup") && wrong.contains("/sys/fs/cgroup/a b"),
            "{wrong}"
        );
    }
}
