//! The real binary with real processes, for tests: an instance of its own directories, spoken to
//! through `multusctl`, and gone without a trace when the test ends, however it ends.
//!
//! Nothing here sleeps for a fixed time: conditions are awaited with a deadline.
#![allow(dead_code, reason = "every test target uses a part of it")]
#![allow(clippy::question_mark, reason = "in what DeJson derives")]

pub mod forks;
pub mod mounts;
pub mod real;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use nanoserde::DeJson;

/// Far beyond anything that works, also on a busy machine: only failures wait this long.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// An instance of multusd.
pub struct Instance {
    pub dir: PathBuf,
    /// The network namespace it runs in (`ip netns`), where it is not the test's.
    pub network: Option<String>,
    guard: Option<Child>,
}

/// `multusctl status --json`, as far as tests look.
#[derive(Clone, Debug, DeJson)]
pub struct Status {
    pub guard_pid: u32,
    pub supervisor_pid: u32,
    pub supervisor_restarts: u32,
    pub config_note: Option<String>,
    pub limitations: Vec<String>,
    pub programs: Vec<Program>,
}

#[derive(Clone, Debug, DeJson)]
pub struct Program {
    pub name: String,
    pub state: String,
    pub pid: Option<u32>,
    pub restarts: u32,
    pub failures: u32,
    pub uptime_ms: Option<u64>,
    pub since_ms: u64,
    pub next_start_ms: Option<u64>,
    pub last_exit: Option<LastExit>,
    pub reason: Option<String>,
    pub status_text: Option<String>,
}

#[derive(Clone, Debug, PartialEq, DeJson)]
pub struct LastExit {
    pub code: Option<u8>,
    pub signal: Option<u8>,
}

impl Instance {
    /// Starts multusd with `[multusd]` directories of its own and this configuration below them.
    pub fn start(test: &str, config: &str) -> Instance {
        Instance::start_with(test, "", config)
    }

    /// The same, with more keys for `[multusd]` (such as `cgroup = off`).
    pub fn start_with(test: &str, daemon_keys: &str, config: &str) -> Instance {
        let mut instance = Instance::prepare(test, daemon_keys, config);
        instance.launch();
        instance
    }

    /// Writes the configuration without starting anything.
    pub fn prepare(test: &str, daemon_keys: &str, config: &str) -> Instance {
        // In /tmp, not in the build folder: a socket's path has 108 bytes.
        let dir = std::env::temp_dir().join(format!("multusd-{test}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).expect("test directory");
        let instance = Instance { dir, network: None, guard: None };
        instance.write_config_with(daemon_keys, config);
        instance
    }

    /// Replaces the configuration file.
    pub fn write_config(&self, config: &str) {
        self.write_config_with("", config);
    }

    pub fn write_config_with(&self, daemon_keys: &str, config: &str) {
        let dir = self.dir.display();
        let text =
            format!("[multusd]\nstate_dir = {dir}/state\nlog_dir = {dir}/log\n{daemon_keys}\n{config}");
        // What programs say is waited for by many; not for ten seconds each time.
        let text = if config.contains("[log]") { text } else { text + "\n[log]\nflush = 50ms\n" };
        // Renamed into place: a reload never sees half of it.
        let new = self.dir.join("multusd.cfg.new");
        fs::write(&new, text).expect("configuration");
        fs::rename(new, self.config_path()).expect("configuration");
    }

    pub fn config_path(&self) -> PathBuf {
        self.dir.join("multusd.cfg")
    }

    pub fn run_dir(&self) -> PathBuf {
        self.dir.join("run")
    }

    /// Starts multusd and waits until it answers.
    pub fn launch(&mut self) {
        self.launch_only();
        self.await_that("multusd answers", || self.ctl(&["status"]).status.success());
    }

    /// Starts multusd without waiting for anything; the guard's process id.
    pub fn launch_only(&mut self) -> u32 {
        self.guard = Some(self.command().spawn().expect("multusd starts"));
        self.guard_pid()
    }

    /// What a test has started itself is this instance's multusd.
    pub fn launched(&mut self, multusd: Child) {
        self.guard = Some(multusd);
    }

    /// multusd with this instance's directories, its words going to the instance's log.
    fn command(&self) -> Command {
        let log =
            fs::OpenOptions::new().create(true).append(true).open(self.dir.join("multusd.log")).expect("log");
        let mut command = match &self.network {
            None => Command::new(binary()),
            Some(network) => {
                let mut command = Command::new("nsenter");
                command.arg(format!("--net=/run/netns/{network}")).arg(binary());
                command
            }
        };
        command.arg("--config").arg(self.config_path()).arg("--run-dir").arg(self.run_dir());
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("log")).stderr(log);
        command
    }

    /// Starts multusctl and does not wait for it; whatever comes of it. It is reaped by a thread.
    pub fn ctl_begin(&self, words: &[&str]) {
        let mut child = self.ctl_spawn(words);
        std::thread::spawn(move || child.wait());
    }

    /// Starts multusctl, silent, for the caller to wait for.
    pub fn ctl_spawn(&self, words: &[&str]) -> Child {
        let mut command = Command::new(binary());
        command.arg("multusctl").arg("--run-dir").arg(self.run_dir()).args(words);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().expect("multusctl runs")
    }

    /// The guard's process id.
    pub fn guard_pid(&self) -> u32 {
        self.guard.as_ref().expect("started").id()
    }

    /// What multusd itself said.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.join("multusd.log")).unwrap_or_default()
    }

    /// Runs multusctl.
    pub fn ctl(&self, words: &[&str]) -> Output {
        let mut command = Command::new(binary());
        command.arg("multusctl").arg("--run-dir").arg(self.run_dir()).args(words);
        command.output().expect("multusctl runs")
    }

    /// Runs multusctl, which must succeed; its output.
    pub fn ctl_ok(&self, words: &[&str]) -> String {
        let output = self.ctl(words);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "multusctl {words:?}: {output:?}\n{}", self.log());
        text
    }

    /// multusctl's exit code.
    pub fn ctl_code(&self, words: &[&str]) -> i32 {
        self.ctl(words).status.code().expect("multusctl exits")
    }

    pub fn status(&self) -> Status {
        let text = self.ctl_ok(&["status", "--json"]);
        Status::deserialize_json(&text).unwrap_or_else(|error| panic!("{error:?}: {text}"))
    }

    pub fn program(&self, name: &str) -> Program {
        let status = self.status();
        let found = status.programs.iter().find(|program| program.name == name).cloned();
        found.unwrap_or_else(|| panic!("no program {name} in {status:?}"))
    }

    pub fn pid(&self, name: &str) -> u32 {
        self.program(name).pid.unwrap_or_else(|| panic!("{name} has no process: {:?}", self.program(name)))
    }

    /// Waits until the program is in this state.
    pub fn await_state(&self, name: &str, state: &str) -> Program {
        self.await_program(name, state, |program| program.state == state)
    }

    /// Waits until the program satisfies the condition.
    pub fn await_program(&self, name: &str, what: &str, condition: impl Fn(&Program) -> bool) -> Program {
        let mut last = None;
        self.await_that(&format!("{name}: {what}"), || {
            let program = self.program(name);
            let good = condition(&program);
            last = Some(program);
            good
        });
        last.expect("asked at least once")
    }

    /// Waits until the condition holds; panics with multusd's own words when it does not.
    pub fn await_that(&self, what: &str, condition: impl FnMut() -> bool) {
        if !await_condition(condition) {
            let status = String::from_utf8_lossy(&self.ctl(&["status"]).stdout).into_owned();
            panic!("not in {PATIENCE:?}: {what}\n{status}\n{}", self.log());
        }
    }

    /// Stops everything in order; the exit code of multusd.
    pub fn quit(&mut self) -> i32 {
        self.ctl(&["quit"]);
        let status = self.guard.take().expect("started").wait().expect("multusd ends");
        status.code().expect("multusd exits by itself")
    }

    /// Waits for multusd to end, whoever ordered it.
    pub fn await_end(&mut self) -> std::process::ExitStatus {
        self.guard.take().expect("started").wait().expect("multusd ends")
    }

    /// Kills guard and supervisor at once, as nothing but a bug or an operator would.
    pub fn kill_both(&mut self) {
        let status = self.status();
        signal(status.guard_pid, libc::SIGSTOP);
        signal(status.supervisor_pid, libc::SIGKILL);
        signal(status.guard_pid, libc::SIGKILL);
        self.await_end();
    }

    /// Living processes that carry the test's directory in their environment or command line (every
    /// program of the instance inherits MULTUSD_ID; the directory is in the sockets' and scripts' paths).
    pub fn leftovers(&self, life_marker: &str) -> BTreeSet<u32> {
        processes().into_iter().filter(|pid| environment(*pid).contains(life_marker)).collect()
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        if let Some(mut guard) = self.guard.take() {
            drop(self.ctl(&["quit"]));
            let deadline = Instant::now() + Duration::from_secs(10);
            while matches!(guard.try_wait(), Ok(None)) && Instant::now() < deadline {
                pause();
            }
            if matches!(guard.try_wait(), Ok(None)) {
                // The supervisor follows when its guard dies, and takes every program with it.
                let _ = guard.kill();
                let _ = guard.wait();
            }
        }
        if !std::thread::panicking() {
            let _ = fs::remove_dir_all(&self.dir);
        }
    }
}

pub fn binary() -> &'static str {
    env!("CARGO_BIN_EXE_multusd")
}

/// A breath between two looks at a condition.
fn pause() {
    // SAFETY: no descriptors; waits a millisecond.
    unsafe { libc::poll(std::ptr::null_mut(), 0, 1) };
}

/// Waits until the condition holds; false: it did not in time.
pub fn await_condition(mut condition: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        if Instant::now() > deadline {
            return false;
        }
        pause();
    }
    true
}

/// What a signal interrupts is begun again. A call with a time limit is not by itself, and a machine that stands still for a moment
/// interrupts it, too (signal(7)).
pub fn uninterrupted<T>(mut call: impl FnMut() -> std::io::Result<T>) -> std::io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// The next message that comes to a socket; none: nothing within this time.
pub fn heard(socket: &std::os::unix::net::UnixDatagram, limit: Duration) -> Option<String> {
    socket.set_read_timeout(Some(limit)).expect("a time limit");
    let mut bytes = [0; 256];
    let length = uninterrupted(|| socket.recv(&mut bytes)).ok()?;
    Some(String::from_utf8(bytes[..length].to_vec()).expect("text"))
}

pub fn signal(pid: u32, signal: i32) {
    assert!(pid > 1, "0 would be the tests themselves");
    // SAFETY: integers; the pid is one a test started.
    unsafe { libc::kill(pid as i32, signal) };
}

/// Lives, and is no zombie.
pub fn is_alive(pid: u32) -> bool {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let Some(rest) = text.rsplit(')').next().map(str::trim_start) else { return false };
    // The first thread may be dead already, and another one read once more what was meant for a successor.
    let has_threads = || fs::read_dir(format!("/proc/{pid}/task")).is_ok_and(|tasks| tasks.count() > 1);
    !rest.is_empty() && (!rest.starts_with('Z') || has_threads())
}

pub fn processes() -> Vec<u32> {
    let entries = fs::read_dir("/proc").expect("/proc").flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| is_alive(*pid))
        .collect()
}

pub fn environment(pid: u32) -> String {
    String::from_utf8_lossy(&fs::read(format!("/proc/{pid}/environ")).unwrap_or_default()).into_owned()
}

/// Writes an executable script.
pub fn script(dir: &Path, name: &str, text: &str) -> String {
    let path = dir.join(name);
    executable(&path, format!("#!/bin/sh\n{text}\n").as_bytes());
    path.to_string_lossy().into_owned()
}

/// A file to be executed, written by another process: while this one had it open for writing, a process forked
/// by another thread's test would have it too, and whoever executes it would be told ETXTBSY.
pub fn executable(path: &Path, bytes: &[u8]) {
    let mut writer = Command::new("sh")
        .args(["-c", "cat >\"$0\" && chmod 755 \"$0\""])
        .arg(path)
        .stdin(Stdio::piped())
        .spawn()
        .expect("sh");
    std::io::Write::write_all(&mut writer.stdin.take().expect("a pipe"), bytes).expect("sh reads");
    assert!(writer.wait().expect("sh ends").success(), "{}", path.display());
}

/// Root with a writable version 2 hierarchy of control groups: tests run in both ways where it is.
pub fn has_cgroups() -> bool {
    let probe = |instance: &Instance| {
        instance.status().limitations.iter().all(|text| !text.contains("control groups"))
    };
    let instance = Instance::start("probe-cgroups", "");
    probe(&instance)
}

/// The supervisor under this guard; 0: there is none at the moment.
pub fn supervisor_of(guard: u32) -> u32 {
    let children = fs::read_to_string(format!("/proc/{guard}/task/{guard}/children")).unwrap_or_default();
    // It shares the guard's descriptors; its jobs, and programs before their exec, have copies. The helpers
    // of outputs share them too.
    let is_helper = |pid: &u32| {
        fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.starts_with("multusd-output"))
    };
    let shares = |pid: &u32| {
        const KCMP_FILES: libc::c_int = 2;
        // SAFETY: integers.
        (unsafe { libc::syscall(libc::SYS_kcmp, guard, *pid, KCMP_FILES, 0, 0) }) == 0
    };
    let numbers = children.split_ascii_whitespace().filter_map(|pid| pid.parse().ok());
    numbers.filter(|pid| is_alive(*pid) && !is_helper(pid)).find(shares).unwrap_or(0)
}

/// Lets time pass: for moments that are to be random, never for "by now it will have happened".
pub fn wait(duration: Duration) {
    let until = Instant::now() + duration;
    while Instant::now() < until {
        if until - Instant::now() > Duration::from_millis(3) {
            pause();
        }
    }
}

/// Numbers that look random and are the same in every run (splitmix64).
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % limit.max(1)
    }
}
