//! `log`: takes what programs write and puts it into files. Two processes: the collector, which takes it into the ring
//! and touches no storage, ever; and the storer, which may wait for storage for as long as that takes.

mod collect;
mod hear;
mod relay;
pub mod store;
mod target;
#[cfg(test)]
mod tests;
mod write;

use std::ffi::OsString;

use crate::config::LogSettings;
use crate::packed;
use crate::sys::log_ring::Ring;
use crate::sys::{console, file, poll};

/// Runs until it is told to end. Its settings are descriptor 0; ring and pipes are inherited.
pub fn main(_: &mut dyn Iterator<Item = OsString>) -> u8 {
    let settings = file::read_memory(poll::borrow(0)).ok();
    let Some(settings) = settings.and_then(|bytes| packed::from_bytes::<LogSettings>(&bytes)) else {
        console::complain("multusd log: only multusd runs this");
        return 2;
    };
    match Ring::map(poll::borrow(settings.ring as i32), true) {
        Ok(ring) => collect::run(&settings, ring),
        Err(error) => {
            console::complain(&error.to_string());
            1
        }
    }
}
