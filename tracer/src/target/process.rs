//! Facts of processes, from `/proc`.

use std::io;
use std::path::{Path, PathBuf};

/// Whether the process exists and has not ended: a zombie has.
#[must_use]
pub fn is_running(pid: u32) -> bool {
    // A zombie whose other threads still run has a leader in state Z and more than one task.
    match state(pid) {
        Some('Z' | 'X') => {
            std::fs::read_dir(format!("/proc/{pid}/task")).is_ok_and(|tasks| tasks.count() > 1)
        }
        Some(_) => true,
        None => false,
    }
}

/// Whether the process is stopped by a signal: all its threads that have not ended.
#[must_use]
pub fn is_stopped(pid: u32) -> bool {
    let Ok(tasks) = std::fs::read_dir(format!("/proc/{pid}/task")) else {
        return false;
    };
    let states = tasks.filter_map(|task| state_in(&task.ok()?.path()));
    let mut living = states.filter(|state| !matches!(state, 'Z' | 'X')).peekable();
    living.peek().is_some() && living.all(|state| state == 'T')
}

fn state(pid: u32) -> Option<char> {
    state_in(Path::new(&format!("/proc/{pid}")))
}

fn state_in(directory: &Path) -> Option<char> {
    let stat = std::fs::read_to_string(directory.join("stat")).ok()?;
    // The name, in parentheses, may hold anything.
    stat.get(stat.rfind(')')? + 2..)?.chars().next()
}

/// The process's name.
pub fn comm(pid: u32) -> io::Result<String> {
    let name = std::fs::read(format!("/proc/{pid}/comm"))?;
    Ok(String::from_utf8_lossy(name.trim_ascii_end()).into_owned())
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
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status
        .lines()
        .find_map(|line| line.strip_prefix("Tgid:"))?
        .trim()
        .parse()
        .ok()
}

/// Every process of the machine.
pub fn all() -> io::Result<Vec<u32>> {
    let entries = std::fs::read_dir("/proc")?;
    Ok(entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect())
}

/// Every process of this name.
pub fn named(name: &str) -> io::Result<Vec<u32>> {
    let own = std::process::id();
    let matches = |pid: &u32| *pid != own && comm(*pid).is_ok_and(|comm| comm == name);
    Ok(all()?.into_iter().filter(matches).collect())
}
