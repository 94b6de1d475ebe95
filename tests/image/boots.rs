//! Acceptance 1: each board that QEMU has boots its image to running programs, one of them put on the card by the
//! test. The Raspberry Pi 3 is in pi3.rs.

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
    boots("rpi2", "Raspberry Pi 2 Model B");
}

fn boots(board: &str, model: &str) {
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
