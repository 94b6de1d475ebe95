//! Real programs kept alive by the real binary: starts, failures, restarts, and how many.

mod harness;

use std::fs;
use std::process::Command;

use harness::real::{Events, both_ways, cpu_ms};
use harness::{Instance, binary, signal};

#[test]
fn a_program_that_is_killed_is_started_again() {
    for (way, keys) in both_ways() {
        let config = "[program:a]\ncommand = sleep 1000\nstartsecs = 0\n";
        let mut instance = Instance::start_with(&format!("killed-{way}"), keys, config);
        let first = instance.await_state("a", "running").pid.unwrap();
        signal(first, libc::SIGKILL);
        let again = instance.await_program("a", "another process", |a| a.pid.is_some_and(|pid| pid != first));
        assert_eq!(again.restarts, 1);
        assert_eq!(again.last_exit.unwrap().signal, Some(9));
        instance.quit_clean();
    }
}

/// Fails to start again and again, with growing pauses, and says why in these words.
fn assert_never_starts(instance: &mut Instance, name: &str, reason: &str) {
    let program = instance.await_program(name, "three failures", |a| a.failures >= 3);
    assert!(["backoff", "starting"].contains(&program.state.as_str()), "{program:?}");
    assert_eq!(program.reason.as_deref(), Some(reason));
    assert_eq!((program.pid, program.last_exit), (None, None));
    instance.ctl_ok(&["stop", name, "--wait"]);
    assert_eq!(instance.program(name).state, "stopped");
}

#[test]
fn what_cannot_be_executed_is_named_with_its_path_and_the_error_and_tried_again() {
    for seconds in ["0", "1"] {
        let config = "[program:missing]\ncommand = /nowhere/x\nstartsecs = N\n\
                      [program:forbidden]\ncommand = %(here)s/plain\nstartsecs = N\n\
                      [program:garbage]\ncommand = %(here)s/garbage\nstartsecs = N\n\
                      [program:searched]\ncommand = no-such-program-anywhere\nstartsecs = N\n";
        let garbage = [("garbage", "")];
        let mut instance =
            Instance::scripted_only(&format!("exec-{seconds}"), "", &garbage, &config.replace('N', seconds));
        fs::write(instance.dir.join("plain"), "#!/bin/sh\n").unwrap();
        harness::executable(&instance.dir.join("garbage"), &[0x7f, b'E', 0, 1, 2, 3, 0xff]);
        instance.launch();
        let dir = instance.dir.display().to_string();
        assert_never_starts(&mut instance, "missing", "exec /nowhere/x: No such file or directory");
        assert_never_starts(&mut instance, "forbidden", &format!("exec {dir}/plain: Permission denied"));
        assert_never_starts(&mut instance, "garbage", &format!("exec {dir}/garbage: Exec format error"));
        assert_never_starts(
            &mut instance,
            "searched",
            "exec no-such-program-anywhere: No such file or directory",
        );
        instance.quit_clean();
    }
}

#[test]
fn a_missing_program_is_given_up_after_startretries_also_without_a_start_time() {
    let config = "[program:a]\ncommand = /nowhere/x\nstartsecs = 0\nstartretries = 2\nrestart_delay = 10ms\n";
    let mut instance = Instance::start("exec-fatal", config);
    let program = instance.await_state("a", "fatal");
    assert_eq!(program.reason.as_deref(), Some("exec /nowhere/x: No such file or directory"));
    instance.quit_clean();
}

#[test]
fn a_program_whose_user_does_not_exist_keeps_no_other_from_running() {
    let good = "[program:b]\ncommand = sleep 1000\nstartsecs = 0\n";
    let config = format!("[program:a]\ncommand = sleep 1000\nuser = nobody-of-that-name\n{good}");
    let mut instance = Instance::start("nouser", &config);
    let running = instance.await_state("b", "running").pid;
    let note = instance.status().config_note.expect("a note");
    assert!(note.contains("nobody-of-that-name"), "{note}");
    let lacking = instance.await_state("a", "backoff");
    assert_eq!(lacking.reason.as_deref(), Some("no user `nobody-of-that-name` in /etc/passwd"));
    // Where something runs already, the same is an error, and changes nothing.
    let reload = instance.ctl(&["reload"]);
    assert_eq!(reload.status.code(), Some(1), "{reload:?}");
    assert!(String::from_utf8_lossy(&reload.stderr).contains("nobody-of-that-name"), "{reload:?}");
    let path = instance.config_path();
    let check = Command::new(binary()).arg("--check").arg(&path).output().unwrap();
    let said = String::from_utf8_lossy(&check.stderr).into_owned() + &String::from_utf8_lossy(&check.stdout);
    assert!(said.contains("nobody-of-that-name"), "{said}");
    instance.write_config(good);
    instance.ctl_ok(&["reload"]);
    assert_eq!(instance.program("b").pid, running);
    instance.quit_clean();
}

#[test]
fn a_program_that_ends_at_once_is_started_with_growing_delays_and_costs_nothing() {
    let config = "[program:canary]\ncommand = true\nautostart = false\nautorestart = false\nstartsecs = 0\n\
                  [program:a]\ncommand = true\nautostart = false\nrestart_delay = 100ms\n";
    let mut instance = Instance::start("delays", config);
    let events = Events::of(&instance, "canary");
    let status = instance.status();
    let used = || cpu_ms(status.guard_pid) + cpu_ms(status.supervisor_pid);
    let (before, began) = (used(), std::time::Instant::now());
    instance.ctl_ok(&["start", "a"]);
    // Looked for in a file, so that looking costs multusd nothing.
    instance.await_that("seven starts", || events.times("a", "starting").len() >= 7);
    let (used, window) = (used() - before, began.elapsed());
    let starts = events.times("a", "starting");
    let pauses: Vec<u64> = starts.windows(2).map(|pair| pair[1] - pair[0]).collect();
    // Without a delay, then 100 ms doubling, each with some jitter; a busy machine only adds.
    for (pause, least) in pauses.iter().zip([0, 75, 150, 300, 600, 1200]) {
        assert!(*pause >= least, "{pauses:?}");
    }
    assert!(pauses[5] > 2 * pauses[3], "{pauses:?}");
    let share = used / window.as_secs_f64() / 1000.0;
    assert!(share < 0.01, "{:.2} % of a CPU: {used:.1} ms in {window:?}", share * 100.0);
    assert!(instance.program("a").next_start_ms.is_some());
    instance.quit_clean();
}

#[test]
fn startretries_ends_in_fatal_and_a_start_by_hand_begins_anew() {
    let config = "[program:a]\ncommand = sh -c 'exit 7'\nstartretries = 2\nrestart_delay = 10ms\n";
    let mut instance = Instance::start("fatal", config);
    let program = instance.await_state("a", "fatal");
    assert_eq!((program.restarts, program.last_exit.unwrap().code), (2, Some(7)));
    instance.ctl_ok(&["start", "a"]);
    instance.await_program("a", "two more", |a| a.state == "fatal" && a.restarts > 3);
    instance.quit_clean();
}

#[test]
fn autorestart_decides_by_exit_code() {
    let exits = |name: &str, code: u8, keys: &str| {
        format!(
            "[program:{name}]\ncommand = sh -c 'exit {code}'\nstartsecs = 0\nrestart_delay = 10ms\n{keys}\n"
        )
    };
    let config = [
        exits("never", 1, "autorestart = false"),
        exits("expected", 5, "autorestart = unexpected\nexitcodes = 0,5"),
        exits("unexpected", 6, "autorestart = unexpected\nexitcodes = 0,5"),
        exits("always", 0, ""),
    ];
    let mut instance = Instance::start("autorestart", &config.concat());
    for (name, code) in [("never", 1), ("expected", 5)] {
        let program = instance.await_state(name, "exited");
        assert_eq!((program.restarts, program.last_exit.unwrap().code), (0, Some(code)), "{name}");
    }
    for name in ["unexpected", "always"] {
        instance.await_program(name, "restarted", |a| a.restarts >= 2);
    }
    assert_eq!(instance.program("never").restarts, 0);
    instance.quit_clean();
}

#[test]
fn a_program_started_once_is_not_restarted() {
    let config = "[program:a]\ncommand = sh -c 'exit 1'\nautostart = false\nstartsecs = 0\n";
    let mut instance = Instance::start("once", config);
    instance.ctl(&["once", "a"]);
    let program = instance.await_state("a", "exited");
    assert_eq!((program.restarts, program.last_exit.unwrap().code), (0, Some(1)));
    instance.quit_clean();
}

#[test]
fn a_oneshot_that_succeeds_stays_done_and_lets_others_go_on() {
    let config = "[program:job]\ncommand = sh -c 'echo >> $D/done'\ntype = oneshot\nenvironment = D=\"%(here)s\"\n\
                  [program:next]\ncommand = sleep 1000\nstartsecs = 0\nrequires = job\n";
    let mut instance = Instance::start("oneshot", config);
    instance.await_state("next", "running");
    let job = instance.program("job");
    assert_eq!((job.state.as_str(), job.restarts, job.last_exit.unwrap().code), ("exited", 0, Some(0)));
    assert_eq!(instance.lines("done").len(), 1);
    instance.ctl_ok(&["restart", "next", "--wait"]);
    assert_eq!(instance.lines("done").len(), 1, "done is done");
    instance.quit_clean();
}

#[test]
fn a_oneshot_that_fails_is_tried_until_it_succeeds() {
    let script = "echo >> \"${0%/*}/tried\"\n[ $(wc -l < \"${0%/*}/tried\") -ge 3 ]";
    let config = "[program:job]\ncommand = %(here)s/job\ntype = oneshot\nrestart_delay = 10ms\n\
                  [program:next]\ncommand = sleep 1000\nstartsecs = 0\nrequires = job\n";
    let mut instance = Instance::scripted("oneshot-fails", "", &[("job", script)], config);
    instance.await_state("next", "running");
    assert_eq!(instance.program("job").state, "exited");
    assert_eq!(instance.lines("tried").len(), 3);
    instance.quit_clean();
}

#[test]
fn numprocs_makes_as_many_with_their_numbers() {
    let config = "[program:w]\ncommand = sh -c 'echo %(process_num)02d > $D/%(process_num)d; exec sleep 1000'\n\
                  numprocs = 4\nprocess_name = w-%(process_num)d\nstartsecs = 0\nenvironment = D=\"%(here)s\"\n";
    let mut instance = Instance::start("numprocs", config);
    for number in 0..4 {
        instance.await_state(&format!("w-{number}"), "running");
        assert_eq!(instance.await_lines(&number.to_string(), 1), [format!("{number:02}")]);
    }
    let pids: std::collections::BTreeSet<_> =
        instance.status().programs.iter().filter(|p| p.name != "log").map(|p| p.pid).collect();
    assert_eq!(pids.len(), 4);
    instance.quit_clean();
}

#[test]
fn two_instances_run_side_by_side() {
    for (way, keys) in both_ways() {
        let config = "[program:a]\ncommand = %(here)s/sleeper 1000\nstartsecs = 0\n";
        let mut one = Instance::scripted(&format!("one-{way}"), keys, &[], config);
        let mut two = Instance::scripted(&format!("two-{way}"), keys, &[], config);
        let (first, second) = (one.await_state("a", "running"), two.await_state("a", "running"));
        assert_ne!(first.pid, second.pid);
        one.quit_clean();
        assert_eq!(two.program("a").pid, second.pid, "{way}: the other one does not notice");
        two.quit_clean();
    }
}

#[test]
fn a_second_multusd_on_the_same_run_directory_is_refused() {
    let config = "[program:a]\ncommand = %(here)s/sleeper 1000\nstartsecs = 0\n";
    let mut instance = Instance::scripted("second", "", &[], config);
    let first = instance.await_state("a", "running");
    let mut second = Command::new(binary());
    second.arg("--config").arg(instance.config_path()).arg("--run-dir").arg(instance.run_dir());
    let output = second.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains(&format!("another multusd runs in {}", instance.run_dir().display())), "{said}");
    assert_eq!(instance.program("a").pid, first.pid);
    instance.quit_clean();
}
