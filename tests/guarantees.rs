//! What status says of how long an output can stay live, and of what a configuration leaves open.

#![allow(clippy::question_mark, reason = "in what DeJson derives")]

mod harness;

use harness::Instance;
use nanoserde::DeJson;

#[derive(DeJson)]
struct Status {
    limitations: Vec<String>,
    live_ms: Option<Live>,
}

#[derive(DeJson, Debug, PartialEq)]
struct Live {
    crash: Option<u64>,
    hang: Option<u64>,
    supervisor: Option<u64>,
    guard: Option<u64>,
    kernel: Option<u64>,
}

fn status(instance: &Instance) -> Status {
    Status::deserialize_json(&instance.ctl_ok(&["status", "--json"])).expect("JSON")
}

/// With the file of the lamp in place.
fn start(test: &str, config: &str) -> Instance {
    let mut instance = Instance::prepare(test, "", config);
    std::fs::write(instance.dir.join("lamp"), "0\n").unwrap();
    instance.launch();
    instance
}

const OUTPUT: &str = "[output:lamp]\npath = %(here)s/lamp\ntimeout = 200ms\n";

#[test]
fn the_longest_time_of_each_failure_is_said_and_for_ever_where_nobody_would_notice() {
    let program = "[program:pump]\ncommand = sleep 1000\nstartsecs = 0\noutputs = lamp\n";
    let mut instance = start("guarantees", &format!("{OUTPUT}{program}"));
    instance.await_state("pump", "running");
    let first = status(&instance);
    let live = Live { crash: Some(200), hang: None, supervisor: None, guard: Some(10_200), kernel: None };
    assert_eq!(first.live_ms, Some(live));
    for words in ["pump has outputs and neither heartbeat nor check", "no watchdog is armed"] {
        assert!(first.limitations.iter().any(|said| said.contains(words)), "{:?}", first.limitations);
    }
    let text = instance.ctl_ok(&["status"]);
    assert!(text.contains("outputs stay live at most: crash 200ms, hang for ever"), "{text}");
    // The file tells as much, without a daemon.
    let output = instance.ctl(&["check", instance.config_path().to_str().unwrap()]);
    let (said, place) = (String::from_utf8_lossy(&output.stderr), instance.config_path());
    let warning =
        format!("warning: {}:5: limit = 1s, but lamp can stay live for ever when pump", place.display());
    assert!(output.status.success() && said.contains(&warning), "{said}");
    // With a heartbeat it is known, and nothing is left open about the program.
    instance.write_config(&format!("{OUTPUT}{program}heartbeat = 60s\n"));
    instance.ctl_ok(&["reload"]);
    let second = status(&instance);
    let live = second.live_ms.expect("there is an output");
    assert_eq!((live.hang, live.supervisor), (Some(60_200), Some(63_200)));
    assert!(!second.limitations.iter().any(|said| said.contains("neither")), "{:?}", second.limitations);
    instance.quit();
}

#[test]
fn a_check_bounds_a_hang_by_its_whole_window() {
    let config = format!(
        "{OUTPUT}[program:pump]\ncommand = sleep 1000\nstartsecs = 0\noutputs = lamp\ncheck = true\n\
         check_interval = 2s\ncheck_timeout = 1s\ncheck_failures = 2 of 4\n"
    );
    let mut instance = start("guarantees-check", &config);
    instance.await_state("pump", "running");
    assert_eq!(status(&instance).live_ms.and_then(|live| live.hang), Some(4 * 3000 + 200));
    instance.quit();
}

#[test]
fn without_outputs_there_is_nothing_to_say() {
    let mut instance =
        Instance::start("guarantees-none", "[program:a]\ncommand = sleep 1000\nstartsecs = 0\n");
    instance.await_state("a", "running");
    assert_eq!(status(&instance).live_ms, None);
    assert!(!instance.ctl_ok(&["status"]).contains("stay live"));
    instance.quit();
}

#[test]
fn outputs_that_nobody_can_read_back_or_set_in_our_place_are_said_at_the_start_and_in_status() {
    let outputs =
        "[output:fifo]\npath = %(here)s/fifo\n[output:bell]\ncommand = true\n[output:fan]\ncommand = true\n";
    let program =
        "[program:pump]\ncommand = sleep 1000\nstartsecs = 0\nheartbeat = 60s\noutputs = fifo, bell, fan\n";
    let mut instance = Instance::prepare("guarantees-blind", "", &format!("{OUTPUT}{outputs}{program}"));
    std::fs::write(instance.dir.join("lamp"), "0\n").unwrap();
    nix::unistd::mkfifo(&instance.dir.join("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    instance.launch();
    instance.await_state("pump", "running");
    let first = status(&instance);
    let commands = "set by a command, so not read back, and by nobody when multusd itself fails: bell, fan";
    for sentence in [commands, "cannot be read back, so that nobody knows their level: fifo"] {
        assert!(first.limitations.iter().any(|said| said == sentence), "{:?}", first.limitations);
    }
    // No guard runs a command.
    assert_eq!(first.live_ms.map(|live| live.guard), Some(None));
    let log = instance.log();
    for words in [commands, "output fifo: cannot be read back", "no watchdog is armed"] {
        assert_eq!(log.matches(words).count(), 1, "{words}: {log}");
    }
    // What is said depends on what is in force.
    instance.write_config(&format!("{OUTPUT}{}", program.replace("fifo, bell, fan", "lamp")));
    instance.ctl_ok(&["reload"]);
    instance.await_that("the others have left", || {
        !status(&instance).limitations.iter().any(|said| said.contains("read back"))
    });
    assert_eq!(status(&instance).live_ms.map(|live| live.guard), Some(Some(10_200)));
    instance.quit();
}
