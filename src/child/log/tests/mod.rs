//! The storer with a real ring, real pipes and real files, and a clock of the tests' own.

mod cuts;
mod day;

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicU32, Ordering};

use super::store::Store;
use crate::config::{LogSettings, LogStamp, StreamSettings};
use crate::sys::log_collect::{Collector, Taken};
use crate::sys::log_ring::{Ring, create};
use crate::sys::{file, process};
use crate::time::{Instant, Millis};

/// 2026-11-21T17:20:00Z, when the tests' machine starts.
const BOOT_MS: u64 = 1_795_281_600_000;

struct Bench {
    dir: PathBuf,
    ring: Ring,
    memory: &'static OwnedFd,
    settings: LogSettings,
    pipes: Vec<(OwnedFd, OwnedFd)>,
    store: Option<Store<'static>>,
    now_ms: u64,
}

impl Bench {
    /// So many streams `0`, `1`, … with files of these names, not stamped.
    fn new(count: u16) -> Bench {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("multusd-store-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let dir = std::env::temp_dir().join(name);
        fs::create_dir(&dir).unwrap();
        let (memory, _) = create(64 << 10).unwrap();
        let memory: &'static OwnedFd = Box::leak(Box::new(memory));
        let stream = |number: u16| StreamSettings {
            number,
            name: format!("p{number}"),
            path: Some(dir.join(number.to_string()).to_string_lossy().into_owned()),
            maxbytes: 1 << 20,
            backups: 1,
            stamp: LogStamp::None,
            ..StreamSettings::default()
        };
        let settings = LogSettings {
            flush_ms: 10_000,
            total_maxbytes: 64 << 20,
            streams: (0..count).map(stream).collect(),
            ..LogSettings::default()
        };
        let pipes = (0..count).map(|_| file::pipe(true).unwrap()).collect();
        let ring = Ring::map(memory.as_fd(), true).unwrap();
        Bench { dir, ring, memory, settings, pipes, store: None, now_ms: 1000 }
    }

    /// A program writes, and the collector takes it.
    fn say(&mut self, stream: usize, words: &str) {
        file::append(self.pipes[stream].1.as_fd(), words.as_bytes()).unwrap();
        let collector = Collector::new(self.ring, self.memory.as_fd());
        loop {
            let head = self.ring.header().head.load(SeqCst);
            match collector.take(stream, 0, self.pipes[stream].0.as_fd()) {
                Taken::Nothing => return,
                Taken::Full => collector.overwrite(),
                Taken::Bytes(_) => {
                    // A notice, or the end of the area, may be before it.
                    let (mut at, mut buffer) = (head, Vec::new());
                    while let crate::sys::log_ring::Read::Record(record) = self.ring.read(at, &mut buffer) {
                        self.ring.date(record.position, self.now_ms, BOOT_MS + self.now_ms);
                        at = record.end;
                    }
                }
            }
        }
    }

    fn store(&mut self) -> &mut Store<'static> {
        let (settings, ring) = (&self.settings, &self.ring);
        self.store.get_or_insert_with(|| Store::new(Box::leak(Box::new(settings.clone())), ring))
    }

    /// Time passes; the storer is called when it asked to be.
    fn pass(&mut self, ms: u64) {
        let end = self.now_ms + ms;
        loop {
            let now = Instant::default() + Millis(self.now_ms);
            let next = self.store().work(now).map_or(u64::MAX, |at| at.0 / 1_000_000);
            if next > end {
                break;
            }
            self.now_ms = next.max(self.now_ms + 1);
        }
        self.now_ms = end;
    }

    /// Killed where it stands between two calls; the next one starts from the ring.
    fn kill(&mut self) {
        self.store = None;
    }

    /// The filter of file 0 has ended, and the storer has heard of it (its bell is rung for that).
    fn await_filter(&mut self) {
        while self.dir.join("0.gz.new").exists() {
            process::give_way();
            self.pass(0);
        }
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.dir.join(name)).unwrap_or_default()
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

#[test]
fn a_line_is_stamped_and_waits_for_the_flush() {
    let mut bench = Bench::new(1);
    bench.settings.streams[0].stamp = LogStamp::Both;
    bench.say(0, "hel");
    bench.pass(400);
    bench.say(0, "lo\n");
    bench.pass(9599);
    assert!(!bench.dir.join("0").exists(), "nothing is written before its time");
    bench.pass(1);
    assert_eq!(bench.read("0"), "2026-11-21T17:20:01.000Z 1.000 hello\n");
    let header = bench.ring.header();
    assert_eq!(header.stored.load(SeqCst), header.head.load(SeqCst));
}

#[test]
fn a_block_of_a_chatty_program_is_written_at_once() {
    let mut bench = Bench::new(2);
    bench.say(1, "quiet\n");
    for _ in 0..20 {
        bench.say(0, &format!("{}\n", "x".repeat(999)));
        bench.pass(1);
    }
    let length = bench.read("0").len();
    assert!((15_000..=17_000).contains(&length), "{length}");
    assert_eq!(bench.read("1"), "", "the other one's line waits still");
}

#[test]
fn a_failure_a_sync_and_the_end_write_everything() {
    let mut bench = Bench::new(1);
    bench.say(0, "one\n");
    bench.ring.header().flush_taken.fetch_add(1, SeqCst);
    bench.pass(0);
    assert_eq!(bench.read("0"), "one\n");
    assert_eq!(bench.ring.header().flush_done.load(SeqCst), 1);
    bench.say(0, "two\nthr");
    bench.ring.header().sync_taken.fetch_add(1, SeqCst);
    bench.pass(0);
    let header = bench.ring.header();
    assert_eq!((bench.read("0").as_str(), header.sync_done.load(SeqCst)), ("one\ntwo\nthr", 1));
    assert_eq!(header.synced.load(SeqCst), header.head.load(SeqCst));
    bench.say(0, "ee\nfour");
    bench.store().finish();
    assert_eq!(bench.read("0"), "one\ntwo\nthree\nfour");
}

#[test]
fn a_line_without_end_is_written_and_goes_on_in_its_place() {
    let mut bench = Bench::new(2);
    bench.settings.streams[0].stamp = LogStamp::Monotonic;
    bench.settings.streams[1].path = bench.settings.streams[0].path.clone();
    bench.say(0, "Password: ");
    bench.pass(10_000);
    assert_eq!(bench.read("0"), "1.000 Password: ");
    bench.say(0, "secret\nAgain: ");
    bench.pass(10_000);
    assert_eq!(bench.read("0"), "1.000 Password: secret\n11.000 Again: ");
    // Another one's line in the same file begins a new one; a successor goes on where the former one was.
    bench.say(1, "hello\n");
    bench.pass(10_000);
    bench.say(0, "x\ny");
    bench.pass(10_000);
    bench.kill();
    bench.say(0, "z\n");
    bench.pass(10_000);
    let lines = "1.000 Password: secret\n11.000 Again: \nhello\n31.000 x\n31.000 yz\n";
    assert_eq!(bench.read("0"), lines);
}

#[test]
fn what_is_folded_and_what_is_too_much_is_told() {
    let mut bench = Bench::new(2);
    bench.settings.streams[0].fold = true;
    bench.settings.streams[1].rate = 2;
    bench.say(0, "a\na\na\nb\nb\n");
    bench.say(1, "1\n2\n3\n4\n5\n6\n");
    bench.pass(1000);
    bench.say(1, "7\n8\n9\n");
    bench.pass(10_000);
    assert_eq!(bench.read("0"), "a\n-- 2 times the last line again\nb\n-- 1 times the last line again\n");
    let text = "1\n2\n3\n4\n-- 2 lines dropped: more than 2 per second\n7\n8\n-- 1 lines dropped: more than 2 per second\n";
    assert_eq!(bench.read("1"), text);
    assert_eq!(bench.ring.stream(1).lost_lines.load(SeqCst), 3);
    bench.say(0, "b\n");
    bench.pass(10_000);
    assert!(bench.read("0").ends_with("b\n-- 1 times the last line again\n-- 1 times the last line again\n"));
}

#[test]
fn what_was_overwritten_is_told_and_every_line_is_somewhere() {
    let mut bench = Bench::new(2);
    let mut said = 0;
    // Three times the ring's size without a storer, in pieces that end anywhere.
    for number in 0..20_000 {
        bench.say(0, &format!("line {number}"));
        bench.say(1, "x\n");
        bench.say(0, "\n");
        said += 1;
    }
    bench.pass(10_000);
    bench.say(0, "last\n");
    assert!(Collector::new(bench.ring, bench.memory.as_fd()).tell_of_drops(0, 0, true));
    bench.pass(10_000);
    let text = bench.read("0");
    let words = bench.ring.stream(0);
    let [overwritten, lost] = [&words.ring_dropped_lines, &words.lost_lines].map(|word| word.load(SeqCst));
    let lines = text.lines().filter(|line| !line.starts_with("--")).count() as u64;
    assert_eq!(lines + overwritten + lost, said + 1, "{lines} {overwritten} {lost}");
    assert!(text.contains(" bytes) dropped: log was overdue\n"), "{text}");
    assert!(overwritten > 10_000 && lines > 100);
    for line in text.lines().filter(|line| !line.starts_with("--") && *line != "last") {
        assert!(line.strip_prefix("line ").is_some_and(|rest| rest.parse::<u32>().is_ok()), "{line}");
    }
}

#[test]
fn what_is_said_within_a_line_that_is_begun_in_the_file_says_that_the_line_goes_on() {
    let mut bench = Bench::new(1);
    bench.say(0, "Pass");
    bench.pass(10_000);
    let words = bench.ring.stream(0);
    words.ring_dropped_bytes.store(50, SeqCst);
    words.ring_dropped_lines.store(5, SeqCst);
    let head = bench.ring.header().head.load(SeqCst);
    assert!(Collector::new(bench.ring, bench.memory.as_fd()).tell_of_drops(0, 0, true));
    bench.ring.date(head, bench.now_ms, BOOT_MS + bench.now_ms);
    bench.say(0, "word\n");
    bench.pass(10_000);
    let text = "Pass -- goes on\n-- 5 lines (50 bytes) dropped: log was overdue\nword\n";
    assert_eq!(bench.read("0"), text);
}

#[test]
fn a_full_file_is_rotated_and_the_oldest_goes() {
    let mut bench = Bench::new(1);
    (bench.settings.streams[0].maxbytes, bench.settings.streams[0].backups) = (10, 2);
    for text in ["one 1234\n", "two 1234\n", "three 12\n", "four 123\n"] {
        bench.say(0, text);
    }
    bench.pass(10_000);
    assert_eq!(
        [bench.read("0"), bench.read("0.1"), bench.read("0.2"), bench.read("0.3")],
        ["four 123\n", "three 12\n", "two 1234\n", ""]
    );
}

#[test]
fn a_file_that_took_the_place_of_the_log_is_neither_written_to_nor_rotated() {
    let mut bench = Bench::new(1);
    (bench.settings.streams[0].maxbytes, bench.settings.streams[0].backups) = (10, 2);
    let victim = bench.dir.join("victim");
    fs::write(&victim, "precious").unwrap();
    bench.say(0, "one 1234\n");
    bench.pass(10_000);
    let plant: [&dyn Fn(&PathBuf); 2] =
        [&|path| std::os::unix::fs::symlink(&victim, path).unwrap(), &|path| {
            fs::hard_link(&victim, path).unwrap()
        }];
    let path = bench.dir.join("0");
    for plant in plant {
        fs::remove_file(&path).unwrap();
        plant(&path);
        bench.say(0, "two 1234\n");
        bench.pass(10_000);
        assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
        assert!(fs::symlink_metadata(&path).is_ok() && !bench.dir.join("0.1").exists());
        assert_eq!(bench.ring.header().storage_fails.load(SeqCst), 1, "said, and waited for");
    }
    fs::remove_file(&path).unwrap();
    bench.pass(1000);
    assert_eq!((bench.read("0.1"), bench.read("0")), ("two 1234\n".into(), "two 1234\n".into()));
}

#[test]
fn a_log_whose_file_somebody_took_away_begins_a_new_one() {
    let mut bench = Bench::new(1);
    bench.say(0, "one\n");
    bench.pass(10_000);
    fs::rename(bench.dir.join("0"), bench.dir.join("old")).unwrap();
    bench.say(0, "two\n");
    bench.pass(10_000);
    assert_eq!((bench.read("old"), bench.read("0")), ("one\n".into(), "two\n".into()));
}

#[test]
fn all_files_together_stay_below_their_cap_and_the_largest_log_pays() {
    let mut bench = Bench::new(2);
    bench.settings.total_maxbytes = 64 << 10;
    for stream in &mut bench.settings.streams {
        (stream.maxbytes, stream.backups) = (8 << 10, 20);
    }
    bench.say(1, &"precious\n".repeat(1000));
    bench.pass(10_000);
    for _ in 0..200 {
        bench.say(0, &format!("{}\n", "x".repeat(999)));
        bench.pass(1000);
    }
    let sizes = |prefix: &str| -> u64 {
        let names = fs::read_dir(&bench.dir).unwrap().map(|entry| entry.unwrap());
        let ours = names.filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix));
        ours.map(|entry| entry.metadata().unwrap().len()).sum()
    };
    assert_eq!(sizes("1"), 9000, "the small one keeps all it has");
    let total = sizes("");
    assert!((48 << 10..=64 << 10).contains(&total), "{total}");
}

#[test]
fn a_rotated_file_is_compressed_whole_or_not_at_all() {
    let mut bench = Bench::new(1);
    (bench.settings.streams[0].maxbytes, bench.settings.streams[0].backups) = (10_000, 3);
    bench.settings.compress = vec!["/bin/gzip".into()];
    let block = |sign: &str| format!("{}\n", sign.repeat(99)).repeat(90);
    for sign in ["a", "b", "c"] {
        bench.say(0, &block(sign));
        bench.pass(10_000);
        bench.await_filter();
    }
    let dir = bench.dir.clone();
    let unpacked = |name: &str| {
        let output = std::process::Command::new("/bin/gzip").args(["-dc"]).arg(dir.join(name)).output();
        String::from_utf8(output.unwrap().stdout).unwrap()
    };
    assert_eq!((unpacked("0.1.gz"), unpacked("0.2.gz")), (block("b"), block("a")));
    assert_eq!(
        (bench.read("0"), bench.read("0.1"), bench.read("0.2")),
        (block("c"), String::new(), String::new())
    );
    // A power cut: half of one; a whole one beside what it was made of.
    fs::write(bench.dir.join("0.gz.new"), "half").unwrap();
    fs::write(bench.dir.join("0.1"), block("b")).unwrap();
    bench.kill();
    bench.pass(0);
    assert!(!bench.dir.join("0.gz.new").exists() && !bench.dir.join("0.1").exists());
    // One that fails leaves the file as it is.
    bench.settings.compress = vec!["/bin/false".into()];
    bench.kill();
    bench.say(0, &block("d"));
    bench.pass(10_000);
    bench.await_filter();
    assert_eq!((bench.read("0.1"), unpacked("0.2.gz")), (block("c"), block("b")));
}

#[test]
fn what_storage_does_not_take_stays_in_the_ring_until_it_does() {
    let mut bench = Bench::new(2);
    fs::create_dir(bench.dir.join("0")).unwrap();
    bench.say(0, "a\n");
    bench.say(1, "b\n");
    bench.pass(10_000);
    assert_eq!(bench.read("1"), "b\n", "the other one is not held up");
    assert_eq!(bench.ring.header().storage_fails.load(SeqCst), 1);
    for number in 0..100 {
        bench.say(0, &format!("{number}\n"));
        bench.pass(100);
    }
    fs::remove_dir(bench.dir.join("0")).unwrap();
    bench.pass(1000);
    let expected: String = (0..100).map(|number| format!("{number}\n")).collect();
    assert_eq!(bench.read("0"), format!("a\n{expected}"));
    assert_eq!(bench.ring.header().storage_fails.load(SeqCst), 0);
}

#[test]
fn a_disk_without_room_is_said_and_goes_on_by_itself() {
    let mut bench = Bench::new(1);
    let disk = bench.dir.join("disk");
    fs::create_dir(&disk).unwrap();
    day::run(&["mount", "-t", "tmpfs", "-o", "size=32k", "tmpfs", disk.to_str().unwrap()]);
    bench.settings.streams[0].path = Some(disk.join("x").to_string_lossy().into_owned());
    fs::write(disk.join("other"), "o".repeat(20_000)).unwrap();
    let mut expected = String::new();
    for number in 0..300 {
        let line = format!("{number:099}\n");
        bench.say(0, &line);
        expected += &line;
        bench.pass(200);
    }
    let is_short = fs::metadata(disk.join("x")).unwrap().len() < expected.len() as u64;
    fs::remove_file(disk.join("other")).unwrap();
    bench.pass(20_000);
    let text = fs::read_to_string(disk.join("x"));
    bench.kill();
    day::run(&["umount", disk.to_str().unwrap()]);
    assert!(is_short, "there was no room");
    assert_eq!(text.unwrap(), expected);
}

#[test]
fn a_program_whose_lines_must_not_be_lost_has_them_on_storage_at_once() {
    let mut bench = Bench::new(1);
    bench.settings.streams[0].sync = true;
    bench.say(0, "one\ntw");
    bench.pass(0);
    assert_eq!(bench.read("0"), "one\n");
    bench.say(0, "o\n");
    bench.pass(0);
    assert_eq!(bench.read("0"), "one\ntwo\n");
}

#[test]
fn with_ram_only_no_file_is_made() {
    let mut bench = Bench::new(2);
    bench.settings.ram_only = true;
    bench.say(0, &"line\n".repeat(5000));
    bench.pass(20_000);
    bench.ring.header().sync_taken.fetch_add(1, SeqCst);
    bench.pass(0);
    assert_eq!(fs::read_dir(&bench.dir).unwrap().count(), 0);
    assert_eq!(bench.ring.header().sync_done.load(SeqCst), 1);
    assert_eq!(bench.ring.header().stored.load(SeqCst), bench.ring.header().head.load(SeqCst));
}
