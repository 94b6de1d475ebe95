//! What a request is answered with (MODBUS Application Protocol Specification V1.1b3, section 6). Pure: what stands at which
//! address is a [`Tables`]'s affair. rmodbus takes functions 1 to 6, 15 and 16 apart and puts their answers together; it trusts
//! lengths, so a request gets there only when it is as long as its function says. 22, 23 and 43 it does not know.

use rmodbus::ModbusProto;
use rmodbus::server::{ModbusFrame, Read, Write};

/// Bytes of the largest answer: unit, function and data; with room for the header that rmodbus puts before it.
pub const ANSWER_BYTES_MAX: usize = 260;
/// Bytes of the largest request: unit, function and data.
pub const REQUEST_BYTES_MAX: usize = 254;

/// An answer: unit, function, data.
pub type Answer = heapless::Vec<u8, ANSWER_BYTES_MAX>;

/// Why not (section 7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exception {
    /// 1: no such function.
    Function,
    /// 2: nothing stands at one of the addresses, or it cannot be written.
    Address,
    /// 3: the request makes no sense.
    Value,
    /// 4: it stands there, and something failed.
    Device,
}

impl Exception {
    fn code(self) -> u8 {
        self as u8 + 1
    }
}

/// The four tables of a device. A write of several is done as a whole or not at all.
pub trait Tables {
    /// A coil (or a discrete input).
    fn bit(&mut self, is_coil: bool, address: u16) -> Result<bool, Exception>;
    /// A holding register (or an input register).
    fn word(&mut self, is_holding: bool, address: u16) -> Result<u16, Exception>;
    /// Writes coils.
    fn set_bits(
        &mut self,
        address: u16,
        bits: &mut dyn ExactSizeIterator<Item = bool>,
    ) -> Result<(), Exception>;
    /// Writes holding registers.
    fn set_words(
        &mut self,
        address: u16,
        words: &mut dyn ExactSizeIterator<Item = u16>,
    ) -> Result<(), Exception>;
    /// What it is (6.21): vendor, product, version and whatever it says of itself, by number; none: there is no such object.
    fn object(&self, number: u8) -> Option<&str>;
}

const READ_COILS: u8 = 1;
const READ_DISCRETES: u8 = 2;
const READ_HOLDINGS: u8 = 3;
const READ_INPUTS: u8 = 4;
const WRITE_COIL: u8 = 5;
const WRITE_REGISTER: u8 = 6;
const WRITE_COILS: u8 = 15;
const WRITE_REGISTERS: u8 = 16;
const MASK_REGISTER: u8 = 22;
const WRITE_AND_READ: u8 = 23;
const ENCAPSULATED: u8 = 43;
/// Of function 43: read device identification.
const IDENTIFICATION: u8 = 14;

/// How long a request with this beginning is, unit and function counted. None: that is not known yet, or (`Some(0)`) never, as
/// its function is not known.
pub fn length(request: &[u8]) -> Option<usize> {
    let counted = |at: usize| request.get(at).map(|bytes| at + 1 + usize::from(*bytes));
    match *request.get(1)? {
        READ_COILS..=WRITE_REGISTER => Some(6),
        WRITE_COILS | WRITE_REGISTERS => counted(6),
        MASK_REGISTER => Some(8),
        WRITE_AND_READ => counted(10),
        ENCAPSULATED => Some(5),
        _ => Some(0),
    }
}

fn number(request: &[u8], at: usize) -> usize {
    request.get(at..at + 2).map_or(0, |bytes| usize::from(u16::from_be_bytes([bytes[0], bytes[1]])))
}

/// Whether a request is what its function says, before anybody takes it apart.
fn judge(request: &[u8]) -> Result<(), Exception> {
    let function = request[1];
    let length = length(request);
    if length == Some(0) {
        return Err(Exception::Function);
    }
    if length != Some(request.len()) {
        return Err(Exception::Value);
    }
    // Quantity, the most there may be, and how many bytes of data come with it.
    let range = |at: usize, quantity: usize, most: usize| {
        if !(1..=most).contains(&quantity) {
            return Err(Exception::Value);
        }
        if number(request, at) + quantity > 0x1_0000 { Err(Exception::Address) } else { Ok(()) }
    };
    let data = |at: usize, bytes: usize| {
        if usize::from(request[at]) == bytes { Ok(()) } else { Err(Exception::Value) }
    };
    let quantity = number(request, 4);
    match function {
        READ_COILS | READ_DISCRETES => range(2, quantity, 2000),
        READ_HOLDINGS | READ_INPUTS => range(2, quantity, 125),
        WRITE_COIL if !matches!(quantity, 0 | 0xff00) => Err(Exception::Value),
        WRITE_COILS => data(6, quantity.div_ceil(8)).and_then(|()| range(2, quantity, 1968)),
        WRITE_REGISTERS => data(6, 2 * quantity).and_then(|()| range(2, quantity, 123)),
        WRITE_AND_READ => {
            range(2, quantity, 125)?;
            let written = number(request, 8);
            data(10, 2 * written).and_then(|()| range(6, written, 121))
        }
        ENCAPSULATED if request[2] != IDENTIFICATION => Err(Exception::Function),
        _ => Ok(()),
    }
}

/// Answers a request (unit, function, data: two bytes at the least). Whether it is for this unit is the caller's business.
pub fn answer(request: &[u8], tables: &mut dyn Tables) -> Answer {
    let done = judge(request).and_then(|()| match request[1] {
        MASK_REGISTER => mask(request, tables),
        WRITE_AND_READ => write_and_read(request, tables),
        ENCAPSULATED => identify(request, tables),
        _ => usual(request, tables),
    });
    match done {
        Ok(answer) => answer,
        Err(exception) => {
            let mut answer = Answer::new();
            // There is room.
            let _ = answer.extend_from_slice(&[request[0], request[1] | 0x80, exception.code()]);
            answer
        }
    }
}

/// The functions that rmodbus knows. It is given them with a header, and the answer's is taken off again.
fn usual(request: &[u8], tables: &mut dyn Tables) -> Result<Answer, Exception> {
    let mut framed = heapless::Vec::<u8, { REQUEST_BYTES_MAX + 6 }>::new();
    // The length there is any that it takes: what counts has been looked at.
    framed.extend_from_slice(&[0, 0, 0, 0, 0, 6]).map_err(|_| Exception::Value)?;
    framed.extend_from_slice(request).map_err(|_| Exception::Value)?;
    let mut answer = Answer::new();
    let mut frame =
        ModbusFrame::new(request[0], &framed, ModbusProto::TcpUdp, &mut answer).with_broadcast_units(&[]);
    let failed = |_| Exception::Device;
    frame.parse().map_err(failed)?;
    let result = if frame.readonly {
        let is_writable = matches!(request[1], READ_COILS | READ_HOLDINGS);
        match frame.get_external_read().map_err(failed)? {
            Read::Bits(bits) => (0..bits.count).try_for_each(|index| {
                let bit = tables.bit(is_writable, bits.address + index)?;
                bits.buf[usize::from(index / 8)] |= u8::from(bit) << (index % 8);
                Ok(())
            }),
            Read::Words(words) => (0..words.count).try_for_each(|index| {
                let word = tables.word(is_writable, words.address + index)?.to_be_bytes();
                words.buf[2 * usize::from(index)..][..2].copy_from_slice(&word);
                Ok(())
            }),
        }
    } else {
        match frame.get_external_write().map_err(failed)? {
            Write::Bits(bits) => {
                let bit = |index: u16| bits.data[usize::from(index / 8)] >> (index % 8) & 1 == 1;
                tables.set_bits(bits.address, &mut (0..bits.count).map(bit))
            }
            Write::Words(words) => tables.set_words(words.address, &mut in_words(words.data)),
        }
    };
    result?;
    if !frame.readonly {
        frame.process_external_write(Ok(())).map_err(failed)?;
    }
    frame.finalize_response().map_err(failed)?;
    answer.copy_within(6.., 0);
    answer.truncate(answer.len() - 6);
    Ok(answer)
}

fn in_words(bytes: &[u8]) -> impl ExactSizeIterator<Item = u16> {
    bytes.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]]))
}

/// 6.16: and, or.
fn mask(request: &[u8], tables: &mut dyn Tables) -> Result<Answer, Exception> {
    let [address, and, or] = [2, 4, 6].map(|at| number(request, at) as u16);
    let word = tables.word(true, address)?;
    tables.set_words(address, &mut [word & and | or & !and].into_iter())?;
    Answer::from_slice(request).map_err(|_| Exception::Device)
}

/// 6.17: the write comes before the read.
fn write_and_read(request: &[u8], tables: &mut dyn Tables) -> Result<Answer, Exception> {
    let [from, quantity, to] = [2, 4, 6].map(|at| number(request, at) as u16);
    // Nothing is written where the answer would be an exception.
    for index in 0..quantity {
        tables.word(true, from + index)?;
    }
    tables.set_words(to, &mut in_words(&request[11..]))?;
    let mut answer = Answer::new();
    let mut push = |bytes: &[u8]| answer.extend_from_slice(bytes).map_err(|_| Exception::Device);
    push(&[request[0], request[1], (2 * quantity) as u8])?;
    for index in 0..quantity {
        push(&tables.word(true, from + index)?.to_be_bytes())?;
    }
    Ok(answer)
}

/// Objects that are told with this code of access: basic, regular, extended (6.21).
const LAST_OBJECT: [u8; 3] = [0x02, 0x7f, 0xff];

fn identify(request: &[u8], tables: &dyn Tables) -> Result<Answer, Exception> {
    let (access, first) = (request[3], request[4]);
    let mut answer = Answer::new();
    let mut push = |bytes: &[u8]| answer.extend_from_slice(bytes).map_err(|_| Exception::Device);
    // Conformity: extended identification, by stream and one by one.
    push(&[request[0], request[1], IDENTIFICATION, access, 0x83])?;
    let last = match access {
        1..=3 => LAST_OBJECT[usize::from(access) - 1],
        4 if tables.object(first).is_some() => first,
        4 => return Err(Exception::Address),
        _ => return Err(Exception::Value),
    };
    // What is not there begins anew.
    let first = if tables.object(first).is_some() { first } else { 0 };
    // All objects fit into one answer (tested with the tables), so that no more follow.
    let objects = (first..=last).filter_map(|number| Some((number, tables.object(number)?)));
    push(&[0, 0, objects.clone().count() as u8])?;
    for (number, text) in objects {
        push(&[number, text.len() as u8])?;
        push(text.as_bytes())?;
    }
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Coils 0 to 9 and registers 100 to 109 that can be written, discrete inputs 0 to 1999 (every third on), input registers
    /// that hold their address, register 105 that fails.
    struct Toy {
        coils: [bool; 10],
        words: [u16; 10],
    }

    fn toy() -> Toy {
        Toy { coils: [false; 10], words: [0; 10] }
    }

    impl Tables for Toy {
        fn bit(&mut self, is_coil: bool, address: u16) -> Result<bool, Exception> {
            match is_coil {
                true => self.coils.get(usize::from(address)).copied().ok_or(Exception::Address),
                false if address < 2000 => Ok(address.is_multiple_of(3)),
                false => Err(Exception::Address),
            }
        }
        fn word(&mut self, is_holding: bool, address: u16) -> Result<u16, Exception> {
            match (is_holding, address) {
                (false, _) => Ok(address),
                (true, 105) => Err(Exception::Device),
                (true, 100..110) => Ok(self.words[usize::from(address - 100)]),
                _ => Err(Exception::Address),
            }
        }
        fn set_bits(
            &mut self,
            address: u16,
            bits: &mut dyn ExactSizeIterator<Item = bool>,
        ) -> Result<(), Exception> {
            let cells = self.coils.get_mut(usize::from(address)..usize::from(address) + bits.len());
            cells.ok_or(Exception::Address)?.iter_mut().zip(bits).for_each(|(cell, bit)| *cell = bit);
            Ok(())
        }
        fn set_words(
            &mut self,
            address: u16,
            words: &mut dyn ExactSizeIterator<Item = u16>,
        ) -> Result<(), Exception> {
            let at = usize::from(address).checked_sub(100).ok_or(Exception::Address)?;
            let cells = self.words.get_mut(at..at + words.len()).ok_or(Exception::Address)?;
            cells.iter_mut().zip(words).for_each(|(cell, word)| *cell = word);
            Ok(())
        }
        fn object(&self, number: u8) -> Option<&str> {
            match number {
                0 => Some("ACME"),
                1 => Some("P"),
                2 => Some("1.0"),
                0x80 => Some("x"),
                _ => None,
            }
        }
    }

    fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
        digits.chunks(2).map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
    }

    fn asked(toy: &mut Toy, request: &str) -> String {
        answer(&hex(request), toy).iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn every_function_answers_as_the_specification_says() {
        let mut toy = toy();
        for (request, expected) in [
            ("01 05 0003 ff00", "01 05 00 03 ff 00"),
            ("01 0f 0004 0004 01 05", "01 0f 00 04 00 04"),
            ("01 01 0000 000a", "01 01 02 58 00"),
            ("01 02 0000 0009", "01 02 02 49 00"),
            ("01 06 0064 1234", "01 06 00 64 12 34"),
            ("01 10 0065 0002 04 00ff ff00", "01 10 00 65 00 02"),
            ("01 03 0064 0003", "01 03 06 12 34 00 ff ff 00"),
            ("01 04 fffe 0002", "01 04 04 ff fe ff ff"),
            // The specification's own example: 0x12 and 0xf2, or 0x25, is 0x17.
            ("01 06 0066 0012", "01 06 00 66 00 12"),
            ("01 16 0066 00f2 0025", "01 16 00 66 00 f2 00 25"),
            ("01 03 0066 0001", "01 03 02 00 17"),
            // Written first, then read.
            ("01 17 0064 0002 0065 0001 02 abcd", "01 17 04 12 34 ab cd"),
            ("01 2b 0e 01 00", "01 2b 0e 01 83 00 00 03 00 04 41 43 4d 45 01 01 50 02 03 31 2e 30"),
            ("01 2b 0e 03 00", "01 2b 0e 03 83 00 00 04 00 04 41 43 4d 45 01 01 50 02 03 31 2e 30 80 01 78"),
            ("01 2b 0e 04 80", "01 2b 0e 04 83 00 00 01 80 01 78"),
            ("01 2b 0e 01 02", "01 2b 0e 01 83 00 00 01 02 03 31 2e 30"),
        ] {
            assert_eq!(asked(&mut toy, request), expected, "{request}");
        }
    }

    #[test]
    fn every_limit_is_an_exception_and_changes_nothing() {
        let mut toy = toy();
        for (request, expected) in [
            // Functions there are not.
            ("01 07", "01 87 01"),
            ("01 00", "01 80 01"),
            ("01 2b 0d 00 00", "01 ab 01"),
            // Quantities.
            ("01 01 0000 0000", "01 81 03"),
            ("01 02 0000 07d1", "01 82 03"),
            ("01 03 0064 0000", "01 83 03"),
            ("01 04 0000 007e", "01 84 03"),
            ("01 05 0000 0001", "01 85 03"),
            ("01 0f 0000 0000 00", "01 8f 03"),
            ("01 10 0064 0000 00", "01 90 03"),
            ("01 17 0064 0000 0064 0001 02 0000", "01 97 03"),
            ("01 17 0064 007e 0064 0001 02 0000", "01 97 03"),
            ("01 17 0064 0001 0064 0000 00", "01 97 03"),
            // Bytes that do not go with them, and requests that are cut off or too long.
            ("01 0f 0000 0009 01 ff", "01 8f 03"),
            ("01 10 0064 0002 02 0000", "01 90 03"),
            ("01 03 0064", "01 83 03"),
            ("01 03 0064 0001 00", "01 83 03"),
            ("01 10 0064 0001 02 00", "01 90 03"),
            ("01 16 0064 0000", "01 96 03"),
            // Addresses.
            ("01 01 0009 0002", "01 81 02"),
            ("01 02 ffff 0002", "01 82 02"),
            ("01 04 ffff 0002", "01 84 02"),
            ("01 05 000a ff00", "01 85 02"),
            ("01 06 0000 0001", "01 86 02"),
            ("01 0f 0008 0003 01 07", "01 8f 02"),
            ("01 10 006d 0002 04 0001 0001", "01 90 02"),
            ("01 16 0000 0000 0000", "01 96 02"),
            ("01 17 0000 0001 0064 0001 02 0001", "01 97 02"),
            ("01 2b 0e 04 10", "01 ab 02"),
            ("01 2b 0e 05 00", "01 ab 03"),
            // It stands there, and fails.
            ("01 03 0069 0001", "01 83 04"),
            ("01 17 0069 0001 0064 0001 02 0001", "01 97 04"),
        ] {
            assert_eq!(asked(&mut toy, request), expected, "{request}");
            assert!(toy.coils == [false; 10] && toy.words == [0; 10], "{request}");
        }
    }

    #[test]
    fn the_largest_requests_and_answers_fit() {
        let mut toy = toy();
        assert_eq!(answer(&hex("01 02 0000 07d0"), &mut toy).len(), 3 + 250);
        assert_eq!(answer(&hex("01 04 0000 007d"), &mut toy).len(), 3 + 250);
        let many = |function: u8, quantity: u16, bytes: u8| {
            let mut request = vec![1, function, 0, 0];
            request.extend(quantity.to_be_bytes());
            request.push(bytes);
            request.extend(vec![0; usize::from(bytes)]);
            request
        };
        // Nothing stands there, so that it is an address that is wrong and no length.
        assert_eq!(answer(&many(15, 1968, 246), &mut toy)[..], [1, 0x8f, 2]);
        assert_eq!(answer(&many(16, 123, 246), &mut toy)[..], [1, 0x90, 2]);
        assert_eq!(answer(&many(15, 1969, 247), &mut toy)[..], [1, 0x8f, 3]);
        assert_eq!(answer(&many(16, 124, 248), &mut toy)[..], [1, 0x90, 3]);
    }

    #[test]
    fn no_bytes_make_it_panic_and_every_answer_is_the_requests_or_an_exception() {
        let mut toy = toy();
        let mut state = 1_u64;
        let mut random = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) as usize
        };
        let functions = [1, 2, 3, 4, 5, 6, 15, 16, 22, 23, 43, 99];
        for _ in 0..100_000 {
            let length = 2 + random() % (REQUEST_BYTES_MAX - 1);
            let mut request: Vec<u8> = (0..length).map(|_| random() as u8).collect();
            request[1] = functions[random() % functions.len()];
            if random() % 2 == 0 {
                request.truncate(2 + random() % 16);
            }
            let answer = answer(&request, &mut toy);
            assert_eq!(answer[0], request[0]);
            assert!(answer[1] == request[1] || answer[1] == request[1] | 0x80 && answer.len() == 3);
            assert!(answer.len() <= 253);
        }
    }
}
