//! The Raspberry Pi 3 of QEMU, and on it the quick start as docs/image.md has it: a program of one's own, its output, its data, and the watchdog that Linux lends it.

use super::card::{Card, system_lines};
use super::guest::guest_seconds;
use super::running::Running;

/// Where the levels of lines 0 to 31 are read, and where they are set: BCM2835 ARM Peripherals, 6.1.
const GPLEV0: u64 = 0x3f20_0034;
const GPSET0: u64 = 0x3f20_001c;
/// The lines of the lamp and of a bell, by the numbers of the 40-pin header.
const LAMP: u32 = 17;
const BELL: u32 = 22;
/// Not started by itself, and dead when it is dead.
const BELL_SECTIONS: &str = "[output:bell]\ngpio = 22\nsafe = low\nrunning = high\n\
    [program:bell]\ncommand = sleep 100000\noutputs = bell\nautostart = false\nautorestart = false\n";

/// The fenced block of the quick start that is written in this language.
pub fn documented(language: &str) -> &'static str {
    let guide = include_str!("../../docs/image.md");
    let (_, rest) =
        guide.split_once(&format!("\n```{language}\n")).expect("the quick start has such a block");
    rest.split_once("```").expect("its end").0
}

/// A text as an editor of another system saves it.
pub fn of_notepad(text: &str) -> Vec<u8> {
    format!("\u{feff}{}", text.replace('\n', "\r\n")).into_bytes()
}

fn level(machine: &mut Running, line: u32) -> bool {
    machine.register(GPLEV0) & (1 << line) != 0
}

fn await_level(machine: &mut Running, line: u32, level: bool) {
    machine.await_register(GPLEV0, 1 << line, if level { 1 << line } else { 0 }, guest_seconds(30));
}

/// Kills a program's process itself.
fn shoot(machine: &mut Running, signal: &str, program: &str) {
    let status = machine.status();
    let pid = status.programs.iter().find(|found| found.name == program).and_then(|found| found.pid);
    machine.ok(&format!("kill -{signal} {}", pid.unwrap_or_else(|| panic!("{program} does not run"))));
}

#[test]
fn the_quick_start_lights_a_lamp_on_a_raspberry_pi_3_and_whatever_fails_leaves_it_dark() {
    let card = Card::flashed("pi3", "rpi3-64");
    // QEMU resets the machine as soon as its Broadcom watchdog is opened; softdog, which the image has as the second
    // one, stands in for it.
    let section = documented("ini").replace("[watchdog]\n", "[watchdog]\ndevice = /dev/watchdog1\n");
    let section = section.replace("[system]\n", &format!("[system]\n{}", system_lines()));
    let config = format!("{}\n{section}{BELL_SECTIONS}", card.text("/multusd.cfg"));
    card.put("/multusd.cfg", &of_notepad(&config));
    card.put("/programs/lamp.sh", &of_notepad(documented("sh")));

    let mut machine = card.power_on();
    // Something outside pulls both lines up: only who drives them low gets them low.
    machine.set_register(GPSET0, 1 << LAMP | 1 << BELL);
    assert!(level(&mut machine, LAMP) && level(&mut machine, BELL));
    machine.log_in();
    machine.all_up();
    assert_eq!(machine.ok("tr -d '\\000' </proc/device-tree/model"), "Raspberry Pi 3 Model B");
    await_level(&mut machine, LAMP, true);
    assert!(!level(&mut machine, BELL), "an output is safe before its program has ever run");

    // By order and by force.
    machine.ok("multusctl start bell --wait");
    await_level(&mut machine, BELL, true);
    shoot(&mut machine, "KILL", "bell");
    await_level(&mut machine, BELL, false);
    for signal in ["KILL", "STOP"] {
        shoot(&mut machine, signal, "lamp");
        await_level(&mut machine, LAMP, false);
        await_level(&mut machine, LAMP, true);
    }
    let status = machine.status();
    let lamp = status.programs.iter().find(|program| program.name == "lamp").expect("the lamp");
    assert_eq!((lamp.state.as_str(), lamp.restarts), ("running", 2), "{lamp:?}");
    assert!(!level(&mut machine, BELL));

    // The watchdog, and what is kept.
    assert_eq!(machine.ok("cat /sys/class/watchdog/watchdog1/identity"), "Software Watchdog");
    assert!(machine.ok("multusctl watchdog").contains("/dev/watchdog1: resets after 10s"));
    machine.ok("echo kept >/data/kept; multusctl reboot");
    machine.log_in_after_reset(guest_seconds(60));
    assert_eq!(machine.ok("cat /data/kept"), "kept");
    machine.all_up();
    await_level(&mut machine, LAMP, true);

    // Nobody feeds.
    let status = machine.status();
    let began = machine.moment();
    machine.ok(&format!("kill -STOP {} {}", status.guard_pid, status.supervisor_pid));
    machine.await_event("RESET", guest_seconds(30));
    let passed = machine.passed(&began);
    println!("raspi3b, supervisor and guard stopped: reset after {passed}, timeout 10 s");
    assert!(passed.is_within(11.0), "{passed}");
    machine.cut_power();
    card.check();
    let got = card.data("/kept");
    assert_eq!(got.as_deref(), Some(&b"kept\n"[..]));
}
