//! Stacks as addresses, for comparison with other unwinders.
//!
//! ```text
//! # process 4711 redis-server
//! 812004 malloc root 55d0c0a1b2c3 55d0c0a1a000 7f1c2e445d8a
//! ```
//!
//! A line `# process PID COMM` precedes the stacks of each process image. A stack is a line
//! `CALLS FUNCTION END ADDRESS…`, the innermost caller first.

use std::io::{self, BufWriter, Write};

use crate::message::escape::one_line;
use crate::profile::AddressStacks;

/// Writes the stacks of all process images to `out`, and flushes it.
///
/// Fails only as `out` fails.
pub(crate) fn write(images: &[AddressStacks], out: &mut dyn Write) -> io::Result<()> {
    let mut out = BufWriter::new(out);
    for image in images {
        match &image.process {
            Some((pid, comm)) => writeln!(out, "# process {pid} {}", one_line(comm))?,
            None => writeln!(out, "# process 0 [unknown]")?,
        }
        for stack in &image.stacks {
            let function = stack.function.map_or("?", |function| function.name());
            let end = stack.end.map_or("lost", |end| end.label());
            write!(out, "{} {function} {end}", stack.calls)?;
            for address in &stack.addresses {
                write!(out, " {address:x}")?;
            }
            writeln!(out)?;
        }
    }
    out.flush()
}

#[cfg(test)]
mod tests {
    use tracer_ebpf::{Function, StackEnd};

    use super::*;
    use crate::profile::AddressStack;

    #[test]
    fn images_precede_their_stacks() {
        let known = AddressStacks {
            process: Some((7, "one two".to_owned())),
            stacks: vec![AddressStack {
                calls: 3,
                function: Some(Function::Calloc),
                end: Some(StackEnd::Truncated),
                addresses: vec![0x10, 0xff00],
            }],
        };
        let unknown = AddressStacks {
            process: None,
            stacks: vec![AddressStack {
                calls: 1,
                function: None,
                end: None,
                addresses: Vec::new(),
            }],
        };
        let mut out = Vec::new();
        write(&[known, unknown], &mut out).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            format!(
                "# process 7 one two\n3 calloc {} 10 ff00\n# process 0 [unknown]\n1 ? lost\n",
                StackEnd::Truncated.label()
            )
        );
    }
}
