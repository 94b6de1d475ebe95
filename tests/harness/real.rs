//! More of the harness, for tests in which process trees, times and rights matter.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;

use nanoserde::DeJson;

use super::{Instance, PATIENCE, await_condition, binary, has_cgroups, is_alive, processes, script};

/// One line of `multusctl events --json`.
#[derive(Clone, Debug, DeJson)]
pub struct Change {
    pub at_ms: u64,
    pub name: Option<String>,
    pub from: Option<String>,
    pub to: Option<String>,
    pub pid: Option<u32>,
    pub reason: Option<String>,
}

/// `multusctl events --json`, running.
pub struct Events {
    client: Child,
    file: PathBuf,
}

impl Events {
    /// Subscribes; returns when nothing that happens from now on can be missed. `canary` is a
    /// stopped program that ends by itself: it is started until its end is in the news.
    pub fn of(instance: &Instance, canary: &str) -> Events {
        let file = instance.dir.join("events");
        let mut command = Command::new(binary());
        command.arg("multusctl").arg("--run-dir").arg(instance.run_dir()).args(["events", "--json"]);
        command.stdin(Stdio::null()).stdout(fs::File::create(&file).expect("events"));
        let events = Events { client: command.spawn().expect("multusctl"), file };
        instance.await_that("a subscription", || {
            instance.ctl(&["start", canary]);
            !events.all().is_empty()
        });
        events
    }

    pub fn all(&self) -> Vec<Change> {
        let text = fs::read_to_string(&self.file).unwrap_or_default();
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole
            .lines()
            .map(|line| Change::deserialize_json(line).unwrap_or_else(|e| panic!("{e:?}: {line}")))
            .collect()
    }

    /// When the program came into this state, in order.
    pub fn times(&self, name: &str, state: &str) -> Vec<u64> {
        let all = self.all().into_iter();
        let wanted = all.filter(|e| e.name.as_deref() == Some(name) && e.to.as_deref() == Some(state));
        wanted.map(|event| event.at_ms).collect()
    }

    /// The places in the news at which the program came into this state.
    pub fn places(&self, name: &str, state: &str) -> Vec<usize> {
        let all = self.all().into_iter().enumerate();
        let wanted = all.filter(|(_, e)| e.name.as_deref() == Some(name) && e.to.as_deref() == Some(state));
        wanted.map(|(place, _)| place).collect()
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        let _ = self.client.kill();
        let _ = self.client.wait();
    }
}

/// What `[multusd]` says in each of the two ways in which processes are found; one way where the
/// machine has no control groups to write to.
pub fn both_ways() -> Vec<(&'static str, &'static str)> {
    static FOUND: OnceLock<bool> = OnceLock::new();
    let without = ("plain", "cgroup = off");
    let found = *FOUND.get_or_init(has_cgroups);
    assert!(found, "this test needs a writable control group hierarchy, version 2: run the tests as root");
    vec![("group", ""), without]
}

/// Fails the test, in words, where it cannot show what it is there to show.
pub fn need_root() {
    assert!(nix::unistd::geteuid().is_root(), "this test needs root: run the tests as root, as .ci/run does");
}

impl Instance {
    /// An instance with executable scripts, which are `%(here)s/NAME` to its configuration, as is
    /// `sleeper`: a `sleep` that is recognised by its command line.
    pub fn scripted(test: &str, daemon_keys: &str, scripts: &[(&str, &str)], config: &str) -> Instance {
        let mut instance = Instance::scripted_only(test, daemon_keys, scripts, config);
        instance.launch();
        instance
    }

    /// The same, not started.
    pub fn scripted_only(test: &str, daemon_keys: &str, scripts: &[(&str, &str)], config: &str) -> Instance {
        let instance = Instance::prepare(test, daemon_keys, config);
        symlink("/bin/sleep", instance.dir.join("sleeper")).expect("sleeper");
        for (name, text) in scripts {
            script(&instance.dir, name, text);
        }
        // For programs of other users to write to.
        let open = instance.dir.join("open");
        fs::create_dir(&open).expect("directory");
        fs::set_permissions(&open, fs::Permissions::from_mode(0o1777)).expect("directory");
        instance
    }

    /// Starts multusd with what the command is made into, and waits until it answers.
    pub fn launch_as(&mut self, change: impl FnOnce(&mut Command)) {
        self.launch_as_only(change);
        self.await_that("multusd answers", || self.ctl(&["status"]).status.success());
    }

    /// The same without waiting for anything.
    pub fn launch_as_only(&mut self, change: impl FnOnce(&mut Command)) {
        let log = fs::File::create(self.dir.join("multusd.log")).expect("log");
        let mut command = Command::new(binary());
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("log")).stderr(log);
        command.arg("--config").arg(self.config_path()).arg("--run-dir").arg(self.run_dir());
        change(&mut command);
        self.guard = Some(command.spawn().expect("multusd starts"));
    }

    /// multusctl, run by somebody else.
    pub fn ctl_as(&self, user: u32, group: u32, groups: &'static [u32], words: &[&str]) -> Output {
        let mut command = Command::new(self.public_binary());
        command.arg("multusctl").arg("--run-dir").arg(self.run_dir()).args(words);
        become_user(&mut command, user, group, groups);
        command.output().expect("multusctl runs")
    }

    /// A copy of the binary that any user can execute, wherever the build folder is.
    pub fn public_binary(&self) -> PathBuf {
        let copy = self.dir.join("multusd-for-all");
        if !copy.exists() {
            super::executable(&copy, &fs::read(binary()).expect("the binary"));
        }
        copy
    }

    /// Living processes of this instance but multusd's own and `log`: by command line or environment.
    pub fn family(&self) -> BTreeSet<u32> {
        let own = format!("--config\0{}", self.config_path().display());
        let is_own = |line: String| line.contains(&own) || line == "multusd\0log\0";
        self.everybody().into_iter().filter(|pid| !is_own(command_line(*pid))).collect()
    }

    /// Those of them that have become a `sleeper`: past their shell, past their `setsid`.
    pub fn sleepers(&self) -> BTreeSet<u32> {
        let asleep = format!("{}/sleeper\0", self.dir.display());
        self.family().into_iter().filter(|pid| command_line(*pid).starts_with(&asleep)).collect()
    }

    /// The same with multusd itself.
    pub fn everybody(&self) -> BTreeSet<u32> {
        let marker = format!("{}/", self.dir.display());
        let has =
            |pid: &u32| command_line(*pid).contains(&marker) || super::environment(*pid).contains(&marker);
        processes().into_iter().filter(|pid| *pid != std::process::id() && has(pid)).collect()
    }

    /// Waits until nothing of the programs is alive.
    pub fn await_nobody(&self, when: &str) {
        let mut left = BTreeSet::new();
        let gone = await_condition(|| {
            left = self.family();
            left.is_empty()
        });
        assert!(
            gone,
            "{when}: left are {:?}\n{}",
            left.iter().map(|p| command_line(*p)).collect::<Vec<_>>(),
            self.log()
        );
    }

    /// Ends multusd in order; nothing of it, nor of its programs, is left.
    pub fn quit_clean(&mut self) {
        assert_eq!(self.quit(), 0, "{}", self.log());
        let left: Vec<_> = self.everybody().into_iter().map(command_line).collect();
        assert!(left.is_empty(), "left after the end: {left:?}\n{}", self.log());
    }

    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.dir.join(name)).unwrap_or_default()
    }

    pub fn lines(&self, name: &str) -> Vec<String> {
        self.read(name).lines().map(str::to_owned).collect()
    }

    /// Waits until a file has this many lines.
    pub fn await_lines(&self, name: &str, count: usize) -> Vec<String> {
        self.await_that(&format!("{count} lines in {name}"), || self.lines(name).len() >= count);
        self.lines(name)
    }

    /// The number that a program wrote into a file, which may not be there yet.
    pub fn await_number(&self, name: &str) -> u32 {
        self.await_that(name, || self.read(name).ends_with('\n'));
        self.read(name).trim().parse().expect("a number")
    }
}

/// Waits until a process is gone.
pub fn await_death(pid: u32) {
    assert!(await_condition(|| !is_alive(pid)), "{pid} lives after {PATIENCE:?}: {}", command_line(pid));
}

pub fn command_line(pid: u32) -> String {
    String::from_utf8_lossy(&fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default()).into_owned()
}

/// The state letter of a process, such as `T`.
pub fn state_of(pid: u32) -> Option<char> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    text.rsplit(')').next()?.trim_start().chars().next()
}

/// CPU time a process has used, in milliseconds.
pub fn cpu_ms(pid: u32) -> f64 {
    // In nanoseconds, which utime and stime in ticks are too coarse for.
    let text = fs::read_to_string(format!("/proc/{pid}/schedstat")).unwrap_or_default();
    text.split(' ').next().and_then(|word| word.parse::<f64>().ok()).unwrap_or_default() / 1e6
}

/// A line of /proc/PID/status.
pub fn status_line(text: &str, key: &str) -> String {
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("no {key} in {text}")).trim().to_owned()
}

/// Makes the command run as this user.
pub fn become_user(command: &mut Command, user: u32, group: u32, groups: &'static [u32]) {
    // SAFETY: system calls only, between fork and exec.
    unsafe {
        command.pre_exec(move || {
            let done = libc::setgroups(groups.len(), groups.as_ptr()) == 0
                && libc::setresgid(group, group, group) == 0
                && libc::setresuid(user, user, user) == 0;
            if done { Ok(()) } else { Err(std::io::Error::last_os_error()) }
        });
    }
}

/// A process of the test itself, a stranger to multusd.
pub struct Stranger(Child);

impl Stranger {
    pub fn start() -> Stranger {
        Stranger(Command::new("sleep").arg("1000").spawn().expect("sleep"))
    }

    pub fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The first line of a file that may be long.
pub fn first_line(path: &Path) -> String {
    let mut line = String::new();
    if let Ok(file) = fs::File::open(path) {
        let _ = BufReader::new(file).read_line(&mut line);
    }
    line
}
