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
use super::dwarf_names::RawFrames;
use super::name_table::NameTable;
use super::protocol::{FileTask, OwnSymbols};
use super::unpacked;
use super::whole_names::{is_short, whole_names};
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
    let mut ask = |elf: &ElfSource, with_debug_info: Option<&File>, notes: &mut Notes| {
        let mut short = Vec::new();
        if let Err(error) = ask(elf, task, table, &mut short) {
            notes.push((false, format!("names are left out: {error}")));
        }
        if let Some(file) = with_debug_info {
            make_whole(file, unpacked_bytes, &short, &task.addresses, table);
        }
    };
    // Paths lead to descriptors, which stay open.
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

/// Short names of functions that are kept until they are made whole, in bytes.
const MAX_SHORT_BYTES: usize = 32 << 20;

/// Frames with short names, at a place in the table.
struct ShortNames {
    at: usize,
    /// The names of all frames there, from the outermost to the innermost.
    names: Vec<String>,
}

/// Asks a file for the addresses that have no name yet. Adds those with short names to `short`.
///
/// What was read and unpacked for it is given back at the end.
fn ask(
    elf: &ElfSource,
    task: &FileTask,
    table: &mut NameTable,
    short: &mut Vec<ShortNames>,
) -> Result<(), String> {
    let addresses = &task.addresses;
    let without: Vec<usize> = (0..addresses.len()).filter(|at| !table.has(*at)).collect();
    if without.is_empty() {
        return Ok(());
    }
    let directories = task.directories.iter().cloned();
    let directories = directories.chain([PathBuf::from(GLOBAL_DIRECTORY)]);
    let symbolizer = Symbolizer::builder()
        .enable_auto_reload(false)
        // Linkage names are told from short ones.
        .enable_demangling(false)
        .set_debug_dirs(Some(directories))
        .build();
    let source = Source::Elf(elf.clone());
    let mut short_bytes = 0;
    for batch in without.chunks(BATCH) {
        let asked: Vec<u64> = batch.iter().map(|at| addresses[*at]).collect();
        // Debug information has the addresses of the file that was mapped, and segments at other
        // offsets.
        let answers = symbolizer.symbolize(&source, Input::VirtOffset(&asked));
        let answers = answers.map_err(|error| format!("{error:#}"))?;
        for (at, answer) in batch.iter().zip(&answers) {
            let Some(symbol) = answer.as_sym() else { continue };
            let names = raw_names(symbol);
            set(table, *at, symbol, &names);
            if short_bytes <= MAX_SHORT_BYTES && names.iter().any(|name| is_short(name)) {
                let names: Vec<String> = names.into_iter().map(str::to_owned).collect();
                let bytes = names.iter().map(|name| size_of::<String>() + name.len());
                short_bytes += bytes.sum::<usize>();
                short.push(ShortNames { at: *at, names });
            }
        }
    }
    Ok(())
}

/// Makes short names whole, from the debug information that they were read from.
fn make_whole(
    file: &File,
    unpacked_bytes: u64,
    short: &[ShortNames],
    addresses: &[u64],
    table: &mut NameTable,
) {
    if short.is_empty() {
        return;
    }
    let frames: Vec<RawFrames<'_>> = short
        .iter()
        .map(|short| RawFrames {
            address: addresses[short.at],
            names: short.names.iter().map(String::as_str).collect(),
        })
        .collect();
    let whole = whole_names(file, unpacked_bytes, &frames);
    for (short, whole) in short.iter().zip(whole) {
        for (depth, name) in whole.iter().enumerate() {
            if let Some(name) = name {
                table.rename(short.at, depth, name);
            }
        }
    }
}

/// The names of an address's frames, as the file has them, from the outermost to the innermost.
fn raw_names<'a>(symbol: &'a Sym<'_>) -> Vec<&'a str> {
    let inlined = symbol.inlined.iter().map(|inlined| &*inlined.name);
    std::iter::once(&*symbol.name).chain(inlined).collect()
}

/// Names a place.
fn set(table: &mut NameTable, at: usize, symbol: &Sym<'_>, names: &[&str]) {
    let lines = std::iter::once(symbol.code_info.as_deref().and_then(line_of)).chain(
        symbol
            .inlined
            .iter()
            .map(|inlined| inlined.code_info.as_ref().and_then(line_of)),
    );
    let names: Vec<Cow<'_, str>> = names.iter().map(|name| demangle(name)).collect();
    table.set(at, names.iter().map(|name| &**name).zip(lines));
}

fn line_of(info: &CodeInfo<'_>) -> Option<(String, u32)> {
    Some((info.to_path().to_string_lossy().into_owned(), info.line?))
}
