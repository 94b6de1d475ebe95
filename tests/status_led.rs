//! `[status-led]` as a real process with a lamp in a file: every state, by its pattern.

mod harness;

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::time::Instant;

use harness::{Instance, signal};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

const LED: &str = "[status-led]\npath = %(here)s/lamp\nnetwork = net\nvpn = tunnel.up\nupdate = updater.busy\n\
    heartbeat = 300ms\nrestart_delay = 2s\n";
const GOOD: &str = "[program:good]\ncommand = sleep 100000\nstartsecs = 0\n";

fn start(test: &str, config: &str) -> Instance {
    let mut instance = Instance::prepare(test, "", config);
    fs::write(instance.dir.join("lamp"), "0\n").unwrap();
    instance.launch();
    instance
}

fn is_on(instance: &Instance) -> bool {
    fs::read_to_string(instance.dir.join("lamp")).unwrap().trim() == "1"
}

/// Programs that fail when they are started by hand.
const BAD: &str = "[program:trying]\ncommand = false\nautostart = false\nrestart_delay = 60s\nrestart_delay_max = 60s\n\
    [program:hopeless]\ncommand = false\nautostart = false\nstartretries = 0\n";

/// It says which state it shows.
fn await_shown(instance: &Instance, state: &str) {
    instance.await_program("status-led", state, |led| led.status_text.as_deref() == Some(state));
}

#[test]
fn every_state_is_shown_as_its_causes_come_and_go() {
    let instance = start("led-states", &format!("{LED}{GOOD}{BAD}"));
    let publish =
        |words: &str| instance.ctl_ok(&[&["publish"], &words.split(' ').collect::<Vec<_>>()[..]].concat());
    await_shown(&instance, "unknown");
    publish("net=0");
    await_shown(&instance, "no_network");
    publish("net=1");
    await_shown(&instance, "unknown");
    publish("tunnel.up=0");
    await_shown(&instance, "no_vpn");
    publish("tunnel.up=1");
    await_shown(&instance, "good");
    instance.await_that("the lamp is on", || is_on(&instance));
    publish("updater.busy=1");
    await_shown(&instance, "updating");
    publish("updater.busy=0");
    await_shown(&instance, "good");
    // Who says that the network is there has to go on saying so.
    publish("net=1 --for 500ms");
    await_shown(&instance, "unknown");
    instance.await_that("the lamp is off", || !is_on(&instance));
    publish("net=unknown");
    publish("net=1");
    await_shown(&instance, "good");

    // A program that tries again, and one that is given up.
    instance.ctl_ok(&["start", "trying"]);
    await_shown(&instance, "degraded");
    instance.ctl_ok(&["start", "hopeless"]);
    instance.await_state("hopeless", "fatal");
    await_shown(&instance, "failure");
    instance.ctl_ok(&["stop", "hopeless", "--wait"]);
    await_shown(&instance, "degraded");
    instance.ctl_ok(&["stop", "trying", "--wait"]);
    await_shown(&instance, "good");
}

/// Levels and when they came, from the file's changes.
fn changes(instance: &Instance, count: usize) -> Vec<(bool, Instant)> {
    let path = instance.dir.join("lamp");
    let watch = Inotify::init(InitFlags::empty()).unwrap();
    watch.add_watch(&path, AddWatchFlags::IN_MODIFY).unwrap();
    let file = File::open(&path).unwrap();
    let mut found: Vec<(bool, Instant)> = Vec::new();
    while found.len() < count {
        watch.read_events().unwrap();
        let now = Instant::now();
        let mut byte = [0];
        file.read_exact_at(&mut byte, 0).unwrap();
        found.push((byte == *b"1", now));
    }
    found
}

#[test]
fn a_pattern_is_kept_to_within_twenty_milliseconds_and_does_not_drift() {
    let keys = "pattern.unknown = 150ms on, 250ms off\n";
    let instance = start("led-pattern", &format!("{LED}{keys}{GOOD}"));
    await_shown(&instance, "unknown");
    // A machine that does much else is late with some; not always.
    let within = (0..5).any(|_| {
        let late = lateness(&changes(&instance, 41));
        let (median, most) = (late[late.len() / 2], late[late.len() - 1]);
        println!("{} changes: median {median:.1} ms off, at most {most:.1} ms", late.len());
        late[late.len() * 9 / 10] <= 20.0
    });
    assert!(within);
}

/// By how many milliseconds each change was off its time, the least first: each is where it should be since the first, not
/// since the one before.
fn lateness(found: &[(bool, Instant)]) -> Vec<f64> {
    for pair in found.windows(2) {
        assert_ne!(pair[0].0, pair[1].0, "on and off take turns");
    }
    let first = found.iter().position(|(on, _)| *on).unwrap();
    let begun = found[first].1;
    let mut late: Vec<f64> = found[first..]
        .iter()
        .enumerate()
        .map(|(index, (_, at))| {
            let due = (index / 2 * 400 + index % 2 * 150) as f64;
            (at.duration_since(begun).as_secs_f64() * 1000.0 - due).abs()
        })
        .collect();
    late.sort_by(f64::total_cmp);
    late
}

#[test]
fn a_lamp_whose_process_was_killed_or_stands_still_is_off() {
    let instance =
        start("led-killed", &format!("{}{GOOD}", LED.replace("network = net\nvpn = tunnel.up\n", "")));
    for number in [libc::SIGKILL, libc::SIGSTOP] {
        await_shown(&instance, "good");
        instance.await_that("the lamp is on", || is_on(&instance));
        let pid = instance.pid("status-led");
        signal(pid, number);
        instance.await_that("the lamp is off", || !is_on(&instance));
        instance.await_program("status-led", "another process", |led| {
            led.state == "running" && led.pid.is_some_and(|now| now != pid)
        });
    }
}

#[test]
fn values_are_shown_and_published_by_programs_under_their_own_names() {
    let sensor = "[program:sensor]\ncommand = /bin/sh %(here)s/sensor\nready = notify\n";
    let script = "#!/bin/sh\nsystemd-notify --ready 'MULTUSD_VALUE=outside -23.5 unit=C raw=17 for=1h' \
         && systemd-notify 'MULTUSD_VALUE=../../x 1' && exec sleep 100000\n";
    let mut instance = Instance::prepare("values", "", sensor);
    fs::write(instance.dir.join("sensor"), script).unwrap();
    instance.launch();
    instance.await_that("the value", || instance.ctl_ok(&["values"]).contains("sensor.outside"));
    let text = instance.ctl_ok(&["values"]);
    let row: Vec<&str> =
        text.lines().find(|line| line.starts_with("sensor.")).unwrap().split_whitespace().collect();
    assert_eq!(row[..4], ["sensor.outside", "-23.5", "C", "17"], "{text}");
    instance.await_that("a word about the other", || instance.log().contains("a value that is not taken"));
    assert!(!instance.ctl_ok(&["values"]).contains("/x"));
    assert_eq!(instance.ctl_code(&["publish", "a b"]), 2);
    assert_eq!(instance.ctl_code(&["publish", "a=much"]), 5);
    // What a program published leaves with it.
    instance.ctl_ok(&["publish", "by-hand=1"]);
    instance.write_config(GOOD);
    instance.ctl_ok(&["reload", "--wait"]);
    instance.await_that("it is gone", || !instance.ctl_ok(&["values"]).contains("sensor.outside"));
    assert!(instance.ctl_ok(&["values", "--json"]).contains("\"by-hand\""));
    // And stays where a supervisor does not.
    let supervisor = harness::supervisor_of(instance.guard_pid());
    signal(supervisor, libc::SIGKILL);
    instance.await_that("another supervisor", || harness::supervisor_of(instance.guard_pid()) != supervisor);
    assert!(instance.ctl_ok(&["values"]).contains("by-hand"));
}

#[test]
fn a_lamp_hears_at_once_what_is_published_however_seldom_it_beats() {
    let config = LED.replace("heartbeat = 300ms", "heartbeat = 1h");
    let instance = start("led-at-once", &format!("{config}{GOOD}"));
    await_shown(&instance, "unknown");
    let began = Instant::now();
    for (words, state) in [("net=0", "no_network"), ("net=1", "unknown"), ("tunnel.up=1", "good")] {
        instance.ctl_ok(&["publish", words]);
        await_shown(&instance, state);
    }
    assert!(began.elapsed().as_secs() < 1200, "a third of its heartbeat");
}
