//! A stack as tables show it: its site, the call that it made, and its callers.

use super::text::{Charset, DIM, MORE, paint};
use crate::report::own_code::CodeClass;

/// Between a frame and its caller.
const CALLED_BY: &str = " ← ";

/// Between a frame and what it calls.
const CALLS: &str = " → ";

/// Before the callers of a site, on lines of their own.
const INDENT: &str = "      ";

/// Lines of callers at most.
const MAX_CALLER_LINES: usize = 3;

/// Columns of a line of callers where the width is not known, as in a file: stacks of interpreters
/// have hundreds of frames.
const UNLIMITED_WIDTH: usize = 160;

/// The fewest columns that a shortened name can be recognised by.
const MIN_NAME_WIDTH: usize = 12;

/// The columns that a name keeps beside its line; with less, the line goes.
const LONG_NAME_WIDTH: usize = 24;

/// A frame as text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ShownFrame {
    /// Its name.
    pub(super) name: String,
    /// `file:line`, where it is known.
    pub(super) source: Option<String>,
    /// The owner of its code.
    pub(super) class: CodeClass,
}

impl ShownFrame {
    /// A mark in place of frames.
    pub(super) fn mark(text: &str) -> Self {
        Self {
            name: text.to_owned(),
            source: None,
            class: CodeClass::Own,
        }
    }

    fn text(&self, colours: bool) -> String {
        match &self.source {
            Some(source) => format!("{}{}", self.name, paint(&format!(" ({source})"), DIM, colours)),
            None => self.name.clone(),
        }
    }

    fn width(&self, charset: Charset) -> usize {
        charset.width(&self.text(false))
    }

    /// Returns the frame in at most `room` columns: the middle of a long name goes first, then the
    /// line, then more of the name.
    fn fitted(&self, room: usize, charset: Charset) -> Self {
        let mut fitted = self.clone();
        if fitted.width(charset) <= room {
            return fitted;
        }
        let source_width = self.width(charset) - charset.width(&self.name);
        let name_room = room.saturating_sub(source_width);
        if name_room >= LONG_NAME_WIDTH {
            fitted.name = charset.shorten(&fitted.name, name_room);
            return fitted;
        }
        fitted.source = None;
        fitted.name = charset.shorten(&fitted.name, room.max(MIN_NAME_WIDTH));
        fitted
    }
}

/// A stack in parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct StackView {
    /// The site; the function itself where there are no frames.
    pub(super) site: ShownFrame,
    /// The function that was called, where it is not the site.
    function: Option<String>,
    /// True if there are frames between the site and the function.
    is_indirect: bool,
    /// The frames outside the site, the nearest first.
    callers: Vec<ShownFrame>,
    /// All frames, from the function outwards.
    frames: Vec<ShownFrame>,
}

impl StackView {
    /// Views a stack. `frames` go from the innermost outwards; `site` is the position among them of
    /// the site, where there is one; `end` is a mark for what is missing outside them.
    pub(super) fn new(function: &str, frames: &[ShownFrame], site: Option<usize>, end: Option<&str>) -> Self {
        let mut all = vec![ShownFrame {
            class: CodeClass::Libc,
            ..ShownFrame::mark(function)
        }];
        all.extend(frames.iter().cloned());
        all.extend(end.map(ShownFrame::mark));
        let site_at = site.or_else(|| (!frames.is_empty()).then_some(0));
        let Some(at) = site_at else {
            return Self {
                site: ShownFrame::mark(function),
                function: None,
                is_indirect: false,
                callers: end.map(ShownFrame::mark).into_iter().collect(),
                frames: all,
            };
        };
        let mut callers = frames[at + 1..].to_vec();
        if frames[at].class == CodeClass::Own {
            callers = fold(callers);
        }
        callers.extend(end.map(ShownFrame::mark));
        Self {
            site: frames[at].clone(),
            function: Some(function.to_owned()),
            is_indirect: at > 0,
            callers,
            frames: all,
        }
    }

    /// The site and the function that was called, in at most `room` columns.
    pub(super) fn site_line(&self, room: Option<usize>, charset: Charset, colours: bool) -> String {
        let called: String = match &self.function {
            Some(function) if self.is_indirect => format!("{CALLS}{MORE}{CALLS}{function}"),
            Some(function) => format!("{CALLS}{function}"),
            None => String::new(),
        };
        let Some(room) = room else {
            return format!("{}{}", self.site.text(colours), paint(&called, DIM, colours));
        };
        let whole = self.site.width(charset) + charset.width(&called);
        if whole <= room {
            return format!("{}{}", self.site.text(colours), paint(&called, DIM, colours));
        }
        self.site.fitted(room, charset).text(colours)
    }

    /// The callers, wrapped to `room` columns, dimmed.
    pub(super) fn caller_lines(&self, room: Option<usize>, charset: Charset, colours: bool) -> Vec<String> {
        if self.callers.is_empty() {
            return Vec::new();
        }
        let room = room
            .unwrap_or(UNLIMITED_WIDTH)
            .saturating_sub(INDENT.len())
            .max(MIN_NAME_WIDTH);
        let arrow = CALLED_BY.trim_start();
        let arrow_width = charset.width(arrow);
        let more_width = charset.width(CALLED_BY) + charset.width(MORE);
        let mut lines: Vec<String> = vec![String::new()];
        let mut used = 0;
        for (index, caller) in self.callers.iter().enumerate() {
            // The last line keeps room for the mark of what does not fit.
            let is_outermost = index + 1 == self.callers.len();
            let reserve = |lines: &[String]| {
                if lines.len() == MAX_CALLER_LINES && !is_outermost {
                    more_width
                } else {
                    0
                }
            };
            let taken = used + 1 + arrow_width + caller.width(charset) + reserve(&lines);
            if used > 0 && taken > room {
                if lines.len() == MAX_CALLER_LINES {
                    push(&mut lines, &format!("{CALLED_BY}{MORE}"));
                    break;
                }
                lines.push(String::new());
                used = 0;
            }
            if used > 0 {
                push(&mut lines, " ");
                used += 1;
            }
            let left = room.saturating_sub(used + arrow_width + reserve(&lines));
            let shown = caller.fitted(left, charset);
            push(&mut lines, &format!("{arrow}{}", shown.text(false)));
            used += arrow_width + shown.width(charset);
        }
        lines
            .into_iter()
            .map(|line| format!("{INDENT}{}", paint(&line, DIM, colours)))
            .collect()
    }

    /// Every frame, from the function outwards, each on a line.
    pub(super) fn frame_lines(&self, colours: bool) -> Vec<String> {
        let lines = self.frames.iter().enumerate().map(|(index, frame)| {
            let arrow = if index == 0 { "" } else { CALLED_BY.trim_start() };
            let text = frame.text(false);
            format!("{INDENT}{}", paint(&format!("{arrow}{text}"), DIM, colours))
        });
        lines.collect()
    }
}

/// Adds text to the last line.
fn push(lines: &mut [String], text: &str) {
    if let Some(line) = lines.last_mut() {
        line.push_str(text);
    }
}

/// Folds each run of library frames to `…` and the outermost of them, which is what the program
/// called. At the outer end such a run is `…` alone; the C library's start of a program or a thread
/// is nothing.
fn fold(frames: Vec<ShownFrame>) -> Vec<ShownFrame> {
    let mut folded: Vec<ShownFrame> = Vec::with_capacity(frames.len());
    let mut run: Vec<ShownFrame> = Vec::new();
    for frame in frames {
        if frame.class == CodeClass::Own {
            if run.len() > 2 {
                folded.push(ShownFrame::mark(MORE));
                folded.extend(run.pop());
            } else {
                folded.append(&mut run);
            }
            run.clear();
            folded.push(frame);
        } else {
            run.push(frame);
        }
    }
    if run.iter().any(|frame| frame.class == CodeClass::Library) {
        folded.push(ShownFrame::mark(MORE));
    }
    without_rust_start(folded)
}

/// Leaves out the start of a Rust program: its `main`, as C knows it, calls the standard library,
/// which calls the program's.
fn without_rust_start(mut frames: Vec<ShownFrame>) -> Vec<ShownFrame> {
    if let [.., start, main] = &frames[..]
        && main.name == "main"
        && start.name.starts_with("std::rt::")
    {
        frames.truncate(frames.len() - 2);
        if frames.last().is_none_or(|frame| frame.name != MORE) {
            frames.push(ShownFrame::mark(MORE));
        }
    }
    frames
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(name: &str, source: Option<&str>, class: CodeClass) -> ShownFrame {
        ShownFrame {
            name: name.to_owned(),
            source: source.map(str::to_owned),
            class,
        }
    }

    fn view() -> StackView {
        use CodeClass::{Libc, Library, Own};
        let frames = vec![
            frame("alloc::alloc::alloc", None, Library),
            frame("alloc::vec::Vec<T,A>::push", None, Library),
            frame("app::add", Some("lib.rs:140"), Own),
            frame("core::iter::fold", None, Library),
            frame("core::iter::map", None, Library),
            frame("core::iter::collect", None, Library),
            frame("app::main", Some("main.rs:7"), Own),
            frame("std::rt::lang_start", None, Library),
            frame("_start", None, Libc),
        ];
        StackView::new("malloc", &frames, Some(2), None)
    }

    #[test]
    fn the_site_is_first_and_the_callers_below() {
        let view = view();
        assert_eq!(
            view.site_line(None, Charset::Unicode, false),
            "app::add (lib.rs:140) → … → malloc"
        );
        assert_eq!(
            view.caller_lines(None, Charset::Unicode, false),
            ["      ← … ← core::iter::collect ← app::main (main.rs:7) ← …"]
        );
        assert_eq!(view.frame_lines(false).len(), 10);
        assert_eq!(view.frame_lines(false)[0], "      malloc");
        assert_eq!(view.frame_lines(false)[3], "      ← app::add (lib.rs:140)");
    }

    #[test]
    fn start_of_a_rust_program_is_left_out() {
        let frames = [
            "app::main",
            "std::rt::lang_start",
            "main",
            "__libc_start_main_impl",
        ];
        let classes = [
            CodeClass::Own,
            CodeClass::Library,
            CodeClass::Own,
            CodeClass::Libc,
        ];
        let frames = frames
            .iter()
            .zip(classes)
            .map(|(name, class)| frame(name, None, class));
        let mut all = vec![frame("app::add", None, CodeClass::Own)];
        all.extend(frames);
        let view = StackView::new("malloc", &all, Some(0), None);
        assert_eq!(
            view.caller_lines(None, Charset::Unicode, false),
            ["      ← app::main ← …"]
        );
    }

    #[test]
    fn what_does_not_fit_gives_way() {
        let view = view();
        let site = |room| view.site_line(Some(room), Charset::Unicode, false);
        assert_eq!(site(34), "app::add (lib.rs:140) → … → malloc");
        assert_eq!(site(33), "app::add (lib.rs:140)");
        assert_eq!(site(20), "app::add");
        let long = ShownFrame {
            name: "word_index::Index::score_documents".to_owned(),
            ..frame("", Some("word_index.rs:127"), CodeClass::Own)
        };
        let fitted = |room| long.fitted(room, Charset::Unicode).text(false);
        assert_eq!(
            fitted(54),
            "word_index::Index::score_documents (word_index.rs:127)"
        );
        assert_eq!(fitted(50), "word_index::Ind…core_documents (word_index.rs:127)");
        assert_eq!(fitted(40), "word_index::Index::score_documents");
        assert_eq!(
            view.caller_lines(Some(40), Charset::Unicode, false),
            [
                "      ← … ← core::iter::collect",
                "      ← app::main (main.rs:7) ← …"
            ]
        );
    }

    #[test]
    fn no_width_is_exceeded_and_no_more_than_three_lines_are_taken() {
        let mut frames = Vec::new();
        for index in 0..40 {
            let name = format!("app::module{index}::größe").repeat(index % 5 + 1);
            frames.push(frame(&name, Some("a.rs:1"), CodeClass::Own));
        }
        let view = StackView::new("malloc", &frames, Some(0), Some("[truncated]"));
        for charset in [Charset::Unicode, Charset::Ascii] {
            for room in 28..200 {
                assert!(charset.width(&view.site_line(Some(room), charset, false)) <= room);
                let lines = view.caller_lines(Some(room), charset, false);
                assert!(lines.len() <= MAX_CALLER_LINES);
                for line in &lines {
                    assert!(charset.width(line) <= room, "{room}: {line}");
                }
                assert!(lines[lines.len() - 1].ends_with(MORE));
            }
        }
    }

    #[test]
    fn stacks_without_own_code_show_what_there_is() {
        let none = StackView::new("malloc", &[], None, Some("[stack lost]"));
        assert_eq!(none.site_line(None, Charset::Unicode, false), "malloc");
        assert_eq!(
            none.caller_lines(None, Charset::Unicode, false),
            ["      ← [stack lost]"]
        );
        let libc = vec![
            frame("_IO_file_doallocate", None, CodeClass::Libc),
            frame("_start", None, CodeClass::Libc),
        ];
        let libc = StackView::new("malloc", &libc, None, None);
        assert_eq!(
            libc.site_line(None, Charset::Unicode, false),
            "_IO_file_doallocate → malloc"
        );
        assert_eq!(
            libc.caller_lines(None, Charset::Unicode, false),
            ["      ← _start"]
        );
    }

    #[test]
    fn colours_take_no_room() {
        let strip = |text: &str| text.replace("\u{1b}[2m", "").replace("\u{1b}[0m", "");
        let view = view();
        let plain = view.site_line(Some(60), Charset::Unicode, false);
        let painted = view.site_line(Some(60), Charset::Unicode, true);
        assert_ne!(plain, painted);
        assert_eq!(strip(&painted), plain);
        let plain = view.caller_lines(Some(60), Charset::Unicode, false);
        let painted = view.caller_lines(Some(60), Charset::Unicode, true);
        assert_eq!(painted.iter().map(|line| strip(line)).collect::<Vec<_>>(), plain);
    }
}
