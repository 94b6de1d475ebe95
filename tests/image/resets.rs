//! Whatever stops multusd while an output is live ends in a reset within the watchdog's time; and what
//! brings multusd back, without one.

use super::card::Card;
use super::ending::Ending;
use super::guest::guest_seconds;
use super::running::{Moment, Running};

const TIMEOUT_S: u32 = 4;
/// Of virt's PL061.
const RELAY: u32 = 5;
const SECTIONS: &str = "[watchdog]\ntimeout = 4s\n\
    [output:relay]\ngpio = 9030000.pl061:5\nsafe = low\nrunning = high\n\
    [program:pump]\ncommand = sleep 100000\noutputs = relay\n";

/// The machine resets, soon enough, and nothing is live when it does.
fn reset(machine: &mut Running, what: &str, began: &Moment) {
    machine.await_event("RESET", guest_seconds(30));
    let passed = machine.passed(began);
    println!("{what}: reset after {passed}, timeout {TIMEOUT_S} s");
    assert!(passed.is_within(f64::from(TIMEOUT_S + 1)), "{what}: {passed}");
    assert!(!machine.line(RELAY));
    machine.forget_fate();
    machine.log_in();
    machine.all_up();
    machine.await_line(RELAY, true, guest_seconds(30));
}

/// The next life knows why it began.
fn says_it_was_the_watchdog(machine: &mut Running) {
    assert_eq!(machine.ok("cat /sys/class/watchdog/watchdog0/bootstatus"), "32");
    let shown = machine.ok("multusctl watchdog");
    assert!(shown.contains("the last reset was the watchdog's"), "{shown}");
    let reasons = machine.ok("multusctl reasons; multusctl status");
    let told = reasons.matches("reset by the watchdog: multusd or the kernel hung").count();
    assert!(told >= 2, "both say it: {reasons}");
}

fn pids(machine: &mut Running) -> String {
    let status = machine.status();
    format!("{} {}", status.guard_pid, status.supervisor_pid)
}

#[test]
fn killed_stopped_or_panicked_with_a_live_output_is_a_reset_within_the_timeout_and_a_second() {
    let card = Card::configured("resets", "qemu-virt", SECTIONS);
    let mut machine = card.boot();
    machine.all_up();
    machine.await_line(RELAY, true, guest_seconds(30));
    assert_eq!(machine.ok("cat /sys/class/watchdog/watchdog0/identity"), "i6300ESB timer");
    let shown = machine.ok("multusctl watchdog");
    assert!(shown.contains("/dev/watchdog: resets after 4.0s"), "{shown}");

    // Killed, and init starts it again: safe, and then as before, without a reset.
    let (before, began) = (pids(&mut machine), machine.moment());
    machine.ok(&format!("kill -KILL {before}"));
    machine.await_line(RELAY, false, guest_seconds(30));
    println!("killed, and started by init: output safe after {:.1}", machine.passed(&began));
    machine.await_line(RELAY, true, guest_seconds(30));
    println!("killed, and started by init: all as before after {}", machine.passed(&began));
    assert_ne!(pids(&mut machine), before);
    machine.ok("sleep 6; multusctl watchdog");
    assert!(machine.event("WATCHDOG").is_none() && machine.event("RESET").is_none());

    // Killed, and there is nothing any more that init could start.
    let before = pids(&mut machine);
    machine.ok("mount --bind /dev/null /usr/sbin/multusd");
    let began = machine.moment();
    machine.ok(&format!("kill -KILL {before}"));
    reset(&mut machine, "guard and supervisor killed", &began);
    says_it_was_the_watchdog(&mut machine);

    let before = pids(&mut machine);
    let began = machine.moment();
    machine.ok(&format!("kill -STOP {before}"));
    assert!(machine.line(RELAY), "live until the end");
    reset(&mut machine, "guard and supervisor stopped", &began);
    says_it_was_the_watchdog(&mut machine);

    // A kernel that panics restarts by itself (panic=1 in cmdline.txt).
    let began = machine.moment();
    let ending = machine.order("echo c >/proc/sysrq-trigger").expect_err("a dead kernel does not answer");
    assert_eq!(ending, Ending::Panicked { reason: "sysrq triggered crash".into() });
    reset(&mut machine, "kernel panicked", &began);
    machine.ok("multusctl watchdog");
    let reasons = machine.ok("multusctl reasons; multusctl status");
    println!("{reasons}");
    assert!(
        reasons.matches("without an order: power lost, reset or kernel failure").count() >= 2,
        "{reasons}"
    );
    machine.power_off();
    card.check();
}
