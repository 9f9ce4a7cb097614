use super::*;

const THREE: &[Register] = arguments(Shape::ResizeArray);

/// A place that is emulated, with the arguments where they were.
fn at(offset: u64) -> Place {
    with(offset, 0, THREE)
}

fn with(offset: u64, pushed_bytes: u32, arguments: &[Register]) -> Place {
    Place {
        offset,
        pushed_bytes,
        arguments: Arguments::Apart(arguments.to_vec()),
        single_stepped: false,
    }
}

fn entry(arguments: &[Register]) -> Place {
    Place {
        single_stepped: true,
        ..with(0, 0, arguments)
    }
}

/// The places that are emulated, and the best of the others.
fn best(code: &[u8], arguments: &[Register], array: bool) -> Vec<Place> {
    let mut places = places(code, arguments, array);
    let emulated = places.iter().filter(|place| !place.single_stepped).count();
    places.truncate(emulated + 1);
    places
}

/// The best place, where all three arguments are needed.
fn place(code: &[u8]) -> Place {
    places(code, THREE, false).swap_remove(0)
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
    assert_eq!(
        place(&[0x48, 0x89, 0xf0, 0x48, 0xf7, 0xe2, 0x70, 0x00]),
        entry(THREE)
    );
    // mov %edi,%edi; push %rbp: half of a register is the register.
    assert_eq!(place(&[0x89, 0xff, 0x55]), entry(THREE));
    // mov %rax,(%rsi); push %rbp
    assert_eq!(place(&[0x48, 0x89, 0x06, 0x55]), entry(THREE));
    // and $-16,%rsp; push %rbp
    assert_eq!(place(&[0x48, 0x83, 0xe4, 0xf0, 0x55]), entry(THREE));
    // ret
    assert_eq!(place(&[0xc3]), entry(THREE));
    assert_eq!(place(&[]), entry(THREE));
}

#[test]
fn not_where_a_jump_leads() {
    // test %rdi,%rdi; push %rbp; jmp -3: back to the push.
    assert_eq!(place(&[0x48, 0x85, 0xff, 0x55, 0xeb, 0xfd]), entry(THREE));
}

#[test]
fn pushes_may_come_before() {
    let first = [Register::RDI];
    // push %r12; mov %rdi,%rbx; push %rbx; test %rdi,%rdi; je +0
    let code = [0x41, 0x54, 0x48, 0x89, 0xfb, 0x53, 0x48, 0x85, 0xff, 0x74, 0x00];
    let stepped = |place: Place| Place {
        single_stepped: true,
        ..place
    };
    assert_eq!(
        places(&code, &first, false),
        [
            with(0, 0, &first),
            with(5, 8, &first),
            with(9, 16, &first),
            stepped(with(2, 8, &first)),
            stepped(with(6, 16, &first))
        ]
    );
    // push %rbp; mov %rsp,%rbp; push %rbx: the frame pointer is another.
    assert_eq!(
        places(&[0x55, 0x48, 0x89, 0xe5, 0x53], &first, false),
        [with(0, 0, &first), stepped(with(1, 8, &first))]
    );
    // sub $24,%rsp; cmp $1024,%rsi; ja +0: room is made as if by pushes.
    let code = [
        0x48, 0x83, 0xec, 0x18, 0x48, 0x81, 0xfe, 0x00, 0x04, 0x00, 0x00, 0x77, 0x00,
    ];
    assert_eq!(
        places(&code, &first, false),
        [with(11, 24, &first), entry(&first), stepped(with(4, 24, &first))]
    );
    // sub $-128,%rsp; push %rbp: the other way.
    assert_eq!(
        places(&[0x48, 0x83, 0xec, 0x80, 0x55], &first, false),
        [entry(&first)]
    );
    // A place that must be stepped is the last: test %rdi,%rdi; push %rbx
    assert_eq!(
        places(&[0x48, 0x85, 0xff, 0x53], &first, false),
        [with(3, 0, &first), entry(&first)]
    );
}

#[test]
fn arguments_are_followed_where_they_go() {
    let first = [Register::RDI];
    // mov %rdi,%rsi; mov $4096,%edi; jmp +0
    let code = [0x48, 0x89, 0xfe, 0xbf, 0x00, 0x10, 0x00, 0x00, 0xeb, 0x00];
    let found = best(&code, &first, false);
    assert_eq!(found, [with(8, 0, &[Register::RSI]), entry(&first)]);
    assert_eq!(shape_at(Shape::Size, &found[0]), Some(Shape::HeapSize));
    assert_eq!(shape_at(Shape::Size, &found[1]), Some(Shape::Size));
    // mov %rdi,%rax; mov %rsi,%rdi; mov %rax,%rsi; jmp +0: no program reads them the other way round.
    let code = [0x48, 0x89, 0xf8, 0x48, 0x89, 0xf7, 0x48, 0x89, 0xc6, 0xeb, 0x00];
    let both = [Register::RDI, Register::RSI];
    let found = best(&code, &both, false);
    assert_eq!(found[0], with(9, 0, &[Register::RAX, Register::RDI]));
    assert_eq!(shape_at(Shape::CountSize, &found[0]), None);
    assert_eq!(shape_at(Shape::AlignedSize, &found[0]), Some(Shape::Size));
    // mov %edi,%esi; xor %edi,%edi; jmp +0: half of it.
    let code = [0x89, 0xfe, 0x31, 0xff, 0xeb, 0x00];
    assert_eq!(best(&code, &first, false), [entry(&first)]);
}

#[test]
fn a_product_stands_for_its_factors() {
    // mov %rsi,%rax; mul %rdx; mov %rax,%rsi; jo +0
    let code = [0x48, 0x89, 0xf0, 0x48, 0xf7, 0xe2, 0x48, 0x89, 0xc6, 0x70, 0x00];
    let multiplied = Place {
        arguments: Arguments::Multiplied(vec![Register::RDI]),
        ..at(9)
    };
    let found = best(&code, THREE, true);
    assert_eq!(found, [multiplied, entry(THREE)]);
    assert_eq!(
        shape_at(Shape::ResizeArray, &found[0]),
        Some(Shape::ResizeProduct)
    );
    assert_eq!(best(&code, THREE, false), [entry(THREE)]);
    // mov %rdi,%rax; mul %rdx: the product of others.
    let code = [0x48, 0x89, 0xf8, 0x48, 0xf7, 0xe2, 0x70, 0x00];
    assert_eq!(best(&code, THREE, true), [entry(THREE)]);
    // mov %rsi,%rax; mul %rdx; xor %edx,%edx: the high half is gone.
    let code = [0x48, 0x89, 0xf0, 0x48, 0xf7, 0xe2, 0x31, 0xd2, 0x70, 0x00];
    assert_eq!(best(&code, THREE, true), [entry(THREE)]);
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
        assert_eq!(place(code), entry(THREE), "{code:x?}");
    }
    // nop, call, jne near
    for code in [&[0x90][..], &[0xe8, 0, 0, 0, 0], &[0x0f, 0x85, 0, 0, 0, 0]] {
        assert_eq!(place(code), at(0), "{code:x?}");
    }
}
