//! System calls of `bpf(2)` that aya does not have. Layouts are those of `union bpf_attr` in the
//! kernel's `include/uapi/linux/bpf.h`.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};

use aya_obj::generated::{
    BPF_F_UPROBE_MULTI_RETURN, bpf_attach_type, bpf_cmd, bpf_insn, bpf_prog_info, bpf_prog_type,
};

/// Bytes of a program's name, with the zero at its end.
const NAME_BYTES: usize = 16;

/// What a program is loaded with.
pub(super) struct Program<'a> {
    pub(super) name: &'a str,
    pub(super) kind: bpf_prog_type,
    /// Of the kernel's `enum bpf_attach_type`; 0 where the kind says all.
    pub(super) attach_type: u32,
    pub(super) licence: &'a CStr,
    pub(super) instructions: &'a [bpf_insn],
    pub(super) types: Option<Types<'a>>,
}

/// A program's type information. The verifier takes global functions one by one where it knows
/// their types, and as part of each caller where it does not.
#[derive(Clone, Copy)]
pub(super) struct Types<'a> {
    pub(super) btf: BorrowedFd<'a>,
    /// Records of `struct bpf_func_info`, of so many bytes each.
    pub(super) functions: (&'a [u8], usize),
    /// Records of `struct bpf_line_info`, likewise.
    pub(super) lines: (&'a [u8], usize),
}

#[repr(C)]
#[derive(Default)]
struct LoadAttributes {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; NAME_BYTES],
    prog_ifindex: u32,
    expected_attach_type: u32,
    prog_btf_fd: u32,
    func_info_rec_size: u32,
    func_info: u64,
    func_info_cnt: u32,
    line_info_rec_size: u32,
    line_info: u64,
    line_info_cnt: u32,
    attach_btf_id: u32,
}

/// `BPF_LOG_LEVEL1 | BPF_LOG_STATS` of the kernel's `include/linux/bpf_verifier.h`: what aya asks
/// for.
const LOG_LEVEL: u32 = 1 | 4;

/// Loads a program. The verifier's account goes into `log`, if that has room.
pub(super) fn load_program(program: &Program, log: &mut [u8]) -> io::Result<OwnedFd> {
    let mut name = [0; NAME_BYTES];
    for (to, from) in name[..NAME_BYTES - 1].iter_mut().zip(program.name.bytes()) {
        *to = from;
    }
    let mut attributes = LoadAttributes {
        prog_type: program.kind as u32,
        insn_cnt: number(program.instructions.len())?,
        insns: program.instructions.as_ptr() as u64,
        license: program.licence.as_ptr() as u64,
        prog_name: name,
        expected_attach_type: program.attach_type,
        ..LoadAttributes::default()
    };
    if !log.is_empty() {
        attributes.log_level = LOG_LEVEL;
        attributes.log_size = number(log.len())?;
        attributes.log_buf = log.as_mut_ptr() as u64;
    }
    if let Some(types) = &program.types {
        attributes.prog_btf_fd = descriptor(types.btf.as_raw_fd())?;
        let (functions, each) = types.functions;
        if each > 0 {
            attributes.func_info = functions.as_ptr() as u64;
            attributes.func_info_rec_size = number(each)?;
            attributes.func_info_cnt = number(functions.len() / each)?;
        }
        let (lines, each) = types.lines;
        if each > 0 {
            attributes.line_info = lines.as_ptr() as u64;
            attributes.line_info_rec_size = number(each)?;
            attributes.line_info_cnt = number(lines.len() / each)?;
        }
    }
    // SAFETY: the attributes are those of the command, and what they point to outlives the call.
    unsafe { bpf_for_descriptor(bpf_cmd::BPF_PROG_LOAD, &mut attributes) }
}

/// Instructions of one file, for [`link_uprobes`].
pub(super) struct Uprobes<'a> {
    pub(super) path: &'a CStr,
    pub(super) offsets: &'a [u64],
    /// As many as offsets.
    pub(super) cookies: &'a [u64],
    /// The returns of the functions that begin there, instead of the instructions.
    pub(super) returns: bool,
    /// The process, or 0 for all.
    pub(super) pid: u32,
}

#[repr(C)]
#[derive(Default)]
struct LinkAttributes {
    prog_fd: u32,
    target_fd: u32,
    attach_type: u32,
    flags: u32,
    path: u64,
    offsets: u64,
    ref_ctr_offsets: u64,
    cookies: u64,
    cnt: u32,
    uprobe_flags: u32,
    pid: u32,
    reserved: u32,
}

/// Attaches a program to several instructions of a file. Closing the link takes it off all of them.
pub(super) fn link_uprobes(program: BorrowedFd, uprobes: &Uprobes) -> io::Result<OwnedFd> {
    if uprobes.offsets.len() != uprobes.cookies.len() {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    let mut attributes = LinkAttributes {
        prog_fd: descriptor(program.as_raw_fd())?,
        attach_type: bpf_attach_type::BPF_TRACE_UPROBE_MULTI as u32,
        path: uprobes.path.as_ptr() as u64,
        offsets: uprobes.offsets.as_ptr() as u64,
        cookies: uprobes.cookies.as_ptr() as u64,
        cnt: number(uprobes.offsets.len())?,
        uprobe_flags: if uprobes.returns {
            BPF_F_UPROBE_MULTI_RETURN
        } else {
            0
        },
        pid: uprobes.pid,
        ..LinkAttributes::default()
    };
    // SAFETY: as above; offsets and cookies are as many.
    unsafe { bpf_for_descriptor(bpf_cmd::BPF_LINK_CREATE, &mut attributes) }
}

/// Attaches a program to a perf event, with the cookie that it asks for (Linux 5.15). Closing the
/// link takes it off, and the event with it.
pub(super) fn link_event(program: BorrowedFd, event: BorrowedFd, cookie: u64) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct EventAttributes {
        prog_fd: u32,
        target_fd: u32,
        attach_type: u32,
        flags: u32,
        cookie: u64,
    }
    let mut attributes = EventAttributes {
        prog_fd: descriptor(program.as_raw_fd())?,
        target_fd: descriptor(event.as_raw_fd())?,
        attach_type: bpf_attach_type::BPF_PERF_EVENT as u32,
        flags: 0,
        cookie,
    };
    // SAFETY: the attributes are those of the command, and point to nothing.
    unsafe { bpf_for_descriptor(bpf_cmd::BPF_LINK_CREATE, &mut attributes) }
}

/// Pins a link, program or map at a path in a BPF file system.
pub(in crate::bpf) fn pin(object: BorrowedFd, path: &CStr) -> io::Result<()> {
    #[repr(C)]
    struct PinAttributes {
        pathname: u64,
        bpf_fd: u32,
        file_flags: u32,
    }
    let mut attributes = PinAttributes {
        pathname: path.as_ptr().expose_provenance() as u64,
        bpf_fd: descriptor(object.as_raw_fd())?,
        file_flags: 0,
    };
    // SAFETY: the attributes are those of the command; the path lives through the call.
    unsafe { bpf(bpf_cmd::BPF_OBJ_PIN, &mut attributes) }.map(drop)
}

/// Hands the kernel type information (BTF).
pub(super) fn load_types(types: &[u8]) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct TypesAttributes {
        btf: u64,
        btf_log_buf: u64,
        btf_size: u32,
        btf_log_size: u32,
        btf_log_level: u32,
    }
    let mut attributes = TypesAttributes {
        btf: types.as_ptr() as u64,
        btf_log_buf: 0,
        btf_size: number(types.len())?,
        btf_log_size: 0,
        btf_log_level: 0,
    };
    // SAFETY: the attributes are those of the command; the bytes have the length that they say.
    unsafe { bpf_for_descriptor(bpf_cmd::BPF_BTF_LOAD, &mut attributes) }
}

/// Attributes of commands on the elements of a map.
#[repr(C)]
#[derive(Default)]
pub(in crate::bpf) struct ElementAttributes {
    pub(in crate::bpf) map_fd: u32,
    pub(in crate::bpf) padding: u32,
    pub(in crate::bpf) key: u64,
    /// The value or the next key, by the command.
    pub(in crate::bpf) value: u64,
    pub(in crate::bpf) flags: u64,
}

/// Fills a map of variables, an array of one element that has the length of `values`.
pub(super) fn set_variables(map: BorrowedFd, values: &[u8]) -> io::Result<()> {
    let key = 0_u32;
    let mut attributes = ElementAttributes {
        map_fd: descriptor(map.as_raw_fd())?,
        key: (&raw const key) as u64,
        value: values.as_ptr() as u64,
        ..ElementAttributes::default()
    };
    // SAFETY: the attributes are those of the command; such a map's values have the length of the
    // section that `values` is.
    unsafe { bpf(bpf_cmd::BPF_MAP_UPDATE_ELEM, &mut attributes) }.map(drop)
}

/// Makes a map one that no system call writes to: the verifier takes its values for constants.
pub(super) fn freeze(map: BorrowedFd) -> io::Result<()> {
    let mut attributes = ElementAttributes {
        map_fd: descriptor(map.as_raw_fd())?,
        ..ElementAttributes::default()
    };
    // SAFETY: the attributes are those of the command, which reads the map alone.
    unsafe { bpf(bpf_cmd::BPF_MAP_FREEZE, &mut attributes) }.map(drop)
}

/// What the kernel says of a program.
pub(super) fn program_info(program: BorrowedFd) -> io::Result<bpf_prog_info> {
    #[repr(C)]
    struct InfoAttributes {
        bpf_fd: u32,
        info_len: u32,
        info: u64,
    }
    // SAFETY: a struct of integers, of which zeros are a valid value.
    let mut info: bpf_prog_info = unsafe { std::mem::zeroed() };
    let mut attributes = InfoAttributes {
        bpf_fd: descriptor(program.as_raw_fd())?,
        info_len: number(size_of::<bpf_prog_info>())?,
        info: (&raw mut info) as u64,
    };
    // SAFETY: the attributes are those of the command, and `info` has the length that they say.
    unsafe { bpf(bpf_cmd::BPF_OBJ_GET_INFO_BY_FD, &mut attributes) }?;
    Ok(info)
}

/// Makes the system call. It takes no memory from an allocator.
///
/// # Safety
///
/// The attributes must be those of the command, and what they point to must be valid.
pub(in crate::bpf) unsafe fn bpf<T>(command: bpf_cmd, attributes: &mut T) -> io::Result<libc::c_long> {
    let number = command as libc::c_long;
    // SAFETY: the caller's to ensure.
    let status = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            number,
            std::ptr::from_mut(attributes),
            size_of::<T>(),
        )
    };
    if status < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(status)
}

/// # Safety
///
/// The same, and the command must be one that opens a descriptor.
unsafe fn bpf_for_descriptor<T>(command: bpf_cmd, attributes: &mut T) -> io::Result<OwnedFd> {
    // SAFETY: the caller's to ensure.
    let opened = unsafe { bpf(command, attributes) }?;
    let opened = RawFd::try_from(opened).map_err(io::Error::other)?;
    // SAFETY: the kernel has just opened it, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(opened) })
}

fn number(len: usize) -> io::Result<u32> {
    u32::try_from(len).map_err(io::Error::other)
}

fn descriptor(fd: RawFd) -> io::Result<u32> {
    u32::try_from(fd).map_err(io::Error::other)
}
