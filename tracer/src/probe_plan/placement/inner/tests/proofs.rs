//! Functions that can be followed inside, and where.

use super::*;

#[test]
fn straight_line() {
    let parts = [
        MachineCode(KEEP_SIZE),
        Call(CALLEE),
        MachineCode(PLACE),
        MachineCode(POP_RBX),
        MachineCode(RET),
    ];
    let found = planned(&parts).expect("a plan");
    assert_eq!(found.len(), 1);
    let site = found[0].operands;
    assert_eq!(
        (found[0].address - CODE, found[0].kind, found[0].stepped),
        (9, Kind::Complete, false)
    );
    // The return address and rbx.
    assert_eq!((site.cfa_bytes, site.size, site.result), (16, RBX, RAX));
    assert_eq!(site.frame_pointer, Operand::register(5));
}

#[test]
fn diamond_is_met_where_both_ways_are_one_again() {
    let parts = [
        MachineCode(KEEP_SIZE),
        MachineCode(TEST_RDI),
        MachineCode(&[0x74, 0x07]), // je +7
        Call(CALLEE),
        MachineCode(&[0xeb, 0x05]), // jmp +5
        Call(CALLEE),
        MachineCode(PLACE),
        MachineCode(POP_RBX),
        MachineCode(RET),
    ];
    assert_eq!(sites(&parts), [(21, Kind::Complete, RBX, RAX)]);
}

#[test]
fn early_return_has_a_site_of_its_own() {
    // Nothing on the way of the failure is emulated: the kernel has to step through `xor`.
    let parts = [
        MachineCode(KEEP_SIZE),
        MachineCode(TEST_RDI),
        MachineCode(&[0x78, 0x09]), // js +9
        Call(CALLEE),
        MachineCode(PLACE),
        MachineCode(POP_RBX),
        MachineCode(RET),
        MachineCode(FAIL),
        MachineCode(POP_RBX),
        MachineCode(RET),
    ];
    assert_eq!(
        sites(&parts),
        [
            (14, Kind::Complete, RBX, RAX),
            (18, Kind::Complete, RBX, Operand::ZERO)
        ]
    );
    assert!(planned(&parts).expect("a plan")[1].stepped);
}

#[test]
fn site_after_a_loop() {
    let parts = [
        MachineCode(KEEP_SIZE),
        MachineCode(&[0x48, 0x89, 0xdf]), // mov %rbx,%rdi
        Call(CALLEE),
        MachineCode(TEST_RAX),
        MachineCode(&[0x74, 0xf3]), // je -13: once more
        MachineCode(PLACE),
        MachineCode(POP_RBX),
        MachineCode(RET),
    ];
    assert_eq!(sites(&parts), [(17, Kind::Complete, RBX, RAX)]);
}

#[test]
fn result_that_is_0_where_it_is_compared() {
    // test %rax,%rax; je to where rax is cleared: it is 0 there already.
    let parts = [
        MachineCode(KEEP_SIZE),
        Call(CALLEE),
        MachineCode(TEST_RAX),
        MachineCode(&[0x74, 0x02]), // je +2
        MachineCode(POP_RBX),
        MachineCode(RET),
        MachineCode(FAIL),
        MachineCode(POP_RBX),
        MachineCode(RET),
    ];
    assert_eq!(sites(&parts), [(12, Kind::Complete, RBX, RAX)]);
}

#[test]
fn size_that_is_not_kept_on_one_way_is_met_before() {
    let parts = [
        MachineCode(KEEP_SIZE),
        MachineCode(TEST_RDI),
        MachineCode(&[0x78, 0x09]), // js +9
        Call(CALLEE),
        MachineCode(PLACE),
        MachineCode(POP_RBX),
        MachineCode(RET),
        MachineCode(&[0x48, 0x89, 0xfe, 0x31, 0xdb, 0x31, 0xff]), // mov %rdi,%rsi; xor %ebx,%ebx; xor %edi,%edi
        Call(CALLEE),
        MachineCode(PLACE),
        MachineCode(POP_RBX),
        MachineCode(RET),
    ];
    assert_eq!(
        sites(&parts),
        [
            (14, Kind::Complete, RBX, RAX),
            (25, Kind::Request, RSI, Operand::NONE),
            (30, Kind::Result, Operand::NONE, RAX)
        ]
    );
}

#[test]
fn no_site_on_a_call_where_there_is_a_shadow_stack() {
    let parts = [
        MachineCode(KEEP_SIZE),
        MachineCode(&[0x48, 0x83, 0xec, 0x10]), // sub $16,%rsp
        Call(CALLEE),
        MachineCode(&[0x48, 0x89, 0x44, 0x24, 0x08, 0x31, 0xc0]), // mov %rax,8(%rsp); xor %eax,%eax
        Call(CALLEE),
        MachineCode(&[0x48, 0x8b, 0x44, 0x24, 0x08]), // mov 8(%rsp),%rax
        MachineCode(&[0x48, 0x83, 0xc4, 0x10]),       // add $16,%rsp
        MachineCode(POP_RBX),
        MachineCode(RET),
    ];
    let plan_of = |image: &Image| plan(image, CODE, &Roles::SIZE, &HashSet::new());
    assert!(plan_of(&image(&parts)).is_ok());
    assert!(matches!(
        plan_of(&Image {
            has_shadow_stack: true,
            ..image(&parts)
        }),
        Err(Obstacle::NoResult(_))
    ));
}

#[test]
fn calls_that_never_return_end_their_way() {
    // test $15,%al; jne +2; the function at the end returns unless its argument is 1.
    let fatal = CODE + 31;
    let parts = [
        MachineCode(KEEP_SIZE),
        Call(CALLEE),
        MachineCode(&[0xa8, 0x0f, 0x75, 0x02]),
        MachineCode(POP_RBX),
        MachineCode(RET),
        MachineCode(&[0xbf, 0x01, 0x00, 0x00, 0x00]), // mov $1,%edi
        Call(fatal),
        MachineCode(POP_RBX),
        MachineCode(RET),
        MachineCode(&[0x90; 4]),
        MachineCode(&[0x85, 0xff, 0x75, 0x01, 0xc3]), // test %edi,%edi; jne +1; ret
        MachineCode(UD2),
    ];
    assert_eq!(sites(&parts), [(11, Kind::Complete, RBX, RAX)]);
    // After one that may return there is no place.
    let mut returns = parts;
    returns[5] = MachineCode(&[0xbf, 0x00, 0x00, 0x00, 0x00]); // mov $0,%edi
    assert!(planned(&returns).is_err());
}

#[test]
fn result_that_passes_through_the_stack() {
    let parts = [
        MachineCode(KEEP_SIZE),
        MachineCode(&[0x48, 0x83, 0xec, 0x10]), // sub $16,%rsp
        Call(CALLEE),
        MachineCode(&[0x48, 0x89, 0x44, 0x24, 0x08, 0x31, 0xc0]), // mov %rax,8(%rsp); xor %eax,%eax
        Call(CALLEE),
        MachineCode(&[0x48, 0x8b, 0x44, 0x24, 0x08]), // mov 8(%rsp),%rax
        MachineCode(&[0x48, 0x83, 0xc4, 0x10]),       // add $16,%rsp
        MachineCode(POP_RBX),
        MachineCode(RET),
    ];
    // At the second call: 16 bytes below the CFA are rbx, and the slot is 8 above the end of those
    // that were made.
    let slot = Operand::slot(24).expect("a slot");
    assert_eq!(sites(&parts), [(20, Kind::Complete, RBX, slot)]);
}

#[test]
fn size_in_the_stack() {
    let parts = [
        MachineCode(&[0x57]), // push %rdi
        Call(CALLEE),
        MachineCode(PLACE),
        MachineCode(&[0x5f]), // pop %rdi
        MachineCode(RET),
    ];
    let slot = Operand::slot(16).expect("a slot");
    assert_eq!(sites(&parts), [(6, Kind::Complete, slot, RAX)]);
}

#[test]
fn frame_pointer_that_was_pushed() {
    let parts = [
        MachineCode(&[0x55, 0x48, 0x89, 0xe5]), // push %rbp; mov %rsp,%rbp
        MachineCode(KEEP_SIZE),
        Call(CALLEE),
        MachineCode(PLACE),
        MachineCode(POP_RBX),
        MachineCode(&[0xc9]), // leave
        MachineCode(RET),
    ];
    let found = planned(&parts).expect("a plan");
    assert_eq!(found.len(), 1);
    assert_eq!(
        (found[0].operands.cfa_bytes, found[0].operands.frame_pointer),
        (24, Operand::slot(16).expect("a slot"))
    );
}

const PRODUCT: [Piece; 10] = [
    MachineCode(&[0x53, 0x48, 0x89, 0xf8]), // push %rbx; mov %rdi,%rax
    MachineCode(&[0x48, 0xf7, 0xe6]),       // mul %rsi
    MachineCode(&[0x48, 0x89, 0xc3]),       // mov %rax,%rbx
    MachineCode(&[0x70, 0x09]),             // jo +9
    Call(CALLEE),
    MachineCode(PLACE),
    MachineCode(POP_RBX),
    MachineCode(RET),
    MachineCode(&[0x31, 0xc0, 0xeb, 0xfa]), // xor %eax,%eax; jmp to the pop
    MachineCode(UD2),
];

#[test]
fn product_and_whether_it_overflows() {
    let found = plan(&image(&PRODUCT), CODE, &Roles::COUNT_SIZE, &HashSet::new()).expect("a plan");
    let sites: Vec<_> = found
        .iter()
        .map(|found| (found.address - CODE, found.operands))
        .collect();
    // Where it does, the high half is still in rdx; where it does not, there is no need to look.
    assert_eq!(sites.len(), 2);
    assert_eq!(
        (sites[0].0, sites[0].1.size, sites[0].1.high),
        (17, RBX, Operand::NONE)
    );
    assert_eq!((sites[1].0, sites[1].1.size, sites[1].1.high), (23, RBX, RDX));
    // To a function with one argument it is no product of its arguments.
    assert_eq!(planned(&PRODUCT), Err(Obstacle::NothingGained));
}

#[test]
fn jump_to_a_function_that_returns_its_argument() {
    let memset = CALLEE + 0x100;
    let parts = [
        MachineCode(KEEP_SIZE),
        Call(CALLEE),
        MachineCode(TEST_RAX),
        MachineCode(&[0x74, 0x09]),       // je +9
        MachineCode(&[0x48, 0x89, 0xc7]), // mov %rax,%rdi
        MachineCode(POP_RBX),
        Jump(memset),
        MachineCode(POP_RBX),
        MachineCode(RET),
    ];
    let mut image = image(&parts);
    image.return_first.insert(memset);
    let found = plan(&image, CODE, &Roles::SIZE, &HashSet::new()).expect("a plan");
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].address - CODE, found[0].operands.result), (12, RAX));
}

#[test]
fn argument_that_is_still_in_its_register() {
    // mov %rsi,%rax; je +0; ret: the result is the second argument, and the size the first.
    let parts = [
        MachineCode(&[0x48, 0x89, 0xf0]),
        MachineCode(PLACE),
        MachineCode(RET),
    ];
    let found = sites(&parts);
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].1, found[0].2), (Kind::Complete, RDI));
}
