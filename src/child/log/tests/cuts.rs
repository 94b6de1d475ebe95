//! Kills and power cuts: what was acknowledged is there, what is there is readable, nothing is there twice.

use super::*;
use crate::sys::log_claim::{Claimed, Part};

#[test]
fn what_a_killed_storer_had_written_of_a_batch_is_not_written_twice() {
    for (is_part, is_rotated) in [(false, false), (true, false), (false, true)] {
        let mut bench = Bench::new(1);
        bench.say(0, "one\n");
        bench.pass(10_000);
        bench.say(0, "two\nthree\n");
        bench.pass(0);
        bench.kill();
        // As far as it came: announced, and all or a part of it written.
        let path = bench.dir.join("0");
        let inode = std::os::unix::fs::MetadataExt::ino(&fs::metadata(&path).unwrap());
        let (first, to) = (32, bench.ring.header().head.load(SeqCst));
        let part = Part { first, to, lines: 2, bytes: 10, inode, size: 4, ..Part::default() };
        assert_eq!(bench.ring.claim(&part), Claimed::Yes);
        fs::write(&path, if is_part { "one\ntw" } else { "one\ntwo\nthree\n" }).unwrap();
        if is_rotated {
            // Somebody else's file has the name by now: it is left as it is.
            fs::rename(&path, bench.dir.join("moved")).unwrap();
            fs::write(&path, "somebody else's words\n").unwrap();
        }
        bench.pass(10_000);
        let expected = if is_rotated { "somebody else's words\ntwo\nthree\n" } else { "one\ntwo\nthree\n" };
        assert_eq!(bench.read("0"), expected, "{is_part}");
    }
}

#[test]
fn the_rest_of_a_cut_line_is_discarded_by_whoever_comes_after_a_storer_that_was_killed() {
    for is_done in [false, true] {
        let mut bench = Bench::new(1);
        let again = file::open_again(bench.memory.as_fd(), 0o600, true).unwrap();
        file::append(bench.pipes[0].1.as_fd(), b"one\ntw").unwrap();
        bench.ring.discard(again.as_fd(), 0, bench.pipes[0].0.as_fd());
        // The notice comes into the ring, and is stored.
        bench.say(0, "");
        bench.pass(0);
        bench.store().finish();
        let notice = "-- 1 lines (6 bytes) dropped: log was overdue\n";
        assert_eq!(bench.read("0"), notice);
        // Killed just before, or after, `done` was set: what goes with it is in the claim alone.
        let words = bench.ring.stream(0);
        if !is_done {
            words.done.store(0, SeqCst);
        }
        words.storer[crate::sys::log_ring::word::DISCARDS].store(0, SeqCst);
        bench.ring.reopen_claim();
        bench.kill();
        bench.say(0, "o\nthree\n");
        bench.pass(10_000);
        assert_eq!(bench.read("0"), [notice, "three\n"].concat());
        assert_eq!(words.lost_lines.load(SeqCst), 1, "the end of the line that was cut");
    }
}

#[test]
fn where_the_beginning_of_a_line_is_given_up_its_rest_is_no_line() {
    let mut bench = Bench::new(1);
    bench.say(0, "one\n");
    bench.pass(10_000);
    bench.say(0, "begun ");
    bench.kill();
    // A storer was killed while it wrote this, and then it was overwritten.
    let path = bench.dir.join("0");
    let inode = std::os::unix::fs::MetadataExt::ino(&fs::metadata(&path).unwrap());
    let (first, to) = (32, bench.ring.header().head.load(SeqCst));
    let part = Part { first, to, bytes: 6, inode, size: 4, after: [0, 0, 0, 1], ..Part::default() };
    assert_eq!(bench.ring.claim(&part), Claimed::Yes);
    fs::write(&path, "one\nbeg").unwrap();
    while bench.ring.header().tail.load(SeqCst) <= first {
        Collector::new(bench.ring, bench.memory.as_fd()).overwrite();
    }
    bench.say(0, "rest\nnext\n");
    bench.pass(10_000);
    assert_eq!(bench.read("0"), "one\nnext\n");
    let words = bench.ring.stream(0);
    assert_eq!((words.lost_lines.load(SeqCst), words.lost_bytes.load(SeqCst)), (1, 11));
    assert_eq!(words.ring_dropped_lines.load(SeqCst), 0);
}

/// Numbers as random as a test needs.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % below
    }
}

#[test]
fn whatever_happens_every_line_is_there_once_and_in_its_order() {
    let (mut kills, mut faults, mut rotated) = (0, 0, 0);
    for seed in 0..12 {
        let mut dice = Dice(seed);
        let mut bench = Bench::new(3);
        // The third one shares a file with the second.
        bench.settings.streams[2].path = bench.settings.streams[1].path.clone();
        bench.settings.streams[0].maxbytes = 200;
        bench.settings.streams[0].backups = 1000;
        let mut said = [0; 3];
        for _ in 0..400 {
            let stream = dice.roll(3) as usize;
            match dice.roll(40) {
                0 => {
                    bench.kill();
                    kills += 1;
                }
                1 => {
                    bench.ring.header().sync_taken.fetch_add(1, SeqCst);
                }
                2 if !bench.dir.join("away").exists() => {
                    // The directory is gone for a while, and something else is there.
                    fs::rename(&bench.dir, bench.dir.with_extension("away")).unwrap();
                    fs::write(&bench.dir, "").unwrap();
                    faults += 1;
                    bench.pass(dice.roll(30_000));
                    fs::remove_file(&bench.dir).unwrap();
                    fs::rename(bench.dir.with_extension("away"), &bench.dir).unwrap();
                }
                3..8 => bench.say(stream, "begun"),
                _ => {
                    said[stream] += 1;
                    let number = said[stream];
                    bench.say(stream, &format!(" {stream}.{number}\n"));
                }
            }
            let ms = dice.roll(2000);
            bench.pass(ms);
        }
        bench.store().finish();
        let mut text = String::new();
        for number in (0..=400).rev() {
            let name = if number == 0 { "0".into() } else { format!("0.{number}") };
            rotated += u32::from(number > 0 && bench.dir.join(&name).exists());
            text += &bench.read(&name);
        }
        text += &bench.read("1");
        for (stream, said) in said.iter().enumerate() {
            let start = format!("{stream}.");
            let words = text.split([' ', '\n']);
            let numbers: Vec<u32> =
                words.filter_map(|word| word.strip_prefix(&start)?.parse().ok()).collect();
            assert_eq!(numbers, (1..=*said).collect::<Vec<_>>(), "seed {seed}, stream {stream}");
        }
    }
    assert!(kills > 50 && faults > 50 && rotated > 30, "{kills} {faults} {rotated}");
}

#[test]
fn a_power_cut_loses_nothing_that_a_sync_acknowledged_and_leaves_readable_files() {
    let mut bench = Bench::new(1);
    (bench.settings.streams[0].maxbytes, bench.settings.streams[0].backups) = (1000, 9);
    let mut acknowledged = Vec::new();
    for number in 0..200 {
        bench.say(0, &format!("line {number:04}\n"));
        if number == 100 || number == 180 {
            bench.ring.header().sync_taken.fetch_add(1, SeqCst);
        }
        bench.pass(3000);
        let is_done = bench.ring.header().sync_done.load(SeqCst);
        if is_done as usize > acknowledged.len() {
            acknowledged.push((number, fs::metadata(bench.dir.join("0")).unwrap().len()));
        }
    }
    bench.store().finish();
    let [_, (last, synced)] = acknowledged[..] else { panic!("{acknowledged:?}") };
    let size = fs::metadata(bench.dir.join("0")).unwrap().len();
    assert!(synced < size && bench.dir.join("0.1").exists(), "{synced} {size}");
    // What was not synced may be on storage or not, up to any byte; what was in memory is gone.
    for cut in synced..=size {
        let mut after = Bench::new(1);
        for entry in fs::read_dir(&bench.dir).unwrap() {
            let path = entry.unwrap().path();
            fs::copy(&path, after.dir.join(path.file_name().unwrap())).unwrap();
        }
        fs::File::options().write(true).open(after.dir.join("0")).unwrap().set_len(cut).unwrap();
        after.say(0, "after\n");
        after.pass(10_000);
        let text: String = (0..=9)
            .rev()
            .map(|number| match number {
                0 => after.read("0"),
                _ => after.read(&format!("0.{number}")),
            })
            .collect();
        for number in 0..=last {
            assert_eq!(text.matches(&format!("line {number:04}\n")).count(), 1, "{number} at {cut}");
        }
        assert!(text.ends_with("\nafter\n"), "{cut}");
    }
}

#[test]
fn after_a_power_cut_a_real_file_system_has_what_a_sync_acknowledged() {
    let mut bench = Bench::new(2);
    let disk = super::day::Disk::new(&bench.dir.clone());
    for (number, stream) in bench.settings.streams.iter_mut().enumerate() {
        stream.path = Some(disk.mount.join(number.to_string()).to_string_lossy().into_owned());
        (stream.maxbytes, stream.backups) = (2000, 200);
    }
    // Every line of the second one is synced.
    bench.settings.streams[1].sync = true;
    let (mut acknowledged, mut lost) = (0, 0);
    for number in 0..600 {
        bench.say(0, &format!("line {number:04} .......................................\n"));
        bench.say(1, &format!("line {number:04}\n"));
        if number % 50 == 20 {
            bench.ring.header().sync_taken.fetch_add(1, SeqCst);
        }
        bench.pass(500);
        let header = bench.ring.header();
        if number % 50 == 20 && header.sync_done.load(SeqCst) == header.sync_taken.load(SeqCst) {
            acknowledged = number;
        }
        if number % 17 != 0 || acknowledged == 0 {
            continue;
        }
        let after = disk.after_power_cut();
        let text = |name: &str| -> String {
            let nth = |number| match number {
                0 => name.into(),
                _ => format!("{name}.{number}"),
            };
            let texts =
                (0..=200).rev().map(|number| fs::read(after.mount.join(nth(number))).unwrap_or_default());
            texts.map(|bytes| String::from_utf8(bytes).expect("readable")).collect()
        };
        for (name, last) in [("0", acknowledged), ("1", number)] {
            let text = text(name);
            let lines: Vec<usize> = text.lines().filter_map(|line| line.get(5..9)?.parse().ok()).collect();
            assert!(lines.len() > last, "{name}: {} of {last} at {number}", lines.len());
            assert_eq!(lines, (0..lines.len()).collect::<Vec<_>>(), "{name}: each once, in order");
            lost += number + 1 - lines.len();
        }
    }
    bench.kill();
    assert!(
        acknowledged > 500 && lost > 50,
        "{acknowledged}, and cuts that lose nothing prove nothing: {lost}"
    );
}
