//! The page of a recording with many stacks: its size, and how smoothly a browser shows it.

use std::fs;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use memtap_tests::Browser;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use test_support::{privilege, process, workspace};

use super::grid::{Grid, Side, cell};
use super::measure::empty;
use super::progress;
use super::results::{Judgement, LimitVerdict};
use super::target::compile;

/// The stacks of the recording.
const STACKS: u32 = 50_000;

/// Turns that each stack takes, of two frames each.
const TURNS_OF_STACK: u32 = 20;

/// The most that the page may have.
const SIZE_LIMIT_MB: f64 = 20.0;

/// The most that may pass between two frames.
const FRAME_LIMIT_MS: f64 = 100.0;

/// Turns of the wheel, most of them inwards.
const TURNS: usize = 30;

/// The figures of the page.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct PageFigures {
    stacks: Option<f64>,
    size_mb: Option<f64>,
    /// From the opening of the page to its first picture.
    load_ms: Option<f64>,
    /// The longest time between two frames while the graph is zoomed.
    frame_ms: Option<f64>,
    /// From a change of the metric to the next picture.
    metric_ms: Option<f64>,
    /// The reason for missing figures.
    problem: Option<String>,
}

/// Returns why it cannot be measured here.
pub(crate) fn missing() -> Option<String> {
    (!workspace::in_path("chromium")).then(|| "chromium is not installed".to_owned())
}

/// Records, opens the page, and uses it.
pub(crate) fn measure(memtap: &Path, directory: &Path) -> PageFigures {
    progress::say("page");
    if let Some(problem) = missing() {
        return PageFigures {
            problem: Some(problem),
            ..PageFigures::default()
        };
    }
    attempt(memtap, &directory.join("page")).unwrap_or_else(|error| PageFigures {
        problem: Some(format!("{error:#}")),
        ..PageFigures::default()
    })
}

fn attempt(memtap: &Path, directory: &Path) -> Result<PageFigures> {
    empty(directory)?;
    let program = compile("many_stacks.c", &[], directory, "many_stacks")?;
    let page = directory.join("page.html");
    let mut command = privilege::elevated(memtap);
    command
        .args(["record", "-q", "--live", "--max-stacks", "131072", "-o"])
        .arg(&page)
        .arg("--")
        .arg(&program)
        .args([STACKS, TURNS_OF_STACK].map(|number| number.to_string()));
    process::output(&mut command, "record a program with many stacks")?;
    let size = fs::metadata(&page).context("failed to find the page")?.len();

    let mut browser = Browser::start()?;
    let began = Instant::now();
    browser.open(&page, "")?;
    let load_ms = milliseconds(began);
    let stacks = browser.text("#summary")?;
    let stacks = stacks.split(' ').next().unwrap_or_default().replace(',', "");
    let stacks: f64 = stacks.parse().context("failed to read the number of stacks")?;
    ensure!(stacks >= f64::from(STACKS), "the page has {stacks} stacks");

    browser.evaluate(
        "window.gaps = []; (function next(before) { requestAnimationFrame((now) => { \
         window.gaps.push(now - before); next(now); }); })(performance.now())",
    )?;
    for turn in 0..TURNS {
        let by = if turn * 3 < TURNS * 2 { -60.0 } else { 100.0 };
        browser.wheel(400.0, 250.0, by)?;
    }
    let longest: Value = browser.evaluate("Math.max(...window.gaps)")?;
    let began = Instant::now();
    browser.key("m")?;
    let metric_ms = milliseconds(began);
    browser.has_no_problems()?;
    Ok(PageFigures {
        stacks: Some(stacks),
        size_mb: u32::try_from(size / 1000).ok().map(|kb| f64::from(kb) / 1000.0),
        load_ms: Some(load_ms),
        frame_ms: longest.as_f64(),
        metric_ms: Some(metric_ms),
        problem: None,
    })
}

fn milliseconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1000.0
}

/// The table of it.
pub(crate) fn text(figures: &PageFigures) -> String {
    let right = |title| (title, Side::Right);
    let mut grid = Grid::new(&[
        right("stacks"),
        right("MB"),
        right("load ms"),
        right("longest frame ms"),
        right("other metric ms"),
        ("notes", Side::Left),
    ]);
    grid.row(vec![
        cell(figures.stacks, 0),
        cell(figures.size_mb, 1),
        cell(figures.load_ms, 0),
        cell(figures.frame_ms, 1),
        cell(figures.metric_ms, 0),
        figures.problem.clone().unwrap_or_default(),
    ]);
    format!(
        "## The page of many stacks\n\n{}\nIn Chromium without a window and without a graphics card. The longest frame is \
         of the graph while it is zoomed by the wheel; a screen has one in 16.7 ms.\n",
        grid.markdown()
    )
}

/// Holds the page against its limits.
pub(crate) fn judge(figures: &PageFigures) -> Vec<Judgement> {
    let judgement = |figure, limit, what: &str, unit: &str| {
        let text = cell(figure, 1);
        let verdict = match LimitVerdict::on(figure, limit) {
            // The browser may be missing.
            LimitVerdict::Unknown => LimitVerdict::Skip,
            verdict => verdict,
        };
        Judgement {
            verdict,
            part: "page".to_owned(),
            figure,
            limit,
            sentence: format!("{what} {text} {unit}; the limit is {limit} {unit}"),
        }
    };
    vec![
        judgement(
            figures.size_mb,
            SIZE_LIMIT_MB,
            "the page of many stacks has",
            "MB",
        ),
        judgement(figures.frame_ms, FRAME_LIMIT_MS, "its longest frame takes", "ms"),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_of_size_and_of_frames() {
        let verdicts = |figures: &PageFigures| judge(figures).iter().map(|it| it.verdict).collect::<Vec<_>>();
        let figures = PageFigures {
            size_mb: Some(9.8),
            frame_ms: Some(120.0),
            ..PageFigures::default()
        };
        assert_eq!(verdicts(&figures), [LimitVerdict::Pass, LimitVerdict::Fail]);
        assert_eq!(
            verdicts(&PageFigures::default()),
            [LimitVerdict::Skip, LimitVerdict::Skip]
        );
        assert!(text(&figures).contains("120.0"));
    }
}
