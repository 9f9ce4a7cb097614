//! `switch_cost [ROUNDS]`: how long it takes to take a process's probes off and to put them back
//! in, until its hits cease, and until they come again; for links of many uprobes and for perf
//! events, of one process and of all.
#![expect(clippy::print_stdout, reason = "a report")]

use std::fs::File;
use std::hint::black_box;
use std::os::unix::fs::FileExt as _;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use memtap::bpf::UprobeScope;
use memtap::recorder::bench::Switch;
use memtap::settings::AttachBy;

/// A call that takes so much longer than one without probes meets them; one that takes longer still
/// met something else.
const PROBED_NS: std::ops::Range<u64> = 400..20_000;

/// Calls that are looked at before there are probes.
const ALONE: usize = 10_001;

/// So many such calls in a row are no accident.
const IN_A_ROW: u32 = 5;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let first = arguments.next();
    if first.as_deref() == Some("busy") {
        return busy(&arguments.next().ok_or("no file")?);
    }
    let rounds: usize = first.map_or(Ok(20), |rounds| rounds.parse())?;
    let file = tempfile::NamedTempFile::new()?;
    let target = ProbedProcess(
        Command::new(std::env::current_exe()?)
            .arg("busy")
            .arg(file.path())
            .spawn()?,
    );
    std::thread::sleep(Duration::from_millis(300));
    println!("median of {rounds} rounds (longest), ms");
    println!("                  detach             hits cease         reattach");
    for (name, by) in [("multi", AttachBy::Multi), ("perf", AttachBy::Perf)] {
        for (whose, scope) in [
            ("one process", UprobeScope::Process(target.0.id())),
            ("machine", UprobeScope::Machine),
        ] {
            let mut switch = Switch::start(target.0.id(), by, scope)?;
            let (mut offs, mut ceased, mut ins) = (Vec::new(), Vec::new(), Vec::new());
            for round in 0..rounds {
                std::thread::sleep(Duration::from_millis(50 + round as u64 % 7));
                let began = monotonic_ns();
                let off = Instant::now();
                switch.detach();
                offs.push(off.elapsed());
                std::thread::sleep(Duration::from_millis(150));
                let last = last_probed(file.as_file())?;
                ceased.push(Duration::from_nanos(last.saturating_sub(began)));
                let put = Instant::now();
                switch.reattach()?;
                ins.push(put.elapsed());
            }
            println!(
                "{name:<5} {whose:<11} {} {} {}",
                shown(&mut offs),
                shown(&mut ceased),
                shown(&mut ins)
            );
        }
    }
    Ok(())
}

/// The busy process; dropping it ends it.
struct ProbedProcess(Child);

impl Drop for ProbedProcess {
    fn drop(&mut self) {
        if let Err(error) = self.0.kill().and_then(|()| self.0.wait()) {
            eprintln!("switch_cost: the target: {error}");
        }
    }
}

fn shown(times: &mut [Duration]) -> String {
    times.sort_unstable();
    let ms = |time: Option<&Duration>| time.map_or(0.0, |time| time.as_secs_f64() * 1e3);
    format!(
        "{:8.2} ({:7.2})",
        ms(times.get(times.len() / 2)),
        ms(times.last())
    )
}

/// Allocates without end, and writes down when it last met probes.
fn busy(path: &str) -> Result<(), Box<dyn std::error::Error>> {
    let file = File::options().write(true).open(path)?;
    let mut alone: Vec<u64> = (0..ALONE).map(|_| call_ns()).collect();
    alone.sort_unstable();
    let alone = alone[ALONE / 2];
    let mut row = 0;
    loop {
        let is_probed = PROBED_NS.contains(&call_ns().saturating_sub(alone));
        row = if is_probed { row + 1 } else { 0 };
        if row == IN_A_ROW {
            file.write_all_at(&monotonic_ns().to_le_bytes(), 0)?;
            row = 0;
        }
    }
}

/// How long it takes to allocate a block and to give it back.
fn call_ns() -> u64 {
    let began = monotonic_ns();
    drop(black_box(Box::new([0u8; 64])));
    monotonic_ns() - began
}

fn last_probed(file: &File) -> std::io::Result<u64> {
    let mut bytes = [0; 8];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(u64::from_le_bytes(bytes))
}

fn monotonic_ns() -> u64 {
    memtap::clock::monotonic_ns()
}
