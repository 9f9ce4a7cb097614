//! `memtap doctor`: requirements on the kernel and the user.

mod checks;

use std::fmt::Write as _;
use std::process::ExitCode;

use anyhow::Result;

use super::{resources, terminal};
use crate::numeric::saturating_u64;
use checks::{Check, CheckAnswer};

/// Runs `doctor`. Fails with 1 where something that `record` needs is missing.
pub(super) fn run(json: bool) -> Result<ExitCode> {
    resources::require()?;
    let examined = checks::examine();
    if json {
        let checks: Vec<_> = examined
            .iter()
            .map(|check| {
                serde_json::json!({
                    "check": check.name,
                    "answer": check.answer.label(),
                    "needed_for": check.needed_for,
                    "detail": check.detail,
                })
            })
            .collect();
        let programs: Vec<_> = checks::verified_instructions()
            .into_iter()
            .map(|(name, count)| serde_json::json!({ "name": name, "verified_instructions": count }))
            .collect();
        let document = serde_json::json!({
            "schema": "memtap.doctor/1",
            "kernel": checks::kernel_release(),
            "checks": checks,
            "programs": programs,
            "probe_cost": cost_document(),
        });
        terminal::print_json(&document)?;
    } else {
        let mut text = format!("kernel {}\n", checks::kernel_release());
        text.extend(examined.iter().map(lines));
        text.push_str(&cost_line());
        terminal::print_text(&text)?;
    }
    let missing = examined
        .iter()
        .any(|check| check.answer == CheckAnswer::No && check.required);
    Ok(if missing {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

/// Returns the cost of a hit of each kind of probe, for people.
fn cost_line() -> String {
    match checks::traps() {
        Ok(traps) => format!(
            "{:<8} {:<34} emulated probe {:.0} ns, stepped {:.0} ns, return {:.0} ns\n",
            "measured", "what a hit costs its process", traps.emulated_ns, traps.stepped_ns, traps.return_ns
        ),
        Err(error) => format!(
            "{:<8} {:<34} {error}\n",
            "unknown", "what a hit costs its process"
        ),
    }
}

/// Returns the cost for machines; nothing where it could not be measured.
fn cost_document() -> serde_json::Value {
    checks::traps().map_or(serde_json::Value::Null, |traps| {
        serde_json::json!({
            "emulated_ns": saturating_u64(traps.emulated_ns),
            "stepped_ns": saturating_u64(traps.stepped_ns),
            "return_ns": saturating_u64(traps.return_ns),
        })
    })
}

/// A check for people: the answer and what was seen, and below it what is left out.
fn lines(check: &Check) -> String {
    let Check {
        name,
        answer,
        needed_for,
        detail,
        ..
    } = check;
    let mut lines = format!("{:<8} {name:<34} {detail}\n", answer.label());
    if *answer != CheckAnswer::Yes {
        let _infallible = writeln!(lines, "{:<8} needed for {needed_for}", "");
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_is_told_and_why() {
        let mut check = Check {
            name: "stacks by unwind tables",
            answer: CheckAnswer::Yes,
            needed_for: "--unwind dwarf",
            required: false,
            detail: "past the verifier in 3 ms".to_owned(),
        };
        let line = "yes      stacks by unwind tables            past the verifier in 3 ms\n";
        assert_eq!(lines(&check), line);
        check.answer = CheckAnswer::No;
        check.detail = "the kernel refused".to_owned();
        assert_eq!(
            lines(&check),
            "no       stacks by unwind tables            the kernel refused\n         needed for --unwind dwarf\n"
        );
    }
}
