//! The allocators of a file: their functions, their names, and the functions that need no probe
//! since they forward every call.

use std::collections::{HashMap, HashSet};

use super::functions::{
    ASAN_MARK, FunctionRow, FunctionTable, GLIBC_MARK, LIBC_ALIASES, LIBC_MARK, LOOKUPS, Set,
};
use super::symbols::{FileFunctions, Placed};
use crate::probe_plan::dataflow::{AddressSet, TracedFunctions};

/// The functions that are there, each address once: the first name in the table's order stands for
/// it. A name by itself may be anything: an allocator makes blocks and takes them back.
pub(in crate::probe_plan) fn find<'a>(
    symbols: &FileFunctions,
    table: &'a FunctionTable,
) -> Vec<(&'a FunctionRow, Placed)> {
    let rows = || {
        let rows = table.rows().iter();
        rows.filter_map(|row| Some((row, *symbols.functions.get(&row.symbol)?)))
    };
    let mut sets: HashMap<&Set, (bool, bool)> = HashMap::new();
    for (row, _) in rows() {
        let (makes, frees) = sets.entry(&row.set).or_default();
        *makes |= !row.roles.frees();
        *frees |= row.roles.frees();
    }
    let is_whole = |set: &Set| sets.get(set).is_some_and(|(makes, frees)| *makes && *frees);
    let has_allocator = sets
        .keys()
        .any(|set| matches!(set, Set::Prefix(_)) && is_whole(set));
    let mut addresses = HashSet::new();
    rows()
        .filter(|(row, placed)| {
            let wanted = match row.set {
                Set::Prefix(_) => is_whole(&row.set) || table.is_asked_for(row),
                Set::Operators => has_allocator,
                Set::Named => true,
            };
            wanted && addresses.insert(placed.address)
        })
        .collect()
}

/// Returns true if the file stands in front of another allocator and calls it: then that one's
/// probes see every call.
pub(in crate::probe_plan) fn stands_in_front(symbols: &FileFunctions) -> bool {
    let has = |name: &str| symbols.functions.contains_key(name);
    if has(LIBC_MARK) || has(ASAN_MARK) || ["mallocx", "tc_malloc", "mi_malloc"].into_iter().any(has) {
        return false;
    }
    let takes = |names: &[&str]| names.iter().any(|name| symbols.imports.contains(*name));
    takes(&LIBC_ALIASES) || has("malloc") && takes(&LOOKUPS) && symbols.says_malloc
}

/// The allocators that functions belong to, by name.
pub(in crate::probe_plan) fn names(symbols: &FileFunctions, found: &[(&FunctionRow, Placed)]) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for (row, _) in found {
        let has = |name: &str| symbols.functions.contains_key(name);
        let name = match &row.set {
            Set::Operators => continue,
            Set::Named => row.symbol.clone(),
            Set::Prefix(prefix) => match prefix.as_str() {
                "tc_" => "tcmalloc".to_owned(),
                "mi_" => "mimalloc".to_owned(),
                "je_" | "_rjem_" => "jemalloc".to_owned(),
                "" if has("mallocx") => "jemalloc".to_owned(),
                "" if has("tc_malloc") => "tcmalloc".to_owned(),
                "" if has("mi_malloc") => "mimalloc".to_owned(),
                "" if has(LIBC_MARK) && has(GLIBC_MARK) => "glibc".to_owned(),
                "" if has(LIBC_MARK) => "libc".to_owned(),
                prefix => format!("{prefix}malloc"),
            },
        };
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

/// Returns the functions that forward every call to another one that counts as the same:
/// `operator new[]` jumps to `operator new`. One that may throw, and whose return can have no
/// probe, may also call the other one and count as that.
pub(in crate::probe_plan) fn forwarders(
    functions: &TracedFunctions,
    found: &[(&FunctionRow, Placed)],
    may_throw: &impl Fn(&FunctionRow) -> bool,
) -> HashSet<u64> {
    let rows: HashMap<u64, &FunctionRow> = found.iter().map(|(row, placed)| (placed.address, *row)).collect();
    let mut forwarders = HashSet::new();
    for (row, placed) in found {
        let alike: AddressSet = found
            .iter()
            .filter(|(other, at)| {
                at.address != placed.address
                    && other.roles.frees() == row.roles.frees()
                    && (other.function == row.function || may_throw(row) && !may_throw(other))
            })
            .map(|(_, at)| at.address)
            .collect();
        let calls = if may_throw(row) {
            alike.clone()
        } else {
            AddressSet::default()
        };
        let reach = functions.reach(placed.address, &calls);
        let is_forwarded = |target: &u64| alike.contains(target);
        let mut targets = reach.jumps.iter().copied().chain(
            reach
                .calls
                .iter()
                .map(|(target, _)| *target)
                .filter(|target| calls.contains(target)),
        );
        let has_target = targets.next().is_some();
        let others_are_done = reach.calls.iter().all(|(target, _)| {
            calls.contains(target) || rows.get(target).is_some_and(|other| other.roles.frees())
        });
        if has_target
            && !reach.returns
            && !reach.is_unknown
            && others_are_done
            && reach.jumps.iter().all(is_forwarded)
        {
            forwarders.insert(placed.address);
        }
    }
    forwarders
}
