//! A stack on one line of limited width.
//!
//! Widths are counted in characters.

use super::text::{DIM, MORE, paint, shorten, width};

/// Between a frame and its caller.
const ARROW: &str = " ← ";

/// The fewest characters that a shortened name can be recognised by.
const MIN_NAME_WIDTH: usize = 12;

/// A frame as text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    /// Its name.
    pub(super) name: String,
    /// `file:line`, where it is known.
    pub(super) source: Option<String>,
}

impl Piece {
    /// A frame that is only a name.
    pub(super) const fn name(name: String) -> Self {
        Self { name, source: None }
    }
}

/// The frames, the innermost first, in at most `room` characters where there is a limit. Frames
/// that do not fit are `…`; before that, a frame goes without its line, and a name without its
/// middle.
pub(super) fn line(pieces: &[Piece], room: Option<usize>, colours: bool) -> String {
    let mut text = String::new();
    let mut used = 0;
    for (index, piece) in pieces.iter().enumerate() {
        let arrow = if index == 0 { 0 } else { width(ARROW) };
        let last = index + 1 == pieces.len();
        let reserve = if last { 0 } else { width(ARROW) + width(MORE) };
        let left = room.map(|room| room.saturating_sub(used + arrow + reserve));
        let fitted = piece.fitted(left, room.map(|room| room / 2));
        if index > 0 {
            text.push_str(&paint(ARROW, DIM, colours));
        }
        let Some(fitted) = fitted else {
            text.push_str(MORE);
            break;
        };
        used += arrow + fitted.width();
        text.push_str(&fitted.name);
        if let Some(source) = &fitted.source {
            text.push_str(&paint(&format!(" ({source})"), DIM, colours));
        }
    }
    text
}

impl Piece {
    /// Returns the frame shortened to `left` characters, its name to `name_max`; nothing where that
    /// is too little to be of use.
    fn fitted(&self, left: Option<usize>, name_max: Option<usize>) -> Option<Self> {
        let (Some(left), Some(name_max)) = (left, name_max) else {
            return Some(self.clone());
        };
        // One long name must not hide all its callers.
        let mut fitted = Self {
            name: shorten(&self.name, name_max.max(MIN_NAME_WIDTH)),
            source: self.source.clone(),
        };
        if fitted.width() > left {
            fitted.source = None;
        }
        if fitted.width() > left {
            if left < MIN_NAME_WIDTH {
                return None;
            }
            fitted.name = shorten(&fitted.name, left);
        }
        Some(fitted)
    }

    /// The width with the line.
    fn width(&self) -> usize {
        let source = self.source.as_ref().map_or(0, |it| width(it) + width(" ()"));
        width(&self.name) + source
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces() -> Vec<Piece> {
        let mut pieces = vec![Piece::name("malloc".into())];
        for (name, source) in [("grow", "vec.rs:97"), ("parse", "lib.rs:140"), ("main", "m.c:1")] {
            pieces.push(Piece {
                name: name.into(),
                source: Some(source.into()),
            });
        }
        pieces
    }

    #[test]
    fn without_a_limit_everything_is_there() {
        assert_eq!(
            line(&pieces(), None, false),
            "malloc ← grow (vec.rs:97) ← parse (lib.rs:140) ← main (m.c:1)"
        );
    }

    #[test]
    fn outer_frames_give_way() {
        assert_eq!(
            line(&pieces(), Some(61), false),
            "malloc ← grow (vec.rs:97) ← parse (lib.rs:140) ← main (m.c:1)"
        );
        assert_eq!(
            line(&pieces(), Some(60), false),
            "malloc ← grow (vec.rs:97) ← parse (lib.rs:140) ← main"
        );
        assert_eq!(line(&pieces(), Some(30), false), "malloc ← grow (vec.rs:97) ← …");
    }

    #[test]
    fn no_width_is_exceeded() {
        let mut pieces = pieces();
        pieces[2].name = "std::collections::größe".repeat(20);
        for room in 28..200 {
            let line = line(&pieces, Some(room), false);
            assert!(width(&line) <= room, "{room}: {line}");
            assert!(line.starts_with("malloc ← grow"), "{room}: {line}");
        }
    }

    #[test]
    fn a_long_name_keeps_both_ends() {
        assert_eq!(shorten("std::vector<int>::push_back", 15), "std::ve…sh_back");
        assert_eq!(shorten("größe", 5), "größe");
        assert_eq!(shorten("größer", 5), "gr…er");
        assert_eq!(shorten("abc", 0), "…");
    }

    #[test]
    fn colours_take_no_room() {
        let plain = line(&pieces(), Some(40), false);
        let painted = line(&pieces(), Some(40), true);
        assert_eq!(painted.replace("\u{1b}[2m", "").replace("\u{1b}[0m", ""), plain);
        assert_ne!(painted, plain);
    }
}
