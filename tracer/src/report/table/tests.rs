//! Tables of small profiles, against golden files.

use super::*;
use crate::profile::Losses;
use crate::profile::cost::{BudgetBlock, Cost, PricesBlock};
use crate::report::golden;
use crate::report::sample::{SampleProfile, mixed, session};
use tracer_ebpf::{Function, Loss};

fn text(profile: &Profile, session: &Session, options: &TableOptions<'_>) -> String {
    let mut out = Vec::new();
    write(profile, session, options, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn mixed_profile() {
    for metric in Metric::ALL {
        golden::check(&format!("mixed-{}.table", metric.name()), || {
            text(&mixed(), &session(), &TableOptions::new(metric))
        });
    }
}

/// Rows say how sure they are where that is little; the whole always does.
#[test]
fn estimates() {
    let mut profile = mixed();
    profile.sample_bytes = Some(4096);
    for stack in profile.stacks.iter_mut().filter(|stack| stack.function.is_heap()) {
        let values = &mut stack.values;
        values.variances.bytes = u128::from(values.bytes) * 4096;
        values.variances.calls = u128::from(values.calls) * 2;
    }
    let mut session = session();
    session.settings.sample_bytes = 4096;
    session.settings.traced.sampled = true;
    session.losses = Losses::default();
    golden::check("mixed-sampled.table", || {
        text(&profile, &session, &TableOptions::new(Metric::AllocBytes))
    });
    golden::check("mixed-sampled-80.table", || {
        let options = TableOptions {
            width: Some(80),
            ..TableOptions::new(Metric::AllocCount)
        };
        text(&profile, &session, &options)
    });
}

#[test]
fn narrow_terminal() {
    let options = TableOptions {
        width: Some(80),
        top: 3,
        per_pid: true,
        ..TableOptions::new(Metric::AllocBytes)
    };
    golden::check("mixed-80.table", || text(&mixed(), &session(), &options));
}

#[test]
fn lines_fit_the_width() {
    for width in 60..200 {
        let options = TableOptions {
            width: Some(width),
            ..TableOptions::new(Metric::AllocBytes)
        };
        let text = text(&mixed(), &session(), &options);
        for line in text.lines() {
            assert!(line.chars().count() <= width, "{width}: {line}");
        }
    }
}

/// A program with a library of its own, Rust's and C++'s, in two processes.
fn layers() -> Profile {
    let mut sample = SampleProfile::default();
    let first = sample.process(10, "app");
    let second = sample.process(11, "helper");
    let start = sample.symbol("_start");
    let main = sample.line("app::main", "/app/src/main.rs", 9);
    let load = sample.line("app::load", "/app/src/load.rs", 20);
    let parse = sample.line("app::parse", "/app/src/parse.rs", 31);
    let fold = sample.line("core::iter::fold", "/rustc/1/library/core/src/iter.rs", 5);
    let push = sample.line(
        "alloc::vec::Vec<T,A>::push",
        "/rustc/1/library/alloc/src/vec.rs",
        7,
    );
    let grow = sample.symbol("alloc::raw_vec::grow_one");
    let cpp = sample.symbol("std::vector<int>::push_back(int const&)");
    let wrapper = sample.symbol("xmalloc");
    sample.heap(
        first,
        Function::Realloc,
        &[start, main, load, push, grow],
        10,
        8000,
    );
    sample.heap(first, Function::Malloc, &[start, main, fold, parse], 4, 1000);
    sample.heap(
        first,
        Function::Malloc,
        &[start, main, load, fold, parse, cpp],
        2,
        600,
    );
    sample.heap(second, Function::Calloc, &[start, main, wrapper], 1, 300);
    sample.heap(second, Function::Malloc, &[start], 1, 99);
    sample.stack(second, Function::Malloc, &[], None).calls = 1;
    sample.profile
}

#[test]
fn rows_by_each_property() {
    let by = [
        ("site", GroupBy::Site),
        ("function", GroupBy::Function),
        ("line", GroupBy::Line),
        ("module", GroupBy::Module),
        ("process", GroupBy::Process),
        ("allocator", GroupBy::Allocator),
        ("stack", GroupBy::Stack),
    ];
    golden::check("layers-by.table", || {
        let tables = by.map(|(name, by)| {
            let options = TableOptions {
                by,
                width: Some(100),
                ..TableOptions::new(Metric::AllocBytes)
            };
            format!("--by {name}\n{}", text(&layers(), &session(), &options))
        });
        tables.join("\n")
    });
}

#[test]
fn stacks_in_each_detail() {
    let details = [StackDetail::Site, StackDetail::Brief, StackDetail::Full];
    golden::check("layers-stacks.table", || {
        let tables = details.map(|stacks| {
            let options = TableOptions {
                stacks,
                width: Some(80),
                ..TableOptions::new(Metric::AllocBytes)
            };
            format!("{stacks:?}\n{}", text(&layers(), &session(), &options))
        });
        tables.join("\n")
    });
}

#[test]
fn trees_in_both_directions() {
    let directions = [TreeDirection::Callers, TreeDirection::Callees];
    golden::check("layers-tree.table", || {
        let trees = directions.map(|direction| {
            let options = TableOptions {
                tree: Some(direction),
                min_percent: Some(5.0),
                ..TableOptions::new(Metric::AllocBytes)
            };
            format!("{direction:?}\n{}", text(&layers(), &session(), &options))
        });
        trees.join("\n")
    });
}

/// Sums of rows are the total, whatever makes a row.
#[test]
fn no_weight_is_lost_in_groups() {
    let profile = layers();
    let total: u64 = profile.stacks.iter().map(|stack| stack.values.bytes).sum();
    let classes = CodeRules::DEFAULT.classes(&profile);
    for by in [GroupBy::Site, GroupBy::Function, GroupBy::Line, GroupBy::Module] {
        let options = TableOptions {
            by,
            ..TableOptions::new(Metric::AllocBytes)
        };
        assert_eq!(
            groups::weights(&profile, &classes, by, &options),
            u128::from(total),
            "{by:?}"
        );
    }
}

#[test]
fn rows_in_other_orders() {
    let first = |sort| {
        let options = TableOptions {
            sort: Some(sort),
            stacks: StackDetail::Site,
            ..TableOptions::new(Metric::AllocBytes)
        };
        let text = text(&layers(), &session(), &options);
        let mut rows = text.lines().skip_while(|line| !line.ends_with("SITE"));
        rows.nth(1).unwrap().to_owned()
    };
    assert!(first(SortColumn::Calls).contains("app::load"));
    assert!(
        first(SortColumn::Average).contains("app::load"),
        "{}",
        first(SortColumn::Average)
    );
    assert!(first(SortColumn::LiveBytes).contains("app::load"));
}

#[test]
fn ascii_where_there_is_no_utf8() {
    let options = TableOptions {
        charset: Charset::Ascii,
        width: Some(80),
        ..TableOptions::new(Metric::AllocBytes)
    };
    let text = text(&layers(), &session(), &options);
    assert!(text.is_ascii(), "{text}");
    assert!(
        text.contains("app::load (load.rs:20) -> ... -> realloc"),
        "{text}"
    );
    assert!(text.lines().all(|line| line.len() <= 80), "{text}");
}

#[test]
fn nothing_is_said_to_be_nothing() {
    let mut session = session();
    session.losses = Losses::default();
    golden::check("empty.table", || {
        text(
            &Profile::default(),
            &session,
            &TableOptions::new(Metric::AllocBytes),
        )
    });
}

#[test]
fn stacks_of_what_was_not_traced_are_not_said_to_be_none() {
    let mut session = session();
    session.settings.traced.heap = false;
    let text = text(
        &Profile::default(),
        &session,
        &TableOptions::new(Metric::AllocBytes),
    );
    assert!(!text.contains("allocat"), "{text}");
    assert!(text.contains("ADDRESS SPACE"));
}

#[test]
fn the_rest_is_summed() {
    let mut sample = SampleProfile::default();
    let process = sample.process(1, "p");
    for index in 0..30 {
        let frame = sample.symbol(&format!("f{index:02}"));
        sample.heap(process, Function::Malloc, &[frame], 1, 1024);
    }
    let options = TableOptions::new(Metric::AllocBytes);
    let text = text(&sample.profile, &session(), &options);
    assert!(
        text.contains("f19 → malloc\n… and 10 more stacks with 10.0 KiB (33.3 %)\n"),
        "{text}"
    );
}

#[test]
fn what_the_session_knows_is_in_the_head() {
    let mut session = session();
    session.losses = Losses::new([(Loss::ScratchBusy, 1), (Loss::RingFull, 2000)]);
    session.cost = Some(Cost {
        hits: 1000,
        foreign_hits: 100,
        bpf_ns: 1,
        estimated_target_ns: 1,
        estimated_overhead_percent: 0.94,
        prices: PricesBlock::default(),
        budget: Some(BudgetBlock {
            max_overhead_percent: 1.0,
            kept: true,
            sample_bytes_smallest: 1,
            sample_bytes_largest: 512,
            sample_bytes_last: 512,
            probed_time_share: 0.025,
            slowing_factor: Some(1.5),
            slowing_error: Some(0.1),
            windows: 9,
            calls_stderr: None,
            bytes_stderr: None,
        }),
    });
    session.settings.sample_bytes = 524_288;
    session.settings.traced.sampled = true;
    session.settings.traced.region = false;
    let text = text(&mixed(), &session, &TableOptions::new(Metric::AllocBytes));
    let head = text.lines().next().unwrap();
    assert_eq!(
        head,
        "worker 100, worker 101, server 4711 · 10.0 s · ≈ 3,211 allocations · ≈ 7.1 MiB · \
         estimated from one sample per 512.0 KiB, ± at 95 % · 99.89 % of bytes have whole stacks · \
         lost: 1 call without a stack (no scratch slot free) · lost: 2,000 calls without a stack (ring full) · \
         cost 0.9 % of a CPU · of it 10.0 % in processes that are not traced · \
         probes in for 2.5 % of the time, in 9 windows"
    );
}

#[test]
fn names_cannot_steer_the_terminal() {
    let mut sample = SampleProfile::default();
    let process = sample.process(1, "\u{1b}[2Jp");
    let frame = sample.line("f\u{1b}[31m", "a\u{7}.c", 3);
    sample.heap(process, Function::Malloc, &[frame], 1, u64::MAX);
    let text = text(
        &sample.profile,
        &session(),
        &TableOptions::new(Metric::AllocBytes),
    );
    assert!(
        !text.contains(|it: char| it.is_control() && it != '\n'),
        "{text:?}"
    );
}

#[test]
fn colours_change_no_words() {
    let plain = TableOptions::new(Metric::AllocBytes);
    let painted = TableOptions {
        colours: true,
        ..plain
    };
    let mut stripped = text(&mixed(), &session(), &painted);
    for code in ["\u{1b}[0m", "\u{1b}[1m", "\u{1b}[2m"] {
        assert!(stripped.contains(code));
        stripped = stripped.replace(code, "");
    }
    assert_eq!(stripped, text(&mixed(), &session(), &plain));
}
