//! Heartbeats of every kind with real processes: kept alive by beats, found hung by silence, never before the
//! deadline; what a former process, a stranger or a late supervisor does changes nothing. sd_notify as far
//! as it is more than a heartbeat is in `tests/notify.rs`.
//!
//! The programs are this binary again, called for its test `beater` with `MODE` in its environment.

mod harness;

use std::fs;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use harness::real::both_ways;
use harness::{Instance, await_condition, is_alive, signal, supervisor_of, wait};
use multusd::client::Multusd;
use multusd::sys::clock;

/// What a beater is to do; unset: this is a test.
const MODE: &str = "BEATER_MODE";
/// Where a beater notes its last beat: CLOCK_MONOTONIC nanoseconds just before it, and how many there were.
const NOTE: &str = "BEATER_NOTE";

/// The kinds, each with the keys that ask for it; `%D` is the instance's directory.
const KINDS: [(&str, &str); 5] = [
    ("notify", "heartbeat_kind = notify"),
    ("fd", "heartbeat_kind = fd"),
    ("counter", "heartbeat_kind = counter"),
    ("file", "heartbeat_file = %D/beat-file"),
    ("tcp", "heartbeat_port = %P"),
];

/// Far above what a busy machine delays a beat by, far below what a test can wait for.
const LIMIT_MS: u64 = 600;
const PACE_MS: i32 = 20;

/// Lets others run: there are many beaters at once.
fn rest(milliseconds: i32) {
    // SAFETY: no descriptors.
    unsafe { libc::poll(std::ptr::null_mut(), 0, milliseconds) };
}

/// Not a test: a program that beats.
#[test]
fn beater() {
    let Ok(mode) = std::env::var(MODE) else { return };
    let note =
        fs::OpenOptions::new().create(true).truncate(false).write(true).open(std::env::var(NOTE).unwrap());
    let note = note.unwrap();
    let mut multusd = Multusd::from_environment().unwrap();
    assert_eq!(multusd.limit().map(|limit| limit.0), Some(LIMIT_MS));
    // The second process of a silent one never beats.
    let first = PathBuf::from(std::env::var(NOTE).unwrap() + ".begun");
    let is_first = !first.exists();
    fs::write(&first, "").unwrap();
    multusd.ready().unwrap();
    let mut count = 0_u64;
    loop {
        if mode != "silent-later" || is_first {
            note.write_all_at(&clock::now().0.to_ne_bytes(), 0).unwrap();
            multusd.beat().unwrap();
            count += 1;
            note.write_all_at(&count.to_ne_bytes(), 8).unwrap();
        }
        if mode != "silent-later" {
            rest(PACE_MS);
        } else if !is_first || count > 3000 {
            rest(1000);
        }
    }
}

struct Beaters {
    instance: Instance,
}

/// A port that nobody has just now.
fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn section(name: &str, keys: &str, dir: &Path, mode: &str) -> String {
    let own = std::env::current_exe().unwrap();
    let keys = keys.replace("%D", &dir.display().to_string()).replace("%P", &free_port().to_string());
    format!(
        "[program:{name}]\ncommand = {} --exact beater --nocapture --test-threads=1\nready = notify\n{keys}\nheartbeat = {LIMIT_MS}ms\n\
         environment = {MODE}={mode},{NOTE}={}/note-{name}\nrestart_delay = 10ms\n",
        own.display(),
        dir.display()
    )
}

impl Beaters {
    fn start(test: &str, daemon_keys: &str, mode: &str) -> Beaters {
        let mut instance = Instance::prepare(test, daemon_keys, "");
        let sections: String =
            KINDS.iter().map(|(name, keys)| section(name, keys, &instance.dir, mode)).collect();
        instance.write_config_with(daemon_keys, &sections);
        instance.launch();
        Beaters { instance }
    }

    /// When it beat last, and how often it has.
    fn note(&self, name: &str) -> (u64, u64) {
        let bytes = fs::read(self.instance.dir.join(format!("note-{name}"))).unwrap_or_default();
        let word =
            |at: usize| bytes.get(at..at + 8).map_or(0, |word| u64::from_ne_bytes(word.try_into().unwrap()));
        (word(0), word(8))
    }

    fn await_beats(&self, name: &str, count: u64) {
        self.instance.await_that(&format!("{count} beats of {name}"), || self.note(name).1 >= count);
    }

    fn await_all_running(&self) {
        for (name, _) in KINDS {
            self.instance.await_state(name, "running");
        }
    }

    fn pids(&self) -> Vec<u32> {
        KINDS.iter().map(|(name, _)| self.instance.pid(name)).collect()
    }

    /// Nobody's process is another than before, and nobody has failed.
    fn nobody_was_killed(&self, before: &[u32]) {
        for ((name, _), pid) in KINDS.iter().zip(before) {
            let program = self.instance.program(name);
            assert_eq!(
                (program.pid, program.failures),
                (Some(*pid), 0),
                "{program:?}\n{}",
                self.instance.log()
            );
        }
    }

    /// Stops it in its tracks; it is found hung, not before its deadline.
    fn is_found_hung(&self, name: &str) {
        let pid = self.instance.pid(name);
        signal(pid, libc::SIGSTOP);
        assert!(await_condition(|| !is_alive(pid)), "{name} lives\n{}", self.instance.log());
        let silence = (clock::now().0 - self.note(name).0) / 1_000_000;
        assert!(silence >= LIMIT_MS, "{name} was killed after {silence} ms");
        let again = self
            .instance
            .await_program(name, "in another process", |program| program.pid.is_some_and(|now| now != pid));
        assert!(again.failures > 0 || again.restarts > 0, "{again:?}");
    }
}

#[test]
fn who_beats_lives_and_who_is_silent_is_found_hung_never_before_its_deadline() {
    for (way, keys) in both_ways() {
        let beaters = Beaters::start(&format!("beats-{way}"), keys, "beat");
        beaters.await_all_running();
        let before = beaters.pids();
        // Some three heartbeat times.
        for (name, _) in KINDS {
            beaters.await_beats(name, beaters.note(name).1 + 60);
        }
        beaters.nobody_was_killed(&before);
        for (name, _) in KINDS {
            beaters.is_found_hung(name);
        }
        beaters.await_all_running();
    }
}

#[test]
fn the_reason_of_a_hang_is_shown_and_so_is_the_age_of_the_last_beat() {
    let beaters = Beaters::start("beats-shown", "", "beat");
    beaters.await_all_running();
    for (name, _) in KINDS {
        let json = beaters.instance.ctl_ok(&["status", "--json", name]);
        assert!(json.replace(' ', "").contains("\"limit_ms\":600"), "{json}");
    }
    signal(beaters.instance.pid("fd"), libc::SIGSTOP);
    beaters.instance.await_program("fd", "hung", |program| {
        program.reason.as_deref() == Some("hung: no heartbeat in time")
    });
}

#[test]
fn beats_of_a_former_process_do_not_count() {
    let beaters = Beaters::start("beats-stale", "", "silent-later");
    let supervisor = supervisor_of(beaters.instance.guard_pid());
    for (name, _) in KINDS {
        beaters.await_beats(name, 1);
    }
    let first = beaters.pids();
    signal(supervisor, libc::SIGSTOP);
    // Nobody reads now: what they beat lies in queues when they die.
    wait(Duration::from_millis(100));
    for pid in &first {
        signal(*pid, libc::SIGKILL);
    }
    signal(supervisor, libc::SIGCONT);
    for ((name, _), pid) in KINDS.iter().zip(first) {
        let second = beaters.instance.await_program(name, "its second process runs", |program| {
            program.pid.is_some_and(|now| now != pid)
        });
        // Were it not for stale beats it could not live for longer than its start and its heartbeat.
        beaters.instance.await_program(name, "the second is found hung", |program| {
            program.restarts > second.restarts && program.reason.as_deref() != Some("killed by SIGKILL")
                || program.reason.as_deref() == Some("hung: no heartbeat in time")
        });
    }
}

#[test]
fn a_supervisor_that_was_stopped_for_five_seconds_kills_nobody() {
    let beaters = Beaters::start("beats-late", "", "beat");
    beaters.await_all_running();
    let before = beaters.pids();
    let supervisor = supervisor_of(beaters.instance.guard_pid());
    signal(supervisor, libc::SIGSTOP);
    wait(Duration::from_secs(5));
    signal(supervisor, libc::SIGCONT);
    for (name, _) in KINDS {
        beaters.await_beats(name, beaters.note(name).1 + 30);
    }
    beaters.nobody_was_killed(&before);
}

#[test]
fn a_supervisor_that_was_stopped_for_longer_than_a_heartbeat_hears_who_beat_meanwhile() {
    let beaters = Beaters::start("beats-stopped", "", "beat");
    beaters.await_all_running();
    let before = beaters.pids();
    let supervisor = supervisor_of(beaters.instance.guard_pid());
    for _ in 0..3 {
        signal(supervisor, libc::SIGSTOP);
        wait(Duration::from_millis(2 * LIMIT_MS));
        signal(supervisor, libc::SIGCONT);
        for (name, _) in KINDS {
            beaters.await_beats(name, beaters.note(name).1 + 5);
        }
        beaters.nobody_was_killed(&before);
    }
    // By itself, not by a successor for whom everything begins anew.
    assert_eq!(supervisor_of(beaters.instance.guard_pid()), supervisor);
}

#[test]
fn a_successor_goes_on_listening_where_the_supervisor_was_killed() {
    let beaters = Beaters::start("beats-successor", "", "beat");
    beaters.await_all_running();
    let before = beaters.pids();
    let supervisor = supervisor_of(beaters.instance.guard_pid());
    signal(supervisor, libc::SIGKILL);
    beaters.instance.await_that("a successor answers", || {
        let now = supervisor_of(beaters.instance.guard_pid());
        now != 0 && now != supervisor && beaters.instance.ctl(&["status"]).status.success()
    });
    for (name, _) in KINDS {
        beaters.await_beats(name, beaters.note(name).1 + 60);
    }
    beaters.nobody_was_killed(&before);
    for (name, _) in KINDS {
        beaters.is_found_hung(name);
    }
}

#[test]
fn a_file_beats_by_every_change_whatever_date_it_has() {
    // The wall clock is the file's only: whoever went by it would see it stand still, or run backwards.
    let text = "for year in 1971 2040 1980 1999 2030; do\n touch -d $year-01-01 \"$1\"; sleep 0.05\ndone";
    let script = format!("while :; do\n{text}\nmv \"$1\" \"$1.old\"; mv \"$1.old\" \"$1\"; sleep 0.05\ndone");
    let config = "[program:dated]\ncommand = %(here)s/dated %(here)s/the-file\nheartbeat = 1s\n\
                  heartbeat_file = %(here)s/the-file\nstartsecs = 100ms\n";
    let instance = Instance::scripted("beats-dated", "", &[("dated", &script)], config);
    let before = instance.await_state("dated", "running").pid;
    let noise = instance.dir.join("the-file-of-another");
    for _ in 0..40 {
        fs::File::create(&noise).unwrap().write_all(b"x").unwrap();
        wait(Duration::from_millis(100));
    }
    let program = instance.program("dated");
    assert_eq!((program.pid, program.failures), (before, 0), "{program:?}");
    // What happens to other files in its directory is no beat.
    signal(before.unwrap(), libc::SIGSTOP);
    let killed = await_condition(|| {
        fs::File::create(&noise).unwrap().write_all(b"x").unwrap();
        !is_alive(before.unwrap())
    });
    assert!(killed);
}

/// The client that the original's processes have, as its description has it: a TCP client to `localhost`, one byte
/// a message, from 1 to 9 and again from 1, every fifth of the longest silence; no connection, no life.
const ORIGINAL: &str = "\
import os, socket, sys, time
port, max_age, what = int(sys.argv[1]), float(sys.argv[2]), sys.argv[3]
link = socket.create_connection(('localhost', port))
counter = sent = 0
while True:
    counter, sent = 1 if counter == 9 else counter + 1, sent + 1
    if what == 'miscount' and sent > 1 and os.path.exists(sys.argv[4]):
        os.unlink(sys.argv[4])
        counter = counter % 9 + 1
    link.send(bytes([counter]))
    time.sleep(max_age / 5)
";

fn original(test: &str, daemon_keys: &str, limit: &str, what: &str) -> (Instance, u16) {
    let port = free_port();
    let mut instance = Instance::prepare(test, daemon_keys, "");
    fs::write(instance.dir.join("original.py"), ORIGINAL).unwrap();
    let here = instance.dir.display();
    let section = format!(
        "[program:original]\ncommand = python3 {here}/original.py {port} 1.0 {what} {here}/now\nstartsecs = 3s\n\
         heartbeat = {limit}\nheartbeat_port = {port}\nrestart_delay = 10ms\n"
    );
    instance.write_config_with(daemon_keys, &section);
    instance.launch();
    (instance, port)
}

#[test]
fn the_originals_protocol_is_kept_alive_and_its_hang_is_found() {
    for (way, keys) in both_ways() {
        let (instance, _) = original(&format!("beats-original-{way}"), keys, "1s", "count");
        let pid = instance.await_state("original", "running").pid.unwrap();
        // More than three rounds of the counter.
        wait(Duration::from_millis(6000));
        assert_eq!(instance.pid("original"), pid, "{}", instance.log());
        let begun = clock::now();
        signal(pid, libc::SIGSTOP);
        assert!(await_condition(|| !is_alive(pid)));
        // The last byte was at most a fifth of the limit before.
        assert!(clock::now().0 - begun.0 >= 790_000_000);
        instance.await_state("original", "running");
    }
}

#[test]
fn a_wrong_byte_is_a_hang_at_once() {
    let (instance, _) = original("beats-miscount", "", "60s", "miscount");
    let pid = instance.await_state("original", "running").pid.unwrap();
    fs::write(instance.dir.join("now"), "").unwrap();
    assert!(await_condition(|| !is_alive(pid)));
    instance.await_program("original", "hung", |program| {
        program.reason.as_deref().is_some_and(|reason| reason.starts_with("hung"))
    });
}

#[test]
fn a_stranger_on_the_port_neither_beats_nor_harms() {
    for (way, keys) in both_ways() {
        let (instance, port) = original(&format!("beats-port-{way}"), keys, "1s", "count");
        let pid = instance.await_state("original", "running").pid.unwrap();
        // It counts as the program would, in many connections; and wrongly.
        let connect = || std::net::TcpStream::connect(("127.0.0.1", port));
        for byte in [1, 200, 0] {
            let mut stranger = connect().unwrap();
            stranger.write_all(&[byte, byte]).unwrap();
            // Closed by us, unheard.
            stranger.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            let end = harness::uninterrupted(|| std::io::Read::read(&mut stranger, &mut [0]));
            assert!(
                matches!(end, Ok(0)) || end.is_err_and(|e| e.kind() == std::io::ErrorKind::ConnectionReset)
            );
        }
        wait(Duration::from_millis(1500));
        assert_eq!(instance.pid("original"), pid, "{}", instance.log());
        signal(pid, libc::SIGSTOP);
        let mut last = 0;
        let dead = await_condition(|| {
            if let Ok(mut stranger) = connect() {
                last = last % 9 + 1;
                let _ = stranger.write_all(&[last]);
            }
            !is_alive(pid)
        });
        assert!(dead, "kept alive by a stranger\n{}", instance.log());
    }
}
