//! Launching a command, held before its first instruction until the probes are in.
//!
//! The child waits on a pipe between fork and exec. If memtap goes away before it says "go", the
//! pipe closes and the child ends without having run anything.

use std::ffi::OsString;
use std::io::{self, PipeReader, PipeWriter, Read as _, Write as _};
use std::os::fd::{AsRawFd as _, RawFd};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command};
use std::thread::JoinHandle;

use crate::privileges::User;

/// A command that waits to be let go.
#[derive(Debug)]
pub(crate) struct HeldCommand {
    /// The child's process id.
    pub pid: u32,
    gate: PipeWriter,
    // `Command::spawn` returns once the child has executed the program, so it needs a thread of its
    // own.
    spawner: JoinHandle<io::Result<Child>>,
}

/// Starts a command as the user who called `sudo`, and holds it.
pub(crate) fn hold(command: &[OsString], user: Option<&User>) -> io::Result<HeldCommand> {
    let (program, arguments) = command
        .split_first()
        .ok_or_else(|| io::Error::other("there is no command to run"))?;
    let (gate_reader, gate) = io::pipe()?;
    let (mut pid_reader, pid_writer) = io::pipe()?;
    let mut child = Command::new(program);
    child.args(arguments);
    if let Some(user) = user {
        for (name, value) in [("HOME", &user.home), ("SHELL", &user.shell)] {
            if let Some(value) = value {
                child.env(name, value);
            }
        }
        let name = user.name.to_string_lossy().into_owned();
        child.env("USER", &name).env("LOGNAME", &name);
    }
    let gate_fd = gate.as_raw_fd();
    let spawner = spawn_on_thread(child, user.cloned(), gate_reader, gate_fd, pid_writer);
    let mut pid = [0; 4];
    if let Err(error) = pid_reader.read_exact(&mut pid) {
        // The child ended before it could say who it is: the spawner knows why.
        drop(gate);
        return Err(join(spawner).err().unwrap_or(error));
    }
    Ok(HeldCommand {
        pid: u32::from_ne_bytes(pid),
        gate,
        spawner,
    })
}

fn spawn_on_thread(
    mut child: Command,
    user: Option<User>,
    gate: PipeReader,
    parent_end: RawFd,
    pid: PipeWriter,
) -> JoinHandle<io::Result<Child>> {
    std::thread::spawn(move || {
        let (gate_fd, pid_fd) = (gate.as_raw_fd(), pid.as_raw_fd());
        let prepare = move || {
            if let Some(user) = &user {
                user.become_user()?;
            }
            wait_at_gate(gate_fd, parent_end, pid_fd)
        };
        // SAFETY: the closure makes system calls alone, on values made before the fork.
        unsafe { child.pre_exec(prepare) };
        let outcome = child.spawn();
        // Both ends must live until the child has its copies.
        drop((gate, pid));
        outcome
    })
}

/// Writes the child's process ID, and waits for the gate to open. Runs in the child.
fn wait_at_gate(gate: RawFd, parent_end: RawFd, pid: RawFd) -> io::Result<()> {
    let own = std::process::id().to_ne_bytes();
    let mut go = [0u8; 1];
    // SAFETY: the descriptors are open, and the buffers are as long as is said.
    unsafe {
        if libc::write(pid, own.as_ptr().cast(), own.len()) != 4 {
            return Err(io::Error::last_os_error());
        }
        // Were this copy of the parent's end kept, a dead parent would not be noticed.
        libc::close(parent_end);
        loop {
            match libc::read(gate, go.as_mut_ptr().cast(), 1) {
                1 => return Ok(()),
                -1 if io::Error::last_os_error().kind() == io::ErrorKind::Interrupted => {}
                _ => libc::_exit(127),
            }
        }
    }
}

impl HeldCommand {
    /// Lets the command go. An error is the one of executing it.
    pub(crate) fn release(mut self) -> io::Result<Child> {
        self.gate.write_all(&[1])?;
        drop(self.gate);
        join(self.spawner)
    }
}

fn join(spawner: JoinHandle<io::Result<Child>>) -> io::Result<Child> {
    spawner
        .join()
        .map_err(|_panic| io::Error::other("the thread that starts the command panicked"))?
}
