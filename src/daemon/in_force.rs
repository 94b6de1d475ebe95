//! The configuration in force. Programs and what they resolve to are shared with the table's entries, so
//! that nothing is held twice.

use std::rc::Rc;

use crate::config::{Config, Program};

use super::lines::Spot;
use super::spec::{Resolved, Spec};

/// What `apply` puts into force.
#[derive(Clone, Default)]
pub struct InForce {
    /// What the configuration says.
    pub config: Config,
    /// Its programs, resolved, in the same order.
    specs: Vec<Rc<Spec>>,
    /// Members of this group may give orders.
    pub control_group: Option<u32>,
    /// Where its outputs are.
    pub outputs: Vec<Option<Spot>>,
    /// Where its inputs are.
    pub inputs: Vec<Option<Spot>>,
    /// Where the lines of watchdogs are: that which is pulsed, that which enables it.
    pub watchdogs: Vec<[Option<Spot>; 2]>,
    /// What systemd does here: see `watchdog::Systemd`.
    pub systemd: u8,
    /// Lines keep their last level when nobody holds them any more.
    pub lines_persist: bool,
}

impl InForce {
    /// From what was read and what that resolved to; they are of the same length and order.
    pub fn new(config: Config, resolved: Resolved) -> Self {
        let Resolved { specs, control_group, outputs, inputs, watchdogs, systemd, lines_persist } = resolved;
        let specs = specs.into_iter().map(Rc::new).collect();
        InForce { config, specs, control_group, outputs, inputs, watchdogs, systemd, lines_persist }
    }

    /// One program by name.
    pub fn program(&self, name: &str) -> Option<(Rc<Program>, Rc<Spec>)> {
        let index = self.config.programs.iter().position(|program| program.name == name)?;
        Some((self.config.programs[index].clone(), self.specs.get(index)?.clone()))
    }
}
