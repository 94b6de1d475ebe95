//! Acceptance 1: each board that QEMU has boots its image to running programs.

use super::card::Card;

#[test]
fn virt_boots_the_image_to_running_programs() {
    boots("qemu-virt");
}

fn boots(board: &str) {
    let card = Card::configured(&format!("boots-{board}"), board, "");
    let mut machine = card.boot();
    machine.all_up();
    assert!(machine.ok("multusctl status").contains("hello"));
    machine.power_off();
    card.check();
}
