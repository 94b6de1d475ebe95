//! Inputs: requested once, their edges taken as the kernel tells them, their levels published on a page that
//! programs read (its layout: `sys/input.rs`). What must outlive this supervisor is on the adoption page.

use std::rc::Rc;
use std::sync::atomic::Ordering::SeqCst;

use crate::config::{self, Bias};
use crate::protocol::{InputStatus, Reply, Wire};
use crate::sys::gpio::{self, flag};
use crate::sys::input::Published;
use crate::sys::page::Keep;
use crate::sys::poll::{self, Interest};
use crate::sys::{SysError, clock};
use crate::time::{Instant, Millis};

use super::counts;
use super::lines::{self, Spot};
use super::report::name;
use super::spec::digest;
use super::table::write_cut;
use super::{Daemon, Token};

/// A line that takes longer to be requested and read is said: it is behind a bus, and the loop waits for it. (Only then,
/// and after its chip was gone: edges are told by the kernel.)
const READ_TIME_MAX: Millis = Millis(20);

/// One input.
pub struct Input {
    /// Its slot on the adoption page, and its record on the other.
    slot: usize,
    config: Rc<config::Input>,
    wire: String,
    /// Where the line is.
    pub spot: Option<Spot>,
    /// Why it is not read.
    why: Option<SysError>,
}

impl Input {
    /// The number of its slot.
    pub fn slot(&self) -> usize {
        self.slot
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.config.name
    }

    /// The line, while it has not been found.
    pub fn sought(&self) -> Option<&config::Line> {
        self.config.line.as_ref().filter(|_| self.spot.is_none())
    }
}

fn identity(input: &config::Input) -> u64 {
    let wire = input.line.as_ref().map(lines::words).unwrap_or_default();
    let more = [input.active_low.into(), input.bias as u64, input.debounce.0];
    more.into_iter().fold(digest(wire.as_bytes()), |sum, more| sum.wrapping_mul(31).wrapping_add(more)).max(1)
}

impl Daemon {
    /// Brings the inputs in line with the configuration in force.
    pub(super) fn apply_inputs(&mut self) {
        let configs = self.in_force.config.board.inputs.clone();
        self.inputs.clear();
        if configs.is_empty() && self.page.kept(Keep::Inputs).is_none() {
            return;
        }
        if let Err(error) = self.open_board() {
            return say!("no inputs: {error}");
        }
        let (page, board) = (self.page, self.board);
        let mut carried = Vec::new();
        for (index, slot) in page.inputs.iter().enumerate() {
            let known = slot.digest.load(SeqCst);
            if known != 0 && !configs.iter().any(|config| identity(config) == known) {
                self.unwatch_input(index);
                slot.digest.store(0, SeqCst);
                if let Some(board) = board {
                    // One that only is requested in another way goes on counting.
                    let goes_on = configs.iter().find(|config| board.is_of(index, &config.name));
                    carried.extend(goes_on.map(|config| (config.clone(), board.published(index).edges)));
                    board.publish(index, "", false, Published::default());
                }
            }
        }
        for (config, spot) in configs.into_iter().zip(self.in_force.inputs.clone()) {
            let known = identity(&config);
            let at = |digest| page.inputs.iter().position(|slot| slot.digest.load(SeqCst) == digest);
            // There are as many slots as inputs may be configured.
            let Some(slot) = at(known).or_else(|| at(0)) else { continue };
            if page.inputs[slot].digest.swap(known, SeqCst) == 0 {
                let edges =
                    carried.iter().find(|(carried, _)| carried.name == config.name).map(|(_, edges)| *edges);
                page.inputs[slot].restored.store(edges.is_some().into(), SeqCst);
                let said = Published { edges: edges.unwrap_or(0), ..Published::default() };
                board.iter().for_each(|board| board.publish(slot, &config.name, config.active_low, said));
            }
            let wire = config.line.as_ref().map(lines::words).unwrap_or_default();
            self.inputs.push(Input { slot, config, wire, spot, why: None });
        }
        self.take_inputs();
        self.adopt_counts();
    }

    /// What a former supervisor had requested.
    pub(super) fn watch_inputs(&self) {
        for (index, slot) in self.page.inputs.iter().enumerate() {
            if let Some(line) = slot.descriptor() {
                self.watch(poll::borrow(line), Token::Input(index), Interest::Read);
            }
        }
    }

    fn unwatch_input(&self, slot: usize) {
        if let Some(line) = self.page.inputs[slot].descriptor() {
            self.poller.remove(poll::borrow(line));
            self.page.inputs[slot].keep(None);
        }
    }

    /// Requests what is not requested yet, and publishes everything as it is now.
    pub(super) fn take_inputs(&mut self) {
        for index in 0..self.inputs.len() {
            let input = &self.inputs[index];
            let (slot, config) = (&self.page.inputs[input.slot], &input.config);
            let begun = clock::now();
            let taken = match (slot.descriptor(), &input.spot) {
                (Some(_), _) => Ok(()),
                (None, None) => Err(SysError { operation: "GPIO chip", errno: libc::ENODEV }),
                (None, Some(spot)) => request(config, spot).map(|line| {
                    // The kernel begins anew.
                    let so_far = self.board.map_or(0, |board| board.published(input.slot).edges);
                    slot.base.store(so_far, SeqCst);
                    self.watch(std::os::fd::AsFd::as_fd(&line), Token::Input(input.slot), Interest::Read);
                    slot.keep(Some(line));
                }),
            };
            let read = taken.and_then(|()| gpio::value(poll::borrow(slot.descriptor().unwrap_or(-1))));
            let took = clock::now().since(begun);
            if took > READ_TIME_MAX {
                say!("input {}: its line took {} ms, in which nothing else was done", config.name, took.0);
            }
            let mut said = self.board.map(|board| board.published(input.slot)).unwrap_or_default();
            said.high = read.as_ref().ok().map(|on| on != &config.active_low);
            self.publish_input(index, said);
            let why = read.err();
            if let Some(error) = why.filter(|_| why != self.inputs[index].why) {
                say!("input {}: {error}", self.inputs[index].config.name);
            }
            self.inputs[index].why = why;
        }
        if self.inputs.iter().any(|input| input.why.is_some()) {
            self.look_for_lines();
            self.try_again_soon();
        }
    }

    /// So many more than was thought.
    pub(super) fn add_edges(&self, index: usize, more: u64) {
        if let Some(mut said) = self.board.map(|board| board.published(self.inputs[index].slot)) {
            said.edges = said.edges.wrapping_add(more);
            self.publish_input(index, said);
        }
    }

    fn publish_input(&self, index: usize, said: Published) {
        let input = &self.inputs[index];
        if let Some(board) = self.board {
            board.publish(input.slot, &input.config.name, input.config.active_low, said);
            self.say_changes();
        }
    }

    /// Edges of an input.
    pub(super) fn take_edges(&mut self, slot: usize) {
        let Some(line) = self.page.inputs[slot].descriptor() else { return };
        let Some(index) = self.inputs.iter().position(|input| input.slot == slot) else {
            return self.unwatch_input(slot);
        };
        match gpio::take_edges(poll::borrow(line)) {
            Some(edge) => {
                let high = Some(edge.value != self.inputs[index].config.active_low);
                let so_far = self.board.map_or(0, |board| board.published(slot).edges);
                let base = self.page.inputs[slot].base.load(SeqCst);
                let edges = counts::total(so_far, base, edge.count);
                self.publish_input(index, Published { high, edges, at_ns: edge.at_ns });
                self.note_edge();
            }
            // Its chip is gone; where it comes back is looked up.
            None => {
                self.unwatch_input(slot);
                self.inputs[index].spot = None;
                self.take_inputs();
            }
        }
    }

    /// A page of them for a client.
    pub(super) fn inputs_page(&self, from: u16) -> Reply {
        let mut inputs = heapless::Vec::new();
        let now = clock::now();
        for (index, input) in self.inputs.iter().enumerate().skip(from.into()) {
            if inputs.is_full() {
                return Reply::Inputs { inputs, next: Some(index as u16) };
            }
            let said = self.board.map(|board| board.published(input.slot)).unwrap_or_default();
            let (mut wire, mut reason) = (Wire::new(), heapless::String::new());
            write_cut(&mut wire, format_args!("{}", input.wire));
            if let Some(error) = input.why {
                write_cut(&mut reason, format_args!("{error}"));
            }
            // Not full, so there is a place.
            let _ = inputs.push(InputStatus {
                name: name(&input.config.name),
                wire,
                level: said.high,
                active_low: input.config.active_low,
                edges: said.edges,
                age_ms: (said.at_ns != 0).then(|| now.since(Instant(said.at_ns)).0),
                reason,
            });
        }
        Reply::Inputs { inputs, next: None }
    }
}

fn request(input: &config::Input, spot: &Spot) -> Result<std::os::fd::OwnedFd, SysError> {
    let flags = flag::INPUT
        | flag::EDGES
        | if input.active_low { flag::ACTIVE_LOW } else { 0 }
        | match input.bias {
            Bias::AsIs => 0,
            Bias::Disabled => flag::BIAS_DISABLED,
            Bias::PullUp => flag::PULL_UP,
            Bias::PullDown => flag::PULL_DOWN,
        };
    let debounce_us = input.debounce.0.saturating_mul(1000).try_into().unwrap_or(u32::MAX);
    spot.open()?.request(spot.offset, flags, None, debounce_us)
}
