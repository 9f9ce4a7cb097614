//! Names of addresses in an ELF file, read by blazesym, and made whole where those of C++ are not.

use std::borrow::Cow;
use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::path::PathBuf;

use blazesym::symbolize::source::{Elf as ElfSource, Source};
use blazesym::symbolize::{CodeInfo, Input, Sym, Symbolizer};
use rustix::fs::{MemfdFlags, memfd_create};

use super::demangle::demangle;
use super::name_table::NameTable;
use super::protocol::{FileTask, OwnSymbols};
use super::unpacked;
use super::whole_names::WholeNames;
use crate::symbolize::debug_file::GLOBAL_DIRECTORY;
use crate::symbolize::reader::FromStart;

/// Addresses that one file is asked for at once: bounds the memory of the answer.
const BATCH: usize = 4096;

/// Messages for the log: warnings or not.
type Notes = Vec<(bool, String)>;

/// Names the addresses of a task as far as the file and its debug information can.
pub(super) fn read(
    task: &FileTask,
    file: File,
    debug: Option<File>,
    unpacked_bytes: u64,
    table: &mut NameTable,
    notes: &mut Notes,
) {
    let symbolizer = Symbolizer::builder()
        .enable_auto_reload(false)
        // Linkage names are told from short ones.
        .enable_demangling(false)
        .set_debug_dirs(Some(
            task.directories
                .iter()
                .cloned()
                .chain([PathBuf::from(GLOBAL_DIRECTORY)]),
        ))
        .build();
    let mut ask = |elf: &ElfSource, with_debug_info: Option<&File>, notes: &mut Notes| {
        let whole_names = with_debug_info.map(|file| WholeNames {
            file,
            // The symbolizer has unpacked them too.
            unpacked_bytes: unpacked_bytes / 2,
        });
        if let Err(error) = ask(&symbolizer, elf, whole_names, &task.addresses, table) {
            notes.push((false, format!("names are left out: {error}")));
        }
    };
    // A file in use must not be closed before the symbolizer, whose paths lead to descriptors.
    let (file, debug) = (reopenable(file), debug.map(reopenable));
    if let Some(debug) = &debug {
        match fit_debug_info(debug, unpacked_bytes) {
            Ok(path) => ask(&ElfSource::new(path), debug.as_ref().ok(), notes),
            Err(reason) => notes.push((
                true,
                format!("its separate debug information is not used: {reason}"),
            )),
        }
    }
    if task.own == OwnSymbols::DebugInfo {
        match fit_debug_info(&file, unpacked_bytes) {
            Ok(path) => ask(&ElfSource::new(path), file.as_ref().ok(), notes),
            Err(reason) => notes.push((true, format!("its debug information is not used: {reason}"))),
        }
    }
    if task.own != OwnSymbols::Nothing {
        match fit_symbols(&file) {
            Ok(path) => {
                let plain = ElfSource {
                    debug_syms: false,
                    ..ElfSource::new(path)
                };
                ask(&plain, None, notes);
            }
            Err(reason) => notes.push((true, format!("its names are not used: {reason}"))),
        }
    }
}

/// The path of a file whose debug information unpacks as it says.
fn fit_debug_info(file: &io::Result<File>, unpacked_bytes: u64) -> Result<PathBuf, String> {
    let path = fit_symbols(file)?;
    let file = file.as_ref().map_err(ToString::to_string)?;
    unpacked::check_debug_info(file, unpacked_bytes)?;
    Ok(path)
}

/// The path of a file whose symbols can be unpacked.
fn fit_symbols(file: &io::Result<File>) -> Result<PathBuf, String> {
    let file = file.as_ref().map_err(ToString::to_string)?;
    unpacked::check_small_symbol_table(file)?;
    Ok(open_path(file))
}

/// A path that opens a file which is open.
fn open_path(file: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

/// The name of a copy, for tools that look at this process.
const COPY_NAME: &CStr = c"memtap-copy";

/// Returns a file that this process may open again by its descriptor, as blazesym does: a copy
/// where its owner keeps it from others.
fn reopenable(file: File) -> io::Result<File> {
    match File::open(open_path(&file)) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            let mut copy = File::from(memfd_create(COPY_NAME, MemfdFlags::CLOEXEC)?);
            io::copy(&mut FromStart::new(&file), &mut copy)?;
            Ok(copy)
        }
        Err(error) => Err(error),
        Ok(_) => Ok(file),
    }
}

/// Asks a file for the addresses that have no name yet. Short names are made whole from its debug
/// information.
fn ask(
    symbolizer: &Symbolizer,
    elf: &ElfSource,
    whole_names: Option<WholeNames<'_>>,
    addresses: &[u64],
    table: &mut NameTable,
) -> Result<(), String> {
    let without: Vec<usize> = (0..addresses.len()).filter(|at| !table.has(*at)).collect();
    let source = Source::Elf(elf.clone());
    for batch in without.chunks(BATCH) {
        let asked: Vec<u64> = batch.iter().map(|at| addresses[*at]).collect();
        // Debug information has the addresses of the file that was mapped, and segments at other
        // offsets.
        let answers = symbolizer.symbolize(&source, Input::VirtOffset(&asked));
        let answers = answers.map_err(|error| format!("{error:#}"))?;
        let named: Vec<Named<'_>> = batch
            .iter()
            .zip(&answers)
            .filter_map(|(at, answer)| Some((*at, addresses[*at], answer.as_sym()?)))
            .collect();
        let short = named
            .iter()
            .map(|(_, address, symbol)| (*address, raw_names(symbol)));
        let short = short.collect::<Vec<_>>();
        let whole = whole_names.map(|names| names.of(&short)).unwrap_or_default();
        for (index, (at, _, symbol)) in named.iter().enumerate() {
            set(table, *at, symbol, whole.get(&index).map_or(&[], Vec::as_slice));
        }
    }
    Ok(())
}

/// A place in the table, its address, and what is there.
type Named<'a> = (usize, u64, &'a Sym<'a>);

/// The names of an address's frames, as the file has them, from the outermost to the innermost.
fn raw_names<'a>(symbol: &'a Sym<'_>) -> Vec<&'a str> {
    let inlined = symbol.inlined.iter().map(|inlined| &*inlined.name);
    std::iter::once(&*symbol.name).chain(inlined).collect()
}

/// Names a place. `whole` are the whole names of its frames, where they are known.
fn set(table: &mut NameTable, at: usize, symbol: &Sym<'_>, whole: &[Option<String>]) {
    let lines = std::iter::once(symbol.code_info.as_deref().and_then(line_of)).chain(
        symbol
            .inlined
            .iter()
            .map(|inlined| inlined.code_info.as_ref().and_then(line_of)),
    );
    let names: Vec<Cow<'_, str>> = raw_names(symbol)
        .into_iter()
        .enumerate()
        .map(|(depth, raw)| match whole.get(depth) {
            Some(Some(whole)) => Cow::Borrowed(whole.as_str()),
            _ => demangle(raw),
        })
        .collect();
    table.set(at, names.iter().map(|name| &**name).zip(lines));
}

fn line_of(info: &CodeInfo<'_>) -> Option<(String, u32)> {
    Some((info.to_path().to_string_lossy().into_owned(), info.line?))
}
