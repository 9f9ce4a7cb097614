//! Release builds of Rust and C++.

use anyhow::{Result, ensure};
use memtap_tests::{Context, Memtap, Need, Recipe, run};

use super::walked::{Walked, came_before_main, known};
use crate::case::{Case, case};

pub(crate) const CASES: &[Case] = &[
    case("stacks::rust_release", &[Need::Rustc], rust_release),
    case("stacks::cpp_exceptions", &[Need::CppCompiler], cpp_exceptions),
];

/// Between a fixture's function and malloc are functions of the standard library wherever a vector
/// grows: which ones is its own business.
fn rust_release(context: &Context) -> Result<()> {
    let fixture = Recipe::plain_rust("growth").build(context)?;
    let alone = run(fixture.command())?.succeeded()?;
    let walked = Walked::run(Memtap::record(context)?.fixture(&fixture))?;
    ensure!(
        walked.recording.finished.stdout == alone.stdout,
        "the program's output changed"
    );
    // A vector of words begins with room for 4, one of bytes with room for 8, and both double up to
    // 1024.
    let words: u64 = (3..=10).map(|power| 8 << power).sum();
    let bytes: u64 = (4..=10).map(|power| 1 << power).sum();
    let nested = ["growth::nest::<17>"; 5].join(";");
    let copy = |shape: &str| format!("<growth::{shape} as growth::Shape>::copy");
    let main = |chain: &str| format!("growth::main;{chain}");
    let grow = |element: &str| main(&format!("growth::grow_both;growth::grow::<{element}>;..."));
    let closure = "growth::by_closure;growth::apply;growth::by_closure::{closure#0}";
    let chains = [
        (main(&copy("Square")), "malloc", 2, 2 * 40),
        (main(&copy("Circle")), "malloc", 1, 72),
        (
            main(&format!("growth::copy_all;{}", copy("Square"))),
            "malloc",
            2,
            2 * 40,
        ),
        (
            main(&format!("growth::copy_all;{}", copy("Circle"))),
            "malloc",
            1,
            72,
        ),
        (grow("u64"), "malloc", 1, 4 * 8),
        (grow("u64"), "realloc", 8, words),
        (grow("u8"), "malloc", 1, 8),
        (grow("u8"), "realloc", 7, bytes),
        (main(closure), "malloc", 1, 1000 + 24),
        (main(&nested), "malloc", 1, 123),
    ];
    let chains = chains
        .each_ref()
        .map(|(chain, function, calls, bytes)| (chain.as_str(), *function, *calls, *bytes));
    let rest = walked.holds(&known(&fixture, &chains))?;
    // The rest is the runtime's: what it allocates before `main`, and for standard output.
    for line in rest {
        ensure!(
            line.frames
                .iter()
                .all(|frame| !frame.contains("growth::") || frame == "growth::main"),
            "this stack is of no chain: {line:?}"
        );
    }
    walked.ends_are("complete")
}

/// Chains that the unwinder of exceptions has jumped into: landing pads, destructors that it runs,
/// handlers.
fn cpp_exceptions(context: &Context) -> Result<()> {
    let fixture = Recipe::plain_cpp("throwing").build(context)?;
    let alone = run(fixture.command())?;
    ensure!(alone.code() == 42, "the fixture ends with {}", alone.code());
    let session = Walked::start(Memtap::record(context)?.fixture(&fixture))?;
    let recording = session.finish()?.ended_with(42)?;
    recording.summary()?.lost_nothing()?;
    ensure!(
        recording.finished.stdout == alone.stdout,
        "the program's output changed from {:?}",
        alone.stdout
    );
    let walked = Walked::read(recording)?;
    let rest = walked.holds(&known(&fixture, CPP_CHAINS))?;
    // The rest is the C++ runtime's.
    came_before_main(&rest)?;
    walked.ends_are("complete")
}

/// The bytes before a thrown object in its block (`__cxa_refcounted_exception` in libsupc++'s
/// `unwind-cxx.h`).
const EXCEPTION_HEADER: u64 = 128;

/// `outer` is called with each of three kinds: of failures, two are caught there.
const CPP_CHAINS: &[(&str, &str, u64, u64)] = &[
    (
        "main;outer(int);middle(int);Guard::Guard(int)",
        "malloc",
        3,
        3 * 601,
    ),
    (
        "main;outer(int);middle(int);inner(int);Guard::Guard(int)",
        "malloc",
        3,
        3 * 601,
    ),
    (
        "main;outer(int);middle(int);inner(int);fail(int)",
        "malloc",
        3,
        3 * 603,
    ),
    // Two of three run while the exception is on its way.
    (
        "main;outer(int);middle(int);inner(int);Guard::~Guard()",
        "malloc",
        3,
        3 * 602,
    ),
    (
        "main;outer(int);middle(int);Guard::~Guard()",
        "malloc",
        3,
        3 * 602,
    ),
    ("main;outer(int);middle(int);inner(int)", "malloc", 1, 604),
    ("main;outer(int);middle(int)", "malloc", 1, 605),
    ("main;outer(int)", "malloc", 5, 606 + 607 + 3 * 608),
    (
        "main;outer(int);middle(int);inner(int);fail(int);...",
        "malloc",
        2,
        EXCEPTION_HEADER + 208 + EXCEPTION_HEADER + 4,
    ),
    (
        "main;around();rethrow();careless();fail(int);...",
        "malloc",
        1,
        EXCEPTION_HEADER + 208,
    ),
    // An exception inside a destructor that another exception runs.
    ("main;around();rethrow();careless();fail(int)", "malloc", 1, 603),
    (
        "main;around();rethrow();careless();Careful::~Careful();inner(int);Guard::Guard(int)",
        "malloc",
        1,
        601,
    ),
    (
        "main;around();rethrow();careless();Careful::~Careful();inner(int);fail(int)",
        "malloc",
        1,
        603,
    ),
    (
        "main;around();rethrow();careless();Careful::~Careful();inner(int);fail(int);...",
        "malloc",
        1,
        EXCEPTION_HEADER + 4,
    ),
    (
        "main;around();rethrow();careless();Careful::~Careful();inner(int);Guard::~Guard()",
        "malloc",
        1,
        602,
    ),
    (
        "main;around();rethrow();careless();Careful::~Careful()",
        "malloc",
        1,
        609,
    ),
    ("main;around();rethrow()", "malloc", 1, 610),
    ("main;around()", "malloc", 1, 611),
    (
        "main;int call<main::{lambda(int)#1}>(main::{lambda(int)#1});main::{lambda(int)#1}::operator()(int) const",
        "malloc",
        1,
        613,
    ),
    (
        "main;int descend<6>();int descend<5>();int descend<4>();int descend<3>();int descend<2>();\
         int descend<1>();int descend<0>()",
        "malloc",
        1,
        612,
    ),
    // By vectors of 8 and of 16 bytes an element, that double.
    (
        "main;Stack<double, 5>::fill(double);...",
        "malloc",
        4,
        8 * (1 + 2 + 4 + 8),
    ),
    (
        "main;Stack<std::pair<char, long>, 3>::fill(std::pair<char, long>);...",
        "malloc",
        3,
        16 * (1 + 2 + 4),
    ),
];
