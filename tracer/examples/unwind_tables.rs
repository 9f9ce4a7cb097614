//! Prints what the tables of files come to: `unwind_tables [--threads N] [--runs N] FILE…`
#![expect(
    clippy::print_stdout,
    clippy::cast_precision_loss,
    reason = "a report, of rounded figures"
)]

use std::fs::File;
use std::num::NonZeroUsize;
use std::time::Instant;

use memtap::unwind::{CompileOptions, Rows, Table, Unsupported, compile};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (mut threads, mut runs, mut verbose, mut files) = (NonZeroUsize::MIN, 5, false, Vec::new());
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--threads" => threads = arguments.next().ok_or("--threads needs a number")?.parse()?,
            "--runs" => runs = arguments.next().ok_or("--runs needs a number")?.parse()?,
            "-v" => verbose = true,
            _ => files.push(argument),
        }
    }
    println!(
        "{:>10} {:>10} {:>8} {:>9} {:>9} {:>8} {:>9} {:>10} {:>9} {:>5} {:>7} {:>7}  file",
        "bytes",
        "eh bytes",
        "fdes",
        "raw",
        "merged",
        "pruned",
        "all B",
        "pruned B",
        "ratio",
        "rules",
        "ms all",
        "ms"
    );
    for file in files {
        let handle = File::open(&file)?;
        let (all, all_ms) = match median(runs, || measured(&handle, Rows::All, threads)) {
            Ok(done) => done,
            Err(error) => {
                println!("{error}: {file}");
                continue;
            }
        };
        let (pruned, ms) = median(runs, || measured(&handle, Rows::CallSites, threads))?;
        let statistics = pruned.statistics();
        println!(
            "{:>10} {:>10} {:>8} {:>9} {:>9} {:>8} {:>9} {:>10} {:>8.1}% {:>5} {:>7.2} {:>7.2}  {file}",
            handle.metadata()?.len(),
            statistics.section_bytes,
            statistics.functions,
            statistics.rows_raw,
            statistics.rows_merged,
            statistics.rows_kept,
            all.image_bytes(),
            pruned.image_bytes(),
            100.0 * pruned.image_bytes() as f64 / all.image_bytes() as f64,
            pruned.rules().len(),
            all_ms,
            ms,
        );
        if verbose {
            println!(
                "    malformed {} outside {} overlapping {}; code {} B, rbp lost {} B, rows {} in {} pages",
                statistics.malformed,
                statistics.outside,
                statistics.overlapping,
                statistics.code_bytes,
                statistics.rbp_lost_bytes,
                pruned.row_count(),
                pruned.page_count(),
            );
            for reason in Unsupported::ALL {
                if statistics.unsupported(reason) > 0 {
                    println!("    {} B: {}", statistics.unsupported(reason), reason.label());
                }
            }
        }
    }
    Ok(())
}

/// Maps the file anew each time, so that page faults are in the figure.
fn measured(file: &File, rows: Rows, threads: NonZeroUsize) -> Result<Table, Box<dyn std::error::Error>> {
    // SAFETY: measured files are not written to meanwhile.
    let data = unsafe { memmap2::Mmap::map(file)? };
    Ok(compile(&data, CompileOptions { rows, threads })?)
}

fn median<T, E>(runs: usize, mut work: impl FnMut() -> Result<T, E>) -> Result<(T, f64), E> {
    let mut times = Vec::new();
    loop {
        let start = Instant::now();
        let result = work()?;
        times.push(start.elapsed().as_secs_f64() * 1e3);
        if times.len() >= runs {
            times.sort_by(f64::total_cmp);
            return Ok((result, times[times.len() / 2]));
        }
    }
}
