//! What users without rights, and programs among themselves, can reach: nothing that is another's. Each is tried.

mod harness;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown};
use std::path::Path;

use harness::Instance;
use harness::real::{command_line, need_root};
use multusd::protocol::{self, Refusal, Reply, Request};
use multusd::sys::clock;
use multusd::sys::control_client::Client;
use multusd::time::Millis;

/// Two accounts without rights.
const NOBODY: u32 = 65_534;
const OTHER: u32 = 65_533;

/// Every released request, one per kind at least (`tests/protocol_golden.rs` sees to that).
const RELEASED: &str = include_str!("golden/protocol-v1.txt");

/// Who may ask this: everybody, or who may give orders. A new request does not compile until that is decided here too.
fn is_for_everybody(request: &Request) -> bool {
    match request {
        Request::Daemon
        | Request::Status { .. }
        | Request::Subscribe
        | Request::Page { .. }
        | Request::Inputs { .. }
        | Request::Outputs { .. }
        | Request::Watchdogs
        | Request::Live
        | Request::History { .. }
        | Request::Reasons
        | Request::Values { .. } => true,
        Request::Order { .. }
        | Request::Signal { .. }
        | Request::ReloadProgram { .. }
        | Request::Reload { .. }
        | Request::Quit
        | Request::Renew
        | Request::Shutdown { .. }
        | Request::CancelShutdown
        | Request::SetOutput { .. }
        | Request::Log { .. }
        | Request::SyncLog
        | Request::Publish { .. } => false,
    }
}

fn released() -> Vec<Request> {
    let lines = RELEASED.lines().filter_map(|line| line.strip_prefix("Request "));
    let requests = lines.map(|line| {
        let hex = line.rsplit(' ').next().unwrap();
        let bytes: Vec<u8> =
            (0..hex.len() / 2).map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap()).collect();
        protocol::decode(&bytes).expect("released")
    });
    requests.collect()
}

/// What a thread of this user is told.
fn ask_as(run_dir: &Path, user: u32, mut request: Request) -> Reply {
    let path = run_dir.join("control");
    let stranger = std::thread::spawn(move || {
        // The bare calls concern this thread only; the C library's would change all of the process.
        // SAFETY: integers, and no group at all.
        let became = unsafe {
            libc::syscall(libc::SYS_setgroups, 0, std::ptr::null::<u32>()) == 0
                && libc::syscall(libc::SYS_setresgid, user, user, user) == 0
                && libc::syscall(libc::SYS_setresuid, user, user, user) == 0
        };
        assert!(became, "{}", std::io::Error::last_os_error());
        let (mut packet, mut reply) = ([0; 8192], [0; 8192]);
        let deadline = clock::now() + Millis(10_000);
        let client = Client::connect(&path, deadline).expect("connects");
        client.send(protocol::encode(&mut request, &mut packet).unwrap(), deadline).expect("sent");
        protocol::decode(client.receive(&mut reply, deadline).expect("an answer")).expect("understood")
    });
    stranger.join().unwrap()
}

#[test]
fn whoever_may_only_look_is_refused_everything_that_changes_something() {
    need_root();
    let lamp = "[output:lamp]\npath = %(here)s/lamp\nwrite_high = 255\nsafe = low\n";
    let config = format!("{lamp}[program:pump]\ncommand = sleep 1000\nstartsecs = 0\nreload = HUP\n");
    let mut instance = Instance::scripted_only("looks", "", &[], &config);
    fs::write(instance.dir.join("lamp"), "0\n").unwrap();
    instance.launch();
    let pid = instance.await_state("pump", "running").pid;
    let (mut refused, mut answered) = (0, 0);
    for request in released() {
        let what = format!("{request:?}");
        let for_everybody = is_for_everybody(&request);
        match ask_as(&instance.run_dir(), NOBODY, request) {
            Reply::Refused { why: Refusal::NotAllowed, text } => {
                assert!(!for_everybody, "{what}: {text}");
                refused += 1;
            }
            reply => {
                assert!(for_everybody, "{what}: {reply:?}");
                answered += 1;
            }
        }
    }
    assert!(refused >= 17 && answered >= 8, "{refused} {answered}");
    let after = instance.program("pump");
    assert_eq!((after.pid, after.restarts, after.state.as_str()), (pid, 0, "running"), "nothing happened");
    assert_eq!(instance.read("lamp").trim(), "0");
    instance.quit_clean();
}

/// Everything below a directory, the directory too.
fn everything(path: &Path, found: &mut Vec<std::path::PathBuf>) {
    found.push(path.to_owned());
    if fs::symlink_metadata(path).unwrap().is_dir() {
        for entry in fs::read_dir(path).unwrap().flatten() {
            everything(&entry.path(), found);
        }
    }
}

#[test]
fn nothing_of_ours_can_be_written_to_by_others() {
    need_root();
    let config = "[program:talks]\ncommand = sh -c \"echo one; echo two >&2; exec sleep 1000\"\nstartsecs = 0\n\
        user = nobody\nready = uptime\nheartbeat = 1h\nheartbeat_kind = notify\n";
    // The widest of all masks must not matter.
    let mut instance = Instance::scripted_only("writable", "reload_watch = 1ms", &[], config);
    instance.launch_as(|command| {
        // SAFETY: a call that cannot fail, between fork and exec.
        unsafe {
            std::os::unix::process::CommandExt::pre_exec(command, || {
                libc::umask(0);
                Ok(())
            })
        };
    });
    instance.await_state("talks", "running");
    let directories = ["run", "state", "log"].map(|name| instance.dir.join(name));
    instance.await_that("all is written", || {
        directories.iter().all(|directory| {
            let mut found = Vec::new();
            directory.exists() && {
                everything(directory, &mut found);
                found.len() > 1
            }
        })
    });
    let mut found = Vec::new();
    directories.iter().for_each(|directory| everything(directory, &mut found));
    assert!(found.len() > 8, "{found:?}");
    let mut notify = 0;
    for path in found {
        let status = fs::symlink_metadata(&path).unwrap();
        let mode = status.permissions().mode();
        let is_control = path.ends_with("run/control");
        // Whoever may connect to it is decided request by request.
        assert!(mode & 0o022 == 0 || is_control && status.file_type().is_socket(), "{path:?}: {mode:o}");
        let of_program =
            path.starts_with(instance.run_dir().join("notify")) && status.file_type().is_socket();
        notify += u32::from(of_program);
        let is_ours = path.ends_with(multusd::limits::LOG);
        assert_eq!(status.uid(), if of_program && !is_ours { NOBODY } else { 0 }, "{path:?}");
        assert!(!of_program || mode & 0o777 == 0o600, "{path:?}: {mode:o}");
    }
    assert_eq!(notify, 2);
    instance.quit_clean();
}

/// Tries to reach what is another program's, and says of each try what came of it. Its argument is the victim's pid.
const INTRUDER: &str = r#"#!/usr/bin/env python3
import ctypes, os, signal, socket, sys
here = os.path.dirname(os.path.abspath(__file__))
libc = ctypes.CDLL(None, use_errno=True)
notes = open(here + "/open/notes", "w")
def attempt(what, how):
    try:
        result = how()
        notes.write(what + ": done" + str(result) + "\n")
    except OSError as error:
        notes.write(what + ": " + (os.strerror(error.errno)) + "\n")
def call(*words):
    result = libc.syscall(*words)
    if result < 0:
        raise OSError(ctypes.get_errno(), "")
    return result
def send(path, words):
    socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(words, path)
def readable(path):
    with open(path, "rb") as file:
        file.read(16)
def writable(path):
    with open(path, "r+b"):
        pass
victim, guard, supervisor = [int(word) for word in open(here + "/open/pids").read().split()]
attempt("its socket", lambda: send(here + "/run/notify/victim", b"WATCHDOG=1"))
attempt("a socket in its place", lambda: os.rename(here + "/open/pids", here + "/run/notify/victim"))
attempt("its log", lambda: readable(here + "/log/victim.log"))
attempt("the life file", lambda: readable(here + "/run/life"))
attempt("the lock", lambda: readable(here + "/run/lock"))
for name, pid in ("victim", victim), ("guard", guard), ("supervisor", supervisor):
    attempt(name + " fds", lambda: os.listdir("/proc/%d/fd" % pid))
    for number in range(0, 40):
        attempt("%s fd %d" % (name, number), lambda: writable("/proc/%d/fd/%d" % (pid, number)))
    attempt(name + " memory", lambda: writable("/proc/%d/mem" % pid))
    attempt(name + " environment", lambda: readable("/proc/%d/environ" % pid))
    attempt(name + " signal", lambda: os.kill(pid, signal.SIGTERM))
    attempt(name + " trace", lambda: call(101 if os.uname().machine == "x86_64" else 117, 16, pid, 0, 0))
    handle = os.pidfd_open(pid)
    for number in (0, 1, 2, 3, 5, 8, 13):
        attempt("%s descriptor %d" % (name, number), lambda: call(438, handle, number, 0))
    attempt(name + " priority", lambda: os.setpriority(os.PRIO_PROCESS, pid, 19))
    attempt(name + " limits", lambda: call(302 if os.uname().machine == "x86_64" else 261, pid, 7, None, ctypes.create_string_buffer(16)))
notes.write("end\n")
notes.close()
signal.pause()
"#;

#[test]
fn a_program_reaches_nothing_of_another_program_nor_of_multusd() {
    need_root();
    let config = "[program:victim]\ncommand = sh -c \"echo words; exec sleep 1000\"\nstartsecs = 0\nuser = nobody\n\
        stdout_logfile = %(here)s/log/victim.log\nheartbeat = 1h\nheartbeat_kind = notify\nready = uptime\n\
        [program:counter]\ncommand = sleep 1000\nstartsecs = 0\nuser = nobody\nheartbeat = 1h\n\
        heartbeat_kind = counter\nready = uptime\n\
        [program:intruder]\ncommand = %(here)s/intruder\nstartsecs = 0\nuser = 65533\ngroup = 65533\nautostart = false\n\
        autorestart = false\n";
    for victim in ["victim", "counter"] {
        let mut instance = Instance::scripted_only(&format!("intruder-{victim}"), "", &[], config);
        harness::executable(&instance.dir.join("intruder"), INTRUDER.as_bytes());
        instance.launch();
        instance.await_that("the log is there", || instance.dir.join("log/victim.log").exists());
        let status = instance.status();
        let pid = instance.await_state(victim, "running").pid.unwrap();
        let open = instance.dir.join("open");
        fs::write(open.join("pids"), format!("{pid} {} {}", status.guard_pid, status.supervisor_pid))
            .unwrap();
        chown(open.join("pids"), Some(OTHER), Some(OTHER)).unwrap();
        instance.ctl_ok(&["start", "intruder"]);
        instance.await_that("all is tried", || instance.read("open/notes").ends_with("end\n"));
        let notes = instance.read("open/notes");
        let allowed = ["Permission denied", "Operation not permitted"];
        let reached: Vec<&str> = notes
            .lines()
            .filter(|line| *line != "end" && !allowed.iter().any(|no| line.ends_with(no)))
            .collect();
        assert!(reached.is_empty(), "{reached:?}");
        assert!(notes.lines().count() > 150, "{notes}");
        let after = instance.program(victim);
        assert_eq!((after.pid, after.restarts), (Some(pid), 0));
        assert_eq!(instance.status().supervisor_pid, status.supervisor_pid);
        instance.quit_clean();
    }
}

#[test]
fn a_process_has_the_descriptors_that_are_documented_and_no_other() {
    need_root();
    let configured = |number: usize, keys: &str| {
        format!(
            "[program:p{number}]\ncommand = %(here)s/sleeper {number}\nstartsecs = 0\nuser = nobody\n\
             start_timeout = 1h\n{keys}"
        )
    };
    // What is asked for, what there is besides 0 to 2, and where 1 and 2 lead.
    let beat = "heartbeat = 1h\nready = uptime\n";
    let programs: [(String, &[&str], &str); 7] = [
        (String::new(), &[], "pipe:"),
        ("stdout_logfile = NONE\nstderr_logfile = NONE\n".into(), &[], "/dev/null"),
        (format!("{beat}heartbeat_kind = fd\n"), &["pipe:"], "pipe:"),
        (format!("{beat}heartbeat_kind = counter\n"), &["/memfd:"], "pipe:"),
        (format!("{beat}heartbeat_kind = notify\n"), &[], "pipe:"),
        (format!("{beat}heartbeat_file = %(here)s/open/beat\n"), &[], "pipe:"),
        ("ready = fd:7\n".into(), &["socket:"], "pipe:"),
    ];
    let mut config: String =
        programs.iter().enumerate().map(|(number, (keys, ..))| configured(1000 + number, keys)).collect();
    config += "[program:hooked]\ncommand = %(here)s/sleeper 2000\nstartsecs = 0\non_start = %(here)s/sleeper 2001\n\
        on_start_timeout = 1h\n[program:checked]\ncommand = %(here)s/sleeper 2002\nstartsecs = 0\n\
        check = %(here)s/sleeper 2003\ncheck_interval = 10ms\ncheck_timeout = 1h\n";
    let mut instance = Instance::scripted("descriptors-listed", "", &[], &config);
    let expect = |number: usize, more: &[&str], out: &str| {
        let mut line = String::new();
        let command = format!("{}/sleeper\0{number}\0", instance.dir.display());
        instance.await_that(&format!("{number} has 0, 1, 2 and {more:?}; it has {line}"), || {
            let pid = harness::processes().into_iter().find(|pid| command_line(*pid) == command);
            let Some(Ok(entries)) = pid.map(|pid| fs::read_dir(format!("/proc/{pid}/fd"))) else {
                return false;
            };
            let links: BTreeMap<usize, String> = entries
                .flatten()
                .filter_map(|entry| {
                    let number = entry.file_name().to_str()?.parse().ok()?;
                    Some((number, fs::read_link(entry.path()).ok()?.to_string_lossy().into_owned()))
                })
                .collect();
            line = format!("{links:?}");
            let beyond: Vec<(&usize, &String)> = links.iter().filter(|(number, _)| **number > 2).collect();
            links.get(&0).is_some_and(|to| to == "/dev/null")
                && [1, 2].iter().all(|number| links.get(number).is_some_and(|to| to.starts_with(out)))
                && beyond.len() == more.len()
                && beyond.iter().zip(more).all(|((_, to), kind)| to.starts_with(kind))
        });
    };
    for (number, (_, more, out)) in programs.iter().enumerate() {
        expect(1000 + number, more, out);
    }
    expect(2001, &[], "pipe:");
    expect(2002, &[], "pipe:");
    expect(2003, &[], "/memfd:");
    instance.quit_clean();
}
