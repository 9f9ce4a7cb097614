use object::{Object as _, ObjectSection as _, ObjectSymbol as _};

use super::EMBEDDED;
use crate::bpf::programs::{CALL_BEGIN, CALL_FREE, CALL_RESULT, CALL_RETURN};

/// The first byte of a call to a helper: `BPF_JMP | BPF_CALL` of `include/uapi/linux/bpf_common.h`.
const CALL: u8 = 0x85;

/// `bpf_tail_call`, in the list of helpers of `include/uapi/linux/bpf.h`.
const TAIL_CALL: [u8; 4] = 12i32.to_ne_bytes();

/// Without one a program shares its stack with whoever preempts it: `thread_stack` of the kernel
/// side. It takes two threads on a kernel that preempts to show, and then the kernel dies.
#[test]
fn every_uprobe_program_has_a_tail_call() {
    let object = object::File::parse(EMBEDDED).expect("an ELF file");
    for name in [CALL_BEGIN, CALL_FREE, CALL_RESULT, CALL_RETURN] {
        let symbol = object.symbol_by_name(name).expect(name);
        let section = symbol.section_index().expect(name);
        let section = object.section_by_index(section).expect(name);
        let code = section
            .data_range(symbol.address(), symbol.size())
            .expect(name)
            .expect(name);
        let calls = code.as_chunks::<8>().0.iter();
        // Opcode, registers, offset (two bytes), number. The source register is 0 for a helper.
        let has_one = calls
            .filter(|call| call[0] == CALL && call[1] >> 4 == 0)
            .any(|call| call[4..] == TAIL_CALL);
        assert!(has_one, "{name} has no tail call");
    }
}
