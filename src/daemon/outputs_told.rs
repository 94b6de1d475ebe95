//! Outputs as clients see them, and set them.

use std::sync::atomic::Ordering::SeqCst;

use crate::protocol::{self, LevelWord, OutputState, OutputStatus, Refusal, Reply, Wire};
use crate::supervisor::ChildId;
use crate::sys::output::{OutputSlot, Reading, level};
use crate::sys::{clock, describe};
use crate::time::Instant;

use super::Daemon;
use super::control::{done, refused};
use super::outputs::state_of;
use super::report::name;
use super::table::write_cut;

impl Daemon {
    /// Outputs that are neither driven by their programs nor known to be at the level they should have.
    pub(super) fn unconfirmed_outputs(&self) -> usize {
        let slots = self.outputs.iter().map(|output| output.slot(self.page));
        let is_open = |slot: &&OutputSlot| {
            slot.wanted().1 != OutputState::Driven as u32 && slot.confirmed_at.load(SeqCst) == 0
        };
        slots.filter(is_open).count()
    }

    /// `multusctl outputs`
    pub(super) fn outputs_page(&self, from: u16) -> Reply {
        let mut outputs = heapless::Vec::new();
        let now = clock::now();
        for (index, output) in self.outputs.iter().enumerate().skip(from.into()) {
            if outputs.is_full() {
                return Reply::Outputs { outputs, next: Some(index as u16) };
            }
            let slot = output.slot(self.page);
            let (_, whose) = slot.wanted();
            let since = Some(slot.confirmed_at.load(SeqCst)).filter(|since| *since != 0);
            let level = output.level(slot);
            let is_driven = whose == OutputState::Driven as u32;
            let owner = output.owner.or(output.heir).and_then(|child| self.table[child.index()].as_ref());
            let (mut wire, mut reason) = (Wire::new(), heapless::String::new());
            write_cut(&mut wire, format_args!("{}", output.wire));
            match output.reading {
                Reading::Failed(errno) => write_cut(&mut reason, format_args!("{}", describe(errno))),
                Reading::Unread => write_cut(&mut reason, format_args!("cannot be read back")),
                Reading::Odd if !is_driven => {
                    write_cut(&mut reason, format_args!("reads neither high nor low"))
                }
                Reading::Level(_) if !is_driven && since.is_none() => {
                    write_cut(&mut reason, format_args!("reads the other level"));
                }
                _ => {}
            }
            // Not full, so there is a place.
            let _ = outputs.push(OutputStatus {
                name: name(&output.name(self.page)),
                wire,
                state: match since {
                    None if !is_driven => OutputState::Unconfirmed,
                    _ => state_of(whose),
                },
                level,
                active_low: slot.level(level::ACTIVE_LOW),
                safe: level == Some(slot.level(level::SAFE)) && since.is_some(),
                confirmed_ms: since.filter(|_| !is_driven).map(|since| now.since(Instant(since)).0),
                owner: owner.map_or_else(protocol::Name::new, |entry| name(entry.name())),
                reason,
            });
        }
        Reply::Outputs { outputs, next: None }
    }

    /// For the program's own status.
    pub(super) fn outputs_of(&self, child: ChildId) -> heapless::Vec<protocol::Output, 8> {
        let owned = self.outputs.iter().filter(|output| output.owner == Some(child));
        let status = owned.map(|output| {
            let slot = output.slot(self.page);
            let level = output.level(slot);
            let is_confirmed = slot.confirmed_at.load(SeqCst) != 0;
            let is_driven = slot.wanted().1 == OutputState::Driven as u32;
            let mut name = heapless::String::new();
            write_cut(&mut name, format_args!("{}", output.name(self.page)));
            let safe = is_confirmed && level == Some(slot.level(level::SAFE));
            protocol::Output { name, level: level.filter(|_| is_confirmed || is_driven), safe }
        });
        // More are in `multusctl outputs`.
        status.take(8).collect()
    }

    /// `multusctl outputs set`
    pub(super) fn set_output(&mut self, named: &str, word: LevelWord, force: bool) -> Reply {
        let found = self.outputs.iter().position(|output| output.in_force && output.name(self.page) == named);
        let Some(index) = found else {
            return refused(Refusal::Failed, format_args!("there is no output {named}"));
        };
        let output = &self.outputs[index];
        let slot = output.slot(self.page);
        let running = output.owner.filter(|owner| self.page.program(owner.index()).is_alive());
        if let Some(entry) = running.filter(|_| !force).and_then(|owner| self.table[owner.index()].as_ref()) {
            let words =
                format_args!("{named}: {} runs and drives it; --force sets it all the same", entry.name());
            return refused(Refusal::Failed, words);
        }
        let high = match word {
            LevelWord::Low | LevelWord::High => word == LevelWord::High,
            LevelWord::Off | LevelWord::On => (word == LevelWord::On) != slot.level(level::ACTIVE_LOW),
        };
        self.drive(index, OutputState::Set, high);
        let output = &self.outputs[index];
        match output.reading {
            _ if output.order.is_some() => done(format_args!("{named}: ordered")),
            _ if slot.confirmed_at.load(SeqCst) != 0 => done(format_args!("{named}: set")),
            Reading::Failed(errno) => refused(Refusal::Failed, format_args!("{named}: {}", describe(errno))),
            _ => refused(Refusal::Failed, format_args!("{named}: reads another level")),
        }
    }
}
