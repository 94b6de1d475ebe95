//! Supervisors that are killed, or hang, or die together with their guard: programs do not notice.
//!
//! Every program here keeps a diary: `start` when it begins, `end` just before it ends by itself
//! or by an order, `double` where another process of it still holds its lock. What must hold is
//! read from the diaries, not from what multusd says. `MULTUSD_KILLS` raises the number of kills.

mod harness;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use harness::{Instance, PATIENCE, Random, await_condition, is_alive, script, signal, supervisor_of, wait};

/// A program's script: takes the lock that its processes share, writes the diary, then `body`.
/// The lock is inherited by everything it starts: it is free when the whole tree is gone.
fn diary(dir: &Path, name: &str, body: &str) -> String {
    let home = dir.display();
    script(
        dir,
        name,
        &format!(
            "exec 9>>{home}/{name}.lock\nflock -n 9 || echo double >>{home}/{name}.diary\n\
             begin() {{ echo start $$ >>{home}/{name}.diary; }}\n\
             finish() {{ echo end $$ >>{home}/{name}.diary; }}\n{body}"
        ),
    )
}

fn entries(dir: &Path, name: &str) -> Vec<String> {
    let text = fs::read_to_string(dir.join(format!("{name}.diary"))).unwrap_or_default();
    text.lines().map(|line| line.split(' ').next().unwrap_or("").to_owned()).collect()
}

const NOTIFY: &str = "perl -MSocket -e 'socket(S,AF_UNIX,SOCK_DGRAM,0)||die;\
                      send(S,\"READY=1\",0,sockaddr_un($ENV{NOTIFY_SOCKET}))||die'";
const FOREVER: &str = "sleep 100000";
/// The key of a program that is to fail often: no long pauses.
const EAGER: &str = "startsecs = 0\nrestart_delay = 5ms\nrestart_delay_max = 20ms\n";

/// Sixteen programs of all kinds: (name, script after the diary's beginning, keys).
fn zoo(dir: &Path) -> Vec<(&'static str, String, String)> {
    let home = dir.display();
    let eager = EAGER.to_owned();
    let plain = "startsecs = 0\n".to_owned();
    let forever = format!("begin; exec {FOREVER}");
    let now_and_then = |signal: &str| format!("begin; sleep 0.1; finish; {signal}");
    let daemon = format!(
        "(exec setsid sh -c 'echo start $$ >>{home}/forking.diary; echo $$ >{home}/forking.pid; sleep 0.3; \
         echo end $$ >>{home}/forking.diary; exit 3') </dev/null >/dev/null 2>&1 &\n\
         while ! [ -s {home}/forking.pid ]; do sleep 0.01; done; exit 0"
    );
    let obedient = "trap 'finish; exit 0' TERM; begin; while :; do sleep 100000 & wait $!; done";
    let hooks = format!(
        "{eager}on_start = {}\non_failure = {}\n",
        script(dir, "hook-start", &format!("rm -f {home}/nothing; exit 0")),
        script(dir, "hook-failure", "sleep 0.01"),
    );
    let stopper = script(dir, "stopper", &format!("kill -TERM $(cat {home}/commanded.pid)"));
    vec![
        ("steady-1", forever.clone(), plain.clone()),
        ("steady-2", forever.clone(), "ready = uptime\nstartsecs = 1\n".into()),
        ("bare", format!("begin; exec env -i {FOREVER}"), plain.clone()),
        ("needy", forever.clone(), format!("{plain}requires = steady-1\nafter = steady-2\n")),
        ("crashing", now_and_then("exit 1"), eager.clone()),
        ("killed", now_and_then("kill -9 $$"), eager.clone()),
        ("at-once", "begin; finish; exit 0".into(), eager.clone()),
        (
            "notifying",
            format!("begin; {NOTIFY}; sleep 0.2; finish; exit 1"),
            format!("{eager}type = notify\n"),
        ),
        ("notified", format!("begin; {NOTIFY}; exec {FOREVER}"), "type = notify\n".into()),
        ("reporting", "begin; echo >&3; sleep 0.2; finish; exit 2".into(), format!("{eager}ready = fd:3\n")),
        ("forking", daemon, format!("{eager}type = forking\npidfile = {home}/forking.pid\n")),
        ("once", "begin; sleep 0.1; finish; exit 0".into(), "type = oneshot\n".into()),
        ("hooked", now_and_then("exit 4"), hooks),
        ("ordered", obedient.into(), plain.clone()),
        (
            "commanded",
            format!("echo $$ >{home}/commanded.pid; {obedient}"),
            format!("{plain}stop_command = {stopper}\n"),
        ),
        (
            "chatty",
            "begin; while :; do echo 0123456789012345678901234567890123456789; sleep 0.01; done".into(),
            plain,
        ),
    ]
}

/// Those that never end by themselves.
const STEADY: [&str; 6] = ["steady-1", "steady-2", "bare", "needy", "notified", "chatty"];

fn sections(dir: &Path) -> String {
    let section = |(name, body, keys): (&str, String, String)| {
        format!("[program:{name}]\ncommand = {}\n{keys}\n", diary(dir, name, &body))
    };
    zoo(dir).into_iter().map(section).collect()
}

fn start(test: &str, daemon_keys: &str) -> Instance {
    let mut instance = Instance::prepare(test, daemon_keys, "");
    instance.write_config_with(daemon_keys, &sections(&instance.dir));
    instance.launch();
    for name in STEADY {
        instance.await_state(name, "running");
    }
    instance.await_state("once", "exited");
    instance
}

fn present_supervisor(instance: &Instance) -> u32 {
    let deadline = Instant::now() + PATIENCE;
    loop {
        // Without a pause: the first moments are the interesting ones.
        match supervisor_of(instance.guard_pid()) {
            0 => assert!(Instant::now() < deadline, "no supervisor: {}", instance.log()),
            supervisor => return supervisor,
        }
    }
}

fn steady_pids(instance: &Instance) -> BTreeMap<&'static str, u32> {
    STEADY.into_iter().map(|name| (name, instance.pid(name))).collect()
}

/// What the diaries must say, now that everything is stopped or still runs.
fn judge(instance: &Instance) {
    for (name, ..) in zoo(&instance.dir) {
        let said = entries(&instance.dir, name);
        let text = said.join(" ");
        assert!(!said.iter().any(|word| word == "double"), "two processes for {name}: {text}");
        for pair in said.windows(2) {
            assert_ne!(pair[0], pair[1], "{name}: {text}");
        }
        assert_eq!(said.first().map(String::as_str), Some("start"), "{name}: {text}");
        if STEADY.contains(&name) {
            assert_eq!(said.len(), 1, "{name} was restarted: {text}");
        }
        if name == "once" {
            assert_eq!(said, ["start", "end"]);
        }
    }
}

/// Descriptors that the guard holds, which are those it shares with the supervisor.
fn descriptors(guard: u32) -> usize {
    fs::read_dir(format!("/proc/{guard}/fd")).map_or(0, Iterator::count)
}

fn kills() -> u32 {
    std::env::var("MULTUSD_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(100)
}

/// Something for the supervisor to be in the middle of.
fn stir(instance: &Instance, random: &mut Random, round: u32) {
    match random.below(6) {
        0 => signal(instance.guard_pid(), libc::SIGHUP),
        1 => instance.ctl_begin(&["restart", "ordered"]),
        2 => instance.ctl_begin(&["restart", "commanded"]),
        3 => {
            // Changes nothing that any program is made from.
            let text = fs::read_to_string(instance.config_path()).unwrap();
            let at = text.find("[program:hooked]").unwrap();
            let (before, after) = text.split_at(at);
            let after = after.lines().filter(|line| !line.starts_with("stopwaitsecs")).collect::<Vec<_>>();
            let after = after.join("\n").replacen('\n', &format!("\nstopwaitsecs = {}\n", 5 + round % 7), 1);
            fs::write(instance.dir.join("new"), format!("{before}{after}\n")).unwrap();
            fs::rename(instance.dir.join("new"), instance.config_path()).unwrap();
            signal(instance.guard_pid(), libc::SIGHUP);
        }
        // Programs end all the time, and some kills are to come just as that happens.
        _ => {}
    }
}

fn kill_many_times(test: &str, daemon_keys: &str, seed: u64) {
    let mut instance = start(test, daemon_keys);
    let guard = instance.guard_pid();
    let (before, pids) = (descriptors(guard), steady_pids(&instance));
    let mut random = Random(seed);
    for round in 0..kills() {
        let supervisor = present_supervisor(&instance);
        // Three in a row at any moment of their take-over, then one that has settled: a guard
        // whose supervisors all die young makes pauses.
        if round % 4 == 0 {
            wait(Duration::from_millis(210));
            stir(&instance, &mut random, round);
        }
        let micros = 1 << random.below(13);
        wait(Duration::from_micros(random.below(micros) + 1));
        signal(supervisor, libc::SIGKILL);
        instance.await_that("its end", || supervisor_of(guard) != supervisor);
    }
    instance.await_that("multusd answers", || instance.ctl(&["status"]).status.success());
    let status = instance.status();
    assert_eq!(status.guard_pid, guard);
    assert!(status.supervisor_restarts >= kills(), "{status:?}");
    assert_eq!(steady_pids(&instance), pids);
    // No lost exit: everyone who ends is started again, still.
    for name in ["crashing", "killed", "at-once", "notifying", "reporting", "forking", "hooked"] {
        let count = entries(&instance.dir, name).len();
        let goes_on = || entries(&instance.dir, name).len() >= count + 4;
        instance.await_that(&format!("{name} goes on: {count}"), goes_on);
    }
    for name in ["ordered", "commanded"] {
        let count = entries(&instance.dir, name).len();
        instance.ctl_ok(&["restart", "--wait", name]);
        // It counts as running a moment before it writes.
        let is_again = || entries(&instance.dir, name).len() >= count + 2;
        instance.await_that(&format!("{name} is up again"), is_again);
    }
    // Processes that end just now have one descriptor more or less.
    for name in ["crashing", "killed", "at-once", "notifying", "reporting", "forking", "hooked"] {
        instance.ctl_ok(&["stop", "--wait", name]);
    }
    // The last client's connection may be there a moment longer than its process.
    instance.await_that(&format!("no more than the {before} descriptors of the start"), || {
        descriptors(guard) <= before
    });
    judge(&instance);
    assert_eq!(instance.quit(), 0);
    assert!(pids.values().all(|pid| !is_alive(*pid)));
}

#[test]
fn a_supervisor_killed_at_random_moments_harms_no_program() {
    kill_many_times("kill-cgroup", "", 1);
}

#[test]
fn a_supervisor_killed_at_random_moments_harms_no_program_without_control_groups() {
    kill_many_times("kill-plain", "cgroup = off\n", 2);
}

#[test]
fn a_supervisor_that_hangs_is_replaced_and_nobody_else_is_harmed() {
    let instance = start("hang", "");
    let (guard, pids) = (instance.guard_pid(), steady_pids(&instance));
    let supervisor = present_supervisor(&instance);
    let count = entries(&instance.dir, "crashing").len();
    let began = Instant::now();
    signal(supervisor, libc::SIGSTOP);
    instance.await_that("another supervisor", || ![0, supervisor].contains(&supervisor_of(guard)));
    let silence = Duration::from_millis(multusd::limits::SUPERVISOR_SILENCE_MS_MAX);
    assert!(began.elapsed() >= silence - Duration::from_secs(1) && began.elapsed() < PATIENCE);
    instance.await_that("crashing goes on", || entries(&instance.dir, "crashing").len() > count + 4);
    assert_eq!(steady_pids(&instance), pids);
    judge(&instance);
}

/// Each process names itself in a file; the next one notes whether that one lives still: has memory. (On a busy machine
/// one may have left its control group, closed everything, and not be a zombie yet.)
fn end_both_and_start_again(test: &str, daemon_keys: &str) {
    let mut instance = Instance::prepare(test, daemon_keys, "");
    let dir = instance.dir.clone();
    let witness = |name: &str, rest: &str| {
        let home = dir.display();
        let text = format!(
            "for former in {home}/*.pid; do [ -e \"$former\" ] && grep -qs ^VmSize: /proc/$(cat \"$former\")/status && \
             [ $(cat \"$former.life\") != $(cat {home}/life) ] && echo \"$former\" lives >>{home}/violations; done\n\
             cat {home}/life >{home}/{name}.pid.life; echo $$ >{home}/{name}.pid.new; \
             mv {home}/{name}.pid.new {home}/{name}.pid\n{rest}"
        );
        format!("[program:{name}]\ncommand = {}\nstartsecs = 0\n", script(&dir, name, &text))
    };
    let names = ["plain", "bare", "deaf", "parent"];
    let text = witness("plain", "exec sleep 100000")
        + &witness("bare", "exec env -i sleep 100000")
        + &witness("deaf", "trap '' TERM; while :; do sleep 100000; done")
        + &witness("parent", &format!("setsid sleep 100001 & echo $! >{}/child.pid.x\nwait", dir.display()));
    instance.write_config_with(daemon_keys, &text);
    let mut former = Vec::new();
    for life in 0..5 {
        fs::write(dir.join("life"), life.to_string()).unwrap();
        instance.launch();
        let number = |name: &str| fs::read_to_string(dir.join(name)).unwrap_or_default().trim().parse().ok();
        let fresh = |name: &str| {
            let file = format!("{name}.pid");
            number(&format!("{file}.life")) == Some(life) && number(&file).is_some_and(is_alive)
        };
        instance.await_that("all are up", || names.iter().all(|name| fresh(name)));
        assert!(!former.iter().any(|pid| is_alive(*pid)), "{former:?}");
        instance.await_that("the child is up", || number("child.pid.x").is_some_and(is_alive));
        former = names.iter().filter_map(|name| number(&format!("{name}.pid"))).collect();
        former.extend(number("child.pid.x"));
        instance.kill_both();
        if life == 0 {
            assert!(former.iter().any(|pid| is_alive(*pid)), "nothing to end: this test tests nothing");
        }
    }
    assert_eq!(fs::read_to_string(dir.join("violations")).unwrap_or_default(), "");
    // One life more ends in order, and then nothing is left of any.
    instance.launch();
    assert_eq!(instance.quit(), 0);
    assert!(await_condition(|| !former.iter().any(|pid| is_alive(*pid))));
}

#[test]
fn an_earlier_life_is_gone_before_anything_starts() {
    end_both_and_start_again("lives-cgroup", "");
}

#[test]
fn an_earlier_life_is_gone_before_anything_starts_without_control_groups() {
    end_both_and_start_again("lives-plain", "cgroup = off\n");
}

#[test]
fn a_supervisor_killed_while_it_begins_leaves_the_beginning_to_the_next() {
    let mut random = Random(3);
    let mut begun = 0;
    for _ in 0..20 {
        let mut instance =
            Instance::prepare("begin", "", "[program:a]\ncommand = sleep 100000\nstartsecs = 0\n");
        instance.launch_only();
        let supervisor = present_supervisor(&instance);
        wait(Duration::from_micros(random.below(6_000)));
        begun += u32::from(!instance.run_dir().join("control").exists());
        signal(supervisor, libc::SIGKILL);
        instance.await_that("multusd answers", || instance.ctl(&["status"]).status.success());
        instance.await_state("a", "running");
        assert_eq!(instance.quit(), 0);
    }
    assert!(begun > 2, "too late {begun} times of 20: this test tests nothing");
}

#[test]
fn with_its_executable_destroyed_everything_of_multusd_is_still_replaced() {
    let config =
        "[program:a]\ncommand = sleep 1000\nstartsecs = 0\ncheck = tcp:127.0.0.1:1\ncheck_interval = 1h\n";
    let mut instance = Instance::scripted_only("image", "", &[], config);
    let copy = instance.public_binary();
    instance.launch_as(|command| {
        let log = std::fs::File::create(instance_log(&copy)).unwrap();
        let arguments: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
        *command = std::process::Command::new(&copy);
        command
            .args(arguments)
            .stdin(std::process::Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
    });
    let first = instance.await_state("a", "running").pid;
    let log = instance.await_state("log", "running").pid.unwrap();
    // Damaged where it lies, as on a worn-out card; what runs from there would die of it.
    std::fs::OpenOptions::new().write(true).truncate(true).open(&copy).expect("nobody runs from it");
    harness::signal(log, libc::SIGKILL);
    instance.await_program("log", "another", |log_now| {
        log_now.state == "running" && log_now.pid.is_some_and(|pid| pid != log)
    });
    for _ in 0..3 {
        let supervisor = harness::supervisor_of(instance.guard_pid());
        harness::signal(supervisor, libc::SIGKILL);
        instance.await_that("another supervisor", || {
            instance.ctl(&["status"]).status.success() && instance.status().supervisor_pid != supervisor
        });
    }
    assert_eq!(instance.program("a").pid, first);
    instance.quit_clean();
}

/// Where the words of a multusd go that is started from a copy of its executable.
fn instance_log(copy: &std::path::Path) -> std::path::PathBuf {
    copy.with_file_name("multusd.log")
}
