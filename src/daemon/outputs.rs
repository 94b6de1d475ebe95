//! Outputs: taken once, forced, read back, handed to their owners. What never waits is driven here; each of
//! the others by a helper, a process of its own that waits in the kernel for an order, and is replaced
//! when it leaves one unanswered for its time.
//!
//! What must outlive this supervisor is on the adoption page (`OutputSlot`): a successor moves no line.

use std::os::fd::RawFd;
use std::rc::Rc;
use std::sync::atomic::Ordering::SeqCst;

use crate::config::{self, Drive, Line, Target};
use crate::limits::FORCE_AGAIN_MS;
use crate::protocol::OutputState;
use crate::supervisor::{ChildId, Event, Level};
use crate::sys::gpio::flag;
use crate::sys::output::{Kind, OutputSlot, Reading, level};
use crate::sys::page::Page;
use crate::sys::{clock, describe, process};
use crate::time::{Instant, Millis};

use super::Daemon;
use super::helper::help;
use super::lines::{self, Spot};
use super::spec::digest;

/// The longest pause between two tries of an output that cannot be driven at all.
const PAUSE_MAX: Millis = Millis(1000);

/// An order that the helper has not answered.
#[derive(Clone, Copy)]
pub(super) struct Order {
    number: u32,
    /// Of the attempt it was given for.
    attempt: u32,
    at: Instant,
}

/// One output.
pub struct Output {
    /// Its slot on the page.
    index: usize,
    /// What the configuration says; none: a former supervisor's, which is not in the configuration any more.
    config: Option<Rc<config::Output>>,
    pub(super) wire: String,
    /// It is in the configuration in force; else it leaves as soon as its owner is down.
    pub(super) in_force: bool,
    /// Where the line is.
    spot: Option<Spot>,
    /// The program whose processes may be driving it.
    pub(super) owner: Option<ChildId>,
    /// The program that owns it by the configuration.
    pub(super) heir: Option<ChildId>,
    /// The attempt it was last forced for, and the last that read back what it should.
    attempt: u32,
    proven: u32,
    pub(super) order: Option<Order>,
    /// When the last order was given.
    ordered_at: Instant,
    pub(super) reading: Reading,
    /// The level that its program says it has switched it to.
    pub(super) said: Option<bool>,
    /// Failures in a row, and when it is tried again after them.
    failures: u32,
    not_before: Instant,
}

impl Output {
    pub(super) fn slot(&self, page: &'static Page) -> &'static OutputSlot {
        &page.outputs()[self.index]
    }

    /// The number of its slot.
    pub(super) fn place(&self) -> usize {
        self.index
    }

    pub(super) fn name(&self, page: &'static Page) -> heapless::String<{ crate::limits::NAME_BYTES_MAX }> {
        self.slot(page).helper.name()
    }

    /// Its name, where what was written to it cannot be read back (of a command nobody would expect that).
    pub(super) fn unread(&self) -> Option<&str> {
        let config = self.config.as_ref().filter(|_| self.in_force && self.reading == Reading::Unread)?;
        (!matches!(config.target, Target::Command(_))).then_some(&config.name)
    }

    fn concerns(&self, child: ChildId) -> bool {
        self.owner == Some(child) || self.heir == Some(child)
    }

    /// Takes in what came of driving it; gives an errno that is news.
    fn heed(&mut self, page: &'static Page, reading: Reading, attempt: u32) -> Option<i32> {
        let slot = self.slot(page);
        let (high, _) = slot.wanted();
        let news = reading != self.reading;
        self.reading = reading;
        let is_so = match reading {
            Reading::Level(level) => level == high,
            Reading::Unread => true,
            _ => false,
        };
        self.proven = if is_so { attempt } else { 0 };
        let _ = slot.confirmed_at.compare_exchange(0, clock::now().0, SeqCst, SeqCst);
        if !is_so {
            slot.confirmed_at.store(0, SeqCst);
        }
        let Reading::Failed(errno) = reading else {
            self.failures = 0;
            return None;
        };
        let pause = Millis(FORCE_AGAIN_MS << self.failures.min(10)).min(PAUSE_MAX);
        self.not_before = clock::now() + pause;
        self.failures += 1;
        if errno == libc::ENODEV && self.spot.take().is_some() {
            // The chip is gone; where the line comes back is looked up.
            slot.keep(None);
            slot.set_kind(Kind::SlowLine);
        }
        news.then_some(errno)
    }

    /// As the configuration has it; what is driven is another matter.
    fn describe(&self, page: &'static Page) {
        let (slot, Some(config)) = (self.slot(page), &self.config) else { return };
        let high = |level| level == config::Level::High;
        let mut levels = if config.active_low { level::ACTIVE_LOW } else { 0 };
        levels |= if high(config.boot) { level::BOOT } else { 0 };
        levels |= if high(config.safe) { level::SAFE } else { 0 };
        let flags = flag::OUTPUT
            | if config.active_low { flag::ACTIVE_LOW } else { 0 }
            | match config.drive {
                Drive::PushPull => 0,
                Drive::OpenDrain => flag::OPEN_DRAIN,
                Drive::OpenSource => flag::OPEN_SOURCE,
            };
        slot.helper.set_name(&config.name);
        slot.levels.store(levels, SeqCst);
        slot.flags.store(flags, SeqCst);
        slot.limit.store(config.limit.0.try_into().unwrap_or(u32::MAX), SeqCst);
        slot.timeout.store(config.timeout.0.try_into().unwrap_or(u32::MAX), SeqCst);
        slot.digest.store(identity(config), SeqCst);
        let kind = match &config.target {
            Target::Gpio(_) if self.spot.as_ref().is_some_and(|spot| !spot.may_wait) => Kind::Line,
            Target::Gpio(_) => Kind::SlowLine,
            Target::Path { high, low, .. } => {
                slot.set_texts([low, high]);
                Kind::File
            }
            Target::Command(_) => Kind::Command,
        };
        slot.set_kind(kind);
    }
}

/// What tells one target from another.
fn identity(output: &config::Output) -> u64 {
    let more = match &output.target {
        Target::Path { high, low, .. } => [high, "\n", low].concat(),
        _ => String::new(),
    };
    digest([wire(output).as_str(), "\n", &more].concat().as_bytes())
}

/// What tells one making of an output from another: a change restarts its owner.
pub fn making(output: &config::Output) -> u64 {
    let running = output.running.map_or(2, |level| level as u64);
    let levels =
        [output.boot as u64, output.safe as u64, running, output.drive as u64, output.active_low.into()];
    levels.into_iter().fold(identity(output), |sum, level| sum.wrapping_mul(31).wrapping_add(level))
}

/// Its owner gets the descriptor that it is driven by.
pub fn is_handed_over(output: &config::Output) -> bool {
    !matches!(output.target, Target::Command(_))
}

fn wire(output: &config::Output) -> String {
    match &output.target {
        Target::Gpio(line) => lines::words(line),
        Target::Path { path, .. } => path.clone(),
        Target::Command(words) => words.join(" "),
    }
}

impl config::Output {
    /// The line, where it is one.
    pub fn line(&self) -> Option<&Line> {
        match &self.target {
            Target::Gpio(line) => Some(line),
            _ => None,
        }
    }
}

impl Daemon {
    /// What a former supervisor left.
    pub(super) fn adopt_outputs(&mut self) {
        for (index, slot) in self.page.outputs().iter().enumerate() {
            if slot.kind() == Kind::Free {
                continue;
            }
            slot.helper.settle();
            let owner = slot.owner.load(SeqCst).checked_sub(1).map(|child| ChildId(child as u16));
            self.outputs.push(Output { owner, ..blank(index) });
        }
    }

    /// Brings the outputs in line with the configuration in force: what is new is taken, at its boot level.
    pub(super) fn apply_outputs(&mut self) {
        let page = self.page;
        let board: Vec<_> = self.in_force.config.board.outputs.clone();
        let mut known = vec![false; board.len()];
        for output in &mut self.outputs {
            let slot = output.slot(page);
            let found = board.iter().position(|config| identity(config) == slot.digest.load(SeqCst));
            output.in_force = found.is_some();
            let Some(found) = found else { continue };
            known[found] = true;
            output.config = Some(board[found].clone());
            output.wire = wire(&board[found]);
            output.spot = self.in_force.outputs[found].clone().or(output.spot.take());
            output.describe(page);
        }
        for (index, config) in board.into_iter().enumerate().filter(|(index, _)| !known[*index]) {
            let Some(place) = page.free_output() else {
                say!("output {}: no place for it until another one has left", config.name);
                continue;
            };
            let spot = self.in_force.outputs[index].clone();
            let wire = wire(&config);
            let output = Output { config: Some(config), wire, in_force: true, spot, ..blank(place) };
            output.describe(page);
            self.outputs.push(output);
        }
        for index in 0..self.outputs.len() {
            let slot = self.outputs[index].slot(page);
            let (high, whose) = slot.wanted();
            let (state, now_high) = match whose {
                0 | 1 => (OutputState::Boot, slot.level(level::BOOT)),
                2 => (OutputState::Safe, slot.level(level::SAFE)),
                _ => continue,
            };
            // Not what is as it should be: a successor moves nothing.
            if high != now_high || slot.confirmed_at.load(SeqCst) == 0 {
                self.drive(index, state, false);
            }
        }
    }

    /// Who owns what by the configuration; `place` says where a program is in the table.
    pub(super) fn inherit_outputs(&mut self, place: &dyn Fn(&Daemon, &str) -> Option<ChildId>) {
        for index in 0..self.outputs.len() {
            let output = &self.outputs[index];
            let named = output.config.as_ref().filter(|_| output.in_force);
            let program = named.and_then(|config| {
                let programs = &self.in_force.config.programs;
                programs.iter().find(|program| program.outputs.iter().any(|owned| owned.name == config.name))
            });
            let heir = program.and_then(|program| place(self, &program.name));
            self.outputs[index].heir = heir;
        }
        self.settle_owners();
    }

    /// Hands outputs over whose former owner is down, with its outputs safe; true: some were.
    pub(super) fn settle_owners(&mut self) -> bool {
        let mut changed = false;
        for index in 0..self.outputs.len() {
            let Output { owner, heir, .. } = self.outputs[index];
            if owner != heir && owner.is_none_or(|owner| self.is_quiet(owner)) {
                self.outputs[index].owner = heir;
                self.outputs[index].proven = 0;
                let number = heir.map_or(0, |child| u32::from(child.0) + 1);
                self.outputs[index].slot(self.page).owner.store(number, SeqCst);
                changed = true;
            }
        }
        changed
    }

    /// Before a start: what the program owns no more is let go of, now that it is down, and safe.
    pub(super) fn bequeath_outputs(&mut self, child: ChildId) {
        let is_former = |output: &Output| output.owner == Some(child) && output.heir != Some(child);
        if self.outputs.iter().any(is_former) {
            for output in self.outputs.iter_mut().filter(|output| is_former(output)) {
                (output.owner, output.proven) = (None, 0);
                output.slot(self.page).owner.store(0, SeqCst);
            }
            self.relate_all();
        }
    }

    /// Nothing of the program is alive.
    fn is_quiet(&self, child: ChildId) -> bool {
        let never_ran = self.page.program(child.index()).generation() == 0;
        self.core.status(child).is_none_or(|status| never_ran || status.outputs_safe)
    }

    /// The program has left the table.
    pub(super) fn disown_outputs(&mut self, child: ChildId) {
        for output in self.outputs.iter_mut().filter(|output| output.owner == Some(child)) {
            output.owner = None;
            output.slot(self.page).owner.store(0, SeqCst);
        }
    }

    /// The shortest time for which one of the program's outputs may be unconfirmed.
    pub(super) fn output_limit(&self, child: ChildId) -> Option<Millis> {
        let owned = self.outputs.iter().filter(|output| output.concerns(child));
        owned.map(|output| Millis(output.slot(self.page).limit.load(SeqCst).into())).min()
    }

    /// `Action::Force`.
    pub(super) fn force(&mut self, child: ChildId, attempt: u32, level: Level) {
        let state = match level {
            Level::Boot => OutputState::Boot,
            Level::Safe => OutputState::Safe,
        };
        let ((needed, _), now) = (self.core.proof(child), clock::now());
        // What never waits comes first: an order to a helper is a system call too.
        for quick in [true, false] {
            for index in 0..self.outputs.len() {
                let output = &mut self.outputs[index];
                let slot = output.slot(self.page);
                if output.owner == Some(child) && (slot.kind() == Kind::Line) == quick {
                    // A helper's answer is a wake-up, too: without a pause the two of them would keep the
                    // processors from whoever is to die.
                    let is_fresh =
                        now < output.ordered_at + Millis(FORCE_AGAIN_MS) && output.proven >= needed;
                    if !quick && is_fresh && slot.wanted().1 == state as u32 {
                        continue;
                    }
                    output.attempt = attempt;
                    self.drive(index, state, false);
                }
            }
        }
        let failed = self.outputs.iter().find_map(|output| match output.reading {
            Reading::Failed(errno) if output.owner == Some(child) => Some((output.name(self.page), errno)),
            _ => None,
        });
        if let (Some((name, errno)), Some(entry)) = (failed, self.entry(child)) {
            entry.explain(format_args!("output {name}: {}", describe(errno)));
        }
        self.report_proof(child);
    }

    /// Tells the core which attempt all of the program's outputs have read back.
    fn report_proof(&mut self, child: ChildId) {
        let concerned = self.outputs.iter().filter(|output| output.concerns(child));
        // Another program may be driving it still.
        let proof = concerned.map(|output| if output.owner == Some(child) { output.proven } else { 0 }).min();
        let (needed, counts) = self.core.proof(child);
        // What proves nothing is no news: each piece of news is decided upon at once, with another force.
        if let Some(attempt) = proof.filter(|attempt| counts && *attempt >= needed.max(1)) {
            self.observe(Event::OutputsConfirmed { child, attempt });
        }
    }

    /// `Action::Serve`
    pub(super) fn serve_outputs(&mut self, child: ChildId) {
        for index in 0..self.outputs.len() {
            let output = &self.outputs[index];
            if let (true, Some(running)) =
                (output.owner == Some(child), output.config.as_ref().and_then(|config| config.running))
            {
                self.drive(index, OutputState::Driven, running == config::Level::High);
            }
        }
    }

    /// Drives an output to the level of this name (`high` where that has none), or has it driven.
    pub(super) fn drive(&mut self, index: usize, state: OutputState, high: bool) {
        let page = self.page;
        let output = &mut self.outputs[index];
        let slot = output.slot(page);
        let high = match state {
            OutputState::Boot => slot.level(level::BOOT),
            OutputState::Safe => slot.level(level::SAFE),
            _ => high,
        };
        let is_other = slot.want(high, state as u32);
        let now = clock::now();
        if now < output.not_before && output.failures > 0 {
            return;
        }
        if slot.kind() == Kind::Line {
            let reading = match output.take_line(page, high) {
                Ok(()) => slot.drive(high),
                Err(errno) => Reading::Failed(errno),
            };
            let attempt = output.attempt;
            return self.heed_output(index, reading, attempt);
        }
        if slot.kind() == Kind::SlowLine && output.spot.is_none() && slot.descriptor().is_none() {
            self.heed_output(index, Reading::Failed(libc::ENODEV), 0);
            return self.look_for_lines();
        }
        if output.order.is_none() || is_other {
            let (number, attempt) = (slot.order(high), output.attempt);
            output.order = Some(Order { number, attempt, at: now });
            output.ordered_at = now;
            self.start_helper(index);
        }
    }

    /// Answers of helpers.
    pub(super) fn take_answers(&mut self) {
        for index in 0..self.outputs.len() {
            let output = &mut self.outputs[index];
            let Some(order) = output.order else { continue };
            let Some((_, reading)) =
                output.slot(self.page).answer().filter(|(number, _)| *number == order.number)
            else {
                continue;
            };
            output.order = None;
            let owner = output.owner;
            self.heed_output(index, reading, order.attempt);
            if let Some(child) = owner {
                self.report_proof(child);
            }
        }
    }

    fn start_helper(&mut self, index: usize) {
        let page = self.page;
        let output = &mut self.outputs[index];
        let slot = output.slot(page);
        if slot.helper.is_alive() {
            return;
        }
        let (config, spot) = (output.config.as_deref(), output.spot.as_ref());
        if let Err(error) = process::spawn_helper(&slot.helper, 1, || help(page, slot, config, spot)) {
            output.order = None;
            self.heed_output(index, Reading::Failed(error.errno), 0);
        }
    }

    fn heed_output(&mut self, index: usize, reading: Reading, attempt: u32) {
        self.outputs_moved = true;
        let output = &mut self.outputs[index];
        let (before, failed) = (output.reading, output.heed(self.page, reading, attempt));
        if let Some(name) = output.unread().filter(|_| before != Reading::Unread) {
            say!("output {name}: cannot be read back");
        }
        let Some(errno) = failed else { return };
        say!("output {}: NOT CONFIRMED: {}", output.name(self.page), describe(errno));
    }

    /// Helpers that are overdue or died, outputs that no program answers for, those that leave.
    pub(super) fn tend_outputs(&mut self) {
        let (page, now) = (self.page, clock::now());
        for index in (0..self.outputs.len()).rev() {
            let output = &mut self.outputs[index];
            let slot = output.slot(page);
            let timeout = Millis(slot.timeout.load(SeqCst).into());
            if output.order.is_some_and(|order| order.at + timeout <= now) {
                output.order = None;
                slot.end_helper();
                self.heed_output(index, Reading::Failed(libc::ETIMEDOUT), 0);
            } else if output.order.is_some() && !slot.helper.is_alive() {
                output.order = None;
                self.heed_output(index, Reading::Failed(libc::ECHILD), 0);
            }
            let output = &self.outputs[index];
            if output.owner.is_some() || output.order.is_some() {
                continue;
            }
            let (high, whose) = slot.wanted();
            let is_confirmed = slot.confirmed_at.load(SeqCst) != 0;
            if !output.in_force && whose != OutputState::Safe as u32 {
                self.drive(index, OutputState::Safe, false);
            } else if !output.in_force && is_confirmed {
                slot.clear();
                let place = output.index;
                self.outputs.swap_remove(index);
                self.forget_level(place);
            } else if !is_confirmed && now >= output.not_before {
                self.drive(index, state_of(whose), high);
            }
        }
        if self.outputs.iter().any(|output| output.owner != output.heir) && self.settle_owners() {
            self.relate_all();
        }
    }

    /// When something is to be done for an output.
    pub(super) fn outputs_deadline(&self) -> Option<Instant> {
        let due = self.outputs.iter().filter_map(|output| {
            let slot = output.slot(self.page);
            match output.order {
                Some(order) => Some(order.at + Millis(slot.timeout.load(SeqCst).into())),
                None if output.owner.is_none() && slot.confirmed_at.load(SeqCst) == 0 => {
                    Some(output.not_before.max(Instant(1)))
                }
                None => None,
            }
        });
        due.min()
    }

    /// Before a start: the first of the program's outputs that is not confirmed at a level of ours.
    pub(super) fn unconfirmed_output(&self, child: ChildId) -> Option<usize> {
        self.outputs.iter().position(|output| {
            let slot = output.slot(self.page);
            let (_, whose) = slot.wanted();
            output.concerns(child)
                && (slot.confirmed_at.load(SeqCst) == 0
                    || output.owner != Some(child)
                    || whose > OutputState::Safe as u32)
        })
    }

    /// The program's processes drive its outputs from now on.
    pub(super) fn release_outputs(&mut self, child: ChildId) {
        let says = self.table[child.index()].as_ref().is_some_and(|entry| entry.program.child.is_some());
        for output in self.outputs.iter_mut().filter(|output| output.owner == Some(child)) {
            let slot = output.slot(self.page);
            let high = slot.wanted().0;
            output.said = says.then_some(high);
            slot.want(high, OutputState::Driven as u32);
        }
        self.outputs_moved = true;
    }

    /// The descriptor that an output of this name is handed over by.
    pub(super) fn output_descriptor(&self, name: &str) -> Option<RawFd> {
        let output = self.outputs.iter().find(|output| output.in_force && output.name(self.page) == name)?;
        output.slot(self.page).descriptor()
    }

    /// Everything is down: what no program had is made safe as well.
    pub(super) fn leave_outputs_safe(&mut self) {
        for index in 0..self.outputs.len() {
            self.drive(index, OutputState::Safe, false);
        }
    }

    /// A helper has not answered yet.
    pub(super) fn outputs_are_busy(&self) -> bool {
        self.outputs.iter().any(|output| output.order.is_some())
    }
}

impl Output {
    /// The line, while it has not been found.
    pub fn sought(&self) -> Option<&Line> {
        self.config.as_ref().filter(|_| self.spot.is_none())?.line()
    }

    /// There it is.
    pub fn found(&mut self, page: &'static Page, spot: &Spot) {
        self.spot = Some(spot.clone());
        self.not_before = Instant(0);
        self.describe(page);
    }

    /// Requests the line, unless that was done.
    fn take_line(&mut self, page: &'static Page, high: bool) -> Result<(), i32> {
        let slot = self.slot(page);
        if slot.descriptor().is_some() {
            return Ok(());
        }
        let spot = self.spot.as_ref().ok_or(libc::ENODEV)?;
        let value = high != slot.level(level::ACTIVE_LOW);
        let line =
            spot.open().and_then(|chip| chip.request(spot.offset, slot.flags.load(SeqCst), Some(value), 0));
        slot.keep(Some(line.map_err(|error| error.errno)?));
        Ok(())
    }
}

fn blank(index: usize) -> Output {
    Output {
        index,
        config: None,
        wire: String::new(),
        in_force: false,
        spot: None,
        owner: None,
        heir: None,
        attempt: 0,
        proven: 0,
        order: None,
        ordered_at: Instant(0),
        reading: Reading::None,
        said: None,
        failures: 0,
        not_before: Instant(0),
    }
}

/// Back from the number on the page.
pub(super) fn state_of(number: u32) -> OutputState {
    use OutputState::{Boot, Driven, Safe, Set};
    [Boot, Safe, Driven, Set].into_iter().find(|state| *state as u32 == number).unwrap_or(Boot)
}
