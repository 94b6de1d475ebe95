//! What happens to lines while `log`, its storer, the supervisor or storage are killed, stopped or hang: every line is
//! in its file once and whole, or counted as dropped; and no program waits for its log for as long as it may be silent.
//!
//! The programs are this binary again, called for its test `writer` with `COUNT` in its environment.

mod harness;

use std::fs;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use harness::mounts::{Disk, in_own_mounts, memory_at, unmount};
use harness::real::need_root;
use harness::{Instance, Random, await_condition, is_alive, signal, supervisor_of, wait};
use multusd::client::Multusd;
use multusd::sys::log_ring::Ring;

/// Lines a writer writes; unset: this is a test.
const COUNT: &str = "WRITER_COUNT";
/// Where it notes how many lines it has written, and the milliseconds of its longest write.
const NOTE: &str = "WRITER_NOTE";

/// Far above what a busy machine delays a beat by.
const LIMIT_MS: u64 = 2000;

/// Lines of one stream that may be cut just before their end: one of some twenty cuts.
const CUTS_MAX: u64 = 5;

/// What a line says, so much of it.
const TEXT: &str = "abcdefghijklmnopqrstuvwxyz0123456789";

/// The number of a line that is whole.
fn number_of(line: &str) -> Option<u64> {
    let (number, text) = line.strip_prefix("line ")?.strip_suffix(';')?.split_once(' ')?;
    if TEXT.starts_with(text) { number.parse().ok() } else { None }
}

/// What was written of a line before the rest of it was dropped.
fn is_beginning(line: &str) -> bool {
    let Some(rest) = line.strip_prefix("line ") else { return "line ".starts_with(line) };
    let (number, text) = rest.split_once(' ').unwrap_or((rest, ""));
    (number.is_empty() || number.parse::<u64>().is_ok()) && TEXT.starts_with(text)
}

/// Not a test: a program that writes numbered lines as fast as it can, in pieces that end anywhere, and beats.
#[test]
fn writer() {
    let Some(count) = std::env::var(COUNT).ok().and_then(|count| count.parse::<u64>().ok()) else { return };
    let note = fs::File::create(std::env::var(NOTE).unwrap()).unwrap();
    let mut multusd = Multusd::from_environment().unwrap();
    multusd.ready().unwrap();
    let mut random = Random(u64::from(std::process::id()));
    // Descriptor 1 itself: what the test machinery prints to goes its own ways.
    let out = fs::OpenOptions::new().write(true).open("/proc/self/fd/1").unwrap();
    let (mut text, mut slowest, mut next) = (Vec::new(), 0, 0_u64);
    let mut put = |bytes: &[u8], written: u64| {
        let begun = Instant::now();
        (&out).write_all(bytes).unwrap();
        slowest = slowest.max(begun.elapsed().as_millis() as u64);
        let _ = multusd.beat();
        let mut words = written.to_ne_bytes().to_vec();
        words.extend(slowest.to_ne_bytes());
        note.write_all_at(&words, 0).unwrap();
    };
    while next < count {
        for _ in 0..1 + random.below(40) {
            if next < count {
                writeln!(text, "line {next} {};", &TEXT[..random.below(36) as usize]).unwrap();
                next += 1;
            }
        }
        let cut = text.len().saturating_sub(if next < count { random.below(20) as usize } else { 0 });
        put(&text[..cut], next);
        text.drain(..cut);
    }
    loop {
        put(&[], count);
        wait(Duration::from_millis(20));
    }
}

/// Writers, and how to look at what became of their lines.
struct Writers {
    instance: Instance,
    names: Vec<String>,
    logs: PathBuf,
    count: u64,
}

impl Writers {
    fn start(test: &str, log_keys: &str, writers: usize, count: u64) -> Writers {
        let instance = Instance::prepare(test, "", "");
        Writers::start_in(instance, [log_keys, "", ""], writers, count)
    }

    /// The same with keys of `[log]`, of every writer, and other sections.
    fn start_in(mut instance: Instance, texts: [&str; 3], writers: usize, count: u64) -> Writers {
        let [log_keys, keys, sections] = texts;
        let logs = instance.dir.join("logs");
        let names: Vec<String> = (0..writers).map(|number| format!("w{number}")).collect();
        let own = std::env::current_exe().unwrap();
        let dir = instance.dir.display();
        let mut text = format!("[log]\n{log_keys}\n{sections}\n");
        for name in &names {
            text += &format!(
                "[program:{name}]\ncommand = {} --exact writer --nocapture --test-threads=1\nready = notify\n\
                 heartbeat = {LIMIT_MS}ms\nheartbeat_kind = counter\nstart_timeout = 60s\n\
                 environment = {COUNT}=\"{count}\",{NOTE}=\"{dir}/{name}.note\"\n\
                 stdout_logfile = {}/{name}\nstdout_logfile_maxbytes = 0\nlog_stamp = none\n\
                 stderr_logfile = {dir}/{name}.err\n{keys}\n",
                own.display(),
                logs.display()
            );
        }
        instance.write_config(&text);
        instance.launch();
        Writers { instance, names, logs, count }
    }

    /// Lines that it has written, and its longest write.
    fn note(&self, name: &str) -> (u64, u64) {
        let bytes = fs::read(self.instance.dir.join(format!("{name}.note"))).unwrap_or_default();
        let word =
            |at: usize| bytes.get(at..at + 8).map_or(0, |word| u64::from_ne_bytes(word.try_into().unwrap()));
        (word(0), word(8))
    }

    fn all_have_written(&self, lines: u64) -> bool {
        self.names.iter().all(|name| self.note(name).0 >= lines)
    }

    fn ring(&self) -> Ring {
        let directory = format!("/proc/{}/fd", self.instance.guard_pid());
        let found = fs::read_dir(directory).unwrap().flatten().map(|entry| entry.path()).find(|path| {
            fs::read_link(path).is_ok_and(|target| target.to_string_lossy().contains("memfd:multusd-log "))
        });
        let file = fs::File::open(found.expect("a ring")).unwrap();
        Ring::map(file.as_fd(), false).unwrap()
    }

    /// Lines of its standard output that are counted as dropped, by whoever did it.
    fn dropped(&self, ring: &Ring, name: &str) -> u64 {
        self.dropped_by(ring, name).iter().sum()
    }

    fn dropped_by(&self, ring: &Ring, name: &str) -> [u64; 3] {
        let status = self.instance.status();
        // The table's order is that of the status.
        let place = status.programs.iter().position(|program| program.name == name).unwrap();
        let words = ring.stream(2 * place);
        [&words.dropped_lines, &words.ring_dropped_lines, &words.lost_lines].map(|word| word.load(SeqCst))
    }

    /// The numbers of the lines in its file; every line is whole, none is there twice, in order.
    fn numbers(&self, name: &str) -> Vec<u64> {
        let text = fs::read_to_string(self.logs.join(name)).unwrap_or_default();
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        let mut numbers: Vec<u64> = Vec::new();
        // What goes on behind what was said within a line, put together again.
        let (mut lines, mut begun) = (Vec::new(), String::new());
        for line in whole.lines() {
            match line.strip_suffix(" -- goes on") {
                Some(beginning) => begun += beginning,
                None if begun.is_empty() || line.starts_with("-- ") => lines.push(line.to_owned()),
                None => lines.push(std::mem::take(&mut begun) + line),
            }
        }
        // The test machinery's own first words.
        for line in lines.iter().filter(|line| !line.is_empty() && !line.starts_with("running 1 test")) {
            // The test machinery announces the test without an end of line.
            let line = line.strip_prefix("test writer ... ").unwrap_or(line);
            if let Some(number) = number_of(line) {
                assert!(
                    numbers.last().is_none_or(|last| *last < number),
                    "{name}: {line:?} after {:?}",
                    numbers.last()
                );
                numbers.push(number);
            } else {
                assert!(line.starts_with("-- ") || is_beginning(line), "{name}: no line of ours: {line:?}");
            }
        }
        numbers
    }

    /// Everybody is done: every line is present or counted as dropped, and nobody was restarted.
    fn check(&mut self) -> (u64, u64) {
        let ring = self.ring();
        self.instance.await_that("the writers are done", || self.all_have_written(self.count));
        let (mut present, mut dropped) = (0, 0);
        for name in &self.names {
            let (mut there, mut counted) = (0, [0; 3]);
            let is_complete = await_condition(|| {
                (there, counted) = (self.numbers(name).len() as u64, self.dropped_by(&ring, name));
                // None is missing and not counted. Two lines of the test machinery may be among those that were
                // dropped; and a line that was cut just before its end is there, and its end counted.
                (self.count..=self.count + 2 + CUTS_MAX).contains(&(there + counted.iter().sum::<u64>()))
            });
            assert!(
                is_complete,
                "{name}: of {} lines {there} are there, dropped by supervisor, ring, storer: {counted:?}\n{}",
                self.count,
                self.instance.log()
            );
            present += self.numbers(name).len() as u64;
            dropped += self.dropped(&ring, name);
            let program = self.instance.program(name);
            assert_eq!(
                (program.restarts, program.failures),
                (0, 0),
                "{name} was restarted\n{}",
                self.instance.log()
            );
            let slowest = self.note(name).1;
            assert!(slowest < LIMIT_MS, "{name} waited {slowest} ms in a write");
        }
        assert_eq!(self.instance.quit(), 0);
        (present, dropped)
    }

    /// The collector; 0: there is none now.
    fn log_pid(&self) -> u32 {
        let status = self.instance.status();
        status.programs.iter().find(|program| program.name == "log").and_then(|log| log.pid).unwrap_or(0)
    }
}

fn storer_of(collector: u32) -> u32 {
    let children =
        fs::read_to_string(format!("/proc/{collector}/task/{collector}/children")).unwrap_or_default();
    children.split_ascii_whitespace().find_map(|pid| pid.parse().ok()).unwrap_or(0)
}

/// Kills and stops at random until the writers are done; how often each.
fn disturb(writers: &Writers, kills_supervisor: bool) -> [u32; 4] {
    let mut random = Random(7);
    let mut counts = [0; 4];
    let deadline = Instant::now() + Duration::from_secs(90);
    while !writers.all_have_written(writers.count) && Instant::now() < deadline {
        wait(Duration::from_millis(random.below(60)));
        let log = writers.log_pid();
        if log == 0 {
            continue;
        }
        let what = counts.iter().sum::<u32>() as usize % if kills_supervisor { 4 } else { 3 };
        match what {
            0 => signal(log, libc::SIGKILL),
            1 => {
                signal(log, libc::SIGSTOP);
                wait(Duration::from_millis(random.below(900)));
                if is_alive(log) {
                    signal(log, libc::SIGCONT);
                }
            }
            2 => match storer_of(log) {
                0 => continue,
                storer => signal(storer, libc::SIGKILL),
            },
            _ => match supervisor_of(writers.instance.guard_pid()) {
                0 => continue,
                supervisor => signal(supervisor, libc::SIGKILL),
            },
        }
        counts[what] += 1;
    }
    counts
}

#[test]
fn every_line_of_32_programs_is_present_or_counted_while_log_is_killed_and_stopped() {
    let mut writers = Writers::start("logloss", "flush = 100ms", 32, 20_000);
    let counts = disturb(&writers, false);
    let (present, dropped) = writers.check();
    println!("{present} lines present, {dropped} dropped; killed, stopped, storer killed: {counts:?}");
    assert!(counts[..3].iter().all(|count| *count > 0), "{counts:?}");
    assert!(present > 0);
}

#[test]
fn the_same_while_the_supervisor_is_killed_too() {
    let mut writers = Writers::start("loglosssv", "flush = 100ms", 32, 20_000);
    let counts = disturb(&writers, true);
    let (present, dropped) = writers.check();
    println!(
        "{present} lines present, {dropped} dropped; killed, stopped, storer killed, supervisor: {counts:?}"
    );
    assert!(counts.iter().all(|count| *count > 0), "{counts:?}");
}

#[test]
fn lines_are_there_exactly_once_after_log_was_killed_20_times() {
    // Slow enough that the pipe holds what is said while nobody is there.
    let tick = "i=0\nwhile [ $i -lt 3000 ]; do i=$((i+1)); echo \"line $i\"; \
                [ $((i % 20)) = 0 ] && \"${0%/*}/sleeper\" 0.02; done\necho done > \"${0%/*}/talked\"\n\
                exec \"${0%/*}/sleeper\" 1000";
    let config = "[log]\nflush = 50ms\n[program:a]\ncommand = %(here)s/tick\nstartsecs = 0\n\
        stdout_logfile = %(here)s/logs/a\nlog_stamp = none\n";
    let mut instance = Instance::scripted("logkills", "", &[("tick", tick)], config);
    let mut killed = 0;
    let mut last = 0;
    instance.await_that("20 kills and the end", || {
        let log =
            instance.status().programs.iter().find(|program| program.name == "log").and_then(|log| log.pid);
        if let Some(log) = log.filter(|log| *log != last && killed < 20) {
            signal(log, libc::SIGKILL);
            (last, killed) = (log, killed + 1);
        }
        killed == 20 && !instance.lines("talked").is_empty()
    });
    instance.await_lines("logs/a", 3000);
    instance.quit_clean();
    let expected: Vec<String> = (1..=3000).map(|number| format!("line {number}")).collect();
    assert_eq!(instance.lines("logs/a"), expected);
}

#[test]
fn a_log_that_cannot_be_started_blocks_no_program_and_costs_none_its_heartbeat() {
    need_root();
    let mut writers = Writers::start("lognever", "user = nobody-of-this-name", 4, 20_000);
    writers.instance.await_that("the writers are done", || writers.all_have_written(writers.count));
    for name in &writers.names {
        assert_eq!(writers.instance.program(name).restarts, 0);
        assert!(writers.note(name).1 < LIMIT_MS, "{name} waited {} ms", writers.note(name).1);
    }
    let log = writers.instance.log();
    assert!(log.contains("nothing takes what programs write"), "{log}");
    assert!(log.contains("nobody-of-this-name"), "{log}");
    writers.instance.quit();
}

#[test]
fn a_log_that_hangs_is_replaced_and_what_was_dropped_is_said() {
    let mut writers = Writers::start("loghang", "flush = 100ms", 4, 100_000);
    writers.instance.await_that("they write", || writers.all_have_written(10));
    let log = writers.log_pid();
    signal(log, libc::SIGSTOP);
    writers.instance.await_that("another log", || ![0, log].contains(&writers.log_pid()));
    let (present, dropped) = writers.check();
    assert!(present > 0 && dropped > 0, "{present} {dropped}");
    let said = writers.instance.log();
    assert_eq!(said.matches("nothing takes what programs write").count(), 1, "{said}");
    assert_eq!(said.matches("is taken again; ").count(), 1, "{said}");
}

/// A program with an output that is on while it runs and off when it is dead.
const OWNER: &str = "[program:owner]\ncommand = %(here)s/tick\nstartsecs = 0\nautorestart = false\n\
    stdout_logfile = %(here)s/logs/owner\noutputs = lamp\n\
    [output:lamp]\npath = %(here)s/lamp\nwrite_high = 255\nsafe = low\nrunning = high\n";

/// Says something every 10 ms.
const TICK: &str = "while :; do echo tick; \"${0%/*}/sleeper\" 0.01; done";

/// Kills the owner of the output; how long that is on still.
fn time_to_safe(instance: &Instance) -> Duration {
    let lamp = |text: &str| instance.await_that(text, || instance.read("lamp").trim() == text);
    instance.ctl_ok(&["start", "owner"]);
    lamp("255");
    let owner = instance.pid("owner");
    let begun = Instant::now();
    signal(owner, libc::SIGKILL);
    lamp("0");
    begun.elapsed()
}

#[test]
fn storage_that_hangs_blocks_no_program_and_no_output_stays_on_for_it() {
    for (way, keys) in [("", ""), ("sync", "log_sync = yes")] {
        in_own_mounts(move || {
            let instance = Instance::scripted_only(&format!("logfrozen{way}"), "", &[("tick", TICK)], "");
            fs::write(instance.dir.join("lamp"), "255\n").unwrap();
            let disk = Disk::at(&instance.dir.join("logs"));
            let texts = ["flush = 50ms\nring = 64KB", keys, OWNER];
            let mut writers = Writers::start_in(instance, texts, 4, 20_000);
            disk.freeze(true);
            let before = writers.names.iter().map(|name| writers.numbers(name).len()).sum::<usize>();
            writers.instance.await_that("the writers are done", || writers.all_have_written(writers.count));
            let safe = time_to_safe(&writers.instance);
            for name in &writers.names {
                assert_eq!(writers.instance.program(name).restarts, 0);
                assert!(writers.note(name).1 < LIMIT_MS, "{name} waited {} ms", writers.note(name).1);
            }
            let now = writers.names.iter().map(|name| writers.numbers(name).len()).sum::<usize>();
            assert_eq!(now, before, "nothing was written meanwhile");
            disk.freeze(false);
            let (_, dropped) = writers.check();
            println!("{keys:14} safe after {safe:?} while storage hung; {dropped} lines dropped");
            assert!(safe < Duration::from_millis(LIMIT_MS / 4), "{safe:?}");
            assert!(dropped > 0, "the ring is smaller than what was said");
        });
    }
}

/// Lines that a file says were dropped.
fn said_to_be_dropped(text: &str) -> u64 {
    let lines = text.lines().filter_map(|line| line.strip_prefix("-- ")?.split_once(" lines ("));
    lines
        .filter(|(_, rest)| rest.ends_with(" bytes) dropped: log was overdue"))
        .map(|(n, _)| n.parse::<u64>().unwrap())
        .sum()
}

#[test]
fn a_full_disk_of_the_logs_blocks_no_program_is_said_once_and_what_it_cost_is_said_when_there_is_room() {
    in_own_mounts(|| {
        let instance = Instance::prepare("logfull", "", "");
        let logs = instance.dir.join("logs");
        memory_at(&logs, "size=256k,mode=755", 0);
        let mut writers = Writers::start_in(instance, ["flush = 50ms\nring = 64KB", "", ""], 4, 20_000);
        // Several times what disk and ring hold together.
        writers.instance.await_that("the writers are done", || writers.all_have_written(writers.count));
        let full = "logs/w0: No space left on device; lines wait in memory until this works";
        writers.instance.await_that("it is said", || writers.instance.log().contains(full));
        let ring = writers.ring();
        assert_ne!(ring.header().storage_fails.load(SeqCst), 0);
        assert!(ring.header().head.load(SeqCst) > ring.header().stored.load(SeqCst), "lines wait");
        memory_at(&logs, "size=16m,mode=755", libc::MS_REMOUNT);
        // Nobody does anything: it goes on by itself.
        writers.instance.await_that("everything is stored", || {
            let header = ring.header();
            header.storage_fails.load(SeqCst) == 0 && header.stored.load(SeqCst) == header.head.load(SeqCst)
        });
        for name in &writers.names {
            let is_said = await_condition(|| {
                let [supervisor, overwritten, _] = writers.dropped_by(&ring, name);
                said_to_be_dropped(&fs::read_to_string(logs.join(name)).unwrap()) == supervisor + overwritten
            });
            let text = fs::read_to_string(logs.join(name)).unwrap();
            let told: Vec<_> = text.lines().filter(|line| line.starts_with("-- ")).collect();
            assert!(is_said, "{name}: {told:?} of {:?}", writers.dropped_by(&ring, name));
            let said = writers.instance.log();
            let of_it = said.lines().filter(|line| line.contains(&format!("logs/{name}: "))).count();
            assert!(of_it == 0 || of_it == 2, "once that it fails, once that it works again: {said}");
        }
        let newest = |name: &String| writers.numbers(name).last() == Some(&(writers.count - 1));
        assert!(writers.names.iter().any(newest), "the newest lines of all waited in the ring");
        let (present, dropped) = writers.check();
        println!("{present} lines present, {dropped} dropped");
        assert!(present > 0 && dropped > writers.count, "{present} {dropped}");
        unmount(&logs);
    });
}

#[test]
fn logs_on_a_file_system_that_is_read_only_wait_in_the_ring_until_it_is_not() {
    in_own_mounts(|| {
        let instance = Instance::prepare("logreadonly", "", "");
        let logs = instance.dir.join("logs");
        memory_at(&logs, "mode=755", libc::MS_RDONLY);
        let mut writers = Writers::start_in(instance, ["flush = 50ms", "", ""], 4, 500);
        writers.instance.await_that("the writers are done", || writers.all_have_written(writers.count));
        writers.instance.await_that("it is said", || {
            let said = writers.instance.log();
            writers.names.iter().all(|name| said.matches(&format!("logs/{name}: ")).count() == 1)
                && said.contains("Read-only file system; lines wait in memory until this works")
        });
        memory_at(&logs, "mode=755", libc::MS_REMOUNT);
        let (present, dropped) = writers.check();
        assert_eq!((present, dropped), (4 * writers.count, 0));
        let said = writers.instance.log();
        assert_eq!(said.matches("written again").count(), 4, "{said}");
        unmount(&logs);
    });
}
