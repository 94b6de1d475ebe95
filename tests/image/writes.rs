//! What QEMU recorded of a card (`blklogwrites`), and the card as a power cut leaves it: everything that was flushed,
//! and of what came after the last flush whatever the card happened to have written by then, sectors of one write
//! included. Which, comes from a seed.
//!
//! The format is that of the kernel's dm-log-writes (Documentation/admin-guide/device-mapper/log-writes.rst): a sector
//! with the head, then for each entry a sector that says what it is and the sectors that were written. An entry is there
//! before the guest is told that its write is done.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::harness::Random;

/// A card's smallest unit: what it has of one is the old or the new, never a mixture.
pub const SECTOR: u64 = 512;

/// So many parts of what was not flushed, none of them to all of them, a card may have written.
const SHARES: u64 = 4;

/// Everything that was written before is on the card when this is answered.
const FLUSH: u64 = 1;
/// Answered when this very write is on the card.
const UNIT_ACCESS: u64 = 2;
/// Nobody needs these sectors any more.
const DISCARD: u64 = 4;

/// One thing that the guest did to the card.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    sector: u64,
    sectors: u64,
    flags: u64,
    /// Where in the record its data is.
    data: u64,
}

/// A record, as far as it has been written.
pub struct Record {
    bytes: Vec<u8>,
    entries: Vec<Entry>,
}

/// What one cut did, for whoever looks for causes.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Cut {
    /// Entries since the last flush.
    pub unflushed: usize,
    /// Of the writes among them: there, missing, in part there.
    pub whole: usize,
    pub missing: usize,
    pub torn: usize,
}

impl Record {
    /// Reads what is there of a record.
    pub fn read(path: &Path) -> io::Result<Record> {
        let bytes = fs::read(path)?;
        let mut entries = Vec::new();
        walk(
            bytes.len() as u64,
            |at, head| {
                head.copy_from_slice(&bytes[at as usize..][..32]);
                Ok(())
            },
            |entry| entries.push(entry),
        )?;
        Ok(Record { bytes, entries })
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Writes onto a card what it has of the first `count` entries when its power goes right after them.
    pub fn cut(&self, count: usize, dice: &mut Random, card: &File) -> io::Result<Cut> {
        let entries = &self.entries[..count];
        let flushed = entries.iter().rposition(|entry| entry.flags & FLUSH != 0).unwrap_or(0);
        let mut cut = Cut { unflushed: count - flushed, ..Cut::default() };
        // Some cards have written nearly all of it, some nearly nothing; with the largest share it is a killed QEMU's card.
        let share = dice.below(SHARES + 1);
        for (at, entry) in entries.iter().enumerate() {
            let is_there = at < flushed || entry.flags & UNIT_ACCESS != 0;
            if entry.flags & DISCARD != 0 {
                // Old data or zeros; where it matters which, somebody is mistaken.
                if is_there || dice.below(2) == 0 {
                    self.write(card, entry, |_| true)?;
                }
            } else if entry.sectors > 0 && is_there {
                self.write(card, entry, |_| true)?;
            } else if entry.sectors > 1 && share < SHARES && dice.below(4) == 0 {
                let mut one_in_two = || dice.below(2) == 0;
                self.write(card, entry, |_| one_in_two())?;
                cut.torn += 1;
            } else if entry.sectors > 0 && dice.below(SHARES) < share {
                self.write(card, entry, |_| true)?;
                cut.whole += 1;
            } else if entry.sectors > 0 {
                cut.missing += 1;
            }
        }
        // That an earlier write comes after a later one is that the later one is missing.
        Ok(cut)
    }

    fn write(&self, card: &File, entry: &Entry, mut wanted: impl FnMut(u64) -> bool) -> io::Result<()> {
        const ZEROS: [u8; SECTOR as usize] = [0; SECTOR as usize];
        let mut from = 0;
        while from < entry.sectors {
            let mut to = from;
            while to < entry.sectors && wanted(to) {
                to += 1;
            }
            let place = (entry.sector + from) * SECTOR;
            if entry.flags & DISCARD != 0 {
                for sector in from..to {
                    card.write_all_at(&ZEROS, (entry.sector + sector) * SECTOR)?;
                }
            } else {
                let data = |sector: u64| (entry.data + sector * SECTOR) as usize;
                card.write_all_at(&self.bytes[data(from)..data(to)], place)?;
            }
            from = to + 1;
        }
        Ok(())
    }
}

/// How many entries a record has by now: what is acknowledged at this moment is in them.
pub fn count(path: &Path) -> io::Result<usize> {
    let file = File::open(path)?;
    let mut count = 0;
    walk(file.metadata()?.len(), |at, head| file.read_exact_at(head, at), |_| count += 1)?;
    Ok(count)
}

/// Names each entry that is whole.
fn walk(
    length: u64,
    read: impl Fn(u64, &mut [u8; 32]) -> io::Result<()>,
    mut found: impl FnMut(Entry),
) -> io::Result<()> {
    let mut at = SECTOR;
    let mut head = [0; 32];
    while at + SECTOR <= length {
        read(at, &mut head)?;
        let word = |number: usize| u64::from_le_bytes(std::array::from_fn(|byte| head[number * 8 + byte]));
        let (sector, sectors, flags) = (word(0), word(1), word(2));
        let data = at + SECTOR;
        let end = if flags & DISCARD != 0 { data } else { data + sectors * SECTOR };
        // A write of nothing is none: not written yet.
        if end > length || (sectors == 0 && flags == 0) {
            break;
        }
        found(Entry { sector, sectors, flags, data });
        at = end;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    /// A record by hand: what is written is a sector's number, as a byte.
    fn record(name: &str, entries: &[(u64, u64, u64)]) -> PathBuf {
        let mut bytes = vec![0; 512];
        for (number, (sector, sectors, flags)) in entries.iter().enumerate() {
            let mut head = [*sector, *sectors, *flags, 0].map(u64::to_le_bytes).concat();
            head.resize(512, 0);
            bytes.extend(head);
            if flags & DISCARD == 0 {
                bytes.resize(bytes.len() + 512 * *sectors as usize, number as u8 + 1);
            }
        }
        let path = std::env::temp_dir().join(format!("multusd-writes-{name}-{}", std::process::id()));
        fs::write(&path, bytes).unwrap();
        path
    }

    /// What ten sectors hold after a cut.
    fn cards(path: &Path, count: usize) -> Vec<[u8; 10]> {
        let record = Record::read(path).unwrap();
        let card_path = path.with_extension("card");
        let mut cards: Vec<[u8; 10]> = (0..200)
            .map(|seed| {
                fs::write(&card_path, [b'-'; 5120]).unwrap();
                let card = File::options().write(true).open(&card_path).unwrap();
                record.cut(count, &mut Random(seed), &card).unwrap();
                let bytes = fs::read(&card_path).unwrap();
                assert_eq!(bytes.len(), 5120, "a card does not grow");
                let sectors: [u8; 10] = std::array::from_fn(|sector| bytes[sector * 512]);
                assert!(
                    bytes.chunks(512).all(|sector| sector.iter().all(|byte| *byte == sector[0])),
                    "a sector is whole"
                );
                sectors
            })
            .collect();
        fs::remove_file(card_path).unwrap();
        cards.sort();
        cards.dedup();
        cards
    }

    #[test]
    fn what_was_flushed_is_on_the_card_whatever_the_seed() {
        let path = record("flushed", &[(0, 3, 0), (5, 2, 0), (1, 1, 0), (0, 0, FLUSH)]);
        assert_eq!(count(&path).unwrap(), 4);
        assert_eq!(cards(&path, 4), [[1, 3, 1, b'-', b'-', 2, 2, b'-', b'-', b'-']]);
        fs::remove_file(path).unwrap();
    }

    #[test]
    fn what_was_not_flushed_is_there_or_not_or_in_part_in_any_order() {
        let path = record("unflushed", &[(0, 1, 0), (0, 0, FLUSH), (0, 1, 0), (4, 2, 0)]);
        let found = cards(&path, 4);
        for first in [1, 3] {
            for pair in [[b'-', b'-'], [4, b'-'], [b'-', 4], [4, 4]] {
                let card = [first, b'-', b'-', b'-', pair[0], pair[1], b'-', b'-', b'-', b'-'];
                assert!(found.contains(&card), "{card:?} is possible");
            }
        }
        assert_eq!(found.len(), 8, "{found:?}");
        assert_eq!(cards(&path, 1).len(), 2, "before the flush");
        assert_eq!(cards(&path, 2), [[1, b'-', b'-', b'-', b'-', b'-', b'-', b'-', b'-', b'-']]);
        fs::remove_file(path).unwrap();
    }

    #[test]
    fn a_write_with_unit_access_is_there_without_a_flush() {
        let path = record("unit", &[(7, 1, 0), (8, 2, UNIT_ACCESS)]);
        let found = cards(&path, 2);
        assert!(found.iter().all(|card| card[8..] == [2, 2]));
        assert_eq!(found.len(), 2, "the other one may be missing");
        fs::remove_file(path).unwrap();
    }

    #[test]
    fn a_discarded_sector_is_zero_or_what_it_was() {
        let path = record("discard", &[(2, 1, 0), (2, 1, DISCARD), (3, 1, 0), (0, 0, FLUSH)]);
        assert_eq!(count(&path).unwrap(), 4, "a discard has no data");
        assert_eq!(cards(&path, 4)[0][..4], [b'-', b'-', 0, 3]);
        assert!(cards(&path, 2).iter().any(|card| card[2] == 0));
        assert!(cards(&path, 2).iter().any(|card| card[2] == 1));
        fs::remove_file(path).unwrap();
    }

    #[test]
    fn an_entry_that_is_being_written_does_not_count() {
        let path = record("half", &[(0, 1, 0), (1, 4, 0)]);
        let whole = fs::read(&path).unwrap();
        for length in 0..whole.len() {
            fs::write(&path, &whole[..length]).unwrap();
            let expected = usize::from(length >= 1536);
            assert_eq!(
                (count(&path).unwrap(), Record::read(&path).unwrap().len()),
                (expected, expected),
                "{length}"
            );
        }
        fs::write(&path, [whole, vec![0; 1024]].concat()).unwrap();
        assert_eq!(count(&path).unwrap(), 2, "zeros are no entry");
        fs::remove_file(path).unwrap();
    }

    #[test]
    fn the_same_seed_makes_the_same_card() {
        let path = record("seed", &[(0, 10, 0), (3, 4, 0)]);
        let record = Record::read(&path).unwrap();
        let card = |seed| {
            let path = path.with_extension("card");
            fs::write(&path, [b'-'; 5120]).unwrap();
            let card = File::options().write(true).open(&path).unwrap();
            let cut = record.cut(2, &mut Random(seed), &card).unwrap();
            (cut, fs::read(&path).unwrap())
        };
        assert!((0..50).all(|seed| card(seed) == card(seed)));
        assert!((1..50).any(|seed| card(seed) != card(0)));
        fs::remove_file(path.with_extension("card")).unwrap();
        fs::remove_file(path).unwrap();
    }
}
