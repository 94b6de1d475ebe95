//! Why the machine booted: the last boots, how each ended and why, kept in `state_dir`, in a file of two slots. Read and
//! written by a job only; what it found is in memory that a successor has too. Nothing is decided by it.

use std::path::Path;
use std::sync::atomic::Ordering::SeqCst;

use crate::packed::{self, packed};
use crate::protocol::{BOOT_COUNT_MAX, Boot, BootEnd, Reason, Reply, Text};
use crate::sys::page::Keep;
use crate::sys::watchdog::flag;
use crate::sys::{SysError, describe, file, poll, process};

use super::Daemon;
use super::jobs::Job;
use super::table::write_cut;
use super::two_slots::{self, DAMAGED, FAILED, SLOT_BYTES, Slot};

/// Its name in `state_dir`.
const NAME: &str = "boots";
/// What this version writes; another's is not read.
const FORMAT: u8 = 1;
/// What tells one boot from another.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Besides the numbers that `shutdown` has for a reboot and for power off: multusd was ended.
const QUIT: u8 = 3;

/// What the job tells by its exit code besides: the boot was not known yet.
const NEW: i32 = 2;

/// One boot.
#[derive(Clone, Debug, Default, PartialEq)]
struct Entry {
    number: u32,
    id: heapless::String<40>,
    /// What was ordered; 0: nothing.
    order: u8,
    /// What the watchdogs said of its end, at the next boot: bits of `sys::watchdog::flag`.
    cause: u32,
    /// Why no watchdog was fed; empty: they were.
    withheld: Reason,
}

packed!(Entry { number, id, order, cause, withheld });

/// All of them, the oldest first.
#[derive(Clone, Debug, Default, PartialEq)]
struct Ledger {
    format: u8,
    /// How often it was written: of two slots the one with more counts.
    written: u64,
    boots: heapless::Vec<Entry, BOOT_COUNT_MAX>,
}

packed!(Ledger { format, written, boots });

/// What is known of the boot that runs, and of how it came about.
#[derive(Clone, Debug, Default, PartialEq)]
struct Mark {
    order: u8,
    /// Of the former one's end.
    cause: u32,
    withheld: Reason,
}

/// What is to be in the ledger, and what a job was told to put there.
#[derive(Default)]
pub struct Boots {
    wanted: Mark,
    told: Option<Mark>,
}

impl Boots {
    /// What a watchdog says of the last reset.
    pub(super) fn note_cause(&mut self, cause: u32) {
        self.wanted.cause |= cause;
    }
}

impl Ledger {
    fn slot(&mut self) -> Slot {
        self.format = FORMAT;
        two_slots::seal(self)
    }

    /// `None`: it is not whole.
    fn of(slot: &[u8]) -> Option<Ledger> {
        Some(packed::read::<Ledger>(two_slots::open(slot, FORMAT)?)?.0)
    }

    /// The newer one that is whole, and its place.
    fn newest(file: &[u8]) -> Option<(usize, Ledger)> {
        let (place, _) = two_slots::newest(file, FORMAT)?;
        Some((place, Ledger::of(file.chunks(SLOT_BYTES).nth(place)?)?))
    }

    /// Notes what is known in this boot; true: it was not known yet.
    fn note(&mut self, id: &str, mark: &Mark) -> bool {
        let last = self.boots.last();
        let is_new = last.is_none_or(|last| last.id != id);
        if is_new {
            let number = last.map_or(0, |last| last.number).wrapping_add(1);
            if self.boots.is_full() {
                self.boots.remove(0);
            }
            let mut entry = Entry { number, ..Entry::default() };
            // Fit, both: the caller has looked, and there is a place now.
            let _ = entry.id.push_str(id);
            let _ = self.boots.push(entry);
        }
        if let [.., before, _] = &mut self.boots[..] {
            before.cause |= mark.cause;
        }
        if let Some(now) = self.boots.last_mut() {
            // That it is to go on is news after `quit` only: init may start multusd once more on its way down.
            if mark.order != 0 || now.order == QUIT {
                now.order = mark.order;
            }
            now.withheld = mark.withheld.clone();
        }
        is_new
    }

    /// As it travels, the newest first.
    fn told(&self) -> heapless::Vec<Boot, BOOT_COUNT_MAX> {
        let last = self.boots.len().wrapping_sub(1);
        let boots = self.boots.iter().enumerate().rev();
        boots.map(|(place, entry)| entry.told(place == last)).collect()
    }
}

impl Entry {
    fn told(&self, is_last: bool) -> Boot {
        let withheld = !self.withheld.is_empty();
        let (end, why) = match self.order {
            _ if is_last => (BootEnd::Running, ""),
            1 => (BootEnd::Reboot, ""),
            2 => (BootEnd::PowerOff, ""),
            _ if self.cause & flag::CARD_RESET != 0 && withheld => (BootEnd::Watchdog, &*self.withheld),
            QUIT if self.cause & flag::CARD_RESET != 0 => (BootEnd::Watchdog, "multusd had been ended"),
            _ if self.cause & flag::CARD_RESET != 0 => (BootEnd::Watchdog, "multusd or the kernel hung"),
            _ if self.cause & flag::OVERHEAT != 0 => (BootEnd::Heat, ""),
            _ if self.cause & flag::POWER_UNDER != 0 => (BootEnd::Voltage, ""),
            QUIT => (BootEnd::Quit, "what came then is not known"),
            // Not every watchdog's driver says that it was it.
            _ if withheld => (BootEnd::Unfed, &*self.withheld),
            _ => (BootEnd::Unordered, "power lost, reset or kernel failure"),
        };
        let mut text = Reason::new();
        write_cut(&mut text, format_args!("{why}"));
        Boot { number: self.number, end, why: text }
    }
}

/// Reads what is kept, notes what is known, and keeps that where it is news: the newest slot, and the exit code.
fn keep(directory: &Path, id: &str, mark: &Mark) -> (Slot, i32, i32) {
    let path = directory.join(NAME);
    let (bytes, mut code, mut errno) = two_slots::read(&path);
    let newest = Ledger::newest(&bytes);
    if newest.is_none() && !bytes.is_empty() {
        code |= DAMAGED;
    }
    let place = newest.as_ref().map(|(place, _)| *place);
    let mut ledger = newest.map(|(_, ledger)| ledger).unwrap_or_default();
    let before = ledger.slot();
    if ledger.note(id, mark) {
        code |= NEW;
    }
    let mut slot = ledger.slot();
    if slot != before && code & FAILED == 0 {
        ledger.written += 1;
        slot = ledger.slot();
        let kept = two_slots::write(&path, &bytes, place, &slot);
        if let Err(error) = kept {
            code |= FAILED;
            errno = error.errno;
        }
    }
    (slot, code, errno)
}

/// What the kernel calls this boot.
fn boot_id() -> Result<heapless::String<40>, SysError> {
    let bytes = file::read_bounded(Path::new(BOOT_ID), 64)?;
    let id = str::from_utf8(bytes.trim_ascii()).ok().filter(|id| !id.is_empty());
    let id = id.and_then(|id| id.try_into().ok());
    id.ok_or(SysError { operation: "boot_id", errno: libc::EINVAL })
}

impl Daemon {
    /// What is known now is to be in the ledger: one job at a time.
    pub(super) fn tend_boots(&mut self) {
        let slot = self.page.job(Job::Boots as usize);
        if slot.is_alive() || self.boots.told.as_ref() == Some(&self.boots.wanted) {
            return;
        }
        if self.page.kept(Keep::Boots).is_none() {
            let memory = file::sealed_memory(c"multusd-boots", SLOT_BYTES as u32);
            self.page.keep(Keep::Boots, memory.ok());
        }
        let Some(number) = self.page.kept(Keep::Boots) else { return self.try_again_soon() };
        slot.flags.store(0, SeqCst);
        let (directory, mark) = (Path::new(&self.in_force.config.daemon.state_dir), &self.boots.wanted);
        let started = process::spawn_job(slot, 1, || {
            let (code, errno) = match boot_id() {
                Ok(id) => {
                    let (newest, code, errno) = keep(directory, &id, mark);
                    let shown = file::write_at_start(poll::borrow(number), &newest);
                    (if shown.is_ok() { code } else { code | FAILED }, errno)
                }
                Err(error) => (FAILED, error.errno),
            };
            slot.answer.store(errno as u64, SeqCst);
            code
        });
        match started {
            Ok(_) => self.boots.told = Some(self.boots.wanted.clone()),
            Err(_) => self.try_again_soon(),
        }
    }

    /// The job has ended.
    pub(super) fn boots_were_kept(&mut self, code: i32) {
        let code = if code < 0 { FAILED } else { code };
        let errno = self.page.job(Job::Boots as usize).answer.load(SeqCst) as i32;
        let directory = &self.in_force.config.daemon.state_dir;
        if code & DAMAGED != 0 {
            say!("the record of boots in {directory} is damaged and begins anew");
        }
        if code & FAILED != 0 {
            let mut text = Text::new();
            let why = describe(errno);
            write_cut(&mut text, format_args!("why the machine boots is not recorded in {directory}: {why}"));
            self.say_limitation(format_args!("{text}"));
        }
        if let Some([now, before, ..]) = self.boots().as_deref().filter(|_| code & NEW != 0) {
            self.tell(format_args!("boot {}, after: {before}", now.number));
        }
        self.tend_boots();
    }

    /// Everything is down: what was ordered.
    pub(super) fn note_order(&mut self) {
        self.boots.wanted.order = match self.page.shutdown.load(SeqCst) {
            0 => QUIT,
            number => number as u8,
        };
        self.tend_boots();
    }

    /// No watchdog is fed any more, or (empty) they are again.
    pub(super) fn note_withheld(&mut self, why: &str) {
        write_cut(&mut self.boots.wanted.withheld, format_args!("{why}"));
        self.tend_boots();
    }

    /// Something is not kept yet.
    pub(super) fn boots_are_busy(&self) -> bool {
        self.page.job(Job::Boots as usize).is_alive() || self.boots.told.as_ref() != Some(&self.boots.wanted)
    }

    /// What a former supervisor withheld is being withheld, until it is known better.
    pub(super) fn adopt_boots(&mut self) {
        if let Some(last) = self.ledger().as_ref().and_then(|ledger| ledger.boots.last()) {
            self.watch.adopt_withheld(!last.withheld.is_empty());
            self.boots.wanted.withheld = last.withheld.clone();
        }
    }

    fn ledger(&self) -> Option<Ledger> {
        let mut slot = [0; SLOT_BYTES];
        file::read_at_start(poll::borrow(self.page.kept(Keep::Boots)?), &mut slot);
        Ledger::of(&slot)
    }

    // Not part of the loop's frame, as `serve`.
    #[inline(never)]
    fn boots(&self) -> Option<heapless::Vec<Boot, BOOT_COUNT_MAX>> {
        self.ledger().map(|ledger| ledger.told())
    }

    /// For `multusctl reasons`.
    pub(super) fn boots_report(&self) -> Reply {
        Reply::Reasons { boots: self.boots().unwrap_or_default() }
    }
}

#[cfg(test)]
mod tests {
    use super::super::spec::digest;
    use super::*;

    fn mark(order: u8, cause: u32, withheld: &str) -> Mark {
        Mark { order, cause, withheld: withheld.try_into().unwrap() }
    }

    /// How the boots ended, the newest first.
    fn ends(ledger: &Ledger) -> Vec<String> {
        ledger.told().iter().map(|boot| format!("{} {boot}", boot.number)).collect()
    }

    #[test]
    fn a_full_ledger_fits_its_slot_and_every_damage_to_it_is_noticed() {
        let mut ledger = Ledger { written: u64::MAX, ..Ledger::default() };
        let longest = "x".repeat(120);
        for number in 0..BOOT_COUNT_MAX as u32 + 5 {
            ledger.note(&format!("{number:040}"), &mark(2, u32::MAX, &longest));
        }
        ledger.boots.iter_mut().for_each(|entry| entry.number = u32::MAX);
        let mut slot = ledger.slot();
        assert_eq!(Ledger::of(&slot), Some(ledger));
        for at in 0..SLOT_BYTES {
            assert_eq!(Ledger::of(&slot[..at]), None, "cut after {at} bytes");
            for bit in 0..8 {
                slot[at] ^= 1 << bit;
                assert_eq!(Ledger::of(&slot), None, "bit {bit} of byte {at} flipped");
                slot[at] ^= 1 << bit;
            }
        }
        assert_eq!(Ledger::of(&[&slot[..], &[0]].concat()), None);
    }

    #[test]
    fn of_two_slots_the_one_written_later_counts_and_the_other_where_that_is_torn() {
        let mut older = Ledger { written: 7, ..Ledger::default() };
        older.note("a", &mark(0, 0, ""));
        let mut newer = Ledger { written: 8, ..older.clone() };
        newer.note("b", &mark(0, 0, ""));
        let (first, second) = (older.slot(), newer.slot());
        for (file, place) in [([first, second].concat(), 1), ([second, first].concat(), 0)] {
            assert_eq!(Ledger::newest(&file), Some((place, newer.clone())));
            // A write that a power cut ended: so many bytes of the new one, the rest of the old.
            for cut in 0..SLOT_BYTES {
                let mut torn = file.clone();
                torn[place * SLOT_BYTES..][cut..SLOT_BYTES].fill(0xff);
                assert_eq!(Ledger::newest(&torn), Some((1 - place, older.clone())), "{cut}");
            }
        }
        assert_eq!(Ledger::newest(&[0; 2 * SLOT_BYTES]), None);
    }

    #[test]
    fn another_format_is_not_read() {
        let mut slot = Ledger::default().slot();
        assert!(Ledger::of(&slot).is_some());
        slot[8] = FORMAT + 1;
        let sum = digest(&slot[8..]).to_le_bytes();
        slot[..8].copy_from_slice(&sum);
        assert_eq!(Ledger::of(&slot), None);
    }

    #[test]
    fn an_end_is_what_was_ordered_then_what_the_watchdog_says_then_what_was_withheld() {
        let (reset, guard) = (flag::CARD_RESET, "the guard does not answer");
        for (order, cause, withheld, words) in [
            (0, 0, "", "ended without an order: power lost, reset or kernel failure"),
            (0, 0, guard, "ended without an order while no watchdog was fed: the guard does not answer"),
            (0, reset, "", "reset by the watchdog: multusd or the kernel hung"),
            (0, reset, guard, "reset by the watchdog: the guard does not answer"),
            (0, flag::OVERHEAT, "", "reset for heat"),
            (0, flag::POWER_UNDER, "", "reset for low voltage"),
            (0, 0x8000, "", "ended without an order: power lost, reset or kernel failure"),
            (1, reset, guard, "reboot, as ordered"),
            (2, 0, "", "power off, as ordered"),
            (QUIT, 0, "", "multusd was ended, as ordered: what came then is not known"),
            (QUIT, reset, "", "reset by the watchdog: multusd had been ended"),
        ] {
            let mut ledger = Ledger::default();
            assert!(ledger.note("a", &mark(0, 0, "")));
            assert!(!ledger.note("a", &mark(order, 0, withheld)));
            assert!(ledger.note("b", &mark(0, cause, "")));
            assert_eq!(ends(&ledger), ["2 runs", &format!("1 {words}")]);
            // A watchdog that is opened late.
            assert!(!ledger.note("b", &mark(0, cause, "")));
            assert_eq!(ends(&ledger)[1], format!("1 {words}"));
        }
    }

    #[test]
    fn a_start_within_the_same_boot_changes_nothing_but_that_multusd_runs_again() {
        let mut ledger = Ledger::default();
        ledger.note("a", &mark(0, 0, ""));
        let before = ledger.clone();
        assert!(!ledger.note("a", &mark(0, 0, "")));
        assert_eq!(ledger, before);
        ledger.note("a", &mark(QUIT, 0, ""));
        ledger.note("a", &mark(0, 0, ""));
        assert_eq!(ledger, before, "it was started again");
        ledger.note("a", &mark(1, 0, ""));
        ledger.note("a", &mark(0, 0, ""));
        assert_eq!(ledger.boots[0].order, 1, "on its way down");
    }

    #[test]
    fn the_oldest_boots_are_forgotten_and_the_others_keep_their_numbers() {
        let mut ledger = Ledger::default();
        for number in 1..=20 {
            ledger.note(&number.to_string(), &mark(1, 0, ""));
        }
        let numbers: Vec<u32> = ledger.told().iter().map(|boot| boot.number).collect();
        assert_eq!(numbers, (5..=20).rev().collect::<Vec<_>>());
    }
}
