//! multusd started by something that speaks sd_notify(3), systemd mostly: it says when it is up, beats as expected, and is silent
//! when it does not work.

mod harness;

use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use harness::{Instance, PATIENCE, heard, signal};

/// As systemd's WatchdogSec.
const EXPECTED: Duration = Duration::from_millis(800);
/// A test's machine may do much else.
const SLACK: Duration = Duration::from_millis(400);

struct Starter {
    instance: Instance,
    socket: UnixDatagram,
}

impl Starter {
    fn start(test: &str) -> Starter {
        let mut instance =
            Instance::scripted_only(test, "", &[], "[program:a]\ncommand = sleep 1000\nstartsecs = 0\n");
        let path = instance.dir.join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        instance.launch_as(|command| {
            command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", EXPECTED.as_micros().to_string());
        });
        Starter { instance, socket }
    }

    /// The next it says; none: nothing within this time.
    fn next(&self, limit: Duration) -> Option<String> {
        heard(&self.socket, limit)
    }

    fn beat(&self) {
        assert_eq!(self.next(EXPECTED + SLACK).as_deref(), Some("WATCHDOG=1"));
    }

    fn forget(&self) {
        while self.next(Duration::from_millis(1)).is_some() {}
    }
}

#[test]
fn who_started_multusd_hears_that_it_is_up_once_and_then_its_beats_twice_as_often_as_expected() {
    let mut starter = Starter::start("starter");
    let mut said = Vec::new();
    while !said.contains(&"READY=1".to_owned()) {
        said.push(starter.next(PATIENCE).expect("it says something"));
    }
    assert!(said.iter().all(|words| words == "READY=1" || words == "WATCHDOG=1"), "{said:?}");
    let begun = Instant::now();
    for _ in 0..10 {
        starter.beat();
    }
    // Ten beats, of which the first may be at once.
    assert!(begun.elapsed() >= EXPECTED * 8 / 2, "{:?}", begun.elapsed());
    // Programs are multusd's, not its starter's.
    let pid = starter.instance.await_state("a", "running").pid.unwrap();
    let environment = std::fs::read_to_string(format!("/proc/{pid}/environ")).unwrap();
    assert!(
        !environment.contains("NOTIFY_SOCKET") && !environment.contains("WATCHDOG_USEC"),
        "{environment}"
    );
    // Through a new supervisor and a new executable.
    signal(starter.instance.status().supervisor_pid, libc::SIGKILL);
    (0..4).for_each(|_| starter.beat());
    starter.instance.ctl_ok(&["renew"]);
    let mut said = Vec::new();
    while !said.contains(&"READY=1".to_owned()) {
        said.push(starter.next(EXPECTED + SLACK).expect("it beats"));
    }
    (0..4).for_each(|_| starter.beat());
    starter.forget();
    starter.instance.quit_clean();
    let mut last = String::new();
    while let Some(words) = starter.next(Duration::from_millis(1)) {
        last = words;
    }
    assert_eq!(last, "STOPPING=1");
}

#[test]
fn a_guard_that_stands_still_is_silent_and_a_supervisor_that_does_is_replaced_between_two_beats() {
    let mut starter = Starter::start("starter-still");
    while starter.next(PATIENCE).expect("it says something") != "READY=1" {}
    let supervisor = starter.instance.status().supervisor_pid;
    signal(supervisor, libc::SIGSTOP);
    starter.instance.await_that("another supervisor", || {
        starter.beat();
        let output = starter.instance.ctl(&["--timeout", "200ms", "status"]);
        output.status.success() && starter.instance.status().supervisor_pid != supervisor
    });
    let guard = starter.instance.guard_pid();
    signal(guard, libc::SIGSTOP);
    starter.forget();
    assert_eq!(starter.next(2 * EXPECTED), None);
    // Its supervisor, or its starter, ends it; what it leaves is the next one's to end.
    starter.instance.kill_both();
}
