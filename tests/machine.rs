//! The machine around multusd: its ordered end, its name in a systemd unit, the run directory.

mod harness;

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use harness::real::need_root;
use harness::{Instance, binary, script};

/// Everything that a test needs to see the order of: programs stop first, then init is asked.
fn instance_that_tells(test: &str) -> Instance {
    let mut instance = Instance::prepare(test, "", "");
    let dir = instance.dir.clone();
    let init = script(&dir, "init", &format!("echo \"$1\" >> {}/trace", dir.display()));
    let program = script(
        &dir,
        "program",
        &format!(
            "trap 'echo stopped >> {}/trace; exit 0' TERM\nwhile :; do sleep 1000 & wait $!; done",
            dir.display()
        ),
    );
    instance.write_config_with(
        &format!("reboot_command = {init} reboot\npoweroff_command = {init} poweroff"),
        &format!("[program:a]\ncommand = {program}\nstartsecs = 0\n"),
    );
    instance.launch();
    instance.await_state("a", "running");
    instance
}

#[test]
fn a_reboot_stops_everything_in_order_and_then_asks_init() {
    need_root();
    for (word, other) in [("reboot", "poweroff"), ("poweroff", "reboot")] {
        let mut instance = instance_that_tells(word);
        // The shell's trap must be in place before the stop.
        let pid = instance.pid("a");
        instance.await_that("the program waits", || {
            fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))
                .is_ok_and(|children| !children.is_empty())
        });
        instance.ctl_ok(&[other, "--in", "1h"]);
        instance.ctl_ok(&[word]);
        assert_eq!(instance.await_end().code(), Some(0));
        let trace = fs::read_to_string(instance.dir.join("trace")).unwrap();
        assert_eq!(trace, format!("stopped\n{word}\n"));
    }
}

#[test]
fn a_pending_reboot_is_shown_and_can_be_taken_back_and_survives_the_supervisor() {
    need_root();
    let instance = instance_that_tells("pending");
    instance.ctl_ok(&["reboot", "--in", "1h"]);
    assert!(instance.ctl_ok(&["status"]).contains("shutdown in"));
    let before = instance.status();
    harness::signal(before.supervisor_pid, libc::SIGKILL);
    instance.await_that("a new supervisor", || {
        instance.ctl(&["status"]).status.success()
            && instance.status().supervisor_pid != before.supervisor_pid
    });
    assert!(instance.ctl_ok(&["status"]).contains("shutdown in"));
    instance.ctl_ok(&["reboot", "--cancel"]);
    assert!(!instance.ctl_ok(&["status"]).contains("shutdown in"));
    assert_eq!(instance.ctl_code(&["reboot", "--cancel"]), 1, "nothing left to take back");
    assert!(!instance.dir.join("trace").exists());
}

#[test]
fn a_reboot_command_that_fails_is_followed_by_the_kernel_and_said() {
    need_root();
    let instance = Instance::prepare("norebooter", "", "");
    let init = script(&instance.dir, "init", "exit 1");
    instance.write_config_with(&format!("reboot_command = {init}"), "");
    let log = fs::File::create(instance.dir.join("multusd.log")).unwrap();
    let mut command = Command::new(binary());
    command.arg("--config").arg(instance.config_path()).arg("--run-dir").arg(instance.run_dir());
    command.stderr(log);
    // Without the capability the kernel refuses, and this machine goes on. Should it not be possible
    // to give it up, nothing is started.
    const CAP_SYS_BOOT: libc::c_ulong = 22;
    // SAFETY: between fork and exec only a prctl.
    unsafe {
        command.pre_exec(|| match libc::prctl(libc::PR_CAPBSET_DROP, CAP_SYS_BOOT, 0, 0, 0) {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        })
    };
    let mut guard = command.spawn().unwrap();
    instance.await_that("multusd answers", || instance.ctl(&["status"]).status.success());
    instance.ctl_ok(&["reboot"]);
    assert_eq!(guard.wait().unwrap().code(), Some(1), "still here: not what was ordered");
    let log = instance.log();
    assert!(
        log.contains("in vain; now the kernel is") && log.contains("reboot: Operation not permitted"),
        "{log}"
    );
}

#[test]
fn a_paused_program_that_is_killed_runs_again_and_does_not_stand_still() {
    let instance = Instance::prepare("frozen", "", "");
    let dir = instance.dir.clone();
    let alive = script(&dir, "alive", &format!("echo $$ >> {}/starts; exec sleep 1000", dir.display()));
    instance.write_config(&format!("[program:a]\ncommand = {alive}\nstartsecs = 0\n"));
    let mut instance = instance;
    instance.launch();
    let starts = || fs::read_to_string(dir.join("starts")).unwrap_or_default().lines().count();
    instance.await_that("it runs", || starts() == 1);
    let first = instance.await_state("a", "running").pid.unwrap();
    instance.ctl_ok(&["pause", "a"]);
    instance.await_state("a", "paused");
    harness::signal(first, libc::SIGKILL);
    instance.await_that("it runs again", || starts() == 2);
    assert_eq!(instance.quit(), 0);
}

#[test]
fn a_reload_gives_and_takes_the_notify_socket() {
    let instance = Instance::start("notifyreload", "[program:a]\ncommand = sleep 1000\nstartsecs = 0\n");
    instance.await_state("a", "running");
    let socket = instance.run_dir().join("notify/a");
    assert!(!socket.exists());
    let says = script(
        &instance.dir,
        "says",
        "perl -MSocket -e 'socket(S,AF_UNIX,SOCK_DGRAM,0);send(S,\"READY=1\",0,sockaddr_un($ENV{NOTIFY_SOCKET}))'\n\
         exec sleep 1000",
    );
    instance.write_config(&format!("[program:a]\ncommand = {says}\ntype = notify\nstart_timeout = 20s\n"));
    instance.ctl_ok(&["reload"]);
    let ready = instance.await_program("a", "ready by its own word", |a| {
        a.state == "running" && a.pid.is_some_and(|pid| harness::environment(pid).contains("NOTIFY_SOCKET"))
    });
    assert_eq!(ready.failures, 0);
}

#[test]
fn where_a_life_has_its_sockets_does_not_change_by_a_reload() {
    let instance = Instance::start("settled", "[program:a]\ncommand = sleep 1000\nstartsecs = 0\n");
    let before = instance.await_state("a", "running").pid;
    instance.write_config_with("run_dir = /run/elsewhere", "[program:a]\ncommand = sleep 1001\n");
    let reload = instance.ctl(&["reload"]);
    assert_eq!(reload.status.code(), Some(1), "{reload:?}");
    assert!(
        String::from_utf8_lossy(&reload.stderr).contains("run_dir and cgroup cannot change"),
        "{reload:?}"
    );
    assert_eq!(instance.program("a").pid, before);
}

/// A directory of the version 2 hierarchy that systemd would delegate: made, and removed again.
struct Unit(PathBuf);

impl Unit {
    fn new(name: &str) -> Option<Unit> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
        let mount = mounts.lines().find(|line| line.contains(" - cgroup2 "))?.split(' ').nth(4)?.to_owned();
        let path = Path::new(&mount).join(name);
        let _ = fs::create_dir(&path);
        path.is_dir().then_some(Unit(path))
    }
}

impl Drop for Unit {
    fn drop(&mut self) {
        for leaf in fs::read_dir(&self.0).into_iter().flatten().flatten() {
            let _ = fs::remove_dir(leaf.path());
        }
        let _ = fs::remove_dir(&self.0);
    }
}

fn group_of(pid: u32) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    text.lines().find_map(|line| line.strip_prefix("0::")).unwrap().to_owned()
}

#[test]
fn in_a_delegated_unit_multusd_moves_into_a_leaf_and_programs_get_groups_beside_it() {
    let unit_name = format!("multusd-test-{}.service", std::process::id());
    let unit = Unit::new(&unit_name).expect("a writable control group hierarchy, version 2 (run as root)");
    let instance = Instance::prepare("delegated", "", "[program:a]\ncommand = sleep 1000\nstartsecs = 0\n");
    let procs = unit.0.join("cgroup.procs");
    let mut command = Command::new(binary());
    command.arg("--config").arg(instance.config_path()).arg("--run-dir").arg(instance.run_dir());
    command.env("INVOCATION_ID", "0123456789abcdef0123456789abcdef");
    // SAFETY: between fork and exec only a write to a file, as systemd does it.
    unsafe { command.pre_exec(move || fs::write(&procs, "0")) };
    let mut guard = command.spawn().unwrap();
    instance.await_that("multusd answers", || instance.ctl(&["status"]).status.success());
    let program = instance.await_state("a", "running").pid.unwrap();
    let status = instance.status();
    let leaf = format!("/{unit_name}/multusd");
    assert_eq!([group_of(status.guard_pid), group_of(status.supervisor_pid)], [leaf.clone(), leaf]);
    assert!(group_of(program).starts_with(&format!("/{unit_name}/multusd-")), "{}", group_of(program));
    assert!(!harness::environment(program).contains("INVOCATION_ID"), "not the program's to inherit");

    // A successor finds itself in the leaf, and must not dig deeper.
    harness::signal(status.supervisor_pid, libc::SIGKILL);
    instance.await_that("a new supervisor", || {
        instance.ctl(&["status"]).status.success()
            && instance.status().supervisor_pid != status.supervisor_pid
    });
    assert_eq!(instance.pid("a"), program);
    assert_eq!(group_of(instance.status().supervisor_pid), format!("/{unit_name}/multusd"));
    instance.ctl_ok(&["restart", "a", "--wait"]);
    assert!(group_of(instance.pid("a")).starts_with(&format!("/{unit_name}/multusd-")));
    instance.ctl(&["quit"]);
    assert_eq!(guard.wait().unwrap().code(), Some(0));
}

#[test]
fn what_a_life_leaves_in_its_run_directory_is_only_the_lock() {
    let mut instance = Instance::start("rundir", "[program:a]\ncommand = sleep 1000\ntype = notify\n");
    assert_eq!(instance.quit(), 0);
    let left: Vec<_> =
        fs::read_dir(instance.run_dir()).unwrap().flatten().map(|entry| entry.file_name()).collect();
    assert_eq!(left, ["lock"]);
}
