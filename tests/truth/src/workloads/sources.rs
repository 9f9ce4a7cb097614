//! Text that is generated: long, and the same each time.

use std::fmt::Write as _;

/// A stream for `git fast-import`: a history of `count` commits to a few files.
pub(crate) fn commits(count: usize) -> String {
    let mut stream = String::new();
    for number in 0..count {
        let message = format!("Change {number}\n\nWhy it was made.\n");
        let time = 1_700_000_000 + number * 3600;
        // Writing to a string cannot fail.
        write!(
            stream,
            "commit refs/heads/main\ncommitter Some One <one@example.org> {time} +0000\ndata {}\n{message}",
            message.len()
        )
        .unwrap_or_default();
        for file in 0..=number % 5 {
            let mut text = String::new();
            for line in 0..20 + number {
                writeln!(text, "line {} of file {file}", line * (1 + (number + line) % 3))
                    .unwrap_or_default();
            }
            write!(
                stream,
                "M 100644 inline directory{}/file{file}.txt\ndata {}\n{text}\n",
                file % 2,
                text.len()
            )
            .unwrap_or_default();
        }
    }
    stream
}

/// A file of C with `count` functions, each with loops, a switch and calls to those before it.
pub(crate) fn functions(count: usize) -> String {
    let mut text = String::from("struct item { struct item *next; int values[8]; double weight; };\n");
    for number in 0..count {
        let callee = match number {
            0 => "value".to_owned(),
            _ => format!("function{}(item, value + {number})", number / 2),
        };
        write!(
            text,
            "int function{number}(struct item *item, int value)\n{{\n\
             int sum = {number};\n\
             for (int i = 0; i < 8; i++) {{ sum += item->values[i] * value; item->weight /= sum + 1; }}\n\
             switch (sum & 7) {{ case 0: sum ^= 5; break; case 1: sum *= 3; case 4: sum -= value; break;\n\
             default: while (item->next && item->values[sum & 7]) {{ item = item->next; sum++; }} }}\n\
             return value > 0 ? sum : {callee};\n}}\n"
        )
        .unwrap_or_default();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_each_time() {
        assert_eq!(commits(7), commits(7));
        assert_eq!(commits(7).matches("\ncommitter ").count(), 7);
        assert_eq!(functions(9).matches("int function").count(), 9);
    }
}
