//! Outputs of real programs, in files and by commands: which level they have when, who may change that, and
//! what happens where they cannot be driven. Lines of real chips: `tests/qemu/outputs.rs`.
//!
//! `MULTUSD_CRASHES` says how often a program crashes (500).
#![allow(clippy::question_mark, reason = "in what DeJson derives")]

mod harness;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use harness::real::{command_line, need_root};
use harness::{Instance, is_alive, signal, supervisor_of};
use nanoserde::DeJson;

#[derive(Debug, DeJson)]
struct Reply {
    outputs: Vec<Output>,
}

/// `multusctl outputs --json`
#[derive(Clone, Debug, DeJson)]
struct Output {
    name: String,
    level: Option<String>,
    active: Option<bool>,
    state: String,
    safe: bool,
    confirmed_ms: Option<u64>,
    owner: Option<String>,
    reason: Option<String>,
}

fn output(instance: &Instance, name: &str) -> Output {
    let text = instance.ctl_ok(&["outputs", "--json"]);
    let reply = Reply::deserialize_json(&text).unwrap_or_else(|error| panic!("{error:?}: {text}"));
    let found = reply.outputs.into_iter().find(|output| output.name == name);
    found.unwrap_or_else(|| panic!("no output {name} in {text}"))
}

fn await_output(instance: &Instance, name: &str, state: &str, level: Option<&str>) -> Output {
    instance.await_that(&format!("{name}: {state} {level:?}"), || {
        let output = output(instance, name);
        output.state == state && (level.is_none() || output.level.as_deref() == level)
    });
    output(instance, name)
}

/// An output in the file `lamp`, which is there already.
const LAMP: &str = "[output:lamp]\npath = %(here)s/lamp\nwrite_high = 255\n";
/// A program that stays down when it ended.
const FOREVER: &str =
    "[program:pump]\ncommand = %(here)s/sleeper 100000\nstartsecs = 0\nautorestart = false\n";

fn start(test: &str, scripts: &[(&str, &str)], config: &str) -> Instance {
    let mut instance = Instance::scripted_only(test, "", scripts, config);
    fs::write(instance.dir.join("lamp"), "255\n").unwrap();
    instance.launch();
    instance
}

fn lamp(instance: &Instance) -> String {
    instance.read("lamp").trim().to_owned()
}

fn await_lamp(instance: &Instance, text: &str) {
    instance.await_that(&format!("lamp {text}, is {}", lamp(instance)), || lamp(instance) == text);
}

/// What somebody other than multusd writes.
fn light(instance: &Instance) {
    fs::write(instance.dir.join("lamp"), "255\n").unwrap();
}

#[test]
fn boot_lasts_until_the_first_start_and_running_is_set_once_when_it_is_ready() {
    let config = format!(
        "{LAMP}boot = high\nsafe = low\nrunning = high\n{FOREVER}autostart = false\noutputs = lamp\n"
    );
    let mut instance = start("outputs-boot", &[], &config);
    let boot = await_output(&instance, "lamp", "boot", Some("high"));
    assert!(!boot.safe && boot.confirmed_ms.is_some() && boot.owner.as_deref() == Some("pump"), "{boot:?}");
    instance.ctl_ok(&["start", "pump", "--wait"]);
    await_lamp(&instance, "255");
    assert_eq!(output(&instance, "lamp").state, "driven");
    instance.ctl_ok(&["stop", "pump", "--wait"]);
    assert_eq!(lamp(&instance), "0");
    let safe = output(&instance, "lamp");
    assert!(
        safe.safe && safe.state == "safe" && safe.active == Some(false) && safe.reason.is_none(),
        "{safe:?}"
    );
    // Not boot again: its owner has run.
    instance.ctl_ok(&["restart", "pump", "--wait"]);
    await_lamp(&instance, "255");
    // Once: what the program makes of it then is its own, whatever else happens.
    fs::write(instance.dir.join("lamp"), "0\n").unwrap();
    instance.ctl_ok(&["reload"]);
    assert_eq!(lamp(&instance), "0");
    // A pause makes it safe; after it the program is ready again.
    instance.ctl_ok(&["pause", "pump"]);
    await_output(&instance, "lamp", "safe", Some("low"));
    instance.ctl_ok(&["cont", "pump"]);
    await_lamp(&instance, "255");
    instance.quit_clean();
}

#[test]
fn a_crash_a_stop_and_a_pause_make_it_safe() {
    let instance = start("outputs-safe", &[], &format!("{LAMP}safe = low\n{FOREVER}outputs = lamp\n"));
    let pid = instance.await_state("pump", "running").pid.unwrap();
    for what in ["crash", "stop", "pause"] {
        light(&instance);
        match what {
            "crash" => signal(pid, libc::SIGKILL),
            what => drop(instance.ctl_ok(&[what, "pump"])),
        }
        await_lamp(&instance, "0");
        let safe = await_output(&instance, "lamp", "safe", Some("low"));
        assert!(safe.safe && safe.confirmed_ms.is_some(), "{what}: {safe:?}");
        if what != "pause" {
            instance.ctl_ok(&["start", "pump", "--wait"]);
        }
    }
    instance.ctl_ok(&["cont", "pump"]);
    await_output(&instance, "lamp", "driven", None);
}

#[test]
fn a_crash_makes_it_safe_before_anybody_knows_how_it_ended_and_then_every_10_ms() {
    let instance = start("outputs-early", &[], &format!("{LAMP}safe = low\n{FOREVER}outputs = lamp\n"));
    let pid = instance.await_state("pump", "running").pid.unwrap();
    light(&instance);
    // Who alone is told how it ended, and says so.
    signal(instance.guard_pid(), libc::SIGSTOP);
    signal(pid, libc::SIGKILL);
    await_lamp(&instance, "0");
    // Forced again while nothing is known, but not as fast as its helper can.
    let begun = Instant::now();
    for _ in 0..10 {
        light(&instance);
        await_lamp(&instance, "0");
    }
    assert!(begun.elapsed() >= Duration::from_millis(80), "{:?}", begun.elapsed());
    signal(instance.guard_pid(), libc::SIGCONT);
    await_output(&instance, "lamp", "safe", Some("low"));
    instance.await_state("pump", "exited");
}

#[test]
fn a_hang_and_a_failed_check_make_it_safe() {
    for (what, keys) in [
        ("hung", "heartbeat = 300ms\n"),
        ("check", "check = %(here)s/check\ncheck_interval = 50ms\ncheck_failures = 1\n"),
    ] {
        let config = format!("{LAMP}safe = low\nrunning = high\n{FOREVER}outputs = lamp\n{keys}");
        let check = "[ ! -e ${0%/*}/ill ]";
        let instance = start(&format!("outputs-fail-{what}"), &[("check", check)], &config);
        await_lamp(&instance, "255");
        fs::write(instance.dir.join("ill"), "").unwrap();
        await_lamp(&instance, "0");
        let pump = instance.await_state("pump", "exited");
        assert!(pump.reason.as_deref().is_some_and(|reason| reason.contains(what)), "{pump:?}");
        assert!(await_output(&instance, "lamp", "safe", Some("low")).safe);
    }
}

#[test]
fn too_hot_makes_it_safe_and_holds_its_program_until_it_is_cooler() {
    let gate = "[temperature]\npath = %(here)s/temperature\ninterval = 100ms\nmax = 80\nhysteresis = 5\n";
    let config = format!("{gate}{LAMP}safe = low\nrunning = high\n{FOREVER}outputs = lamp\n");
    let mut instance = Instance::scripted_only("outputs-hot", "", &[], &config);
    let heat = |instance: &Instance, text: &str| {
        fs::write(instance.dir.join("temperature.new"), text).unwrap();
        fs::rename(instance.dir.join("temperature.new"), instance.dir.join("temperature")).unwrap();
    };
    fs::write(instance.dir.join("lamp"), "0\n").unwrap();
    heat(&instance, "79999\n");
    instance.launch();
    await_lamp(&instance, "255");
    heat(&instance, "80001\n");
    await_lamp(&instance, "0");
    instance.await_state("pump", "held");
    assert!(await_output(&instance, "lamp", "safe", Some("low")).safe);
    heat(&instance, "74999\n");
    await_lamp(&instance, "255");
    assert_eq!(instance.program("pump").failures, 0);
    instance.quit_clean();
}

#[test]
fn a_program_that_is_stopped_acts_first_and_what_it_leaves_is_made_safe() {
    let pump = "trap 'echo 255 >%(here)s/lamp; exit 0' TERM; while :; do sleep 100000 & wait $!; done";
    let mut instance = Instance::scripted_only("outputs-stop", "", &[], "");
    harness::script(&instance.dir, "pump", &pump.replace("%(here)s", instance.dir.to_str().unwrap()));
    fs::write(instance.dir.join("lamp"), "").unwrap();
    instance.write_config(&format!(
        "{LAMP}safe = low\n[program:pump]\ncommand = %(here)s/pump\nstartsecs = 0\noutputs = lamp\n"
    ));
    instance.launch();
    instance.await_state("pump", "running");
    instance.ctl_ok(&["stop", "pump", "--wait"]);
    assert_eq!(lamp(&instance), "0");
    assert_eq!(instance.program("pump").state, "stopped");
}

#[test]
fn everything_is_safe_when_multusd_has_ended_also_what_has_no_owner() {
    let config = format!(
        "{LAMP}safe = low\n[output:bell]\npath = %(here)s/bell\nboot = high\nsafe = low\n{FOREVER}outputs = lamp\n"
    );
    let mut instance = Instance::scripted_only("outputs-quit", "", &[], &config);
    for file in ["lamp", "bell"] {
        fs::write(instance.dir.join(file), "x\n").unwrap();
    }
    instance.launch();
    instance.await_state("pump", "running");
    await_output(&instance, "bell", "boot", Some("high"));
    light(&instance);
    instance.quit_clean();
    assert_eq!((lamp(&instance).as_str(), instance.read("bell").trim()), ("0", "0"));
}

#[test]
fn the_owner_gets_the_open_file_whoever_it_runs_as() {
    need_root();
    let config = format!(
        "{LAMP}safe = low\n[output:bell]\ncommand = /bin/true\nsafe = low\n\
         [program:pump]\ncommand = %(here)s/pump\nstartsecs = 0\nready = fd:3\nuser = nobody\noutputs = bell, lamp\n"
    );
    let pump = "[ \"$MULTUSD_OUTPUTS\" = lamp=4 ] && echo 255 >&4 && echo >&3; exec sleep 100000";
    let instance = start("outputs-descriptor", &[("pump", pump)], &config);
    fs::set_permissions(&instance.dir, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    instance.await_state("pump", "running");
    assert_eq!(lamp(&instance), "255");
}

#[test]
fn after_each_crash_it_is_safe_before_the_successor_begins() {
    let crashes: usize = std::env::var("MULTUSD_CRASHES").map_or(500, |count| count.parse().unwrap());
    let config = format!(
        "{LAMP}safe = low\n[program:pump]\ncommand = %(here)s/pump\nstartsecs = 0\nrestart_delay = 1ms\n\
         restart_delay_max = 1ms\noutputs = lamp\n"
    );
    let pump = "cd ${0%/*}; read level <lamp; echo $level >>levels; echo 255 >lamp; kill -9 $$";
    let instance = start("outputs-crashes", &[("pump", pump)], &config);
    instance.await_that("crashes", || instance.lines("levels").len() >= crashes);
    assert!(instance.lines("levels").iter().all(|level| level == "0"), "{:?}", instance.lines("levels"));
}

#[test]
fn an_active_low_output_understands_all_four_words() {
    let words = [("high", "255"), ("low", "0"), ("on", "0"), ("off", "255")];
    let mut config = String::new();
    for (word, _) in words {
        config += &format!(
            "[output:{word}]\npath = %(here)s/{word}\nwrite_high = 255\nactive = low\nsafe = {word}\n"
        );
    }
    let instance = Instance::scripted_only("outputs-words", "", &[], &config);
    for (word, _) in words {
        fs::write(instance.dir.join(word), "").unwrap();
    }
    let mut instance = instance;
    instance.launch();
    for (word, text) in words {
        let is_high = text == "255";
        let level = if is_high { "high" } else { "low" };
        let output = await_output(&instance, word, "boot", Some(level));
        assert_eq!(output.active, Some(!is_high), "{word}");
        assert_eq!(instance.read(word).trim(), text, "{word}");
        assert!(output.safe);
    }
    for (word, text) in words {
        instance.ctl_ok(&["outputs", "set", "high", word]);
        instance.await_that(word, || instance.read("high").trim() == text);
        assert_eq!(await_output(&instance, "high", "set", None).safe, text == "255", "{word}");
    }
    let table = instance.ctl_ok(&["outputs"]);
    assert!(table.contains("low (on)") && table.contains("high (off)"), "{table}");
}

#[test]
fn two_owners_are_refused_and_both_lines_named() {
    let config =
        format!("{LAMP}safe = low\n{FOREVER}outputs = lamp\n[program:other]\ncommand = /x\noutputs = lamp\n");
    let instance = Instance::prepare("outputs-owners", "", &config);
    let checked = instance.ctl(&["check", instance.config_path().to_str().unwrap()]);
    let words = String::from_utf8_lossy(&[checked.stdout, checked.stderr].concat()).into_owned();
    let text = fs::read_to_string(instance.config_path()).unwrap();
    let lines: Vec<usize> =
        (1..).zip(text.lines()).filter(|(_, line)| line.starts_with("outputs")).map(|(n, _)| n).collect();
    assert_eq!(checked.status.code(), Some(1), "{words}");
    assert!(
        words.contains(&format!(":{}:", lines[1])) && words.contains(&format!("line {}", lines[0])),
        "{words}"
    );
}

#[test]
fn setting_one_by_hand_needs_a_program_that_is_down_or_force_and_lasts_until_the_next_start() {
    let config =
        format!("{LAMP}safe = low\n[program:pump]\ncommand = %(here)s/pump\nstartsecs = 0\noutputs = lamp\n");
    let pump = "cd ${0%/*}; read level <lamp; echo $level >>levels; exec sleep 100000";
    let instance = start("outputs-set", &[("pump", pump)], &config);
    instance.await_state("pump", "running");
    instance.await_lines("levels", 1);
    let refused = instance.ctl(&["outputs", "set", "lamp", "on"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("pump runs and drives it"), "{refused:?}");
    instance.ctl_ok(&["outputs", "set", "lamp", "on", "--force"]);
    await_lamp(&instance, "255");
    instance.ctl_ok(&["stop", "pump", "--wait"]);
    instance.ctl_ok(&["outputs", "set", "lamp", "on"]);
    let set = await_output(&instance, "lamp", "set", Some("high"));
    assert!(!set.safe, "{set:?}");
    assert_eq!(lamp(&instance), "255");
    instance.ctl_ok(&["start", "pump"]);
    instance.await_lines("levels", 2);
    assert_eq!(instance.lines("levels"), ["0", "0"], "safe before it begins");
    assert_eq!(instance.ctl_code(&["outputs", "set", "lamp", "bright"]), 2);
    assert_eq!(instance.ctl_code(&["outputs", "set", "bell", "on"]), 1);
}

#[test]
fn an_output_that_cannot_be_driven_holds_its_program_and_is_tried_again() {
    let config = format!("{LAMP}safe = low\n{FOREVER}outputs = lamp\n");
    let instance = Instance::scripted_only("outputs-missing", "", &[], &config);
    let mut instance = instance;
    instance.launch();
    let missing = await_output(&instance, "lamp", "unconfirmed", None);
    assert_eq!(missing.reason.as_deref(), Some("No such file or directory"));
    assert!(
        instance.log().contains("output lamp: NOT CONFIRMED: No such file or directory"),
        "{}",
        instance.log()
    );
    assert_ne!(instance.program("pump").state, "running");
    let why = instance.program("pump").reason;
    assert_eq!(why.as_deref(), Some("output lamp: No such file or directory"));
    light(&instance);
    instance.await_state("pump", "running");
}

#[test]
fn a_command_that_hangs_is_killed_and_the_output_stays_unconfirmed_until_it_answers() {
    let config = format!(
        "[output:lamp]\ncommand = %(here)s/set\ntimeout = 100ms\nsafe = low\n{FOREVER}outputs = lamp\n"
    );
    let set = "cd ${0%/*}; [ -e well ] || { echo $$ >>hung; exec sleep 100000; }; echo $1 >>said";
    let instance = start("outputs-hung", &[("set", set)], &config);
    let hung = await_output(&instance, "lamp", "unconfirmed", None);
    instance.await_lines("hung", 3);
    assert_ne!(instance.program("pump").state, "running");
    instance.await_that("the time is over", || output(&instance, "lamp").reason.is_some());
    assert!(hung.confirmed_ms.is_none());
    fs::write(instance.dir.join("well"), "").unwrap();
    instance.await_state("pump", "running");
    assert_eq!(instance.lines("said").last().map(String::as_str), Some("low"));
    for pid in instance.lines("hung") {
        let pid = pid.parse().unwrap();
        instance.await_that("no command is left", || !is_alive(pid) || !command_line(pid).contains("100000"));
    }
}

#[test]
fn what_can_only_be_written_is_believed_and_said_to_be() {
    let config = format!("{LAMP}safe = low\n{FOREVER}outputs = lamp\n");
    let mut instance = Instance::scripted_only("outputs-fifo", "", &[], &config);
    let fifo = instance.dir.join("lamp");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
    instance.launch();
    instance.await_state("pump", "running");
    assert_eq!(output(&instance, "lamp").reason.as_deref(), Some("cannot be read back"));
}

#[test]
fn a_successor_moves_no_output_and_makes_it_safe_when_it_is_time() {
    let config = format!("{LAMP}safe = low\nrunning = low\n{FOREVER}outputs = lamp\n");
    let instance = start("outputs-successor", &[], &config);
    let pid = instance.await_state("pump", "running").pid.unwrap();
    light(&instance);
    let written = |instance: &Instance| {
        let file = fs::metadata(instance.dir.join("lamp")).unwrap();
        (file.mtime(), file.mtime_nsec())
    };
    let before = written(&instance);
    for _ in 0..3 {
        let supervisor = supervisor_of(instance.guard_pid());
        signal(supervisor, libc::SIGKILL);
        instance.await_that("a successor", || {
            let now = supervisor_of(instance.guard_pid());
            now != supervisor && now != 0
        });
        assert_eq!(output(&instance, "lamp").state, "driven");
    }
    assert_eq!(written(&instance), before);
    signal(pid, libc::SIGKILL);
    await_output(&instance, "lamp", "safe", Some("low"));
    assert_eq!(lamp(&instance), "0");
}

#[test]
fn where_supervisors_fail_again_and_again_the_guard_makes_it_safe() {
    let mut instance = start("outputs-guard", &[], &format!("{LAMP}safe = low\n{FOREVER}outputs = lamp\n"));
    let pid = instance.await_state("pump", "running").pid.unwrap();
    light(&instance);
    instance.await_that("the guard makes it safe", || {
        let supervisor = supervisor_of(instance.guard_pid());
        if supervisor != 0 {
            signal(supervisor, libc::SIGKILL);
        }
        lamp(&instance) == "0"
    });
    assert!(is_alive(pid), "that is all that happens to the program");
    instance.await_state("pump", "running");
    instance.quit_clean();
}

#[test]
fn a_reload_that_takes_an_output_away_makes_it_safe_when_its_owner_is_down() {
    let pump = "trap 'read level <%(here)s/lamp; echo $level >%(here)s/last; exit 0' TERM; \
                while :; do sleep 100000 & wait $!; done";
    let program = "[program:pump]\ncommand = %(here)s/pump\nstartsecs = 0\n";
    let mut instance = Instance::scripted_only("outputs-removed", "", &[], "");
    let here = instance.dir.to_str().unwrap().to_owned();
    harness::script(&instance.dir, "pump", &pump.replace("%(here)s", &here));
    light(&instance);
    instance.write_config(&format!("{LAMP}safe = low\n{program}outputs = lamp\n"));
    instance.launch();
    let first = instance.await_state("pump", "running").pid;
    light(&instance);
    instance.write_config(program);
    instance.ctl_ok(&["reload"]);
    instance.await_program("pump", "another", |pump| pump.state == "running" && pump.pid != first);
    assert_eq!(instance.read("last").trim(), "255", "not while it ran");
    assert_eq!(lamp(&instance), "0");
    instance.await_that("it is let go of", || !instance.ctl_ok(&["outputs"]).contains("lamp"));
    // And back, to another owner, with other levels.
    instance.write_config(&format!(
        "{LAMP}safe = high\n{program}{}outputs = lamp\n",
        FOREVER.replace("pump", "other")
    ));
    instance.ctl_ok(&["reload"]);
    instance.await_state("other", "running");
    assert_eq!(lamp(&instance), "255");
    assert_eq!(output(&instance, "lamp").owner.as_deref(), Some("other"));
}

#[test]
fn a_reload_that_changes_an_output_restarts_its_owner_with_the_new_levels() {
    let instance = start("outputs-changed", &[], &format!("{LAMP}safe = low\n{FOREVER}outputs = lamp\n"));
    let first = instance.await_state("pump", "running").pid;
    instance.write_config(&format!("{LAMP}safe = high\n{FOREVER}outputs = lamp\n"));
    instance.ctl_ok(&["reload"]);
    instance.await_program("pump", "another", |pump| pump.state == "running" && pump.pid != first);
    assert_eq!(lamp(&instance), "255");
    instance.ctl_ok(&["stop", "pump", "--wait"]);
    assert!(output(&instance, "lamp").safe);
}

#[test]
fn an_output_that_gets_another_owner_has_only_one_at_a_time() {
    let pump = "trap 'sleep 0.3; echo 255 >%(here)s/lamp; echo end >>%(here)s/diary; exit 0' TERM; \
                while :; do sleep 100000 & wait $!; done";
    let other = "read level <%(here)s/lamp; echo begin $level >>%(here)s/diary; exec sleep 100000";
    let config = |owner: &str| {
        let owns = |name| if name == owner { "outputs = lamp\n" } else { "" };
        let program =
            |name| format!("[program:{name}]\ncommand = %(here)s/{name}\nstartsecs = 0\n{}", owns(name));
        format!("{LAMP}safe = low\n{}{}", program("pump"), program("other"))
    };
    let mut instance = Instance::scripted_only("outputs-heir", "", &[], "");
    let here = instance.dir.to_str().unwrap().to_owned();
    harness::script(&instance.dir, "pump", &pump.replace("%(here)s", &here));
    harness::script(&instance.dir, "other", &other.replace("%(here)s", &here));
    light(&instance);
    instance.write_config(&config("pump"));
    instance.launch();
    instance.await_state("pump", "running");
    instance.await_lines("diary", 1);
    instance.write_config(&config("other"));
    instance.ctl_ok(&["reload"]);
    let diary = instance.await_lines("diary", 3);
    assert_eq!(diary[1..], ["end", "begin 0"]);
}
