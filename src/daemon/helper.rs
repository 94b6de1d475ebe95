//! The helper of one output whose driving may wait: a copy of a supervisor that waits in the kernel for an
//! order, does it, and says what came of it. It shares the guard's descriptors with every supervisor of this
//! life, and must close none but its own.

use std::mem::ManuallyDrop;
use std::sync::atomic::Ordering::SeqCst;

use crate::config::{Output, Target};
use crate::sys::output::{OutputSlot, Reading, level, open_file, run};
use crate::sys::page::{Keep, Page};
use crate::sys::{poll, process};

use super::lines::Spot;

/// For as long as the guard lives, or until it is replaced.
pub fn help(page: &Page, slot: &OutputSlot, output: Option<&Output>, spot: Option<&Spot>) -> i32 {
    process::new_session();
    process::set_title(c"multusd-output");
    loop {
        let order = slot.await_order();
        let high = order & 1 == 1;
        let reading = match output.map(|output| &output.target) {
            Some(Target::Command(words)) => {
                let mut words = words.clone();
                words.push(if high { "high" } else { "low" }.into());
                run(&words)
            }
            target => match open(page, slot, target, spot, high) {
                Ok(()) => slot.drive(high),
                Err(errno) => Reading::Failed(errno),
            },
        };
        slot.tell(order, reading);
        if let Some(counter) = page.kept(Keep::Wake) {
            poll::wake(poll::borrow(counter));
        }
    }
}

fn open(
    page: &Page,
    slot: &OutputSlot,
    target: Option<&Target>,
    spot: Option<&Spot>,
    high: bool,
) -> Result<(), i32> {
    if slot.descriptor().is_some() {
        return Ok(());
    }
    // The guard closes what a dead supervisor opened, and takes ours for such until it is kept.
    let restarts = page.supervisor_restarts.load(SeqCst);
    let is_same = || page.supervisor_restarts.load(SeqCst) == restarts;
    let opened = match (target, spot) {
        (Some(Target::Path { path, .. }), _) => open_file(path),
        (_, Some(spot)) => spot.open().and_then(|chip| {
            let chip = ManuallyDrop::new(chip);
            let value = high != slot.level(level::ACTIVE_LOW);
            let line = chip.request(spot.offset, slot.flags.load(SeqCst), Some(value), 0);
            if is_same() {
                drop(ManuallyDrop::into_inner(chip));
            }
            line
        }),
        // A former supervisor's, whose configuration is not known any more.
        _ => return Err(libc::ENODEV),
    };
    let opened = opened.map_err(|error| error.errno)?;
    if slot.keep_if(opened, is_same) { Ok(()) } else { Err(libc::EAGAIN) }
}
