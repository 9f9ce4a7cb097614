//! The name of the file with the debug information of another one.

/// `.gnu_debuglink`: the name of the file with debug information, and the checksum of that file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DebugLink {
    /// The name of a file, without directories.
    pub name: String,
    /// CRC-32 as in ISO 3309, over the whole of that file.
    pub crc: u32,
}

impl DebugLink {
    /// Parses a section's bytes: a name that ends in NUL, padding to four bytes, and a checksum. A
    /// name that is a path is not followed.
    pub(super) fn parse(data: &[u8]) -> Option<Self> {
        let len = data.iter().position(|byte| *byte == 0)?;
        let name = std::str::from_utf8(&data[..len]).ok()?;
        if name.is_empty() || name == "." || name == ".." || name.contains('/') {
            return None;
        }
        let at = (len + 1).next_multiple_of(4);
        Some(Self {
            name: name.to_owned(),
            crc: u32::from_le_bytes(*data.get(at..)?.first_chunk()?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_link_is_read_with_its_padding() {
        let link = DebugLink::parse(b"a.debug\0\x01\x02\x03\x04").expect("whole");
        assert_eq!((link.name.as_str(), link.crc), ("a.debug", 0x0403_0201));
        let padded = DebugLink::parse(b"ab.debug\0\0\0\0\x01\0\0\0").expect("whole");
        assert_eq!((padded.name.as_str(), padded.crc), ("ab.debug", 1));
    }

    #[test]
    fn damaged_debug_links_are_none() {
        for damaged in [
            &b""[..],
            b"a.debug",
            b"a.debug\0",
            b"a.debug\0\x01\x02\x03",
            b"\0\0\0\0\x01\x02\x03\x04",
            b"../a\0\0\0\0\x01\x02\x03\x04",
            b"..\0\0\x01\x02\x03\x04",
            b"\xff\xfe\0\0\x01\x02\x03\x04",
        ] {
            assert_eq!(DebugLink::parse(damaged), None, "{damaged:?}");
        }
    }
}
