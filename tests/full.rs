//! What happens when something is full, broken or missing (docs/full.md): file systems, descriptors, processes,
//! /proc. Programs run on, are started again, and outputs stay as safe as ever. Clients of the control socket that
//! find no descriptor are in `tests/peers.rs`.

mod harness;

use std::fs;
use std::os::unix::process::CommandExt;
use std::time::Duration;

use harness::forks::Forks;
use harness::mounts::{fill, in_own_mounts, make_read_only, memory_at, unmount, unshare};
use harness::real::{await_death, both_ways, cpu_ms, need_root};
use harness::{Instance, is_alive, signal, supervisor_of, wait};

/// Two programs that run for ever.
const TWO: &str = "[program:a]\ncommand = %(here)s/sleeper 1001\nstartsecs = 0\nrestart_delay = 20ms\n\
    restart_delay_max = 20ms\n[program:b]\ncommand = %(here)s/sleeper 1002\nstartsecs = 0\n";

fn restarts(instance: &Instance, name: &str) -> u32 {
    let before = instance.await_program(name, "runs", |program| program.state == "running");
    signal(before.pid.unwrap(), libc::SIGKILL);
    let again = |program: &harness::Program| {
        program.state == "running" && program.pid.is_some_and(|pid| Some(pid) != before.pid)
    };
    instance.await_program(name, "runs again", again).pid.unwrap()
}

/// Kills the supervisor; returns when another one answers.
fn replace_supervisor(instance: &Instance) {
    let supervisor = instance.status().supervisor_pid;
    signal(supervisor, libc::SIGKILL);
    instance.await_that("its successor serves", || {
        instance.ctl(&["status"]).status.success() && instance.status().supervisor_pid != supervisor
    });
}

#[test]
fn on_a_full_disk_programs_start_and_reloads_take_effect_and_the_last_good_copy_is_missed_in_words() {
    in_own_mounts(|| {
        let mut instance = Instance::scripted_only("full-disk", "reload_watch = 1ms", &[], TWO);
        let disks = ["state", "log"].map(|name| instance.dir.join(name));
        for disk in &disks {
            memory_at(disk, "size=64k,mode=755", 0);
        }
        instance.launch();
        let other = instance.await_state("b", "running").pid;
        let kept = || fs::read_dir(&disks[0]).unwrap().flatten().map(|entry| entry.path());
        let holds = |what: &str| kept().any(|path| fs::read_to_string(path).is_ok_and(|t| t.contains(what)));
        instance.await_that("a copy is kept", || holds("1001"));
        disks.iter().for_each(|disk| fill(disk));
        restarts(&instance, "a");
        let more =
            |name: &str| format!("{TWO}[program:{name}]\ncommand = %(here)s/sleeper 1003\nstartsecs = 0\n");
        instance.write_config_with("reload_watch = 1ms", &more("third"));
        instance.ctl_ok(&["reload"]);
        instance.await_state("third", "running");
        instance.await_that("it is said", || {
            instance.log().contains("last good configuration could not be kept")
        });
        assert!(!holds("third") && holds("1001"), "the former copy is whole");
        assert_eq!(instance.program("b").pid, other);

        disks.iter().for_each(|disk| fs::remove_file(disk.join("filler")).unwrap());
        instance.write_config_with("reload_watch = 1ms", &more("fourth"));
        instance.ctl_ok(&["reload"]);
        instance.await_that("there is room again", || holds("fourth"));
        instance.quit_clean();
        disks.iter().for_each(|disk| unmount(disk));
    });
}

#[test]
fn a_run_directory_that_is_full_later_costs_neither_programs_nor_a_successor() {
    in_own_mounts(|| {
        let mut instance = Instance::scripted_only("full-run-later", "", &[], TWO);
        let run = instance.run_dir();
        memory_at(&run, "size=64k,nr_inodes=64,mode=755", 0);
        instance.launch();
        let other = instance.await_state("b", "running").pid;
        fill(&run);
        restarts(&instance, "a");
        replace_supervisor(&instance);
        restarts(&instance, "a");
        assert_eq!(instance.program("b").pid, other);
        instance.quit_clean();
        unmount(&run);
    });
}

#[test]
fn with_a_run_directory_that_is_full_from_the_start_programs_run_and_control_comes_with_a_reload() {
    in_own_mounts(|| {
        let notifier = "[program:n]\ncommand = %(here)s/notifier\nready = notify\nrestart_delay = 20ms\n\
            restart_delay_max = 20ms\nstart_timeout = 200ms\n";
        let text = "exec sleep 1000";
        let mut instance =
            Instance::scripted_only("full-run", "", &[("notifier", text)], &format!("{TWO}{notifier}"));
        let run = instance.run_dir();
        // Its own directory, and not one file more.
        memory_at(&run, "nr_inodes=1,mode=755", 0);
        instance.launch_only();
        instance.await_that("both", || instance.sleepers().len() == 2);
        instance.await_that("it is said", || instance.log().contains("the run directory fails ("));
        assert!(!run.join("control").exists());
        let first = *instance.sleepers().first().unwrap();
        signal(first, libc::SIGKILL);
        instance.await_that("again", || instance.sleepers().len() == 2 && !is_alive(first));
        // It is locked all the same.
        let second = std::process::Command::new(harness::binary())
            .arg("--config")
            .arg(instance.config_path())
            .arg("--run-dir")
            .arg(&run)
            .output()
            .unwrap();
        assert!(String::from_utf8_lossy(&second.stderr).contains("another multusd runs"), "{second:?}");

        let before = instance.sleepers();
        memory_at(&run, "nr_inodes=1000", libc::MS_REMOUNT);
        signal(instance.guard_pid(), libc::SIGHUP);
        instance.await_that("multusctl reaches it", || instance.ctl(&["status"]).status.success());
        instance.await_that("and programs their socket", || run.join("notify/n").exists());
        assert_eq!(instance.sleepers(), before);
        instance.quit_clean();
        unmount(&run);
    });
}

#[test]
fn where_everything_is_read_only_programs_run_and_are_started_again() {
    need_root();
    let mut instance = Instance::scripted_only("read-only", "", &[], TWO);
    instance.launch_as_only(|command| {
        // SAFETY: system calls only, between fork and exec.
        unsafe { command.pre_exec(|| unshare().and_then(|()| make_read_only())) };
    });
    instance.await_that("both", || instance.sleepers().len() == 2);
    instance.await_that("it is said", || instance.log().contains("the run directory fails ("));
    assert!(!instance.run_dir().exists() && !instance.dir.join("state").exists());
    let first = *instance.sleepers().first().unwrap();
    signal(first, libc::SIGKILL);
    instance.await_that("again", || instance.sleepers().len() == 2 && !is_alive(first));
    let supervisor = supervisor_of(instance.guard_pid());
    signal(supervisor, libc::SIGKILL);
    await_death(supervisor);
    let family = instance.sleepers();
    let first = *family.first().unwrap();
    signal(first, libc::SIGKILL);
    instance.await_that("by a successor", || instance.sleepers().len() == 2 && !is_alive(first));
    assert_eq!(instance.sleepers().intersection(&family).count(), 1);
    signal(instance.guard_pid(), libc::SIGTERM);
    assert_eq!(instance.await_end().code(), Some(0), "{}", instance.log());
    instance.await_nobody("after the end");
}

#[test]
fn without_proc_programs_run_and_are_started_again() {
    need_root();
    let mut instance = Instance::scripted_only("no-proc", "", &[], TWO);
    instance.launch_as(|command| {
        // SAFETY: system calls only, between fork and exec.
        unsafe {
            command.pre_exec(|| {
                unshare()?;
                match libc::mount(c"none".as_ptr(), c"/proc".as_ptr(), c"tmpfs".as_ptr(), 0, std::ptr::null())
                {
                    0 => Ok(()),
                    _ => Err(std::io::Error::last_os_error()),
                }
            });
        }
    });
    let other = instance.await_state("b", "running").pid;
    restarts(&instance, "a");
    instance.ctl_ok(&["restart", "a", "--wait"]);
    replace_supervisor(&instance);
    restarts(&instance, "a");
    assert_eq!(instance.program("b").pid, other);
    let said = instance.status().limitations;
    assert!(said.iter().any(|text| text.contains("/proc")), "{said:?}");
    instance.quit_clean();
}

#[test]
fn while_no_process_can_be_made_outputs_are_safe_and_others_run_and_then_it_goes_on() {
    need_root();
    for (way, keys) in both_ways() {
        let config = format!(
            "{TWO}restart_delay = 20ms\nrestart_delay_max = 50ms\noutputs = lamp\n[output:lamp]\npath = %(here)s/lamp\nwrite_high = 255\nsafe = low\nrunning = high\n"
        );
        let mut instance = Instance::scripted_only(&format!("forks-{way}"), keys, &[], &config);
        fs::write(instance.dir.join("lamp"), "255\n").unwrap();
        let forks = Forks::default();
        let mut begin = None;
        instance.launch_as_only(|command| begin = Some(forks.govern(command)));
        begin.unwrap()();
        instance.await_that("multusd answers", || instance.ctl(&["status"]).status.success());
        let a = instance.await_state("a", "running").pid;
        let lamp = |text: &str| instance.await_that(text, || instance.read("lamp").trim() == text);
        for errno in [libc::EAGAIN, libc::ENOMEM] {
            let b = instance.await_state("b", "running").pid.unwrap();
            lamp("255");
            forks.fail_with(errno);
            let said = instance.log().len();
            signal(b, libc::SIGKILL);
            lamp("0");
            instance.await_that("tried again and again", || forks.refused() > 5);
            let program = instance.program("b");
            assert!(program.pid.is_none() && instance.program("a").pid == a, "{program:?}");
            if way == "group" {
                let why = multusd::sys::describe(errno);
                assert!(program.reason.as_deref().is_some_and(|text| text.contains(why)), "{program:?}");
            }
            assert_eq!(instance.read("lamp").trim(), "0");
            let said = instance.log()[said..].lines().count();
            assert!(said <= 1, "said {said} times: {}", instance.log());
            forks.fail_with(0);
            instance.await_program("b", "again", |b| b.state == "running");
            lamp("255");
        }
        // Not even a supervisor.
        let (b, supervisor) = (instance.pid("b"), instance.status().supervisor_pid);
        forks.fail_with(libc::EAGAIN);
        signal(supervisor, libc::SIGKILL);
        instance.await_that("the guard has made outputs safe", || instance.read("lamp").trim() == "0");
        forks.fail_with(0);
        instance.await_that("its successor serves", || instance.ctl(&["status"]).status.success());
        assert_eq!((instance.program("a").pid, instance.pid("b")), (a, b));
        instance.quit_clean();
    }
}

#[test]
fn without_descriptors_trees_are_killed_whole_all_the_same() {
    need_root();
    for (way, keys) in both_ways() {
        let text = "d=${0%/*}\n( setsid $d/sleeper 1005 & )\nexec $d/sleeper 1004";
        let config = "[program:a]\ncommand = %(here)s/a\nstartsecs = 0\nrestart_delay = 20ms\nrestart_delay_max = 20ms\n";
        let mut instance = Instance::scripted(&format!("descriptors-{way}"), keys, &[("a", text)], config);
        instance.await_that("both", || instance.sleepers().len() == 2);
        let supervisor = instance.status().supervisor_pid;
        let before = instance.sleepers();
        let main = instance.pid("a");
        let is_free =
            |number: &usize| fs::symlink_metadata(format!("/proc/{supervisor}/fd/{number}")).is_err();
        let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        let set = |limit: &libc::rlimit, old: *mut libc::rlimit| {
            // SAFETY: valid structures.
            assert_eq!(unsafe { libc::prlimit(supervisor as i32, libc::RLIMIT_NOFILE, limit, old) }, 0);
        };
        // SAFETY: as above.
        unsafe { libc::prlimit(supervisor as i32, libc::RLIMIT_NOFILE, std::ptr::null(), &raw mut limit) };
        wait(Duration::from_millis(50));
        let none = libc::rlimit { rlim_cur: (0..).find(is_free).unwrap() as _, ..limit };
        set(&none, std::ptr::null_mut());
        signal(main, libc::SIGKILL);
        instance.await_that("all of them are gone", || before.iter().all(|pid| !is_alive(*pid)));
        set(&limit, std::ptr::null_mut());
        instance.await_that("both again", || instance.sleepers().len() == 2);
        assert_eq!(instance.status().supervisor_pid, supervisor);
        instance.quit_clean();
    }
}

/// Makes 2000 orphans, which live on, and 400 that end at once.
const ORPHANS: &str = r#"#!/usr/bin/env python3
import os, signal
here = os.path.dirname(os.path.abspath(__file__))
for number in range(20):
    if os.fork() == 0:
        os.setsid()
        for each in range(100):
            if os.fork() == 0:
                signal.pause()
            if each % 5 == 0 and os.fork() == 0:
                os._exit(0)
        os._exit(0)
while True:
    try:
        os.wait()
    except ChildProcessError:
        break
with open(here + "/open/made", "w") as made:
    made.write("made\n")
signal.pause()
"#;

#[test]
fn thousands_of_orphans_disturb_nobody_and_end_with_their_program() {
    need_root();
    for (way, keys) in both_ways() {
        let config = "[program:orphans]\ncommand = %(here)s/orphans\nstartsecs = 0\nautorestart = false\n\
            [program:steady]\ncommand = %(here)s/sleeper 1000\nstartsecs = 0\n";
        let mut instance = Instance::scripted_only(&format!("orphans-{way}"), keys, &[], config);
        harness::executable(&instance.dir.join("orphans"), ORPHANS.as_bytes());
        instance.launch();
        let steady = instance.pid("steady");
        let children = || {
            let guard = instance.guard_pid();
            let text = fs::read_to_string(format!("/proc/{guard}/task/{guard}/children")).unwrap_or_default();
            text.split_ascii_whitespace().count()
        };
        // One lot after the other: a busy machine takes its time.
        for count in (100..=2000).step_by(100) {
            instance.await_that(&format!("{count} orphans"), || children() >= count);
        }
        instance.await_that("made", || instance.dir.join("open/made").exists());
        // As long as they only live, nobody wakes for them.
        let (guard, supervisor) = (instance.guard_pid(), instance.status().supervisor_pid);
        instance.await_that("quiet", || {
            let before = cpu_ms(guard) + cpu_ms(supervisor);
            wait(Duration::from_millis(300));
            cpu_ms(guard) + cpu_ms(supervisor) - before < 10.0
        });
        instance.ctl_ok(&["stop", "orphans", "--wait", "--timeout", "30s"]);
        // Killed, all of them; the guard reaps them by and by.
        instance.await_that("none is left", || children() < 20);
        let steady_now = instance.program("steady");
        assert_eq!((steady_now.pid, steady_now.restarts), (Some(steady), 0));
        assert_eq!(instance.status().supervisor_pid, supervisor);
        instance.quit_clean();
    }
}
