//! Facts of processes, from `/proc`.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::process::{Pid, test_kill_process};

/// Returns true if the process exists and has not ended: a zombie has.
#[must_use]
pub fn is_running(pid: u32) -> bool {
    // A zombie whose other threads still run has a leader in state Z and more than one task.
    match state(pid) {
        Some('Z' | 'X') => threads(pid).len() > 1,
        Some(_) => true,
        None => false,
    }
}

/// Returns true if the process exists, and this user may not look at it.
#[must_use]
pub fn is_hidden(pid: u32) -> bool {
    // With `hidepid` it may even look as if there was none. A signal tells: "none" is its answer
    // only where there is none.
    std::fs::read(format!("/proc/{pid}/stat")).is_err()
        && i32::try_from(pid)
            .ok()
            .and_then(Pid::from_raw)
            .is_some_and(|pid| test_kill_process(pid) != Err(rustix::io::Errno::SRCH))
}

/// Returns true if the process is stopped by a signal: all its threads that have not ended.
#[must_use]
pub fn is_stopped(pid: u32) -> bool {
    let Ok(tasks) = std::fs::read_dir(format!("/proc/{pid}/task")) else {
        return false;
    };
    let states = tasks.filter_map(|task| state_in(&task.ok()?.path()));
    let mut living = states.filter(|state| !matches!(state, 'Z' | 'X')).peekable();
    living.peek().is_some() && living.all(|state| state == 'T')
}

/// Returns true if the process exists and is in the middle of ending: it is no zombie yet, runs no
/// code of its own any more, and may have no mappings left (`PF_EXITING` of the kernel's
/// `include/linux/sched.h`).
#[must_use]
pub fn is_exiting(pid: u32) -> bool {
    stat(pid).is_some_and(|stat| is_exiting_in(&stat))
}

/// Looks at the text of a `stat` file; takes no memory from an allocator.
pub(crate) fn is_exiting_in(stat: &str) -> bool {
    const PF_EXITING: u64 = 0x4;
    flags_in(stat).is_some_and(|flags| flags & PF_EXITING != 0)
}

/// The flags of the kernel in a `stat` file: its ninth field.
fn flags_in(stat: &str) -> Option<u64> {
    fields_from_third(stat)?.nth(6)?.parse().ok()
}

/// The process that has made this one, or looks after it since that has ended.
#[must_use]
pub fn parent(pid: u32) -> Option<u32> {
    let stat = stat(pid)?;
    fields_from_third(&stat)?.nth(1)?.parse().ok()
}

/// The wait status of a process that has ended and is not waited for yet (`waitpid(2)`): the last
/// field of its `stat` (`proc_pid_stat(5)`).
#[must_use]
pub(super) fn zombie_status(pid: u32) -> Option<i32> {
    let stat = stat(pid)?;
    let mut fields = fields_from_third(stat.trim_end())?;
    if fields.next()? != "Z" {
        return None;
    }
    fields.last()?.parse().ok()
}

fn stat(pid: u32) -> Option<String> {
    text(Path::new(&format!("/proc/{pid}/stat")))
}

/// The text of a file of `/proc`, in which a process's name may be any bytes.
fn text(path: &Path) -> Option<String> {
    Some(String::from_utf8_lossy(&std::fs::read(path).ok()?).into_owned())
}

/// The fields of a `stat` file from the third on. The second is the name, in parentheses, which may
/// hold anything.
pub(crate) fn fields_from_third(stat: &str) -> Option<impl Iterator<Item = &str>> {
    Some(stat.get(stat.rfind(')')? + 2..)?.split(' '))
}

fn state(pid: u32) -> Option<char> {
    state_in(Path::new(&format!("/proc/{pid}")))
}

fn state_in(directory: &Path) -> Option<char> {
    let stat = text(&directory.join("stat"))?;
    fields_from_third(&stat)?.next()?.chars().next()
}

/// The process's name.
pub fn comm(pid: u32) -> io::Result<String> {
    Ok(String::from_utf8_lossy(&comm_bytes(pid)?).into_owned())
}

fn comm_bytes(pid: u32) -> io::Result<Vec<u8>> {
    let mut name = std::fs::read(format!("/proc/{pid}/comm"))?;
    // The line's end; a name may end in spaces of its own.
    if name.last() == Some(&b'\n') {
        name.pop();
    }
    Ok(name)
}

/// The executable, as the process sees it.
#[must_use]
pub fn exe(pid: u32) -> Option<PathBuf> {
    let path = std::fs::read_link(format!("/proc/{pid}/exe")).ok()?;
    let text = path.to_string_lossy();
    Some(
        text.strip_suffix(" (deleted)")
            .map_or_else(|| path.clone(), PathBuf::from),
    )
}

/// The process that a thread belongs to; the id itself for a process.
#[must_use]
pub fn group_of(pid: u32) -> Option<u32> {
    status_field(&status(pid)?, "Tgid:")?.parse().ok()
}

fn status(pid: u32) -> Option<String> {
    text(Path::new(&format!("/proc/{pid}/status")))
}

/// The value of a line of a `status` file.
fn status_field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status
        .lines()
        .find_map(|line| line.strip_prefix(name))
        .map(str::trim)
}

/// Masks of a process's signals: bit `n - 1` is signal `n`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SignalMasks {
    /// Signals that its first thread has blocked.
    pub blocked: u64,
    /// Signals that the process handles.
    pub caught: u64,
}

/// Reads what a process does with signals from `/proc/PID/status`; nothing where it has gone.
#[must_use]
pub fn signal_masks(pid: u32) -> Option<SignalMasks> {
    signal_masks_in(&status(pid)?)
}

fn signal_masks_in(status: &str) -> Option<SignalMasks> {
    let mask = |name: &str| u64::from_str_radix(status_field(status, name)?, 16).ok();
    Some(SignalMasks {
        blocked: mask("SigBlk:")?,
        caught: mask("SigCgt:")?,
    })
}

/// Reads the system call that a thread is in, its number and its arguments, from
/// `/proc/PID/syscall`: `61 0x… 0x… …`. Nothing where it runs, or may not be read.
#[must_use]
pub fn system_call(thread: u32) -> Option<(i64, [u64; 6])> {
    system_call_in(&text(Path::new(&format!("/proc/{thread}/syscall")))?)
}

fn system_call_in(text: &str) -> Option<(i64, [u64; 6])> {
    let (number, rest) = text.split_once(' ')?;
    let mut arguments = [0; 6];
    for (argument, word) in arguments.iter_mut().zip(rest.split(' ')) {
        *argument = u64::from_str_radix(word.trim().strip_prefix("0x")?, 16).ok()?;
    }
    Some((number.parse().ok()?, arguments))
}

/// The identity of a process in its own namespace, and its user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Its number in its innermost pid namespace: the one that it sees itself.
    pub inner_pid: u32,
    /// Its users: real, effective, saved, of the file system.
    pub users: Vec<u32>,
}

/// Reads the identity of a process from `/proc/PID/status`; nothing where it has gone.
#[must_use]
pub fn identity(pid: u32) -> Option<Identity> {
    identity_in(&status(pid)?, pid)
}

fn identity_in(status: &str, pid: u32) -> Option<Identity> {
    let field = |name: &str| status_field(status, name);
    let users = field("Uid:")?.split_ascii_whitespace();
    Some(Identity {
        // A kernel without pid namespaces has no such line.
        inner_pid: match field("NSpid:") {
            Some(numbers) => numbers.split_ascii_whitespace().next_back()?.parse().ok()?,
            None => pid,
        },
        users: users.map(|user| user.parse().ok()).collect::<Option<_>>()?,
    })
}

/// Returns the start of a process in seconds since 1970, to a second or two; nothing where it has
/// gone.
#[must_use]
pub fn began_s(pid: u32) -> Option<i64> {
    let stat = stat(pid)?;
    // The twenty-second field, in ticks since the machine started.
    let ticks: i64 = fields_from_third(&stat)?.nth(19)?.parse().ok()?;
    let machine = std::fs::read_to_string("/proc/stat").ok()?;
    let started_s: i64 = machine
        .lines()
        .find_map(|line| line.strip_prefix("btime "))?
        .parse()
        .ok()?;
    let ticks_per_s = i64::try_from(rustix::param::clock_ticks_per_second()).ok()?;
    Some(started_s + ticks.checked_div(ticks_per_s)?)
}

/// Every process of the machine.
pub fn all() -> io::Result<Vec<u32>> {
    let entries = std::fs::read_dir("/proc")?;
    Ok(entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect())
}

/// Every process of this name.
pub fn named(name: &OsStr) -> io::Result<Vec<u32>> {
    let own = std::process::id();
    let matches = |pid: &u32| *pid != own && comm_bytes(*pid).is_ok_and(|comm| comm == name.as_bytes());
    Ok(all()?.into_iter().filter(matches).collect())
}

/// The threads of a process; none of one that has ended.
pub(crate) fn threads(pid: u32) -> Vec<u32> {
    let Ok(tasks) = std::fs::read_dir(format!("/proc/{pid}/task")) else {
        return Vec::new();
    };
    let number = |task: std::io::Result<std::fs::DirEntry>| task.ok()?.file_name().to_str()?.parse().ok();
    tasks.filter_map(number).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn system_calls() {
        let waits = "61 0xffffffffffffffff 0x7ffc 0x2 0x0 0x0 0x0 0x7ffd 0x7f00\n";
        let (number, arguments) = system_call_in(waits).expect("a call");
        assert_eq!((number, arguments[2]), (61, 2));
        assert_eq!(system_call_in("running\n"), None);
    }

    #[test]
    fn masks_of_signals() {
        let status = "SigPnd:\t0000000000000000\nSigBlk:\t0000000000010000\nSigCgt:\t0000000000020000\n";
        let expected = SignalMasks {
            blocked: 1 << (libc::SIGCHLD - 1),
            caught: 1 << (libc::SIGCONT - 1),
        };
        assert_eq!(signal_masks_in(status), Some(expected));
        assert_eq!(signal_masks_in("Name:\tx\n"), None);
        assert!(signal_masks(std::process::id()).is_some());
    }

    #[test]
    fn innermost_number_is_the_one_that_a_process_sees() {
        let status = "Name:\tx\nUid:\t1000\t0\t1000\t1000\nNSpid:\t4711\t12\t1\n";
        let identity = identity_in(status, 4711).expect("whole");
        assert_eq!(identity.inner_pid, 1);
        assert_eq!(identity.users, [1000, 0, 1000, 1000]);
        assert_eq!(identity_in("Uid:\t0\t0\t0\t0\n", 9).expect("whole").inner_pid, 9);
        for damaged in ["", "Uid:\tx\n", "Uid:\t0\nNSpid:\t\n", "NSpid:\t1\n"] {
            assert_eq!(identity_in(damaged, 9), None, "{damaged:?}");
        }
    }

    #[test]
    fn flags_are_the_ninth_field() {
        let stat = "7 (a) b 1 (c) R 1 7 7 34816 7 4194308 120 0\n";
        assert_eq!(flags_in(stat), Some(0x40_0004));
        assert_eq!(flags_in("7 (a"), None);
        assert_eq!(flags_in("7 (a) R 1"), None);
        assert!(is_exiting_in("7 (a) D 1 2 3 0 -1 4194308 0 0"));
        assert!(is_exiting_in("7 (a) Z 1 2 3 0 -1 4194308 0 0"));
        assert!(!is_exiting_in("7 (a) S 1 2 3 0 -1 4194304 0 0"));
        assert!(!is_exiting(std::process::id()));
    }

    #[test]
    fn process_with_a_name_that_is_no_text() {
        use std::os::unix::ffi::OsStrExt as _;

        let folder = tempfile::tempdir().expect("made");
        let program = folder.path().join(std::ffi::OsStr::from_bytes(b"name-\xff) Z"));
        std::fs::copy("/bin/sleep", &program).expect("copied");
        let mut child = std::process::Command::new(&program)
            .arg("100")
            .spawn()
            .expect("a program");
        let pid = child.id();
        assert!(is_running(pid) && !is_stopped(pid));
        assert_eq!(parent(pid), Some(std::process::id()));
        assert!(identity(pid).is_some());
        assert_eq!(zombie_status(pid), None);
        child.kill().expect("sent");
        while is_running(pid) {
            std::thread::yield_now();
        }
        assert_eq!(zombie_status(pid), Some(libc::SIGKILL));
        child.wait().expect("ended");
    }

    #[test]
    fn processes_that_can_be_seen_or_do_not_exist_are_not_hidden() {
        assert!(!is_hidden(std::process::id()));
        assert!(!is_hidden(0));
        assert!(!is_hidden(u32::MAX));
        // More than Linux gives.
        assert!(!is_hidden(1 << 23));
    }

    #[test]
    fn own_beginning_is_in_the_past() {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let now_s = i64::try_from(now.expect("after 1970").as_secs()).expect("not that late");
        let began_s = began_s(std::process::id()).expect("running");
        assert!(
            (now_s - 86_400..=now_s + 2).contains(&began_s),
            "{began_s}, {now_s}"
        );
    }
}
