"""Teaches gdb to unwind by frame pointer where a program has code without tables.

V8 keeps a chain of frame pointers through everything that it generates: the code that it compiles while the
program runs, in memory that belongs to no file, and the builtins that were compiled with node, which stand in
its executable without an entry in .eh_frame. gdb would take whatever it finds on the stack there. Read before
stacks.py; frames with tables stay gdb's own.
"""

import bisect
import os
import struct

import gdb
from gdb.unwinder import Unwinder, register_unwinder

PT_LOAD, PT_GNU_EH_FRAME = 1, 0x6474E550
PAGE = 4096
# .eh_frame_hdr with a table of signed 32-bit distances from its own beginning.
TABLE_ENCODING = 0x3B
# Distances between functions with tables that are alignment, or small pieces of assembly, are
# shorter.
GAP_BYTES_MIN = 4096


def ranges_without_table(path):
    """The long ranges, in addresses of the file, that no entry of .eh_frame covers; and the file's segments."""
    with open(path, "rb") as file:
        data = file.read()
    table, size, count = *struct.unpack_from("<Q", data, 32), *struct.unpack_from("<HH", data, 54)
    segments = [struct.unpack_from("<IIQQQQQ", data, table + size * index) for index in range(count)]
    loads = [segment for segment in segments if segment[0] == PT_LOAD]

    def offset_of(address):
        for _, _, offset, start, _, length, _ in loads:
            if start <= address < start + length:
                return offset + address - start
        raise gdb.GdbError(f"{path} does not have {address:#x}")

    header = next(segment for segment in segments if segment[0] == PT_GNU_EH_FRAME)
    start, at = header[3], header[2]
    if data[at + 3] != TABLE_ENCODING:
        raise gdb.GdbError(f"the table of .eh_frame_hdr in {path} is of another kind")
    ranges, covered = [], None
    for index in range(struct.unpack_from("<I", data, at + 8)[0]):
        code, entry = struct.unpack_from("<ii", data, at + 12 + 8 * index)
        # An entry: length, distance to its CIE, start, and length of the code.
        length = struct.unpack_from("<I", data, offset_of(start + entry) + 12)[0]
        if covered is not None and start + code - covered >= GAP_BYTES_MIN:
            ranges.append((covered, start + code))
        covered = max(covered or 0, start + code + length)
    return ranges, [(offset, address, length) for _, _, offset, address, _, length, _ in loads]


class FrameId:
    """What tells a frame from others."""

    def __init__(self, stack_pointer, instruction):
        self.sp = stack_pointer
        self.pc = instruction


class FramePointers(Unwinder):
    """Takes the frames whose code has no table."""

    def __init__(self, program):
        super().__init__("frame pointers of generated code")
        self.program = program
        self.gaps, self.segments = ranges_without_table(program)
        self.word = gdb.lookup_type("unsigned long")
        self.has_begun = False
        self.pid = 0
        self.starts, self.mapped = [], []

    def runs(self):
        """Whether the wrapper has executed the program."""
        if not self.has_begun:
            self.has_begun = os.path.realpath(f"/proc/{gdb.selected_inferior().pid}/exe") == self.program
        return self.has_begun

    def read_mappings(self, pid):
        """Each executable mapping, and the ranges in it that have no table: all of it, some of it, or nothing."""
        self.pid, self.mapped = pid, []
        with open(f"/proc/{pid}/maps", encoding="utf-8", errors="replace") as lines:
            for line in lines:
                fields = line.split(maxsplit=5)
                start, end = (int(address, 16) for address in fields[0].split("-"))
                path = fields[5].strip() if len(fields) > 5 else ""
                if "x" not in fields[1]:
                    continue
                bare = []
                if not path:
                    bare = [(start, end)]
                elif path == self.program:
                    # V8 maps its builtins a second time, near the code that it makes.
                    bias = start - self.address_of(int(fields[2], 16))
                    bare = [(bias + first, bias + last) for first, last in self.gaps]
                self.mapped.append((start, end, bare))
        self.starts = [start for start, _, _ in self.mapped]

    def address_of(self, offset):
        """Where in memory a page of the file is to be, before any bias."""
        for first, address, length in self.segments:
            if first - first % PAGE <= offset < first + length:
                return address - first + offset
        raise gdb.GdbError(f"{self.program} has no segment at {offset:#x}")

    def has_no_table(self, pc):
        pid = gdb.selected_inferior().pid
        for attempt in range(2):
            index = bisect.bisect(self.starts, pc) - 1
            if index >= 0 and pid == self.pid:
                _, end, bare = self.mapped[index]
                if pc < end:
                    return any(start <= pc < stop for start, stop in bare)
            if attempt == 0:
                self.read_mappings(pid)
        return False

    def at(self, address):
        return gdb.Value(address).cast(self.word.pointer()).dereference()

    def __call__(self, pending):
        if not self.runs():
            return None
        pc = int(pending.read_register("rip")) & (1 << 64) - 1
        if not self.has_no_table(pc):
            return None
        frame_pointer = int(pending.read_register("rbp")) & (1 << 64) - 1
        stack_pointer = int(pending.read_register("rsp")) & (1 << 64) - 1
        if frame_pointer % 8 or frame_pointer < stack_pointer:
            return None
        info = pending.create_unwind_info(FrameId(gdb.Value(frame_pointer + 16), gdb.Value(pc)))
        info.add_saved_register("rip", self.at(frame_pointer + 8))
        info.add_saved_register("rbp", self.at(frame_pointer))
        info.add_saved_register("rsp", gdb.Value(frame_pointer + 16).cast(self.word))
        return info


register_unwinder(None, FramePointers(os.environ["TRUTH_PROGRAM"]))
