//! One self-contained page: a flame graph, tables, histograms, and the facts of the recording.
//!
//! The page is a template ([`template`]) with one block of data ([`data`]) in it, and fetches
//! nothing. Its script draws everything from that block; names are text to it, never markup.
//!
//! ```text
//! page/page.html     the elements, and the places of what follows
//! page/page.css      both themes
//! page/data.js       the block of data, decoded
//! page/tree.js       the call tree of the stacks that the filters leave, and its layout
//! page/tables.js     rows of sites, functions and processes; callers and callees; the leak score
//! page/graph.js      the tree on a canvas
//! page/panels.js     tables, histograms and facts as elements
//! page/page.js       the state, in the fragment of the address, and what the reader does
//! ```
//!
//! A view is made of a state and of sums over stacks: another one (a time line, a difference of two
//! profiles) adds sums to `data.js` and a panel, and leaves the rest as it is.

mod data;
mod escape;
mod facts;
mod template;

use std::io::{self, BufWriter, Write};

use super::{ExportOptions, ReportSource, Written, title};
use data::PageData;

/// Writes the profile as a page, and flushes `out`.
///
/// Fails as `out` fails, and where an expression of the view is none.
pub(crate) fn write(
    source: &ReportSource<'_>,
    options: ExportOptions,
    out: &mut dyn Write,
) -> io::Result<Written> {
    let rules = source.view.table.rules();
    let rules = rules.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    let data = PageData::of(source, &rules, options);
    let whose = title::processes(source.profile);
    let title = if whose.is_empty() {
        "memtap".to_owned()
    } else {
        format!("{whose} · memtap")
    };
    let mut out = BufWriter::new(out);
    template::write(&mut out, &title, |out| data.write(out))?;
    out.flush()?;
    Ok(data.written())
}

#[cfg(test)]
mod tests;
