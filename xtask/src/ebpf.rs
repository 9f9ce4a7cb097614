//! The eBPF object, built apart from the tracer. `cargo xtask ebpf` sees that this kernel's
//! verifier takes it.

#[path = "../../tracer/build/object.rs"]
pub(crate) mod object;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Instant, SystemTime};

use anyhow::{Context as _, Result, bail};

use crate::kernels::verifier_counts;
use crate::{privilege, process, product, setup, workspace};

/// Names an object to load in place of the one that a development build of memtap has in it.
const OBJECT_VARIABLE: &str = "MEMTAP_EBPF_OBJECT";

/// Directories, below the repository's root, of what both sides share: memtap loads only objects
/// that were built with the same.
const INTERFACE: [&str; 2] = ["tracer-ebpf/src/abi", "tracer-ebpf/src/lib.rs"];

/// Builds the object, has it loaded, and prints how many instructions the verifier went through for
/// each program, beside those of the last time.
pub(crate) fn run() -> Result<()> {
    privilege::prime()?;
    setup::run(&setup::SetupOptions::default())?;
    let target = workspace::target_dir()?;
    let began = Instant::now();
    let bytes = object::build(&workspace::root(), &target.join("ebpf"), &[])?;
    let built = began.elapsed();
    let directory = target.join("ebpf-check");
    fs::create_dir_all(&directory).with_context(|| format!("failed to create {}", directory.display()))?;
    let file = directory.join("memtap-ebpf.o");
    fs::write(&file, bytes).with_context(|| format!("failed to write {}", file.display()))?;

    let memtap = development_build(&target)?;
    let began = Instant::now();
    let counts = verified(&memtap, &file)?;
    let loaded = began.elapsed();
    let last = directory.join("verified.json");
    report(&counts, &recorded(&last));
    let text = serde_json::to_string_pretty(&counts).context("failed to write counts as JSON")?;
    fs::write(&last, text).with_context(|| format!("failed to write {}", last.display()))?;
    eprintln!(
        "xtask: built in {:.1} s, loaded in {:.1} s",
        built.as_secs_f64(),
        loaded.as_secs_f64()
    );
    Ok(())
}

/// Builds memtap's release binary, and the object beside its dependencies: cargo starts the build
/// script, which has it built, when nearly all of them are done, and has nothing for the other
/// processors to do meanwhile. Returns the binary's path.
pub(crate) fn build_memtap() -> Result<PathBuf> {
    let target = workspace::target_dir()?.join("ebpf");
    thread::scope(|scope| {
        // The build script does the same, and says what is wrong.
        scope.spawn(|| object::build(&workspace::root(), &target, &[]).is_ok());
        product::build()
    })
}

/// A development build of memtap that loads objects with the present interface; built only where
/// there is none.
fn development_build(target: &Path) -> Result<PathBuf> {
    let memtap = target.join("debug/memtap");
    let interface = INTERFACE.map(|path| newest(&workspace::root().join(path)));
    let since = interface
        .into_iter()
        .collect::<Result<Vec<_>>>()?
        .into_iter()
        .max();
    let modified = fs::metadata(&memtap).and_then(|data| data.modified()).ok();
    if modified.is_none() || modified < since {
        eprintln!("xtask: building memtap: there is none with this interface between both sides");
        process::run(
            workspace::cargo().args(["build", "--package", "memtap"]),
            "build memtap",
        )?;
    }
    Ok(memtap)
}

/// The last change of a file, or of any file in a directory.
fn newest(path: &Path) -> Result<SystemTime> {
    let look = || -> std::io::Result<SystemTime> {
        let mut last = fs::metadata(path)?.modified()?;
        if path.is_dir() {
            for entry in fs::read_dir(path)? {
                last = last.max(entry?.metadata()?.modified()?);
            }
        }
        Ok(last)
    };
    look().with_context(|| format!("failed to look at {}", path.display()))
}

/// Instructions by program, of an object that memtap loads.
fn verified(memtap: &Path, object: &Path) -> Result<BTreeMap<String, u64>> {
    let mut doctor = privilege::elevated(Path::new("env"));
    doctor
        .arg(format!("{OBJECT_VARIABLE}={}", object.display()))
        .arg(memtap)
        .args(["doctor", "--json"]);
    let output = doctor.output().context("failed to start `memtap doctor`")?;
    let counts = verifier_counts(&String::from_utf8_lossy(&output.stdout))?;
    if counts.is_empty() {
        // A recording says why; doctor does not.
        let mut record = privilege::elevated(Path::new("env"));
        record
            .arg(format!("{OBJECT_VARIABLE}={}", object.display()))
            .arg(memtap)
            .args(["record", "-o", "/dev/null", "--", "true"]);
        process::run(&mut record, "load the object")?;
        bail!("failed to load the object in any form that doctor tries");
    }
    Ok(counts)
}

fn recorded(file: &Path) -> BTreeMap<String, u64> {
    let text = fs::read_to_string(file).unwrap_or_default();
    serde_json::from_str(&text).unwrap_or_default()
}

fn report(counts: &BTreeMap<String, u64>, before: &BTreeMap<String, u64>) {
    for (program, count) in counts {
        let change = match before.get(program) {
            Some(before) if before == count => String::new(),
            Some(before) => format!("  was {before}"),
            None if before.is_empty() => String::new(),
            None => "  new".to_owned(),
        };
        process::report(&format!("{count:>9}  {program}{change}"));
    }
    for program in before.keys().filter(|program| !counts.contains_key(*program)) {
        process::report(&format!("        –  {program}  gone"));
    }
    process::report(&format!("{:>9}  in all", counts.values().sum::<u64>()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_of_a_directory() {
        let source = workspace::root().join("tracer-ebpf/src");
        let all = newest(&source).expect("it is there");
        assert!(all >= newest(&source.join("lib.rs")).expect("it is there"));
        assert!(newest(&source.join("nothing")).is_err());
    }
}
