//! A virtual machine: QEMU's software emulation, with the host's root file system over virtio-fs.
//!
//! It needs no support of the hardware, and runs where the host is a virtual machine itself.

use std::fs;
use std::path::Path;
use std::process::{Command, ExitStatus};
use std::time::Duration;

use anyhow::Result;

use super::guest::{self, Results};
use super::image::KernelImage;
use super::run_directory::RunDirectory;
use super::share::{self, FileShare};
use crate::test_output::{self, TestResults};
use crate::{packages, privilege};

/// The time that a guest may run. An emulated processor is 10 to 30 times slower than the host's.
const LIMIT: Duration = Duration::from_mins(30);

/// MiB of memory, and processors.
const MEMORY: u32 = 1024;
const PROCESSORS: u32 = 2;

/// Messages of the kernel on its console when something is wrong.
const COMPLAINTS: &[&str] = &[
    "WARNING: ",
    "BUG: ",
    "Oops: ",
    "Kernel panic",
    "soft lockup",
    "rcu_sched self-detected stall",
    "Out of memory",
];

/// A guest that has powered off.
pub(super) struct Ended {
    /// The job's exit status.
    pub(super) status: u8,
    /// The test results in its output.
    pub(super) tests: TestResults,
    /// The output on the port of results.
    pub(super) results: Results,
    /// Lines of the console by which the kernel complains.
    pub(super) complaints: Vec<String>,
}

/// Boots a kernel and runs `job`, lines for a shell, as root. What it prints is passed on: as it
/// comes or, where guests run beside each other, line by line behind a `label`.
pub(super) fn run(image: &KernelImage, job: &str, label: Option<&str>) -> Result<Ended> {
    let directory = RunDirectory::create(&image.release)?;
    let file_system = guest::file_system(image, job)?;
    directory.write("initramfs", &file_system)?;
    let (tests, status) = {
        let _share = FileShare::start(&directory, LIMIT)?;
        let mut qemu = qemu(image, &directory)?;
        match label {
            Some(label) => test_output::run_labelled(&mut qemu, label)?,
            None => test_output::run(&mut qemu)?,
        }
    };
    let console = directory.read("console");
    let results = Results::parse(&directory.read("results"));
    match results.status {
        Some(status) => Ok(Ended {
            status,
            tests,
            results,
            complaints: complaints(&console),
        }),
        None => Err(death(status, &console, &directory.read("qemu.log"))),
    }
}

/// Makes sure that the packages are there, and a way to become root.
pub(super) fn prepare() -> Result<()> {
    packages::ensure(packages::KERNELS)?;
    if share::program().is_none() {
        packages::ensure(packages::VIRTIOFSD)?;
    }
    privilege::prime()
}

/// Returns why there is no exit status.
fn death(status: ExitStatus, console: &str, log: &str) -> anyhow::Error {
    const LAST_LINES: usize = 40;
    let lines: Vec<&str> = console.lines().collect();
    let last = lines[lines.len().saturating_sub(LAST_LINES)..].join("\n");
    // `timeout -s KILL` kills itself likewise.
    let how = if status.success() {
        "it powered off without an exit status".to_owned()
    } else {
        format!("QEMU ended with {status}, {} s at the most", LIMIT.as_secs())
    };
    anyhow::anyhow!("failed to run the guest to its end: {how}\n{log}the end of its console:\n{last}")
}

fn complaints(console: &str) -> Vec<String> {
    console
        .lines()
        .filter(|line| COMPLAINTS.iter().any(|complaint| line.contains(complaint)))
        .map(|line| line.trim().to_owned())
        .collect()
}

fn qemu(image: &KernelImage, directory: &RunDirectory) -> Result<Command> {
    let mut command = directory.limited(Path::new("qemu-system-x86_64"), LIMIT);
    // cmpxchg16b of QEMU 7.2 spoils the flags; paging by five levels is not needed.
    command.args(["-machine", "pc,memory-backend=memory", "-cpu", "max,-la57,-cx16"]);
    // All processors in one thread, taking turns. With a thread each, QEMU before 8.1 can translate
    // code while another processor changes it, and keep what was there before: a kernel that was
    // just patching a tracepoint in dies of the breakpoint that it had put there meanwhile (seen on
    // 7.2, "Oops: int3").
    command.args(["-accel", "tcg,thread=single", "-smp", &PROCESSORS.to_string()]);
    command.args(["-m", &MEMORY.to_string()]);
    // virtiofsd reads and writes the guest's memory.
    command
        .arg("-object")
        .arg(format!("memory-backend-memfd,id=memory,size={MEMORY}M,share=on"));
    command
        .arg("-chardev")
        .arg(format!("socket,id=share,path={}", directory.socket()));
    command.args([
        "-device",
        "vhost-user-fs-pci,chardev=share,tag=host,queue-size=1024",
    ]);
    command.args(["-chardev", "stdio,id=output,signal=off"]);
    command.args(["-serial", "file:console", "-serial", "chardev:output"]);
    command.args(["-serial", "file:results"]);
    command.args(["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"]);
    command.arg("-kernel").arg(&image.kernel);
    command.args(["-initrd", "initramfs", "-append"]);
    command.arg(format!(
        "console=ttyS0 loglevel=6 panic=-1 oops=panic random.trust_cpu=on {}",
        clock(&fs::read_to_string("/proc/cpuinfo").unwrap_or_default())
    ));
    command.stderr(directory.file("qemu.log")?);
    Ok(command)
}

/// Returns how the guest should tell the time. It sees the host's counter; on a busy host it may
/// find out the rate wrongly, by a factor. Where the host is a virtual machine the rate is what it
/// says of its processor, else the guest is better off with another clock.
fn clock(processors: &str) -> String {
    let value = |name: &str| {
        processors
            .lines()
            .filter_map(|line| line.split_once(':'))
            .find(|(key, _)| key.trim() == name)
            .map(|(_, value)| value.trim())
    };
    let is_virtual = value("flags").is_some_and(|flags| flags.split(' ').any(|flag| flag == "hypervisor"));
    // "2500.123" MHz are 2500123 kHz.
    let khz = value("cpu MHz")
        .map(|mhz| mhz.replace('.', ""))
        .filter(|khz| khz.len() > 3 && khz.bytes().all(|byte| byte.is_ascii_digit()));
    match khz {
        Some(khz) if is_virtual => format!("tsc=reliable tsc_early_khz={khz}"),
        _ => "clocksource=hpet".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks() {
        let text = "processor\t: 0\ncpu MHz\t\t: 2499.998\nflags\t\t: fpu hypervisor lm\n";
        assert_eq!(clock(text), "tsc=reliable tsc_early_khz=2499998");
        assert_eq!(clock(&text.replace("hypervisor ", "")), "clocksource=hpet");
        assert_eq!(clock(""), "clocksource=hpet");
    }

    #[test]
    fn what_the_kernel_complains_of() {
        let console = "[ 1.0] fine\n[ 2.0] WARNING: CPU: 0 PID: 1 at kernel/x.c\n[ 3.0] fine\n";
        assert_eq!(complaints(console).len(), 1);
    }
}
