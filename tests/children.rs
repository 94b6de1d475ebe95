//! Bundled children as real processes: who they are, what they are told, and what becomes of them when they fail. `template`
//! stands for all of them here; each has its own tests besides.

mod harness;

use std::fs;

use harness::real::{need_root, status_line};
use harness::{Instance, signal};

/// Two lamps, each with a child of its own.
const BLINKERS: &str = "[output:red]\npath = %(here)s/red\n[output:green]\npath = %(here)s/green\n\
    [template:red]\noutputs = red\non = 20ms\noff = 20ms\nheartbeat = 500ms\n\
    [template:green]\noutputs = green\non = 1h\n";

fn start(test: &str, config: &str) -> Instance {
    let mut instance = Instance::prepare(test, "", config);
    for lamp in ["red", "green"] {
        fs::write(instance.dir.join(lamp), "?\n").unwrap();
    }
    instance.launch();
    instance
}

fn level(instance: &Instance, lamp: &str) -> String {
    fs::read_to_string(instance.dir.join(lamp)).unwrap().trim().to_owned()
}

fn await_level(instance: &Instance, lamp: &str, wanted: &str) {
    instance.await_that(&format!("{lamp} is {wanted}"), || level(instance, lamp) == wanted);
}

#[test]
fn a_child_does_what_its_section_says_and_is_safe_and_back_when_it_is_killed_or_hangs() {
    let instance = start("children-fail", BLINKERS);
    instance.await_state("template-red", "running");
    await_level(&instance, "green", "1");
    for _ in 0..3 {
        await_level(&instance, "red", "1");
        await_level(&instance, "red", "0");
    }
    let green = instance.pid("template-green");
    for (number, why) in [(libc::SIGKILL, "SIGKILL"), (libc::SIGSTOP, "heartbeat")] {
        let before = instance.program("template-red");
        signal(before.pid.unwrap(), number);
        let after = instance.await_program("template-red", "another process", |program| {
            program.state == "running" && program.pid != before.pid
        });
        assert_eq!(after.restarts, before.restarts + 1, "{why}");
        assert!(after.reason.unwrap_or_default().contains(why), "{why}");
        await_level(&instance, "red", "1");
        await_level(&instance, "red", "0");
    }
    assert_eq!(instance.pid("template-green"), green, "nobody else was restarted");
    assert_eq!(level(&instance, "green"), "1");
    instance.ctl_ok(&["stop", "template-green", "--wait"]);
    assert_eq!(level(&instance, "green"), "0", "as safe as any program's output");
}

#[test]
fn a_changed_section_restarts_its_child_alone() {
    let instance = start("children-reload", BLINKERS);
    let pids = || (instance.pid("template-red"), instance.pid("template-green"));
    instance.await_state("template-red", "running");
    instance.await_state("template-green", "running");
    let before = pids();
    instance.ctl_ok(&["reload"]);
    assert_eq!(pids(), before, "nothing changed");
    instance.write_config(&BLINKERS.replace("on = 1h", "on = 2h\nlog_fold = true"));
    instance.ctl_ok(&["reload"]);
    instance.await_program("template-green", "another process", |program| {
        program.state == "running" && program.pid.is_some_and(|pid| pid != before.1)
    });
    assert_eq!(instance.pid("template-red"), before.0);
    let green = instance.pid("template-green");
    // How a process is treated is no reason to restart it.
    instance.write_config(&BLINKERS.replace("on = 1h", "on = 2h"));
    instance.ctl_ok(&["reload"]);
    assert_eq!(instance.pid("template-green"), green);
}

#[test]
fn a_child_outlives_the_supervisor_and_the_next_one_knows_it() {
    let instance = start("children-takeover", BLINKERS);
    instance.await_state("template-red", "running");
    let red = instance.pid("template-red");
    let supervisor = harness::supervisor_of(instance.guard_pid());
    signal(supervisor, libc::SIGKILL);
    instance.await_that("another supervisor", || harness::supervisor_of(instance.guard_pid()) != supervisor);
    assert_eq!(instance.await_state("template-red", "running").pid, Some(red));
    await_level(&instance, "red", "1");
    // It is started by the new one with the settings it had.
    signal(red, libc::SIGKILL);
    instance.await_program("template-red", "another process", |program| {
        program.state == "running" && program.pid.is_some_and(|pid| pid != red)
    });
    await_level(&instance, "red", "1");
    await_level(&instance, "red", "0");
}

#[test]
fn a_child_has_a_user_of_its_own_and_nothing_that_root_has() {
    need_root();
    let instance = start("children-rights", BLINKERS);
    let pid = instance.await_state("template-red", "running").pid.unwrap();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = |key: &str| status_line(&status, key);
    let user = line("Uid").split_whitespace().next().unwrap().to_owned();
    assert!((61184..65520).contains(&user.parse::<u32>().unwrap()), "{user}");
    for key in ["Uid", "Gid"] {
        assert!(line(key).split_whitespace().all(|number| number == user), "{key}: {}", line(key));
    }
    assert_eq!(line("Groups"), user);
    for key in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(line(key), "0000000000000000", "{key}");
    }
    assert_eq!(line("NoNewPrivs"), "1");
    // What it is told can be read by it, and changed by nobody that comes after it.
    let descriptor = fs::read_link(format!("/proc/{pid}/fd/0")).unwrap();
    assert!(descriptor.to_string_lossy().contains("multusd-settings"), "{}", descriptor.display());
    let flags = fs::read_to_string(format!("/proc/{pid}/fdinfo/0")).unwrap();
    let flags = flags.lines().find_map(|line| line.strip_prefix("flags:")).unwrap().trim().to_owned();
    assert_eq!(i32::from_str_radix(&flags, 8).unwrap() & libc::O_ACCMODE, libc::O_RDONLY);
}

#[test]
fn a_child_is_what_it_is_by_nobodys_hand() {
    for word in multusd::child::CHILDREN.iter().map(|child| child.word) {
        let output = std::process::Command::new(harness::binary())
            .arg(word)
            .stdin(std::process::Stdio::null())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(
            (output.status.code(), said),
            (Some(2), format!("multusd {word}: only multusd runs this\n"))
        );
    }
}
