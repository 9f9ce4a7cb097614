//! The messages between the recording and the process that reads names: JSON after its length,
//! descriptors beside the length.

use std::io::{self, IoSlice, IoSliceMut, Read, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use rustix::cmsg_space;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Bytes of a message at most.
const MAX_MESSAGE_BYTES: u64 = 256 << 20;

/// Descriptors of a message at most: a file, and its debug information.
const MAX_FILES: usize = 2;

/// A request to the process.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct ReaderRequest {
    /// A number that the answer repeats.
    pub(super) id: usize,
    pub(super) task: ReaderTask,
}

/// A file to read, and the purpose. The open files come beside it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(in crate::symbolize) enum ReaderTask {
    /// An ELF file, and its debug information where that is in another one.
    File(FileTask),
    /// A perf map.
    Map(MapTask),
}

impl ReaderTask {
    /// The addresses that are to be named.
    pub(in crate::symbolize) fn addresses(&self) -> &[u64] {
        match self {
            Self::File(task) => &task.addresses,
            Self::Map(task) => &task.addresses,
        }
    }
}

/// The use of a mapped file's contents for names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::symbolize) enum OwnSymbols {
    /// Nothing: it is another file by now, or no whole one.
    Nothing,
    /// Symbol tables.
    Symbols,
    /// Debug information too.
    DebugInfo,
}

/// The addresses that an ELF file is asked for.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(in crate::symbolize) struct FileTask {
    /// The use of the file's own contents.
    pub(in crate::symbolize) own: OwnSymbols,
    /// Addresses as the file has them.
    pub(in crate::symbolize) addresses: Vec<u64>,
    /// Directories with debug information, for what that refers to itself.
    pub(in crate::symbolize) directories: Vec<PathBuf>,
}

/// The addresses that a perf map is asked for, in order.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(in crate::symbolize) struct MapTask {
    /// Addresses in memory.
    pub(in crate::symbolize) addresses: Vec<u64>,
}

/// A message of the process.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum ReaderReply {
    /// A message for the log about a request.
    Note {
        id: usize,
        is_warning: bool,
        text: String,
    },
    /// The names for a request.
    Done { id: usize, names: Names },
}

/// The names of addresses. Each string is there once.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::symbolize) struct Names {
    /// Names of functions and of source files.
    pub(in crate::symbolize) strings: Vec<String>,
    /// The frames of each address, from the outermost to the innermost; none where it has no name.
    pub(in crate::symbolize) frames: Vec<Vec<NamedFrame>>,
}

impl Names {
    /// Returns true if they are for so many addresses, and every index is one of a string.
    pub(super) fn is_sound(&self, addresses: usize) -> bool {
        let is_string = |index: u32| (index as usize) < self.strings.len();
        let is_sound =
            |frame: &NamedFrame| is_string(frame.name) && frame.line.is_none_or(|(file, _)| is_string(file));
        self.frames.len() == addresses && self.frames.iter().flatten().all(is_sound)
    }
}

/// A frame, by indices of strings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::symbolize) struct NamedFrame {
    /// The function.
    pub(in crate::symbolize) name: u32,
    /// The source file, and the line in it.
    pub(in crate::symbolize) line: Option<(u32, u32)>,
}

/// Sends a message with open files.
pub(super) fn send(
    mut socket: &UnixStream,
    message: &impl Serialize,
    files: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let body = serde_json::to_vec(message)?;
    let len = (body.len() as u64).to_le_bytes();
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(MAX_FILES))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !files.is_empty() && !control.push(SendAncillaryMessage::ScmRights(files)) {
        return Err(io::Error::other("a message has too many files"));
    }
    let sent = sendmsg(socket, &[IoSlice::new(&len)], &mut control, SendFlags::NOSIGNAL)?;
    if sent != len.len() {
        return Err(io::ErrorKind::WriteZero.into());
    }
    socket.write_all(&body)
}

/// Receives a message with its files; nothing where the other side has gone.
pub(super) fn receive<M: DeserializeOwned>(socket: &UnixStream) -> io::Result<Option<(M, Vec<OwnedFd>)>> {
    let mut len = [0; 8];
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(MAX_FILES))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::WAITALL;
    let received = recvmsg(
        socket.as_fd(),
        &mut [IoSliceMut::new(&mut len)],
        &mut control,
        flags,
    )?;
    match received.bytes {
        0 => return Ok(None),
        8 => {}
        _ => return Err(io::ErrorKind::UnexpectedEof.into()),
    }
    let mut files = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            files.extend(received);
        }
    }
    let len = u64::from_le_bytes(len);
    if len > MAX_MESSAGE_BYTES {
        return Err(io::Error::other("a message is too long"));
    }
    let mut body = Vec::new();
    if (&mut &*socket).take(len).read_to_end(&mut body)? as u64 != len {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(Some((serde_json::from_slice(&body)?, files)))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn messages_come_with_their_files() {
        let (one, other) = UnixStream::pair().expect("sockets");
        let file = tempfile::tempfile().expect("room");
        for text in ["first", "second"] {
            send(&one, &text, &[file.as_fd(), file.as_fd()]).expect("room");
            let (received, files): (String, _) = receive(&other).expect("whole").expect("sent");
            assert_eq!((received.as_str(), files.len()), (text, 2));
        }
        send(&one, &"third", &[]).expect("room");
        let (_, files): (String, _) = receive(&other).expect("whole").expect("sent");
        assert!(files.is_empty());
        drop(one);
        assert!(receive::<String>(&other).expect("an end").is_none());
    }

    #[test]
    fn malformed_messages_are_errors() {
        for bytes in [
            &b"12"[..],
            &[0xff; 8],
            &[9, 0, 0, 0, 0, 0, 0, 0, b'"'],
            &[1, 0, 0, 0, 0, 0, 0, 0, b'{'],
        ] {
            let (mut one, other) = UnixStream::pair().expect("sockets");
            one.write_all(bytes).expect("room");
            drop(one);
            assert!(receive::<String>(&other).is_err(), "{bytes:?}");
        }
    }
}
