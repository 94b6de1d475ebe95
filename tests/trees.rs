//! Whole trees of processes: whatever a program starts ends with it. Each sentence is proved in
//! both ways of finding processes, with control groups and without.

mod harness;

use std::fs;
use std::time::{Duration, Instant};

use harness::real::{Stranger, await_death, both_ways, command_line, need_root, state_of};
use harness::{Instance, is_alive, signal};

/// A program whose children leave by every door: fork, double fork, sessions, both.
const ESCAPING: &str = "d=${0%/*}
$d/sleeper 1001 &
( ( exec $d/sleeper 1002 ) & ) &
setsid $d/sleeper 1003 &
( setsid sh -c \"setsid $d/sleeper 1004 & $d/sleeper 1005 & wait\" & )
exec $d/sleeper 1000";

/// The sleepers of ESCAPING, and the shell that waits for two of them.
const ESCAPING_COUNT: usize = 7;

fn escaping(test: &str, keys: &str) -> Instance {
    let config = "[program:a]\ncommand = %(here)s/a\nstartsecs = 0\n";
    let instance = Instance::scripted(test, keys, &[("a", ESCAPING)], config);
    instance.await_that("all children", || instance.family().len() == ESCAPING_COUNT);
    instance
}

#[test]
fn nothing_is_left_of_a_program_that_is_stopped() {
    for (way, keys) in both_ways() {
        let mut instance = escaping(&format!("trees-stop-{way}"), keys);
        instance.ctl_ok(&["stop", "a", "--wait"]);
        assert!(instance.family().is_empty(), "{way}: {:?}", instance.family());
        instance.quit_clean();
    }
}

#[test]
fn nothing_is_left_of_a_program_whose_main_process_is_killed_when_the_next_one_starts() {
    for (way, keys) in both_ways() {
        let mut instance = escaping(&format!("trees-kill-{way}"), keys);
        let before = instance.family();
        signal(instance.pid("a"), libc::SIGKILL);
        instance.await_program("a", "started again", |a| a.restarts == 1 && a.state == "running");
        let left: Vec<_> = before.into_iter().filter(|pid| is_alive(*pid)).map(command_line).collect();
        assert!(left.is_empty(), "{way}: {left:?}");
        instance.await_that("all children again", || instance.family().len() == ESCAPING_COUNT);
        assert_eq!(instance.program("a").restarts, 1, "{way}: at the first try");
        instance.quit_clean();
    }
}

#[test]
fn a_tree_that_is_killed_again_and_again_has_its_hooks_and_starts_each_time_at_the_first_try() {
    for (way, keys) in both_ways() {
        let config = "[program:a]\ncommand = %(here)s/a\nstartsecs = 0\nrestart_delay = 10ms\n\
                      on_failure = %(here)s/note\n";
        let scripts = [("a", ESCAPING), ("note", "echo >> \"${0%/*}/open/failures\"")];
        let mut instance = Instance::scripted(&format!("trees-again-{way}"), keys, &scripts, config);
        for count in 0..5 {
            instance.await_that("all children", || instance.family().len() == ESCAPING_COUNT);
            assert_eq!(instance.program("a").restarts, count, "{way}");
            assert_eq!(instance.lines("open/failures").len(), count as usize, "{way}");
            signal(instance.pid("a"), libc::SIGKILL);
            instance.await_program("a", "the next", |a| a.restarts > count && a.pid.is_some());
        }
        instance.quit_clean();
    }
}

#[test]
fn nothing_is_left_of_anybody_when_multusd_quits() {
    for (way, keys) in both_ways() {
        let mut instance = escaping(&format!("trees-quit-{way}"), keys);
        instance.quit_clean();
    }
}

#[test]
fn nothing_is_left_when_the_guard_is_killed() {
    for (way, keys) in both_ways() {
        let mut instance = escaping(&format!("trees-guard-{way}"), keys);
        signal(instance.guard_pid(), libc::SIGKILL);
        instance.await_end();
        let gone = harness::await_condition(|| instance.everybody().is_empty());
        assert!(gone, "{way}: {:?}", instance.everybody().into_iter().map(command_line).collect::<Vec<_>>());
    }
}

#[test]
fn a_process_that_leaves_with_a_cleared_environment_ends_with_its_program_or_with_multusd() {
    let script = "d=${0%/*}\n( env -i setsid $d/sleeper 1001 & )\nexec $d/sleeper 1000";
    for (way, keys) in both_ways() {
        let config = "[program:a]\ncommand = %(here)s/a\nstartsecs = 0\n";
        let mut instance =
            Instance::scripted(&format!("trees-cleared-{way}"), keys, &[("a", script)], config);
        let mut escaped = None;
        instance.await_that("it has escaped", || {
            let left = |pid: &u32| {
                command_line(*pid).contains("sleeper\x001001") && harness::environment(*pid).is_empty()
            };
            escaped = instance.family().into_iter().find(left);
            escaped.is_some()
        });
        let escaped = escaped.unwrap();
        instance.ctl_ok(&["stop", "a", "--wait"]);
        if way == "group" {
            assert!(!is_alive(escaped), "a control group has no door");
        }
        instance.quit_clean();
        assert!(!is_alive(escaped));
    }
}

#[test]
fn nothing_is_left_of_a_fork_bomb_within_its_limit() {
    need_root();
    // A fork that fails is tried again: it never comes to rest.
    let bomb = "exec perl -e 'fork while 1' \"$0\"";
    for (way, keys) in both_ways() {
        // A user of its own: nobody else's processes count.
        let user = if way == "group" { 54_321 } else { 54_322 };
        let config = format!(
            "[program:a]\ncommand = %(here)s/a\nstartsecs = 0\nuser = {user}\ngroup = {user}\nlimit_nproc = 60\nnice = 19\n\
             stderr_logfile = NONE\n"
        );
        let mut instance = Instance::scripted(&format!("trees-bomb-{way}"), keys, &[("a", bomb)], &config);
        instance.await_that("a crowd", || instance.family().len() >= 50);
        instance.ctl_ok(&["stop", "a", "--wait", "--timeout", "30s"]);
        assert!(instance.family().is_empty(), "{way}: {} are left", instance.family().len());
        instance.quit_clean();
    }
}

#[test]
fn nothing_is_left_of_two_hundred_processes() {
    let script =
        "n=${1:-6}\n[ $n -gt 0 ] && { \"$0\" $((n-1)) & \"$0\" $((n-1)) & }\nexec \"${0%/*}/sleeper\" 1000";
    for (way, keys) in both_ways() {
        let config = "[program:a]\ncommand = %(here)s/a\nstartsecs = 0\n";
        let mut instance = Instance::scripted(&format!("trees-many-{way}"), keys, &[("a", script)], config);
        instance.await_that("a crowd", || instance.family().len() == 127);
        instance.ctl_ok(&["stop", "a", "--wait"]);
        assert!(instance.family().is_empty(), "{way}: {} are left", instance.family().len());
        instance.quit_clean();
    }
}

#[test]
fn one_program_s_end_leaves_the_others_alone() {
    for (way, keys) in both_ways() {
        let config = "[program:a]\ncommand = %(here)s/a\nstartsecs = 0\n\
                      [program:ab]\ncommand = %(here)s/a\nstartsecs = 0\n";
        let mut instance =
            Instance::scripted(&format!("trees-others-{way}"), keys, &[("a", ESCAPING)], config);
        instance.await_that("all children", || instance.family().len() == 2 * ESCAPING_COUNT);
        instance.ctl_ok(&["stop", "a", "--wait"]);
        assert_eq!(instance.family().len(), ESCAPING_COUNT, "{way}");
        instance.quit_clean();
    }
}

#[test]
fn a_program_deaf_to_term_is_killed_after_stopwaitsecs() {
    let script = "trap '' TERM\necho $$ > \"${0%/*}/deaf\"\nwhile :; do \"${0%/*}/sleeper\" 1000; done";
    for (way, keys) in both_ways() {
        let config = "[program:a]\ncommand = %(here)s/a\nstartsecs = 0\nstopwaitsecs = 400ms\n";
        let mut instance = Instance::scripted(&format!("trees-deaf-{way}"), keys, &[("a", script)], config);
        instance.await_number("deaf");
        let asked = Instant::now();
        instance.ctl_ok(&["stop", "a", "--wait"]);
        assert!(asked.elapsed() >= Duration::from_millis(400), "{way}: {:?}", asked.elapsed());
        let program = instance.program("a");
        assert_eq!(
            (program.state.as_str(), program.last_exit.unwrap().signal),
            ("stopped", Some(9)),
            "{way}"
        );
        assert!(instance.family().is_empty());
        instance.quit_clean();
    }
}

#[test]
fn a_program_that_hears_term_is_not_kept_waiting() {
    let mut instance = Instance::scripted(
        "trees-hears",
        "",
        &[],
        "[program:a]\ncommand = %(here)s/sleeper 1000\nstartsecs = 0\n",
    );
    instance.await_state("a", "running");
    let asked = Instant::now();
    instance.ctl_ok(&["stop", "a", "--wait"]);
    assert!(asked.elapsed() < Duration::from_secs(9), "{:?}", asked.elapsed());
    assert_eq!(instance.program("a").last_exit.unwrap().signal, Some(libc::SIGTERM as u8));
    instance.quit_clean();
}

#[test]
fn stopasgroup_asks_the_whole_process_group() {
    // Without it only the shell hears, and its child could not write a line.
    let script = "d=${0%/*}\n\
                  sh -c \"trap 'echo child >> $d/heard; exit' TERM; echo >> $d/up; while :; do $d/sleeper 0.01; done\" &\n\
                  trap 'wait; echo shell >> '$d'/heard; exit' TERM\necho >> $d/up\nwhile :; do wait; done";
    for (way, keys) in both_ways() {
        let config = "[program:a]\ncommand = %(here)s/a\nstartsecs = 0\nstopasgroup = true\n";
        let mut instance =
            Instance::scripted(&format!("trees-asgroup-{way}"), keys, &[("a", script)], config);
        instance.await_lines("up", 2);
        instance.ctl_ok(&["stop", "a", "--wait"]);
        assert_eq!(instance.lines("heard"), ["child", "shell"], "{way}");
        instance.quit_clean();
    }
}

#[test]
fn a_paused_program_stands_still_with_all_its_group_and_goes_on() {
    for (way, keys) in both_ways() {
        let mut instance = escaping(&format!("trees-pause-{way}"), keys);
        let main = instance.pid("a");
        let same_group = || {
            let pid = |stat: &u32| fs::read_to_string(format!("/proc/{stat}/stat")).unwrap_or_default();
            let group =
                |stat: &u32| pid(stat).rsplit(')').next().unwrap().split(' ').nth(3).map(str::to_owned);
            let wanted = Some(main.to_string());
            instance.family().into_iter().filter(|pid| group(pid) == wanted).collect::<Vec<_>>()
        };
        assert_eq!(same_group().len(), 3, "{way}: two children share its group");
        instance.ctl_ok(&["pause", "a"]);
        instance.await_state("a", "paused");
        let still = || same_group().iter().all(|pid| state_of(*pid) == Some('T') || is_frozen(*pid));
        instance.await_that("they stand still", still);
        if way == "group" {
            instance.await_that("all of them", || instance.family().iter().all(|pid| is_frozen(*pid)));
        }
        instance.ctl_ok(&["cont", "a"]);
        instance.await_state("a", "running");
        let goes = || instance.family().iter().all(|pid| state_of(*pid) == Some('S') && !is_frozen(*pid));
        instance.await_that("they go on", goes);
        instance.ctl_ok(&["pause", "a"]);
        instance.await_state("a", "paused");
        instance.ctl_ok(&["stop", "a", "--wait"]);
        assert!(instance.family().is_empty(), "{way}: a paused program can be stopped");
        instance.quit_clean();
    }
}

/// Its control group is frozen (the state letter does not say so).
fn is_frozen(pid: u32) -> bool {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    let Some(path) = text.lines().find_map(|line| line.strip_prefix("0::")) else { return false };
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mount =
        mounts.lines().find(|line| line.contains(" - cgroup2 ")).and_then(|line| line.split(' ').nth(4));
    let file = format!("{}{path}/cgroup.events", mount.unwrap_or_default());
    fs::read_to_string(file).unwrap_or_default().contains("frozen 1")
}

/// Puts itself into the background as daemons do and writes its pid file.
const FORKING: &str = "d=${0%/*}\nsetsid sh -c \"echo \\$\\$ > $d/open/pid; exec $d/sleeper 1000\" &\n\
                       until [ -s $d/open/pid ]; do :; done";

const FORKING_CONFIG: &str =
    "[program:a]\ncommand = %(here)s/a\ntype = forking\npidfile = %(here)s/open/pid\nstartsecs = 0\n";

#[test]
fn a_forking_program_is_followed_by_its_pid_file_and_ends_with_its_main_process() {
    for (way, keys) in both_ways() {
        let mut instance =
            Instance::scripted(&format!("trees-fork-{way}"), keys, &[("a", FORKING)], FORKING_CONFIG);
        let main = instance.await_state("a", "running").pid.unwrap();
        assert_eq!(instance.await_number("open/pid"), main, "{way}");
        fs::remove_file(instance.dir.join("open/pid")).unwrap();
        signal(main, libc::SIGKILL);
        let again = instance
            .await_program("a", "again", |a| a.state == "running" && a.pid.is_some_and(|pid| pid != main));
        assert_eq!((again.restarts, again.last_exit.unwrap().signal), (1, Some(9)), "{way}");
        let main = again.pid.unwrap();
        instance.ctl_ok(&["stop", "a", "--wait"]);
        assert!(!is_alive(main));
        assert_eq!(instance.program("a").last_exit.unwrap().signal, Some(15), "{way}: it was asked");
        assert!(instance.family().is_empty());
        instance.quit_clean();
    }
}

#[test]
fn a_pid_file_that_names_a_stranger_is_not_believed_and_the_stranger_lives() {
    for (way, keys) in both_ways() {
        let stranger = Stranger::start();
        // It never writes its pid file, so what is there stays.
        let script = "d=${0%/*}\nsetsid $d/sleeper 1000 &";
        let mut instance =
            Instance::scripted_only(&format!("trees-stale-{way}"), keys, &[("a", script)], FORKING_CONFIG);
        fs::write(instance.dir.join("open/pid"), format!("{}\n", stranger.pid())).unwrap();
        instance.launch();
        // The starter is one of the family too, and alone before it forks: only the sleeper counts.
        let daemon = || instance.sleepers().into_iter().next();
        instance.await_that("its daemon runs alone", || instance.family().len() == 1 && daemon().is_some());
        let program = instance.program("a");
        assert_ne!(program.state, "running", "{way}: {program:?}");
        assert_ne!(program.pid, Some(stranger.pid()));
        // The file comes late and is right now: that is the program.
        let late = daemon().unwrap();
        fs::write(instance.dir.join("open/pid"), format!("{late}\n")).unwrap();
        assert_eq!(instance.await_state("a", "running").pid, Some(late), "{way}");
        instance.ctl_ok(&["stop", "a", "--wait"]);
        await_death(late);
        instance.quit_clean();
        assert!(is_alive(stranger.pid()), "{way}: the stranger lives");
    }
}

#[test]
fn a_forking_program_without_a_pid_file_is_followed() {
    for (way, keys) in both_ways() {
        let script = "d=${0%/*}\nsetsid sh -c \"$d/sleeper 1001 & exec $d/sleeper 1000\" &";
        let config = "[program:a]\ncommand = %(here)s/a\ntype = forking\nstartsecs = 0\nstopasgroup = true\n";
        let mut instance = Instance::scripted(&format!("trees-nopid-{way}"), keys, &[("a", script)], config);
        let main = instance.await_state("a", "running").pid.unwrap();
        instance.await_that("it is the daemon", || command_line(main).ends_with("sleeper\x001000\0"));
        signal(main, libc::SIGKILL);
        let again = instance
            .await_program("a", "again", |a| a.state == "running" && a.pid.is_some_and(|pid| pid != main));
        assert_eq!(again.restarts, 1, "{way}");
        instance.await_that("both", || instance.sleepers().len() == 2);
        let asked = Instant::now();
        instance.ctl_ok(&["stop", "a", "--wait"]);
        assert!(asked.elapsed() < Duration::from_secs(9), "{way}: its own process group was asked");
        assert_eq!(instance.program("a").last_exit.unwrap().signal, Some(15), "{way}");
        assert!(instance.family().is_empty());
        instance.quit_clean();
    }
}

#[test]
fn a_forking_program_whose_starter_fails_has_failed() {
    let script = "exit 3";
    let mut instance = Instance::scripted("trees-forkfail", "", &[("a", script)], FORKING_CONFIG);
    let program = instance.await_program("a", "failed", |a| a.failures >= 2);
    assert_eq!(program.last_exit.unwrap().code, Some(3));
    instance.quit_clean();
}
