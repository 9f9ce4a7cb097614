//! Names of frames and processes in text.

use crate::message::escape::one_line;
use crate::profile::{Frame, FrameName, ProfiledProcess};

/// The frame after the process where the walk did not reach the outermost frame.
pub(super) const TRUNCATED: &str = "[truncated]";

/// The only frame where the stack itself was lost.
pub(super) const STACK_LOST: &str = "[stack lost]";

/// The label of an empty name.
const UNNAMED: &str = "[unnamed]";

/// Code that was compiled at run time, where its compiler did not name it. Its addresses are others
/// in every run.
pub(super) const COMPILED: &str = "[jit]";

/// The label of a process whose name is not known.
const UNKNOWN_PROCESS: &str = "[unknown process]";

/// The frame's name on one line, escaped.
pub(super) fn frame(frame: &Frame) -> String {
    match &frame.name {
        FrameName::Symbol(name) if name.is_empty() => UNNAMED.to_owned(),
        FrameName::Symbol(name) => one_line(name).into_owned(),
        FrameName::Offset { module, address } => format!("[{}+{address:#x}]", one_line(module)),
        FrameName::Compiled => COMPILED.to_owned(),
        FrameName::Unmapped(address) => format!("[{address:#x}]"),
    }
}

/// The process's name on one line: `comm`, or `comm-PID` where `pid` is asked for and known.
pub(super) fn process(process: &ProfiledProcess, pid: bool) -> String {
    let comm = if process.comm.is_empty() {
        UNKNOWN_PROCESS.to_owned()
    } else {
        one_line(&process.comm).into_owned()
    };
    match process.pid {
        number if pid && number != 0 => format!("{comm}-{number}"),
        _ => comm,
    }
}

/// The process's name and number on one line: `comm PID`, and the number inside its container where
/// that is another.
pub(super) fn process_and_number(process: &ProfiledProcess) -> String {
    let comm = self::process(process, false);
    match (process.pid, process.inner_pid) {
        (0, _) => comm,
        (pid, Some(inner)) if inner != pid => format!("{comm} {pid} ({inner} in its container)"),
        (pid, _) => format!("{comm} {pid}"),
    }
}

/// A name as it stands in a folded line, where `;` parts frames.
pub(super) fn folded(name: &str) -> String {
    name.replace(';', ":")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: FrameName) -> String {
        frame(&Frame {
            name,
            source: None,
            inlined: false,
            object: None,
        })
    }

    #[test]
    fn frames_without_a_symbol_have_an_address() {
        let module = "libc.so.6".into();
        let address = 0x1f2c;
        assert_eq!(named(FrameName::Offset { module, address }), "[libc.so.6+0x1f2c]");
        assert_eq!(named(FrameName::Unmapped(0x7f00_1234)), "[0x7f001234]");
        assert_eq!(named(FrameName::Symbol("".into())), "[unnamed]");
        assert_eq!(named(FrameName::Compiled), "[jit]");
    }

    #[test]
    fn names_stay_on_their_line() {
        assert_eq!(
            named(FrameName::Symbol("a\r\nb\tc\u{1b}[31m\u{85}\u{2028}é".into())),
            "a  b c\\u{1b}[31m  é"
        );
        assert_eq!(folded("<[u8; 4] as T>::f;"), "<[u8: 4] as T>::f:");
    }

    #[test]
    fn processes_have_a_name() {
        let mut it = ProfiledProcess {
            held: None,
            hits: 0,
            pid: 42,
            inner_pid: None,
            comm: "Web Content".into(),
            exe: None,
            exited: false,
        };
        assert_eq!(process(&it, false), "Web Content");
        assert_eq!(process(&it, true), "Web Content-42");
        assert_eq!(process_and_number(&it), "Web Content 42");
        it.inner_pid = Some(42);
        assert_eq!(process_and_number(&it), "Web Content 42");
        it.inner_pid = Some(7);
        assert_eq!(process_and_number(&it), "Web Content 42 (7 in its container)");
        it.pid = 0;
        it.comm.clear();
        assert_eq!(process(&it, true), "[unknown process]");
        assert_eq!(process_and_number(&it), "[unknown process]");
    }
}
