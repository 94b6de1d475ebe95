//! What bundled children are told without asking: that something was published (`MULTUSD_CHANGES`), and the levels of
//! outputs, which stand behind those of inputs on one page (its layout: `sys/input.rs`).
//!
//! Nobody but its owner knows what an output is switched to while its owner drives it. Bundled children say it
//! (`MULTUSD_LEVEL=lamp on`), others may; of who does not, the level is not known while it runs.

use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering::SeqCst;

use crate::protocol::OutputState;
use crate::supervisor::ChildId;
use crate::sys::input::{Board, Published};
use crate::sys::output::{Kind, OutputSlot, Reading, level};
use crate::sys::page::Keep;
use crate::sys::{SysError, clock, poll};

use super::Daemon;

impl super::outputs::Output {
    /// What the level of a status is: that of a line as it is now, else the last that was read.
    pub(super) fn level(&self, slot: &OutputSlot) -> Option<bool> {
        let (high, whose) = slot.wanted();
        let is_driven = whose == OutputState::Driven as u32;
        match (slot.kind(), self.reading) {
            (Kind::Line, _) => slot.look(),
            _ if is_driven => None,
            (_, Reading::Level(level)) => Some(level),
            _ => (slot.confirmed_at.load(SeqCst) != 0).then_some(high),
        }
    }
}

impl Daemon {
    /// The page of inputs and outputs, made when it is needed first.
    pub(super) fn open_board(&mut self) -> Result<(), SysError> {
        if self.page.kept(Keep::Inputs).is_none() {
            let (memory, read) = Board::create()?;
            self.page.keep(Keep::InputsRead, Some(read));
            self.page.keep(Keep::Inputs, Some(memory));
        }
        if let (None, Some(number)) = (self.board, self.page.kept(Keep::Inputs)) {
            self.board = Some(Board::map(poll::borrow(number))?);
            self.watch_inputs();
            self.outputs_moved = true;
        }
        Ok(())
    }

    /// The counter that wakes them, made when it is needed first.
    pub(super) fn open_changes(&mut self) -> Result<i32, SysError> {
        if self.page.kept(Keep::Changes).is_none() {
            let counter: OwnedFd = poll::event_counter()?;
            self.page.keep(Keep::Changes, Some(counter));
        }
        Ok(self.page.kept(Keep::Changes).unwrap_or(-1))
    }

    /// Something was published.
    pub(super) fn say_changes(&self) {
        if let Some(number) = self.page.kept(Keep::Changes) {
            poll::wake_all(poll::borrow(number));
        }
    }

    /// A program says what it has switched one of its outputs to.
    pub(super) fn take_level(&mut self, child: ChildId, words: &str) {
        let Some((named, word)) = words.split_once(' ') else { return };
        let page = self.page;
        let mut outputs = self.outputs.iter_mut();
        let Some(output) = outputs.find(|o| o.owner == Some(child) && o.name(page) == named) else { return };
        let is_low = output.slot(page).level(level::ACTIVE_LOW);
        output.said = match word {
            "on" | "off" => Some((word == "on") != is_low),
            "high" | "low" => Some(word == "high"),
            _ => None,
        };
        self.outputs_moved = true;
    }

    /// Publishes what outputs are at now, as far as that is known.
    pub(super) fn publish_outputs(&mut self) {
        let Some(board) = self.board.filter(|_| std::mem::take(&mut self.outputs_moved)) else { return };
        let mut moved = false;
        for output in &self.outputs {
            let slot = output.slot(self.page);
            let high = match slot.wanted() {
                // The kernel knows better than who switches it, where it can be asked without waiting.
                (_, whose) if whose == OutputState::Driven as u32 => output
                    .said
                    .and_then(|said| if slot.kind() == Kind::Line { slot.look() } else { Some(said) }),
                _ => output.level(slot),
            };
            let record = Board::of_output(output.place());
            let before = board.published(record);
            let name = output.name(self.page);
            if high != before.high || !board.is_of(record, &name) {
                let is_edge = high.is_some() && before.high.is_some();
                let edges = before.edges + u64::from(is_edge);
                let at_ns = if is_edge { clock::now().0 } else { before.at_ns };
                board.publish(record, &name, slot.level(level::ACTIVE_LOW), Published { high, edges, at_ns });
                moved = true;
            }
        }
        if moved {
            self.say_changes();
        }
    }

    /// The output of this place has left.
    pub(super) fn forget_level(&self, place: usize) {
        if let Some(board) = self.board {
            board.publish(Board::of_output(place), "", false, Published::default());
        }
    }

    /// A former supervisor's programs had said what they switched their outputs to.
    pub(super) fn adopt_levels(&mut self) -> Result<(), SysError> {
        if self.page.kept(Keep::Inputs).is_none() {
            return Ok(());
        }
        self.open_board()?;
        let (page, Some(board)) = (self.page, self.board) else { return Ok(()) };
        for output in &mut self.outputs {
            let record = Board::of_output(output.place());
            if output.slot(page).wanted().1 == OutputState::Driven as u32
                && board.is_of(record, &output.name(page))
            {
                output.said = board.published(record).high;
            }
        }
        Ok(())
    }
}
