use super::*;

const ENTRY: u64 = 0x1000;

const RAX: u8 = 0;
const RDX: u8 = 2;
const RSI: u8 = 6;
const RDI: u8 = 7;

/// Functions with one, two and three arguments.
const ONE: Roles = Roles::SIZE;
const ALIGNED: Roles = Roles::ALIGNED_SIZE;
const FACTORS: Roles = Roles::COUNT_SIZE;
const THREE: Roles = Roles::RESIZE_ARRAY;

/// A place that is emulated, with all arguments of [`THREE`] where they were.
fn at(offset: u64) -> ProbePlace {
    with(offset, 0, &THREE)
}

/// The same for other functions, `pushed_bytes` of pushes after the first instruction.
fn with(offset: u64, pushed_bytes: u32, roles: &Roles) -> ProbePlace {
    let mut operands = operands(&AbstractState::at_entry(None, &[]), roles).expect("all are in registers");
    operands.cfa_bytes += pushed_bytes;
    ProbePlace {
        offset,
        operands,
        single_stepped: false,
    }
}

/// A place at which the size is in another register.
fn moved(offset: u64, pushed_bytes: u32, size: u8) -> ProbePlace {
    let mut place = with(offset, pushed_bytes, &ONE);
    place.operands.size = Operand::register(size);
    place
}

fn entry(roles: &Roles) -> ProbePlace {
    ProbePlace {
        single_stepped: true,
        ..with(0, 0, roles)
    }
}

fn places_in(code: &[u8], roles: &Roles) -> Vec<ProbePlace> {
    places(
        &MachineCode::of_bytes(ENTRY, code),
        ENTRY,
        code.len() as u64,
        roles,
    )
}

/// The places that are emulated, and the best of the others.
fn best(code: &[u8], roles: &Roles) -> Vec<ProbePlace> {
    let mut places = places_in(code, roles);
    let emulated = places.iter().filter(|place| !place.single_stepped).count();
    places.truncate(emulated + 1);
    places
}

/// The best place, where all three arguments are needed.
fn place(code: &[u8]) -> ProbePlace {
    places_in(code, &THREE).swap_remove(0)
}

#[test]
fn first_instruction_if_it_is_emulated() {
    // push %r12
    assert_eq!(place(&[0x41, 0x54, 0xc3]), at(0));
}

#[test]
fn jump_behind_a_test_of_the_argument() {
    // test %rdi,%rdi; je +1; push %rbp; ret
    assert_eq!(place(&[0x48, 0x85, 0xff, 0x74, 0x01, 0x55, 0xc3]), at(3));
    // cmpb $0,0(%rip); push %r12; ret
    assert_eq!(place(&[0x80, 0x3d, 0, 0, 0, 0, 0, 0x41, 0x54, 0xc3]), at(7));
}

#[test]
fn no_further_than_to_what_changes_an_argument_or_memory() {
    // mov %rsi,%rax; mul %rdx; jo +0: the product takes rdx.
    let code = [0x48, 0x89, 0xf0, 0x48, 0xf7, 0xe2, 0x70, 0x00];
    assert_eq!(
        places_in(&code, &Roles::HEAP_RESIZE)[0],
        entry(&Roles::HEAP_RESIZE)
    );
    // mov %edi,%edi; push %rbp: half of a register is the register.
    assert_eq!(place(&[0x89, 0xff, 0x55]), entry(&THREE));
    // mov %rax,(%rsi); push %rbp
    assert_eq!(place(&[0x48, 0x89, 0x06, 0x55]), entry(&THREE));
    // and $-16,%rsp; push %rbp
    assert_eq!(place(&[0x48, 0x83, 0xe4, 0xf0, 0x55]), entry(&THREE));
    // ret
    assert_eq!(place(&[0xc3]), entry(&THREE));
    assert_eq!(place(&[]), entry(&THREE));
}

#[test]
fn not_where_a_jump_leads() {
    // test %rdi,%rdi; push %rbp; jmp -3: back to the push.
    assert_eq!(place(&[0x48, 0x85, 0xff, 0x55, 0xeb, 0xfd]), entry(&THREE));
}

#[test]
fn pushes_may_come_before() {
    // push %r12; mov %rdi,%rbx; push %rbx; test %rdi,%rdi; je +0
    let code = [0x41, 0x54, 0x48, 0x89, 0xfb, 0x53, 0x48, 0x85, 0xff, 0x74, 0x00];
    let stepped = |place: ProbePlace| ProbePlace {
        single_stepped: true,
        ..place
    };
    assert_eq!(
        places_in(&code, &ONE),
        [
            with(0, 0, &ONE),
            with(5, 8, &ONE),
            with(9, 16, &ONE),
            stepped(with(2, 8, &ONE)),
            stepped(with(6, 16, &ONE))
        ]
    );
    // push %rbp; mov %rsp,%rbp; push %rbx: the frame pointer is another.
    assert_eq!(
        places_in(&[0x55, 0x48, 0x89, 0xe5, 0x53], &ONE),
        [with(0, 0, &ONE), stepped(with(1, 8, &ONE))]
    );
    // sub $24,%rsp; cmp $1024,%rsi; ja +0: room is made as if by pushes.
    let code = [
        0x48, 0x83, 0xec, 0x18, 0x48, 0x81, 0xfe, 0x00, 0x04, 0x00, 0x00, 0x77, 0x00,
    ];
    assert_eq!(
        places_in(&code, &ONE),
        [with(11, 24, &ONE), entry(&ONE), stepped(with(4, 24, &ONE))]
    );
    // sub $-128,%rsp; push %rbp: the other way.
    assert_eq!(places_in(&[0x48, 0x83, 0xec, 0x80, 0x55], &ONE), [entry(&ONE)]);
    // A place that must be stepped is the last: test %rdi,%rdi; push %rbx
    assert_eq!(
        places_in(&[0x48, 0x85, 0xff, 0x53], &ONE),
        [with(3, 0, &ONE), entry(&ONE)]
    );
}

#[test]
fn arguments_are_followed_where_they_go() {
    // mov %rdi,%rsi; mov $4096,%edi; jmp +0
    let code = [0x48, 0x89, 0xfe, 0xbf, 0x00, 0x10, 0x00, 0x00, 0xeb, 0x00];
    assert_eq!(best(&code, &ONE), [moved(8, 0, RSI), entry(&ONE)]);
    // mov %rdi,%rax; mov %rsi,%rdi; mov %rax,%rsi; jmp +0: the other way round.
    let code = [0x48, 0x89, 0xf8, 0x48, 0x89, 0xf7, 0x48, 0x89, 0xc6, 0xeb, 0x00];
    let found = &best(&code, &FACTORS)[0];
    let Operands { factor, size, .. } = found.operands;
    assert_eq!(
        (found.offset, factor, size),
        (9, Operand::register(RAX), Operand::register(RDI))
    );
    let found = &best(&code, &ALIGNED)[0];
    let Operands { alignment, size, .. } = found.operands;
    assert_eq!(
        (found.offset, alignment, size),
        (9, Operand::register(RAX), Operand::register(RDI))
    );
    // push %rdi; xor %edi,%edi; jmp +0: in the slot below the return address.
    let found = &best(&[0x57, 0x31, 0xff, 0xeb, 0x00], &ONE)[1];
    let slot = Operand::slot(16).expect("a slot");
    assert_eq!((found.offset, found.operands.size), (3, slot));
    // mov %edi,%esi; xor %edi,%edi; jmp +0: half of it.
    let code = [0x89, 0xfe, 0x31, 0xff, 0xeb, 0x00];
    assert_eq!(best(&code, &ONE), [entry(&ONE)]);
}

#[test]
fn a_product_stands_for_its_factors() {
    // mov %rsi,%rax; mul %rdx; mov %rax,%rsi; jo +0
    let code = [0x48, 0x89, 0xf0, 0x48, 0xf7, 0xe2, 0x48, 0x89, 0xc6, 0x70, 0x00];
    let mut multiplied = at(9);
    multiplied.operands.size = Operand::register(RAX);
    multiplied.operands.factor = Operand::NONE;
    multiplied.operands.high = Operand::register(RDX);
    assert_eq!(best(&code, &THREE), [multiplied, entry(&THREE)]);
    // A size that is no product of the arguments.
    assert_eq!(best(&code, &Roles::HEAP_RESIZE), [entry(&Roles::HEAP_RESIZE)]);
    // mov %rdi,%rax; mul %rdx: the product of others.
    let code = [0x48, 0x89, 0xf8, 0x48, 0xf7, 0xe2, 0x70, 0x00];
    assert_eq!(best(&code, &THREE), [entry(&THREE)]);
    // mov %rsi,%rax; mul %rdx; xor %edx,%edx: the high half is gone.
    let code = [0x48, 0x89, 0xf0, 0x48, 0xf7, 0xe2, 0x31, 0xd2, 0x70, 0x00];
    assert_eq!(best(&code, &THREE), [entry(&THREE)]);
}

#[test]
fn only_what_the_kernel_emulates() {
    // 66 jmp, rex.w push, pause, jrcxz, syscall
    for code in [
        &[0x66, 0xeb, 0x00][..],
        &[0x48, 0x53],
        &[0xf3, 0x90],
        &[0xe3, 0x00],
        &[0x0f, 0x05],
    ] {
        assert_eq!(place(code), entry(&THREE), "{code:x?}");
    }
    // nop, call, jne near
    for code in [&[0x90][..], &[0xe8, 0, 0, 0, 0], &[0x0f, 0x85, 0, 0, 0, 0]] {
        assert_eq!(place(code), at(0), "{code:x?}");
    }
}
