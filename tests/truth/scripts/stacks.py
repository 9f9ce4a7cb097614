"""Counts the stacks of a program's calls to allocator functions, as gdb unwinds them.

Run as `gdb -nx -batch -x stacks.py --args WRAPPER… PROGRAM ARGUMENTS…`; the wrapper is a chain of programs
each of which executes the next, and stacks are counted from PROGRAM on. Settings are in the environment,
which the wrapper is expected to clear:

    TRUTH_PROGRAM    the real path of PROGRAM
    TRUTH_FUNCTIONS  what to count, separated by commas: malloc,calloc
    TRUTH_HITS       end the program after so many hits; 0: let it run to its end
    TRUTH_OUT        the file to write

The file has a line per distinct stack, `COUNT FUNCTION END ADDRESS…`: hexadecimal return addresses, the
immediate caller's first, at most FRAMES_MAX; END is why gdb found no further frame. What is not in executable
memory is no frame: where code does not say how it is to be unwound, gdb guesses. Before them stand
`# map START END PATH` for what was mapped executable, `# hits N`, and `# end exited CODE`, `# end cut`, or
`# end signalled`; `# thread main` and `# thread other` go before the stacks of the first and of all other threads.

A call that an allocator function makes to do its own work is not counted, as memtap does not count it: one
whose return address is inside a function of the family, and one that `realloc(NULL, n)` passes on by a jump,
which arrives with the same stack pointer and return address.
"""

import collections
import os
import subprocess

import gdb

FRAMES_MAX = 127
DEBUG_REGISTERS = 4
FAMILY = (
    "malloc calloc realloc reallocarray posix_memalign aligned_alloc memalign valloc pvalloc".split()
)
END_NAMES = {
    gdb.FRAME_UNWIND_NO_REASON: "complete",
    gdb.FRAME_UNWIND_OUTERMOST: "complete",
    gdb.FRAME_UNWIND_NULL_ID: "complete",
    gdb.FRAME_UNWIND_UNAVAILABLE: "unavailable",
    gdb.FRAME_UNWIND_INNER_ID: "inner_id",
    gdb.FRAME_UNWIND_SAME_ID: "same_id",
    gdb.FRAME_UNWIND_NO_SAVED_PC: "no_saved_pc",
    gdb.FRAME_UNWIND_MEMORY_ERROR: "memory_error",
}
# An inlined function has no frame of its own on the stack, and a tail call left none: gdb makes
# these up.
MADE_UP = (gdb.INLINE_FRAME, gdb.TAILCALL_FRAME)

SETTINGS = """
set pagination off
set confirm off
set width 0
set disable-randomization on
set debuginfod enabled off
set backtrace past-main on
set backtrace past-entry on
set backtrace limit unlimited
set follow-fork-mode parent
set detach-on-fork on
set follow-exec-mode same
set print thread-events off
set print inferior-events off
handle all nostop noprint pass
"""


class Failure(Exception):
    """What ends the script with a message."""


def pid():
    return gdb.selected_inferior().pid


def mappings():
    """The executable mappings that come from files or have names, and where each file begins."""
    executable, bases = set(), {}
    with open(f"/proc/{pid()}/maps", encoding="utf-8", errors="replace") as lines:
        for line in lines:
            fields = line.split(maxsplit=5)
            if len(fields) < 6:
                continue
            start, end = (int(address, 16) for address in fields[0].split("-"))
            path = fields[5].strip()
            if int(fields[2], 16) == 0:
                bases.setdefault(path, start)
            if "x" in fields[1]:
                executable.add((start, end, bases.get(path, start), path))
    return executable, bases


def run_to_program(program):
    """From the wrapper's first instruction to the program's."""
    gdb.execute("catch exec", to_string=True)
    gdb.execute("starti", to_string=True)
    while os.path.realpath(f"/proc/{pid()}/exe") != program:
        gdb.execute("continue", to_string=True)
        if pid() == 0:
            raise Failure(f"the wrapper ended before it executed {program}")
    gdb.execute("delete", to_string=True)


def run_to_libc():
    """On until the dynamic loader has mapped libc; nothing has called into it then. Returns its path and base."""
    gdb.execute("set stop-on-solib-events 1")
    while True:
        gdb.execute("continue", to_string=True)
        if pid() == 0:
            raise Failure("the program ended before it loaded a libc")
        for path, base in mappings()[1].items():
            if os.path.basename(path).startswith(("libc.so", "libc-")):
                gdb.execute("set stop-on-solib-events 0")
                return path, base


def code_ranges(path, base):
    """Where each function of the family is in memory: name → (start, end)."""
    ranges = {}
    symbols = subprocess.run(["nm", "-D", "-S", path], check=True, capture_output=True, text=True).stdout
    for line in symbols.splitlines():
        fields = line.split()
        name = fields[-1].split("@")[0]
        if len(fields) == 4 and name in FAMILY:
            start = base + int(fields[0], 16)
            ranges[name] = (start, start + int(fields[1], 16))
    return ranges


class Code:
    """What is executable."""

    def __init__(self):
        self.ranges = []

    def has(self, address):
        for attempt in range(2):
            if any(start <= address < end for start, end in self.ranges):
                return True
            if attempt == 0:
                self.read()
        return False

    def read(self):
        self.ranges = []
        with open(f"/proc/{pid()}/maps", encoding="utf-8", errors="replace") as lines:
            for line in lines:
                addresses, permissions = line.split(maxsplit=2)[:2]
                if "x" in permissions:
                    start, end = addresses.split("-")
                    self.ranges.append((int(start, 16), int(end, 16)))


CODE = Code()


class Counts:
    """All that is counted."""

    def __init__(self, limit, ranges):
        self.limit = limit
        self.ranges = list(ranges.values())
        self.stacks = {"main": collections.Counter(), "other": collections.Counter()}
        self.hits = 0
        self.passed_on = {}
        self.mapped = set()
        self.failure = None

    def note_mappings(self, _event=None):
        if pid() != 0:
            self.mapped |= mappings()[0]

    def hit(self, function, is_counted):
        """Counts a call that has just been made. True to stop."""
        frame = gdb.newest_frame()
        process, thread = gdb.selected_thread().ptid[:2]
        stack_pointer = int(frame.read_register("rsp")) & (1 << 64) - 1
        word = gdb.selected_inferior().read_memory(stack_pointer, 8)
        caller = int.from_bytes(bytes(word), "little")
        place, passed_on = (thread, stack_pointer), self.passed_on
        if function == "malloc" and passed_on.pop(place, None) == caller:
            return False
        if function == "realloc" and int(frame.read_register("rdi")) == 0:
            passed_on[place] = caller
        if not is_counted or any(start <= caller < end for start, end in self.ranges):
            return False
        end, addresses = walk(frame)
        self.stacks["main" if thread == process else "other"][(function, end, addresses)] += 1
        self.hits += 1
        if self.hits == self.limit:
            self.note_mappings()
            return True
        return False


def walk(frame):
    """Why the stack ends, and the return addresses on it."""
    addresses = []
    while True:
        older = frame.older()
        if older is None:
            reason = frame.unwind_stop_reason()
            return END_NAMES.get(reason, f"reason_{reason}"), tuple(addresses)
        frame = older
        if frame.type() in MADE_UP:
            continue
        if len(addresses) == FRAMES_MAX:
            return "truncated", tuple(addresses)
        if not CODE.has(frame.pc()):
            return "no_code", tuple(addresses)
        addresses.append(frame.pc())


class Entry(gdb.Breakpoint):
    """The first instruction of a function.

    In a debug register, not in the code: when any tracer on the machine takes its probe out of the same
    function, the kernel writes the original instruction back into every process, over a debugger's too.
    """

    def __init__(self, function, address, counts, is_counted):
        super().__init__(f"*{address:#x}", gdb.BP_HARDWARE_BREAKPOINT, internal=True)
        self.silent = True
        self.function = function
        self.counts = counts
        self.is_counted = is_counted

    def stop(self):
        try:
            return self.counts.hit(self.function, self.is_counted)
        except Exception as error:  # An error here would otherwise be printed and forgotten.
            self.counts.failure = f"{type(error).__name__}: {error}"
            return True


def write(path, counts, end):
    with open(path, "w", encoding="utf-8") as out:
        for start, stop, base, name in sorted(counts.mapped):
            out.write(f"# map {start:x} {stop:x} {base:x} {name}\n")
        out.write(f"# hits {counts.hits}\n# end {end}\n")
        for thread, stacks in counts.stacks.items():
            out.write(f"# thread {thread}\n")
            for (function, why, addresses), count in stacks.items():
                words = [str(count), function, why, *(f"{address:x}" for address in addresses)]
                out.write(" ".join(words) + "\n")


def main():
    for line in SETTINGS.split("\n"):
        if line:
            gdb.execute(line, to_string=True)
    run_to_program(os.environ["TRUTH_PROGRAM"])
    ranges = code_ranges(*run_to_libc())
    functions = os.environ["TRUTH_FUNCTIONS"].split(",")
    counts = Counts(int(os.environ["TRUTH_HITS"]), ranges)
    counts.note_mappings()
    for function in functions:
        if function not in ranges:
            raise Failure(f"libc has no {function}")
    if len({*functions, "realloc"}) > DEBUG_REGISTERS:
        raise Failure(f"{DEBUG_REGISTERS} functions at most can be watched at a time, realloc always is one")
    for function, (start, _) in ranges.items():
        # realloc is watched for what it passes on to malloc, even where its own calls are
        # not counted.
        if function in functions or function == "realloc":
            Entry(function, start, counts, function in functions)
    gdb.events.new_objfile.connect(counts.note_mappings)
    gdb.execute("continue", to_string=True)
    if counts.failure:
        raise Failure(counts.failure)
    end = "cut"
    if pid() == 0:
        code = gdb.convenience_variable("_exitcode")
        end = "signalled" if code is None else f"exited {int(code)}"
    write(os.environ["TRUTH_OUT"], counts, end)
    if pid() != 0:
        gdb.execute("kill", to_string=True)


try:
    main()
except (Failure, gdb.error) as error:
    print(f"truth: {error}", flush=True)
    gdb.execute("quit 1")
