//! A serial line on which requests come, and who may speak on it: two wires of RS-485 are for one direction at a time. Its
//! driver switches it, or a line of a GPIO chip does, here.

use embedded_io::{ErrorKind, ErrorType, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};

use super::super::life::Drive;
use super::frame::{Answering, RtuFrames};
use crate::sys::serial::Serial;
use crate::sys::{SysError, clock};
use crate::time::{Instant, Millis};

/// A pause that ends a frame is 3.5 characters, and at the least what an adapter at a USB port makes of one within a frame.
const SILENCE_MS_MIN: u64 = 20;
/// Bits of a character: start, eight, parity or a stop bit more, stop.
const CHARACTER_BITS: u64 = 11;
/// The last character may still be on its way out.
const LAST_CHARACTER: Millis = Millis(1);

/// The line.
pub struct Line {
    port: Port,
    frames: RtuFrames,
    /// When it will have fallen silent.
    silent_at: Option<Instant>,
    silence: Millis,
}

struct Port {
    serial: Serial,
    /// On while we speak.
    direction: Option<Drive>,
    baud: u32,
    /// When what is being sent will be out.
    sent_at: Option<Instant>,
}

fn broken() -> SysError {
    SysError { operation: "serial line", errno: libc::EIO }
}

impl Line {
    /// A line that listens.
    pub fn new(serial: Serial, baud: u32, direction: Option<Drive>) -> Result<Line, SysError> {
        if let Some(direction) = &direction {
            direction.set(false)?;
        }
        let silence = Millis((3500 * CHARACTER_BITS / u64::from(baud)).max(SILENCE_MS_MIN));
        let port = Port { serial, direction, baud, sent_at: None };
        Ok(Line { port, frames: RtuFrames::default(), silent_at: None, silence })
    }

    /// What is waited for.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.port.serial.as_fd()
    }

    /// When something is to be done though nothing comes.
    pub fn deadline(&self) -> Option<Instant> {
        [self.silent_at, self.port.sent_at].into_iter().flatten().min()
    }

    /// Answers what has come. A line that is gone is opened again by who starts this process anew.
    pub fn turn(&mut self, is_readable: bool, answering: Answering) -> Result<(), SysError> {
        let now = clock::now();
        if is_readable {
            if !self.frames.turn(&mut self.port, answering).map_err(|_| broken())? {
                return Err(broken());
            }
            self.silent_at = self.frames.is_waiting().then(|| now + self.silence);
        }
        if self.silent_at.take_if(|at| now >= *at).is_some() {
            self.frames.fall_silent(&mut self.port, answering).map_err(|_| broken())?;
        }
        self.port.listen_again(now)
    }
}

impl Port {
    /// Leaves the wires to others once everything is out.
    fn listen_again(&mut self, now: Instant) -> Result<(), SysError> {
        if self.sent_at.take_if(|at| now >= *at).is_none() {
            return Ok(());
        }
        if !self.serial.is_sent() {
            self.sent_at = Some(now + LAST_CHARACTER);
            return Ok(());
        }
        self.direction.as_ref().map_or(Ok(()), |direction| direction.set(false))
    }
}

impl ErrorType for Port {
    type Error = ErrorKind;
}

impl Read for Port {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, ErrorKind> {
        let count = self.serial.read(buffer)?;
        // Some transceivers hear themselves.
        if self.sent_at.is_some() && count > 0 { Err(ErrorKind::Interrupted) } else { Ok(count) }
    }
}

impl Write for Port {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, ErrorKind> {
        if let Some(direction) = &self.direction {
            direction.set(true).map_err(|_| ErrorKind::BrokenPipe)?;
            let time = Millis(bytes.len() as u64 * CHARACTER_BITS * 1000 / u64::from(self.baud));
            self.sent_at = Some(self.sent_at.unwrap_or(clock::now()) + time + LAST_CHARACTER);
        }
        self.serial.write(bytes)
    }
    fn flush(&mut self) -> Result<(), ErrorKind> {
        Ok(())
    }
}
