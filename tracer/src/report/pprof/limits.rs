//! The memory that a message takes when it is decoded, before it is: a few bytes of a hostile file
//! can stand for many of memory.

use std::mem::size_of;

use super::messages::{
    ProtoFunction, ProtoLabel, ProtoLine, ProtoLocation, ProtoMapping, ProtoSample, ProtoValueType,
};

/// The fields of a message that repeat, and the memory of an entry of each.
#[derive(Clone, Copy)]
enum Field {
    /// Messages of this size with these fields.
    Messages(u64, &'static [(u32, Field)]),
    /// Numbers, packed or one by one.
    Numbers,
    /// Texts.
    Texts,
}

/// The fields of `Profile`.
const PROFILE: &[(u32, Field)] = &[
    (1, Field::Messages(memory::<ProtoValueType>(), &[])),
    (2, Field::Messages(memory::<ProtoSample>(), SAMPLE)),
    (3, Field::Messages(memory::<ProtoMapping>(), &[])),
    (4, Field::Messages(memory::<ProtoLocation>(), LOCATION)),
    (5, Field::Messages(memory::<ProtoFunction>(), &[])),
    (6, Field::Texts),
    (13, Field::Numbers),
];

/// The fields of `Sample`.
const SAMPLE: &[(u32, Field)] = &[
    (1, Field::Numbers),
    (2, Field::Numbers),
    (3, Field::Messages(memory::<ProtoLabel>(), &[])),
];

/// The fields of `Location`.
const LOCATION: &[(u32, Field)] = &[(4, Field::Messages(memory::<ProtoLine>(), &[]))];

/// Bytes of an entry of a vector that may have grown to twice its length.
const fn memory<T>() -> u64 {
    2 * size_of::<T>() as u64
}

/// Returns the bytes that a `Profile` message takes in memory, at most; nothing where it is none.
pub(super) fn decoded_bytes(message: &[u8]) -> Option<u64> {
    message_bytes(message, PROFILE)
}

fn message_bytes(mut message: &[u8], fields: &[(u32, Field)]) -> Option<u64> {
    let mut bytes = 0_u64;
    while !message.is_empty() {
        let key = varint(&mut message)?;
        let number = u32::try_from(key >> 3).ok()?;
        let field = fields.iter().find(|(it, _)| *it == number).map(|(_, it)| *it);
        let content = match key & 7 {
            0 => {
                varint(&mut message)?;
                &[][..]
            }
            1 => skip(&mut message, 8)?,
            2 => {
                let length = varint(&mut message)?;
                skip(&mut message, length)?
            }
            5 => skip(&mut message, 4)?,
            _ => return None,
        };
        let taken = match field {
            Some(Field::Messages(entry, inner)) => entry.saturating_add(message_bytes(content, inner)?),
            // A packed number has at least a byte; one by itself has no content.
            Some(Field::Numbers) => memory::<u64>().saturating_mul(content.len().max(1) as u64),
            Some(Field::Texts) => memory::<Vec<u8>>().saturating_add(content.len() as u64),
            None => 0,
        };
        bytes = bytes.saturating_add(taken);
    }
    Some(bytes)
}

/// Takes a number of up to ten bytes, the lowest seven bits first.
fn varint(message: &mut &[u8]) -> Option<u64> {
    let mut number = 0_u64;
    for shift in (0..70).step_by(7) {
        let (first, rest) = message.split_first()?;
        *message = rest;
        number |= u64::from(first & 0x7f).checked_shl(shift).unwrap_or(0);
        if first & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

/// Takes so many bytes.
fn skip<'a>(message: &mut &'a [u8], length: u64) -> Option<&'a [u8]> {
    let (taken, rest) = message.split_at_checked(usize::try_from(length).ok()?)?;
    *message = rest;
    Some(taken)
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::super::messages::ProtoProfile;
    use super::*;

    #[test]
    fn entries_are_counted_by_what_they_take() {
        let message = ProtoProfile {
            sample: vec![ProtoSample {
                location_id: vec![1, 2, 3],
                value: vec![7],
                label: vec![ProtoLabel::default(); 5],
            }],
            location: vec![ProtoLocation {
                line: vec![ProtoLine::default(); 2],
                ..ProtoLocation::default()
            }],
            string_table: vec![vec![], b"abc".to_vec()],
            comment: vec![1],
            ..ProtoProfile::default()
        };
        let expected = memory::<ProtoSample>()
            + 4 * memory::<u64>()
            + 5 * memory::<ProtoLabel>()
            + memory::<ProtoLocation>()
            + 2 * memory::<ProtoLine>()
            + 2 * memory::<Vec<u8>>()
            + 3
            + memory::<u64>();
        assert_eq!(decoded_bytes(&message.encode_to_vec()), Some(expected));
    }

    #[test]
    fn small_files_that_take_much_memory_are_told() {
        let empty_samples = [0x12, 0].repeat(1 << 16);
        let bytes = decoded_bytes(&empty_samples).expect("messages");
        assert_eq!(bytes, memory::<ProtoSample>() << 16);
    }

    #[test]
    fn what_is_no_message_is_told() {
        for bytes in [
            &b"\x0f"[..],
            b"\x12\x05ab",
            b"\x80",
            b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
        ] {
            assert_eq!(decoded_bytes(bytes), None, "{bytes:?}");
        }
    }
}
