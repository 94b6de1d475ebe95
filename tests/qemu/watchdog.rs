//! Watchdogs with hardware to bite: an i6300esb, and lines of a PL061. Time in the guest is counted by
//! instructions and idle time skipped, so that a busy host starves nothing.

use super::boot::Boot;
use super::ending::Ending;
use super::guest::{Guest, guest_seconds};
use super::shipped::{CTL, executable};

const SYS: &str = "/sys/class/watchdog/watchdog0";
const LAMP: &str = "[program:lamp]\ncommand = sleep 100000\nstartsecs = 0\n";

fn equipped(name: &str) -> Guest {
    let mut guest = Guest::restored_from(name, &Boot::virt().icount());
    equip(&mut guest);
    guest
}

fn equip(guest: &mut Guest) {
    guest.put(executable("aarch64"), "/bin/multusd");
    guest.ok("ln -sf multusd /bin/multusctl");
}

/// What starts multusd with this configuration and waits until it answers.
fn starting(config: &str) -> String {
    format!(
        "cat >/etc/multusd.cfg <<'END'\n{config}END\n\
         (multusd --run-dir /run/multusd >/tmp/multusd.log 2>&1 </dev/null &)\n\
         until {CTL} status >/dev/null 2>&1; do sleep 0.05; done"
    )
}

fn start(guest: &mut Guest, config: &str) {
    guest.ok(&starting(config));
}

/// The children of the guard, or it, by name: `multusd-superv`, `multusd`.
fn pid(guest: &mut Guest, name: &str) -> String {
    guest.ok(&format!("grep -lx '{name}' /proc/[0-9]*/comm | cut -d/ -f3 | sort -n | head -n 1"))
}

fn sys(guest: &mut Guest, name: &str) -> String {
    guest.ok(&format!("cat {SYS}/{name}"))
}

#[test]
fn a_watchdog_is_armed_fed_through_everything_and_disarmed_by_order_only() {
    let mut guest = equipped("watchdog-life");
    start(&mut guest, &format!("[watchdog]\ntimeout = 5s\npretimeout = 2s\n{LAMP}"));
    assert_eq!((sys(&mut guest, "state"), sys(&mut guest, "timeout")), ("active".into(), "5".into()));
    let shown = guest.ok(&format!("{CTL} watchdog; true"));
    assert!(shown.contains("/dev/watchdog: resets after 5.0s"), "{shown}");
    guest.ok_within(guest_seconds(120), "sleep 60");
    assert!(guest.event("WATCHDOG").is_none(), "fed for a minute");
    guest.ok(&format!("{CTL} watchdog | grep -E 'fed [01]\\.[0-9]s ago'"));

    // Supervisors die, one stands still; their successors feed on, with what was opened once.
    for signal in ["KILL", "STOP", "KILL"] {
        let before = pid(&mut guest, "multusd-superv");
        let order = format!(
            "kill -{signal} {before}; while [ -e /proc/{before} ]; do sleep 0.1; done\n\
             until {CTL} status >/dev/null 2>&1; do sleep 0.05; done; sleep 7"
        );
        guest.ok_within(guest_seconds(60), &order);
    }
    assert!(guest.event("WATCHDOG").is_none(), "three takeovers");
    guest.ok(&format!("{CTL} status | grep 'supervisor replaced 3 times'; {CTL} watchdog"));

    // The wall clock is no clock.
    for date in ["2045-06-01 12:00", "1985-06-01 12:00", "2026-01-01 00:00"] {
        guest.ok(&format!("date -s '{date}'; sleep 8"));
    }
    assert!(guest.event("WATCHDOG").is_none(), "the clock was set by years");
    guest.ok(&format!("{CTL} status | grep -E 'lamp +running +[0-9]+ .* 0$'; {CTL} watchdog"));

    // A reload that changes it changes it; one that takes it away is an order to disarm.
    let mut reload = |config: &str| {
        guest.ok(&format!("cat >/etc/multusd.cfg <<'END'\n{config}END\n{CTL} reload"));
        (sys(&mut guest, "state"), sys(&mut guest, "timeout"))
    };
    assert_eq!(reload(&format!("[watchdog]\ntimeout = 9s\n{LAMP}")), ("active".into(), "9".into()));
    assert_eq!(reload(LAMP).0, "inactive");
    assert_eq!(reload(&format!("[watchdog]\ntimeout = 4s\n{LAMP}")), ("active".into(), "4".into()));

    // And so is the end, when it is ordered.
    guest.ok(&format!("{CTL} quit --wait; sleep 20"));
    assert_eq!(sys(&mut guest, "state"), "inactive");
    assert!(guest.event("WATCHDOG").is_none());
}

#[test]
fn a_timeout_that_the_driver_does_not_take_becomes_the_nearest_and_that_is_said() {
    let mut guest = equipped("watchdog-range");
    for (asked, got) in [("2h", "2046"), ("1500ms", "2")] {
        start(&mut guest, &format!("[watchdog]\ntimeout = {asked}\n"));
        let said = guest.ok("cat /tmp/multusd.log");
        assert_eq!(sys(&mut guest, "timeout"), got, "{said}");
        assert!(said.contains(&format!("ms is not possible here, it is {got}s")), "{said}");
        guest.ok(&format!("{CTL} status | grep 'is not possible here'"));
        guest.ok(&format!("sleep 5; {CTL} quit --wait"));
        assert!(guest.event("WATCHDOG").is_none());
    }
}

#[test]
fn a_critical_program_that_stays_down_does_not_starve_it() {
    let mut guest = equipped("watchdog-critical");
    start(&mut guest, "[watchdog]\ntimeout = 3s\n[program:broken]\ncommand = /bin/false\ncritical = yes\n");
    guest.ok_within(guest_seconds(120), "sleep 60");
    assert!(guest.event("WATCHDOG").is_none());
    guest.ok(&format!("{CTL} watchdog"));
}

#[test]
fn an_output_that_is_never_confirmed_starves_it_within_its_limit_and_the_timeout() {
    let mut guest = equipped("watchdog-output");
    // What is written is lost: nothing here can be confirmed.
    let config = "[watchdog]\ntimeout = 4s\n[output:relay]\npath = /dev/full\nlimit = 2s\n\
                  [program:pump]\ncommand = sleep 100000\noutputs = relay\n";
    let order = format!(
        "{}\n(while :; do echo alive $(cut -d. -f1 /proc/uptime) >/dev/console; sleep 1; done >/dev/null 2>&1 &)\n\
         cut -d. -f1 /proc/uptime; sleep 3; {CTL} watchdog",
        starting(config)
    );
    let reply = guest.order(&order).expect("it bites later");
    let text = reply.text();
    let began: u32 = text.lines().next().and_then(|line| line.parse().ok()).expect("seconds");
    assert!(text.contains("NOT FED: outputs of pump are not confirmed safe"), "{text}");
    assert_eq!(reply.code, 1);
    guest.await_event("WATCHDOG", guest_seconds(60));
    assert_eq!(guest.order("true"), Err(Ending::WatchdogBit));
    let tail = guest.console_tail();
    let last =
        tail.lines().filter_map(|line| line.strip_prefix("alive ")?.trim().parse::<u32>().ok()).next_back();
    let lived = last.expect("signs of life") - began;
    println!("bit {lived} s after the start, limit 2 s, timeout 4 s");
    // A beat of a second, and a second of rounding.
    assert!((3..=8).contains(&lived), "{lived}: {tail}");
}

#[test]
fn guard_and_supervisor_killed_together_are_a_reset_and_the_next_life_says_so() {
    let mut guest = equipped("watchdog-crash");
    let config = format!("[watchdog]\ntimeout = 4s\n{LAMP}");
    start(&mut guest, &config);
    let (guard, supervisor) = (pid(&mut guest, "multusd"), pid(&mut guest, "multusd-superv"));
    guest.ok(&format!("kill -STOP {guard}; kill -KILL {supervisor}; kill -KILL {guard}"));
    guest.await_event("WATCHDOG", guest_seconds(20));
    guest.await_reboot(guest_seconds(60));
    equip(&mut guest);
    start(&mut guest, &config);
    let said = guest.ok("cat /tmp/multusd.log");
    assert!(said.contains("the last reset was the watchdog's"), "{said}");
    guest.ok(&format!("{CTL} watchdog | grep \"the last reset was the watchdog's\""));

    // A guard that stands still is a reset too.
    let guard = pid(&mut guest, "multusd");
    guest.ok(&format!("kill -STOP {guard}"));
    guest.await_event("WATCHDOG", guest_seconds(20));
    guest.await_reboot(guest_seconds(60));

    // And what goes on for longer than it may on the way to a reboot.
    equip(&mut guest);
    start(&mut guest, &format!("[multusd]\nreboot_command = /bin/true\n{config}"));
    guest.ok(&format!("{CTL} reboot"));
    guest.await_event("WATCHDOG", guest_seconds(20));
}

#[test]
fn a_watchdog_that_is_taken_is_tried_again_and_one_of_systemd_is_left_alone() {
    let mut guest = equipped("watchdog-taken");
    guest.ok("watchdog -T 60 -t 1 /dev/watchdog0");
    start(&mut guest, &format!("[watchdog]\ndevice = /dev/watchdog0\ntimeout = 7s\n{LAMP}"));
    guest.ok(&format!("{CTL} status | grep '/dev/watchdog0: not armed: open: .*busy'"));
    guest.ok(&format!("{CTL} status lamp"));
    guest.ok("killall watchdog; sleep 15");
    assert_eq!((sys(&mut guest, "state"), sys(&mut guest, "timeout")), ("active".into(), "7".into()));
    guest.ok(&format!("{CTL} watchdog; {CTL} quit --wait"));

    guest.ok("echo systemd >/tmp/comm; mount --bind /tmp/comm /proc/1/comm; mkdir -p /etc/systemd");
    guest.ok("echo RuntimeWatchdogSec=1min >/etc/systemd/system.conf");
    start(&mut guest, &format!("[watchdog]\ndevice = /dev/watchdog0\n{LAMP}"));
    guest.ok(&format!("{CTL} status | grep '/dev/watchdog0: not armed: left to systemd'; {CTL} status lamp"));
    assert_eq!(sys(&mut guest, "state"), "inactive");
}

#[test]
fn a_watchdog_outside_is_enabled_and_fed_by_pulses_until_the_ordered_end() {
    let mut guest = equipped("watchdog-pulse");
    let label = guest.ok("cat /sys/class/gpio/gpiochip*/label | grep pl061");
    let config = format!(
        "[watchdog:outside]\ngpio = {label}:5\nenable = {label}:6\npulse = 300ms\ntimeout = 4s\n{LAMP}"
    );
    assert!(!guest.line(6));
    start(&mut guest, &config);
    guest.await_line(6, true, guest_seconds(10));
    for _ in 0..5 {
        guest.await_line(5, true, guest_seconds(10));
        guest.await_line(5, false, guest_seconds(10));
    }
    guest.ok(&format!("{CTL} watchdog | grep 'outside: {label}:5: resets after 4.0s'"));
    // A successor goes on with the same lines, and ends the pulse its predecessor died in.
    let before = pid(&mut guest, "multusd-superv");
    guest.ok(&format!("kill -KILL {before}; until {CTL} status >/dev/null 2>&1; do sleep 0.05; done"));
    for level in [true, false, true, false] {
        guest.await_line(5, level, guest_seconds(10));
    }
    assert!(guest.line(6));
    guest.ok(&format!("{CTL} quit --wait"));
    // The guard has the last word.
    guest.await_line(6, false, guest_seconds(10));
    guest.await_line(5, false, guest_seconds(10));
}

#[test]
fn one_that_its_driver_never_stops_is_fed_on_whatever_is_ordered_and_the_end_says_what_comes() {
    let mut guest = equipped("watchdog-nowayout");
    guest.ok("rmmod i6300esb; insmod /modules/i6300esb.ko nowayout=1");
    start(&mut guest, &format!("[watchdog]\ntimeout = 5s\n{LAMP}"));
    assert_eq!(sys(&mut guest, "nowayout"), "1");
    guest.ok(&format!("{CTL} status | grep '/dev/watchdog: cannot be disarmed (nowayout)'"));
    // Taken out of the configuration: nobody has ordered a reset.
    guest.ok(&format!("cat >/etc/multusd.cfg <<'END'\n{LAMP}END\n{CTL} reload; sleep 20"));
    let said = "left the configuration cannot be disarmed (nowayout): it is fed on";
    guest.ok(&format!("{CTL} status | grep '{said}'; grep '{said}' /tmp/multusd.log"));
    assert_eq!(sys(&mut guest, "state"), "active");
    // A successor knows.
    let before = pid(&mut guest, "multusd-superv");
    guest.ok(&format!("kill -KILL {before}; sleep 20; {CTL} status | grep '{said}'"));
    assert!(guest.event("WATCHDOG").is_none());
    // And it can come back.
    guest.ok(&format!(
        "cat >/etc/multusd.cfg <<'END'\n[watchdog]\ntimeout = 4s\n{LAMP}END\n{CTL} reload; sleep 10; {CTL} watchdog"
    ));
    assert_eq!(sys(&mut guest, "timeout"), "4");
    guest.ok(&format!("! {CTL} status | grep '{said}'"));
    assert!(guest.event("WATCHDOG").is_none());
    let end = guest.ok(&format!("{CTL} quit --wait; cat /tmp/multusd.log"));
    assert!(end.contains("cannot be disarmed (nowayout): it resets the machine"), "{end}");
    guest.await_event("WATCHDOG", guest_seconds(20));
}

#[test]
fn a_warning_before_the_end_is_in_force_for_each_watchdog_and_gone_with_the_key() {
    let mut guest = equipped("watchdog-pretimeout");
    guest.ok("insmod /modules/softdog.ko");
    let config = |own: &str, soft: &str| {
        format!(
            "[watchdog]\ntimeout = 9s\n{own}\n[watchdog:soft]\ndevice = /dev/watchdog1\ntimeout = 8s\n{soft}\n{LAMP}"
        )
    };
    start(&mut guest, &config("pretimeout = 2s", "pretimeout = 3s"));
    let soft = "/sys/class/watchdog/watchdog1";
    assert_eq!(guest.ok(&format!("cat {soft}/identity {soft}/timeout")), "Software Watchdog\n8");
    let in_force = format!("cat {SYS}/pretimeout {soft}/pretimeout");
    assert_eq!(guest.ok(&in_force), "2\n3");
    let shown = guest.ok(&format!("{CTL} watchdog --json"));
    for said in [r#""pretimeout_ms":2000"#, r#""pretimeout_ms":3000"#] {
        assert!(shown.contains(said), "{shown}");
    }
    guest.ok(&format!("sleep 20; {CTL} watchdog"));
    guest.ok(&format!("cat >/etc/multusd.cfg <<'END'\n{}END\n{CTL} reload", config("", "pretimeout = 4s")));
    assert_eq!(guest.ok(&in_force), "0\n4");
    // The guard has the last word.
    guest.ok(&format!("{CTL} quit --wait; until grep -q inactive {soft}/state && grep -q inactive {SYS}/state; do sleep 0.1; done"));
    assert!(guest.event("WATCHDOG").is_none());
}

#[test]
fn a_line_to_pulse_that_is_missing_at_the_start_is_found_when_it_comes_and_one_that_may_wait_is_refused() {
    let mut guest = equipped("watchdog-late");
    let driver = "/sys/bus/amba/drivers/pl061_gpio";
    guest.ok(&format!("echo 9030000.pl061 >{driver}/unbind; ! ls /dev/gpiochip*"));
    let config =
        "[watchdog:outside]\ngpio = 9030000.pl061:5\nenable = 9030000.pl061:6\npulse = 300ms\ntimeout = 4s\n";
    start(&mut guest, &format!("{config}{LAMP}"));
    guest.ok(&format!("{CTL} status | grep 'watchdog outside: not armed'; {CTL} status lamp"));
    // More than one look.
    guest.ok("sleep 25");
    guest.ok(&format!("echo 9030000.pl061 >{driver}/bind; ls /dev/gpiochip*"));
    guest.await_line(6, true, guest_seconds(60));
    for level in [true, false, true, false] {
        guest.await_line(5, level, guest_seconds(10));
    }
    guest.ok(&format!("{CTL} watchdog; ! {CTL} status | grep 'not armed'"));
    guest.sim_chip("slow", 4);
    guest.ok(&format!("cat >/etc/multusd.cfg <<'END'\n[watchdog:outside]\ngpio = slow:1\n{LAMP}END"));
    let reply = guest.order(&format!("{CTL} reload 2>&1")).expect("a reply");
    let words = reply.text();
    assert!(
        reply.code == 1 && words.contains("[watchdog:outside]: gpio: this line is behind a bus"),
        "{words}"
    );
    guest.ok(&format!("{CTL} watchdog; {CTL} quit --wait"));
    // Neither is it pulsed where that is the first configuration there is.
    start(&mut guest, &format!("[watchdog:outside]\ngpio = slow:1\n{LAMP}"));
    guest.ok(&format!("{CTL} status | grep 'watchdog outside: not armed: this line is behind a bus'"));
    guest.ok(&format!("{CTL} status lamp"));
}
