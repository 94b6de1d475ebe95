//! Values as bytes, in the format of postcard: numbers as varints, signed ones zigzag, lengths before what has one, the
//! number of a variant before its fields, 0 or 1 before what may be missing. Each type names its fields
//! once, for both directions. What goes over the control socket is packed so (a library made 19 kB of code for it), and
//! what one supervisor leaves in memory for the next.
//! Pure; never panics, whatever the bytes.

/// Either writes what it is shown, or fills it in from bytes.
pub enum Packer<'a> {
    /// The room that is left.
    Write(&'a mut [u8]),
    /// What is not read yet.
    Read(&'a [u8]),
    /// There was no room, or the bytes made no sense; nothing is filled in any more.
    Broken,
}

/// What can be packed; when it is read, it begins as the default.
pub trait Packed {
    /// Shows every field.
    fn pack(&mut self, packer: &mut Packer);
}

/// Writes a value (which that does not change); how many bytes it took. `None`: there is not enough room.
pub fn write(value: &mut impl Packed, room: &mut [u8]) -> Option<usize> {
    let all = room.len();
    let mut packer = Packer::Write(room);
    value.pack(&mut packer);
    if let Packer::Write(rest) = packer { Some(all - rest.len()) } else { None }
}

/// A value from the beginning of some bytes, and the bytes behind it.
pub fn read<T: Packed + Default>(bytes: &[u8]) -> Option<(T, &[u8])> {
    let mut value = T::default();
    let mut packer = Packer::Read(bytes);
    value.pack(&mut packer);
    if let Packer::Read(rest) = packer { Some((value, rest)) } else { None }
}

/// The bytes of a value (which that does not change).
pub fn to_bytes(value: &mut impl Packed) -> Vec<u8> {
    let mut bytes = vec![0; 4096];
    loop {
        if let Some(length) = write(value, &mut bytes) {
            bytes.truncate(length);
            return bytes;
        }
        bytes.resize(2 * bytes.len(), 0);
    }
}

/// Back from bytes; `None`: they are not whole, or more.
pub fn from_bytes<T: Packed + Default>(bytes: &[u8]) -> Option<T> {
    read(bytes).filter(|(_, rest)| rest.is_empty()).map(|(value, _)| value)
}

/// FNV-1a, 64 bit: nobody attacks it, it only has to notice an edit or a torn write.
pub fn digest(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

impl<'a> Packer<'a> {
    /// Whether values are filled in.
    pub fn reads(&self) -> bool {
        matches!(self, Packer::Read(_))
    }

    /// What was read makes no sense, or there is no room for it.
    pub fn give_up(&mut self) {
        *self = Packer::Broken;
    }

    /// The byte given, or the one that was read.
    fn byte(&mut self, byte: u8) -> u8 {
        match self {
            Packer::Write(room) => {
                if let Some((first, rest)) = std::mem::take(room).split_first_mut() {
                    *first = byte;
                    *room = rest;
                    return byte;
                }
            }
            Packer::Read(bytes) => {
                if let Some((first, rest)) = bytes.split_first() {
                    *bytes = rest;
                    return *first;
                }
            }
            Packer::Broken => {}
        }
        self.give_up();
        // What is written is not changed by there being no room for it.
        byte
    }

    /// The number given, or the one that was read, at most `max`: seven bits a byte, the lowest first.
    pub fn number(&mut self, mut number: u64, max: u64) -> u64 {
        let (mut result, mut shift) = (0, 0);
        loop {
            let more = if number > 0x7f { 0x80 } else { 0 };
            let byte = u64::from(self.byte(number as u8 & 0x7f | more));
            // Also ends what goes on for ever: where no bit is left, "more" is one too many.
            if byte > max >> shift {
                self.give_up();
                return 0;
            }
            result |= (byte & 0x7f) << shift;
            if byte < 0x80 {
                return result;
            }
            number >>= 7;
            shift += 7;
        }
    }

    /// A length: the one given, or the one that was read, of which nothing is believed.
    fn length(&mut self, length: usize) -> usize {
        self.number(length as u64, usize::MAX as u64) as usize
    }

    /// Something or nothing; 0 or 1.
    fn flag(&mut self, flag: bool) -> bool {
        let byte = self.byte(u8::from(flag));
        if byte > 1 {
            self.give_up();
        }
        byte == 1
    }

    /// Writes this text, or gives the one that was read.
    fn text(&mut self, text: &str) -> Option<&'a str> {
        let length = self.length(text.len());
        match self {
            Packer::Write(room) => {
                if let Some((these, rest)) = std::mem::take(room).split_at_mut_checked(length) {
                    these.copy_from_slice(text.as_bytes());
                    *room = rest;
                    return None;
                }
            }
            Packer::Read(bytes) => {
                if let Some((these, rest)) = bytes.split_at_checked(length) {
                    *bytes = rest;
                    if let Ok(text) = str::from_utf8(these) {
                        return Some(text);
                    }
                }
            }
            Packer::Broken => {}
        }
        self.give_up();
        None
    }
}

impl Packed for u8 {
    fn pack(&mut self, packer: &mut Packer) {
        *self = packer.byte(*self);
    }
}

impl Packed for bool {
    fn pack(&mut self, packer: &mut Packer) {
        *self = packer.flag(*self);
    }
}

macro_rules! number {
    ($($number:ty)*) => {
        $(impl Packed for $number {
            fn pack(&mut self, packer: &mut Packer) {
                *self = packer.number(u64::from(*self), u64::from(<$number>::MAX)) as $number;
            }
        })*
    };
}
number!(u16 u32 u64);

impl Packed for i32 {
    fn pack(&mut self, packer: &mut Packer) {
        // 0, -1, 1, -2, …
        let mut zigzag = (*self << 1 ^ *self >> 31) as u32;
        zigzag.pack(packer);
        *self = (zigzag >> 1) as i32 ^ -((zigzag & 1) as i32);
    }
}

impl Packed for i64 {
    fn pack(&mut self, packer: &mut Packer) {
        let mut zigzag = (*self << 1 ^ *self >> 63) as u64;
        zigzag.pack(packer);
        *self = (zigzag >> 1) as i64 ^ -((zigzag & 1) as i64);
    }
}

impl Packed for u128 {
    fn pack(&mut self, packer: &mut Packer) {
        let mut halves = [*self as u64, (*self >> 64) as u64];
        halves.pack(packer);
        *self = u128::from(halves[1]) << 64 | u128::from(halves[0]);
    }
}

impl Packed for String {
    fn pack(&mut self, packer: &mut Packer) {
        if let Some(text) = packer.text(self) {
            *self = text.into();
        }
    }
}

impl Packed for heapless::string::StringView {
    fn pack(&mut self, packer: &mut Packer) {
        if let Some(text) = packer.text(self) {
            self.clear();
            if self.push_str(text).is_err() {
                packer.give_up();
            }
        }
    }
}

impl<const N: usize> Packed for heapless::String<N> {
    fn pack(&mut self, packer: &mut Packer) {
        self.as_mut_view().pack(packer);
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

impl<T: Packed + Default> Packed for heapless::vec::VecView<T> {
    fn pack(&mut self, packer: &mut Packer) {
        let length = packer.length(self.len());
        for index in 0..length {
            if index == self.len() && self.push(T::default()).is_err() {
                packer.give_up();
                return;
            }
            self[index].pack(packer);
        }
    }
}

impl<T: Packed + Default, const N: usize> Packed for heapless::Vec<T, N> {
    fn pack(&mut self, packer: &mut Packer) {
        self.as_mut_view().pack(packer);
    }
}

impl<T: Packed + Default> Packed for Option<T> {
    fn pack(&mut self, packer: &mut Packer) {
        if packer.flag(self.is_some()) {
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

/// Packs a structure: all its fields in this order; or an enum: all its variants, each with its number and its
/// fields. That none is missing, the compiler checks.
macro_rules! packed {
    (enum $name:ident {
        $($number:literal $variant:ident $(($only:ident))? $({ $($field:ident),* $(,)? })?),* $(,)?
    }) => {
        impl $crate::packed::Packed for $name {
            fn pack(&mut self, packer: &mut $crate::packed::Packer) {
                let reads = packer.reads();
                #[allow(unused_variables, reason = "the fields are looked at below")]
                let number = match self {
                    $($name::$variant $(($only))? $({ $($field),* })? => $number,)*
                };
                let number = packer.number(number, u64::from(u32::MAX));
                if reads {
                    match number {
                        $($number => {
                            $(let $only = Default::default();)?
                            *self = $name::$variant $(($only))? $({ $($field: Default::default()),* })?;
                        })*
                        _ => packer.give_up(),
                    }
                }
                match self {
                    $($name::$variant $(($only))? $({ $($field),* })? => {
                        $($crate::packed::Packed::pack($only, packer);)?
                        $($($crate::packed::Packed::pack($field, packer);)*)?
                    })*
                }
            }
        }
    };
    ($name:ident { $($field:ident),* $(,)? }) => {
        impl $crate::packed::Packed for $name {
            fn pack(&mut self, packer: &mut $crate::packed::Packer) {
                let $name { $($field),* } = self;
                $($crate::packed::Packed::pack($field, packer);)*
            }
        }
    };
}
pub(crate) use packed;

#[cfg(test)]
mod tests {
    use super::*;

    type Everything = (Vec<String>, Option<(i32, u64)>, ([Option<bool>; 3], u128, Vec<(u32, u8)>));

    fn everything() -> Everything {
        let (words, bools) = (vec!["ä".into(), String::new()], [None, Some(true), Some(false)]);
        (words, Some((-1, u64::MAX)), (bools, 1 << 127, vec![(1, 2), (3, 4)]))
    }

    #[test]
    fn a_value_for_which_there_is_no_room_stays_as_it_is() {
        let whole = to_bytes(&mut everything()).len();
        for length in 0..whole {
            let mut value = everything();
            assert_eq!(write(&mut value, &mut vec![0; length]), None);
            assert_eq!(value, everything(), "{length} of {whole} bytes");
        }
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
