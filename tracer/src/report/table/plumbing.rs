//! Frames that say nothing to whoever wrote the program: between a call of Rust's standard library
//! and the allocator there are a dozen, mostly inlined, and as many between `main` and the
//! program's start. The table folds them; files have them all.

use super::fit::Piece;
use super::text::MORE;

/// The prefixes of the standard library's functions and methods.
const LIBRARY: [&str; 6] = [
    "alloc::",
    "core::",
    "std::",
    "hashbrown::",
    "__rustc::",
    "__rust_",
];

/// Folds each run of library frames to `…` and the outermost of them, which is what the program
/// called. A run with nothing of the program outside it is `…` alone. `pieces` go from the
/// innermost frame outwards; the first is the allocator's function.
pub(super) fn fold(pieces: Vec<Piece>) -> Vec<Piece> {
    let mut folded: Vec<Piece> = Vec::with_capacity(pieces.len());
    let mut run: Vec<Piece> = Vec::new();
    for piece in pieces {
        if is_library(&piece.name) {
            run.push(piece);
            continue;
        }
        end_run(&mut folded, &mut run, false);
        folded.push(piece);
    }
    end_run(&mut folded, &mut run, true);
    folded
}

fn end_run(folded: &mut Vec<Piece>, run: &mut Vec<Piece>, is_outermost: bool) {
    let shown = usize::from(!is_outermost);
    if run.len() > shown + 1 {
        let last = run.pop();
        folded.push(Piece::name(MORE.to_owned()));
        folded.extend(last.filter(|_| !is_outermost));
        run.clear();
    } else {
        folded.append(run);
    }
}

/// Returns true if the name is a library's: `alloc::vec::Vec<T,A>::push`,
/// `<alloc::string::String>::push_str`, `<&dyn core::ops::function::Fn<()> as …>::call_once`.
fn is_library(name: &str) -> bool {
    let name = name.trim_start_matches(['<', '&']);
    let name = name.strip_prefix("dyn ").unwrap_or(name);
    LIBRARY.iter().any(|start| name.starts_with(start))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folded(names: &[&str]) -> Vec<String> {
        let pieces = names.iter().map(|name| Piece::name((*name).to_owned())).collect();
        fold(pieces).into_iter().map(|piece| piece.name).collect()
    }

    #[test]
    fn what_the_program_called_stays() {
        let names = [
            "malloc",
            "alloc::alloc::alloc",
            "<alloc::alloc::Global>::alloc_impl",
            "alloc::vec::Vec<T,A>::push",
            "app::add",
            "app::main",
            "core::ops::function::FnOnce::call_once",
            "std::rt::lang_start::{{closure}}",
            "std::rt::lang_start",
            "main",
            "_start",
        ];
        assert_eq!(
            folded(&names),
            [
                "malloc",
                "…",
                "alloc::vec::Vec<T,A>::push",
                "app::add",
                "app::main",
                "…",
                "std::rt::lang_start",
                "main",
                "_start"
            ]
        );
    }

    #[test]
    fn short_runs_and_other_languages_stay_as_they_are() {
        for names in [
            &["malloc", "alloc::alloc::alloc", "app::add"][..],
            &["malloc", "std::vector<int>::push_back", "main"],
            &[
                "malloc",
                "allocate",
                "core_main",
                "<app::Alloc as core::Alloc>::f",
            ],
        ] {
            assert_eq!(folded(names), names);
        }
        assert_eq!(
            folded(&["malloc", "core::a", "std::b", "<&dyn core::c"]),
            ["malloc", "…"]
        );
    }
}
