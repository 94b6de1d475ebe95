//! What goes over the wire: one kind of packet, sealed with the key of the two machines (docs/dido.md has the layout). Pure: who
//! may say what and when is `link`'s affair. Nothing of a packet is looked at before its seal is found to be right, and no
//! bytes make this panic.

use chacha20poly1305::aead::{AeadInOut, KeyInit};
use chacha20poly1305::{Tag, XChaCha20Poly1305, XNonce};
use serde::{Deserialize, Serialize};

/// Bytes of the largest packet: it passes every network undivided (IPv6 promises 1280 with 48 of headers).
pub const PACKET_BYTES_MAX: usize = 1200;
/// States in a packet.
pub const STATE_COUNT_MAX: usize = 64;
/// Bytes that a packet's states may take; the rest is enough for everything else.
pub const STATES_BYTES_MAX: usize = 1080;

/// First byte of every packet; another layout has another.
const VERSION: u8 = 1;
/// Version, session, count.
const HEAD_BYTES: usize = 1 + 16 + 8;
const TAG_BYTES: usize = 16;

/// 256 bits that two machines share, and nobody else.
pub type Key = [u8; 32];
/// Random number of a process: with the number of the packet it is the nonce, which is never used twice.
pub type Session = [u8; 16];
/// A packet.
pub type Packet = heapless::Vec<u8, PACKET_BYTES_MAX>;

/// How something is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Level {
    /// It is off.
    Off,
    /// It is on.
    On,
    /// Whoever says it does not know.
    #[default]
    Unknown,
}

impl Level {
    /// It is known.
    pub fn of(on: bool) -> Level {
        if on { Level::On } else { Level::Off }
    }
}

/// One state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State<'a> {
    /// What both sides call it.
    pub name: &'a str,
    /// How it is.
    pub level: Level,
}

/// The newest packet that was heard from the other side, told it to prove that this one is no older.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heard {
    /// Its session.
    pub session: Session,
    /// Its time.
    pub time: u64,
    /// Its states were taken.
    pub taken: bool,
}

/// What is sealed. Later versions may add fields at the end; this one does not read them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Body<'a> {
    /// When it was made, by the sender's own clock (nanoseconds; it only ever comes back to the sender).
    pub time: u64,
    /// See there.
    pub heard: Option<Heard>,
    /// An answer is wanted.
    pub wants: bool,
    /// For how long its sender believes what it hears, in milliseconds.
    pub timeout_ms: u32,
    /// All states: their number, and then each of them. They are read and written one by one (the derived code for a table of
    /// them was 1 kB larger).
    #[serde(skip)]
    pub states: heapless::Vec<State<'a>, STATE_COUNT_MAX>,
}

/// Who made a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// The sender's.
    pub session: Session,
    /// Its packets so far, this one counted.
    pub count: u64,
}

impl Head {
    fn nonce(&self) -> XNonce {
        let mut nonce = XNonce::default();
        nonce[..16].copy_from_slice(&self.session);
        nonce[16..].copy_from_slice(&self.count.to_le_bytes());
        nonce
    }
}

/// Makes a packet. None: it would be too large.
pub fn seal(key: &Key, head: &Head, body: &Body) -> Option<Packet> {
    let mut packet = Packet::new();
    packet.resize(PACKET_BYTES_MAX, 0).ok()?;
    packet[0] = VERSION;
    let nonce = head.nonce();
    packet[1..HEAD_BYTES].copy_from_slice(&nonce);
    let (begin, rest) = packet.split_at_mut(HEAD_BYTES);
    let room = rest.len() - TAG_BYTES;
    let mut length = postcard::to_slice(body, &mut rest[..room]).ok()?.len();
    // Fewer than 128, so that it is one byte.
    *rest[..room].get_mut(length)? = body.states.len() as u8;
    length += 1;
    for state in &body.states {
        length += postcard::to_slice(state, &mut rest[length..room]).ok()?.len();
    }
    let cipher = XChaCha20Poly1305::new(key.into());
    let tag = cipher.encrypt_inout_detached(&nonce, &begin[..1], (&mut rest[..length]).into()).ok()?;
    rest[length..][..TAG_BYTES].copy_from_slice(&tag);
    packet.truncate(HEAD_BYTES + length + TAG_BYTES);
    Some(packet)
}

/// Whether a packet is as long as one is, and of this version.
pub fn is_one(packet: &[u8]) -> bool {
    packet.len() > HEAD_BYTES + TAG_BYTES && packet.len() <= PACKET_BYTES_MAX && packet[0] == VERSION
}

/// Opens one in place: then it is to be [`read`]. None: it was not made with this key, or somebody has touched it; it is as it
/// was.
pub fn open(key: &Key, packet: &mut [u8]) -> Option<Head> {
    if !is_one(packet) {
        return None;
    }
    let (begin, rest) = packet.split_at_mut(HEAD_BYTES);
    let (sealed, tag) = rest.split_at_mut(rest.len() - TAG_BYTES);
    let head = Head {
        session: begin[1..17].try_into().ok()?,
        count: u64::from_le_bytes(begin[17..].try_into().ok()?),
    };
    let tag = Tag::try_from(&*tag).ok()?;
    let cipher = XChaCha20Poly1305::new(key.into());
    cipher.decrypt_inout_detached(&head.nonce(), &begin[..1], (&mut *sealed).into(), &tag).ok()?;
    Some(head)
}

/// What was sealed in a packet that is open. None: it makes no sense.
pub fn read(packet: &[u8]) -> Option<Body<'_>> {
    let body = packet.get(HEAD_BYTES..packet.len().checked_sub(TAG_BYTES)?)?;
    let (mut body, rest) = postcard::take_from_bytes::<Body>(body).ok()?;
    let (count, mut rest) = rest.split_first()?;
    for _ in 0..*count {
        let (state, more) = postcard::take_from_bytes(rest).ok()?;
        body.states.push(state).ok()?;
        rest = more;
    }
    Some(body)
}

/// Bytes that a state of this name takes.
pub const fn state_bytes(name: &str) -> usize {
    // Names are shorter than 128 bytes, so their length is one.
    1 + name.len() + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: Key = [7; 32];
    const HEAD: Head = Head { session: [3; 16], count: 5 };

    fn body() -> Body<'static> {
        let states =
            [State { name: "door", level: Level::On }, State { name: "gate", level: Level::Unknown }];
        let heard = Some(Heard { session: [9; 16], time: 1234, taken: true });
        Body { time: 300, heard, wants: true, timeout_ms: 3000, states: states.into_iter().collect() }
    }

    #[test]
    fn what_is_sealed_is_opened_with_the_same_key_and_with_no_other() {
        let mut packet = seal(&KEY, &HEAD, &body()).unwrap();
        let before = packet.clone();
        assert_eq!(open(&[8; 32], &mut packet), None);
        assert_eq!(packet, before, "and is as it was");
        assert_eq!(open(&KEY, &mut packet), Some(HEAD));
        assert_eq!(read(&packet), Some(body()));
        assert!(!before.windows(4).any(|window| window == b"door"), "nobody else reads it");
    }

    #[test]
    fn a_packet_has_the_layout_that_is_written_down() {
        let packet = seal(&KEY, &HEAD, &body()).unwrap();
        assert_eq!(packet[..25], [&[1][..], &[3; 16], &5_u64.to_le_bytes()].concat());
        let mut opened = packet.clone();
        assert_eq!(open(&KEY, &mut opened), Some(HEAD));
        let plain = [
            &[0xac, 0x02][..],
            &[1],
            &[9; 16],
            &[0xd2, 0x09, 1],
            &[1],
            &[0xb8, 0x17],
            &[2, 4],
            b"door",
            &[1, 4],
            b"gate",
            &[2],
        ]
        .concat();
        assert_eq!(opened[25..packet.len() - 16], plain);
        assert_eq!(packet.len(), 25 + plain.len() + 16);
        // What a later version adds is not read.
        assert_eq!(read(&[&[0; 25], &plain[..], &[1, 2, 3], &[0; 16]].concat()), Some(body()));
    }

    #[test]
    fn every_byte_that_is_missing_or_changed_is_noticed() {
        let packet = seal(&KEY, &HEAD, &body()).unwrap();
        for length in 0..packet.len() {
            assert_eq!(open(&KEY, &mut packet.clone()[..length]), None, "{length}");
        }
        for at in 0..packet.len() {
            for bit in 0..8 {
                let mut touched = packet.clone();
                touched[at] ^= 1 << bit;
                assert_eq!(open(&KEY, &mut touched), None, "{at}");
            }
        }
        let mut longer = packet.clone();
        longer.push(0).unwrap();
        assert_eq!(open(&KEY, &mut longer), None);
    }

    #[test]
    fn the_most_that_may_be_said_fits() {
        let name = "abcdefghijklmno";
        assert_eq!(state_bytes(name) * STATE_COUNT_MAX, 1088);
        let name = &name[..14];
        let states: heapless::Vec<_, STATE_COUNT_MAX> =
            (0..STATE_COUNT_MAX).map(|_| State { name, level: Level::Unknown }).collect();
        assert!(states.iter().map(|state| state_bytes(state.name)).sum::<usize>() <= STATES_BYTES_MAX);
        let heard = Some(Heard { session: [255; 16], time: u64::MAX, taken: true });
        let most = Body { time: u64::MAX, heard, wants: true, timeout_ms: u32::MAX, states };
        assert!(seal(&KEY, &Head { session: [0; 16], count: u64::MAX }, &most).is_some());
        let room = PACKET_BYTES_MAX - HEAD_BYTES - TAG_BYTES;
        // Time, heard, wants, timeout; and one for the number of states.
        assert!(STATES_BYTES_MAX + 10 + 1 + 16 + 10 + 1 + 1 + 5 < room);
    }
}
