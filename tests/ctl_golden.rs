//! `multusctl`, the real binary, against a fake daemon: what it asks, what it prints, how it
//! exits. Transcripts are under `tests/golden/ctl`; `MULTUSD_BLESS=1 cargo test` rewrites them,
//! and the difference is what a reviewer reads.

mod fake;

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Command, Output as Ended, Stdio};

use fake::{Answer, Fake, Move, World, to};
use multusd::protocol::*;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

fn multusctl(run_dir: &Path, line: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_multusd"));
    command.arg("multusctl").arg("--run-dir").arg(run_dir);
    command.args(line.split_whitespace()).env_remove("NO_COLOR").env_remove("COLUMNS").stdin(Stdio::null());
    command
}

/// One command in a transcript: what was typed, what was asked of the daemon (but for reading the
/// state, which is done as often as it takes), what came out where, and the exit code.
fn transcript(line: &str, asked: &[Request], ended: &Ended, run_dir: &Path) -> String {
    let mut text = format!("$ multusctl {line}\n");
    for request in asked.iter().filter(|request| !matches!(request, Request::Status { .. })) {
        text += &format!("asked {request:?}\n");
    }
    let own = run_dir.to_str().unwrap();
    text += &String::from_utf8(ended.stdout.clone()).unwrap().replace(own, "RUN");
    for line in String::from_utf8(ended.stderr.clone()).unwrap().replace(own, "RUN").lines() {
        text += &format!("stderr {line}\n");
    }
    text + &format!("exit {}\n\n", ended.status.code().unwrap_or(-1))
}

/// Runs a command against a world of its own.
fn run_in(
    world: World,
    line: &str,
    script: impl FnMut(&Request, &mut World) -> Answer + Send + 'static,
) -> String {
    let fake = Fake::start(world, Box::new(script));
    let ended = multusctl(&fake.run_dir, line).output().unwrap();
    transcript(line, &fake.asked(), &ended, &fake.run_dir)
}

fn run(world: World, line: &str) -> String {
    run_in(world, line, |_, _| Answer::Usual)
}

fn golden(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/ctl").join(name);
    if std::env::var_os("MULTUSD_BLESS").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    let wanted = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(text == wanted, "{name} is not what it was; now:\n{text}\nMULTUSD_BLESS=1 accepts it");
}

fn program(name: &str, state: State, pid: u32) -> ProgramStatus {
    ProgramStatus {
        name: name.try_into().unwrap(),
        state,
        pid,
        restarts: 0,
        failures: 0,
        uptime_ms: if pid == 0 { 0 } else { 93_784_000 },
        since_ms: 93_780_000,
        next_start_ms: None,
        last_exit: None,
        reason: heapless::String::new(),
        status_text: heapless::String::new(),
        heartbeat: None,
        outputs: heapless::Vec::new(),
    }
}

fn output(name: &str, level: Option<bool>, safe: bool) -> Output {
    Output { name: name.try_into().unwrap(), level, safe }
}

fn exit(code: Option<u8>, signal: Option<u8>) -> Option<LastExit> {
    Some(LastExit { code, signal })
}

/// A program in each state, and a daemon with something to say about itself.
fn hall() -> World {
    let mut pump = program("pump", State::Running, 4711);
    pump.restarts = 3;
    pump.reason = "hung".try_into().unwrap();
    pump.last_exit = exit(None, Some(9));
    pump.status_text = "pumping 12 l/min".try_into().unwrap();
    pump.heartbeat = Some(Heartbeat { age_ms: 120, limit_ms: 500 });
    pump.outputs.push(output("pump-relay", Some(true), false)).unwrap();
    let mut logger = program("logger", State::Backoff, 0);
    logger.restarts = 12;
    logger.failures = 4;
    logger.next_start_ms = Some(2_340);
    logger.last_exit = exit(Some(1), None);
    let mut valve = program("valve", State::Stopping, 4712);
    valve.outputs.push(output("inlet", None, false)).unwrap();
    valve.outputs.push(output("outlet", Some(false), true)).unwrap();
    let mut report = program("report", State::Exited, 0);
    report.last_exit = exit(Some(0), None);
    let mut camera = program("camera", State::Fatal, 0);
    camera.reason = "exec /data/camera: No such file or directory".try_into().unwrap();
    let mut world = World::new(vec![
        pump,
        program("web_1", State::Starting, 4713),
        program("web_2", State::Stopped, 0),
        logger,
        valve,
        report,
        camera,
        program("display", State::Paused, 4714),
        program("modem", State::Held, 0),
    ]);
    world.daemon.supervisor_restarts = 2;
    world.live = LiveTimes {
        outputs: 3,
        crash_ms: Some(10),
        hang_ms: Some(510),
        supervisor_ms: Some(3510),
        guard_ms: Some(10_010),
        kernel_ms: None,
    };
    world.daemon.shutdown_in_ms = Some(299_000);
    world.daemon.config_note = "the file has errors, the last good one is in force".try_into().unwrap();
    world
        .daemon
        .limitations
        .push("no control groups: a program's children may escape".try_into().unwrap())
        .unwrap();
    world
}

fn two() -> Vec<ProgramStatus> {
    vec![program("pump", State::Stopped, 0), program("lamp", State::Running, 50)]
}

#[test]
fn status_for_people() {
    let mut text = run(hall(), "status");
    text += &run(World::new(two()), "status lamp");
    text += &run(World::new(two()), "status pump lamp");
    text += &run(World::new(two()), "status *mp");
    text += &run(World::new(Vec::new()), "status");
    golden("status.txt", &text);
}

#[test]
fn status_in_a_narrow_window() {
    let mut text = String::new();
    for columns in ["60", "45", "32"] {
        let fake = Fake::start(hall(), Box::new(|_, _| Answer::Usual));
        let ended = multusctl(&fake.run_dir, "status").env("COLUMNS", columns).output().unwrap();
        text += &transcript("status", &[], &ended, &fake.run_dir);
    }
    golden("status-narrow.txt", &text);
}

#[test]
fn status_for_programs() {
    let mut evil = program("pump", State::Running, 5);
    evil.status_text = "a\"b\\c\n\u{1b}[31m\u{7f}\u{e9}".try_into().unwrap();
    let mut text = run(hall(), "status --json");
    text += &run(hall(), "--json status web_* logger");
    text += &run(World::new(vec![evil.clone()]), "status --json");
    text += &run(World::new(vec![evil]), "status");
    golden("status-json.txt", &text);
}

#[test]
fn watchdogs_for_people_and_for_programs() {
    let bare = Watchdog {
        name: "".try_into().unwrap(),
        what: "/dev/watchdog".try_into().unwrap(),
        asked_ms: 60_000,
        timeout_ms: Some(15_000),
        pretimeout_ms: Some(3000),
        left_ms: Some(14_000),
        fed_ms: Some(310),
        note: "the last reset was the watchdog's".try_into().unwrap(),
    };
    let mut external = Watchdog {
        name: "external".try_into().unwrap(),
        what: "pinctrl-bcm2835:17".try_into().unwrap(),
        asked_ms: 1600,
        timeout_ms: Some(1600),
        pretimeout_ms: None,
        left_ms: None,
        fed_ms: None,
        note: "".try_into().unwrap(),
    };
    let temperature = Temperature {
        now: Some(81_000),
        min: -40_000,
        max: 80_000,
        hysteresis: 5000,
        age_ms: Some(900),
        open: false,
        text: "too hot: 81.0 \u{b0}C".try_into().unwrap(),
    };
    let answer = |watchdogs: &[Watchdog], withheld: &str, temperature: Option<Temperature>| {
        let watchdogs = watchdogs.iter().cloned().collect();
        let withheld = withheld.try_into().unwrap();
        Reply::Watchdogs { watchdogs, withheld, temperature }
    };
    let mut text = String::new();
    let mut show = |reply: Reply| {
        for line in ["watchdog", "watchdog --json"] {
            let reply = reply.clone();
            text += &run_in(World::new(two()), line, move |_, _| Answer::Reply(reply.clone()));
        }
    };
    show(answer(&[], "", None));
    show(answer(&[bare.clone(), external.clone()], "", Some(temperature)));
    show(answer(std::slice::from_ref(&bare), "outputs of pump are not confirmed safe", None));
    external.timeout_ms = None;
    external.note = "GPIO line: Device or resource busy\u{1b}[31m".try_into().unwrap();
    show(answer(&[bare, external], "", None));
    golden("watchdog.txt", &text);
}

#[test]
fn values_for_people_and_for_programs() {
    let value = |name: &str, milli, unit: &str| ValueStatus {
        name: name.try_into().unwrap(),
        milli,
        raw: 17,
        unit: unit.try_into().unwrap(),
        age_ms: 1234,
        left_ms: milli.map(|_| 3766),
    };
    let mut text = String::new();
    for line in ["values", "values --json", "publish tank=12.5 --unit m --for 10s", "publish tank", "publish"]
    {
        text += &run_in(World::new(two()), line, move |request, _| match request {
            Request::Values { from: 0 } => {
                let values =
                    [value("sensor.outside", Some(-23_500), "C"), value("io.tank\u{1b}[31m", None, "")];
                Answer::Reply(Reply::Values { values: values.into_iter().collect(), next: Some(16) })
            }
            Request::Values { .. } => {
                let values = [value("io.level", Some(5), "m")];
                Answer::Reply(Reply::Values { values: values.into_iter().collect(), next: None })
            }
            Request::Publish { text } => {
                assert_eq!(text.as_str(), "tank 12.5 unit=m for=10000ms");
                Answer::Reply(Reply::Done { text: heapless::String::new() })
            }
            _ => Answer::Usual,
        });
    }
    golden("values.txt", &text);
}

#[test]
fn reasons_for_people_and_for_programs() {
    let boot = |number, end, why: &str| Boot { number, end, why: why.try_into().unwrap() };
    let mut world = World::new(two());
    world.boots = vec![
        boot(19, BootEnd::Running, ""),
        boot(18, BootEnd::Watchdog, "outputs of pump are not confirmed safe"),
        boot(17, BootEnd::Unfed, "the guard\u{1b}[31m does not answer"),
        boot(16, BootEnd::Unordered, "power lost, reset or kernel failure"),
        boot(15, BootEnd::Reboot, ""),
        boot(14, BootEnd::PowerOff, ""),
        boot(13, BootEnd::Quit, "what came then is not known"),
        boot(12, BootEnd::Heat, ""),
        boot(11, BootEnd::Voltage, ""),
    ];
    let mut text = run(World::new(two()), "reasons");
    for line in ["reasons", "reasons --json", "status", "status --json"] {
        let mut same = World::new(two());
        same.boots = world.boots.clone();
        text += &run(same, line);
    }
    // A first boot has none before it; a daemon of before this question has no answer.
    world.boots.truncate(1);
    text += &run(world, "status");
    text += &run_in(World::new(two()), "status", |request, _| match request {
        Request::Reasons => {
            Answer::Reply(Reply::Refused { why: Refusal::BadRequest, text: heapless::String::new() })
        }
        _ => Answer::Usual,
    });
    golden("reasons.txt", &text);
}

#[test]
fn events_for_people_and_for_programs() {
    let all = [
        State::Stopped,
        State::Starting,
        State::Running,
        State::Paused,
        State::Stopping,
        State::Backoff,
        State::Held,
        State::Exited,
        State::Fatal,
    ];
    let event = |at: usize| Event {
        seq: at as u64 + if at > 5 { 10 } else { 1 },
        at_ms: 61_005 + 1000 * at as u64,
        name: "pump".try_into().unwrap(),
        from: all[at],
        to: all[at + 1],
        pid: if at.is_multiple_of(2) { 4711 } else { 0 },
        reason: if at == 4 { "exit code 1" } else { "" }.try_into().unwrap(),
    };
    let world = || {
        let mut world = World::new(two());
        world.news = (0..8).map(event).collect();
        let about_itself =
            Event { seq: 18, name: Name::new(), pid: 0, reason: "reloaded".try_into().unwrap(), ..event(7) };
        world.news.push(about_itself);
        world.end_news = true;
        world
    };
    golden("events.txt", &(run(world(), "events") + &run(world(), "events --json")));
    let mut text = String::new();
    for line in ["events --past", "events --past -n 2 --json", "events --lines 0 --past", "events -n 3"] {
        text += &run(world(), line);
    }
    golden("events-past.txt", &text);
}

#[test]
fn inputs_and_outputs() {
    let input = |name: &str, level, reason: &str| InputStatus {
        name: name.try_into().unwrap(),
        wire: "pinctrl-bcm2711:27".try_into().unwrap(),
        level,
        active_low: name == "door",
        edges: 12,
        age_ms: level.map(|_| 61_000),
        reason: reason.try_into().unwrap(),
    };
    let output = |name: &str, state, level, owner: &str, reason: &str| OutputStatus {
        name: name.try_into().unwrap(),
        wire: "gpio 17".try_into().unwrap(),
        state,
        level,
        active_low: name == "lamp",
        safe: level == Some(false) && state != OutputState::Unconfirmed,
        confirmed_ms: (state != OutputState::Unconfirmed).then_some(1500),
        owner: owner.try_into().unwrap(),
        reason: reason.try_into().unwrap(),
    };
    let answer = move |request: &Request, _: &mut World| {
        Answer::Reply(match request {
            Request::Inputs { from: 0 } => {
                let inputs = [input("float-switch", Some(true), ""), input("door", Some(true), "")];
                Reply::Inputs { inputs: inputs.into_iter().collect(), next: Some(2) }
            }
            Request::Inputs { .. } => {
                let inputs = [input("gone", None, "GPIO line: Device or resource busy")];
                Reply::Inputs { inputs: inputs.into_iter().collect(), next: None }
            }
            Request::Outputs { from: 0 } => {
                use OutputState::{Boot, Driven, Safe, Set, Unconfirmed};
                let outputs = [
                    output("pump-relay", Safe, Some(false), "pump", ""),
                    output("lamp", Driven, Some(true), "lights", ""),
                    output("valve", Boot, Some(false), "pump", "cannot be read back"),
                    output("bell", Set, Some(true), "", ""),
                    output("fan", Unconfirmed, None, "pump", "reads the other level"),
                ];
                Reply::Outputs { outputs: outputs.into_iter().collect(), next: Some(8) }
            }
            Request::Outputs { .. } => Reply::Outputs { outputs: heapless::Vec::new(), next: None },
            Request::SetOutput { force: false, .. } => Reply::Refused {
                why: Refusal::Failed,
                text: "lamp: lights runs and drives it; --force sets it all the same".try_into().unwrap(),
            },
            _ => return Answer::Usual,
        })
    };
    let mut text = String::new();
    for line in [
        "inputs",
        "inputs --json",
        "outputs",
        "outputs --json",
        "outputs set lamp on",
        "outputs set lamp off --force",
        "outputs set lamp",
        "outputs set lamp bright",
        "outputs get lamp on",
        "inputs --force",
    ] {
        text += &run_in(World::new(two()), line, answer);
    }
    golden("lines.txt", &text);
}

#[test]
fn unknown_programs_are_told_before_anything_is_done() {
    let mut text = String::new();
    for line in [
        "start pmup",
        "stop lamp pmup",
        "restart x*",
        "status zebra",
        "signal nobody HUP",
        "once Pump --wait",
    ] {
        text += &run(World::new(two()), line);
    }
    golden("unknown-program.txt", &text);
}

#[test]
fn refusals_are_the_words_of_the_daemon() {
    let refusals = [
        (Refusal::NotAllowed, "only root and group multusd may"),
        (Refusal::NoSuchProgram, "it was taken out of the configuration"),
        (Refusal::NotRunning, "pump does not run"),
        (Refusal::Failed, "no such process"),
        (Refusal::BadRequest, ""),
        (Refusal::BadConfig, ""),
    ];
    let mut text = String::new();
    for (why, words) in refusals {
        for line in ["stop pump", "reboot"] {
            text += &run_in(World::new(two()), line, move |request, _| match request {
                Request::Order { .. } | Request::Shutdown { .. } => {
                    Answer::Reply(Reply::Refused { why, text: words.try_into().unwrap() })
                }
                _ => Answer::Usual,
            });
        }
    }
    let not_for_you = |request: &Request, _: &mut World| match request {
        Request::Daemon | Request::Subscribe => Answer::Reply(Reply::Refused {
            why: Refusal::NotAllowed,
            text: "not for you".try_into().unwrap(),
        }),
        _ => Answer::Usual,
    };
    text += &run_in(World::new(two()), "status", not_for_you);
    text += &run_in(World::new(two()), "start pump --wait", not_for_you);
    // One that is refused does not keep the others from their turn.
    text += &run_in(World::new(two()), "stop all", |request, _| match request {
        Request::Order { name, .. } if name == "pump" => Answer::Reply(Reply::Refused {
            why: Refusal::NotAllowed,
            text: "not the pump".try_into().unwrap(),
        }),
        _ => Answer::Usual,
    });
    golden("refused.txt", &text);
}

#[test]
fn without_a_daemon() {
    let dir = fake::new_dir();
    let mut text = String::new();
    for line in ["status", "start pump", "names", "status --run-dir /x/y"] {
        text += &transcript(line, &[], &multusctl(&dir, line).output().unwrap(), &dir);
    }
    drop(fake::listen(&dir.join("control")));
    text += &transcript("status", &[], &multusctl(&dir, "status").output().unwrap(), &dir);
    let long = dir.join("x".repeat(120));
    text += &transcript("status", &[], &multusctl(&long, "status").output().unwrap(), &long);
    std::fs::remove_dir_all(&dir).unwrap();
    golden("no-daemon.txt", &text);
}

#[test]
fn a_daemon_that_does_not_answer_properly() {
    let mut text = run_in(World::new(two()), "status --timeout 100ms", |_, _| Answer::Silence);
    text += &run_in(World::new(two()), "events --timeout 100ms", |_, _| Answer::Silence);
    text += &run_in(World::new(two()), "status", |_, _| Answer::Close);
    text += &run_in(World::new(two()), "status", |_, _| Answer::Bytes(vec![9, 9]));
    text += &run_in(World::new(two()), "start pump", |request, world| match request {
        Request::Order { .. } => Answer::Reply(Reply::Daemon(world.daemon.clone())),
        _ => Answer::Usual,
    });
    // Pages that go in circles end as well.
    text += &run_in(World::new(two()), "names", |_, world| {
        Answer::Reply(Reply::Status { programs: world.programs.iter().cloned().collect(), next: Some(0) })
    });
    golden("bad-daemon.txt", &text);
}

#[test]
fn a_listener_that_never_accepts_is_a_timeout() {
    let dir = fake::new_dir();
    let _listener = fake::listen(&dir.join("control"));
    let ended = multusctl(&dir, "status --timeout 100ms").output().unwrap();
    assert_eq!(ended.status.code(), Some(6));
    std::fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn orders_without_wait_return_when_they_are_given() {
    let mut text = String::new();
    for line in [
        "start pump",
        "stop all",
        "restart *mp lamp",
        "once lamp pump lamp",
        "pause lamp",
        "cont lamp",
        "signal pump TERM",
        "signal pump lamp sighup",
        "signal all 10",
        "signal pump reload",
        "reboot",
        "reboot --in 5min",
        "poweroff --in 90s",
        "poweroff --cancel",
        "quit",
        "names",
    ] {
        text += &run(World::new(two()), line);
    }
    text += &run_in(World::new(two()), "start pump", |request, _| match request {
        Request::Order { .. } => {
            Answer::Reply(Reply::Done { text: "pump: runs already".try_into().unwrap() })
        }
        _ => Answer::Usual,
    });
    golden("orders.txt", &text);
}

#[test]
fn start_and_stop_with_wait() {
    use State::*;
    let failed = Move { exit: exit(Some(1), None), reason: "exit code 1", ..to("pump", Backoff, 0) };
    let fatal = Move { reason: "exec /x: No such file or directory", ..to("pump", Fatal, 0) };
    let short = Move { exit: exit(Some(0), None), ..to("pump", Exited, 0) };
    let start: [(&str, &[Move]); 8] = [
        ("start pump --wait", &[to("pump", Starting, 7), to("pump", Running, 7)]),
        ("start pump lamp --wait", &[to("pump", Starting, 7), to("pump", Running, 7)]),
        (
            "start pump --wait",
            &[to("pump", Starting, 7), failed.clone(), to("pump", Starting, 8), to("pump", Running, 8)],
        ),
        ("start pump --wait", &[to("pump", Starting, 7), fatal]),
        ("start pump --wait", &[to("pump", Starting, 7), to("pump", Running, 7), short.clone()]),
        ("start pump --wait", &[to("pump", Starting, 7), short]),
        ("start pump --wait", &[to("pump", Starting, 7), to("pump", Stopped, 0)]),
        ("start pump --wait --timeout 1s", &[to("pump", Starting, 7), failed]),
    ];
    let mut text = String::new();
    for (line, moves) in start {
        text += &run(World::moving(two(), moves), line);
    }
    for (line, moves) in [
        ("stop lamp --wait", &[to("lamp", Stopping, 50), to("lamp", Stopped, 0)][..]),
        ("stop all --wait", &[to("lamp", Stopping, 50), to("lamp", Stopped, 0)]),
        ("stop lamp --wait --timeout 1s", &[to("lamp", Stopping, 50)]),
    ] {
        text += &run(World::moving(two(), moves), line);
    }
    golden("wait-start-stop.txt", &text);
}

#[test]
fn restart_and_once_with_wait() {
    use State::*;
    let bad = Move { exit: exit(Some(3), None), reason: "exit code 3", ..to("pump", Exited, 0) };
    let killed = Move { exit: exit(None, Some(11)), ..to("pump", Exited, 0) };
    let good = Move { exit: exit(Some(0), None), ..to("pump", Exited, 0) };
    let cases: [(&str, &[Move]); 6] = [
        (
            "restart lamp --wait",
            &[
                to("lamp", Stopping, 50),
                to("lamp", Stopped, 0),
                to("lamp", Starting, 51),
                to("lamp", Running, 51),
            ],
        ),
        ("restart pump --wait", &[to("pump", Starting, 9), to("pump", Running, 9)]),
        ("restart lamp --wait --timeout 1s", &[]),
        ("once pump --wait", &[to("pump", Starting, 9), to("pump", Running, 9), good]),
        ("once pump --wait", &[to("pump", Starting, 9), bad]),
        ("once pump --wait", &[to("pump", Running, 9), killed]),
    ];
    let mut text = String::new();
    for (line, moves) in cases {
        text += &run(World::moving(two(), moves), line);
    }
    golden("wait-restart-once.txt", &text);
}

#[test]
fn a_program_that_vanishes_while_it_is_waited_for() {
    let mut text = String::new();
    for line in ["stop lamp --wait", "start pump --wait"] {
        text += &run_in(World::new(two()), line, |request, world| {
            if matches!(request, Request::Order { .. }) {
                world.programs.clear();
            }
            Answer::Usual
        });
    }
    // And a daemon that does.
    text += &run_in(World::new(two()), "start pump --wait", |request, world| {
        world.end_news = matches!(request, Request::Order { .. });
        Answer::Usual
    });
    golden("wait-vanished.txt", &text);
}

#[test]
fn reload() {
    use State::*;
    let with_text = |text: &str| {
        let mut world = World::new(two());
        world.page = text.to_string();
        world
    };
    let bad = |request: &Request, _: &mut World| match request {
        Request::Reload { .. } => {
            Answer::Reply(Reply::Refused { why: Refusal::BadConfig, text: "line 1: a".try_into().unwrap() })
        }
        _ => Answer::Usual,
    };
    let mut text = run(World::new(two()), "reload");
    text += &run(with_text("pump: command changed\nlamp: new\n"), "reload --dry-run --wait");
    text += &run_in(with_text("line 1: a\nline 2: b\u{1b}\n"), "reload", bad);
    text += &run_in(World::new(two()), "reload", bad);
    let cases: [&[Move]; 3] = [
        &[],
        &[to("pump", Starting, 9), to("pump", Running, 9)],
        &[to("lamp", Stopping, 50), to("pump", Starting, 9), to("lamp", Fatal, 0), to("pump", Running, 9)],
    ];
    for moves in cases {
        text += &run(World::moving(two(), moves), "reload --wait");
    }
    text += &run(World::moving(two(), &[to("lamp", Stopping, 50)]), "reload --wait --timeout 1s");
    golden("reload.txt", &text);
}

#[test]
fn quit_with_wait_lasts_until_the_connection_ends() {
    let done = || Answer::Reply(Reply::Done { text: heapless::String::new() });
    let mut text = run(World::new(two()), "quit --wait");
    text += &run_in(World::new(two()), "quit --wait --timeout 200ms", move |_, _| done());
    text += &run_in(World::new(two()), "quit", |_, _| Answer::Close);
    golden("quit.txt", &text);
}

#[test]
fn usage_errors_ask_the_daemon_for_nothing() {
    let mut text = String::new();
    for line in [
        "",
        "statsu",
        "inject pump kill",
        "start",
        "reload now",
        "check",
        "stop pump --jsom",
        "stop pump --json",
        "status -x",
        "status --json=yes",
        "signal pump SIGTREM",
        "signal pump 0",
        "start pump --timeout 10",
        "start pump --timeout",
        "reboot --in soon",
        "reboot --in 5min --cancel",
        "completion csh",
        "log pump -n many",
        "log pump --since yesterday",
        "log pump --sync",
        "log -x",
        "events -f",
    ] {
        text += &run(World::new(two()), line);
    }
    golden("usage.txt", &text);
}

#[test]
fn help_and_what_needs_no_daemon() {
    let mut lines = vec!["--help".to_string(), "-h".to_string(), "help".to_string(), "version".to_string()];
    lines.extend(["--version".to_string(), "start --help".to_string()]);
    lines.extend(multusd::ctl::table::shown().map(|command| format!("help {}", command.name)));
    let text: String = lines.iter().map(|line| run(World::new(two()), line)).collect();
    assert!(text.lines().all(|line| line.len() < 80), "help is for 80 columns");
    golden("help.txt", &text);
}

/// The name the binary is called by chooses the applet.
#[test]
fn a_link_called_multusctl_is_multusctl() {
    let dir = fake::new_dir();
    let link = dir.join("multusctl");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_multusd"), &link).unwrap();
    let ended = Command::new(&link).arg("version").output().unwrap();
    assert_eq!(
        String::from_utf8(ended.stdout).unwrap(),
        concat!("multusctl ", env!("CARGO_PKG_VERSION"), "\n")
    );
    std::fs::remove_dir_all(&dir).unwrap();
}

/// Reads a table from a watch: until the line that says what the lamp does.
fn lamp_line(lines: &mut impl BufRead) -> String {
    loop {
        let mut line = String::new();
        assert!(lines.read_line(&mut line).unwrap() > 0, "the watch has ended");
        if line.starts_with("lamp") {
            return line;
        }
    }
}

#[test]
fn watch_shows_every_change_and_ends_cleanly() {
    let world = World::moving(two(), &[to("lamp", State::Stopping, 50)]);
    // The table is read once, then an order of somebody else arrives.
    let mut reads = 0;
    let fake = Fake::start(
        world,
        Box::new(move |request, world| {
            reads += usize::from(matches!(request, Request::Status { .. }));
            if reads == 1 {
                world.order_from_elsewhere();
            }
            Answer::Usual
        }),
    );
    let mut child = multusctl(&fake.run_dir, "status --watch").stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    assert!(lamp_line(&mut lines).contains("running"));
    assert!(lamp_line(&mut lines).contains("stopping"));
    kill(Pid::from_raw(child.id() as i32), Signal::SIGINT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let mut rest = String::new();
    lines.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "");
}

/// A reader that goes away ends the command, without a word.
#[test]
fn a_closed_pipe_is_no_error_message() {
    let fake = Fake::start(hall(), Box::new(|_, _| Answer::Usual));
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let ended = multusctl(&fake.run_dir, "status").stdout(writer).output().unwrap();
    assert_eq!(String::from_utf8(ended.stderr).unwrap(), "");
}
