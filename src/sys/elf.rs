//! An executable's image, settled at an address (elf(5), and the generic ABI's chapters on program headers and dynamic sections).
//!
//! A position-independent executable carries tables of pointers, to which each process adds, as it starts, the address at which
//! the kernel has put it; every page of them is its own from then on. Done once in the image, all processes made from it share
//! these pages with the file, and none is written.

use std::borrow::Cow;

/// What differs between 32 and 64 bits: sizes, and where in the structures what is needed is.
struct Class {
    word: usize,
    /// Of the file's header: entry, program headers' place, their size, their count.
    header: [usize; 4],
    /// Of a program header: place in the file, address, physical address, bytes in the file, bytes in memory.
    segment: [usize; 5],
    /// Machines, and what r_info is for "add the base" (`R_*_RELATIVE`).
    relative: &'static [(u64, u64)],
}

const MACHINE_ARM: u64 = 40;
const MACHINE_X86_64: u64 = 62;
const MACHINE_AARCH64: u64 = 183;

const CLASS_32: Class =
    Class { word: 4, header: [24, 28, 42, 44], segment: [4, 8, 12, 16, 20], relative: &[(MACHINE_ARM, 23)] };
const CLASS_64: Class = Class {
    word: 8,
    header: [24, 32, 54, 56],
    segment: [8, 16, 24, 32, 40],
    relative: &[(MACHINE_AARCH64, 1027), (MACHINE_X86_64, 8)],
};

/// `ET_EXEC`, `ET_DYN`: at its address, at any.
const FIXED: u64 = 2;
const ANYWHERE: u64 = 3;
/// Kinds of segments.
const LOAD: u64 = 1;
const DYNAMIC: u64 = 2;
const INTERPRETER: u64 = 3;
/// Entries of the dynamic section, each a table of relocations and its bytes: with addend, without, packed.
const RELA: (u64, u64) = (7, 8);
const REL: (u64, u64) = (17, 18);
const RELR: (u64, u64) = (36, 35);

/// More program headers than any executable of ours has.
const SEGMENT_COUNT_MAX: usize = 64;

/// What is loaded: address, bytes in the file, place in the file.
type Segment = (u64, u64, u64);

struct Image<'a> {
    bytes: Cow<'a, [u8]>,
    class: &'static Class,
    loaded: Vec<Segment>,
}

/// Of a static position-independent executable one that is where a process of it has it now, whose program headers (AT_PHDR of
/// getauxval(3)) are at this address, with nothing left to relocate. None: it is something else.
pub fn settle(image: &[u8], program_headers: u64) -> Option<Vec<u8>> {
    let (mut image, dynamic) = Image::read(image)?;
    let class = image.class;
    let place = image.header(1)?;
    let (start, _, at) = *image
        .loaded
        .iter()
        .find(|(_, size, at)| place.checked_sub(*at).is_some_and(|offset| offset < *size))?;
    let base = program_headers.checked_sub(start.checked_add(place - at)?)?;
    let machine = image.number(18, 2)?;
    let (_, relative) = *class.relative.iter().find(|(known, _)| *known == machine)?;
    let tables = image.tables(dynamic)?;
    image.relocate(&tables, relative, base)?;
    // They are done: nobody is to add anything again.
    for size_at in tables.iter().filter_map(|table| table.2) {
        image.put(size_at, class.word, 0)?;
    }
    image.put(16, 2, FIXED)?;
    let entry = image.header(0)?;
    image.put(class.header[0], class.word, entry.checked_add(base)?)?;
    for at in image.segments()? {
        for field in [1, 2] {
            let place = at + class.segment[field];
            let address = image.number(place, class.word)?;
            // A segment that only says something (PT_GNU_STACK) has no place.
            if image.number(at + class.segment[4], class.word)? != 0 {
                image.put(place, class.word, address.checked_add(base)?)?;
            }
        }
    }
    Some(image.bytes.into_owned())
}

/// A table of relocations: its address, its bytes, where these are said; of `RELA`, `REL`, `RELR`.
type Table = (u64, u64, Option<usize>);

impl<'a> Image<'a> {
    /// The image, and its dynamic section (place and bytes in the file).
    fn read(bytes: &'a [u8]) -> Option<(Image<'a>, (u64, u64))> {
        let class = match bytes.get(..6)? {
            [0x7f, b'E', b'L', b'F', 1, 1] => &CLASS_32,
            [0x7f, b'E', b'L', b'F', 2, 1] => &CLASS_64,
            _ => return None,
        };
        let mut image = Image { bytes: Cow::Borrowed(bytes), class, loaded: Vec::new() };
        if image.number(16, 2)? != ANYWHERE {
            return None;
        }
        let mut dynamic = None;
        for at in image.segments()? {
            let field = |index: usize| image.number(at + class.segment[index], class.word);
            match image.number(at, 4)? {
                LOAD => {
                    let segment = (field(1)?, field(3)?, field(0)?);
                    image.loaded.push(segment);
                }
                DYNAMIC => dynamic = Some((field(0)?, field(3)?)),
                // Somebody else relocates it.
                INTERPRETER => return None,
                _ => {}
            }
        }
        Some((image, dynamic?))
    }

    fn number(&self, at: usize, size: usize) -> Option<u64> {
        let bytes = self.bytes.get(at..at.checked_add(size)?)?;
        Some(bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    fn put(&mut self, at: usize, size: usize, number: u64) -> Option<()> {
        let bytes = self.bytes.to_mut().get_mut(at..at.checked_add(size)?)?;
        bytes.copy_from_slice(number.to_le_bytes().get(..size)?);
        Some(())
    }

    fn header(&self, field: usize) -> Option<u64> {
        let size = if field < 2 { self.class.word } else { 2 };
        self.number(self.class.header[field], size)
    }

    /// Where each program header is.
    fn segments(&self) -> Option<impl Iterator<Item = usize> + use<>> {
        let (first, size) = (usize::try_from(self.header(1)?).ok()?, usize::try_from(self.header(2)?).ok()?);
        let count = usize::try_from(self.header(3)?).ok()?;
        let last = first.checked_add(size.checked_mul(count)?)?;
        (count <= SEGMENT_COUNT_MAX && last <= self.bytes.len())
            .then(|| (0..count).map(move |index| first + index * size))
    }

    /// Where in the file an address is.
    fn place(&self, address: u64) -> Option<usize> {
        let (start, _, at) = self
            .loaded
            .iter()
            .find(|(start, size, _)| address.checked_sub(*start).is_some_and(|offset| offset < *size))?;
        usize::try_from(at.checked_add(address - start)?).ok()
    }

    fn tables(&self, dynamic: (u64, u64)) -> Option<[Table; 3]> {
        let word = self.class.word;
        let (first, size) = (usize::try_from(dynamic.0).ok()?, usize::try_from(dynamic.1).ok()?);
        let mut tables = [(0, 0, None); 3];
        for at in (first..first.checked_add(size)?).step_by(2 * word) {
            let (tag, value_at) = (self.number(at, word)?, at + word);
            let value = self.number(value_at, word)?;
            for (table, (address, bytes)) in tables.iter_mut().zip([RELA, REL, RELR]) {
                if tag == address {
                    table.0 = value;
                } else if tag == bytes {
                    (table.1, table.2) = (value, Some(value_at));
                }
            }
        }
        Some(tables)
    }

    fn relocate(&mut self, tables: &[Table; 3], relative: u64, base: u64) -> Option<()> {
        let word = self.class.word;
        let [rela, rel, relr] = *tables;
        let words = |image: &Image, (address, bytes, _): Table| -> Option<Vec<u64>> {
            if bytes == 0 {
                return Some(Vec::new());
            }
            let first = image.place(address)?;
            let count = usize::try_from(bytes).ok()? / word;
            (0..count).map(|index| image.number(first + index * word, word)).collect()
        };
        // Of these only what says "add the base" is understood; executables of ours have nothing else.
        for entry in words(self, rela)?.chunks_exact(3) {
            (entry[1] == relative).then_some(())?;
            let place = self.place(entry[0])?;
            self.put(place, word, entry[2].wrapping_add(base))?;
        }
        for entry in words(self, rel)?.chunks_exact(2) {
            (entry[1] == relative).then_some(())?;
            self.add(entry[0], base)?;
        }
        // An even word is an address; an odd one, which of the words behind the last are pointers too.
        let mut next = 0;
        for entry in words(self, relr)? {
            if entry & 1 == 0 {
                self.add(entry, base)?;
                next = entry.checked_add(word as u64)?;
                continue;
            }
            let covered = word as u64 * 8 - 1;
            for bit in (0..covered).filter(|bit| entry >> (bit + 1) & 1 == 1) {
                self.add(next.checked_add(bit * word as u64)?, base)?;
            }
            next = next.checked_add(covered * word as u64)?;
        }
        Some(())
    }

    fn add(&mut self, address: u64, base: u64) -> Option<()> {
        let place = self.place(address)?;
        let number = self.number(place, self.class.word)?;
        self.put(place, self.class.word, number.wrapping_add(base))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where a process of it has it, and what it is loaded for: headers and relocations at 0, data at 0x1000 (in the file 0x400).
    const BASE: u64 = 0x7f12_3450_0000;

    fn image(relr: &[u64], rela: &[u64], data: &[u64]) -> Vec<u8> {
        let mut bytes = vec![0; 0x600];
        let mut put = |at: usize, size: usize, number: u64| {
            bytes[at..at + size].copy_from_slice(&number.to_le_bytes()[..size]);
        };
        put(0, 8, u64::from_le_bytes(*b"\x7fELF\x02\x01\x01\0"));
        for (at, size, number) in
            [(16, 2, ANYWHERE), (18, 2, MACHINE_AARCH64), (24, 8, 0x80), (32, 8, 64), (54, 2, 56), (56, 2, 4)]
        {
            put(at, size, number);
        }
        // Kind, place, address, bytes; the last says only something.
        let segments = [
            (LOAD, 0, 0, 0x400),
            (LOAD, 0x400, 0x1000, 0x200),
            (DYNAMIC, 0x500, 0x1100, 0x50),
            (0x6474_e551, 0, 0, 0),
        ];
        for (index, (kind, at, address, size)) in segments.into_iter().enumerate() {
            let header = 64 + 56 * index;
            put(header, 4, kind);
            for (field, number) in [(8, at), (16, address), (24, address), (32, size), (40, size)] {
                put(header + field, 8, number);
            }
        }
        let dynamic = [36, 0x200, 35, 8 * relr.len() as u64, 7, 0x300, 8, 8 * rela.len() as u64, 0, 0];
        for (at, words) in [(0x200, relr), (0x300, rela), (0x400, data), (0x500, &dynamic)] {
            for (index, word) in words.iter().enumerate() {
                put(at + 8 * index, 8, *word);
            }
        }
        bytes
    }

    fn words(image: &[u8], at: usize, count: usize) -> Vec<u64> {
        image[at..at + 8 * count].chunks(8).map(|word| u64::from_le_bytes(word.try_into().unwrap())).collect()
    }

    #[test]
    fn every_pointer_is_where_the_process_has_it_and_nothing_is_left_to_add() {
        // The first pointer, of the 63 behind it the first and the third; with addend the tenth.
        let image =
            image(&[0x1000, 0b1011], &[0x1048, 1027, 0x1234], &[0x10, 0x20, 7, 0x40, 0, 0, 0, 0, 0, 99]);
        let image = settle(&image, BASE + 64).unwrap();
        let expected = [BASE + 0x10, BASE + 0x20, 7, BASE + 0x40, 0, 0, 0, 0, 0, BASE + 0x1234];
        assert_eq!(words(&image, 0x400, 10), expected);
        assert_eq!(words(&image, 0x500, 10), [36, 0x200, 35, 0, 7, 0x300, 8, 0, 0, 0]);
        assert_eq!((image[16], words(&image, 24, 1)[0]), (FIXED as u8, BASE + 0x80));
        // Place in the file, address, physical address of each segment.
        let places: Vec<Vec<u64>> = (0..4).map(|index| words(&image, 64 + 56 * index + 8, 3)).collect();
        let at = |place, address| vec![place, BASE + address, BASE + address];
        assert_eq!(places, [at(0, 0), at(0x400, 0x1000), at(0x500, 0x1100), vec![0, 0, 0]]);
        // Once is enough.
        assert_eq!(settle(&image, BASE + 64), None);
    }

    #[test]
    fn what_is_not_understood_is_left_to_the_process_and_no_byte_of_it_is_trusted() {
        let good = image(&[0x1000, 0b1011], &[0x1048, 1027, 0x1234], &[0x10]);
        assert!(settle(&good, BASE + 64).is_some());
        // Another relocation; a pointer outside.
        assert!(settle(&image(&[], &[0x1048, 1026, 0], &[]), BASE + 64).is_none());
        assert!(settle(&image(&[0x9000], &[], &[]), BASE + 64).is_none());
        // Below its own headers.
        assert!(settle(&good, 63).is_none());
        // With an interpreter; another machine; already fixed.
        for (at, byte) in [(64, INTERPRETER as u8), (18, MACHINE_ARM as u8), (16, FIXED as u8), (5, 2)] {
            let mut other = good.clone();
            other[at] = byte;
            assert!(settle(&other, BASE + 64).is_none(), "{at}");
        }
        // Cut anywhere, or with any byte another: a refusal or a result, never a panic.
        for length in 0..good.len() {
            settle(&good[..length], BASE + 64);
        }
        for at in 0..0x560 {
            for byte in [0, 1, 0x7f, 0xff] {
                let mut other = good.clone();
                other[at] = byte;
                settle(&other, BASE + 64);
            }
        }
    }
}
