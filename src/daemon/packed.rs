//! What one supervisor leaves in memory for the next, as bytes: fields one after the other, numbers in
//! full, lengths before what has one. Each type names its fields once, for both directions. Nobody
//! but this very executable reads it, so it needs no version; and no library, whose code for it was 5 kB.

/// Either writes what it is shown, or fills it in from bytes.
pub enum Packer<'a> {
    /// Collects.
    Write(Vec<u8>),
    /// What is not read yet.
    Read(&'a [u8]),
    /// The bytes were not whole; nothing is filled in any more.
    Broken,
}

/// What can be packed; when it is read, it begins as the default.
pub trait Packed {
    /// Shows every field.
    fn pack(&mut self, packer: &mut Packer);
}

/// The bytes of a value (which writing does not change).
pub fn to_bytes(value: &mut impl Packed) -> Vec<u8> {
    let mut packer = Packer::Write(Vec::new());
    value.pack(&mut packer);
    if let Packer::Write(bytes) = packer { bytes } else { Vec::new() }
}

/// Back from bytes; `None`: they are not whole, or more.
pub fn from_bytes<T: Packed + Default>(bytes: &[u8]) -> Option<T> {
    let mut value = T::default();
    let mut packer = Packer::Read(bytes);
    value.pack(&mut packer);
    matches!(packer, Packer::Read([])).then_some(value)
}

impl Packer<'_> {
    fn raw(&mut self, bytes: &mut [u8]) {
        match self {
            Packer::Write(all) => all.extend_from_slice(bytes),
            Packer::Read(rest) => match rest.split_at_checked(bytes.len()) {
                Some((these, others)) => {
                    bytes.copy_from_slice(these);
                    *rest = others;
                }
                None => *self = Packer::Broken,
            },
            Packer::Broken => {}
        }
    }

    /// A length: the one given, or the one that was read, of which nothing is believed.
    fn length(&mut self, length: usize) -> usize {
        let mut length = length as u32;
        length.pack(self);
        length as usize
    }
}

macro_rules! number {
    ($($number:ty)*) => {
        $(impl Packed for $number {
            fn pack(&mut self, packer: &mut Packer) {
                let mut bytes = self.to_le_bytes();
                packer.raw(&mut bytes);
                *self = <$number>::from_le_bytes(bytes);
            }
        })*
    };
}
number!(u8 u32 i32 u64 u128);

impl Packed for bool {
    fn pack(&mut self, packer: &mut Packer) {
        let mut byte = u8::from(*self);
        byte.pack(packer);
        if byte > 1 {
            *packer = Packer::Broken;
        }
        *self = byte == 1;
    }
}

impl Packed for String {
    fn pack(&mut self, packer: &mut Packer) {
        let mut bytes = std::mem::take(self).into_bytes();
        let length = packer.length(bytes.len());
        // No more is made room for than there are bytes, whatever the length says.
        match packer {
            Packer::Read(rest) if length > rest.len() => *packer = Packer::Broken,
            _ => bytes.resize(length, 0),
        }
        packer.raw(&mut bytes);
        match String::from_utf8(bytes) {
            Ok(text) => *self = text,
            Err(_) => *packer = Packer::Broken,
        }
    }
}

impl<T: Packed + Default> Packed for Vec<T> {
    fn pack(&mut self, packer: &mut Packer) {
        let length = packer.length(self.len());
        for index in 0..length {
            // Not a step further than there are bytes, whatever the length says.
            if matches!(packer, Packer::Broken) {
                return;
            }
            if index == self.len() {
                self.push(T::default());
            }
            self[index].pack(packer);
        }
    }
}

impl<T: Packed + Default> Packed for Option<T> {
    fn pack(&mut self, packer: &mut Packer) {
        let mut is_some = self.is_some();
        is_some.pack(packer);
        if is_some {
            self.get_or_insert_default().pack(packer);
        }
    }
}

impl<T: Packed, const N: usize> Packed for [T; N] {
    fn pack(&mut self, packer: &mut Packer) {
        self.iter_mut().for_each(|one| one.pack(packer));
    }
}

impl<A: Packed, B: Packed> Packed for (A, B) {
    fn pack(&mut self, packer: &mut Packer) {
        self.0.pack(packer);
        self.1.pack(packer);
    }
}

impl<A: Packed, B: Packed, C: Packed> Packed for (A, B, C) {
    fn pack(&mut self, packer: &mut Packer) {
        self.0.pack(packer);
        self.1.pack(packer);
        self.2.pack(packer);
    }
}

/// Packs a structure: all its fields, which the compiler checks.
macro_rules! packed {
    ($name:ident { $($field:ident),* $(,)? }) => {
        impl $crate::daemon::packed::Packed for $name {
            fn pack(&mut self, packer: &mut $crate::daemon::packed::Packer) {
                let $name { $($field),* } = self;
                $($crate::daemon::packed::Packed::pack($field, packer);)*
            }
        }
    };
}
pub(super) use packed;

#[cfg(test)]
mod tests {
    use super::*;

    type Everything = (Vec<String>, Option<(i32, u64)>, ([Option<bool>; 3], u128, Vec<(u32, u8)>));

    fn everything() -> Everything {
        let (words, bools) = (vec!["ä".into(), String::new()], [None, Some(true), Some(false)]);
        (words, Some((-1, u64::MAX)), (bools, 1 << 127, vec![(1, 2), (3, 4)]))
    }

    #[test]
    fn what_is_written_is_read_and_every_damage_is_harmless() {
        let bytes = to_bytes(&mut everything());
        assert_eq!(from_bytes(&bytes), Some(everything()));
        for cut in 0..bytes.len() {
            assert_eq!(from_bytes::<Everything>(&bytes[..cut]), None, "{cut}");
        }
        assert_eq!(from_bytes::<Everything>(&[&bytes[..], &[0]].concat()), None);
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut other = bytes.clone();
                other[at] ^= 1 << bit;
                assert_ne!(from_bytes(&other), Some(everything()), "{at}");
            }
        }
    }
}
