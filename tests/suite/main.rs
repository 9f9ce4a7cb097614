//! memtap on real programs, as root: exact figures, or a reason why not.
//!
//! `cargo test -p memtap-tests` runs it against `target/release/memtap`, or the program that
//! `MEMTAP_BIN` names. A test whose needs this machine does not meet is named on standard error
//! with the reason and counted as ignored; with `MEMTAP_TEST_ALL=1` it fails.

mod allocators;
mod arguments;
mod attach;
mod budget;

mod case;
mod cgroups;
mod commands;
mod containers;
mod documents;
mod errors;
mod escapes;
mod fixtures;
mod foreign_files;
mod html;
mod live;
mod live_report;
mod lives;
mod many_processes;
mod names;
mod output_files;
mod outputs;
mod processes;
mod python;
mod real;
mod regions;
mod robust;
mod sampling;
mod saved_profiles;
mod scope;
mod seed;
mod speedscope;
mod stacks;
mod sums;
mod symbols;
mod system;
mod tables;
mod terminal_tables;
mod under_load;

use std::path::Path;
use std::process::ExitCode;

use libtest_mimic::Arguments;
use memtap_tests::Context;

/// All tests.
const CASES: &[&[case::Case]] = &[
    fixtures::CASES,
    sums::CASES,
    processes::CASES,
    lives::CASES,
    cgroups::CASES,
    containers::CASES,
    outputs::CASES,
    terminal_tables::CASES,
    speedscope::CASES,
    html::CASES,
    output_files::CASES,
    output_files::owners::CASES,
    escapes::CASES,
    saved_profiles::CASES,
    arguments::CASES,
    documents::CASES,
    live_report::CASES,
    regions::CASES,
    seed::CASES,
    python::CASES,
    stacks::chains::CASES,
    stacks::languages::CASES,
    stacks::stripped::CASES,
    stacks::libraries::CASES,
    stacks::c_libraries::CASES,
    stacks::signals::CASES,
    stacks::own_stacks::CASES,
    tables::late::CASES,
    tables::stopped::CASES,
    tables::guard::CASES,
    tables::room::CASES,
    tables::malformed_elf::CASES,
    live::accounts::CASES,
    live::fixtures::CASES,
    live::languages::CASES,
    live::heaptrack::CASES,
    live::programs::CASES,
    live::servers::CASES,
    real::CASES,
    sampling::CASES,
    budget::CASES,
    errors::CASES,
    system::CASES,
    allocators::CASES,
    attach::CASES,
    robust::CASES,
    scope::CASES,
    commands::CASES,
    names::CASES,
    symbols::separate::CASES,
    symbols::mismatched_debug_files::CASES,
    symbols::fetched::CASES,
    symbols::compiled::CASES,
    symbols::exited_processes::CASES,
    foreign_files::CASES,
];

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().collect();
    if words.get(1).is_some_and(|word| word == "helper") {
        return helper(&words[2..]);
    }
    heed_interrupts();
    let mut arguments = Arguments::from_args();
    let work = Path::new(env!("CARGO_TARGET_TMPDIR")).join("fixtures");
    let context = if arguments.list {
        None
    } else {
        match Context::find(&work) {
            Ok(context) => Some(context),
            Err(error) => {
                eprintln!("suite: no test can run: {error:#}");
                return ExitCode::from(101);
            }
        }
    };
    let trials = case::trials(context.as_ref());
    if arguments.list || arguments.test_threads.is_some() {
        return libtest_mimic::run(&arguments, trials).exit_code();
    }
    // Most tests wait for most of their time. Traces of the whole machine, and looks at what is
    // left in the kernel, bear no company.
    let (beside, alone): (Vec<_>, Vec<_>) = trials
        .into_iter()
        .partition(|trial| case::runs_beside(trial.name()));
    let mut has_failed = false;
    for (threads, trials) in [(BESIDE, beside), (1, alone)] {
        arguments.test_threads = Some(threads);
        has_failed |= libtest_mimic::run(&arguments, trials).has_failed();
    }
    case::report_slow();
    if has_failed {
        ExitCode::from(101)
    } else {
        ExitCode::SUCCESS
    }
}

/// Tests at once, of those that run beside each other.
const BESIDE: usize = 2;

/// Lets SIGINT and SIGQUIT end the programs that tests run: a shell's background jobs ignore them,
/// and so does all that they start.
fn heed_interrupts() {
    for signal in [libc::SIGINT, libc::SIGQUIT] {
        // SAFETY: a system call without pointers; no thread has been started.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
}

#[expect(clippy::print_stdout, reason = "its output is what it is called for")]
fn helper(arguments: &[String]) -> ExitCode {
    match memtap_tests::helper(arguments) {
        Ok(text) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("suite helper: {error:#}");
            ExitCode::FAILURE
        }
    }
}
