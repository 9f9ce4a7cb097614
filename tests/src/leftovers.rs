//! Leftovers of a tracer: probes in a program's text, BPF objects, names in tracefs.
//!
//! Looking needs root, which the suite may not be: [`helper`] is what it runs itself as under sudo.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

use crate::{Context, run};

/// BPF objects of the machine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Leftovers {
    objects: BTreeSet<String>,
}

impl Leftovers {
    /// Those that exist now: programs, maps and links, each as `KIND NUMBER`.
    pub fn now(context: &Context) -> Result<Self> {
        let finished = run(helper_command(context, &["bpf"])?)?.succeeded()?;
        Ok(Self {
            objects: finished.stdout.lines().map(str::to_owned).collect(),
        })
    }

    /// The number of those of a kind: program, map, link.
    #[must_use]
    pub fn count(&self, kind: &str) -> usize {
        self.objects
            .iter()
            .filter(|object| object.starts_with(kind))
            .count()
    }

    /// Those that exist and did not before.
    #[must_use]
    pub fn since(&self, before: &Self) -> Vec<String> {
        self.objects.difference(&before.objects).cloned().collect()
    }
}

/// Runs a script as root inside tracefs, whether or not the machine has mounted it: in a mount
/// namespace of our own. Returns what it prints; `words` are its arguments.
pub fn in_tracefs(context: &Context, script: &str, words: &[&str]) -> Result<String> {
    let script = format!(
        "set -e; test -e /sys/kernel/tracing/uprobe_events || mount -t tracefs tracefs /sys/kernel/tracing; \
         cd /sys/kernel/tracing; {script}"
    );
    let mut command = context.privileged("unshare");
    command.args(["-m", "sh", "-c", &script, "sh"]).args(words);
    Ok(run(command)?.succeeded()?.stdout)
}

/// The names of the uprobes that tracefs knows.
pub fn uprobe_events(context: &Context) -> Result<String> {
    in_tracefs(context, "cat uprobe_events", &[])
}

/// Returns where the C library's code in a process differs from its file: nothing, unless a probe
/// is in it.
pub fn differing_text(context: &Context, pid: u32) -> Result<String> {
    let command = helper_command(context, &["text", &pid.to_string()])?;
    Ok(run(command)?.succeeded()?.stdout)
}

fn helper_command(context: &Context, arguments: &[&str]) -> Result<Command> {
    let mut command = context.privileged(std::env::current_exe()?);
    command.arg("helper").args(arguments);
    Ok(command)
}

/// Runs `suite helper …`, as root: `bpf` lists BPF objects, `text PID` compares a program's text,
/// `hold` is another tracer. What is to be written to standard output is returned.
pub fn helper(arguments: &[String]) -> Result<String> {
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["bpf"] => bpf_objects(),
        ["text", pid] => changed_text(pid),
        ["hold", file, offset, counter] => crate::hold::hold(file, offset, counter),
        _ => bail!("helper: bpf | text PID | hold FILE OFFSET COUNTER"),
    }
}

/// `BPF_PROG_GET_NEXT_ID`, `BPF_MAP_GET_NEXT_ID`, `BPF_LINK_GET_NEXT_ID` of `enum bpf_cmd`
/// (linux/bpf.h).
const NEXT_ID: [(&str, libc::c_long); 3] = [("program", 11), ("map", 12), ("link", 31)];

/// The part of `union bpf_attr` that the `…_GET_NEXT_ID` commands use.
#[repr(C)]
#[derive(Default)]
struct NextId {
    start: u32,
    next: u32,
    open_flags: u32,
}

fn bpf_objects() -> Result<String> {
    let mut text = String::new();
    for (kind, command) in NEXT_ID {
        let mut attribute = NextId::default();
        loop {
            // SAFETY: the attribute is a live, writable struct of the size that is given, laid out
            // as the kernel's; the command writes `next` alone.
            let result =
                unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut attribute, size_of::<NextId>()) };
            if result != 0 {
                let error = std::io::Error::last_os_error();
                ensure!(
                    error.raw_os_error() == Some(libc::ENOENT),
                    "failed to list BPF {kind}s: {error}"
                );
                break;
            }
            writeln!(text, "{kind} {}", attribute.next)?;
            attribute.start = attribute.next;
        }
    }
    Ok(text)
}

fn changed_text(pid: &str) -> Result<String> {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps"))?;
    let mut memory = File::open(format!("/proc/{pid}/mem"))?;
    let mut text = String::new();
    let mut compared = 0;
    for line in maps.lines() {
        let words: Vec<_> = line.split_whitespace().collect();
        let [range, "r-xp", offset, _, _, path] = words[..] else {
            continue;
        };
        if !path.contains("/libc.so") && !path.contains("/libc-") {
            continue;
        }
        let (start, end) = range.split_once('-').context("not a range of addresses")?;
        let start = u64::from_str_radix(start, 16)?;
        let len = usize::try_from(u64::from_str_radix(end, 16)? - start)?;
        let offset = u64::from_str_radix(offset, 16)?;
        let mut present = vec![0; len];
        memory.seek(SeekFrom::Start(start))?;
        memory.read_exact(&mut present)?;
        let mut file = File::open(format!("/proc/{pid}/root{path}"))?;
        file.seek(SeekFrom::Start(offset))?;
        // The last page of the mapping can reach past the end of the file: it is zeros there.
        let mut original = Vec::with_capacity(len);
        file.take(len as u64).read_to_end(&mut original)?;
        original.resize(len, 0);
        for (at, (present, original)) in present.iter().zip(&original).enumerate() {
            if present != original {
                let at = at as u64 + offset;
                writeln!(text, "{path} {at:#x}: {original:#04x} is {present:#04x}")?;
            }
        }
        compared += 1;
    }
    ensure!(compared > 0, "process {pid} has no C library");
    Ok(text)
}
