//! Tables of small profiles, against golden files.

use super::*;
use crate::profile::Losses;
use crate::profile::cost::{BudgetBlock, Cost, PricesBlock};
use crate::report::golden;
use crate::report::sample::{SampleProfile, mixed, session};
use tracer_ebpf::{Function, Loss};

fn text(profile: &Profile, session: &Session, options: &TableOptions) -> String {
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
        text.contains("malloc ← f19\n… and 10 more stacks with 10.0 KiB (33.3 %)\n"),
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
