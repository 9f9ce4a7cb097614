//! The object's programs: their names, and what the verifier says of them.

use std::collections::BTreeMap;

use super::object::Object;

/// The beginning of a call: at a function's entry, or inside it where the size is known, and the
/// result is or is not.
pub const CALL_BEGIN: &str = "call_begin";
/// A call inside its function, where the result is known.
pub const CALL_RESULT: &str = "call_result";
/// The return of a call.
pub const CALL_RETURN: &str = "call_return";
/// The call of a function that gives a block back.
pub const CALL_FREE: &str = "call_free";
/// The beginning of a child.
pub const CHILD_BEGINS: &str = "child_begins";
/// A system call that tells of a parent that sees stops.
pub const STOP_WATCHER: &str = "stop_watcher";
/// The entry of a memory-map system call.
pub const REGION_ENTER: &str = "region_enter";
/// Its return.
pub const REGION_EXIT: &str = "region_exit";
/// Nothing, at an instruction.
pub const COST_ENTRY: &str = "cost_entry";
/// Nothing, at a function's return.
pub const COST_RETURN: &str = "cost_return";

/// The number of instructions that the verifier went through for each loaded program; nothing for
/// those of which the kernel does not tell (before Linux 5.16).
#[must_use]
pub fn verified_instructions(object: &Object) -> BTreeMap<String, Option<u32>> {
    let programs = object.loaded.programs();
    programs
        .map(|(name, program)| (name.to_owned(), program.verified_instructions()))
        .collect()
}
