//! The names for one request, each once and within bounds.

use std::collections::HashMap;

use super::protocol::{NamedFrame, Names};

/// Bytes of a name at most; what is longer is cut. Names of C++ templates have hundreds, and a few
/// thousand at the longest.
const MAX_NAME_BYTES: usize = 4096;

/// Bytes of the names of one file at most.
const MAX_TOTAL_BYTES: usize = 32 << 20;

/// Frames of the places in one file at most.
const MAX_FRAMES: usize = 1 << 20;

/// The end of a name that was cut.
const CUT: &str = "…";

/// Frames by address, under construction.
#[derive(Debug, Default)]
pub(super) struct NameTable {
    index: HashMap<String, u32>,
    names: Names,
    bytes: usize,
    frames: usize,
}

/// A frame: the function, and its place in the source.
pub(super) type SourceFrame<'a> = (&'a str, Option<(String, u32)>);

impl NameTable {
    /// Returns `len` addresses without names.
    pub(super) fn of_len(len: usize) -> Self {
        let mut table = Self::default();
        table.names.frames.resize(len, Vec::new());
        table
    }

    /// Returns true if an address has a name.
    pub(super) fn has(&self, at: usize) -> bool {
        self.names.frames.get(at).is_some_and(|frames| !frames.is_empty())
    }

    /// Names an address, unless there is no room any more.
    pub(super) fn set<'a>(&mut self, at: usize, frames: impl Iterator<Item = SourceFrame<'a>>) {
        let mut named = Vec::new();
        for (name, line) in frames {
            let Some(name) = self.intern(name) else {
                return;
            };
            let line = match line {
                Some((file, line)) => self.intern(&file).map(|file| (file, line)),
                None => None,
            };
            named.push(NamedFrame { name, line });
        }
        if self.frames + named.len() <= MAX_FRAMES
            && let Some(frames) = self.names.frames.get_mut(at)
        {
            self.frames += named.len();
            *frames = named;
        }
    }

    /// Gives a frame of an address, counted from the outermost, another name, if there is room.
    pub(super) fn rename(&mut self, at: usize, depth: usize, name: &str) {
        let Some(name) = self.intern(name) else { return };
        let frames = self.names.frames.get_mut(at);
        if let Some(frame) = frames.and_then(|frames| frames.get_mut(depth)) {
            frame.name = name;
        }
    }

    /// Returns the names of all addresses.
    pub(super) fn into_names(self) -> Names {
        self.names
    }

    fn intern(&mut self, name: &str) -> Option<u32> {
        let name = cut(name);
        if let Some(index) = self.index.get(&*name) {
            return Some(*index);
        }
        let index = u32::try_from(self.names.strings.len()).ok()?;
        self.bytes = self
            .bytes
            .checked_add(name.len())
            .filter(|bytes| *bytes <= MAX_TOTAL_BYTES)?;
        self.names.strings.push(name.clone().into_owned());
        self.index.insert(name.into_owned(), index);
        Some(index)
    }
}

/// Cuts a name that is too long.
fn cut(name: &str) -> std::borrow::Cow<'_, str> {
    if name.len() <= MAX_NAME_BYTES {
        return name.into();
    }
    let end = name.floor_char_boundary(MAX_NAME_BYTES - CUT.len());
    format!("{}{CUT}", &name[..end]).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_names_are_cut_between_characters() {
        assert_eq!(cut("main"), "main");
        let longest = "x".repeat(MAX_NAME_BYTES);
        assert_eq!(cut(&longest), longest);
        for longer in [
            "x".repeat(100_000),
            "é".repeat(50_000),
            "x".repeat(MAX_NAME_BYTES + 1),
        ] {
            let cut = cut(&longer);
            assert!(cut.len() <= MAX_NAME_BYTES && cut.len() > MAX_NAME_BYTES - 8);
            assert!(cut.ends_with(CUT) && longer.starts_with(cut.trim_end_matches(CUT)));
        }
    }

    #[test]
    fn names_are_kept_once_and_in_bounds() {
        let mut table = NameTable::of_len(3);
        let frame = |name| std::iter::once((name, Some(("a.c".to_owned(), 7))));
        table.set(0, frame("f"));
        table.set(2, frame("f"));
        table.set(9, frame("g"));
        assert!(table.has(0) && !table.has(1) && !table.has(9));
        table.rename(0, 0, "g");
        table.rename(0, 0, "f");
        table.rename(0, 1, "f");
        table.rename(1, 0, "f");
        let names = table.into_names();
        assert_eq!(names.strings, ["f", "a.c", "g"]);
        assert_eq!(names.frames[0], names.frames[2]);

        let count = 2 * MAX_TOTAL_BYTES / MAX_NAME_BYTES;
        let mut table = NameTable::of_len(count);
        for at in 0..count {
            let name = format!("{at}{}", "x".repeat(MAX_NAME_BYTES));
            table.set(at, std::iter::once((&*name, None)));
        }
        assert!(table.has(0) && !table.has(count - 1));
        assert!(table.bytes <= MAX_TOTAL_BYTES);
    }
}
