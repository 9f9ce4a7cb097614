//! Functions that are left to their entry and their return, and why.

use super::*;

fn refused(parts: &[Piece]) -> Obstacle {
    planned(parts).expect_err("no plan")
}

#[test]
fn nothing_emulated_before_a_return() {
    let parts = [
        MachineCode(KEEP_SIZE),
        Call(CALLEE),
        MachineCode(POP_RBX),
        MachineCode(RET),
    ];
    assert_eq!(refused(&parts), Obstacle::NoResult(CODE + 10));
}

#[test]
fn place_in_a_loop_is_met_again() {
    let parts = [
        MachineCode(KEEP_SIZE),
        Call(CALLEE),
        MachineCode(&[0x48, 0x89, 0xc2, 0xb9, 0x03, 0x00, 0x00, 0x00]), // mov %rax,%rdx; mov $3,%ecx
        MachineCode(&[0x83, 0xe9, 0x01, 0x75, 0xfb]),                   // sub $1,%ecx; jne -5
        MachineCode(&[0x48, 0x89, 0xd0]),                               // mov %rdx,%rax
        MachineCode(POP_RBX),
        MachineCode(RET),
    ];
    assert!(matches!(refused(&parts), Obstacle::NoResult(_)));
}

#[test]
fn result_that_changes_after_the_place() {
    let parts = [
        MachineCode(KEEP_SIZE),
        Call(CALLEE),
        MachineCode(PLACE),
        MachineCode(&[0x48, 0x83, 0xc0, 0x10]), // add $16,%rax
        MachineCode(POP_RBX),
        MachineCode(RET),
    ];
    assert!(matches!(refused(&parts), Obstacle::NoResult(_)));
}

#[test]
fn size_that_is_never_kept() {
    // xor %edi,%edi before anything that is emulated.
    let parts = [
        MachineCode(&[0x31, 0xff]),
        Call(CALLEE),
        MachineCode(PLACE),
        MachineCode(RET),
    ];
    assert!(matches!(refused(&parts), Obstacle::NoSize(_)));
    // It is known before the call alone: that would be two probes for all calls.
    let parts = [Call(CALLEE), MachineCode(PLACE), MachineCode(RET)];
    assert_eq!(refused(&parts), Obstacle::NothingGained);
}

#[test]
fn jump_to_another_traced_function() {
    let parts = [MachineCode(KEEP_SIZE), MachineCode(POP_RBX), Jump(CALLEE)];
    let traced = HashSet::from([CALLEE]);
    assert_eq!(
        plan(&image(&parts), CODE, &Roles::SIZE, &traced),
        Err(Obstacle::GoesOn(CODE + 5, CALLEE))
    );
}

#[test]
fn tail_that_others_reach_too() {
    // The last four bytes are a jump to the tail from elsewhere.
    let tail = CODE + 16;
    let parts = [
        MachineCode(KEEP_SIZE),
        Jump(tail),
        MachineCode(&[0xcc; 7]),
        Call(CALLEE),
        MachineCode(PLACE),
        MachineCode(POP_RBX),
        MachineCode(RET),
        MachineCode(&[0xcc; 7]),
    ];
    assert_eq!(sites(&parts), [(21, Kind::Complete, RBX, RAX)]);
    let shared = parts.into_iter().chain([Jump(tail)]).collect::<Vec<_>>();
    assert_eq!(refused(&shared), Obstacle::Shared(tail, CODE + 33));
}

#[test]
fn tail_that_is_pointed_to() {
    let tail = CODE + 16;
    let mut parts = vec![
        MachineCode(KEEP_SIZE),
        Jump(tail),
        MachineCode(&[0xcc; 7]),
        Call(CALLEE),
        MachineCode(PLACE),
        MachineCode(POP_RBX),
        MachineCode(RET),
        MachineCode(&[0xcc; 7]),
    ];
    parts.push(MachineCode(&[0x10, 0x10, 0, 0, 0, 0, 0, 0]));
    assert_eq!(refused(&parts), Obstacle::Pointed(tail));
}

#[test]
fn indirect_jump() {
    let parts = [MachineCode(KEEP_SIZE), MachineCode(&[0xff, 0xe0])]; // jmp *%rax
    assert_eq!(refused(&parts), Obstacle::IndirectJump(CODE + 4));
}

#[test]
fn code_that_is_no_instruction_or_not_there() {
    let parts = [MachineCode(KEEP_SIZE), MachineCode(&[0x06])];
    assert_eq!(refused(&parts), Obstacle::NoCode(CODE + 4));
    assert_eq!(
        refused(&[Jump(CODE + 0x10_0000)]),
        Obstacle::NoCode(CODE + 0x10_0000)
    );
    // int3
    assert_eq!(
        refused(&[MachineCode(&[0xcc])]),
        Obstacle::UnknownInstruction(CODE)
    );
}

#[test]
fn slot_whose_address_is_given_away() {
    let slot_is_given = |lea: &'static [u8]| {
        planned(&[
            MachineCode(KEEP_SIZE),
            MachineCode(&[0x48, 0x83, 0xec, 0x10]), // sub $16,%rsp
            Call(CALLEE),
            MachineCode(&[0x48, 0x89, 0x44, 0x24, 0x08, 0x31, 0xc0]), // mov %rax,8(%rsp); xor %eax,%eax
            MachineCode(lea),
            Call(CALLEE),
            MachineCode(&[0x48, 0x8b, 0x44, 0x24, 0x08]), // mov 8(%rsp),%rax
            MachineCode(&[0x48, 0x83, 0xc4, 0x10]),       // add $16,%rsp
            MachineCode(POP_RBX),
            MachineCode(RET),
        ])
    };
    // lea 8(%rbx),%rdi, and lea 8(%rsp),%rdi: whoever is called may write there.
    assert!(slot_is_given(&[0x48, 0x8d, 0x7b, 0x08]).is_ok());
    assert!(matches!(
        slot_is_given(&[0x48, 0x8d, 0x7c, 0x24, 0x08]),
        Err(Obstacle::NoResult(_))
    ));
}

#[test]
fn stack_argument_is_no_memory_of_the_size() {
    // push %rdi; call; jne; add $8,%rsp: the callee owns that slot, and it is not read again.
    let parts = [
        MachineCode(&[0x57]),
        Call(CALLEE),
        MachineCode(PLACE),
        MachineCode(&[0x48, 0x83, 0xc4, 0x08]),
        MachineCode(RET),
    ];
    assert_eq!(refused(&parts), Obstacle::NothingGained);
}

#[test]
fn depth_that_is_not_known() {
    // sub %rdi,%rsp
    let parts = [
        MachineCode(&[0x48, 0x29, 0xfc]),
        Call(CALLEE),
        MachineCode(PLACE),
        MachineCode(RET),
    ];
    assert!(matches!(refused(&parts), Obstacle::Depth(_)));
    // push %rbx; ret
    assert_eq!(
        refused(&[MachineCode(KEEP_SIZE), MachineCode(RET)]),
        Obstacle::Depth(CODE + 4)
    );
}

#[test]
fn return_address_that_is_overwritten() {
    // mov %rax,(%rsp)
    let parts = [
        MachineCode(&[0x48, 0x89, 0x04, 0x24]),
        MachineCode(PLACE),
        MachineCode(RET),
    ];
    assert_eq!(refused(&parts), Obstacle::ReturnAddress(CODE));
}

#[test]
fn no_return() {
    assert_eq!(refused(&[MachineCode(UD2)]), Obstacle::NoReturn);
}

#[test]
fn breakpoint_inside_another_instruction() {
    // test %edi,%edi; je over the first byte of `mov $..,%eax`, whose constant is a jump when it is
    // reached so.
    let parts = [
        MachineCode(KEEP_SIZE),
        Call(CALLEE),
        MachineCode(&[0x85, 0xff, 0x74, 0x02]), // test %edi,%edi; je +2
        MachineCode(&[0x66, 0xa9, 0x75, 0x00]), // test $0x75,%ax, or from its third byte: jne +0
        MachineCode(POP_RBX),
        MachineCode(RET),
    ];
    // The jne at +15 would do if it were not inside the test.
    let found = planned(&parts).expect("the first branch does for both ways");
    assert!(found.iter().all(|site| site.address != CODE + 15));
}

#[test]
fn functions_with_an_old_block() {
    for roles in [
        Roles::RESIZE,
        Roles::RESIZE_ARRAY,
        Roles::FREE,
        Roles::OUT_POINTER,
    ] {
        assert_eq!(
            plan(&image(&[MachineCode(RET)]), CODE, &roles, &HashSet::new()),
            Err(Obstacle::Signature)
        );
    }
}

#[test]
fn code_that_no_jump_leads_to_and_that_comes_back() {
    // Behind the return, as a landing pad: pop %rax; jmp to the place at +9.
    let parts = [
        MachineCode(KEEP_SIZE),
        Call(CALLEE),
        MachineCode(PLACE),
        MachineCode(POP_RBX),
        MachineCode(RET),
        MachineCode(&[0x58, 0xeb, 0xf9]),
    ];
    assert_eq!(refused(&parts), Obstacle::Shared(CODE + 9, CODE + 14));
    assert!(planned(&parts[..5]).is_ok());
    // The same in front of a part that is far from the rest.
    let far = CODE + 0x400;
    let pad = &[0x58, 0xeb, 0x04, 0xcc, 0xcc, 0xcc, 0xcc];
    let parts = |pad: &'static [u8]| {
        [
            MachineCode(KEEP_SIZE),
            Call(CALLEE),
            Jump(far),
            MachineCode(&[0x90; 0x400 - 0x0e - 7]),
            MachineCode(pad),
            MachineCode(PLACE),
            MachineCode(POP_RBX),
            MachineCode(RET),
        ]
    };
    assert_eq!(refused(&parts(pad)), Obstacle::Shared(far, far - 6));
    assert!(planned(&parts(&[0x90; 7])).is_ok());
}

#[test]
fn code_whose_address_is_taken() {
    let tail = CODE + 16;
    let parts = |taken: &'static [u8]| {
        [
            MachineCode(KEEP_SIZE),
            Jump(tail),
            MachineCode(&[0xcc; 7]),
            MachineCode(PLACE),
            Call(CALLEE),
            MachineCode(PLACE),
            MachineCode(POP_RBX),
            MachineCode(RET),
            MachineCode(&[0xcc; 5]),
            MachineCode(taken),
        ]
    };
    // lea -23(%rip),%rdi, of the tail; mov $0x1010,%edi
    let lea = &[0x48, 0x8d, 0x3d, 0xe9, 0xff, 0xff, 0xff];
    let mov = &[0xbf, 0x10, 0x10, 0x00, 0x00];
    assert_eq!(refused(&parts(lea)), Obstacle::Shared(tail, CODE + 35));
    let plan_of = |image: &Image| plan(image, CODE, &Roles::SIZE, &HashSet::new());
    assert!(plan_of(&image(&parts(mov))).is_ok());
    assert_eq!(
        plan_of(&Image {
            is_fixed: true,
            ..image(&parts(mov))
        }),
        Err(Obstacle::Shared(tail, CODE + 33))
    );
}

#[test]
fn result_in_a_slot_that_may_be_another_pointers() {
    // The slot at 8(%rsp) has the result; %rbp points to it, or is the caller's, which is not known
    // any more.
    let parts = |point: &'static [u8]| {
        [
            MachineCode(&[0x55]), // push %rbp
            MachineCode(KEEP_SIZE),
            MachineCode(&[0x48, 0x83, 0xec, 0x10]), // sub $16,%rsp
            Call(CALLEE),
            MachineCode(&[0x48, 0x89, 0x44, 0x24, 0x08]), // mov %rax,8(%rsp)
            MachineCode(TEST_RAX),
            MachineCode(&[0x74, 0x05]), // je +5
            MachineCode(point),
            MachineCode(PLACE),
            MachineCode(&[0x48, 0x89, 0x5d, 0x00]), // mov %rbx,0(%rbp)
            MachineCode(&[0x48, 0x8b, 0x44, 0x24, 0x08]), // mov 8(%rsp),%rax
            MachineCode(&[0x48, 0x83, 0xc4, 0x10]), // add $16,%rsp
            MachineCode(POP_RBX),
            MachineCode(&[0x5d]), // pop %rbp
            MachineCode(RET),
        ]
    };
    // lea 8(%rsp),%rbp; nopl 0(%rax,%rax,1)
    let refused = refused(&parts(&[0x48, 0x8d, 0x6c, 0x24, 0x08]));
    assert!(matches!(refused, Obstacle::NoResult(_)), "{refused}");
    assert!(planned(&parts(&[0x0f, 0x1f, 0x44, 0x00, 0x00])).is_ok());
}

#[test]
fn no_probe_on_what_the_kernel_does_not_step() {
    // A failed call: lock orl $0,(%rsi); xor %eax,%eax.
    let parts = |before: &'static [u8]| {
        [
            MachineCode(KEEP_SIZE),
            Call(CALLEE),
            MachineCode(TEST_RAX),
            MachineCode(&[0x74, 0x04]), // je +4
            MachineCode(PLACE),
            MachineCode(POP_RBX),
            MachineCode(RET),
            MachineCode(before),
            MachineCode(POP_RBX),
            MachineCode(FAIL),
            MachineCode(RET),
        ]
    };
    let stepped = planned(&parts(&[0xf0, 0x83, 0x0e, 0x00])).expect("a plan");
    let stepped: Vec<u64> = stepped
        .iter()
        .filter(|site| site.stepped)
        .map(|site| site.address - CODE)
        .collect();
    assert!(!stepped.contains(&18), "{stepped:?}");
}
