//! Hardware watchdogs (linux/watchdog.h; Documentation/watchdog/watchdog-api in the kernel's sources), and
//! what the adoption page keeps of each. Opening one arms it: only who will feed it may do that.

use core::sync::atomic::{AtomicI32, AtomicU32, AtomicU64, Ordering::SeqCst};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::fcntl::OFlag;

use super::slot::{keep, kept};
use super::{SysError, check, file, gpio, poll};

/// The last reset was this watchdog's (boot status), and other flags of `watchdog_info`.
pub mod flag {
    /// The machine was too hot.
    pub const OVERHEAT: u32 = 0x1;
    /// The supply voltage was too low.
    pub const POWER_UNDER: u32 = 0x10;
    /// The watchdog reset the machine.
    pub const CARD_RESET: u32 = 0x20;
    /// Only a close after the letter V disarms it; without this flag every close does.
    pub const MAGIC_CLOSE: u32 = 0x100;
}

/// A number that a watchdog can be asked for; the request's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Number {
    /// Why the machine was reset: see [`flag`].
    BootStatus = 2,
    /// Seconds without a feed until it resets the machine.
    Timeout = 7,
    /// Seconds before that at which it warns; 0: it does not.
    Pretimeout = 9,
    /// Seconds left.
    TimeLeft = 10,
}

const READ: u32 = 2;
const READ_WRITE: u32 = 3;
const KEEP_ALIVE: u32 = 5;
const SET_TIMEOUT: u32 = 6;
const SET_PRETIMEOUT: u32 = 8;

/// `struct watchdog_info`: flags, the firmware's version, a name.
type Info = [u32; 10];

/// One request with a value that is given, or filled in, or both.
fn request<T>(device: BorrowedFd, direction: u32, number: u32, value: &mut T) -> Result<(), SysError> {
    // As _IOC() of asm-generic/ioctl.h, which every architecture we ship for has.
    let request = direction << 30 | (size_of::<T>() as u32) << 16 | u32::from(b'W') << 8 | number;
    // SAFETY: the size of what the kernel reads or writes is part of the request, and is that of `value`.
    let result = unsafe { libc::ioctl(device.as_raw_fd(), request as _, core::ptr::from_mut(value)) };
    check("ioctl", result).map(drop)
}

/// Opens a watchdog, which arms it. EBUSY: another has it.
pub fn open(path: &str) -> Result<OwnedFd, SysError> {
    // Not to wait for a FIFO's reader, should it be one.
    let flags_of_open = OFlag::O_WRONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let device = file::open_path(Path::new(path), flags_of_open, 0)?;
    // What is no watchdog is let go of before anything is written to it.
    flags(std::os::fd::AsFd::as_fd(&device))
        .map_err(|error| SysError { operation: "not a watchdog", ..error })?;
    Ok(device)
}

/// What it can do (WDIOC_GETSUPPORT): see [`flag`].
pub fn flags(device: BorrowedFd) -> Result<u32, SysError> {
    let mut info: Info = [0; 10];
    request(device, READ, 0, &mut info)?;
    Ok(info[0])
}

/// One of its numbers; `None`: the driver does not say.
pub fn number(device: BorrowedFd, which: Number) -> Option<u32> {
    let mut value: libc::c_int = 0;
    request(device, READ, which as u32, &mut value).ok()?;
    Some(value as u32)
}

/// Feeds it (WDIOC_KEEPALIVE): the only way it is fed.
pub fn feed(device: BorrowedFd) -> Result<(), SysError> {
    request(device, READ, KEEP_ALIVE, &mut (0 as libc::c_int))
}

/// Asks for a timeout in seconds, and gets the nearest that the driver takes: the one it had, where it
/// takes none. `None`: it does not say which.
pub fn set_timeout(device: BorrowedFd, seconds: u32) -> Option<u32> {
    let set = |seconds: u32| request(device, READ_WRITE, SET_TIMEOUT, &mut (seconds as libc::c_int));
    let wanted = seconds.min(i32::MAX as u32);
    let refused = set(wanted).err().is_some_and(|error| error.errno == libc::EINVAL);
    if let Some(before) = number(device, Number::Timeout).filter(|_| refused) {
        // The last one tried was not always taken.
        let _ = set(nearest(before, wanted, |seconds| set(seconds).is_ok()));
    }
    number(device, Number::Timeout)
}

/// The nearest to what is refused that is taken, where this one is taken, and all that are taken are one range.
fn nearest(mut taken: u32, mut refused: u32, takes: impl Fn(u32) -> bool) -> u32 {
    while taken.abs_diff(refused) > 1 {
        let middle = taken.midpoint(refused);
        *(if takes(middle) { &mut taken } else { &mut refused }) = middle;
    }
    taken
}

/// Asks for a warning so many seconds before the end; what came of it, 0: none.
pub fn set_pretimeout(device: BorrowedFd, seconds: u32) -> u32 {
    // Refused, or not known: then what is read back says so.
    let _ = request(device, READ_WRITE, SET_PRETIMEOUT, &mut (seconds as libc::c_int));
    number(device, Number::Pretimeout).unwrap_or(0)
}

/// What the page keeps of one watchdog, for successors of the supervisor and for the guard, who disarms it.
#[repr(C)]
pub struct WatchdogSlot {
    /// What it is, as the daemon has it: another one has another number. 0: free.
    pub identity: AtomicU64,
    /// CLOCK_MONOTONIC nanoseconds of the last feed; 0: never fed.
    pub fed_at: AtomicU64,
    /// It is a line that is pulsed, with or without one that enables it; else a device.
    pub is_lines: AtomicU32,
    /// Its driver never stops it (`nowayout`): whoever lets go of it has the machine reset.
    pub is_for_ever: AtomicU32,
    /// The device, or the line that is pulsed; the line that enables it.
    kept: [AtomicI32; 2],
}

impl WatchdogSlot {
    /// Where its descriptors are kept.
    pub(super) fn cells(&self) -> &[AtomicI32] {
        &self.kept
    }

    /// The device, or the line that is pulsed; the line that enables it.
    pub fn descriptors(&self) -> [Option<i32>; 2] {
        self.kept.each_ref().map(kept)
    }

    /// Keeps what was opened beyond the life of this supervisor.
    pub fn keep(&self, first: OwnedFd, enable: Option<OwnedFd>) {
        keep(&self.kept[1], enable);
        keep(&self.kept[0], Some(first));
    }

    /// Disarms it: by the letter and the close, or by the line that enables it.
    pub fn disarm(&self) {
        // What cannot be told to stop is not fed any more, and resets the machine.
        match (self.is_lines.load(SeqCst) == 0, self.descriptors()) {
            (true, [Some(device), _]) => drop(file::append(poll::borrow(device), b"V")),
            (false, lines) => lines.into_iter().flatten().for_each(|line| {
                // A line that cannot be driven is let go of, like the others.
                let _ = gpio::drive(poll::borrow(line), gpio::flag::OUTPUT, false);
            }),
            _ => {}
        }
        for cell in &self.kept {
            keep(cell, None);
        }
        self.identity.store(0, SeqCst);
        self.is_for_ever.store(0, SeqCst);
        self.fed_at.store(0, SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn what_is_no_watchdog_is_let_go_of() {
        let path = std::env::temp_dir().join(format!("multusd-watchdog-{}", std::process::id()));
        std::fs::write(&path, "").unwrap();
        assert_eq!(open(path.to_str().unwrap()).map(drop).map_err(|error| error.errno), Err(libc::ENOTTY));
        let file = file::null().unwrap();
        assert_eq!(set_timeout(file.as_fd(), 10), None);
        assert_eq!(number(file.as_fd(), Number::BootStatus), None);
        std::fs::remove_file(&path).unwrap();
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert_eq!(open(path.to_str().unwrap()).map(drop).map_err(|error| error.errno), Err(libc::ENXIO));
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn the_nearest_that_is_taken_is_found_from_above_and_from_below() {
        for (before, wanted) in [(60, 7200), (16, 7200), (60, i32::MAX as u32), (15, 1), (16, 0), (60, 61)] {
            let found = nearest(before, wanted, |seconds| (15..=60).contains(&seconds));
            assert_eq!(found, if wanted > 60 { 60 } else { 15 }, "from {before} to {wanted}");
        }
    }

    #[test]
    fn a_disarmed_device_got_its_letter_and_is_closed() {
        let slot = WatchdogSlot {
            identity: AtomicU64::new(1),
            fed_at: AtomicU64::new(2),
            is_lines: AtomicU32::new(0),
            is_for_ever: AtomicU32::new(0),
            kept: [const { AtomicI32::new(0) }; 2],
        };
        let (read, write) = file::pipe(true).unwrap();
        slot.keep(write, None);
        slot.disarm();
        let mut bytes = [0; 4];
        assert_eq!(nix::unistd::read(&read, &mut bytes), Ok(1));
        assert_eq!((bytes[0], slot.descriptors(), slot.identity.load(SeqCst)), (b'V', [None, None], 0));
        assert_eq!(nix::unistd::read(&read, &mut bytes), Ok(0), "closed");
    }
}
