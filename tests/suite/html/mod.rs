//! Pages, used in a browser by clicks and keys.

mod tables;

use anyhow::{Result, ensure};
use memtap_tests::{Browser, Context, Fixture, Memtap, MemtapRecording, Need};
use serde_json::{Value, json};

use crate::case::{Case, case};

pub(crate) const CASES: &[Case] = &[
    case("html::graph", &[Need::Compiler, Need::Chromium], graph),
    case("html::keyboard", &[Need::Compiler, Need::Chromium], keyboard),
    case("html::filters", &[Need::Compiler, Need::Chromium], filters),
    case("html::tables", &[Need::Compiler, Need::Chromium], tables::tables),
    case("html::live", &[Need::Compiler, Need::Chromium], tables::live),
    case(
        "html::hostile_names",
        &[Need::Compiler, Need::Chromium],
        hostile_names,
    ),
    case("html::nothing", &[Need::Compiler, Need::Chromium], nothing),
];

/// The height of a row of the graph, in pixels.
const ROW: f64 = 18.0;

/// A recording of the fixture of all functions, and its page in a browser.
fn open(context: &Context, fragment: &str) -> Result<(MemtapRecording, Browser)> {
    let fixture = Fixture::c(context, "functions")?;
    let recording = Memtap::record(context)?
        .arguments(["--events", "heap,region", "--live", "-o", "page.html"])
        .fixture(&fixture)
        .run()?
        .whole()?;
    let mut browser = Browser::start()?;
    browser.open(&recording.directory().join("page.html"), fragment)?;
    Ok((recording, browser))
}

/// Clicks the box at a depth below the whole, at a share of the graph's width.
fn click_box(browser: &mut Browser, depth: u32, share: f64) -> Result<()> {
    let room = browser.evaluate(
        "(() => { const it = document.getElementById('canvas').getBoundingClientRect(); \
         return [it.left, it.top, it.width, it.height]; })()",
    )?;
    let [left, top, width, height] = [0, 1, 2, 3].map(|index| room[index].as_f64().unwrap_or_default());
    let y = top + height - (f64::from(depth) + 0.5) * ROW;
    browser.click(left + width * share, y, 1)
}

/// Chooses an option of a list by its text.
fn choose(browser: &mut Browser, list: &str, text: &str) -> Result<()> {
    let script = format!(
        "(() => {{ const it = document.getElementById({}); \
         it.value = [...it.options].find((option) => option.text === {}).value; \
         it.dispatchEvent(new Event('change')); }})()",
        json!(list),
        json!(text)
    );
    browser.evaluate(&script)?;
    browser.settle()
}

/// The cells of a table's rows.
fn rows(browser: &mut Browser) -> Result<Vec<Vec<String>>> {
    let cells = browser.evaluate(
        "[...document.querySelectorAll('#panel tbody tr')].map((tr) => \
         [...tr.children].map((cell) => cell.firstChild.textContent))",
    )?;
    Ok(serde_json::from_value(cells)?)
}

/// The names of a table's rows, from the top.
fn row_names(browser: &mut Browser) -> Result<Vec<String>> {
    Ok(rows(browser)?
        .into_iter()
        .filter_map(|mut row| row.pop())
        .collect())
}

fn says(browser: &mut Browser, selector: &str, words: &str) -> Result<()> {
    let text = browser.text(selector)?;
    ensure!(text.contains(words), "{selector} does not have {words:?}: {text}");
    Ok(())
}

/// The sum of folded lines, as the page writes bytes.
fn kib_or_mib(bytes: u64) -> String {
    let tenths = |unit: u64| (bytes * 10 + unit / 2) / unit;
    let (tenths, name) = if tenths(1 << 10) < 10_240 {
        (tenths(1 << 10), "KiB")
    } else {
        (tenths(1 << 20), "MiB")
    };
    format!("{}.{} {name}", tenths / 10, tenths % 10)
}

/// Zoom by click and by wheel, search, metric, direction; the address keeps all of it.
fn graph(context: &Context) -> Result<()> {
    let (recording, mut browser) = open(context, "")?;
    let total = kib_or_mib(recording.folded()?.total());
    says(&mut browser, "#summary", &total)?;
    says(&mut browser, "#summary", "nothing lost")?;

    // The process is the only child of the whole.
    click_box(&mut browser, 1, 0.5)?;
    says(&mut browser, "#selected .called", "functions")?;
    says(&mut browser, "#where", &format!("functions: {total}, 100.0 %"))?;
    // Deeper boxes are narrower: grow_large has most of the bytes.
    for depth in 2..12 {
        click_box(&mut browser, depth, 0.2)?;
        if browser.text("#selected .called")? == "grow_large" {
            break;
        }
    }
    says(&mut browser, "#selected .called", "grow_large")?;
    let zoomed = browser.fragment()?;
    ensure!(
        zoomed.contains("zoom=") && zoomed.contains("selected="),
        "{zoomed}"
    );
    says(&mut browser, "#selected", "main")?;

    browser.reload()?;
    ensure!(browser.fragment()? == zoomed, "the address changed");
    says(&mut browser, "#selected .called", "grow_large")?;
    ensure!(
        browser.evaluate("document.getElementById('unzoom').disabled")? == false,
        "zoom is lost"
    );

    browser.click_on("#unzoom", 1)?;
    ensure!(!browser.fragment()?.contains("zoom="), "still zoomed");
    browser.wheel(300.0, 300.0, -120.0)?;
    let ranged = browser.fragment()?;
    ensure!(ranged.contains("range="), "the wheel does not zoom: {ranged}");
    browser.wheel(300.0, 300.0, 2000.0)?;
    for _ in 0..20 {
        browser.wheel(300.0, 300.0, 2000.0)?;
    }
    ensure!(
        !browser.fragment()?.contains("range="),
        "the wheel does not zoom out"
    );

    browser.click_on("#search", 1)?;
    browser.write("make_(node|table)$")?;
    let folded = recording.folded()?;
    let part = folded.weight_of(|line| line.passes("make_node") || line.passes("make_table"));
    let share = 1000 * u128::from(part) / u128::from(folded.total());
    ensure!(
        share == 0,
        "the fixture has changed: {part} of {}",
        folded.total()
    );
    says(&mut browser, "#matches", "<0.1 %")?;
    says(&mut browser, "#matches", "in 2 functions")?;

    choose(&mut browser, "metric", "alloc-count")?;
    let calls: u64 = recording
        .summary()?
        .functions()?
        .values()
        .map(|it| it.calls)
        .sum();
    let shown = browser.text("#summary")?.replace(',', "");
    ensure!(
        shown.contains(&format!("{calls} calls")),
        "{calls} calls: {shown}"
    );
    choose(&mut browser, "metric", "region-bytes")?;
    says(&mut browser, "#where", "all: ")?;

    choose(&mut browser, "metric", "alloc-bytes")?;
    browser.click_on("#invert", 1)?;
    // The first row is of allocator functions now, the widest at the left.
    click_box(&mut browser, 1, 0.1)?;
    says(&mut browser, "#selected .called", "realloc")?;
    browser.click_on("#icicle", 1)?;
    browser.click_on("#theme", 1)?;
    let kept = browser.fragment()?;
    for word in ["search=make_", "invert=1", "icicle=1", "theme=dark", "zoom="] {
        ensure!(kept.contains(word), "{word} is not in {kept}");
    }
    browser.reload()?;
    ensure!(browser.fragment()? == kept, "the address changed");
    ensure!(
        browser.evaluate("document.documentElement.dataset.theme")? == "dark",
        "the theme is lost"
    );
    ensure!(
        browser.evaluate("document.getElementById('invert').checked")? == true,
        "the direction is lost"
    );
    says(&mut browser, "#matches", "in 2 functions")?;
    browser.has_no_problems()
}

/// Everything by keys alone.
fn keyboard(context: &Context) -> Result<()> {
    let (_recording, mut browser) = open(context, "")?;
    browser.key("g")?;
    ensure!(
        browser.evaluate("document.activeElement.id")? == "canvas",
        "g does not go to the graph"
    );
    browser.key("ArrowUp")?;
    says(&mut browser, "#where", "all: ")?;
    browser.key("ArrowUp")?;
    says(&mut browser, "#where", "functions: ")?;
    browser.key("ArrowUp")?;
    let inner = browser.text("#where")?;
    ensure!(
        !inner.contains("functions: "),
        "the cursor does not move: {inner}"
    );
    browser.key("Enter")?;
    ensure!(browser.fragment()?.contains("zoom="), "Enter does not zoom");
    browser.key("ArrowDown")?;
    says(&mut browser, "#where", "functions: ")?;
    browser.key("+")?;
    ensure!(browser.fragment()?.contains("range="), "+ does not zoom");
    browser.key("Escape")?;
    ensure!(
        !browser.fragment()?.contains("range="),
        "Escape does not zoom out"
    );
    browser.key("Escape")?;
    ensure!(
        !browser.fragment()?.contains("selected="),
        "Escape does not clear"
    );

    browser.key("m")?;
    ensure!(
        browser.fragment()?.contains("metric=alloc-count"),
        "m does nothing"
    );
    browser.key("M")?;
    browser.key("c")?;
    browser.key("o")?;
    browser.key("i")?;
    let fragment = browser.fragment()?;
    for word in ["own=1", "invert=1", "icicle=1"] {
        ensure!(fragment.contains(word), "{word} is not in {fragment}");
    }
    browser.key("/")?;
    browser.write("grow")?;
    says(&mut browser, "#matches", "%")?;
    // A letter in a field is a letter.
    browser.key("i")?;
    ensure!(
        browser.fragment()?.contains("icicle=1"),
        "a field's key was taken"
    );
    browser.key("Escape")?;
    browser.key("2")?;
    ensure!(browser.fragment()?.contains("tab=functions"), "2 does nothing");
    browser.evaluate("document.querySelector('#panel tbody tr').focus()")?;
    browser.key("ArrowDown")?;
    browser.key("Enter")?;
    ensure!(
        browser.fragment()?.contains("selected="),
        "Enter does not select a row"
    );
    browser.key("z")?;
    ensure!(browser.fragment()?.contains("zoom="), "z does not zoom");
    browser.key("?")?;
    ensure!(
        browser.evaluate("document.getElementById('help').open")? == true,
        "? opens no help"
    );
    browser.has_no_problems()
}

/// Filters by expression, function, process and owner of the code.
fn filters(context: &Context) -> Result<()> {
    let (recording, mut browser) = open(context, "filter=make_node")?;
    let folded = recording.folded()?;
    let nodes = folded.weight_of(|line| line.passes("make_node"));
    says(&mut browser, "#summary", &kib_or_mib(nodes))?;
    says(&mut browser, "#summary", "1 stack ")?;
    browser.evaluate(
        "(() => { const it = document.getElementById('filter'); it.value = '!make_node'; \
                      it.dispatchEvent(new Event('input')); })()",
    )?;
    browser.settle()?;
    says(&mut browser, "#summary", &kib_or_mib(folded.total() - nodes))?;
    browser.evaluate(
        "(() => { const it = document.getElementById('filter'); it.value = '('; \
                      it.dispatchEvent(new Event('input')); })()",
    )?;
    browser.settle()?;
    let invalid = browser.evaluate("document.getElementById('filter').getAttribute('aria-invalid')")?;
    ensure!(invalid == "true", "a broken expression is not marked: {invalid}");

    browser.click_on("#reset", 1)?;
    choose(&mut browser, "function", "calloc")?;
    let calloc = folded.weight_of(|line| line.function == "calloc");
    says(&mut browser, "#summary", &kib_or_mib(calloc))?;
    ensure!(
        browser.fragment()?.contains("function=calloc"),
        "the filter is not kept"
    );
    browser.reload()?;
    says(&mut browser, "#summary", &kib_or_mib(calloc))?;
    browser.click_on("#reset", 1)?;
    says(&mut browser, "#summary", &kib_or_mib(folded.total()))?;

    let processes = browser.evaluate("document.getElementById('process').options.length")?;
    ensure!(processes == 2, "{processes} processes to choose from");
    browser.evaluate(
        "(() => { const it = document.getElementById('process'); it.value = '0'; \
                      it.dispatchEvent(new Event('change')); })()",
    )?;
    browser.settle()?;
    says(&mut browser, "#summary", &kib_or_mib(folded.total()))?;

    // Frames of the C library below main are gone, and main is what the process calls.
    browser.open(&recording.directory().join("page.html"), "tab=functions")?;
    let all = row_names(&mut browser)?;
    ensure!(all.iter().any(|name| name.contains("libc_start")), "{all:?}");
    browser.key("o")?;
    let own = row_names(&mut browser)?;
    ensure!(!own.iter().any(|name| name.contains("libc_start")), "{own:?}");
    ensure!(own.iter().any(|name| name == "main"), "{own:?}");
    browser.has_no_problems()
}

/// A process whose name is markup is text on the page.
fn hostile_names(context: &Context) -> Result<()> {
    let fixture = Fixture::c(context, "quick")?;
    let memtap = Memtap::record(context)?;
    let name = "<b id=x>&<i>";
    let program = memtap.directory().join(name);
    std::fs::copy(&fixture.path, &program)?;
    let recording = memtap
        .arguments(["-o", "page.html"])
        .command([&program])
        .run()?
        .whole()?;
    let mut browser = Browser::start()?;
    browser.open(&recording.directory().join("page.html"), "tab=processes")?;
    ensure!(
        browser.evaluate("document.getElementById('x')")? == Value::Null,
        "a name is markup"
    );
    ensure!(
        browser.evaluate("document.scripts.length")? == 2,
        "there is another script"
    );
    says(&mut browser, "#title", name)?;
    says(&mut browser, "#panel tbody th", name)?;
    says(&mut browser, "title", name)?;
    click_box(&mut browser, 1, 0.5)?;
    says(&mut browser, "#selected .called", name)?;
    browser.key("5")?;
    says(&mut browser, "#panel", name)?;
    browser.has_no_problems()
}

/// A page of no stacks says so, and works.
fn nothing(context: &Context) -> Result<()> {
    let fixture = Fixture::c(context, "quick")?;
    let recording = Memtap::record(context)?
        .arguments(["--live", "--min-size", "1G", "-o", "page.html"])
        .fixture(&fixture)
        .run()?
        .whole()?;
    let mut browser = Browser::start()?;
    browser.open(&recording.directory().join("page.html"), "")?;
    says(&mut browser, "#where", "nothing to show")?;
    says(&mut browser, "#panel", "Nothing to show with these filters.")?;
    for key in [
        "m", "c", "o", "i", "2", "3", "4", "5", "g", "ArrowUp", "Enter", "+", "0",
    ] {
        browser.key(key)?;
    }
    click_box(&mut browser, 0, 0.5)?;
    browser.has_no_problems()
}
