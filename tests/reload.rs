//! A reload is a transaction: what changed is restarted, what did not is left alone, and whatever
//! happens in between, what is in force is the old configuration or the new one.

mod harness;

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use harness::{Instance, Random, is_alive, script, signal, supervisor_of, wait};

const FOREVER: &str = "command = sleep 100000\nstartsecs = 0\n";

fn program(name: &str, keys: &str) -> String {
    format!("[program:{name}]\n{FOREVER}{keys}\n")
}

fn names(instance: &Instance) -> Vec<String> {
    let all = instance.status().programs.into_iter().map(|program| program.name);
    // Not what keeps the lines of them.
    all.filter(|name| name != multusd::limits::LOG).collect()
}

fn kept(instance: &Instance) -> String {
    fs::read_to_string(instance.dir.join("state/last-good.cfg")).unwrap_or_default()
}

/// What stands in for a broken file: what a reload has accepted since, or the last good one.
fn stands_in(instance: &Instance) -> String {
    fs::read_to_string(instance.dir.join("state/last-reloaded.cfg")).unwrap_or_else(|_| kept(instance))
}

/// The file is broken, and does not say where the state is kept; the copy must be found anyway.
fn break_file(instance: &Instance) {
    let broken = format!("[multusd]\nstate_dir = {}/state\n[program:\0", instance.dir.display());
    fs::write(instance.config_path(), broken).unwrap();
}

fn await_kept(instance: &Instance, text: &str) {
    instance.await_that(&format!("last good: {text}"), || kept(instance).contains(text));
}

/// Everything that was said, whichever stream it went to.
fn words(output: &std::process::Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn only_what_changed_is_restarted_and_a_dry_run_changes_nothing() {
    let before =
        program("same", "") + &program("changed", "") + &program("amended", "") + &program("removed", "");
    let instance = Instance::start("reload-diff", &before);
    let pids: BTreeMap<_, _> = ["same", "changed", "amended", "removed"]
        .into_iter()
        .map(|name| (name, instance.await_state(name, "running").pid.unwrap()))
        .collect();
    instance.write_config(
        &(program("added", "")
            + &program("same", "")
            + &program("changed", "environment = A=1\n")
            + &program("amended", "stopwaitsecs = 3\nautorestart = unexpected\n")),
    );
    let said = instance.ctl_ok(&["reload", "--dry-run"]);
    assert!(said.contains("1 added, 1 removed, 1 restarted, 1 amended"), "{said}");
    assert_eq!(names(&instance).len(), 4);
    assert!(pids.values().all(|pid| is_alive(*pid)));

    let said = instance.ctl_ok(&["reload"]);
    assert!(said.contains("1 added, 1 removed, 1 restarted, 1 amended"), "{said}");
    instance.await_state("added", "running");
    instance.await_program("changed", "in another process", |p| {
        p.state == "running" && p.pid.is_some_and(|pid| pid != pids["changed"])
    });
    instance.await_that("removed is gone", || !names(&instance).contains(&"removed".into()));
    assert!(!is_alive(pids["removed"]));
    assert_eq!((instance.pid("same"), instance.pid("amended")), (pids["same"], pids["amended"]));
    assert!(instance.ctl_ok(&["reload"]).contains("nothing changed"));

    // By signal, nobody waits for the answer.
    instance.write_config(&program("same", ""));
    signal(instance.guard_pid(), libc::SIGHUP);
    instance.await_that("one is left", || names(&instance) == ["same"]);
    assert_eq!(instance.pid("same"), pids["same"]);
}

#[test]
fn an_include_that_is_renamed_to_disabled_stops_its_programs() {
    let instance = Instance::prepare("reload-include", "", "");
    let home = instance.dir.display().to_string();
    fs::create_dir(instance.dir.join("d")).unwrap();
    fs::write(instance.dir.join("d/a.cfg"), program("a", "")).unwrap();
    let mut instance = instance;
    instance.write_config(&format!("[include]\nfiles = {home}/d/*.cfg\n{}", program("b", "")));
    instance.launch();
    let pid = instance.await_state("b", "running").pid;
    instance.await_state("a", "running");
    fs::rename(instance.dir.join("d/a.cfg"), instance.dir.join("d/a.cfg.disabled")).unwrap();
    instance.ctl_ok(&["reload"]);
    instance.await_that("a is gone", || names(&instance) == ["b"]);
    assert_eq!(instance.program("b").pid, pid);
}

#[test]
fn a_bad_file_changes_nothing_and_the_exit_code_says_so() {
    let instance = Instance::start("reload-bad", &program("a", ""));
    let pid = instance.await_state("a", "running").pid;
    instance.write_config(&(program("b", "") + "[program:c]\ncomand = x\n"));
    let output = instance.ctl(&["reload"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let text = fs::read_to_string(instance.config_path()).unwrap();
    let line = 1 + text.lines().position(|line| line.starts_with("comand")).unwrap();
    let place = format!("multusd.cfg:{line}:");
    let section = format!("multusd.cfg:{}:", line - 1);
    let said = words(&output);
    assert!(said.contains(&place) || said.contains(&section), "{said}");
    assert_eq!(names(&instance), ["a"]);
    assert_eq!(instance.program("a").pid, pid);
    assert!(instance.status().config_note.unwrap().contains("multusd.cfg:"));
    instance.write_config(&program("a", ""));
    instance.ctl_ok(&["reload"]);
    assert_eq!(instance.status().config_note.unwrap_or_default(), "");
    assert_eq!(instance.program("a").pid, pid);
}

/// Programs of one of two configurations, each of which names itself in its environment.
fn version(letter: char) -> String {
    let own = (0..4).map(|number| program(&format!("{letter}-{number}"), "")).collect::<String>();
    let changed = (0..4).map(|n| program(&format!("changed-{n}"), &format!("environment = V={letter}\n")));
    own + &changed.collect::<String>() + &program("same", "")
}

fn version_of(pid: u32) -> char {
    let text = harness::environment(pid);
    text.split('\0').find_map(|entry| entry.strip_prefix("V=")).and_then(|v| v.chars().next()).unwrap_or('?')
}

#[test]
fn a_supervisor_killed_at_any_step_of_a_reload_leaves_old_or_new() {
    let instance = Instance::start("reload-kill", &version('a'));
    let pid = instance.await_state("same", "running").pid;
    let (mut random, mut seen) = (Random(6), [0; 2]);
    let mut old = 'a';
    for round in 0..50 {
        let new = if old == 'a' { 'b' } else { 'a' };
        instance.write_config(&version(new));
        if round % 4 == 0 {
            // A guard whose supervisors all die young makes pauses.
            wait(Duration::from_millis(210));
        }
        let guard = instance.guard_pid();
        let supervisor = instance.status().supervisor_pid;
        let mut asked = instance.ctl_spawn(&["reload"]);
        wait(Duration::from_micros(random.below(16_000)));
        signal(supervisor, libc::SIGKILL);
        // A client that was slow to ask asks the successor; what follows looks at the outcome.
        asked.wait().unwrap();
        instance.await_that("another supervisor", || ![0, supervisor].contains(&supervisor_of(guard)));
        instance.await_that("multusd answers", || instance.ctl(&["status"]).status.success());
        let listed = |letter: char| {
            let mut names = names(&instance);
            names.sort();
            let mut wanted: Vec<String> = (0..4).map(|n| format!("{letter}-{n}")).collect();
            wanted.extend((0..4).map(|n| format!("changed-{n}")));
            wanted.push("same".into());
            names == wanted
        };
        let runs = |letter: char| {
            let programs = instance.status().programs;
            let good = |name: &str, pid: u32| !name.starts_with("changed") || version_of(pid) == letter;
            programs.iter().all(|p| p.state == "running" && p.pid.is_some_and(|pid| good(&p.name, pid)))
        };
        let mut found = '?';
        instance.await_that(&format!("old or new, round {round}"), || {
            found = if listed(old) {
                old
            } else if listed(new) {
                new
            } else {
                '?'
            };
            found != '?' && runs(found)
        });
        // A dry run compares with the file, which is new.
        let nothing = instance.ctl_ok(&["reload", "--dry-run"]).contains("nothing changed");
        assert_eq!(nothing, found == new, "round {round}");
        seen[usize::from(found == new)] += 1;
        assert_eq!(instance.program("same").pid, pid);
        old = found;
    }
    assert!(
        seen[0] > 2 && seen[1] > 2,
        "old {} times, new {} times: this test tests nothing",
        seen[0],
        seen[1]
    );
}

#[test]
fn a_kill_of_everything_while_the_last_good_copy_is_saved_leaves_old_or_new() {
    let mut random = Random(7);
    let keys = "reload_watch = 10ms\n";
    let mut instance = Instance::start_with("reload-save", keys, &program("a0", ""));
    await_kept(&instance, "[program:a0]");
    let (mut saved, mut round) = (0, 0);
    // A machine that is fast, or busy, needs more of them until both has happened.
    while round < 12 || round < 100 && (saved == 0 || saved == round) {
        round += 1;
        let before = stands_in(&instance);
        instance.write_config_with(keys, &program(&format!("a{round}"), ""));
        // Every third is not even waited for: then the kill may come first.
        match round % 3 {
            0 => instance.ctl_begin(&["reload"]),
            _ => drop(instance.ctl_ok(&["reload"])),
        }
        wait(Duration::from_micros(random.below(16_000)));
        instance.kill_both();
        // It is whole: with a broken file it is what the next life starts with.
        break_file(&instance);
        instance.launch();
        // Not before: the job that saves dies with the guard, but not in the same moment.
        let after = stands_in(&instance);
        saved += u32::from(after != before);
        assert!(after == before || after.contains(&format!("[program:a{round}]")), "{after}");
        let found = names(&instance);
        assert!(found.len() == 1 && after.contains(&format!("[program:{}]", found[0])), "{found:?} {after}");
        instance.write_config_with(keys, &program(&format!("a{round}"), ""));
        instance.ctl_ok(&["reload"]);
        await_kept(&instance, &format!("[program:a{round}]"));
    }
    assert!(saved > 0 && saved < round, "saved in {saved} rounds of {round}: this test tests nothing");
}

#[test]
fn what_a_reload_has_accepted_stands_in_for_a_broken_file_before_it_has_proved_itself() {
    let keys = "reload_watch = 1h\n";
    let mut instance = Instance::start_with("reload-accepted", keys, &program("a", ""));
    await_kept(&instance, "[program:a]");
    for name in ["b", "c"] {
        instance.write_config_with(keys, &program(name, ""));
        instance.ctl_ok(&["reload"]);
    }
    instance.kill_both();
    break_file(&instance);
    instance.launch();
    assert_eq!(names(&instance), ["c"]);
    assert!(kept(&instance).contains("[program:a]"), "it is not called good yet");
    // A file that is whole is what holds, and nothing else is left.
    instance.kill_both();
    instance.write_config_with(keys, &program("d", ""));
    instance.launch();
    await_kept(&instance, "[program:d]");
    assert!(stands_in(&instance).contains("[program:d]"));
}

#[test]
fn a_change_that_keeps_failing_is_taken_back_and_a_good_one_becomes_the_last_good_copy() {
    let keys = "reload_watch = 5s\n";
    let quick = "restart_delay = 10ms\n";
    let instance = Instance::start_with("reload-flap", keys, &(program("a", quick) + &program("b", "")));
    await_kept(&instance, "[program:a]");
    let (a, b) = (instance.await_state("a", "running").pid, instance.await_state("b", "running").pid);
    let bad = format!("[program:a]\ncommand = false\nstartsecs = 0\n{quick}");
    instance.write_config_with(keys, &(bad.clone() + &program("b", "") + &program("c", "")));
    instance.ctl_ok(&["reload"]);
    instance.await_that("it is taken back", || {
        instance.status().config_note.is_some_and(|note| note.contains("taken back") && note.contains("a ("))
    });
    let again = instance.await_program("a", "as before", |p| p.state == "running" && p.pid != a);
    instance.await_that("c is gone", || !names(&instance).contains(&"c".into()));
    assert_eq!(instance.program("b").pid, b);
    assert!(!kept(&instance).contains("false"));

    // The same with a supervisor that is killed meanwhile.
    instance.ctl_ok(&["reload"]);
    signal(instance.status().supervisor_pid, libc::SIGKILL);
    instance.await_that("it is taken back again", || {
        let output = instance.ctl(&["status"]);
        output.status.success()
            && !names(&instance).contains(&"c".into())
            && instance.program("a").state == "running"
    });
    assert_ne!(instance.program("a").pid, again.pid);

    let good = program("a", quick) + &program("b", "") + &program("d", "");
    instance.write_config_with("reload_watch = 50ms\n", &good);
    instance.ctl_ok(&["reload"]);
    await_kept(&instance, "[program:d]");
    assert_eq!(instance.program("b").pid, b);
}

#[test]
fn a_change_that_repairs_a_failing_program_is_no_failing_change() {
    let keys = "restart_delay = 10ms\nrestart_delay_max = 60s\n";
    let bad = format!("[program:a]\ncommand = false\nstartsecs = 0\n{keys}");
    let instance = Instance::start("reload-repair", &bad);
    instance.await_program("a", "failed often", |p| p.failures > 8);
    instance.write_config(&program("a", keys));
    instance.ctl_ok(&["reload"]);
    // At once, not when its long pause is over.
    let fixed = instance.await_state("a", "running");
    assert_eq!(fixed.failures, 0);
    assert_eq!(instance.status().config_note.unwrap_or_default(), "");
}

#[test]
fn a_start_with_a_broken_file_uses_the_last_good_copy() {
    let mut instance = Instance::start("reload-broken", &program("a", ""));
    await_kept(&instance, "[program:a]");
    let whole = fs::read(instance.config_path()).unwrap();
    instance.quit();
    let start = format!("[multusd]\nstate_dir = {}/state\n", instance.dir.display());
    let torn = [&whole[..], b"[prog"].concat();
    let with_nul = [start.as_bytes(), b"[program:z]\ncommand = z\0\0\0\0\n"].concat();
    for broken in [torn, with_nul] {
        fs::write(instance.config_path(), broken).unwrap();
        instance.launch();
        instance.await_state("a", "running");
        assert!(instance.status().config_note.unwrap().contains("last good"));
        assert_eq!(names(&instance), ["a"]);
        instance.quit();
    }
    // Without one: up, with a word about it, and a good file is taken.
    fs::remove_dir_all(instance.dir.join("state")).unwrap();
    fs::write(instance.config_path(), format!("{start}[program:a]\n")).unwrap();
    instance.launch();
    assert_eq!(names(&instance), [""; 0]);
    assert!(instance.status().config_note.unwrap().contains("nothing is supervised"));
    instance.write_config(&program("b", ""));
    instance.ctl_ok(&["reload"]);
    instance.await_state("b", "running");
    assert_eq!(instance.status().config_note.unwrap_or_default(), "");
}

fn many(prefix: &str, count: usize) -> String {
    (0..count)
        .map(|number| program(&format!("{prefix}{number}"), "stdout_logfile = NONE\nstderr_logfile = NONE\n"))
        .collect()
}

#[test]
fn a_program_more_than_fit_is_an_error_with_its_line_and_all_can_be_replaced_at_once() {
    let max = multusd::limits::PROGRAM_COUNT_MAX;
    let instance = Instance::start("reload-many", &many("a", max));
    let all_run = |prefix: &str| {
        let programs = instance.status().programs;
        programs.len() == max && programs.iter().all(|p| p.name.starts_with(prefix) && p.state == "running")
    };
    instance.await_that("all run", || all_run("a"));
    let pid = instance.pid("a0");
    instance.write_config(&many("a", max + 1));
    let output = instance.ctl(&["reload"]);
    let checked = instance.ctl(&["check", instance.config_path().to_str().unwrap()]);
    let text = fs::read_to_string(instance.config_path()).unwrap();
    let line = 1 + text.lines().position(|line| line == format!("[program:a{max}]")).unwrap();
    for output in [output, checked] {
        assert_eq!(output.status.code(), Some(1));
        assert!(words(&output).contains(&format!("multusd.cfg:{line}: ")), "{}", words(&output));
    }
    assert!(all_run("a") && instance.pid("a0") == pid);
    instance.write_config(&many("b", max));
    instance.ctl_ok(&["reload"]);
    instance.await_that("all others run", || all_run("b"));
    assert!(!is_alive(pid));
}

#[test]
fn a_reload_under_load_leaves_those_alone_that_it_does_not_mean() {
    let instance = Instance::prepare("reload-load", "", "");
    let storm = script(&instance.dir, "storm", "exit 1");
    let keys = "startsecs = 0\nrestart_delay = 5ms\nrestart_delay_max = 10ms\n";
    let storm =
        (0..8).map(|n| format!("[program:storm{n}]\ncommand = {storm}\n{keys}\n")).collect::<String>();
    let text = |number: u32| {
        storm.clone() + &program("same", "") + &program("changed", &format!("environment = V={number}\n"))
    };
    let mut instance = instance;
    instance.write_config(&text(0));
    instance.launch();
    let pid = instance.await_state("same", "running").pid;
    for number in 1..10 {
        let before = instance.await_state("changed", "running").pid;
        instance.write_config(&text(number));
        instance.ctl_ok(&["reload"]);
        instance.await_program("changed", "another process", |p| p.state == "running" && p.pid != before);
        assert_eq!(instance.program("same").pid, pid);
    }
}
