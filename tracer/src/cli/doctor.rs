//! `memtap doctor`: what this kernel and this user may do.

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::{Context as _, Result};

use crate::doctor::{self, Answer};

/// Runs `doctor`. Fails with 1 where something that `record` needs is missing.
pub(super) fn run(json: bool) -> Result<ExitCode> {
    let findings = doctor::examine();
    let mut stdout = std::io::stdout().lock();
    if json {
        let checks: Vec<_> = findings
            .iter()
            .map(|finding| {
                serde_json::json!({
                    "check": finding.check,
                    "answer": finding.answer.label(),
                    "needed_for": finding.needed_for,
                    "detail": finding.detail,
                })
            })
            .collect();
        let programs: Vec<_> = doctor::verified_instructions()
            .into_iter()
            .map(|(name, count)| serde_json::json!({ "name": name, "verified_instructions": count }))
            .collect();
        let document = serde_json::json!({
            "schema": "memtap.doctor/1",
            "kernel": doctor::kernel_release(),
            "checks": checks,
            "programs": programs,
        });
        serde_json::to_writer_pretty(&mut stdout, &document).context("failed to write to standard output")?;
        writeln!(stdout)?;
    } else {
        writeln!(stdout, "kernel {}", doctor::kernel_release())?;
        for finding in &findings {
            writeln!(
                stdout,
                "{:<8} {:<34} {}",
                finding.answer.label(),
                finding.check,
                finding.detail
            )?;
        }
    }
    let missing = findings
        .iter()
        .any(|finding| finding.answer == Answer::No && finding.required);
    Ok(if missing {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}
