//! `table_cost [--runs N] [--mapped | FILE…]`: what making the unwind tables of these files takes,
//! in JSON; with `--mapped` of all files whose code any running process has mapped. As memtap does
//! it: files are read whole, a thread each, and placed in one arena.
#![expect(clippy::print_stdout, reason = "a report")]

use std::collections::HashSet;
use std::error::Error;
use std::fs::File;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use memtap::process::history::ProcessHistory;
use memtap::process::{descriptors, proc_fs};
use memtap::unwind::{Arena, Capacity, CompileOptions, Rows, Table, Usage, compile};

fn main() -> Result<(), Box<dyn Error>> {
    let (mut runs, mut mapped, mut files) = (5usize, false, Vec::new());
    let mut arguments = std::env::args_os().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.to_str() {
            Some("--runs") => {
                let number = arguments.next().ok_or("--runs needs a number")?;
                runs = number.to_str().ok_or("--runs needs a number")?.parse()?;
            }
            Some("--mapped") => mapped = true,
            _ => files.push(PathBuf::from(argument)),
        }
    }
    descriptors::raise_limit();
    // Holds the files open, so that their paths stay good.
    let mut history = ProcessHistory::default();
    if mapped {
        files = mapped_files(&mut history)?;
    }
    // Once without looking, so that every run finds the files in memory.
    for file in &files {
        std::io::copy(&mut File::open(file)?, &mut std::io::sink())?;
    }
    let idle_bytes = peak_resident_bytes()?;
    let (mut wall, mut cpu, mut kept) = (Vec::new(), Vec::new(), None);
    for _ in 0..runs.max(1) {
        let (began, cpu_before) = (Instant::now(), cpu_time()?);
        let made = make(&files, Rows::CallSites)?;
        wall.push(began.elapsed());
        cpu.push(cpu_time()?.saturating_sub(cpu_before));
        kept = Some(made);
    }
    let peak_bytes = peak_resident_bytes()?;
    let kept = kept.ok_or("there was no run")?;
    let all = make(&files, Rows::All)?;
    println!(
        "{}",
        serde_json::json!({
            "files": files.len(),
            "tables": kept.tables,
            "file_bytes": kept.file_bytes,
            "wall_ms": median_ms(wall),
            "cpu_ms": median_ms(cpu),
            "rows": kept.usage.rows,
            "pages": kept.usage.pages,
            "rules": kept.usage.rules,
            "table_bytes": kept.usage.bytes(),
            "unpruned_bytes": all.usage.bytes(),
            "most_rows_in_page": kept.most_rows_in_page,
            "most_rows_in_unpruned_page": all.most_rows_in_page,
            "idle_bytes": idle_bytes,
            "peak_bytes": peak_bytes,
        })
    );
    Ok(())
}

/// What came of making tables.
struct Made {
    tables: usize,
    file_bytes: u64,
    usage: Usage,
    most_rows_in_page: usize,
}

/// Reads the files and makes their tables, several at once, and places them as they come.
fn make(files: &[PathBuf], rows: Rows) -> Result<Made, Box<dyn Error>> {
    let next = AtomicUsize::new(0);
    let workers = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    // Room for everything, so that nothing is left out of the figures.
    let mut arena = Arena::new(Capacity {
        row_chunks: 1 << 14,
        pages: 1 << 24,
        rules: 1 << 18,
    });
    let (mut tables, mut file_bytes, mut most_rows_in_page) = (0, 0, 0);
    std::thread::scope(|scope| {
        let (sender, receiver) = channel();
        for _ in 0..workers.min(files.len()) {
            let (sender, next) = (sender.clone(), &next);
            scope.spawn(move || {
                while let Some(file) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if sender.send(table_of(file, rows)).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        for (bytes, table) in receiver {
            file_bytes += bytes;
            if let Some(table) = table {
                arena.insert(&table)?;
                tables += 1;
                let longest = (0..).map_while(|page| table.page(page)).map(<[u32]>::len).max();
                most_rows_in_page = most_rows_in_page.max(longest.unwrap_or(0));
            }
        }
        Ok::<(), Box<dyn Error>>(())
    })?;
    Ok(Made {
        tables,
        file_bytes,
        usage: arena.usage(),
        most_rows_in_page,
    })
}

/// The table of a file, if it has unwind information; and the file's length.
fn table_of(file: &PathBuf, rows: Rows) -> (u64, Option<Table>) {
    let Ok(bytes) = std::fs::read(file) else {
        return (0, None);
    };
    let options = CompileOptions {
        rows,
        ..CompileOptions::default()
    };
    (bytes.len() as u64, compile(&bytes, options).ok())
}

fn mapped_files(history: &mut ProcessHistory) -> Result<Vec<PathBuf>, Box<dyn Error>> {
    // A process that has ended meanwhile maps nothing.
    let read = proc_fs::all()?.into_iter().map(|pid| history.snapshot(pid));
    if read.flatten().count() == 0 {
        return Err("no process's mappings can be read".into());
    }
    let mut known = HashSet::new();
    let mut files = history.all_mapped_files();
    files.retain(|file| known.insert(file.id));
    Ok(files.iter().map(|file| file.open_path()).collect())
}

fn median_ms(mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    times[times.len() / 2].as_secs_f64() * 1e3
}

/// The CPU time of all threads of this process.
fn cpu_time() -> Result<Duration, Box<dyn Error>> {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: a valid pointer to a struct of the right type.
    if unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time) } != 0 {
        return Err(std::io::Error::last_os_error().into());
    }
    Ok(Duration::new(time.tv_sec.try_into()?, time.tv_nsec.try_into()?))
}

/// The most memory that this process ever had resident.
fn peak_resident_bytes() -> Result<u64, Box<dyn Error>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kibibytes: u64 = line
        .and_then(|line| line.trim().strip_suffix(" kB"))
        .ok_or("failed to find VmHWM in /proc/self/status")?
        .trim()
        .parse()?;
    Ok(kibibytes * 1024)
}
