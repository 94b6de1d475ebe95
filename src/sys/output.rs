//! One output, as the adoption page has it: what it takes to drive it, for the supervisor, for the
//! helper that drives it where that may wait, and for the guard should there be no supervisor. Fixed
//! layout of atomics. Drives and reads back; allocates nothing, decides nothing.

use core::sync::atomic::{AtomicI32, AtomicU8, AtomicU32, AtomicU64, Ordering::SeqCst};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::OFlag;

use super::slot::{Slot, keep, kept, pack, unpack};
use super::{SysError, check, file, futex, gpio, poll, process};

use crate::limits::OUTPUT_TEXT_BYTES_MAX as TEXT_BYTES_MAX;

/// How an output is driven.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Kind {
    /// There is none.
    Free,
    /// A GPIO line whose chip never waits.
    Line,
    /// One whose chip may wait: its helper drives it.
    SlowLine,
    /// A file that a text is written into; its helper does.
    File,
    /// A command that its helper runs.
    Command,
}

/// What came of driving an output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// Nothing yet.
    None,
    /// This level was read back: true is high.
    Level(bool),
    /// What was read back is neither.
    Odd,
    /// It was written and cannot be read.
    Unread,
    /// It could not be driven: errno.
    Failed(i32),
}

impl Reading {
    fn number(self) -> u32 {
        match self {
            Reading::None => 0,
            Reading::Level(high) => 1 + u32::from(high),
            Reading::Odd => 3,
            Reading::Unread => 4,
            Reading::Failed(errno) => 5 + errno as u32,
        }
    }

    fn from_number(number: u32) -> Reading {
        match number {
            0 => Reading::None,
            1 | 2 => Reading::Level(number == 2),
            3 => Reading::Odd,
            4 => Reading::Unread,
            errno => Reading::Failed(errno as i32 - 5),
        }
    }
}

/// Levels in [`OutputSlot::levels`]; set: high.
pub mod level {
    /// `boot`
    pub const BOOT: u32 = 1;
    /// `safe`
    pub const SAFE: u32 = 2;
    /// Not a level: `active = low`.
    pub const ACTIVE_LOW: u32 = 4;
}

/// One output. Written by the supervisor unless it says otherwise.
#[repr(C)]
pub struct OutputSlot {
    /// The process that drives it, and the output's name.
    pub helper: Slot,
    kind: AtomicU32,
    /// See [`level`].
    pub levels: AtomicU32,
    /// Flags of the line's request.
    pub flags: AtomicU64,
    /// Tells one target from another.
    pub digest: AtomicU64,
    /// 1 + the table index of the program that may be driving it; 0: none.
    pub owner: AtomicU32,
    /// Milliseconds it may stay unconfirmed.
    pub limit: AtomicU32,
    /// Milliseconds an order may take.
    pub timeout: AtomicU32,
    /// What it is to have: see [`OutputSlot::want`].
    wanted: AtomicU32,
    /// Since when it is confirmed, CLOCK_MONOTONIC nanoseconds; 0: it is not.
    pub confirmed_at: AtomicU64,
    /// The line's request or the open file; the helper opens its own.
    descriptor: AtomicI32,
    /// The order for the helper: a number that counts up, then the level.
    order: AtomicU32,
    /// Written by the helper: the order, and what came of it.
    answer: AtomicU64,
    texts: [[AtomicU8; TEXT_BYTES_MAX + 1]; 2],
}

impl OutputSlot {
    /// How it is driven.
    pub fn kind(&self) -> Kind {
        let kinds = [Kind::Line, Kind::SlowLine, Kind::File, Kind::Command];
        let number = self.kind.load(SeqCst);
        kinds.into_iter().find(|kind| *kind as u32 == number).unwrap_or(Kind::Free)
    }

    /// From now on it is an output of this kind; or, last of all, none any more.
    pub fn set_kind(&self, kind: Kind) {
        self.kind.store(kind as u32, SeqCst);
    }

    /// Lets go of everything.
    pub fn clear(&self) {
        self.set_kind(Kind::Free);
        self.end_helper();
        self.helper.clear();
        self.keep(None);
        // The next one's helper owes no answer.
        self.tell(self.order.load(SeqCst), Reading::None);
        self.owner.store(0, SeqCst);
        self.wanted.store(0, SeqCst);
        self.confirmed_at.store(0, SeqCst);
    }

    /// The texts that mean low and high.
    pub fn set_texts(&self, texts: [&str; 2]) {
        for (cells, text) in self.texts.iter().zip(texts) {
            for (index, cell) in cells.iter().enumerate() {
                cell.store(text.as_bytes().get(index).copied().unwrap_or(0), SeqCst);
            }
        }
    }

    fn text(&self, high: bool) -> heapless::Vec<u8, { TEXT_BYTES_MAX + 1 }> {
        let bytes = self.texts[usize::from(high)].iter().map(|cell| cell.load(SeqCst));
        bytes.take_while(|byte| *byte != 0).collect()
    }

    /// A level of this name: true is high.
    pub fn level(&self, name: u32) -> bool {
        self.levels.load(SeqCst) & name != 0
    }

    /// What it is to have from now on: a level, and whose that is, by a number of the caller's. True: that
    /// is another than before, and not confirmed.
    pub fn want(&self, high: bool, whose: u32) -> bool {
        let word = whose << 1 | u32::from(high);
        let is_other = self.wanted.swap(word, SeqCst) != word;
        if is_other {
            self.confirmed_at.store(0, SeqCst);
        }
        is_other
    }

    /// What it is to have.
    pub fn wanted(&self) -> (bool, u32) {
        let word = self.wanted.load(SeqCst);
        (word & 1 == 1, word >> 1)
    }

    /// What drives it, where that is open.
    pub fn descriptor(&self) -> Option<i32> {
        kept(&self.descriptor)
    }

    pub(super) fn cell(&self) -> &AtomicI32 {
        &self.descriptor
    }

    /// Keeps what drives it beyond this supervisor, or lets go of it.
    pub fn keep(&self, descriptor: Option<OwnedFd>) {
        keep(&self.descriptor, descriptor);
    }

    /// Helper: like `keep`, unless there is another supervisor than at the time of opening: the guard has
    /// closed it then, or the number is another file's by now, and it is forgotten.
    pub fn keep_if(&self, descriptor: OwnedFd, is_same: impl Fn() -> bool) -> bool {
        self.keep(Some(descriptor));
        if !is_same() {
            self.descriptor.store(0, SeqCst);
        }
        is_same()
    }

    /// Drives it and reads it back. Not for commands.
    pub fn drive(&self, high: bool) -> Reading {
        let Some(number) = self.descriptor() else { return Reading::Failed(libc::EBADF) };
        let target = poll::borrow(number);
        let driven = match self.kind() {
            Kind::Line | Kind::SlowLine => {
                let flip = self.level(level::ACTIVE_LOW);
                gpio::drive(target, self.flags.load(SeqCst), high != flip)
                    .and_then(|()| gpio::value(target))
                    .map(|value| Reading::Level(value != flip))
            }
            _ => self.write(target, high),
        };
        driven.unwrap_or_else(|error| Reading::Failed(error.errno))
    }

    /// A line's level now; of others nothing is known without waiting.
    pub fn look(&self) -> Option<bool> {
        let number = self.descriptor().filter(|_| self.kind() == Kind::Line)?;
        gpio::value(poll::borrow(number)).ok().map(|value| value != self.level(level::ACTIVE_LOW))
    }

    fn write(&self, target: BorrowedFd, high: bool) -> Result<Reading, SysError> {
        let mut text = self.text(high);
        // There is a place for it.
        let _ = text.push(b'\n');
        match nix::sys::uio::pwrite(target, &text, 0) {
            // No place to go to in a FIFO or a terminal.
            Err(Errno::ESPIPE) => return file::append(target, &text).map(|()| Reading::Unread),
            other => other.map_err(SysError::of("write"))?,
        };
        match self.read(target) {
            Ok(Reading::Odd) => {
                // A longer text was there before.
                let _ = nix::unistd::ftruncate(target, text.len() as libc::off_t);
                self.read(target)
            }
            // Open for writing only.
            Err(error) if error.errno == libc::EBADF => Ok(Reading::Unread),
            other => other,
        }
    }

    fn read(&self, target: BorrowedFd) -> Result<Reading, SysError> {
        let mut buffer = [0; 2 * TEXT_BYTES_MAX];
        let length = nix::sys::uio::pread(target, &mut buffer, 0).map_err(SysError::of("read"))?;
        let found = buffer[..length].trim_ascii();
        let is = |high| self.text(high).trim_ascii() == found;
        Ok(if is(false) {
            Reading::Level(false)
        } else if is(true) {
            Reading::Level(true)
        } else {
            Reading::Odd
        })
    }

    /// Supervisor: the helper is to drive this level. Returns the order's number.
    pub fn order(&self, high: bool) -> u32 {
        let order = (self.order.load(SeqCst) | 1).wrapping_add(1) | u32::from(high);
        self.order.store(order, SeqCst);
        futex::wake(&self.order);
        order
    }

    /// Supervisor: what came of the last order, once it has an answer.
    pub fn answer(&self) -> Option<(u32, Reading)> {
        let (order, reading) = unpack(self.answer.load(SeqCst));
        (order == self.order.load(SeqCst)).then(|| (order, Reading::from_number(reading)))
    }

    /// Helper: waits in the kernel for an order that has no answer (futex(2)).
    pub fn await_order(&self) -> u32 {
        loop {
            let order = self.order.load(SeqCst);
            if order != unpack(self.answer.load(SeqCst)).0 {
                return order;
            }
            futex::wait(&self.order, order, None);
        }
    }

    /// Helper: what came of it.
    pub fn tell(&self, order: u32, reading: Reading) {
        self.answer.store(pack(order, reading.number()), SeqCst);
    }

    /// Kills the helper, and the command it runs.
    pub fn end_helper(&self) {
        if self.helper.is_alive() {
            let pid = self.helper.spawned() as i32;
            process::kill_if_there(-pid, libc::SIGKILL);
            process::kill_if_there(pid, libc::SIGKILL);
        }
    }
}

/// Opens a file to write a level to, and to read it back where that can be.
pub fn open_file(path: &str) -> Result<OwnedFd, SysError> {
    // Not to wait for a FIFO's reader.
    let flags = OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let both = file::open_path(Path::new(path), OFlag::O_RDWR | flags, 0);
    both.or_else(|_| file::open_path(Path::new(path), OFlag::O_WRONLY | flags, 0))
}

/// Runs a command and waits for it; a success is all that is known.
pub fn run(command: &[String]) -> Reading {
    let own = std::process::id();
    match process::fork() {
        Ok(None) => {
            if process::die_with(own) {
                super::machine::become_program(command);
            }
            process::end(127)
        }
        Ok(Some(pid)) => {
            let mut status = 0;
            // SAFETY: a child of ours, and an integer that lives across the call.
            let waited = check("waitpid", unsafe { libc::waitpid(pid as i32, &mut status, 0) });
            if waited.is_ok() && status == 0 { Reading::Unread } else { Reading::Failed(libc::EIO) }
        }
        Err(error) => Reading::Failed(error.errno),
    }
}

/// The process that was made for those that may wait, by this one.
static SLOW: AtomicU32 = AtomicU32::new(0);

/// Forces every output of the page that can be reached from here to its safe level: those that never wait
/// at once, the others in a process of its own that may hang in our place. What is driven by a
/// command is out of reach.
pub fn force_all_safe(slots: &[OutputSlot]) {
    let drive = |wanted: fn(Kind) -> bool| {
        for slot in slots.iter().filter(|slot| wanted(slot.kind())) {
            slot.drive(slot.level(level::SAFE));
        }
    };
    drive(|kind| kind == Kind::Line);
    let slow = |kind| matches!(kind, Kind::SlowLine | Kind::File);
    // One at a time, should it hang.
    let former = SLOW.load(SeqCst);
    if !slots.iter().any(|slot| slow(slot.kind())) || former != 0 && process::kill(former as i32, 0).is_ok() {
        return;
    }
    match process::fork() {
        Ok(None) => {
            drive(slow);
            process::end(0);
        }
        Ok(Some(pid)) => SLOW.store(pid, SeqCst),
        // No process to be had: rather late than never.
        Err(_) => drive(slow),
    }
}
