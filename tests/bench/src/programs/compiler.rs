//! The compiler proper on a C file of some thousand lines.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::ProgramWorkload;
use test_support::process;

/// Functions of the file.
const FUNCTIONS: usize = 40;

/// `cc1 -O2`, which is what `cc -O2` runs: started by itself, since heaptrack does not follow a
/// program's children.
pub(crate) fn prepare(directory: &Path) -> Result<ProgramWorkload> {
    let mut ask = Command::new("cc");
    let compiler = process::output(ask.arg("-print-prog-name=cc1"), "ask cc for its compiler")?;
    let compiler = compiler.trim();
    ensure!(
        Path::new(compiler).is_file(),
        "cc is not gcc: it has no cc1 of its own"
    );
    let file = directory.join("generated.c");
    fs::write(&file, source(FUNCTIONS)).with_context(|| format!("failed to write {}", file.display()))?;
    let words = [compiler, "-quiet", "-O2", "-o", "/dev/null"];
    Ok(ProgramWorkload {
        command: words
            .into_iter()
            .map(str::to_owned)
            .chain([file.display().to_string()])
            .collect(),
        environment: Vec::new(),
    })
}

/// A file of functions that differ: loops, branches, calls of each other, and tables.
fn source(functions: usize) -> String {
    let mut text =
        String::from("typedef unsigned long word;\nstruct item { word key, value; struct item *next; };\n");
    for index in 0..functions {
        let (prime, shift) = (2 * index + 10_007, index % 23 + 3);
        let called = if index == 0 {
            "key".to_owned()
        } else {
            format!("function_{}(key % {prime}, list ? list->next : 0)", index / 2)
        };
        // A write into a String cannot fail.
        write!(
            text,
            "\nstatic const word table_{index}[8] = {{{prime}, {shift}, {index}, 4, 5, 6, 7, 8}};\n\
             word function_{index}(word key, struct item *list) {{\n\
             \x20   word sum = {index}, state = key ^ {prime};\n\
             \x20   for (word turn = 0; turn < (key & 63); turn++) {{\n\
             \x20       state = (state << {shift}) ^ (state >> 7) ^ table_{index}[turn & 7];\n\
             \x20       switch (state % 9) {{\n\
             \x20       case 0: sum += turn * {prime}; break;\n\
             \x20       case 1: sum ^= table_{index}[state & 7]; break;\n\
             \x20       case 2: sum -= state / (turn + 1); break;\n\
             \x20       case 5: if (list) sum += list->value % (turn + {shift}); break;\n\
             \x20       default: sum += state & 0xff;\n\
             \x20       }}\n\
             \x20   }}\n\
             \x20   for (struct item *item = list; item; item = item->next) {{\n\
             \x20       if (item->key == key) return item->value + sum;\n\
             \x20       item->value = item->value * {prime} + (sum >> {shift});\n\
             \x20   }}\n\
             \x20   if (key > {prime}) sum += {called};\n\
             \x20   return sum;\n\
             }}\n"
        )
        .unwrap_or_default();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::source;

    #[test]
    fn functions_call_those_before_them() {
        let text = source(5);
        assert_eq!(text.matches("\nword function_").count(), 5);
        assert!(text.contains("sum += function_2(key"));
        assert!(!text.contains("sum += function_4(key"));
    }
}
