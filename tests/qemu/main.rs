//! Tests with whole machines: multusd's hardware in QEMU, and the driver by which every such test is ten
//! lines. `cargo test --test qemu`; README.md beside this file says how to write one.
#![allow(dead_code, reason = "the driver offers more than today's tests use")]

mod boot;
mod cache;
mod children;
mod cpio;
mod ending;
mod gpio_sim;
mod guest;
#[path = "../harness/mod.rs"]
mod harness;
mod init_roads;
mod io;
mod latency;
mod machine;
mod netem;
mod outputs;
mod qmp;
mod shipped;
mod watchdog;
mod wire;

use std::time::Instant;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use boot::Boot;
use ending::Ending;
use guest::{Guest, guest_seconds};

/// Of the interrupt controller of `virt`: 0 turns every interrupt off.
const GIC_CONTROL: u64 = 0x0800_0000;

#[test]
fn orders_are_answered_with_output_and_exit_code() {
    let mut guest = Guest::restored("orders");
    assert_eq!(guest.ok("echo one; echo two >&2"), "one\ntwo");
    assert_eq!(guest.order("exit 7").map(|reply| reply.code), Ok(7));
    assert_eq!(guest.order("if then").map(|reply| reply.code), Ok(2), "a syntax error is an exit code, too");
    assert_eq!(guest.ok("printf 'a\\\\b'\nprintf '%s' \"c\nd\""), "a\\bc\nd", "lines and backslashes arrive");
    let reply = guest.order("printf '\\000\\001\\377\\036no mark'").expect("a reply");
    assert_eq!(reply.bytes, b"\0\x01\xff\x1eno mark", "bytes arrive as they are, without a line end too");
    let long = guest.ok_within(guest_seconds(60), "seq 1 100000");
    assert_eq!(long.lines().count(), 100_000);
    assert!(long.ends_with("\n99999\n100000"));
    let began = Instant::now();
    for n in 0..50 {
        assert_eq!(guest.ok(&format!("echo {n}")), n.to_string());
    }
    println!("50 orders: {:.2} s", began.elapsed().as_secs_f64());
}

#[test]
fn files_come_in_and_go_out_unchanged() {
    let mut guest = Guest::restored("files");
    let bytes: Vec<u8> = (0..3_000_000u32).map(|n| (n.wrapping_mul(n) >> 7) as u8).collect();
    guest.put_bytes(&bytes, 0o644, "/tmp/deep/er/large");
    assert!(guest.get("/tmp/deep/er/large") == bytes);
    // The same place of the disk again: nothing of the first file is remembered.
    guest.put_bytes(b"#!/bin/sh\necho it runs\n", 0o755, "/tmp/script");
    assert_eq!(guest.ok("/tmp/script"), "it runs");
    guest.put(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/qemu/guest/agent"), "/tmp/agent");
    assert_eq!(guest.get("/tmp/agent"), include_bytes!("guest/agent"));
    assert_eq!(guest.ok("stat -c %a /tmp/agent"), "755");
}

#[test]
fn a_killed_qemu_is_reported_as_that() {
    let mut guest = Guest::restored("killed");
    guest.ok("echo these were its last words >/dev/console");
    kill(Pid::from_raw(guest.qemu_pid() as i32), Signal::SIGKILL).expect("QEMU lives");
    let ending = guest.order("true").expect_err("a dead QEMU does not answer");
    assert_eq!(ending, Ending::QemuKilled { signal: 9 });
    assert_eq!(ending.to_string(), "QEMU was killed by signal 9");
    assert!(guest.console_tail().contains("these were its last words"), "{}", guest.console_tail());
}

#[test]
fn a_panicking_kernel_is_reported_with_its_reason() {
    let mut guest = Guest::restored("panic");
    let ending = guest.order("echo c >/proc/sysrq-trigger").expect_err("a dead kernel does not answer");
    let Ending::Panicked { reason } = &ending else { panic!("{ending}\n{}", guest.console_tail()) };
    assert_eq!(reason, "sysrq triggered crash");
    let tail = guest.console_tail();
    assert!(tail.contains("sysrq: Trigger a crash") && tail.contains("Kernel panic"), "{tail}");
    // And the machine comes up again, as one with a panic timeout does.
    guest.await_reboot(guest_seconds(60));
    assert!(guest.order("true").is_ok());
}

#[test]
fn a_silent_guest_is_reported_within_its_limit_whatever_silenced_it() {
    let mut guest = Guest::restored("silent");
    let silent = |order: &str| Err(Ending::Silent { order: order.into(), guest_seconds: 3 });
    let limit = guest_seconds(3);

    // Busy: the answer comes late, and is not taken for the next one's.
    assert_eq!(guest.order_within(limit, "sleep 8; echo late"), silent("sleep 8; echo late"));
    assert_eq!(guest.ok("echo next"), "next");

    // The agent frozen. No process can be asked any more, only the hardware.
    assert_eq!(guest.order_within(limit, "kill -STOP $$"), silent("kill -STOP $$"));

    // The kernel deaf: the interrupt controller passes nothing on, the timer's tick included.
    guest.press_reset();
    guest.await_reboot(guest_seconds(60));
    guest.set_register(GIC_CONTROL, 0);
    let ending = guest.order_within(limit, "sleep 1").expect_err("no interrupt, no end of a sleep");
    assert_eq!(ending.to_string(), "no answer to \"sleep 1\" within 3 s of guest time");
}

#[test]
fn a_machine_that_qemu_holds_is_no_hung_guest() {
    let mut guest = Guest::restored("stopped");
    guest.qmp("stop", "{}");
    assert_eq!(guest.order("echo late"), Err(Ending::Stopped));
    guest.qmp("cont", "{}");
    assert_eq!(guest.ok("echo next"), "next");
}

#[test]
fn a_reset_and_a_power_off_are_told_apart() {
    let mut guest = Guest::restored("ends");
    guest.press_reset();
    guest.await_event("RESET", guest_seconds(10));
    assert_eq!(guest.order("true"), Err(Ending::Reset));
    drop(guest);
    let mut guest = Guest::restored("ends");
    assert_eq!(guest.order("poweroff -f; sleep 20"), Err(Ending::PoweredOff));
}

#[test]
fn the_watchdog_bites_when_nobody_feeds_it() {
    let mut guest = Guest::restored("watchdog-bites");
    assert_eq!(guest.ok("cat /sys/class/watchdog/watchdog0/identity"), "i6300ESB timer");
    guest.ok("watchdog -T 5 -t 1000 /dev/watchdog");
    let bite = guest.await_event("WATCHDOG", guest_seconds(20));
    assert_eq!(bite.data.action.as_deref(), Some("reset"));
    assert_eq!(guest.order("true"), Err(Ending::WatchdogBit));
}

#[test]
fn a_watchdog_bite_is_remembered_by_the_next_boot() {
    let mut guest = Guest::restored("watchdog-reboot");
    guest.ok("watchdog -T 2 -t 1000 /dev/watchdog");
    guest.await_reboot(guest_seconds(30));
    // WDIOF_CARDRESET
    assert_eq!(guest.ok("cat /sys/class/watchdog/watchdog0/bootstatus"), "32");
}

#[test]
fn a_fed_watchdog_stays_quiet() {
    let mut guest = Guest::restored("watchdog-fed");
    guest.ok("watchdog -T 6 -t 1 /dev/watchdog");
    guest.ok("sleep 15");
    assert!(guest.event("WATCHDOG").is_none());
    // And it was awake all the time.
    guest.ok("killall -STOP watchdog");
    guest.await_event("WATCHDOG", guest_seconds(20));
}

/// Makes a line of the chip with this label known in sysfs; its folder.
fn exported(guest: &mut Guest, label: &str, line: u32) -> String {
    let base = guest.ok(&format!(
        "for chip in /sys/class/gpio/gpiochip*; do\n\
         case $(cat $chip/label) in *{label}*) cat $chip/base;; esac; done"
    ));
    let number = base.parse::<u32>().expect("the number of its first line") + line;
    guest.ok(&format!("echo {number} >/sys/class/gpio/export"));
    format!("/sys/class/gpio/gpio{number}")
}

/// How often a line that sysfs watches has interrupted.
const EDGES: &str = "awk '/gpiolib/ { print $2 }' /proc/interrupts";

#[test]
fn a_level_and_its_edges_arrive_in_the_guest() {
    let mut guest = Guest::restored("gpio-in");
    let line = exported(&mut guest, "pl061", 4);
    guest.ok(&format!("echo in >{line}/direction; echo both >{line}/edge"));
    assert_eq!((guest.ok(&format!("cat {line}/value")), guest.ok(EDGES)), ("0".into(), "0".into()));
    for (level, count) in [(true, "1"), (false, "2"), (true, "3")] {
        guest.set_line(4, level);
        assert_eq!(guest.ok(&format!("cat {line}/value")), u32::from(level).to_string());
        assert_eq!(guest.ok(EDGES), count);
    }
}

#[test]
fn an_output_of_the_guest_is_seen_outside() {
    let mut guest = Guest::restored("gpio-out");
    let line = exported(&mut guest, "pl061", 6);
    guest.ok(&format!("echo low >{line}/direction"));
    assert!(!guest.line(6));
    guest.ok(&format!("echo 1 >{line}/value"));
    assert!(guest.line(6));
    guest.ok(&format!("(sleep 2; echo 0 >{line}/value) >/dev/null 2>&1 &"));
    guest.await_line(6, false, guest_seconds(20));
    assert!(!guest.line(5), "and no other");
}

#[test]
fn a_simulated_chip_has_many_lines_with_levels_and_edges() {
    let mut guest = Guest::restored("gpio-sim");
    let chip = guest.sim_chip("bench", 32);
    guest.ok(&format!("test -c /dev/{}", chip.name));
    let input = exported(&mut guest, "bench", 31);
    guest.ok(&format!("echo in >{input}/direction; echo both >{input}/edge"));
    for (up, count) in [(true, "1"), (false, "2"), (true, "3")] {
        guest.pull(&chip, 31, up);
        assert_eq!(guest.ok(&format!("cat {input}/value")), u32::from(up).to_string());
        assert_eq!(guest.ok(EDGES), count);
    }
    let output = exported(&mut guest, "bench", 17);
    guest.ok(&format!("echo high >{output}/direction"));
    assert!(guest.sim_line(&chip, 17) && !guest.sim_line(&chip, 16));
    guest.ok(&format!("echo 0 >{output}/value"));
    assert!(!guest.sim_line(&chip, 17));
}

#[test]
fn a_restored_guest_is_fresh_and_has_what_multusd_needs() {
    let mut guest = Guest::restored("fresh");
    guest.ok("touch /root/left /tmp/left; mkdir /sys/fs/cgroup/left; echo 1 >/proc/sys/kernel/panic");
    drop(guest);
    let mut guest = Guest::restored("fresh");
    assert_eq!(
        guest.ok("ls -d /root/left /tmp/left /sys/fs/cgroup/left 2>/dev/null; cat /proc/sys/kernel/panic"),
        "-1"
    );
    assert_eq!(guest.ok("cat /sys/fs/cgroup/cgroup.subtree_control"), "memory pids");
    guest.ok("mkdir /sys/fs/cgroup/a && cat /sys/fs/cgroup/a/memory.max /sys/fs/cgroup/a/pids.max /sys/fs/cgroup/a/cgroup.kill 2>&1 | grep -c max");
    assert_eq!(guest.ok("awk '$2 == \"/run\" { print $3 }' /proc/mounts"), "tmpfs");
    guest.ok("ping -c 1 127.0.0.1");
}

#[test]
fn idle_time_is_skipped_with_icount() {
    let mut guest = Guest::restored_from("icount", &Boot::virt().icount());
    let began = Instant::now();
    let uptime = |text: String| text.parse::<f64>().expect("a number of seconds");
    let read = "cut -d' ' -f1 /proc/uptime";
    let before = uptime(guest.ok(read));
    guest.ok_within(guest_seconds(2000), "sleep 200");
    let passed = uptime(guest.ok(read)) - before;
    println!("icount: {passed:.0} s of the guest in {:.2} s", began.elapsed().as_secs_f64());
    assert!(passed >= 200.0, "{passed}");
    assert!(began.elapsed().as_secs() < 100, "nothing was skipped");
}

#[test]
fn a_raspberry_pi_boots_and_answers_on_its_console() {
    let mut guest = Guest::raspi3b("raspi3b");
    assert!(guest.ok("cat /proc/device-tree/model").starts_with("Raspberry Pi 3 Model B"));
    assert_eq!(guest.ok("cat /sys/class/watchdog/watchdog0/identity"), "Software Watchdog");
    assert_eq!(guest.ok("seq 1 1000").lines().count(), 1000);
    assert!(matches!(
        guest.order("echo c >/proc/sysrq-trigger"),
        Err(Ending::Panicked { reason }) if reason == "sysrq triggered crash"
    ));
}
