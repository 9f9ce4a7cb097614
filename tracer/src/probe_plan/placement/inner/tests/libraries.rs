//! The allocators of the distribution: which of their functions are followed inside, and where.
//! What can be planned in them depends on their builds; what is planned is proven.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::probe_plan::dataflow::Obstacle;
use crate::probe_plan::detect::functions::FunctionTable;
use crate::probe_plan::detect::symbols;
use crate::probe_plan::placement::inner::{InnerSite, Kind, plan};

/// The packages and their libraries; the C library is the one that this machine runs.
const LIBRARIES: [(&str, &str); 5] = [
    ("libc6", "libc.so.6"),
    ("libjemalloc2", "libjemalloc.so.2"),
    ("libtcmalloc-minimal4", "libtcmalloc_minimal.so.4"),
    ("libmimalloc2.0", "libmimalloc.so.2"),
    ("musl", "ld-musl-x86_64.so.1"),
];

/// The directories of libraries: Debian's, the older ones, others' (`/lib64`).
const FOLDERS: [&str; 4] = [
    "/usr/lib/x86_64-linux-gnu",
    "/lib/x86_64-linux-gnu",
    "/lib",
    "/lib64",
];

/// A function of a library, and what is planned for it.
struct Verdict {
    symbol: String,
    address: u64,
    planned: Result<Vec<InnerSite>, Obstacle>,
}

/// A library's allocator functions, each with its sites or why there are none. Those of the other
/// shapes are left out.
fn verdicts(path: &Path) -> Vec<Verdict> {
    let table = FunctionTable::default();
    let file = std::fs::File::open(path).expect("readable");
    let symbols =
        symbols::find_functions(&file, path, &|name| table.has(name), &[], None).expect("an ELF file");
    let code = symbols::whole_code(&file).expect("an ELF file");
    let mut verdicts: Vec<Verdict> = Vec::new();
    for row in table.rows() {
        let Some(placed) = symbols.functions.get(&row.symbol) else {
            continue;
        };
        if verdicts.iter().any(|verdict| verdict.address == placed.address) {
            continue;
        }
        let others: HashSet<u64> = symbols
            .functions
            .values()
            .map(|other| other.address)
            .filter(|address| *address != placed.address)
            .collect();
        let planned = plan(&code, placed.address, &row.roles, &others);
        if planned != Err(Obstacle::Signature) {
            verdicts.push(Verdict {
                symbol: row.symbol.clone(),
                address: placed.address,
                planned,
            });
        }
    }
    verdicts
}

fn print(verdict: &Verdict) {
    let told = match &verdict.planned {
        Ok(sites) => {
            let place = |site: &InnerSite| {
                let kind = match site.kind {
                    Kind::Complete => "",
                    Kind::Request => " size",
                    Kind::Result => " result",
                };
                let stepped = if site.stepped { " stepped" } else { "" };
                format!(
                    "+{:#x}{kind}{stepped}",
                    site.address.wrapping_sub(verdict.address)
                )
            };
            let places: Vec<String> = sites.iter().map(place).collect();
            format!("inside at {}", places.join(", "))
        }
        Err(reason) => format!("entry and return: {reason}"),
    };
    println!("  {:<16} {told}", verdict.symbol);
}

#[test]
fn allocators_of_the_distribution() {
    for (package, name) in LIBRARIES {
        let mut paths = FOLDERS.iter().map(|folder| Path::new(folder).join(name));
        let Some(path) = paths.find(|path: &PathBuf| path.exists()) else {
            println!("{name} ({package}): not on this machine");
            continue;
        };
        let began = Instant::now();
        let verdicts = verdicts(&path);
        println!("{name} ({package}), planned in {:.0?}", began.elapsed());
        verdicts.iter().for_each(print);
        assert!(verdicts.iter().any(|verdict| verdict.symbol == "malloc"));
        for verdict in &verdicts {
            let Ok(sites) = &verdict.planned else { continue };
            let has_complete = sites.iter().any(|site| site.kind == Kind::Complete);
            assert!(has_complete, "{name}: {} gains nothing", verdict.symbol);
            let is_dear = |site: &&InnerSite| site.stepped && site.kind != Kind::Complete;
            assert_eq!(
                sites.iter().filter(is_dear).count(),
                0,
                "{name}: {}",
                verdict.symbol
            );
        }
    }
}
