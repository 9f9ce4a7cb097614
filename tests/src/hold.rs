//! Another tracer, that holds an instruction by a reference counter.

use std::ffi::CString;
use std::os::fd::{FromRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Signal, set_parent_process_death_signal};

use crate::{Context, LIMIT, RunningProgram, eventually};

/// The word that it prints once it holds it.
const HOLDS: &str = "holds";

/// A tracer that holds an instruction of a file, as one of static probes does: with the offset of a
/// counter in the file, which the kernel raises in every process that maps it. Dropping it lets go.
#[derive(Debug)]
pub struct Holder(RunningProgram);

impl Holder {
    /// Starts one, as root.
    pub fn start(context: &Context, file: &Path, offset: u64, counter: u64) -> Result<Self> {
        let mut command = context.privileged(std::env::current_exe()?);
        command
            .args(["helper", "hold"])
            .arg(file)
            .args([offset.to_string(), counter.to_string()]);
        let mut holder = Self(RunningProgram::start(command)?);
        let holds = eventually(LIMIT, || {
            ensure!(
                holder.0.is_alive()?,
                "the holder has ended: {}",
                holder.0.stderr()
            );
            Ok(holder.0.stdout().contains(HOLDS))
        })?;
        ensure!(holds, "the holder holds nothing");
        Ok(holder)
    }
}

/// `struct perf_event_attr` of the kernel's `include/uapi/linux/perf_event.h`, up to its second
/// version, in words: the type and the size, `config`, … `config1` at 7 and `config2` at 8.
const ATTRIBUTE_WORDS: usize = 12;

/// Runs `suite helper hold FILE OFFSET COUNTER`: holds the instruction until whoever started it has
/// gone.
#[expect(clippy::print_stdout, reason = "who started it waits for the word")]
pub(crate) fn hold(file: &str, offset: &str, counter: &str) -> Result<String> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    let _held = open(file.as_ref(), offset.parse()?, counter.parse()?)?;
    println!("{HOLDS}");
    loop {
        std::thread::park();
    }
}

/// A uprobe of the whole machine with a reference counter, whose offset is in the upper half of
/// `config` (`PERF_UPROBE_REF_CTR_OFFSET_SHIFT` of the kernel's `kernel/events/core.c`).
fn open(file: &Path, offset: u64, counter: u64) -> Result<OwnedFd> {
    let kind: u64 = std::fs::read_to_string("/sys/bus/event_source/devices/uprobe/type")?
        .trim()
        .parse()?;
    let path = CString::new(file.as_os_str().as_bytes())?;
    let mut attribute = [0u64; ATTRIBUTE_WORDS];
    attribute[0] = kind | (size_of_val(&attribute) as u64) << 32;
    attribute[1] = counter << 32;
    attribute[7] = path.as_ptr() as u64;
    attribute[8] = offset;
    let (any_process, first_cpu, no_group, close_on_exec) = (-1, 0, -1, 8);
    // SAFETY: the attribute has the size that it says, and the path outlives the call.
    let opened = unsafe {
        libc::syscall(
            libc::SYS_perf_event_open,
            &raw const attribute,
            any_process,
            first_cpu,
            no_group,
            close_on_exec,
        )
    };
    let opened = i32::try_from(opened)?;
    if opened < 0 {
        return Err(std::io::Error::last_os_error()).context("failed to hold the instruction");
    }
    // SAFETY: the kernel has just opened it.
    Ok(unsafe { OwnedFd::from_raw_fd(opened) })
}
