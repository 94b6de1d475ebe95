//! With a broken file on the card the board does what it did before, or nothing; and says so.

use super::card::{Card, system_lines};
use super::guest::guest_seconds;
use super::pi3::of_notepad;
use super::running::PROMPT;

/// Of virt's PL061.
const RELAY: u32 = 5;
const SECTIONS: &str = "[output:relay]\ngpio = 9030000.pl061:5\nsafe = low\nrunning = high\n\
    [program:pump]\ncommand = sleep 100000\noutputs = relay\n";

/// The file with an error, and the line it is in.
fn broken(card: &Card) -> usize {
    let text = format!("{}safe = hihg\n", card.text("/multusd.cfg"));
    card.put("/multusd.cfg", &of_notepad(&text));
    text.lines().count()
}

#[test]
fn a_broken_file_leaves_the_last_good_configuration_in_force_and_is_told_of() {
    let card = Card::configured("broken", "qemu-virt", SECTIONS);
    let mut machine = card.boot();
    machine.all_up();
    assert!(machine.line(RELAY));
    machine.power_off();

    let good = card.text("/multusd.cfg");
    let line = broken(&card);
    let mut machine = card.power_on();
    assert!(!machine.line(RELAY));
    let said = machine.log_in();
    let place = format!("multusd.cfg:{line}");
    assert!(
        said.contains(&place) && said.contains("the last good configuration is in force"),
        "{place}: {said}"
    );
    machine.all_up();
    machine.await_line(RELAY, true, guest_seconds(30));
    let shown = machine.ok("multusctl status");
    assert!(shown.contains("the last good configuration is in force") && shown.contains(&place), "{shown}");
    // Its owner has gone: the output is as safe as ever.
    machine.ok("multusctl stop pump --wait");
    machine.await_line(RELAY, false, guest_seconds(30));

    // Repaired on the running board.
    machine.ok(&format!(
        "mount -o remount,rw /boot && head -n {} /boot/multusd.cfg >/tmp/good && cat /tmp/good >/boot/multusd.cfg && \
         mount -o remount,ro /boot && multusctl reload",
        line - 1
    ));
    assert_eq!(machine.status().config_note, None);
    machine.power_off();
    assert_eq!(card.text("/multusd.cfg").trim_start_matches('\u{feff}'), good);

    // What an editor leaves that was cut off as it began: no wish to run nothing, and no reason to forget what ran.
    card.put("/multusd.cfg", b"");
    let mut machine = card.boot();
    machine.all_up();
    let shown = machine.ok("multusctl status");
    assert!(shown.contains("in force, because: /boot/multusd.cfg: has no section"), "{shown}");
    assert!(machine.line(RELAY));
    machine.power_off();
    card.check();
}

#[test]
fn a_very_first_boot_with_a_broken_file_drives_nothing_lets_nobody_in_and_says_where_it_is_wrong() {
    let card = Card::flashed("broken-first", "qemu-virt");
    let good = format!("{}\n[system]\n{}{SECTIONS}", card.text("/multusd.cfg"), system_lines());
    card.put("/multusd.cfg", good.as_bytes());
    let line = broken(&card);
    let mut machine = card.power_on();
    let said = machine.said(guest_seconds(120), PROMPT);
    assert!(said.contains(&format!("multusd.cfg:{line}")), "{line}: {said}");
    // It is to be reached and helped, not more.
    assert!(said.contains("network") && !said.contains("pump  "), "{said}");
    assert!(!machine.line(RELAY));
    machine.send("\n");
    machine.said(guest_seconds(60), "Nobody can log in here");
    let said = machine.said(guest_seconds(60), PROMPT);
    assert!(!said.contains("login:"), "{said}");
    assert!(!machine.line(RELAY));
    machine.cut_power();

    // Repaired on a laptop.
    card.put("/multusd.cfg", &of_notepad(&good));
    let mut machine = card.boot();
    machine.all_up();
    assert!(machine.line(RELAY));
    assert_eq!(machine.status().config_note, None);
    machine.power_off();
    card.check();
}
