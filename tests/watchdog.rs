//! What watches multusd itself, as far as it needs no hardware: guard and supervisor watch each other, a
//! watchdog that is not there is said, and programs are stopped when it is too hot. The rest is in tests/qemu.

mod harness;

use std::fs;
use std::time::Duration;

use harness::{Instance, await_condition, is_alive, signal, supervisor_of, wait};

/// A watchdog that is not there: enough to make guard and supervisor beat.
fn watched(instance: &Instance) -> String {
    format!("[watchdog]\ndevice = {}/watchdog\n", instance.dir.display())
}

fn gated(instance: &Instance, keys: &str) -> String {
    format!("[temperature]\npath = {}/temperature\ninterval = 100ms\n{keys}\n", instance.dir.display())
}

const LAMP: &str = "[program:lamp]\ncommand = sleep 100000\nstartsecs = 0\n";

/// Renamed into place: never read half written.
fn heat(instance: &Instance, text: &str) {
    let new = instance.dir.join("temperature.new");
    fs::write(&new, text).unwrap();
    fs::rename(new, instance.dir.join("temperature")).unwrap();
}

fn watchdog(instance: &Instance) -> String {
    String::from_utf8(instance.ctl(&["watchdog"]).stdout).unwrap()
}

fn limited(instance: &Instance, words: &str) -> bool {
    instance.status().limitations.iter().any(|text| text.contains(words))
}

#[test]
fn a_watchdog_that_is_not_there_is_said_and_everything_else_runs() {
    let mut instance = Instance::prepare("watchdog-none", "", "");
    instance.write_config(&(watched(&instance) + LAMP));
    instance.launch();
    instance.await_state("lamp", "running");
    let said = format!("{}/watchdog: not armed: open: No such file or directory", instance.dir.display());
    assert!(limited(&instance, &said), "{:?}", instance.status());
    assert!(instance.log().contains(&said), "{}", instance.log());
    assert_eq!(instance.ctl_code(&["watchdog"]), 1);
    assert!(watchdog(&instance).contains("NOT ARMED"), "{}", watchdog(&instance));
    // What is no watchdog is not written to.
    fs::write(instance.dir.join("watchdog"), "").unwrap();
    instance.await_that("it is tried again", || limited(&instance, "not a watchdog"));
    assert_eq!(instance.log().matches("not armed").count(), 2, "{}", instance.log());
    instance.write_config(LAMP);
    instance.ctl_ok(&["reload"]);
    assert_eq!(watchdog(&instance), "no watchdog is configured\n");
    assert!(!limited(&instance, "not armed"));
    assert_eq!(fs::read(instance.dir.join("watchdog")).unwrap(), b"");
    assert_eq!(instance.quit(), 0);
}

#[test]
fn a_supervisor_that_stands_still_is_replaced_and_nobody_else_is_killed() {
    let mut instance = Instance::prepare("watchdog-stopped", "", "");
    instance.write_config(&(watched(&instance) + LAMP));
    instance.launch();
    instance.await_state("lamp", "running");
    let (lamp, before) = (instance.pid("lamp"), instance.status().supervisor_pid);
    signal(before, libc::SIGSTOP);
    assert!(await_condition(|| !is_alive(before)), "the guard saw nothing");
    instance.await_that("its successor answers", || instance.ctl(&["status"]).status.success());
    let status = instance.status();
    assert!(status.supervisor_pid != before && status.supervisor_restarts == 1, "{status:?}");
    assert_eq!((instance.pid("lamp"), instance.program("lamp").restarts), (lamp, 0));
    // And it beats as the one before did.
    signal(status.supervisor_pid, libc::SIGSTOP);
    assert!(await_condition(|| !is_alive(status.supervisor_pid)), "the second time it saw nothing");
    instance.await_that("its successor answers", || instance.ctl(&["status"]).status.success());
    assert_eq!((instance.pid("lamp"), instance.program("lamp").restarts), (lamp, 0));
}

#[test]
fn a_pair_that_stood_still_as_a_whole_holds_that_against_nobody() {
    let mut instance = Instance::prepare("watchdog-both", "", "");
    instance.write_config(&(watched(&instance) + LAMP));
    instance.launch();
    instance.await_state("lamp", "running");
    let (lamp, status) = (instance.pid("lamp"), instance.status());
    for order in [[status.guard_pid, status.supervisor_pid], [status.supervisor_pid, status.guard_pid]] {
        order.iter().for_each(|pid| signal(*pid, libc::SIGSTOP));
        // Longer than either is patient.
        wait(Duration::from_secs(5));
        order.iter().for_each(|pid| signal(*pid, libc::SIGCONT));
        instance.await_that("both answer", || instance.ctl(&["watchdog"]).status.code() == Some(1));
        wait(Duration::from_secs(2));
    }
    let after = instance.status();
    assert_eq!((after.supervisor_pid, after.supervisor_restarts), (status.supervisor_pid, 0));
    assert_eq!((instance.pid("lamp"), instance.program("lamp").restarts), (lamp, 0));
}

#[test]
fn a_guard_that_stands_still_starves_the_watchdogs_and_without_one_everything_ends() {
    let mut instance = Instance::prepare("watchdog-guard", "", "");
    instance.write_config(&(watched(&instance) + LAMP));
    instance.launch();
    instance.await_state("lamp", "running");
    let (lamp, status) = (instance.pid("lamp"), instance.status());
    signal(status.guard_pid, libc::SIGSTOP);
    let words = "no watchdog is fed: the guard does not answer";
    instance.await_that("that is said", || instance.log().contains(words));
    assert!(limited(&instance, words) && watchdog(&instance).contains("NOT FED: the guard does not answer"));
    signal(status.guard_pid, libc::SIGCONT);
    instance.await_that("it is over", || instance.log().contains("watchdogs are fed again"));
    assert!(!limited(&instance, "no watchdog is fed"));
    assert!(is_alive(lamp));
    // No watchdog is armed that would see to it.
    signal(status.guard_pid, libc::SIGSTOP);
    assert!(await_condition(|| !is_alive(lamp)), "{}", instance.log());
    assert!(await_condition(|| !is_alive(status.supervisor_pid)), "{}", instance.log());
    assert!(!instance.await_end().success());
}

#[test]
fn a_beating_pair_wakes_no_more_than_twice_a_second() {
    let mut instance = Instance::prepare("watchdog-idle", "", "");
    instance.write_config(&(watched(&instance) + &gated(&instance, "") + LAMP));
    heat(&instance, "20000\n");
    instance.launch();
    instance.await_state("lamp", "running");
    let status = instance.status();
    let switches = |pid: u32| {
        let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = text.lines().find(|line| line.starts_with("voluntary_ctxt_switches")).unwrap();
        line.rsplit('\t').next().unwrap().parse::<u64>().unwrap()
    };
    let both = || switches(status.guard_pid) + switches(status.supervisor_pid);
    // The last good copy is written, the client is gone.
    wait(Duration::from_secs(1));
    let before = both();
    wait(Duration::from_secs(10));
    let count = both() - before;
    // A try of the watchdog that is not there rides on a beat; the file system may make it wait once.
    assert!((16..=22).contains(&count), "{count} in 10 s");
}

#[test]
fn programs_run_up_to_the_highest_temperature_and_again_below_the_hysteresis() {
    let mut instance = Instance::prepare("watchdog-heat", "", "");
    instance.write_config(&(gated(&instance, "min = -10\nmax = 80\nhysteresis = 5") + LAMP));
    heat(&instance, "80000\n");
    instance.launch();
    instance.await_state("lamp", "running");
    assert!(watchdog(&instance).contains("temperature: 80.0 °C, programs run from -10.0 °C to 80.0 °C"));
    let held = |text: &str, words: &str| {
        heat(&instance, text);
        instance.await_state("lamp", "held");
        let said = |shown: &str| shown.contains(words);
        assert!(limited(&instance, words), "{:?}", instance.status());
        assert!(said(&watchdog(&instance)), "{}", watchdog(&instance));
        assert!(said(&instance.log()), "{}", instance.log());
        assert_eq!(instance.program("lamp").reason.as_deref(), Some("stopped by SIGTERM"));
    };
    held("80001\n", "too hot: 80.001 °C, programs are stopped until it is below 75.0 °C");
    // Not yet, whatever is ordered.
    heat(&instance, "75000\n");
    instance.await_that("that is read", || watchdog(&instance).contains("too hot: 75.0 °C"));
    instance.ctl_ok(&["restart", "lamp"]);
    assert_eq!(instance.program("lamp").state, "held");
    // A successor holds what its predecessor held.
    signal(supervisor_of(instance.guard_pid()), libc::SIGKILL);
    instance.await_that("its successor answers", || instance.ctl(&["status"]).status.success());
    assert_eq!(instance.program("lamp").state, "held");
    heat(&instance, "74999\n");
    instance.await_state("lamp", "running");
    held("-10001\n", "too cold: -10.001 °C, programs are stopped below -10.0 °C");
    heat(&instance, "-10000");
    instance.await_state("lamp", "running");
    assert!(!limited(&instance, "too"), "{:?}", instance.status());
    assert_eq!(instance.program("lamp").failures, 0);
    assert_eq!(instance.quit(), 0);
}

#[test]
fn a_temperature_that_cannot_be_read_is_hot_or_ignored_as_configured() {
    for (word, state) in [("hot", "held"), ("ignore", "running")] {
        let mut instance = Instance::prepare(&format!("watchdog-unreadable-{word}"), "", "");
        instance.write_config(&(gated(&instance, &format!("unreadable = {word}")) + LAMP));
        heat(&instance, "20000\n");
        instance.launch();
        for damage in ["", "hot\n", "20.5\n", "99999999999\n"] {
            instance.await_state("lamp", "running");
            heat(&instance, damage);
            let said = format!("temperature cannot be read from {}/temperature", instance.dir.display());
            instance.await_that(damage, || watchdog(&instance).contains(&said));
            instance.await_state("lamp", state);
            heat(&instance, "20000\n");
            instance.await_that("read again", || watchdog(&instance).contains("20.0 °C"));
        }
        instance.await_state("lamp", "running");
        fs::remove_file(instance.dir.join("temperature")).unwrap();
        instance.await_that("gone", || watchdog(&instance).contains("cannot be read"));
        instance.await_state("lamp", state);
    }
}

#[test]
fn what_was_stopped_for_heat_stays_so_when_the_temperature_cannot_be_read_any_more() {
    let mut instance = Instance::prepare("watchdog-hot-blind", "", "");
    instance.write_config(&(gated(&instance, "max = 80\nhysteresis = 5\nunreadable = ignore") + LAMP));
    heat(&instance, "20000\n");
    instance.launch();
    instance.await_state("lamp", "running");
    heat(&instance, "81000\n");
    instance.await_state("lamp", "held");
    for (reading, said) in
        [("", "cannot be read from"), ("78000\n", "too hot: 78.0"), ("x\n", "cannot be read from")]
    {
        heat(&instance, reading);
        instance.await_that(said, || {
            limited(&instance, said) && watchdog(&instance).contains("programs are stopped until it")
        });
        assert_eq!(instance.program("lamp").state, "held", "{reading}");
    }
    heat(&instance, "74000\n");
    instance.await_state("lamp", "running");
    // Nothing was hot: what cannot be read is ignored.
    heat(&instance, "x\n");
    instance.await_that("ignored", || watchdog(&instance).contains("which is ignored"));
    assert_eq!(instance.program("lamp").state, "running");
    instance.quit();
}

fn reader(guard: u32) -> Option<u32> {
    let children = fs::read_to_string(format!("/proc/{guard}/task/{guard}/children")).unwrap_or_default();
    let mut pids = children.split_ascii_whitespace().filter_map(|pid| pid.parse().ok());
    pids.find(|pid: &u32| {
        is_alive(*pid)
            && fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name == "multusd-temp\n")
    })
}

#[test]
fn a_reader_that_dies_or_says_nothing_is_replaced() {
    let mut instance = Instance::prepare("watchdog-reader", "", "");
    instance.write_config(&(gated(&instance, "") + LAMP));
    heat(&instance, "20000\n");
    instance.launch();
    instance.await_state("lamp", "running");
    let lamp = instance.pid("lamp");
    let first = reader(instance.guard_pid()).expect("a reader");
    signal(first, libc::SIGKILL);
    let another = |than: u32| {
        let mut found = None;
        instance.await_that("another reader", || {
            found = reader(instance.guard_pid()).filter(|pid| *pid != than);
            found.is_some()
        });
        found.unwrap()
    };
    let second = another(first);
    heat(&instance, "21000\n");
    instance.await_that("it reads", || watchdog(&instance).contains("21.0 °C"));
    assert_eq!(instance.pid("lamp"), lamp, "in time");
    signal(second, libc::SIGSTOP);
    // Too hot for as long as nobody reads; the one that says nothing is killed for it.
    another(second);
    instance.await_program("lamp", "again", |lamp| lamp.state == "running" && lamp.restarts == 1);
    assert!(instance.log().contains("cannot be read"), "{}", instance.log());
}

#[test]
fn nothing_starts_before_the_first_reading_and_a_reload_adds_and_removes_the_gate() {
    let mut instance = Instance::prepare("watchdog-first", "", "");
    let log = format!(
        "[program:lamp]\ncommand = {}\nstartsecs = 0\n",
        harness::script(
            &instance.dir,
            "lamp",
            &format!("echo started >>{}/starts; exec sleep 100000", instance.dir.display())
        )
    );
    heat(&instance, "90000\n");
    instance.write_config(&(gated(&instance, "") + &log));
    instance.launch();
    instance.await_that("too hot to begin with", || limited(&instance, "too hot: 90.0 °C"));
    assert_eq!(instance.program("lamp").state, "held");
    assert!(!instance.dir.join("starts").exists());
    instance.write_config(&log);
    instance.ctl_ok(&["reload"]);
    instance.await_state("lamp", "running");
    assert!(!limited(&instance, "too hot"));
    assert!(await_condition(|| reader(instance.guard_pid()).is_none()));
    instance.write_config(&(gated(&instance, "") + &log));
    instance.ctl_ok(&["reload"]);
    instance.await_state("lamp", "held");
    instance.write_config(&(gated(&instance, "max = 95\nhysteresis = 1") + &log));
    instance.ctl_ok(&["reload"]);
    instance.await_state("lamp", "running");
    assert_eq!(instance.quit(), 0);
}
