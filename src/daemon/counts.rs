//! How often each input has changed, kept across restarts of the machine. In force is what stands on the page of inputs; in
//! `state_dir` it is kept every `save_counts` and when multusd ends, so that a power cut takes the changes of that time at the
//! most. A supervisor's death takes none: its successor goes on with the page.

use std::path::Path;
use std::sync::atomic::Ordering::SeqCst;

use crate::limits::{INPUT_COUNT_MAX, LINE_NAME_BYTES_MAX};
use crate::packed::{self, packed};
use crate::sys::page::Keep;
use crate::sys::{clock, describe, file, poll, process};
use crate::time::Instant;

use super::Daemon;
use super::inputs::Input;
use super::jobs::Job;
use super::two_slots::{self, DAMAGED, FAILED, SLOT_BYTES, Slot};

/// Its name in `state_dir`.
const NAME: &str = "counts";
/// What this version writes; another's is not read.
const FORMAT: u8 = 1;

/// One input's.
#[derive(Clone, Debug, Default, PartialEq)]
struct Count {
    name: heapless::String<LINE_NAME_BYTES_MAX>,
    edges: u64,
}

packed!(Count { name, edges });

/// All of them. Those of inputs that are not configured any more stay as long as there is room.
#[derive(Clone, Debug, Default, PartialEq)]
struct Ledger {
    format: u8,
    written: u64,
    counts: heapless::Vec<Count, INPUT_COUNT_MAX>,
}

packed!(Ledger { format, written, counts });

impl Ledger {
    fn of(slot: &[u8]) -> Option<Ledger> {
        Some(packed::read::<Ledger>(two_slots::open(slot, FORMAT)?)?.0)
    }

    fn of_input(&self, name: &str) -> u64 {
        self.counts.iter().find(|count| count.name == name).map_or(0, |count| count.edges)
    }

    /// Notes what inputs are at; true: that is news.
    fn note(&mut self, inputs: &[Count]) -> bool {
        let mut is_news = false;
        for input in inputs {
            if let Some(known) = self.counts.iter_mut().find(|count| count.name == input.name) {
                is_news |= known.edges != input.edges;
                known.edges = input.edges;
                continue;
            }
            if self.counts.is_full() {
                let is_former = |count: &Count| !inputs.iter().any(|input| input.name == count.name);
                // There are not more inputs than places, so one of the others is of none.
                let Some(former) = self.counts.iter().position(is_former) else { continue };
                self.counts.remove(former);
            }
            is_news |= self.counts.push(input.clone()).is_ok() && input.edges != 0;
        }
        is_news
    }
}

/// What is to be kept, and when.
#[derive(Default)]
pub struct Counts {
    /// Something has changed since it was kept last; since then.
    moved: Option<Instant>,
    /// The last try failed; the next is after `save_counts`.
    failed: bool,
    /// This supervisor has tried to read what is kept.
    tried: bool,
}

/// Edges so far: the number that the kernel counts to goes round.
pub(super) fn total(so_far: u64, base: u64, number: u32) -> u64 {
    so_far.wrapping_add(number.wrapping_sub(so_far.wrapping_sub(base) as u32).into())
}

/// Reads what is kept, adds what is known now, and keeps it: what is kept then (none: nobody knows), bits of the exit
/// code, and why not.
fn keep(directory: &Path, inputs: &[Count]) -> (Option<Slot>, i32, i32) {
    let path = directory.join(NAME);
    let (bytes, mut code, mut errno) = two_slots::read(&path);
    if code & FAILED != 0 {
        return (None, code, errno);
    }
    let newest = two_slots::newest(&bytes, FORMAT).map(|(place, _)| place);
    let kept = newest.and_then(|place| Ledger::of(bytes.chunks(SLOT_BYTES).nth(place)?));
    if kept.is_none() && !bytes.is_empty() {
        code |= DAMAGED;
    }
    let mut ledger = kept.unwrap_or_default();
    ledger.format = FORMAT;
    if ledger.note(inputs) {
        ledger.written += 1;
        if let Err(error) = two_slots::write(&path, &bytes, newest, &two_slots::seal(&mut ledger)) {
            (code, errno) = (code | FAILED, error.errno);
        }
    }
    (Some(two_slots::seal(&mut ledger)), code, errno)
}

impl Daemon {
    fn kept_counts(&self) -> Option<Ledger> {
        let mut slot = [0; SLOT_BYTES];
        file::read_at_start(poll::borrow(self.page.kept(Keep::Counts)?), &mut slot);
        Ledger::of(&slot)
    }

    /// An input has changed.
    pub(super) fn note_edge(&mut self) {
        if self.counts.moved.is_none() {
            self.counts.moved = Some(clock::now());
        }
    }

    /// When the next change of an input has to be kept.
    pub(super) fn counts_deadline(&self) -> Option<Instant> {
        let is_idle = !self.page.job(Job::Counts as usize).is_alive();
        self.counts.moved.filter(|_| is_idle).map(|moved| moved + self.in_force.config.daemon.save_counts)
    }

    /// What was kept before this life of multusd is added to what was counted in it, once.
    fn restore_counts(&mut self) {
        let Some(ledger) = self.kept_counts() else { return };
        for index in 0..self.inputs.len() {
            let slot = &self.page.inputs[self.inputs[index].slot()];
            if slot.restored.swap(1, SeqCst) == 0 {
                let kept = ledger.of_input(self.inputs[index].name());
                slot.base.store(slot.base.load(SeqCst).wrapping_add(kept), SeqCst);
                self.add_edges(index, kept);
            }
        }
    }

    /// Reads what is kept where that was not done yet, and keeps what is to be: one job at a time.
    pub(super) fn tend_counts(&mut self) {
        let slot = self.page.job(Job::Counts as usize);
        if self.inputs.is_empty() || slot.is_alive() {
            return;
        }
        let is_restored = |input: &Input| self.page.inputs[input.slot()].restored.load(SeqCst) == 1;
        let is_read = self.inputs.iter().all(is_restored);
        let is_due = self.counts_deadline().is_some_and(|due| due.is_due(clock::now()));
        let is_at_end = self.end.has_begun() && self.counts.moved.is_some() && !self.counts.failed;
        if (is_read || self.counts.tried) && !is_due && !is_at_end {
            return;
        }
        if self.page.kept(Keep::Counts).is_none() {
            self.page.keep(Keep::Counts, file::sealed_memory(c"multusd-counts", SLOT_BYTES as u32).ok());
        }
        let Some(number) = self.page.kept(Keep::Counts) else { return self.try_again_soon() };
        // Before it is read nothing is known that could be kept.
        let inputs = if is_read { self.counted() } else { heapless::Vec::new() };
        let directory = Path::new(&self.in_force.config.daemon.state_dir);
        let started = process::spawn_job(slot, 1, || {
            let (newest, code, errno) = keep(directory, &inputs);
            slot.answer.store(errno as u64, SeqCst);
            let show = |newest: Slot| file::write_at_start(poll::borrow(number), &newest).is_ok();
            if newest.is_none_or(show) { code } else { code | FAILED }
        });
        match started {
            Ok(_) => {
                self.counts.tried = true;
                self.counts.moved.take_if(|_| is_read || is_due || is_at_end);
            }
            Err(_) => self.try_again_soon(),
        }
    }

    fn counted(&self) -> heapless::Vec<Count, INPUT_COUNT_MAX> {
        let board = self.board;
        let count = |input: &Input| {
            let edges = board?.published(input.slot()).edges;
            Some(Count { name: input.name().try_into().ok()?, edges })
        };
        self.inputs.iter().filter_map(count).collect()
    }

    /// The job has ended.
    pub(super) fn counts_were_kept(&mut self, code: i32) {
        let code = if code < 0 { FAILED } else { code };
        let errno = self.page.job(Job::Counts as usize).answer.load(SeqCst) as i32;
        let directory = self.in_force.config.daemon.state_dir.clone();
        if code & DAMAGED != 0 {
            say!("the counts of inputs in {directory} are damaged and begin anew");
        }
        let failed = code & FAILED != 0;
        if failed && !self.counts.failed {
            let why = describe(errno);
            self.say_limitation(format_args!("the counts of inputs are not kept in {directory}: {why}"));
        }
        self.counts.failed = failed;
        let was_read = self.kept_counts().is_some();
        if failed || !was_read {
            self.note_edge();
        }
        self.restore_counts();
        self.tend_counts();
    }

    /// Something is not kept yet that can be.
    pub(super) fn counts_are_busy(&self) -> bool {
        self.page.job(Job::Counts as usize).is_alive() || self.counts.moved.is_some() && !self.counts.failed
    }

    /// Inputs that came by a reload.
    pub(super) fn adopt_counts(&mut self) {
        self.restore_counts();
        self.tend_counts();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(name: &str, edges: u64) -> Count {
        Count { name: name.try_into().unwrap(), edges }
    }

    #[test]
    fn a_full_ledger_fits_its_slot() {
        let mut ledger = Ledger { format: FORMAT, written: u64::MAX, ..Ledger::default() };
        for number in 0..INPUT_COUNT_MAX {
            ledger.counts.push(count(&format!("{number:031}"), u64::MAX)).unwrap();
        }
        assert_eq!(Ledger::of(&two_slots::seal(&mut ledger)), Some(ledger));
    }

    #[test]
    fn edges_go_on_where_the_kernels_number_goes_round_and_where_a_line_is_requested_again() {
        assert_eq!(total(0, 0, 1), 1);
        assert_eq!(total(7, 7, 2), 9, "requested again after seven");
        assert_eq!(total(u32::MAX.into(), 0, 1), (1 << 32) + 1);
        assert_eq!(total((1 << 33) + 5, 1 << 33, 5), (1 << 33) + 5, "told twice");
    }

    #[test]
    fn counts_are_kept_by_name_and_those_of_former_inputs_as_long_as_there_is_room() {
        let mut ledger = Ledger::default();
        assert!(!ledger.note(&[count("a", 0)]), "nothing has happened");
        assert!(ledger.note(&[count("a", 3), count("b", 1)]));
        assert!(!ledger.note(&[count("a", 3)]));
        assert_eq!((ledger.of_input("a"), ledger.of_input("b"), ledger.of_input("c")), (3, 1, 0));
        let others: Vec<_> = (0..INPUT_COUNT_MAX - 1).map(|number| count(&number.to_string(), 1)).collect();
        assert!(ledger.note(&[&[count("b", 2)][..], &others].concat()));
        assert_eq!((ledger.of_input("a"), ledger.of_input("b"), ledger.of_input("62")), (0, 2, 1));
    }

    #[test]
    fn what_is_kept_is_read_again_and_a_damaged_file_begins_anew() {
        let directory = std::env::temp_dir().join(format!("multusd-counts-{}", std::process::id()));
        let kept = |inputs: &[Count]| {
            let (slot, code, errno) = keep(&directory, inputs);
            (Ledger::of(&slot.unwrap()).unwrap().of_input("a"), code, errno)
        };
        assert_eq!(kept(&[]), (0, 0, 0));
        for edges in [5, 6, 7] {
            assert_eq!(kept(&[count("a", edges)]), (edges, 0, 0));
        }
        assert_eq!(kept(&[]), (7, 0, 0));
        let path = directory.join(NAME);
        let mut bytes = std::fs::read(&path).unwrap();
        let (place, _) = two_slots::newest(&bytes, FORMAT).unwrap();
        bytes[place * SLOT_BYTES + 9] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(kept(&[]), (6, 0, 0), "torn by a power cut: the one before");
        std::fs::write(&path, "x").unwrap();
        assert_eq!(kept(&[]), (0, DAMAGED, 0));
        assert_eq!(kept(&[count("a", 1)]), (1, DAMAGED, 0));
        assert_eq!(kept(&[]), (1, 0, 0));
        std::fs::remove_dir_all(directory).unwrap();
    }
}
