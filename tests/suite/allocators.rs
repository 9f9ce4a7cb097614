//! Allocators other than the libc that a program is linked with: each as a library of the
//! program's, in front of the libc's (`LD_PRELOAD`), linked in, and loaded later.
//!
//! Allocations of libraries for themselves, when they are loaded, are seen under a program that
//! does nothing: it is taken off before figures are compared.

mod cpp;
mod named;
mod others;
mod redis;
mod rust;

use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use memtap_tests::{
    Account, Context, Count, Counts, Fixture, HeapFigures, Memtap, MemtapRecording, Need, ProcessSummary,
    Recipe, difference, library_path,
};

use crate::case::{Case, case};

use Need::{Compiler, Jemalloc, Mimalloc, Musl, Tcmalloc};

pub(crate) const CASES: &[Case] = &[
    case(
        "allocators::jemalloc_preloaded",
        &[Compiler, Jemalloc],
        |context| exact(context, &JEMALLOC, How::Preloaded),
    ),
    case("allocators::jemalloc_linked", &[Compiler, Jemalloc], |context| {
        exact(context, &JEMALLOC, How::Linked)
    }),
    case("allocators::jemalloc_static", &[Compiler, Jemalloc], |context| {
        exact(context, &JEMALLOC, How::Static)
    }),
    case(
        "allocators::tcmalloc_preloaded",
        &[Compiler, Tcmalloc],
        |context| exact(context, &TCMALLOC, How::Preloaded),
    ),
    case("allocators::tcmalloc_linked", &[Compiler, Tcmalloc], |context| {
        exact(context, &TCMALLOC, How::Linked)
    }),
    case("allocators::tcmalloc_static", &[Compiler, Tcmalloc], |context| {
        exact(context, &TCMALLOC, How::Static)
    }),
    case(
        "allocators::mimalloc_preloaded",
        &[Compiler, Mimalloc],
        |context| exact(context, &MIMALLOC, How::Preloaded),
    ),
    case("allocators::mimalloc_linked", &[Compiler, Mimalloc], |context| {
        exact(context, &MIMALLOC, How::Linked)
    }),
    case("allocators::musl_linked", &[Compiler, Musl], |context| {
        exact(context, &MUSL, How::Linked)
    }),
    case("allocators::musl_static", &[Compiler, Musl], |context| {
        exact(context, &MUSL, How::Static)
    }),
    case(
        "allocators::jemalloc_extended",
        &[Compiler, Jemalloc],
        others::extended,
    ),
    case(
        "allocators::jemalloc_prefixed",
        &[Compiler, Jemalloc, Need::Binutils],
        others::prefixed,
    ),
    case(
        "allocators::two_loaded_at_once",
        &[Compiler, Jemalloc, Mimalloc],
        others::two,
    ),
    case(
        "allocators::two_loaded_at_once_later",
        &[Compiler, Jemalloc, Mimalloc],
        others::two_later,
    ),
    case(
        "allocators::static_grandchild",
        &[Compiler, Jemalloc],
        others::grandchild,
    ),
    case("allocators::forwarding_library", &[Compiler], others::forwarding),
    case("allocators::named_prefix", &[Compiler], named::prefix),
    case("allocators::named_symbols", &[Compiler], named::symbols),
    case(
        "allocators::named_offsets",
        &[Compiler, Need::Binutils],
        named::offsets,
    ),
    case("allocators::named_wrongly", &[Compiler], named::wrongly),
    case(
        "allocators::cpp_jemalloc",
        &[Need::CppCompiler, Jemalloc],
        |context| cpp::operators(context, &JEMALLOC),
    ),
    case(
        "allocators::cpp_tcmalloc",
        &[Need::CppCompiler, Tcmalloc],
        |context| cpp::operators(context, &TCMALLOC),
    ),
    case(
        "allocators::cpp_mimalloc",
        &[Need::CppCompiler, Mimalloc],
        |context| cpp::operators(context, &MIMALLOC),
    ),
    case(
        "allocators::rust_jemalloc",
        &[Compiler, Need::Crates],
        |context| rust::crates(context, "jemalloc"),
    ),
    case(
        "allocators::rust_mimalloc",
        &[Compiler, Need::Crates],
        |context| rust::crates(context, "mimalloc"),
    ),
    case(
        "allocators::rust_without_symbols",
        &[Compiler, Need::Crates, Need::Binutils],
        rust::without_symbols,
    ),
    case("allocators::redis", &[Need::Redis, Jemalloc], redis::redis),
];

/// An allocator, and where its files are.
pub(crate) struct Allocator {
    /// The shared library.
    library: &'static str,
    /// The flag that links a program with it.
    link: &'static str,
    /// The archive.
    archive: &'static str,
    compiler: &'static str,
    /// Functions that it leaves to the libc, and that must not be called.
    defines: &'static [&'static str],
}

const JEMALLOC: Allocator = Allocator {
    library: "libjemalloc.so.2",
    link: "-ljemalloc",
    archive: "libjemalloc.a",
    compiler: "cc",
    defines: &["-DNO_PVALLOC"],
};

const TCMALLOC: Allocator = Allocator {
    library: "libtcmalloc_minimal.so.4",
    link: "-ltcmalloc_minimal",
    archive: "libtcmalloc_minimal.a",
    compiler: "cc",
    defines: &[],
};

const MIMALLOC: Allocator = Allocator {
    library: "libmimalloc.so.2.0",
    link: "-lmimalloc",
    archive: "",
    compiler: "cc",
    defines: &[],
};

const MUSL: Allocator = Allocator {
    library: "",
    link: "-O1",
    archive: "",
    compiler: "musl-gcc",
    defines: &["-DNO_PVALLOC"],
};

/// A way for a program to get an allocator.
#[derive(Clone, Copy, PartialEq, Eq)]
enum How {
    Preloaded,
    Linked,
    Static,
}

impl Allocator {
    /// The path of its library.
    fn path(&self) -> Result<PathBuf> {
        library_path(self.library).with_context(|| format!("no {}", self.library))
    }

    /// A fixture with it.
    fn build(&self, context: &Context, recipe: Recipe, how: How) -> Result<Fixture> {
        let recipe = recipe.compiler(self.compiler).flags(self.defines);
        let recipe = match how {
            How::Preloaded => recipe,
            How::Linked => recipe.flags(["-Wl,--no-as-needed", self.link]),
            How::Static if self.archive.is_empty() => recipe.flags(["-static"]),
            How::Static => {
                let archive = library_path(self.archive).with_context(|| format!("no {}", self.archive))?;
                recipe
                    .flags([archive.as_os_str()])
                    .flags(["-lstdc++", "-lm", "-ldl"])
            }
        };
        recipe.build(context)
    }

    /// The command that runs a fixture.
    fn command(&self, fixture: &Fixture, how: How) -> Result<Vec<String>> {
        let path = fixture.path.display().to_string();
        Ok(match how {
            How::Preloaded => vec![
                "env".to_owned(),
                format!("LD_PRELOAD={}", self.path()?.display()),
                path,
            ],
            How::Linked | How::Static => vec![path],
        })
    }

    /// Records a fixture and the one that does nothing.
    fn record(
        &self,
        context: &Context,
        recipe: Recipe,
        how: How,
        live: bool,
    ) -> Result<[(Fixture, MemtapRecording); 2]> {
        let one = |recipe: Recipe| -> Result<_> {
            let fixture = self.build(context, recipe, how)?;
            let recording = Memtap::record(context)?
                .arguments(live.then_some("--live"))
                .command(self.command(&fixture, how)?)
                .run()?
                .whole()?;
            Ok((fixture, recording))
        };
        Ok([one(recipe)?, one(Recipe::allocator_c("nothing"))?])
    }
}

/// Every function of the C family, called and followed: what the fixtures tell.
fn exact(context: &Context, allocator: &Allocator, how: How) -> Result<()> {
    let [(_, recording), nothing] = allocator.record(context, Recipe::c("functions"), how, false)?;
    let reported = recording.reported()?;
    let image = &reported.images[0];
    let process = recording.summary()?.process(image.pid, "functions")?;
    let found = beyond(&process.functions, &functions_of(&nothing)?);
    if let Some(difference) = difference(&image.functions(), &found) {
        anyhow::bail!("not what the fixture tells:\n{difference}");
    }
    recording
        .folded()?
        .compare(&reported, |chain| chain.count.bytes)?;

    let [(_, recording), nothing] = allocator.record(context, Recipe::live_c("family"), how, true)?;
    let accounts = Account::parse_all(&recording.finished.stdout)?;
    let process = recording.summary()?.process(accounts[0].pid, "family")?;
    let own = process_of(&nothing)?
        .map(|own| HeapFigures::parse(&own.totals))
        .transpose()?;
    let found = HeapFigures::parse(&process.totals)?.beyond(&own.unwrap_or_default());
    let expected = accounts[0].figures().clone().without(&["peak/"]);
    if let Some(difference) = HeapFigures::difference(&expected, &found.without(&["peak/"])) {
        anyhow::bail!("blocks are not what the fixture tells:\n{difference}");
    }
    Ok(())
}

/// The process of a fixture; nothing where it has allocated nothing.
fn process_of((fixture, recording): &(Fixture, MemtapRecording)) -> Result<Option<ProcessSummary>> {
    let mut processes = recording.summary()?.processes()?;
    processes.retain(|process| process.comm == fixture.comm);
    ensure!(
        processes.len() <= 1,
        "{} processes {}",
        processes.len(),
        fixture.comm
    );
    Ok(processes.pop())
}

fn functions_of(run: &(Fixture, MemtapRecording)) -> Result<Counts> {
    Ok(process_of(run)?
        .map(|process| process.functions)
        .unwrap_or_default())
}

/// Returns what there is beyond other counts.
fn beyond(all: &Counts, other: &Counts) -> Counts {
    let rest = all.iter().map(|(function, count)| {
        let less = other.get(function).copied().unwrap_or_default();
        let rest = Count {
            calls: count.calls.saturating_sub(less.calls),
            bytes: count.bytes.saturating_sub(less.bytes),
        };
        (function.clone(), rest)
    });
    rest.filter(|(_, count)| *count != Count::default()).collect()
}
