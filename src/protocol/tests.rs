//! The format is postcard's, whose own code is the judge.

use super::*;

const GOLDEN: &str = include_str!("../../tests/golden/protocol-v1.txt");

/// Every released message that begins so.
fn released(kind: &str) -> impl Iterator<Item = Vec<u8>> {
    GOLDEN.lines().filter(move |line| line.starts_with(kind)).map(|line| {
        let hex = line.rsplit(' ').next().unwrap();
        (0..hex.len() / 2).map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap()).collect()
    })
}

fn agrees<T>(bytes: &[u8])
where
    T: Packed + Default + PartialEq + std::fmt::Debug + serde::Serialize + serde::de::DeserializeOwned,
{
    let theirs = postcard::take_from_bytes::<T>(bytes).ok();
    let ours = packed::read::<T>(bytes);
    assert_eq!(ours, theirs, "{bytes:02x?}");
    if let Some((mut message, _)) = ours {
        let bytes = postcard::to_allocvec(&message).unwrap();
        assert_eq!(packed::to_bytes(&mut message), bytes);
    }
}

#[test]
fn what_is_written_and_what_is_read_is_what_postcard_writes_and_reads() {
    for packet in released("Request") {
        agrees::<Request>(&packet[1..]);
    }
    for packet in released("Reply") {
        agrees::<Reply>(&packet[1..]);
    }
}

#[test]
fn whatever_is_changed_in_a_message_postcard_agrees_whether_it_is_one() {
    for mut packet in released("Re") {
        for at in 1..packet.len() {
            let former = packet[at];
            for other in [0, 1, 2, 3, 8, 9, 0x7f, 0x80, 0xc3, 0xff, former ^ 1, former ^ 0x80] {
                packet[at] = other;
                agrees::<Request>(&packet[1..]);
                agrees::<Reply>(&packet[1..]);
            }
            packet[at] = former;
            agrees::<Reply>(&packet[1..at]);
        }
    }
}

#[test]
fn numbers_end_where_postcards_do() {
    for length in 0..12 {
        for last in [0, 1, 2, 3, 4, 0xf, 0x10, 0x7f, 0x80, 0xff] {
            for fill in [0x80, 0xff] {
                let mut bytes = vec![fill; length];
                bytes.extend([last, 0, 0]);
                agrees::<u16>(&bytes);
                agrees::<u32>(&bytes);
                agrees::<i32>(&bytes);
                agrees::<u64>(&bytes);
                agrees::<String>(&bytes);
            }
        }
    }
}
