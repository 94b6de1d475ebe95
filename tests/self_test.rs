//! `multusd self-test` on this machine: all is there, what is taken away is missed, nothing is left.

mod harness;

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use harness::real::{become_user, command_line, need_root};
use harness::{await_condition, binary, processes, signal};

/// Names are promised to scripts: this list grows at need and loses nothing.
const NAMES: [&str; 33] = [
    "clock",
    "time64",
    "memfd",
    "own-memory",
    "epoll",
    "timer",
    "signals",
    "signalfd",
    "wait",
    "pidfd",
    "clone-files",
    "clone-parent",
    "parent-death",
    "subreaper",
    "proc",
    "trees",
    "close-range",
    "exec",
    "limits",
    "scheduling",
    "identity",
    "capabilities",
    "flock",
    "atomic-file",
    "life-file",
    "inotify",
    "control-socket",
    "notify-socket",
    "gpio",
    "cgroup",
    "clone-into-cgroup",
    "cgroup-kill",
    "cgroup-memory",
];

/// A directory of the test's own; the self-test's goes into it.
struct Scratch(PathBuf);

impl Scratch {
    fn new(test: &str) -> Scratch {
        let path = std::env::temp_dir().join(format!("multusd-st-{test}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Scratch(path)
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(binary());
        command.arg("self-test").arg("--dir").arg(&self.0).args(words).stdin(Stdio::null());
        command
    }

    /// No file, no process, no control group of it is there.
    fn assert_clean(&self) {
        let files: Vec<_> = fs::read_dir(&self.0).unwrap().flatten().map(|entry| entry.file_name()).collect();
        assert!(files.is_empty(), "{files:?}");
        let marker = self.0.display().to_string();
        let left: Vec<_> =
            processes().into_iter().map(command_line).filter(|c| c.contains(&marker)).collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The line of one check, without its verdict's columns: (verdict, rest).
fn line(output: &Output, name: &str) -> (String, String) {
    let text = text(output);
    let found = text.lines().filter_map(|line| line.split_at_checked(12)).find(|(_, rest)| {
        rest.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with(':'))
    });
    let (verdict, rest) = found.unwrap_or_else(|| panic!("no line of {name} in {text}"));
    (verdict.trim_end().to_owned(), rest.to_owned())
}

/// The groups of trials that are there now, of whoever.
fn groups() -> Vec<String> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let mount =
        mounts.lines().find(|line| line.contains(" - cgroup2 ")).and_then(|line| line.split(' ').nth(4));
    let own = fs::read_to_string("/proc/self/cgroup").unwrap();
    let own = own.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or("").to_owned();
    let entries = mount.map(|mount| fs::read_dir(Path::new(mount).join(own)));
    let names =
        entries.into_iter().flatten().flatten().flatten().filter_map(|e| e.file_name().into_string().ok());
    names.filter(|name| name.starts_with("multusd-self-test-")).collect()
}

#[test]
fn this_machine_carries_multusd_and_nothing_is_left() {
    let scratch = Scratch::new("all");
    let output = scratch.command(&[]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    assert!(text(&output).lines().last().unwrap().contains(" ok, 0 failed, "), "{}", text(&output));
    for name in NAMES {
        line(&output, name);
    }
    assert!(output.stderr.is_empty());
    scratch.assert_clean();
    // Those of other tests go too, when they end.
    assert!(harness::await_condition(|| groups().is_empty()), "{:?}", groups());
}

#[test]
fn the_names_are_those_that_were_promised() {
    let scratch = Scratch::new("list");
    let list = text(&scratch.command(&["--list"]).output().unwrap());
    let names: Vec<&str> = list.lines().map(|line| line.split(' ').next().unwrap()).collect();
    assert_eq!(names, NAMES);
    for line in list.lines() {
        assert!(line.contains(" (required): ") || line.contains(" (helpful): "), "{line}");
        assert!(line.contains(". Without it ") && line.ends_with('.'), "{line}");
    }
}

#[test]
fn checks_are_left_out_by_name_and_said_to_be() {
    let scratch = Scratch::new("except");
    let output = scratch.command(&["--only", "clock,epoll,flock", "--except", "epoll"]).output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(line(&output, "clock").0, "ok");
    assert_eq!(line(&output, "epoll").0, "left out");
    assert!(
        text(&output).ends_with("self-test: 2 ok, 0 failed, 0 absent, 31 left out\n"),
        "{}",
        text(&output)
    );
    let wrong = scratch.command(&["--except", "epoll,poll"]).output().unwrap();
    assert_eq!(wrong.status.code(), Some(2));
    let words = String::from_utf8_lossy(&wrong.stderr).into_owned();
    assert!(words.contains("no check poll\n") && words.contains("--list"), "{words}");
}

#[test]
fn an_ordinary_user_has_everything_required() {
    need_root();
    let scratch = Scratch::new("user");
    let copy = scratch.0.join("multusd");
    harness::executable(&copy, &fs::read(binary()).unwrap());
    let mut command = Command::new(&copy);
    // Where nobody named one, it finds a directory by itself.
    become_user(command.arg("self-test").stdin(Stdio::null()), 65_534, 65_534, &[]);
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    let why = "identity: only root may try this. Without it programs with the key user do not start";
    assert_eq!(line(&output, "identity"), ("absent".to_owned(), why.to_owned()));
    assert_eq!(line(&output, "control-socket").0, "ok");
    fs::remove_file(copy).unwrap();
    scratch.assert_clean();
}

#[test]
fn a_directory_that_is_not_there_fails_what_needs_one() {
    let scratch = Scratch::new("nowhere");
    let nowhere = scratch.0.join("nowhere");
    let output = Command::new(binary()).arg("self-test").arg("--dir").arg(&nowhere).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let why = "flock: mkdir: No such file or directory (errno 2). Without it two instances can run in one directory";
    assert_eq!(line(&output, "flock"), ("FAILED".to_owned(), why.to_owned()));
    assert_eq!(line(&output, "atomic-file").0, "FAILED");
    assert_eq!(line(&output, "inotify").0, "absent", "what is helpful does not fail");
    assert_eq!(line(&output, "epoll").0, "ok");
    assert!(!nowhere.exists());
}

#[test]
fn a_limit_of_descriptors_is_told_with_call_and_number() {
    let scratch = Scratch::new("limit");
    let mut command = scratch.command(&[]);
    // SAFETY: between fork and exec only setrlimit.
    unsafe {
        command.pre_exec(|| {
            let limit = libc::rlimit { rlim_cur: 7, rlim_max: 7 };
            libc::setrlimit(libc::RLIMIT_NOFILE, &limit);
            Ok(())
        })
    };
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    assert!(text(&output).contains("(errno 24). Without it "), "{}", text(&output));
    assert_eq!(line(&output, "clock").0, "ok");
    scratch.assert_clean();
}

/// Makes the kernel treat one system call otherwise, for the command and all it starts (seccomp(2)).
fn treat(command: &mut Command, call: libc::c_long, action: u32) {
    const LOAD_WORD: u16 = 0x20;
    const JUMP_IF_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    let step = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let mut filter = [
        step(LOAD_WORD, 0, 0, 0), // the call's number
        step(JUMP_IF_EQUAL, 0, 1, call as u32),
        step(RETURN, 0, 0, action),
        step(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    // SAFETY: between fork and exec two prctls; the program is a copy in the closure.
    unsafe {
        command.pre_exec(move || {
            let program = libc::sock_fprog { len: 4, filter: filter.as_mut_ptr() };
            let done = libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
                && libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &program) == 0;
            if done { Ok(()) } else { Err(std::io::Error::last_os_error()) }
        })
    };
}

fn errno(number: i32) -> u32 {
    libc::SECCOMP_RET_ERRNO | number as u32
}

#[test]
fn a_kernel_without_a_call_fails_the_check_of_it_and_no_other() {
    for (call, action, name, verdict, why) in [
        (
            libc::SYS_pidfd_open,
            errno(libc::ENOSYS),
            "pidfd",
            "FAILED",
            "pidfd_open: Function not implemented (errno 38)",
        ),
        (
            libc::SYS_memfd_create,
            errno(libc::EPERM),
            "memfd",
            "FAILED",
            "memfd_create: Operation not permitted (errno 1)",
        ),
        (
            libc::SYS_epoll_create1,
            errno(libc::ENOSYS),
            "epoll",
            "FAILED",
            "epoll_create1: Function not implemented",
        ),
        (
            libc::SYS_inotify_init1,
            errno(libc::ENOSYS),
            "inotify",
            "absent",
            "inotify_init1: Function not implemented",
        ),
        // Says yes and does nothing.
        (libc::SYS_flock, errno(0), "flock", "FAILED", "a lock is given twice"),
        (libc::SYS_close_range, errno(0), "close-range", "FAILED", "descriptors are open still"),
        (libc::SYS_utimensat, errno(0), "time64", "FAILED", "a file's time is not the one set"),
        (
            libc::SYS_signalfd4,
            libc::SECCOMP_RET_KILL_PROCESS,
            "signalfd",
            "FAILED",
            "the check was killed by signal 31",
        ),
    ] {
        let scratch = Scratch::new("kernel");
        let mut command = scratch.command(&["--only", &["clock,wait,", name].concat()]);
        treat(&mut command, call, action);
        let output = command.output().unwrap();
        let (found, words) = line(&output, name);
        assert!(found == verdict && words.contains(why), "{name}: {found} {words}");
        assert_eq!([line(&output, "clock").0, line(&output, "wait").0], ["ok", "ok"], "{name}");
        let is_required = !["time64", "inotify"].contains(&name);
        assert_eq!(output.status.code(), Some(i32::from(is_required)), "{name}");
        scratch.assert_clean();
    }
}

#[test]
fn a_check_that_hangs_is_ended_by_its_deadline() {
    let scratch = Scratch::new("hang");
    let mut command = scratch.command(&["--only", "timer,wait"]);
    treat(&mut command, libc::SYS_timerfd_settime, errno(0));
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(line(&output, "timer").1.contains("no answer within its time"), "{}", text(&output));
    assert_eq!(line(&output, "wait").0, "ok", "the next one is made");
    scratch.assert_clean();
}

#[test]
fn who_interrupts_it_finds_nothing_left() {
    let scratch = Scratch::new("interrupt");
    let mut command = scratch.command(&["--only", "epoll,timer,cgroup"]);
    treat(&mut command, libc::SYS_timerfd_settime, errno(0));
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut first = String::new();
    while !first.contains("epoll") {
        first.clear();
        assert!(out.read_line(&mut first).unwrap() > 0);
    }
    signal(child.id(), libc::SIGTERM);
    assert_eq!(child.wait().unwrap().code(), Some(1));
    let mut words = String::new();
    child.stderr.take().unwrap().read_to_string(&mut words).unwrap();
    assert!(words.contains("interrupted"), "{words}");
    scratch.assert_clean();
}

#[test]
fn children_it_did_not_make_are_spared() {
    let scratch = Scratch::new("spared");
    let pid_file = scratch.0.join("pid");
    let line = format!(
        "sleep 1000 > /dev/null & echo $! > {0}; exec {1} self-test --only wait",
        pid_file.display(),
        binary()
    );
    let output = Command::new("sh").args(["-c", &line]).stderr(Stdio::null()).output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    let pid = fs::read_to_string(&pid_file).unwrap().trim().parse().unwrap();
    assert!(harness::is_alive(pid));
    signal(pid, libc::SIGKILL);
    assert!(await_condition(|| !harness::is_alive(pid)));
}

#[test]
fn a_file_of_2045_is_dated_2045() {
    let scratch = Scratch::new("time");
    let file = scratch.0.join("dated");
    for (date, seconds) in
        [("2045-01-01T00:00:00Z", "2366841600\n"), ("2038-01-19T03:14:08Z", "2147483648\n")]
    {
        assert!(Command::new("touch").args(["-d", date]).arg(&file).status().unwrap().success());
        let output = scratch.command(&["--time-of", file.to_str().unwrap()]).output().unwrap();
        assert_eq!((text(&output).as_str(), output.status.code()), (seconds, Some(0)));
    }
    let output = scratch.command(&["--time-of", "/nowhere"]).output().unwrap();
    assert_eq!((text(&output).as_str(), output.status.code()), ("", Some(1)));
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(words, "multusd self-test: /nowhere: statx: No such file or directory (errno 2)\n");
}

#[test]
fn applets_are_reached_by_name_and_by_argument() {
    let scratch = Scratch::new("applets");
    let run = |program: &Path, words: &[&str]| Command::new(program).args(words).output().unwrap();
    let links = run(Path::new(binary()), &["--applets"]);
    assert_eq!((text(&links).as_str(), links.status.code()), ("multusctl\n", Some(0)));
    let link = scratch.0.join("multusctl");
    std::os::unix::fs::symlink(binary(), &link).unwrap();
    assert!(text(&run(&link, &["version"])).starts_with("multusctl "));
    assert!(text(&run(Path::new(binary()), &["multusctl", "version"])).starts_with("multusctl "));
    // The name it is called by comes first: this is multusctl's argument.
    assert_eq!(run(&link, &["self-test"]).status.code(), Some(2));
    let help = text(&run(Path::new(binary()), &["--help"]));
    assert!(help.contains("\n  multusctl\n") && help.contains("\n  self-test\n"), "{help}");
}
