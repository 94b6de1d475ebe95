//! Requests cut out of what comes through a line, and answers sent back: over TCP (MODBUS Messaging on TCP/IP Implementation
//! Guide V1.0b) and serially (MODBUS over Serial Line V1.02, RTU). Written against the traits of embedded-io, so that it is tried
//! in memory; knows no socket and no clock.

use embedded_io::{ErrorKind, Read, Write};

use super::pdu::{self, Answer, REQUEST_BYTES_MAX};

/// Of TCP: transaction, protocol, length; the unit, which is the last byte of it, counts as the request's first.
const HEADER_BYTES: usize = 6;
/// Checksum of a serial frame.
const SUM_BYTES: usize = 2;
/// Requests of one client that are answered before others have their turn.
const TURNS: usize = 8;

/// Answers a request (unit, function, data); none: it is for another unit.
pub type Answering<'a> = &'a mut dyn FnMut(&[u8]) -> Option<Answer>;

/// Requests of one TCP client.
#[derive(Default)]
pub struct TcpFrames {
    buffer: heapless::Vec<u8, { HEADER_BYTES + REQUEST_BYTES_MAX }>,
}

/// Takes what has come, if there is room for it; false: nothing comes any more.
fn take<P: Read, const N: usize>(port: &mut P, buffer: &mut heapless::Vec<u8, N>) -> Result<bool, ErrorKind> {
    let had = buffer.len();
    // Cannot fail.
    let _ = buffer.resize(N, 0);
    let count = port.read(&mut buffer[had..]);
    buffer.truncate(had + *count.as_ref().unwrap_or(&0));
    match count {
        Ok(count) => Ok(count > 0 || had == N),
        Err(error) => match embedded_io::Error::kind(&error) {
            // Nothing now.
            ErrorKind::Interrupted => Ok(true),
            kind => Err(kind),
        },
    }
}

fn send<P: Write>(port: &mut P, bytes: &[u8]) -> Result<(), ErrorKind> {
    // Whoever does not take its answers gets none: an answer that is not taken at once ends the connection.
    port.write_all(bytes).map_err(|error| embedded_io::Error::kind(&error))
}

impl TcpFrames {
    /// Reads once, and answers what is complete. False: nothing comes any more. An error ends the connection: what was sent makes
    /// no sense, or it is broken.
    pub fn turn<P: Read + Write>(&mut self, port: &mut P, answering: Answering) -> Result<bool, ErrorKind> {
        let goes_on = take(port, &mut self.buffer)?;
        for _ in 0..TURNS {
            let Some((header, rest)) = self.buffer.split_first_chunk::<HEADER_BYTES>() else { break };
            let length = usize::from(u16::from_be_bytes([header[4], header[5]]));
            if header[2..4] != [0, 0] || !(2..=REQUEST_BYTES_MAX).contains(&length) {
                return Err(ErrorKind::InvalidData);
            }
            let Some(request) = rest.get(..length) else { break };
            if let Some(answer) = answering(request) {
                let mut packet = heapless::Vec::<u8, { HEADER_BYTES + pdu::ANSWER_BYTES_MAX }>::new();
                let length = (answer.len() as u16).to_be_bytes();
                for part in [&header[..4], &length, &answer] {
                    packet.extend_from_slice(part).map_err(|_| ErrorKind::OutOfMemory)?;
                }
                send(port, &packet)?;
            }
            let used = HEADER_BYTES + length;
            self.buffer.copy_within(used.., 0);
            self.buffer.truncate(self.buffer.len() - used);
        }
        Ok(goes_on)
    }

    /// A request is complete that has not been answered yet: others have had their turn.
    pub fn has_more(&self) -> bool {
        let Some((header, rest)) = self.buffer.split_first_chunk::<HEADER_BYTES>() else { return false };
        rest.len() >= usize::from(u16::from_be_bytes([header[4], header[5]]))
    }
}

/// Requests of a serial line. A frame ends where its function says; one that nobody understands where the line falls silent.
#[derive(Default)]
pub struct RtuFrames {
    buffer: heapless::Vec<u8, { REQUEST_BYTES_MAX + SUM_BYTES }>,
}

/// CRC-16 of a serial frame, in the order in which it is sent.
fn sum(bytes: &[u8]) -> [u8; SUM_BYTES] {
    let step = |crc: u16, _| if crc & 1 == 1 { crc >> 1 ^ 0xa001 } else { crc >> 1 };
    let sum = bytes.iter().fold(0xffff, |crc: u16, byte| (0..8).fold(crc ^ u16::from(*byte), step));
    sum.to_le_bytes()
}

impl RtuFrames {
    /// Reads once, and answers a request that is complete. False: nothing comes any more.
    pub fn turn<P: Read + Write>(&mut self, port: &mut P, answering: Answering) -> Result<bool, ErrorKind> {
        let goes_on = take(port, &mut self.buffer)?;
        if let Some(length) = pdu::length(&self.buffer).filter(|length| *length > 0)
            && self.buffer.len() >= length + SUM_BYTES
        {
            self.end(length + SUM_BYTES, port, answering)?;
        }
        Ok(goes_on)
    }

    /// Something has come that is no whole request: until the line falls silent.
    pub fn is_waiting(&self) -> bool {
        !self.buffer.is_empty()
    }

    /// The line fell silent: what came before is a frame, or nothing.
    pub fn fall_silent<P: Write>(&mut self, port: &mut P, answering: Answering) -> Result<(), ErrorKind> {
        self.end(self.buffer.len(), port, answering)
    }

    fn end<P: Write>(&mut self, length: usize, port: &mut P, answering: Answering) -> Result<(), ErrorKind> {
        let frame = core::mem::take(&mut self.buffer);
        let Some((request, check)) = frame.get(..length).and_then(<[u8]>::split_last_chunk::<SUM_BYTES>)
        else {
            return Ok(());
        };
        // What is damaged is not answered: whoever asked asks again.
        if request.len() < 2 || *check != sum(request) {
            return Ok(());
        }
        let Some(answer) = answering(request) else { return Ok(()) };
        // To all units at once: nobody answers.
        if request[0] == 0 {
            return Ok(());
        }
        let mut packet = heapless::Vec::<u8, { pdu::ANSWER_BYTES_MAX + SUM_BYTES }>::new();
        for part in [&answer[..], &sum(&answer)] {
            packet.extend_from_slice(part).map_err(|_| ErrorKind::OutOfMemory)?;
        }
        send(port, &packet)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives its pieces, one by one; takes what is written, up to a limit.
    struct Line {
        pieces: Vec<Vec<u8>>,
        taken: Vec<u8>,
        room: usize,
    }

    impl embedded_io::ErrorType for Line {
        type Error = ErrorKind;
    }

    impl Read for Line {
        fn read(&mut self, buffer: &mut [u8]) -> Result<usize, ErrorKind> {
            if self.pieces.is_empty() {
                return Err(ErrorKind::Interrupted);
            }
            let mut piece = self.pieces.remove(0);
            let count = piece.len().min(buffer.len());
            buffer[..count].copy_from_slice(&piece[..count]);
            if count < piece.len() {
                self.pieces.insert(0, piece.split_off(count));
            }
            Ok(count)
        }
    }

    impl Write for Line {
        fn write(&mut self, bytes: &[u8]) -> Result<usize, ErrorKind> {
            let count = bytes.len().min(self.room);
            self.room -= count;
            self.taken.extend(&bytes[..count]);
            if count == 0 { Err(ErrorKind::WriteZero) } else { Ok(count) }
        }
        fn flush(&mut self) -> Result<(), ErrorKind> {
            Ok(())
        }
    }

    fn line(pieces: &[&[u8]]) -> Line {
        Line { pieces: pieces.iter().map(|piece| piece.to_vec()).collect(), taken: Vec::new(), room: 1000 }
    }

    /// Unit 1 echoes.
    fn echo(request: &[u8]) -> Option<Answer> {
        matches!(request[0], 0 | 1).then(|| Answer::from_slice(request).unwrap())
    }

    const FIRST: &[u8] = &[0, 7, 0, 0, 0, 6, 1, 3, 0, 0, 0, 1];
    const SECOND: &[u8] = &[9, 8, 0, 0, 0, 3, 1, 99, 5];

    #[test]
    fn requests_are_found_however_they_are_cut_and_answered_with_their_number() {
        let both = [FIRST, SECOND].concat();
        for cut in 0..=both.len() {
            let mut line = line(&[&both[..cut], &both[cut..]]);
            line.pieces.retain(|piece| !piece.is_empty());
            let mut frames = TcpFrames::default();
            while !line.pieces.is_empty() || frames.has_more() {
                assert_eq!(frames.turn(&mut line, &mut echo), Ok(true));
            }
            assert_eq!(line.taken, both, "{cut}");
        }
        let mut bytes = line(&both.chunks(1).collect::<Vec<_>>());
        let mut frames = TcpFrames::default();
        while !bytes.pieces.is_empty() {
            frames.turn(&mut bytes, &mut echo).unwrap();
        }
        assert_eq!(bytes.taken, both);
    }

    #[test]
    fn a_client_with_many_requests_gives_others_their_turn() {
        let mut line = line(&[&FIRST.repeat(20)]);
        let mut frames = TcpFrames::default();
        frames.turn(&mut line, &mut echo).unwrap();
        assert_eq!(line.taken.len(), TURNS * FIRST.len());
        assert!(frames.has_more());
        for _ in 0..10 {
            frames.turn(&mut line, &mut echo).unwrap();
        }
        assert_eq!(line.taken.len(), 20 * FIRST.len());
    }

    #[test]
    fn what_makes_no_sense_or_is_not_taken_ends_the_connection() {
        for wrong in [
            &[0, 0, 0, 1, 0, 6, 1, 3][..],
            &[0, 0, 0, 0, 0, 1, 1],
            &[0, 0, 0, 0, 0, 255, 1],
            &[0, 0, 0, 0, 1, 0, 1],
        ] {
            let mut line = line(&[wrong]);
            assert_eq!(
                TcpFrames::default().turn(&mut line, &mut echo),
                Err(ErrorKind::InvalidData),
                "{wrong:?}"
            );
        }
        let mut stuck = Line { room: 5, ..line(&[FIRST]) };
        assert_eq!(TcpFrames::default().turn(&mut stuck, &mut echo), Err(ErrorKind::WriteZero));
        let mut other = line(&[&[0, 7, 0, 0, 0, 6, 2, 3, 0, 0, 0, 1]]);
        assert_eq!(TcpFrames::default().turn(&mut other, &mut echo), Ok(true));
        assert!(other.taken.is_empty(), "another unit's");
    }

    fn rtu(request: &[u8]) -> Vec<u8> {
        [request, &sum(request)].concat()
    }

    #[test]
    fn the_checksum_is_the_specifications() {
        // Known from every tool: unit 1 reads register 0.
        assert_eq!(sum(&[1, 3, 0, 0, 0, 1]), [0x84, 0x0a]);
    }

    #[test]
    fn a_serial_request_is_answered_at_once_a_damaged_one_never() {
        let request = rtu(&[1, 16, 0, 1, 0, 1, 2, 0, 7]);
        for cut in 0..request.len() {
            let mut line = line(&[&request[..cut], &request[cut..]]);
            line.pieces.retain(|piece| !piece.is_empty());
            let mut frames = RtuFrames::default();
            while !line.pieces.is_empty() {
                frames.turn(&mut line, &mut echo).unwrap();
            }
            assert_eq!(line.taken, request, "{cut}");
            assert!(!frames.is_waiting());
        }
        for at in 0..request.len() {
            let mut damaged = request.clone();
            damaged[at] ^= 0x10;
            let mut line = line(&[&damaged]);
            let mut frames = RtuFrames::default();
            frames.turn(&mut line, &mut echo).unwrap();
            frames.fall_silent(&mut line, &mut echo).unwrap();
            assert!(line.taken.is_empty() && !frames.is_waiting(), "{at}");
        }
    }

    #[test]
    fn silence_ends_what_nobody_understands_and_what_was_cut_off() {
        let mut frames = RtuFrames::default();
        let unknown = rtu(&[1, 99, 1, 2, 3]);
        let mut first = line(&[&unknown]);
        frames.turn(&mut first, &mut echo).unwrap();
        assert!(first.taken.is_empty() && frames.is_waiting());
        frames.fall_silent(&mut first, &mut echo).unwrap();
        assert_eq!(first.taken, unknown);
        // Cut off: forgotten, and the next one is whole.
        let whole = rtu(&[1, 3, 0, 0, 0, 1]);
        let mut second = line(&[&whole[..5]]);
        frames.turn(&mut second, &mut echo).unwrap();
        frames.fall_silent(&mut second, &mut echo).unwrap();
        second.pieces.push(whole.clone());
        frames.turn(&mut second, &mut echo).unwrap();
        assert_eq!(second.taken, whole);
        // To all: done, not answered.
        let mut all = line(&[&rtu(&[0, 6, 0, 1, 0, 1])]);
        let mut done = 0;
        frames
            .turn(&mut all, &mut |request| {
                done += 1;
                echo(request)
            })
            .unwrap();
        assert_eq!((done, all.taken.len()), (1, 0));
    }
}
