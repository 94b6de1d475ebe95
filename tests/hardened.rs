//! Memory that is locked and real-time priority: guard and supervisor have them, whoever replaces them too, and
//! nobody else.

mod harness;

use std::fs;

use harness::real::{become_user, need_root, status_line};
use harness::{Instance, PATIENCE, await_condition, processes, signal, supervisor_of};

const NOBODY: u32 = 65_534;
const HARD: &str = "lock_memory = yes\nrealtime_priority = 10";

/// Policy and priority of a process.
fn scheduling(pid: u32) -> (i32, i32) {
    let mut parameter = libc::sched_param { sched_priority: 0 };
    // SAFETY: integers, and a structure that lives across the call.
    unsafe {
        let policy = libc::sched_getscheduler(pid as i32);
        libc::sched_getparam(pid as i32, &raw mut parameter);
        (policy, parameter.sched_priority)
    }
}

/// Kilobytes of its memory that are locked.
fn locked(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    if text.is_empty() {
        0
    } else {
        status_line(&text, "VmLck").trim_end_matches(" kB").trim().parse().unwrap()
    }
}

fn await_hard(instance: &Instance, priority: i32, is_locked: bool) {
    let policy = if priority == 0 { libc::SCHED_OTHER } else { libc::SCHED_FIFO } | libc::SCHED_RESET_ON_FORK;
    let (guard, supervisor) = (instance.guard_pid(), instance.status().supervisor_pid);
    let mut found = String::new();
    let done = await_condition(|| {
        let both = [guard, supervisor].map(|pid| (scheduling(pid), locked(pid)));
        found = format!("{both:?}");
        both[0].0 == (policy, priority + i32::from(priority > 0))
            && both[1].0 == (policy, priority)
            && both.iter().all(|(_, locked)| (*locked > 0) == is_locked)
    });
    assert!(done, "not in {PATIENCE:?}: {priority} {is_locked}, but {found}");
}

#[test]
fn guard_and_supervisor_have_locked_memory_and_real_time_priority_and_no_other_process_has() {
    need_root();
    let config = "[output:lamp]\npath = %(here)s/lamp\nsafe = low\n\
        [program:a]\ncommand = %(here)s/sleeper 1000\nstartsecs = 0\noutputs = lamp\n\
        check = %(here)s/sleeper 1001\ncheck_interval = 10ms\ncheck_timeout = 1h\n\
        [program:b]\ncommand = %(here)s/sleeper 1002\nstartsecs = 0\nscheduling = rr:5\n";
    let mut instance = Instance::scripted_only("hard", HARD, &[], config);
    fs::write(instance.dir.join("lamp"), "0\n").unwrap();
    instance.launch();
    let b = instance.await_state("b", "running").pid.unwrap();
    instance.await_that("two programs and a check", || instance.sleepers().len() == 3);
    let assert_others_are_soft = || {
        let guard = instance.guard_pid();
        let supervisor = supervisor_of(guard);
        let children = fs::read_to_string(format!("/proc/{guard}/task/{guard}/children")).unwrap();
        let mut count = 0;
        for pid in children.split_ascii_whitespace().map(|word| word.parse::<u32>().unwrap()) {
            if pid == supervisor || !processes().contains(&pid) {
                continue;
            }
            let expected = if pid == b { (libc::SCHED_RR, 5) } else { (libc::SCHED_OTHER, 0) };
            let found = (scheduling(pid), locked(pid));
            // One that ends just now has none.
            if found.0.0 >= 0 {
                assert_eq!(found, (expected, 0), "{}", harness::real::command_line(pid));
                count += 1;
            }
        }
        // The check, the log writer and the output's helper, too.
        assert!(count >= 5, "{count}: {children}");
    };
    await_hard(&instance, 10, true);
    instance.await_that("helper and writer run", || {
        let guard = instance.guard_pid();
        let text = fs::read_to_string(format!("/proc/{guard}/task/{guard}/children")).unwrap();
        text.split_ascii_whitespace().count() >= 6
    });
    assert_others_are_soft();
    // A successor is a fork, and has to become so itself.
    signal(instance.status().supervisor_pid, libc::SIGKILL);
    instance.await_that("its successor serves", || instance.ctl(&["status"]).status.success());
    await_hard(&instance, 10, true);
    assert_others_are_soft();

    instance.write_config_with("lock_memory = no\nrealtime_priority = 0\nreload_watch = 1ms", config);
    instance.ctl_ok(&["reload"]);
    await_hard(&instance, 0, false);
    instance.write_config_with("lock_memory = yes\nrealtime_priority = 98\nreload_watch = 1ms", config);
    instance.ctl_ok(&["reload"]);
    await_hard(&instance, 98, true);
    assert_eq!(instance.status().limitations.iter().filter(|text| text.contains("has no effect")).count(), 0);
    assert_eq!(instance.pid("b"), b);
    instance.quit_clean();
}

#[test]
fn without_the_right_to_either_that_is_said_once_and_everything_runs() {
    need_root();
    let mut instance = Instance::scripted_only(
        "soft",
        HARD,
        &[],
        "[program:a]\ncommand = %(here)s/sleeper 1000\nstartsecs = 0\n",
    );
    std::os::unix::fs::chown(&instance.dir, Some(NOBODY), Some(NOBODY)).unwrap();
    let copy = instance.public_binary();
    let (config_path, run_dir) = (instance.config_path(), instance.run_dir());
    let log = instance.dir.join("words");
    fs::write(&log, "").unwrap();
    let words = fs::OpenOptions::new().append(true).open(&log).unwrap();
    instance.launch_as(|command| {
        *command = std::process::Command::new(copy);
        command.arg("--config").arg(config_path).arg("--run-dir").arg(run_dir);
        command.stdin(std::process::Stdio::null()).stderr(words);
        // SAFETY: system calls only, between fork and exec.
        unsafe {
            std::os::unix::process::CommandExt::pre_exec(command, || {
                let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
                libc::setrlimit(libc::RLIMIT_MEMLOCK, &none);
                libc::setrlimit(libc::RLIMIT_RTPRIO, &none);
                Ok(())
            });
        }
        become_user(command, NOBODY, NOBODY, &[]);
    });
    instance.await_state("a", "running");
    let said = instance.status().limitations;
    for key in ["lock_memory", "realtime_priority"] {
        let sentence = format!("{key} has no effect");
        assert_eq!(said.iter().filter(|text| text.starts_with(&sentence)).count(), 1, "{said:?}");
        assert_eq!(fs::read_to_string(&log).unwrap().matches(&sentence).count(), 1);
    }
    instance.quit_clean();
}
