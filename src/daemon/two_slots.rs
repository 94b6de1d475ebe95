//! A file that is written again and again, and whole at any instruction: two slots, each with a checksum, of which a write
//! replaces the older. A power cut leaves the other one, and a full card has room for it. For jobs only: storage is waited for.
//!
//! A slot is eight bytes of checksum, what is kept (as `packed`, beginning with its format and how often it was written), zeros.

use std::path::Path;

use crate::packed::{self, Packed, packed};
use crate::sys::{SysError, file};

use super::spec::digest;

/// A slot: a block of every file system's, so that writing one touches no other.
pub const SLOT_BYTES: usize = 4096;
/// A slot.
pub type Slot = [u8; SLOT_BYTES];

/// What a job tells by its exit code, bits: it could not be kept, and `answer` says why; …
pub const FAILED: i32 = 1;
/// … what was there was damaged.
pub const DAMAGED: i32 = 4;

/// What every slot begins with.
#[derive(Default)]
struct Head {
    format: u8,
    written: u64,
}

packed!(Head { format, written });

/// Seals what is kept; all of it fits (tested by whoever keeps it).
pub fn seal(kept: &mut impl Packed) -> Slot {
    let mut slot = [0; SLOT_BYTES];
    let (sum, rest) = slot.split_at_mut(8);
    let _ = packed::write(kept, rest);
    sum.copy_from_slice(&digest(rest).to_le_bytes());
    slot
}

/// What a slot keeps; none: it is not whole, or of another format.
pub fn open(slot: &[u8], format: u8) -> Option<&[u8]> {
    let (sum, rest) = slot.split_first_chunk::<8>().filter(|_| slot.len() == SLOT_BYTES)?;
    let is_whole = u64::from_le_bytes(*sum) == digest(rest);
    (is_whole && packed::read::<Head>(rest)?.0.format == format).then_some(rest)
}

/// The place of the newest slot of a file that is whole, and how often it was written.
pub fn newest(bytes: &[u8], format: u8) -> Option<(usize, u64)> {
    let slots = bytes.chunks(SLOT_BYTES).enumerate();
    let whole =
        slots.filter_map(|(place, slot)| Some((place, packed::read::<Head>(open(slot, format)?)?.0.written)));
    whole.max_by_key(|(_, written)| *written)
}

/// The file (empty: there is none), bits of the exit code, and why. Its directory is made.
pub fn read(path: &Path) -> (Vec<u8>, i32, i32) {
    let directory = path.parent().unwrap_or(Path::new("/"));
    let read = file::make_directory(directory, 0o755).and_then(|()| file::read_own(path, 2 * SLOT_BYTES));
    match read {
        Ok(bytes) => (bytes, 0, 0),
        Err(SysError { errno: libc::ENOENT, .. }) => (Vec::new(), 0, 0),
        Err(SysError { errno: libc::EFBIG, .. }) => (Vec::new(), DAMAGED, 0),
        Err(error) => (Vec::new(), FAILED, error.errno),
    }
}

/// Writes a slot over the older one of a file that was read so.
pub fn write(path: &Path, bytes: &[u8], newest: Option<usize>, slot: &Slot) -> Result<(), SysError> {
    match newest {
        Some(place) if bytes.len() == 2 * SLOT_BYTES => {
            file::overwrite_own(path, slot, (1 - place) * SLOT_BYTES)
        }
        _ => file::replace(path, &[*slot, [0; SLOT_BYTES]].concat()),
    }
}
