//! One slot of the adoption page: one process that may exist, and what is known of it. Fixed layout
//! of atomics; no pointer, no lock. Who writes what is part of the layout: see each field.

use core::sync::atomic::{AtomicI32, AtomicU8, AtomicU32, AtomicU64, Ordering::SeqCst};
use std::os::fd::{FromRawFd, OwnedFd};

use crate::limits::NAME_BYTES_MAX;

/// Words a child's saved decision state may take (`supervisor::Saved`), and one for its checksum.
pub const SAVED_WORDS_MAX: usize = 16;

/// Descriptors kept per program.
pub const KEPT_PER_PROGRAM: usize = 10;

/// Descriptors kept for one program; index into [`Slot::kept`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum KeepForProgram {
    /// Standard output, the end that `log` reads.
    OutRead,
    /// Standard output, the end the program gets; kept so that a dead `log` loses nothing.
    OutWrite,
    /// Standard error, both ends likewise.
    ErrRead,
    /// See above.
    ErrWrite,
    /// Its NOTIFY_SOCKET.
    Notify,
    /// Read end of the present incarnation's readiness pipe.
    Ready,
    /// What its present incarnation beats by: a pipe's read end, a page, a queue of changes, a listening port.
    Beat,
    /// The connection to that port which counts.
    BeatLink,
    /// One of which it is not known yet whose it is.
    BeatNew,
    /// What its checks print, in memory.
    CheckText,
}

/// A token's low half while the process it stands for has not begun to run.
const PENDING: u32 = 0;
/// A token's low half when that process may not begin any more.
const REVOKED: u32 = u32::MAX;

/// One process that may exist: a program's main process, its hook, or a job.
#[repr(C)]
pub struct Slot {
    /// Serial number of the spawn (high half) and process id (low half). The supervisor writes
    /// (serial, pending) before the clone; the process itself claims it before anything else it
    /// does; a successor that finds it pending revokes it, and a process that comes too late
    /// ends. So there is no moment at which a kill of the supervisor makes a second process. The
    /// serial is never used twice, whereas a generation may be tried again.
    token: AtomicU64,
    /// The generation that the supervisor spawned it for; for hooks, of the program.
    generation: AtomicU32,
    /// Written by the guard before it reaps: serial, then how the process ended.
    exit: AtomicU64,
    /// The main process where it is not the one spawned (forking daemons); 0: none.
    main: AtomicU32,
    /// What the process is for: the supervisor's note to its successor (a hook's kind, …).
    pub purpose: AtomicU32,
    /// Written by the process when its program could not be started: serial, stage, errno.
    failure: AtomicU64,
    /// An answer of a job: written by the job.
    pub answer: AtomicU64,
    /// CLOCK_MONOTONIC nanoseconds of the spawn.
    pub spawned_at: AtomicU64,
    /// CLOCK_BOOTTIME nanoseconds just before the clone, and as the process first read it: its
    /// start time in /proc lies between. Identifies the process to a later life of multusd.
    pub born_after: AtomicU64,
    /// See above.
    pub born_before: AtomicU64,
    /// Programs: digest of everything that went into the running process.
    pub digest: AtomicU64,
    /// Programs: flags for the successor, see `daemon`.
    pub flags: AtomicU32,
    /// Programs: 1 or 2 says which of `saved` is whole; 0: none.
    saved_side: AtomicU32,
    pub(super) saved: [[AtomicU64; SAVED_WORDS_MAX]; 2],
    pub(super) kept: [AtomicI32; KEPT_PER_PROGRAM],
    name: [AtomicU8; NAME_BYTES_MAX + 1],
}

/// How a process ended, in the guard's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExitRecord {
    /// Ended by a signal (else by exit).
    pub signalled: bool,
    /// Exit code or signal number.
    pub value: u8,
    /// How it ended is not known.
    pub unknown: bool,
}

pub(super) const EXIT_KNOWN: u32 = 1 << 16;
pub(super) const EXIT_SIGNALLED: u32 = 1 << 17;
const EXIT_LOST: u32 = 1 << 18;

pub(super) fn pack(high: u32, low: u32) -> u64 {
    u64::from(high) << 32 | u64::from(low)
}

pub(super) fn unpack(word: u64) -> (u32, u32) {
    ((word >> 32) as u32, word as u32)
}

impl Slot {
    /// Supervisor, before the clone: a process may begin, for this generation. Returns the serial
    /// by which it claims the slot.
    pub fn announce(&self, generation: u32) -> u32 {
        let serial = unpack(self.token.load(SeqCst)).0.wrapping_add(1).max(1);
        self.main.store(0, SeqCst);
        self.failure.store(0, SeqCst);
        self.answer.store(0, SeqCst);
        // From here on the slot holds no process, then the generation is another, then the
        // process may begin.
        self.token.store(pack(serial, REVOKED), SeqCst);
        self.generation.store(generation, SeqCst);
        self.token.store(pack(serial, PENDING), SeqCst);
        serial
    }

    /// The new process, first of all, or its maker on its behalf, whoever is first: false means
    /// that it must end at once.
    pub fn claim(&self, serial: u32, pid: u32) -> bool {
        let claimed = pack(serial, pid);
        match self.token.compare_exchange(pack(serial, PENDING), claimed, SeqCst, SeqCst) {
            Ok(_) => true,
            Err(word) => word == claimed,
        }
    }

    /// Supervisor, before it writes down what the next process is for: what the last one was, and
    /// how it ended, must not be taken for that.
    pub fn forget(&self) {
        let (serial, _) = unpack(self.token.load(SeqCst));
        self.token.store(pack(serial, if serial == 0 { PENDING } else { REVOKED }), SeqCst);
        self.exit.store(0, SeqCst);
    }

    /// The process was killed before it ran an instruction of ours.
    pub fn never_ran(&self) -> bool {
        self.born_before.load(SeqCst) == u64::MAX
    }

    /// A successor: whatever has not begun by now never will.
    pub fn settle(&self) {
        let (serial, low) = unpack(self.token.load(SeqCst));
        if low == PENDING && serial != 0 {
            // Lost only to the process itself, and then it has begun.
            let _ = self.token.compare_exchange(pack(serial, PENDING), pack(serial, REVOKED), SeqCst, SeqCst);
        }
    }

    /// The generation spawned last.
    pub fn generation(&self) -> u32 {
        self.generation.load(SeqCst)
    }

    /// The process spawned last: serial and process id; 0: it has not begun.
    pub(super) fn process(&self) -> (u32, u32) {
        let (serial, pid) = unpack(self.token.load(SeqCst));
        (serial, if pid == REVOKED { 0 } else { pid })
    }

    /// The process spawned last has begun (and may have ended).
    pub fn has_begun(&self) -> bool {
        self.process().1 != 0
    }

    /// The process spawned last; 0: it has not begun. Also its session and process group.
    pub fn spawned(&self) -> u32 {
        self.process().1
    }

    /// The main process: the one spawned, or the daemon that it left.
    pub fn main(&self) -> u32 {
        match self.main.load(SeqCst) {
            0 => self.process().1,
            pid => pid,
        }
    }

    /// The main process is this one from now on; the exit of the one spawned is forgotten.
    pub fn set_main(&self, pid: u32) {
        self.exit.store(0, SeqCst);
        self.main.store(pid, SeqCst);
    }

    pub(super) fn is(&self, pid: u32) -> bool {
        self.main() == pid
    }

    pub(super) fn record_exit(&self, signalled: bool, value: u8) {
        let bits = EXIT_KNOWN | if signalled { EXIT_SIGNALLED } else { 0 } | u32::from(value);
        self.exit.store(pack(self.process().0, bits), SeqCst);
    }

    /// The supervisor found the process gone without the guard having seen how it ended.
    pub fn record_lost(&self) {
        self.exit.store(pack(self.process().0, EXIT_KNOWN | EXIT_LOST), SeqCst);
    }

    /// How the main process ended, if it has.
    pub fn exit(&self) -> Option<ExitRecord> {
        let (serial, bits) = unpack(self.exit.load(SeqCst));
        (bits & EXIT_KNOWN != 0 && serial == self.process().0).then_some(ExitRecord {
            signalled: bits & EXIT_SIGNALLED != 0,
            value: bits as u8,
            unknown: bits & EXIT_LOST != 0,
        })
    }

    /// The main process exists, as far as is known.
    pub fn is_alive(&self) -> bool {
        self.process().1 != 0 && self.exit().is_none()
    }

    /// The new process: its program could not be started, at this stage, for this reason.
    pub fn record_failure(&self, generation: u32, stage: u8, errno: i32) {
        self.failure
            .store(pack(generation, 1 << 24 | u32::from(stage) << 16 | errno as u32 & 0xffff), SeqCst);
    }

    /// Why the program could not be started: stage and errno.
    pub fn failure(&self) -> Option<(u8, i32)> {
        let (serial, word) = unpack(self.failure.load(SeqCst));
        (word != 0 && serial == self.process().0).then_some(((word >> 16) as u8, (word & 0xffff) as i32))
    }

    /// Stores the decision state: into the side that is not valid, then flips.
    pub fn save(&self, words: &[u64]) {
        let side = if self.saved_side.load(SeqCst) == 1 { 1 } else { 0 };
        for (cell, word) in self.saved[side].iter().zip(words) {
            cell.store(*word, SeqCst);
        }
        self.saved_side.store(side as u32 + 1, SeqCst);
    }

    /// The decision state stored last.
    pub fn saved(&self, words: &mut [u64]) -> bool {
        let Some(side) = (self.saved_side.load(SeqCst) as usize).checked_sub(1).filter(|side| *side < 2)
        else {
            return false;
        };
        for (word, cell) in words.iter_mut().zip(&self.saved[side]) {
            *word = cell.load(SeqCst);
        }
        true
    }

    /// Closes everything that is kept for it.
    pub fn keep_nothing(&self) {
        self.kept.iter().for_each(|cell| keep(cell, None));
    }

    /// Empties the slot for its next user.
    pub fn clear(&self) {
        self.saved_side.store(0, SeqCst);
        self.name[0].store(0, SeqCst);
        let serial = unpack(self.token.load(SeqCst)).0;
        self.token.store(pack(serial, if serial == 0 { 0 } else { REVOKED }), SeqCst);
        self.generation.store(0, SeqCst);
        self.exit.store(0, SeqCst);
        self.flags.store(0, SeqCst);
        self.digest.store(0, SeqCst);
        self.main.store(0, SeqCst);
    }

    /// Names the slot.
    pub fn set_name(&self, name: &str) {
        let bytes = name.as_bytes();
        for (index, cell) in self.name.iter().enumerate() {
            cell.store(bytes.get(index).copied().unwrap_or(0), SeqCst);
        }
    }

    /// The slot's name; empty: it is free.
    pub fn name(&self) -> heapless::String<NAME_BYTES_MAX> {
        let mut bytes = heapless::Vec::<u8, NAME_BYTES_MAX>::new();
        for cell in &self.name {
            match cell.load(SeqCst) {
                0 => break,
                byte => drop(bytes.push(byte)),
            }
        }
        heapless::String::from_utf8(bytes).unwrap_or_default()
    }

    /// The number under which a descriptor is kept.
    pub fn kept(&self, which: KeepForProgram) -> Option<i32> {
        kept(&self.kept[which as usize])
    }

    /// Keeps a descriptor beyond the life of this supervisor, or (`None`) closes it now.
    pub fn keep(&self, which: KeepForProgram, descriptor: Option<OwnedFd>) {
        keep(&self.kept[which as usize], descriptor);
    }
}

// Cells hold the descriptor's number plus one, so that fresh (zeroed) memory means none.
pub(super) fn kept(cell: &AtomicI32) -> Option<i32> {
    Some(cell.load(SeqCst) - 1).filter(|number| *number >= 0)
}

pub(super) fn keep(cell: &AtomicI32, descriptor: Option<OwnedFd>) {
    use std::os::fd::IntoRawFd;
    let before = cell.swap(descriptor.map_or(0, |fd| fd.into_raw_fd() + 1), SeqCst) - 1;
    if before >= 0 {
        // SAFETY: a number in a cell is owned by that cell alone, and it has just left it.
        drop(unsafe { OwnedFd::from_raw_fd(before) });
    }
}
