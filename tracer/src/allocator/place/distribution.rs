//! The allocators of the distribution: no function of theirs needs a probe that the kernel must single-step.

use std::path::{Path, PathBuf};

use iced_x86::Register;
use tracer_ebpf::Shape;

use super::{Arguments, Place, arguments, places, shape_at};
use crate::allocator::elf;
use crate::allocator::functions::{C_FAMILY, LIBC_MARK};

/// The C family beyond the table of what is traced.
const MORE_C: &[(&str, &[Register])] = &[
    ("cfree", FIRST),
    ("free_sized", FIRST),
    ("free_aligned_sized", FIRST),
];

const FIRST: &[Register] = &[Register::RDI];
const SECOND: &[Register] = &[Register::RDI, Register::RSI];
const THIRD: &[Register] = &[Register::RDI, Register::RSI, Register::RDX];

/// Functions of other families, with the arguments that are needed: sizes and blocks. Their names are whole; operators
/// are mangled.
const OTHERS: &[(&str, &[Register])] = &[
    ("_Znwm", FIRST),
    ("_Znam", FIRST),
    ("_ZnwmRKSt9nothrow_t", FIRST),
    ("_ZnamRKSt9nothrow_t", FIRST),
    ("_ZnwmSt11align_val_t", SECOND),
    ("_ZnamSt11align_val_t", SECOND),
    ("_ZnwmSt11align_val_tRKSt9nothrow_t", SECOND),
    ("_ZnamSt11align_val_tRKSt9nothrow_t", SECOND),
    ("_ZdlPv", FIRST),
    ("_ZdaPv", FIRST),
    ("_ZdlPvRKSt9nothrow_t", FIRST),
    ("_ZdaPvRKSt9nothrow_t", FIRST),
    ("_ZdlPvm", FIRST),
    ("_ZdaPvm", FIRST),
    ("_ZdlPvSt11align_val_t", FIRST),
    ("_ZdaPvSt11align_val_t", FIRST),
    ("_ZdlPvSt11align_val_tRKSt9nothrow_t", FIRST),
    ("_ZdaPvSt11align_val_tRKSt9nothrow_t", FIRST),
    ("_ZdlPvmSt11align_val_t", FIRST),
    ("_ZdaPvmSt11align_val_t", FIRST),
    ("mallocx", SECOND),
    ("rallocx", SECOND),
    ("xallocx", SECOND),
    ("dallocx", FIRST),
    ("sdallocx", FIRST),
    ("tc_malloc", FIRST),
    ("tc_malloc_skip_new_handler", FIRST),
    ("tc_calloc", SECOND),
    ("tc_realloc", SECOND),
    ("tc_free", FIRST),
    ("tc_cfree", FIRST),
    ("tc_free_sized", FIRST),
    ("tc_memalign", SECOND),
    ("tc_posix_memalign", THIRD),
    ("tc_valloc", FIRST),
    ("tc_pvalloc", FIRST),
    ("tc_new", FIRST),
    ("tc_new_nothrow", FIRST),
    ("tc_newarray", FIRST),
    ("tc_newarray_nothrow", FIRST),
    ("tc_new_aligned", SECOND),
    ("tc_newarray_aligned", SECOND),
    ("tc_delete", FIRST),
    ("tc_delete_nothrow", FIRST),
    ("tc_delete_sized", FIRST),
    ("tc_deletearray", FIRST),
    ("tc_deletearray_nothrow", FIRST),
    ("tc_deletearray_sized", FIRST),
    ("tc_delete_aligned", FIRST),
    ("tc_deletearray_aligned", FIRST),
    ("mi_malloc", FIRST),
    ("mi_malloc_small", FIRST),
    ("mi_zalloc", FIRST),
    ("mi_zalloc_small", FIRST),
    ("mi_calloc", SECOND),
    ("mi_mallocn", SECOND),
    ("mi_realloc", SECOND),
    ("mi_reallocf", SECOND),
    ("mi_reallocn", THIRD),
    ("mi_reallocarray", THIRD),
    ("mi_rezalloc", SECOND),
    ("mi_recalloc", THIRD),
    ("mi_malloc_aligned", SECOND),
    ("mi_zalloc_aligned", SECOND),
    ("mi_calloc_aligned", THIRD),
    ("mi_realloc_aligned", THIRD),
    ("mi_posix_memalign", THIRD),
    ("mi_memalign", SECOND),
    ("mi_aligned_alloc", SECOND),
    ("mi_valloc", FIRST),
    ("mi_pvalloc", FIRST),
    ("mi_free", FIRST),
    ("mi_cfree", FIRST),
    ("mi_free_size", FIRST),
    ("mi_free_aligned", FIRST),
    ("mi_free_size_aligned", FIRST),
    ("mi_new", FIRST),
    ("mi_new_nothrow", FIRST),
    ("mi_new_n", SECOND),
    ("mi_new_aligned", SECOND),
    ("mi_new_aligned_nothrow", SECOND),
    ("mi_new_realloc", SECOND),
    ("mi_new_reallocn", THIRD),
];

/// The packages, their libraries, and a function that each must have.
const LIBRARIES: [(&str, &str, &str); 5] = [
    ("libc6", "libc.so.6", "reallocarray"),
    ("libjemalloc2", "libjemalloc.so.2", "mallocx"),
    ("libtcmalloc-minimal4", "libtcmalloc_minimal.so.4", "tc_malloc"),
    ("libmimalloc2.0", "libmimalloc.so.2", "mi_malloc"),
    ("musl", "ld-musl-x86_64.so.1", "reallocarray"),
];

/// Where libraries are: Debian's folder, the older ones, others' (`/lib64`).
const FOLDERS: [&str; 5] = [
    "/usr/lib/x86_64-linux-gnu",
    "/lib/x86_64-linux-gnu",
    "/lib",
    "/usr/lib64",
    "/usr/lib",
];

fn library(name: &str) -> Option<PathBuf> {
    FOLDERS
        .iter()
        .map(|folder| Path::new(folder).join(name))
        .find(|path| path.exists())
}

/// The arguments of every function that is looked for, and whether the last two are factors.
fn wanted() -> Vec<(&'static str, &'static [Register], bool)> {
    let is_array = |arguments: &[Register]| arguments.len() == 3;
    let table = C_FAMILY.iter().map(|row| {
        let array = row.shape == Shape::ResizeArray;
        (row.symbol, arguments(row.shape), array)
    });
    let others = MORE_C.iter().chain(OTHERS);
    table
        .chain(others.map(|(symbol, arguments)| {
            // Of three arguments the last two are factors, but for functions that take a place for the result, or an
            // alignment.
            let array = is_array(arguments) && !symbol.contains("align");
            (*symbol, *arguments, array)
        }))
        .collect()
}

#[test]
#[expect(clippy::print_stdout, reason = "the table is the point")]
fn no_function_of_the_distribution_is_single_stepped() {
    let wanted = wanted();
    let mut names: Vec<&str> = wanted.iter().map(|(symbol, _, _)| *symbol).collect();
    names.push(LIBC_MARK);
    let mut stepped = Vec::new();
    let mut without_program = Vec::new();
    for (package, name, must_have) in LIBRARIES {
        let path = library(name)
            .unwrap_or_else(|| panic!("there is no {name} on this machine: install the package {package}"));
        let symbols = elf::find_functions(&path, &path, &names).expect("an ELF file");
        assert!(symbols.functions.contains_key(must_have), "{name}");
        println!("{name} ({package})");
        for (symbol, arguments, array) in &wanted {
            let Some(placed) = symbols.functions.get(*symbol) else {
                continue;
            };
            let code = &symbols.code[&placed.address];
            let all = places(code, arguments, *array);
            let cheap = all.iter().filter(|place| !place.single_stepped);
            let cheap: Vec<String> = cheap.map(|place| shown(place, arguments)).collect();
            println!("  {symbol:<36} {}", cheap.join("  "));
            // The best place serves a return probe too.
            assert_eq!(all[0].pushed_bytes, 0, "{name}: {symbol}");
            let row = C_FAMILY.iter().find(|row| row.symbol == *symbol);
            let is_libc = symbols.functions.contains_key(LIBC_MARK);
            if let Some(row) = row.filter(|_| is_libc)
                && shape_at(row.shape, &all[0]).is_none()
            {
                without_program.push(format!("{name}: {symbol}"));
            }
            if all[0].single_stepped {
                stepped.push(format!("{name}: {symbol} at {:#x}", placed.address));
            }
        }
    }
    assert!(stepped.is_empty(), "single-stepped: {stepped:#?}");
    // What is traced now is read there by a program.
    assert!(
        without_program.is_empty(),
        "no program reads the arguments: {without_program:#?}"
    );
}

/// A place as the table shows it: `+0x7`, with the bytes pushed before it, and where the arguments are if they were moved.
fn shown(place: &Place, arguments: &[Register]) -> String {
    let pushed = match place.pushed_bytes {
        0 => String::new(),
        bytes => format!(" (pushed {bytes})"),
    };
    let moved = match &place.arguments {
        Arguments::Apart(registers) if registers == arguments => String::new(),
        Arguments::Apart(registers) => format!(" {registers:?}"),
        Arguments::Multiplied(registers) => format!(" {registers:?} and the product"),
    };
    format!("+{:#x}{pushed}{moved}", place.offset)
}
