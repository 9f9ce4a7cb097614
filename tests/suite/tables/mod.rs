//! Unwind tables that come and go while programs run: of code that is loaded late, of files that
//! nobody maps any more, where there is no room, where there is no sense in what a file says.

mod bursts;
pub(crate) mod guard;
pub(crate) mod late;
pub(crate) mod malformed_elf;
pub(crate) mod room;
pub(crate) mod stopped;
