//! `multusd --service`, the main process of a unit of systemd: it ends and begins, and no program notices; ordered to stop, it stops
//! them all. What systemd itself does with it is tried with systemd: `packaging/test-debian`, `packaging/test-systemd`.

mod harness;

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use harness::mounts::{in_own_mounts, memory_at, put_over};
use harness::real::await_death;
use harness::{Instance, PATIENCE, await_condition, executable, heard, is_alive, script, signal};

/// As systemd's WatchdogSec.
const EXPECTED: Duration = Duration::from_millis(800);

const CONFIG: &str = "[program:a]\ncommand = sleep 1000\nstartsecs = 0\n";

/// A unit, as systemd has it.
struct Unit {
    instance: Instance,
    /// systemd's.
    socket: UnixDatagram,
    executable: PathBuf,
    group: Option<PathBuf>,
    arguments: Vec<&'static str>,
    guard: u32,
}

impl Unit {
    fn new(test: &str) -> Unit {
        let instance = Instance::prepare(test, "", CONFIG);
        let socket = UnixDatagram::bind(instance.dir.join("systemd")).unwrap();
        let executable = instance.public_binary();
        fs::create_dir(instance.dir.join("unit")).unwrap();
        Unit { instance, socket, executable, group: None, arguments: vec![], guard: 0 }
    }

    /// With a guard of its main process, or of the one before.
    fn started(test: &str, takes_over: bool) -> Unit {
        let mut unit = Unit::new(&format!("{test}-{takes_over}"));
        let main = unit.start();
        if takes_over {
            unit.kill(main);
            unit.start();
        }
        unit
    }

    /// `place`: below the unit's control group.
    fn command(&self, place: &str) -> Command {
        let mut command = Command::new(&self.executable);
        command.env("NOTIFY_SOCKET", self.instance.dir.join("systemd"));
        command.env("RUNTIME_DIRECTORY", self.instance.dir.join("unit"));
        command.env("WATCHDOG_USEC", EXPECTED.as_micros().to_string());
        command.env("INVOCATION_ID", "0123456789abcdef0123456789abcdef");
        if let Some(group) = &self.group {
            let place = group.join(place);
            fs::create_dir_all(&place).unwrap();
            let processes = place.join("cgroup.procs");
            // SAFETY: between fork and exec only a write to a file, as systemd does it.
            unsafe { command.pre_exec(move || fs::write(&processes, "0")) };
        }
        command
    }

    /// A new main process; returns when systemd has heard that it is ready.
    fn start(&mut self) -> u32 {
        self.forget();
        let log = self.instance.dir.join("multusd.log");
        let log = fs::OpenOptions::new().create(true).append(true).open(log).unwrap();
        let mut command = self.command("");
        command.arg("--service").arg("--config").arg(self.instance.config_path());
        command.arg("--run-dir").arg(self.instance.run_dir()).args(&self.arguments);
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let main = command.spawn().unwrap();
        let pid = main.id();
        self.instance.launched(main);
        while self.next(PATIENCE).expect("it says something") != "READY=1" {}
        self.instance.await_that("multusd answers", || self.instance.ctl(&["status"]).status.success());
        self.guard = self.instance.status().guard_pid;
        pid
    }

    fn next(&self, limit: Duration) -> Option<String> {
        heard(&self.socket, limit)
    }

    fn forget(&self) {
        while self.next(Duration::from_millis(1)).is_some() {}
    }

    fn kill(&mut self, pid: u32) {
        signal(pid, libc::SIGKILL);
        self.instance.await_end();
    }

    /// What systemd's ExecStopPost= does, where systemd has it do that.
    fn ended(&self) {
        assert!(self.command(".control").arg("--service-ended").status().unwrap().success());
    }
}

#[test]
fn a_main_process_that_is_killed_is_followed_by_one_that_finds_guard_and_programs_and_what_is_new() {
    let mut unit = Unit::new("service");
    let main = unit.start();
    let (guard, program) = (unit.guard, unit.instance.pid("a"));
    assert_ne!(main, guard);
    for round in 0..3_u8 {
        let main = unit.instance.guard_pid();
        unit.kill(main);
        unit.ended();
        assert!(is_alive(program));
        // What is new on storage: another executable, another program.
        let bytes = fs::read(harness::binary()).unwrap();
        executable(&unit.instance.dir.join("new"), &[&bytes[..], &[round]].concat());
        fs::rename(unit.instance.dir.join("new"), &unit.executable).unwrap();
        unit.instance
            .write_config(&format!("{CONFIG}[program:b{round}]\ncommand = sleep 1000\nstartsecs = 0\n"));
        unit.start();
        assert_eq!((unit.guard, unit.instance.pid("a")), (guard, program), "{}", unit.instance.log());
        // Ready means: that is done.
        assert_eq!(fs::read(format!("/proc/{guard}/exe")).unwrap().last(), Some(&round));
        unit.instance.await_state(&format!("b{round}"), "running");
        assert_eq!(unit.instance.pid("a"), program);
    }
    // It hears as before: ten beats, twice as often as it expects them.
    unit.forget();
    let begun = Instant::now();
    for _ in 0..10 {
        assert!(unit.next(EXPECTED).is_some());
    }
    assert!(begun.elapsed() >= EXPECTED * 3, "{:?}", begun.elapsed());
    let environment = harness::environment(program);
    assert!(
        !environment.contains("RUNTIME_DIRECTORY") && !environment.contains("INVOCATION"),
        "{environment}"
    );
    unit.instance.quit_clean();
}

#[test]
fn what_cannot_be_renewed_runs_on_and_reads_its_configuration() {
    let mut unit = Unit::new("service-old");
    let main = unit.start();
    let (guard, program) = (unit.guard, unit.instance.pid("a"));
    unit.kill(main);
    // Another version would be executed as well, so the one that stands for it stays.
    let kept = unit.instance.dir.join("kept");
    fs::rename(&unit.executable, &kept).unwrap();
    let missing = std::mem::replace(&mut unit.executable, kept);
    unit.instance.write_config("[program:b]\ncommand = sleep 1000\nstartsecs = 0\n");
    unit.start();
    assert_eq!(unit.guard, guard);
    await_death(program);
    unit.instance.await_state("b", "running");
    let log = unit.instance.log();
    assert!(log.contains("not renewed") && log.contains(missing.to_str().unwrap()), "{log}");
    unit.instance.quit_clean();
}

#[test]
fn a_stop_stops_every_program_whoever_has_started_the_guard() {
    for takes_over in [false, true] {
        let mut unit = Unit::started("service-stop", takes_over);
        let (program, guard) = (unit.instance.pid("a"), unit.guard);
        signal(unit.instance.guard_pid(), libc::SIGTERM);
        assert_eq!(unit.instance.await_end().code(), Some(0), "{}", unit.instance.log());
        assert!(!is_alive(program) && !is_alive(guard));
        let mut said = Vec::new();
        while let Some(words) = unit.next(Duration::from_millis(1)) {
            said.push(words);
        }
        assert_eq!(said.last().map(String::as_str), Some("STOPPING=1"), "{said:?}");
    }
}

#[test]
fn a_guard_that_is_killed_ends_its_main_process_and_the_next_starts_another() {
    for takes_over in [false, true] {
        let mut unit = Unit::started("service-guard", takes_over);
        let (program, guard) = (unit.instance.pid("a"), unit.guard);
        signal(guard, libc::SIGKILL);
        assert_eq!(unit.instance.await_end().code(), Some(1), "{}", unit.instance.log());
        unit.start();
        assert_ne!(unit.guard, guard);
        assert!(!is_alive(program));
        unit.instance.await_state("a", "running");
        unit.instance.quit_clean();
    }
}

#[test]
fn a_guard_that_stands_still_is_heard_no_more_and_the_next_main_process_kills_it() {
    let mut unit = Unit::new("service-still");
    let main = unit.start();
    let (program, guard) = (unit.instance.pid("a"), unit.guard);
    signal(guard, libc::SIGSTOP);
    unit.forget();
    assert_eq!(unit.next(2 * EXPECTED), None);
    unit.kill(main);
    unit.start();
    assert!(!is_alive(guard) && !is_alive(program), "{}", unit.instance.log());
    assert!(unit.instance.log().contains("the guard does not answer"), "{}", unit.instance.log());
    unit.instance.await_state("a", "running");
    unit.instance.quit_clean();
}

#[test]
fn other_arguments_are_another_multusd() {
    let mut unit = Unit::new("service-arguments");
    let main = unit.start();
    let (program, guard) = (unit.instance.pid("a"), unit.guard);
    unit.kill(main);
    unit.arguments = vec!["--service"];
    unit.start();
    assert!(unit.guard != guard && !is_alive(program), "{}", unit.instance.log());
    unit.instance.quit_clean();
}

#[test]
fn without_room_for_what_a_restart_needs_programs_run_and_end_with_the_main_process() {
    in_own_mounts(|| {
        // Its own directory; with a socket, but no record.
        for (inodes, said) in [(1, "unit/notify: "), (2, "who the guard is cannot be kept")] {
            let mut unit = Unit::new(&format!("service-full-{inodes}"));
            memory_at(&unit.instance.dir.join("unit"), &format!("nr_inodes={inodes}"), 0);
            for _ in 0..2 {
                let main = unit.start();
                let (program, guard) = (unit.instance.pid("a"), unit.guard);
                assert_eq!(main == guard, inodes == 1);
                let log = unit.instance.log();
                assert!(log.contains("a restart will stop programs: ") && log.contains(said), "{log}");
                unit.kill(main);
                await_death(program);
                await_death(guard);
            }
            unit.start();
            unit.instance.quit_clean();
        }
    });
}

#[test]
fn without_systemd_it_says_what_is_missing() {
    for (variable, words) in [("RUNTIME_DIRECTORY", "RuntimeDirectory="), ("NOTIFY_SOCKET", "Type=notify")] {
        let unit = Unit::new(&format!("service-without-{variable}"));
        let output = unit.command("").arg("--service").env_remove(variable).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            output.status.code() == Some(1) && said.contains(words) && said.contains(variable),
            "{output:?}"
        );
    }
}

/// A control group of this name, as systemd would make it.
fn group(name: &str) -> PathBuf {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let mount = mounts.lines().find(|line| line.contains(" - cgroup2 ")).expect("control groups, version 2");
    let path = Path::new(mount.split(' ').nth(4).unwrap()).join(name);
    fs::create_dir(&path).expect("root, and a writable control group hierarchy, version 2");
    path
}

#[test]
fn only_a_stop_that_systemd_makes_for_a_restart_leaves_the_programs() {
    // In its own view of the file systems another systemctl says what systemd is about.
    in_own_mounts(|| {
        let mut unit = Unit::new("service-restart");
        let name = format!("multusd-{}.service", std::process::id());
        unit.group = Some(group(&name));
        let said = unit.instance.dir.join("said");
        script(
            &unit.instance.dir,
            "systemctl",
            &format!("[ \"$*\" = 'list-jobs --no-legend --no-pager {name}' ] && cat {}", said.display()),
        );
        put_over(&unit.instance.dir.join("systemctl"), Path::new("/usr/bin/systemctl"));
        unit.start();
        let (program, guard) = (unit.instance.pid("a"), unit.guard);
        let job = |what: &str| fs::write(&said, format!(" 77 {name} {what} running\n")).unwrap();
        for what in ["restart", "try-restart"] {
            job(what);
            signal(unit.instance.guard_pid(), libc::SIGTERM);
            assert_eq!(unit.instance.await_end().code(), Some(0));
            unit.ended();
            assert!(is_alive(program) && is_alive(guard));
            unit.start();
            assert_eq!((unit.guard, unit.instance.pid("a")), (guard, program), "{}", unit.instance.log());
        }
        job("stop");
        signal(unit.instance.guard_pid(), libc::SIGTERM);
        assert_eq!(unit.instance.await_end().code(), Some(0));
        assert!(!is_alive(program) && !is_alive(guard), "{}", unit.instance.log());
        // A systemctl that knows nothing, or fails: a stop, too.
        fs::remove_file(&said).unwrap();
        unit.start();
        let program = unit.instance.pid("a");
        signal(unit.instance.guard_pid(), libc::SIGTERM);
        assert_eq!(unit.instance.await_end().code(), Some(0));
        assert!(!is_alive(program));
        // A restart that became a stop before the next main process began, and one of which nobody lived to tell the guard.
        unit.start();
        let (program, guard) = (unit.instance.pid("a"), unit.guard);
        job("restart");
        signal(unit.instance.guard_pid(), libc::SIGTERM);
        assert_eq!(unit.instance.await_end().code(), Some(0));
        assert!(is_alive(guard));
        job("stop");
        unit.ended();
        assert!(!is_alive(program) && !is_alive(guard), "{}", unit.instance.log());
        let group = unit.group.take().unwrap();
        let removed = await_condition(|| {
            let below = fs::read_dir(&group).into_iter().flatten().flatten();
            below.for_each(|leaf| drop(fs::remove_dir(leaf.path())));
            fs::remove_dir(&group).is_ok()
        });
        assert!(removed, "nothing is left in it");
    });
}
