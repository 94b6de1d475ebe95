//! Where a GPIO line is: found by what its wiring is called, never by the number of its chip, which is
//! the order in which this boot found the chips. Looks at /dev and asks every chip, so never in the loop.

use std::path::Path;
use std::sync::atomic::Ordering::SeqCst;

use crate::config::{Line, Watchdog, WatchdogTarget};
use crate::packed::packed;
use crate::sys::gpio::{self, Chip};
use crate::sys::{file, process};

use super::Daemon;
use super::inputs::Input;
use super::jobs::Job;
use super::outputs::Output;

/// Chips whose lines are those of the 40-pin header, by their numbers: one of them on each Raspberry Pi.
const HEADER_CHIPS: [&str; 3] = ["pinctrl-bcm2835", "pinctrl-bcm2711", "pinctrl-rp1"];

/// A line that was found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Spot {
    /// Its chip's number in /dev/gpiochipN, for as long as this machine runs.
    pub chip: u32,
    /// Its number on the chip.
    pub offset: u32,
    /// Driving it may wait.
    pub may_wait: bool,
}

packed!(Spot { chip, offset, may_wait });

impl Spot {
    /// The chip.
    pub fn open(&self) -> Result<Chip, crate::sys::SysError> {
        Chip::open(self.chip)
    }
}

/// Finds a line; `Err`: why not, in words.
pub fn find(line: &Line) -> Result<Spot, String> {
    let mut found = Vec::new();
    let mut candidates = String::new();
    for number in gpio::chips() {
        let Ok(chip) = Chip::open(number) else { continue };
        let mut add = |offset: u32| {
            let words = [" ", chip.label(), ":", &offset.to_string(), " (gpiochip", &number.to_string(), ")"];
            candidates += &words.concat();
            found.push((Spot { chip: number, offset, may_wait: gpio::may_wait(number) }, chip.line_count()));
        };
        match line {
            Line::Header(offset) if HEADER_CHIPS.contains(&chip.label()) => add(*offset),
            Line::Offset { chip: label, offset } if chip.label() == label => add(*offset),
            Line::Name(name) => {
                (0..chip.line_count()).filter(|offset| chip.line_is_called(*offset, name)).for_each(add);
            }
            _ => {}
        }
    }
    match found.len() {
        0 => Err(match line {
            Line::Header(_) => "no chip of a Raspberry Pi's header is here".into(),
            Line::Offset { chip, .. } => ["no chip is called ", chip].concat(),
            Line::Name(name) => ["no line is called ", name].concat(),
        }),
        1 => match found.remove(0) {
            (spot, count) if spot.offset < count => Ok(spot),
            (_, count) => Err(["the chip has ", &count.to_string(), " lines"].concat()),
        },
        _ => Err(["more than one is called so:", &candidates].concat()),
    }
}

/// Whether lines keep their last level when nobody holds them any more: drivers of the Raspberry Pi can be told so
/// by a parameter, and in its own kernels are unless somebody says otherwise. Of other drivers nothing is known.
pub fn persist(root: &Path) -> bool {
    ["bcm2835", "rp1"].iter().any(|driver| {
        let path = ["sys/module/pinctrl_", driver, "/parameters/persist_gpio_outputs"].concat();
        file::read_bounded(&root.join(path), 16).is_ok_and(|text| text.starts_with(b"Y"))
    })
}

/// The line that is pulsed, and that which enables.
pub fn of_watchdog(watchdog: &Watchdog) -> [Option<&Line>; 2] {
    match &watchdog.target {
        WatchdogTarget::Device(_) => [None, None],
        WatchdogTarget::Pulse { feed, enable, .. } => [Some(feed), enable.as_ref()],
    }
}

/// A line in the words of the configuration.
pub fn words(line: &Line) -> String {
    match line {
        Line::Header(number) => ["gpio ", &number.to_string()].concat(),
        Line::Offset { chip, offset } => [chip, ":", &offset.to_string()].concat(),
        Line::Name(name) => name.clone(),
    }
}

impl Daemon {
    /// Has lines looked up that were not found, one at a time, by a job.
    pub(super) fn look_for_lines(&mut self) {
        let slot = self.page.job(Job::Find as usize);
        if slot.is_alive() || self.sought.is_some() {
            return;
        }
        let outputs = self.outputs.iter().filter_map(Output::sought);
        let board = outputs.chain(self.inputs.iter().filter_map(Input::sought));
        let (watchdogs, spots) = (&self.in_force.config.board.watchdogs, &self.in_force.watchdogs);
        let watchdogs = watchdogs.iter().zip(spots).flat_map(|(watchdog, spots)| {
            let lines = of_watchdog(watchdog).into_iter().zip(spots);
            lines.filter_map(|(line, spot)| line.filter(|_| spot.is_none()))
        });
        let all = board.chain(watchdogs);
        // Another one each time.
        let count = all.clone().count();
        self.seeks = self.seeks.wrapping_add(1);
        let Some(line) = all.cycle().nth(self.seeks as usize % count.max(1)).cloned() else { return };
        slot.flags.store(0, SeqCst);
        let started = process::spawn_job(slot, 1, || match find(&line) {
            Ok(spot) => {
                let (chip, wait) = (u64::from(spot.chip), u64::from(spot.may_wait));
                slot.answer.store(chip << 33 | wait << 32 | u64::from(spot.offset), SeqCst);
                0
            }
            Err(_) => 1,
        });
        self.sought = started.is_ok().then_some(line);
    }

    /// The job has ended.
    pub(super) fn take_found_line(&mut self, code: i32) {
        let answer = self.page.job(Job::Find as usize).answer.load(SeqCst);
        let Some(line) = self.sought.take().filter(|_| code == 0) else { return };
        let spot =
            Spot { chip: (answer >> 33) as u32, offset: answer as u32, may_wait: answer >> 32 & 1 == 1 };
        for output in self.outputs.iter_mut().filter(|output| output.sought() == Some(&line)) {
            output.found(self.page, &spot);
        }
        for input in self.inputs.iter_mut().filter(|input| input.sought() == Some(&line)) {
            input.spot = Some(spot.clone());
        }
        let watchdogs = self.in_force.config.board.watchdogs.iter().zip(&mut self.in_force.watchdogs);
        for (watchdog, spots) in watchdogs {
            for (wanted, place) in of_watchdog(watchdog).into_iter().zip(spots) {
                if place.is_none() && wanted == Some(&line) {
                    *place = Some(spot.clone());
                    self.watch.try_again_at_once();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_persist_where_a_driver_says_so_and_nowhere_else() {
        let root = std::env::temp_dir().join(format!("multusd-persist-{}", std::process::id()));
        assert!(!persist(&root), "no such driver");
        for driver in ["bcm2835", "rp1"] {
            let folder = root.join(format!("sys/module/pinctrl_{driver}/parameters"));
            std::fs::create_dir_all(&folder).unwrap();
            let path = folder.join("persist_gpio_outputs");
            std::fs::write(&path, "Y\n").unwrap();
            assert!(persist(&root), "{driver}");
            std::fs::write(&path, "N\n").unwrap();
            assert!(!persist(&root), "{driver}");
        }
        std::fs::remove_dir_all(root).unwrap();
    }
}
