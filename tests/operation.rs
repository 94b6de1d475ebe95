//! multusd as it is operated: signals, output files, hooks, other users.

mod harness;

use std::fs;
use std::process::Command;

use harness::real::{await_death, become_user, both_ways, command_line, need_root, state_of};
use harness::{Instance, PATIENCE, is_alive, signal};

#[test]
fn term_and_int_stop_everything_in_order() {
    for number in [libc::SIGTERM, libc::SIGINT] {
        let config = "[program:a]\ncommand = %(here)s/sleeper 1000\nstartsecs = 0\n";
        let mut instance = Instance::scripted(&format!("guard-{number}"), "", &[], config);
        instance.await_state("a", "running");
        signal(instance.guard_pid(), number);
        assert_eq!(instance.await_end().code(), Some(0), "{}", instance.log());
        assert!(instance.everybody().is_empty());
        assert!(!instance.run_dir().join("control").exists());
    }
}

#[test]
fn hup_reloads_and_usr1_writes_the_state_to_the_log() {
    let config = "[program:a]\ncommand = sleep 1000\nstartsecs = 0\n";
    let mut instance = Instance::start("guard-hup", config);
    let first = instance.await_state("a", "running");
    instance.write_config(&format!("{config}[program:b]\ncommand = sleep 1000\nstartsecs = 0\n"));
    signal(instance.guard_pid(), libc::SIGHUP);
    instance.await_that("b runs", || {
        instance.status().programs.iter().any(|b| b.name == "b" && b.state == "running")
    });
    assert_eq!(instance.program("a").pid, first.pid);
    let line = "a running for";
    assert!(!instance.log().contains(line));
    signal(instance.guard_pid(), libc::SIGUSR1);
    instance.await_that("the state in the log", || instance.log().contains(line));
    assert!(instance.log().contains(&format!("process {}", first.pid.unwrap())));
    instance.quit_clean();
}

#[test]
fn output_goes_to_files_of_its_own_or_to_one_or_to_none() {
    let talk = "echo to out\necho to err >&2\nexec \"${0%/*}/sleeper\" 1000";
    let config = "[program:auto]\ncommand = %(here)s/talk\nlog_stamp = none\n\
        [program:own]\ncommand = %(here)s/talk\nlog_stamp = none\nstdout_logfile = %(here)s/out\nstderr_logfile = %(here)s/err\n\
        [program:one]\ncommand = %(here)s/talk\nlog_stamp = none\nstdout_logfile = %(here)s/both\nredirect_stderr = true\n\
        [program:none]\ncommand = %(here)s/talk\nlog_stamp = none\nstdout_logfile = NONE\nstderr_logfile = NONE\n";
    let mut instance = Instance::scripted("logs", "", &[("talk", talk)], config);
    for (file, lines) in [
        ("log/auto-stdout.log", vec!["to out"]),
        ("log/auto-stderr.log", vec!["to err"]),
        ("out", vec!["to out"]),
        ("err", vec!["to err"]),
        ("both", vec!["to out", "to err"]),
    ] {
        assert_eq!(instance.await_lines(file, lines.len()), lines, "{file}");
    }
    let none = instance.pid("none");
    for number in [1, 2] {
        let target = fs::read_link(format!("/proc/{none}/fd/{number}")).unwrap();
        assert_eq!(target.to_str(), Some("/dev/null"));
    }
    assert!(!instance.dir.join("log/none-stdout.log").exists());
    instance.quit_clean();
}

#[test]
fn output_is_rotated_and_the_last_words_before_the_end_are_kept() {
    let talk = "trap 'echo last words; exit 0' TERM\ni=0\n\
                while [ $i -lt 400 ]; do echo \"line $i ..............................\"; i=$((i+1)); done\n\
                echo > \"${0%/*}/talked\"\nwhile :; do \"${0%/*}/sleeper\" 1000 & wait; done";
    let config = "[program:a]\ncommand = %(here)s/talk\nstdout_logfile = %(here)s/out\n\
                  stdout_logfile_maxbytes = 4KB\nstdout_logfile_backups = 2\nstartsecs = 0\nlog_stamp = none\n";
    let mut instance = Instance::scripted("rotation", "", &[("talk", talk)], config);
    instance.await_lines("talked", 1);
    instance.quit_clean();
    assert_eq!(instance.lines("out").last().map(String::as_str), Some("last words"));
    assert!(instance.dir.join("out.1").exists(), "rotated");
    assert!(!instance.dir.join("out.3").exists(), "two are kept");
}

#[test]
fn a_supervisor_that_is_killed_costs_no_program_and_no_line() {
    let talk = "i=0\nwhile :; do echo $i; i=$((i+1)); \"${0%/*}/sleeper\" 0.01; done";
    let config = "[program:a]\ncommand = %(here)s/talk\nstdout_logfile = %(here)s/out\nstartsecs = 0\nlog_stamp = none\n";
    for (way, keys) in both_ways() {
        let mut instance = Instance::scripted(&format!("replaced-{way}"), keys, &[("talk", talk)], config);
        let first = instance.await_state("a", "running").pid;
        for count in 1..=3 {
            instance.await_lines("out", count * 10);
            let supervisor = instance.status().supervisor_pid;
            signal(supervisor, libc::SIGKILL);
            await_death(supervisor);
            instance.await_that("another supervisor", || instance.ctl(&["status"]).status.success());
            assert_eq!(instance.program("a").pid, first, "{way}");
        }
        let now = instance.lines("out").len();
        instance.await_lines("out", now + 20);
        let program = instance.program("a");
        assert_eq!((program.pid, program.restarts), (first, 0), "{way}");
        assert!(instance.lines("out").iter().enumerate().all(|(at, line)| *line == at.to_string()), "{way}");
        instance.quit_clean();
    }
}

/// Hooks that note their turn.
const NOTE: &str = "echo $1 >> \"${0%/*}/open/turns\"";

const HOOKS: &str = "on_start = %(here)s/note start\non_stop = %(here)s/note stop\n\
                     on_failure = %(here)s/note failure\nrestart_delay = 10ms\nstartsecs = 0\n";

#[test]
fn hooks_have_their_turn() {
    for (way, keys) in both_ways() {
        let config = format!("[program:a]\ncommand = %(here)s/a\n{HOOKS}");
        let main = "echo main >> \"${0%/*}/open/turns\"\nexec \"${0%/*}/sleeper\" 1000";
        let scripts = [("note", NOTE), ("a", main)];
        let mut instance = Instance::scripted(&format!("hooks-{way}"), keys, &scripts, &config);
        instance.await_lines("open/turns", 2);
        signal(instance.await_state("a", "running").pid.unwrap(), libc::SIGKILL);
        instance.await_lines("open/turns", 5);
        instance.await_state("a", "running");
        instance.ctl_ok(&["stop", "a", "--wait"]);
        let turns = ["start", "main", "failure", "start", "main", "stop"];
        assert_eq!(instance.await_lines("open/turns", 6), turns, "{way}");
        instance.quit_clean();
    }
}

#[test]
fn an_on_start_that_fails_or_hangs_is_a_failed_start_and_leaves_nothing() {
    let hang = "setsid \"${0%/*}/sleeper\" 1001 &\nexec \"${0%/*}/sleeper\" 1000";
    for (way, keys) in both_ways() {
        let config = "[program:fails]\ncommand = sleep 1000\non_start = false\nrestart_delay = 10ms\n\
            [program:hangs]\ncommand = sleep 1000\non_start = %(here)s/hang\non_start_timeout = 200ms\nrestart_delay = 10ms\n";
        let mut instance = Instance::scripted(&format!("hookfail-{way}"), keys, &[("hang", hang)], config);
        for name in ["fails", "hangs"] {
            let program = instance.await_program(name, "two failures", |a| a.failures >= 2);
            assert_eq!((program.reason.as_deref(), program.pid), (Some("on_start failed"), None), "{way}");
        }
        instance.ctl_ok(&["stop", "hangs", "--wait"]);
        instance.await_nobody(way);
        instance.quit_clean();
    }
}

#[test]
fn an_on_stop_or_on_failure_that_hangs_is_killed_after_its_time() {
    let hang = "echo $1 >> \"${0%/*}/open/turns\"\n\"${0%/*}/sleeper\" 1001 &\nexec \"${0%/*}/sleeper\" 1000";
    for (way, keys) in both_ways() {
        let config = "[program:a]\ncommand = sleep 1000\nstartsecs = 0\nrestart_delay = 10ms\n\
            on_stop = %(here)s/hang stop\non_stop_timeout = 200ms\n\
            on_failure = %(here)s/hang failure\non_failure_timeout = 200ms\n";
        let mut instance = Instance::scripted(&format!("hookhang-{way}"), keys, &[("hang", hang)], config);
        signal(instance.await_state("a", "running").pid.unwrap(), libc::SIGKILL);
        instance.await_program("a", "again", |a| a.restarts == 1 && a.state == "running");
        instance.ctl_ok(&["stop", "a", "--wait"]);
        assert_eq!(instance.lines("open/turns"), ["failure", "stop"], "{way}");
        instance.await_nobody(way);
        instance.quit_clean();
    }
}

#[test]
fn a_stop_command_asks_first_and_the_signal_follows_when_it_fails() {
    let main = "trap 'echo signal >> '${0%/*}'/open/turns; exit 0' TERM\necho > \"${0%/*}/open/$1\"\n\
                trap 'echo command >> '${0%/*}'/open/turns; exit 0' USR1\nwhile :; do \"${0%/*}/sleeper\" 1000 & wait; done";
    let config = "[program:good]\ncommand = %(here)s/a good\nstartsecs = 0\nstop_command = %(here)s/ask\n\
        [program:bad]\ncommand = %(here)s/a bad\nstartsecs = 0\nstop_command = false\n\
        [program:hangs]\ncommand = %(here)s/a hangs\nstartsecs = 0\nstop_command = sleep 1000\nstop_command_timeout = 100ms\n";
    let scripts = [("a", main), ("ask", "kill -USR1 $(cat \"${0%/*}/open/pid\")")];
    let mut instance = Instance::scripted("stopcommand", "", &scripts, config);
    for (name, heard) in [("good", "command"), ("bad", "signal"), ("hangs", "signal")] {
        instance.await_lines(&format!("open/{name}"), 1);
        fs::write(instance.dir.join("open/pid"), instance.pid(name).to_string()).unwrap();
        instance.ctl_ok(&["stop", name, "--wait"]);
        assert_eq!(instance.lines("open/turns").last().map(String::as_str), Some(heard), "{name}");
        assert_eq!(instance.program(name).last_exit.unwrap().code, Some(0), "{name}");
    }
    assert_eq!(instance.lines("open/turns").len(), 3);
    instance.quit_clean();
}

#[test]
fn a_program_reloads_by_its_signal_or_its_command() {
    let main = "trap 'echo signal >> '${0%/*}'/open/turns' HUP\necho > \"${0%/*}/open/up\"\n\
                while :; do \"${0%/*}/sleeper\" 1000 & wait; done";
    let config = "[program:signal]\ncommand = %(here)s/a\nstartsecs = 0\nreload = HUP\n\
        [program:command]\ncommand = sleep 1000\nstartsecs = 0\nreload = %(here)s/note command\n\
        [program:hangs]\ncommand = sleep 1000\nstartsecs = 0\nreload = %(here)s/sleeper 1234\nreload_timeout = 200ms\n\
        [program:none]\ncommand = sleep 1000\nstartsecs = 0\n";
    let mut instance = Instance::scripted("reloads", "", &[("a", main), ("note", NOTE)], config);
    instance.await_lines("open/up", 1);
    let pids = ["signal", "command", "hangs"].map(|name| instance.await_state(name, "running").pid);
    instance.ctl_ok(&["signal", "signal", "reload"]);
    assert_eq!(instance.await_lines("open/turns", 1), ["signal"]);
    instance.ctl_ok(&["signal", "command", "reload"]);
    assert_eq!(instance.await_lines("open/turns", 2)[1], "command");
    assert_eq!(instance.ctl_code(&["signal", "none", "reload"]), 1);
    instance.ctl_ok(&["signal", "hangs", "reload"]);
    instance.await_that("it had its time", || instance.log().contains("hangs: its reload took too long"));
    let hanging = || instance.family().into_iter().any(|pid| command_line(pid).contains("1234"));
    instance.await_that("the reload that hangs is killed", || !hanging());
    instance.ctl_ok(&["signal", "hangs", "reload"]);
    assert_eq!(["signal", "command", "hangs"].map(|name| instance.program(name).pid), pids, "none restarted");
    instance.quit_clean();
}

#[test]
fn a_signal_reaches_the_program_and_only_a_running_one() {
    let config = "[program:a]\ncommand = sleep 1000\nstartsecs = 0\nautorestart = false\n\
                  [program:b]\ncommand = sleep 1000\nautostart = false\n";
    let mut instance = Instance::start("signal", config);
    let pid = instance.await_state("a", "running").pid.unwrap();
    instance.ctl_ok(&["signal", "a", "STOP"]);
    instance.await_that("it stands still", || state_of(pid) == Some('T'));
    instance.ctl_ok(&["signal", "a", "CONT"]);
    instance.ctl_ok(&["signal", "a", "USR2"]);
    assert_eq!(instance.await_state("a", "exited").last_exit.unwrap().signal, Some(libc::SIGUSR2 as u8));
    assert_eq!(instance.ctl_code(&["signal", "b", "USR2"]), 3);
    assert_eq!(instance.ctl_code(&["signal", "nobody", "USR2"]), 4);
    instance.quit_clean();
}

/// An account without rights (nobody), and a group that exists everywhere (daemon).
const NOBODY: u32 = 65_534;
const DAEMON: u32 = 1;

#[test]
fn who_may_not_give_orders_is_refused_and_may_look() {
    need_root();
    let config = "[program:a]\ncommand = sleep 1000\nstartsecs = 0\n";
    let mut instance = Instance::start_with("refused", "control_group = daemon", config);
    let pid = instance.await_state("a", "running").pid;
    let output = instance.ctl_as(NOBODY, NOBODY, &[], &["status", "--json"]);
    assert!(output.status.success(), "{output:?}");
    for words in
        [vec!["stop", "a"], vec!["restart", "a"], vec!["signal", "a", "KILL"], vec!["reload"], vec!["quit"]]
    {
        let output = instance.ctl_as(NOBODY, NOBODY, &[], &words);
        assert_eq!(output.status.code(), Some(5), "{words:?}: {output:?}");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains("only root and the control group may do this"), "{said}");
    }
    assert_eq!(instance.program("a").pid, pid, "nothing happened");
    // A member of the group, by its main group and by a further one.
    for (group, groups) in [(DAEMON, &[][..]), (NOBODY, &[DAEMON][..])] {
        let output = instance.ctl_as(NOBODY, group, groups, &["restart", "a", "--wait"]);
        assert!(output.status.success(), "{output:?}");
    }
    assert_eq!(instance.program("a").restarts, 2, "{:?}", instance.program("a"));
    instance.quit_clean();
}

#[test]
fn multusd_runs_without_rights_and_says_once_what_it_cannot_do() {
    need_root();
    for keys in ["", "cgroup = off"] {
        let config = "[program:a]\ncommand = %(here)s/a\nstartsecs = 0\n\
            [program:other]\ncommand = sleep 1000\nuser = daemon\nstartsecs = 1\n\
            [program:own]\ncommand = sleep 1000\nuser = nobody\nstartsecs = 0\n";
        let text = "d=${0%/*}\n( setsid $d/sleeper 1001 & )\nexec $d/sleeper 1000";
        let test = format!("unprivileged-{}", keys.len());
        let mut instance = Instance::scripted_only(&test, keys, &[("a", text)], config);
        std::os::unix::fs::chown(&instance.dir, Some(NOBODY), Some(NOBODY)).unwrap();
        let copy = instance.public_binary();
        let (config_path, run_dir) = (instance.config_path(), instance.run_dir());
        instance.launch_as(|command| {
            *command = Command::new(copy);
            command.arg("--config").arg(config_path).arg("--run-dir").arg(run_dir);
            command.stdin(std::process::Stdio::null()).stderr(std::process::Stdio::null());
            become_user(command, NOBODY, NOBODY, &[]);
        });
        instance.await_state("own", "running");
        instance.await_that("both", || instance.sleepers().len() == 2);
        let said = instance.status().limitations;
        assert_eq!(said.iter().filter(|text| text.starts_with("not root")).count(), 1, "{keys}: {said:?}");
        let other = instance.await_program("other", "failed", |a| a.failures > 0);
        assert_eq!(other.reason.as_deref(), Some("become user 1, group 1: Operation not permitted"));
        let main = instance.pid("a");
        let escaped = instance.sleepers().into_iter().find(|pid| *pid != main).unwrap();
        signal(main, libc::SIGKILL);
        instance.await_program("a", "again", |a| a.restarts == 1 && a.state == "running");
        assert!(!is_alive(escaped), "not in {PATIENCE:?}");
        // root may always give orders, and so may the user it runs as.
        instance.ctl_ok(&["stop", "a", "--wait"]);
        assert!(instance.ctl_as(NOBODY, NOBODY, &[], &["start", "a"]).status.success());
        assert_eq!(instance.ctl_as(DAEMON, DAEMON, &[], &["stop", "a"]).status.code(), Some(5));
        instance.quit_clean();
    }
}
