//! Brackets in the names of functions, where `<` and `>` are operators too.

use super::operators::{self, is_identifier};

/// The mark of arguments that are left out.
pub(super) const CUT: &str = "<…>";

/// Groups that are looked into, one inside the other; what is deeper is left as it is.
const MAX_DEPTH: usize = 32;

/// The place behind the group that begins at `open`; nothing where it has no end.
pub(super) fn end_of_group(text: &str, open: usize) -> Option<usize> {
    let bytes = text.as_bytes();
    let mut opened = Vec::new();
    let mut at = open;
    while let Some(&byte) = bytes.get(at) {
        if let Some(end) = operators::symbol_at(text, at) {
            at = end;
            continue;
        }
        match byte {
            b'(' | b'[' | b'{' | b'<' => opened.push(byte),
            b'>' => match opened.last() {
                _ if at > open && bytes[at - 1] == b'-' => {}
                Some(b'<') => {
                    opened.pop();
                }
                // "greater than", in an expression.
                _ => {}
            },
            b')' | b']' | b'}' => {
                // "less than", in an expression.
                while opened.last() == Some(&b'<') {
                    opened.pop();
                }
                let opening = match byte {
                    b')' => b'(',
                    b']' => b'[',
                    _ => b'{',
                };
                if opened.pop() != Some(opening) {
                    return None;
                }
            }
            _ => {}
        }
        at += 1;
        if opened.is_empty() {
            return Some(at);
        }
    }
    None
}

/// Copies a group, or the type of a conversion, and leaves out the arguments of what is named in
/// it.
pub(super) fn copy_without_arguments(text: &str, out: &mut String) {
    copy(text, out, MAX_DEPTH);
}

fn copy(text: &str, out: &mut String, depth: usize) {
    let bytes = text.as_bytes();
    let mut copied = 0;
    let mut at = 0;
    while at < bytes.len() {
        if let Some(end) = operators::symbol_at(text, at) {
            at = end;
            continue;
        }
        // The group's own bracket is not one of arguments.
        if bytes[at] != b'<' || at == 0 {
            at += 1;
            continue;
        }
        let Some(end) = end_of_group(text, at) else {
            // "less than", in an expression.
            at += 1;
            continue;
        };
        let group = &text[at..end];
        out.push_str(&text[copied..at]);
        if is_identifier(bytes[at - 1]) {
            push_arguments(group, out);
        } else if text[..at].ends_with("::") && !is_kept(group) {
            out.truncate(out.len() - "::".len());
        } else if depth > 0 {
            copy(group, out, depth - 1);
        } else {
            out.push_str(group);
        }
        at = end;
        copied = end;
    }
    out.push_str(&text[copied..]);
}

/// Appends what stands for a group of arguments.
pub(super) fn push_arguments(group: &str, out: &mut String) {
    out.push_str(if group.len() > "<>".len() { CUT } else { group });
}

/// Returns true for a group behind `::` that is a part of the path: a block of implementations as
/// rustc's older mangling has it, or a function without a name as GCC's debug information has it.
pub(super) fn is_kept(group: &str) -> bool {
    ["<impl ", "<lambda", "<unnamed"]
        .iter()
        .any(|start| group.starts_with(start))
}
