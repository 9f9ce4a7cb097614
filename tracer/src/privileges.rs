//! The privileges of this process, and the user behind `sudo`, whom launched commands run as and
//! outputs belong to.

use std::ffi::{CStr, CString, OsString};
use std::marker::PhantomData;
use std::os::unix::ffi::OsStringExt as _;

use rustix::process::{Gid, Uid};
use rustix::thread::{set_thread_gid, set_thread_groups, set_thread_uid};

/// Capabilities that tracing takes, with their numbers in `include/uapi/linux/capability.h`.
const NEEDED: [(&str, u32); 4] = [
    ("CAP_SYS_ADMIN", 21),
    ("CAP_PERFMON", 38),
    ("CAP_BPF", 39),
    ("CAP_SYS_PTRACE", 19),
];

/// The needed capabilities that this process lacks.
#[must_use]
pub(crate) fn missing() -> Vec<&'static str> {
    let status = std::fs::read("/proc/self/status").unwrap_or_default();
    // The name in it may be any bytes.
    let status = String::from_utf8_lossy(&status);
    let held = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|hexadecimal| u64::from_str_radix(hexadecimal.trim(), 16).ok())
        .unwrap_or(0);
    NEEDED
        .iter()
        .filter(|(_, number)| held & (1 << number) == 0)
        .map(|(name, _)| *name)
        .collect()
}

/// The capabilities that are missing.
#[derive(Debug, thiserror::Error)]
#[error("tracing other processes takes {}, which this user has not: run memtap with sudo", .0.join(", "))]
pub(crate) struct MissingCapabilities(Vec<&'static str>);

/// Fails, in words, where a needed capability is missing.
pub(crate) fn require() -> Result<(), MissingCapabilities> {
    let missing = missing();
    if missing.is_empty() {
        Ok(())
    } else {
        Err(MissingCapabilities(missing))
    }
}

/// The user that a launched command runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// The user's id.
    pub uid: libc::uid_t,
    /// The id of the user's group.
    pub gid: libc::gid_t,
    /// The user's name.
    pub name: CString,
    /// Every group of the user, the main one too.
    pub groups: Vec<Gid>,
    /// The user's home, where the password file has one.
    pub home: Option<OsString>,
    /// The user's shell, likewise.
    pub shell: Option<OsString>,
}

impl User {
    /// The user who called `sudo`; nothing where there was no `sudo`, or it was called by root.
    #[must_use]
    pub fn behind_sudo() -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            return None;
        }
        let number = |name| std::env::var(name).ok()?.parse().ok();
        let uid: libc::uid_t = number("SUDO_UID")?;
        let gid: libc::gid_t = number("SUDO_GID")?;
        if uid == 0 {
            return None;
        }
        let mut user = Self {
            uid,
            gid,
            name: CString::new(std::env::var("SUDO_USER").unwrap_or_default()).unwrap_or_default(),
            groups: vec![Gid::from_raw(gid)],
            home: None,
            shell: None,
        };
        user.read_password_entry();
        user.read_groups();
        Some(user)
    }

    fn read_password_entry(&mut self) {
        // SAFETY: the entry, if any, is valid until the next call, which no other thread makes:
        // this runs before there are any.
        unsafe {
            let entry = libc::getpwuid(self.uid);
            if entry.is_null() {
                return;
            }
            let text = |pointer: *const libc::c_char| {
                (!pointer.is_null()).then(|| OsString::from_vec(CStr::from_ptr(pointer).to_bytes().to_vec()))
            };
            self.home = text((*entry).pw_dir);
            self.shell = text((*entry).pw_shell);
            if !(*entry).pw_name.is_null() {
                CStr::from_ptr((*entry).pw_name).clone_into(&mut self.name);
            }
        }
    }

    fn read_groups(&mut self) {
        let mut groups = vec![0; 256];
        // The second time with as much room as was wanted.
        for _ in 0..2 {
            let Ok(mut count) = libc::c_int::try_from(groups.len()) else {
                return;
            };
            // SAFETY: the buffer has room for `count` groups, and the name ends in a NUL.
            let status = unsafe {
                libc::getgrouplist(self.name.as_ptr(), self.gid, groups.as_mut_ptr(), &raw mut count)
            };
            let Ok(count) = usize::try_from(count) else {
                return;
            };
            groups.resize(count, 0);
            if status >= 0 {
                self.groups = groups.into_iter().map(Gid::from_raw).collect();
                return;
            }
        }
    }

    /// Turns the calling process into this user's, for good. For use between fork and exec: system
    /// calls alone.
    pub fn become_user(&self) -> std::io::Result<()> {
        // The child has one thread. The order is the one that leaves no privilege behind.
        set_thread_groups(&self.groups)?;
        set_thread_gid(Gid::from_raw(self.gid))?;
        set_thread_uid(Uid::from_raw(self.uid))?;
        Ok(())
    }

    /// Takes this user's rights for files.
    pub(crate) fn file_rights(&self) -> std::io::Result<FileRights> {
        let groups: Vec<u32> = self.groups.iter().map(|group| group.as_raw()).collect();
        FileRights::of(self.uid, self.gid, &groups)
    }
}

/// Another user's rights for the files that this thread touches, until it is dropped. The thread
/// loses what root may do with files too (capabilities(7)), and has it again afterwards.
#[derive(Debug)]
pub(crate) struct FileRights {
    uid: libc::uid_t,
    gid: libc::gid_t,
    groups: Vec<Gid>,
    /// The rights are those of one thread.
    _thread: PhantomData<*const ()>,
}

impl FileRights {
    /// Takes the rights of a user who is in these groups.
    pub(crate) fn of(uid: libc::uid_t, gid: libc::gid_t, groups: &[u32]) -> std::io::Result<Self> {
        let before = rustix::process::getgroups()?;
        let groups: Vec<Gid> = groups.iter().map(|group| Gid::from_raw(*group)).collect();
        set_thread_groups(&groups)?;
        // The group first: who is not root may not change it. Both calls tell what was before, and
        // cannot fail for root.
        // SAFETY: system calls without arguments in memory; they change this thread alone
        // (setfsuid(2)).
        let (gid, uid) = unsafe { (libc::setfsgid(gid), libc::setfsuid(uid)) };
        Ok(Self {
            uid: uid.cast_unsigned(),
            gid: gid.cast_unsigned(),
            groups: before,
            _thread: PhantomData,
        })
    }
}

impl Drop for FileRights {
    fn drop(&mut self) {
        // The user first: as root again, the group may be changed.
        // SAFETY: system calls without arguments in memory; they change this thread alone
        // (setfsuid(2)).
        unsafe {
            libc::setfsuid(self.uid);
            libc::setfsgid(self.gid);
        }
        if let Err(error) = set_thread_groups(&self.groups) {
            log::debug!("failed to take back the groups: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};

    use super::*;

    /// Only root can take the rights of another.
    #[test]
    fn rights_are_the_users_with_all_groups_and_end() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let closed = tempfile::tempdir().expect("room");
        let shared = tempfile::tempdir().expect("room");
        chown(shared.path(), None, Some(54321)).expect("root");
        std::fs::set_permissions(shared.path(), std::fs::Permissions::from_mode(0o770)).expect("root");
        let groups = rustix::process::getgroups().expect("always");
        {
            let _rights = FileRights::of(12345, 12345, &[12345, 54321]).expect("root");
            assert!(std::fs::write(closed.path().join("a"), "").is_err());
            let path = shared.path().join("a");
            std::fs::write(&path, "").expect("the group may");
            let metadata = path.metadata().expect("there");
            assert_eq!((metadata.uid(), metadata.gid()), (12345, 12345));
        }
        let path = closed.path().join("a");
        std::fs::write(&path, "").expect("root again");
        let metadata = path.metadata().expect("there");
        assert_eq!((metadata.uid(), metadata.gid()), (0, 0));
        assert_eq!(rustix::process::getgroups().expect("always"), groups);
    }
}
