//! The adoption page: what a supervisor must leave to its successor, in memory that the guard
//! keeps. A fixed layout of atomics in a sealed memory file (memfd_create(2)), shared by guard,
//! supervisor and, until its exec, every child. Never holds pointers, never grows, never shrinks.
//!
//! Who writes what is part of the layout: see each field. A kill at any instruction leaves each
//! word either old or new, and words that belong together carry the generation they belong to.

use core::sync::atomic::{AtomicI32, AtomicU32, AtomicU64, Ordering::SeqCst};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use super::SysError;
use super::input::InputSlot;
use super::output::{Kind, OutputSlot};
use super::slot::{EXIT_KNOWN, EXIT_SIGNALLED, keep, kept, pack, unpack};
use super::watchdog::WatchdogSlot;
use crate::limits::{CHILD_COUNT_MAX, INPUT_COUNT_MAX, OUTPUT_COUNT_MAX, WATCHDOG_COUNT_MAX};
use crate::time::Millis;

pub use super::slot::{ExitRecord, KEPT_PER_PROGRAM, KeepForProgram, SAVED_WORDS_MAX, Slot};

/// Jobs of the daemon's own that run beside the programs' (see `daemon::jobs`).
pub const OWN_JOB_COUNT: usize = 8;

/// All slots: programs, their hooks (one each), own jobs.
pub const SLOT_COUNT: usize = 2 * CHILD_COUNT_MAX + OWN_JOB_COUNT;

/// "multusd" and a zero byte.
const MAGIC: u64 = u64::from_le_bytes(*b"multusd\0");
/// Raised when anything changes of what a supervisor finds here or behind kept descriptors: another version that is to go on with it
/// must know all of it (see `daemon::renew`).
const VERSION: u32 = 1;

/// Descriptors the daemon keeps that belong to no program; index into [`Page::kept`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Keep {
    /// The lock on the run directory.
    Lock,
    /// eventfd by which the guard wakes the supervisor.
    Wake,
    /// The control socket.
    Control,
    /// The configuration in force, a memory file.
    Config,
    /// The configuration before it, while the new one is on probation.
    ConfigBefore,
    /// The configuration a reload is preparing.
    ConfigNext,
    /// /dev/null
    Null,
    /// The inputs' levels, a memory file; the same open for reading only, for programs.
    Inputs,
    /// See above.
    InputsRead,
    /// The log ring, twice: the collector's, and the supervisor's with an offset of its own.
    LogRing,
    /// See above.
    LogAgain,
    /// The set of all pipes that programs write into (epoll(7)).
    LogPoll,
    /// What `log` is told at its start, a memory file.
    LogSettings,
    /// What is known of the last boots, a memory file: see `daemon::boots`.
    Boots,
    /// Values that programs publish, a memory file; the same open for reading only, for bundled children.
    Values,
    /// See above.
    ValuesRead,
    /// eventfd by which bundled children hear that something was published.
    Changes,
    /// What was kept of the inputs' edges, a memory file: see `daemon::counts`.
    Counts,
    /// This page.
    Page,
    /// The socket of whoever started multusd and wants to hear of it.
    Starter,
    /// The executable that guard and supervisor are to become, a memory file: see `daemon::renew`.
    Image,
    /// Number of the above.
    Count,
}

/// What the guard is asked for by signal; bits of [`Page::requests`].
pub mod request {
    /// SIGTERM, SIGINT
    pub const STOP: u32 = 1;
    /// SIGHUP
    pub const RELOAD: u32 = 2;
    /// SIGUSR1
    pub const DUMP: u32 = 4;
    /// SIGUSR2
    pub const RENEW: u32 = 8;
}

/// In [`Page::hardening`], above the priority.
const LOCKED: u32 = 1 << 8;

/// The page itself.
#[repr(C)]
pub struct Page {
    magic: u64,
    version: u32,
    length: u32,
    /// Identifies this life of multusd: in every child's environment, and in the run directory.
    pub life: AtomicU64,
    /// CLOCK_MONOTONIC nanoseconds when the guard started.
    pub started_at: AtomicU64,
    /// The guard's process id.
    pub guard: AtomicU32,
    /// The supervisor's process id; 0: between two.
    pub supervisor: AtomicU32,
    /// Supervisors that were replaced.
    pub supervisor_restarts: AtomicU32,
    /// See [`request`]; set by the guard, taken by the supervisor.
    pub requests: AtomicU32,
    /// Exits written by the guard.
    pub exits_written: AtomicU32,
    /// Exits the supervisor has looked at.
    pub exits_seen: AtomicU32,
    /// 1 + exit code, when the supervisor ends because everything is done.
    pub finished: AtomicU32,
    /// What follows the end: see `daemon::shutdown`.
    pub shutdown: AtomicU32,
    /// When it is due, CLOCK_MONOTONIC nanoseconds.
    pub shutdown_at: AtomicU64,
    /// Until when the configuration is on probation, CLOCK_MONOTONIC nanoseconds; 0: it is not.
    pub probation_until: AtomicU64,
    /// An ordered stop of everything is under way.
    pub stopping: AtomicU32,
    /// Milliseconds between two beats of the supervisor, and between two echoes of the guard. Set by the
    /// supervisor; 0: nothing is watched, and both are silent.
    pub pace: AtomicU32,
    /// See [`Page::harden`].
    hardening: AtomicU32,
    /// The guard disarms the watchdogs when it leaves: everything was done, as ordered.
    pub disarm: AtomicU32,
    /// CLOCK_MONOTONIC nanoseconds of the supervisor's last wake-up.
    pub beat: AtomicU64,
    /// The same of the guard's last echo.
    pub echo: AtomicU64,
    /// Watchdogs: opened by the supervisor, disarmed by whoever has the last word.
    pub watchdogs: [WatchdogSlot; WATCHDOG_COUNT_MAX],
    /// The last reading, written by its reader: see `daemon::temperature`.
    pub temperature: AtomicU64,
    /// CLOCK_MONOTONIC nanoseconds of that.
    pub temperature_at: AtomicU64,
    /// The gate, as the supervisor judged it last; see there.
    pub gate: AtomicU32,
    /// Why the executable is not in memory (an errno); 0: it is.
    pub image: AtomicI32,
    /// Whoever started multusd expects to hear of it so often, milliseconds (systemd's WatchdogSec); 0: it does not.
    pub expected_ms: AtomicU32,
    /// A supervisor has begun, and knows every program.
    pub is_up: AtomicU32,
    /// What is new on storage is being taken over, executable and configuration: whoever started multusd hears `READY=1` after that.
    /// Set by the guard at SIGUSR2; taken back by the supervisor, or by the guard when one dies over it.
    pub taking_over: AtomicU32,
    /// When this supervisor has ended, the guard becomes `Keep::Image`.
    pub renew: AtomicU32,
    /// Why it could not (an errno); 0: it could, or was never asked to.
    pub not_renewed: AtomicI32,
    /// The number of the next event, for a successor; 0: there was none.
    pub events: AtomicU64,
    /// Slots of programs that were ever in use: the guard looks no further.
    pub program_slots: AtomicU32,
    /// Process ids whose exit belonged to no slot (orphans), newest overwriting oldest.
    strangers: [AtomicU64; 32],
    stranger_next: AtomicU32,
    kept: [AtomicI32; Keep::Count as usize],
    slots: [Slot; SLOT_COUNT],
    /// Output slots that were ever in use.
    pub output_slots: AtomicU32,
    outputs: [OutputSlot; OUTPUT_COUNT_MAX],
    /// Inputs, in the configuration's order.
    pub inputs: [InputSlot; INPUT_COUNT_MAX],
}

/// All descriptors that may be kept.
const KEPT_COUNT_MAX: usize = KEPT_PER_PROGRAM * CHILD_COUNT_MAX
    + OUTPUT_COUNT_MAX
    + INPUT_COUNT_MAX
    + 2 * WATCHDOG_COUNT_MAX
    + Keep::Count as usize;

const _: () = assert!(core::mem::size_of::<Page>() < 512 * 1024, "the page is memory that is always ours");

impl Page {
    /// Makes the page: memory file, sealed, mapped for as long as this process lives.
    pub fn create() -> Result<&'static Page, SysError> {
        let length = core::mem::size_of::<Page>();
        let file = super::file::sealed_memory(c"multusd-adoption", length as u32)?;
        let page = Page::map(&file)?;
        // SAFETY: zeroed (a valid Page: integers and atomics); the three plain fields are written here, before any other
        // reference exists, and never again.
        let page = unsafe {
            (*page).magic = MAGIC;
            (*page).version = VERSION;
            (*page).length = length as u32;
            &*page
        };
        page.keep(Keep::Page, Some(file));
        Ok(page)
    }

    /// The page that another guard has made, behind a descriptor that it has left. `None`: it is none, or of another version.
    pub fn adopt(number: RawFd) -> Option<&'static Page> {
        // SAFETY: a number that is not open is an error of fstat.
        let file = unsafe { BorrowedFd::borrow_raw(number) };
        let length = nix::sys::stat::fstat(file).ok()?.st_size;
        if length != core::mem::size_of::<Page>() as libc::off_t {
            return None;
        }
        // SAFETY: as long as a Page, whose every bit pattern is valid; nobody writes the plain fields any more.
        let page = unsafe { &*Page::map(&file).ok()? };
        page.is_sound().then_some(page)
    }

    /// Says of whoever is to adopt a page of ours what it must know.
    pub fn layout() -> String {
        [VERSION as usize, core::mem::size_of::<Page>(), OWN_JOB_COUNT]
            .map(|number| number.to_string())
            .join("-")
    }

    fn map(file: &impl AsRawFd) -> Result<*mut Page, SysError> {
        // SAFETY: a new shared mapping of our own file, nobody's memory is replaced.
        let address = unsafe {
            libc::mmap(
                core::ptr::null_mut(),
                core::mem::size_of::<Page>(),
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                file.as_raw_fd(),
                0,
            )
        };
        if address == libc::MAP_FAILED {
            return Err(SysError::last("mmap"));
        }
        // As long as Page, page-aligned, never unmapped; the seals keep its file from shrinking.
        Ok(address.cast())
    }

    /// The layout is the one this binary knows.
    pub fn is_sound(&self) -> bool {
        self.magic == MAGIC && self.version == VERSION && self.length as usize == core::mem::size_of::<Page>()
    }

    /// So often whoever started multusd expects to hear of it.
    pub fn expected(&self) -> Option<Millis> {
        Some(Millis(self.expected_ms.load(SeqCst).into())).filter(|time| *time > Millis::ZERO)
    }

    /// How guard and supervisor are to be kept from waiting: memory locked, and a real-time priority or 0.
    pub fn hardening(&self) -> (bool, u8) {
        let word = self.hardening.load(SeqCst);
        (word & LOCKED != 0, word as u8)
    }

    /// Says so; the guard looks when it is woken.
    pub fn harden(&self, (locked, priority): (bool, u8)) {
        self.hardening.store(if locked { LOCKED } else { 0 } | u32::from(priority), SeqCst);
    }

    /// A program's slot.
    pub fn program(&self, index: usize) -> &Slot {
        &self.slots[index]
    }

    /// The slot of a program's hook.
    pub fn hook(&self, index: usize) -> &Slot {
        &self.slots[CHILD_COUNT_MAX + index]
    }

    /// The slot of a job of our own.
    pub fn job(&self, index: usize) -> &Slot {
        &self.slots[2 * CHILD_COUNT_MAX + index]
    }

    /// Slots that may hold a process.
    pub fn slots_in_use(&self) -> impl Iterator<Item = &Slot> {
        let used = (self.program_slots.load(SeqCst) as usize).min(CHILD_COUNT_MAX);
        let hooks = &self.slots[CHILD_COUNT_MAX..CHILD_COUNT_MAX + used];
        let helpers = self.outputs().iter().map(|output| &output.helper);
        self.slots[..used].iter().chain(hooks).chain(&self.slots[2 * CHILD_COUNT_MAX..]).chain(helpers)
    }

    /// Outputs, as far as they were ever in use.
    pub fn outputs(&self) -> &[OutputSlot] {
        &self.outputs[..(self.output_slots.load(SeqCst) as usize).min(OUTPUT_COUNT_MAX)]
    }

    /// A place for one more output.
    pub fn free_output(&self) -> Option<usize> {
        let free = self.outputs.iter().position(|output| output.kind() == Kind::Free)?;
        self.output_slots.fetch_max(free as u32 + 1, SeqCst);
        Some(free)
    }

    /// Guard, before it reaps: this process ended so. False: it belongs to nobody here.
    pub fn record_exit(&self, pid: u32, signalled: bool, value: u8) -> bool {
        if self.record_in_slot(pid, signalled, value) {
            return true;
        }
        let known = self.strangers.iter().position(|cell| unpack(cell.load(SeqCst)).0 == pid);
        let next = known.unwrap_or_else(|| self.stranger_next.fetch_add(1, SeqCst) as usize);
        let bits = EXIT_KNOWN | if signalled { EXIT_SIGNALLED } else { 0 } | u32::from(value);
        self.strangers[next % self.strangers.len()].store(pack(pid, bits), SeqCst);
        // Whoever made it somebody's in the meantime has seen the stranger, or is seen here.
        self.record_in_slot(pid, signalled, value)
    }

    fn record_in_slot(&self, pid: u32, signalled: bool, value: u8) -> bool {
        // Numbers are used again: a slot whose process has ended is not meant.
        let Some(slot) = self.slots_in_use().find(|slot| slot.is(pid) && slot.is_alive()) else {
            return false;
        };
        slot.record_exit(signalled, value);
        self.exits_written.fetch_add(1, SeqCst);
        true
    }

    /// A process that has ended became a slot's, maybe after the guard recorded its exit: if so
    /// the exit is moved to the slot. Call after [`Slot::set_main`] or [`Slot::claim`].
    pub fn claim_stranger(&self, slot: &Slot) {
        let pid = slot.main();
        for cell in &self.strangers {
            let (stranger, bits) = unpack(cell.load(SeqCst));
            if stranger == pid && slot.exit().is_none() {
                slot.record_exit(bits & EXIT_SIGNALLED != 0, bits as u8);
                // Said once: the number may come again.
                cell.store(0, SeqCst);
            }
        }
    }

    /// The number under which a descriptor is kept.
    pub fn kept(&self, which: Keep) -> Option<i32> {
        kept(&self.kept[which as usize])
    }

    /// Keeps a descriptor beyond the life of this supervisor, or (`None`) closes it now.
    pub fn keep(&self, which: Keep, descriptor: Option<OwnedFd>) {
        keep(&self.kept[which as usize], descriptor);
    }

    /// Moves a kept descriptor to another place; what was there is closed. At every moment it is in
    /// one of the two, or in both: see [`Page::settle_kept`].
    pub fn keep_as(&self, from: Keep, to: Keep) {
        let cell = &self.kept[from as usize];
        let number = cell.load(SeqCst);
        let before = self.kept[to as usize].swap(number, SeqCst);
        cell.store(0, SeqCst);
        if before > 0 && before != number {
            // SAFETY: a number in a cell is owned by that cell alone, and it has just left it.
            drop(unsafe { OwnedFd::from_raw_fd(before - 1) });
        }
    }

    /// A successor: a move from or to `Config` that was cut short left the same number in two
    /// places; it is the configuration in force, and stays where that belongs.
    pub fn settle_kept(&self) {
        let config = self.kept[Keep::Config as usize].load(SeqCst);
        for other in [Keep::ConfigBefore, Keep::ConfigNext] {
            let cell = &self.kept[other as usize];
            if cell.load(SeqCst) == config {
                cell.store(0, SeqCst);
            }
        }
    }

    /// Guard, between two supervisors: closes every descriptor (3 and above) that is not kept.
    pub fn close_all_but_kept(&self) {
        super::file::close_all_but(&mut self.all_kept());
    }

    /// Guard, before and after it becomes another executable: whether that has what is kept.
    pub fn let_inherit(&self, inherited: bool) {
        self.all_kept().into_iter().for_each(|number| super::process::set_inherited(number, inherited));
    }

    fn all_kept(&self) -> heapless::Vec<i32, KEPT_COUNT_MAX> {
        let mut numbers = heapless::Vec::new();
        let used = (self.program_slots.load(SeqCst) as usize).min(CHILD_COUNT_MAX);
        let cells = self.slots[..used].iter().flat_map(|slot| &slot.kept).chain(&self.kept);
        let lines =
            self.outputs().iter().map(OutputSlot::cell).chain(self.inputs.iter().map(InputSlot::cell));
        let watchdogs = self.watchdogs.iter().flat_map(WatchdogSlot::cells);
        for number in cells.chain(lines).chain(watchdogs).filter_map(kept) {
            // Cannot be full: it has a place for every cell.
            let _ = numbers.push(number);
        }
        numbers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_comes_after_its_slot_was_settled_may_not_begin() {
        let page = Page::create().unwrap();
        let slot = page.program(0);
        let late = slot.announce(7);
        slot.settle();
        assert!(!slot.claim(late, 4711));
        assert!(!slot.has_begun());
        let second = slot.announce(7); // the same generation, tried again by the successor
        assert!(!slot.claim(late, 4711));
        assert!(slot.claim(second, 4712));
        assert_eq!((slot.generation(), slot.spawned()), (7, 4712));
    }

    #[test]
    fn a_process_that_claimed_its_slot_is_found_by_the_successor() {
        let page = Page::create().unwrap();
        let slot = page.program(0);
        let serial = slot.announce(7);
        assert!(slot.claim(serial, 4711));
        slot.settle();
        assert_eq!((slot.generation(), slot.spawned()), (7, 4711));
    }

    #[test]
    fn an_exit_belongs_to_the_process_that_ran() {
        let page = Page::create().unwrap();
        page.program_slots.store(1, SeqCst);
        let slot = page.program(0);
        slot.claim(slot.announce(1), 10);
        assert!(page.record_exit(10, true, 9));
        assert_eq!(slot.exit().map(|exit| (exit.signalled, exit.value)), Some((true, 9)));
        slot.announce(2);
        assert_eq!(slot.exit(), None);
        assert!(!page.record_exit(99, false, 0));
    }

    #[test]
    fn an_exit_does_not_go_to_one_that_had_the_same_number_before() {
        let page = Page::create().unwrap();
        page.program_slots.store(2, SeqCst);
        page.program(0).claim(page.program(0).announce(1), 10);
        page.record_exit(10, true, 9);
        page.program(1).claim(page.program(1).announce(1), 10);
        assert!(page.record_exit(10, false, 3));
        assert_eq!(page.program(0).exit().map(|exit| exit.value), Some(9));
        assert_eq!(page.program(1).exit().map(|exit| exit.value), Some(3));
    }

    #[test]
    fn a_daemon_that_ended_before_it_was_known_is_not_lost() {
        let page = Page::create().unwrap();
        page.program_slots.store(1, SeqCst);
        let slot = page.program(0);
        slot.claim(slot.announce(1), 10);
        page.record_exit(10, false, 0);
        page.record_exit(11, false, 3);
        slot.set_main(11);
        page.claim_stranger(slot);
        assert_eq!(slot.exit().map(|exit| exit.value), Some(3));
    }

    #[test]
    fn a_process_may_be_claimed_by_its_maker_and_by_itself() {
        let page = Page::create().unwrap();
        let slot = page.program(0);
        let serial = slot.announce(1);
        assert!(slot.claim(serial, 10) && slot.claim(serial, 10));
        assert!(!slot.claim(serial, 11));
        slot.forget();
        assert!(!slot.has_begun() && slot.exit().is_none() && !slot.claim(serial, 10));
    }

    #[test]
    fn a_descriptor_whose_move_was_cut_short_is_kept_once() {
        let page = Page::create().unwrap();
        let null = || crate::sys::file::null().unwrap();
        page.keep(Keep::Config, Some(null()));
        let number = page.kept(Keep::Config);
        page.kept[Keep::ConfigBefore as usize].store(number.unwrap() + 1, SeqCst);
        page.settle_kept();
        assert_eq!((page.kept(Keep::Config), page.kept(Keep::ConfigBefore)), (number, None));
        page.keep_as(Keep::Config, Keep::ConfigBefore);
        assert_eq!((page.kept(Keep::Config), page.kept(Keep::ConfigBefore)), (None, number));
        page.keep(Keep::ConfigBefore, None);
    }

    #[test]
    fn saved_words_survive_a_save_that_was_cut_short() {
        let page = Page::create().unwrap();
        let slot = page.program(0);
        let mut words = [0; SAVED_WORDS_MAX];
        assert!(!slot.saved(&mut words));
        slot.save(&[1; SAVED_WORDS_MAX]);
        slot.saved[1][0].store(2, SeqCst); // a second save, killed after its first word
        assert!(slot.saved(&mut words));
        assert_eq!(words, [1; SAVED_WORDS_MAX]);
    }
}
