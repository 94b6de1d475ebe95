//! Each board that QEMU has boots its image to running programs, one of them put on the card by the
//! test. The Raspberry Pi 3 is in pi3.rs, boards that it has not in foreign.rs.

use std::fs;
use std::panic;

use super::cache;
use super::card::Card;

/// A program of one's own.
const OWN: &str = "copy_programs = yes\n[program:mine]\ncommand = /data/programs/mine\n";

#[test]
fn virt_boots_the_image_to_running_programs() {
    boots("qemu-virt", "");
}

#[test]
fn a_raspberry_pi_zero_boots_the_image_to_running_programs() {
    boots("rpi0", "Raspberry Pi Zero");
}

#[test]
fn a_raspberry_pi_2_boots_the_image_to_running_programs() {
    // Its four processors take turns on a host that may be busy, and the kernel's driver of the card falls over its own
    // time limit of 10 s (bcm2835_finish_data has nothing to finish any more). A board would restart by itself; here it
    // is tried again. Nothing else is forgiven.
    let starved = || {
        let console = cache::folder().join("run/image-boots-rpi2/boot-1/console");
        fs::read(console).is_ok_and(|text| String::from_utf8_lossy(&text).contains("bcm2835_finish_data"))
    };
    for again in [true, true, false] {
        match panic::catch_unwind(|| boots("rpi2", "Raspberry Pi 2 Model B")) {
            Ok(()) => return,
            Err(_) if again && starved() => println!("rpi2: starved, and tried again"),
            Err(cause) => panic::resume_unwind(cause),
        }
    }
}

pub fn boots(board: &str, model: &str) {
    let card = Card::configured(&format!("boots-{board}"), board, OWN);
    card.put("/programs/mine", b"#!/bin/sh\necho here I am\nexec sleep 100000\n");
    let mut machine = card.boot();
    machine.all_up();
    if !model.is_empty() {
        assert_eq!(machine.ok("tr -d '\\000' </proc/device-tree/model"), model);
    }
    let status = machine.status();
    let mine = status.programs.iter().find(|program| program.name == "mine").expect("the test's own program");
    assert_eq!((mine.state.as_str(), mine.restarts), ("running", 0), "{status:?}");
    assert!(machine.ok("multusctl log mine").contains("here I am"));
    assert_eq!(status.config_note, None);
    // What cannot be written to cannot be broken; what must be, can.
    assert!(machine.ok("! touch /etc/x; ! touch /boot/x; touch /data/x && ls /data/x").ends_with("/data/x"));
    machine.power_off();
    card.check();
    let kinds: Vec<u8> = card.partitions().iter().map(|partition| partition.kind).collect();
    assert_eq!(kinds, [0x0c, 0x83, 0x83]);
}
