//! The collector's step, also with collectors and supervisors killed at any moment.

use super::super::log_claim::{Claimed, Part};
use super::super::log_ring::{Read, create};
use super::super::{file, machine, process};
use super::*;
use crate::time::Millis;
use std::os::fd::{AsFd, OwnedFd};

struct Bench {
    ring: Ring,
    memory: OwnedFd,
    again: OwnedFd,
    read: OwnedFd,
    write: OwnedFd,
}

fn bench() -> Bench {
    let (memory, again) = create(64 * 1024).unwrap();
    let ring = Ring::map(memory.as_fd(), true).unwrap();
    let (read, write) = file::pipe(true).unwrap();
    Bench { ring, memory, again, read, write }
}

impl Bench {
    fn say(&self, text: &str) {
        file::append(self.write.as_fd(), text.as_bytes()).unwrap();
    }

    /// Lines for some dozens of kills, for more with `MULTUSD_KILLS`: the pipe holds a page (fcntl(2),
    /// F_SETPIPE_SZ), so that a step takes no more.
    fn many_lines(&self) -> u64 {
        // SAFETY: integers.
        let size = unsafe { libc::fcntl(self.read.as_raw_fd(), libc::F_SETPIPE_SZ, 4096) };
        assert!(size > 0, "a smaller pipe");
        let kills = std::env::var("MULTUSD_KILLS").ok().and_then(|text| text.parse().ok());
        1000 * kills.unwrap_or(500).clamp(500, 10_000)
    }

    fn write_in_pieces(&self, text: &str) {
        let mut rest = text.as_bytes();
        while !rest.is_empty() {
            let count = rest.len().min(1 + machine::random() as usize % 400);
            let _ = file::append(self.write.as_fd(), &rest[..count]);
            rest = &rest[count..];
        }
    }

    fn take(&self, stream: usize) -> Taken {
        Collector::new(self.ring, self.memory.as_fd()).take(stream, 0, self.read.as_fd())
    }
}

/// Before any fork: a copy of a process with threads must not allocate.
fn numbers(count: u64) -> String {
    (0..count).map(|number| format!("line {number}\n")).collect()
}

/// Everything from a position on: stream, text (of notices: lines, cut, torn).
fn all(ring: &Ring, mut position: u64) -> Vec<(u16, String)> {
    let (mut found, mut buffer) = (Vec::new(), Vec::new());
    loop {
        match ring.read(position, &mut buffer) {
            Read::Nothing => return found,
            Read::Gone(tail) => position = tail,
            Read::Record(record) => {
                let notice = super::super::log_ring::Notice::from_bytes(&buffer);
                let text = match notice.filter(|_| record.stream & NOTICE != 0) {
                    Some(notice) => format!("{} {} {}", notice.lines, notice.cut, notice.torn),
                    None => String::from_utf8_lossy(&buffer).into_owned(),
                };
                found.push((record.stream, text));
                position = record.end;
            }
        }
    }
}

#[test]
fn what_is_taken_is_read_with_its_stream() {
    let bench = bench();
    assert_eq!(bench.take(3), Taken::Nothing);
    bench.say("one\n");
    assert_eq!(bench.take(3), Taken::Bytes(4));
    bench.say("two\nthr");
    assert_eq!(bench.take(4), Taken::Bytes(7));
    assert_eq!(all(&bench.ring, 0), [(3, "one\n".to_owned()), (4, "two\nthr".to_owned())]);
    assert_eq!(bench.ring.stream(4).bytes_in.load(SeqCst), 7);
}

#[test]
fn a_descriptor_for_reading_maps_the_ring_and_cannot_change_it() {
    let bench = bench();
    bench.say("one\n");
    bench.take(0);
    let read = super::super::log_ring::open_to_read(bench.memory.as_fd()).unwrap();
    assert_eq!(all(&Ring::map(read.as_fd(), false).unwrap(), 0), [(0, "one\n".to_owned())]);
    assert!(Ring::map(read.as_fd(), true).is_err() && nix::unistd::write(&read, b"x").is_err());
    assert!(nix::unistd::ftruncate(&bench.memory, 0).is_err());
}

#[test]
fn a_ring_full_of_what_is_not_stored_takes_no_more_until_it_is_stored_or_given_up() {
    let bench = bench();
    let line = format!("{}\n", "x".repeat(999));
    let mut taken = 0;
    let fill = |taken: &mut u64| loop {
        bench.say(&line);
        match bench.take(0) {
            Taken::Bytes(_) => *taken += 1,
            other => return assert_eq!(other, Taken::Full),
        }
    };
    fill(&mut taken);
    let first = taken;
    assert!(first > 55, "{first}");
    let collector = Collector::new(bench.ring, bench.memory.as_fd());
    // Room for one, given up: its line is counted, and told.
    while bench.take(0) == Taken::Full {
        collector.overwrite();
    }
    let lost = bench.ring.stream(0).ring_dropped_lines.load(SeqCst);
    assert!((1..4).contains(&lost), "{lost}");
    while !collector.tell_of_drops(0, 0, true) {
        collector.overwrite();
    }
    let lost = bench.ring.stream(0).ring_dropped_lines.load(SeqCst);
    let found = all(&bench.ring, 0);
    let notices = found.iter().filter(|(stream, _)| *stream == NOTICE);
    assert_eq!(notices.map(|(_, text)| text.as_str()).collect::<Vec<_>>(), [format!("{lost} false false")]);
    // Stored: overwritten freely.
    let head = bench.ring.header.head.load(SeqCst);
    bench.ring.stream(0).done.store(head, SeqCst);
    bench.ring.header.stored.store(head, SeqCst);
    taken = 0;
    fill(&mut taken);
    assert!(taken >= first - 1, "{taken}");
    assert_eq!(bench.ring.stream(0).ring_dropped_lines.load(SeqCst), lost);
}

#[test]
fn what_is_being_written_while_it_is_overwritten_is_counted_only_if_the_write_fails() {
    for (fails, expected) in [(true, (0, 2)), (false, (0, 0))] {
        let bench = bench();
        bench.say("one\ntwo\n");
        bench.take(1);
        bench.say("three\n");
        bench.take(1);
        let to = RECORD_BYTES + 8;
        let part = Part { stream: 1, to, lines: 2, bytes: 8, ..Part::default() };
        assert_eq!(bench.ring.claim(&part), Claimed::Yes);
        let collector = Collector::new(bench.ring, bench.memory.as_fd());
        collector.overwrite();
        if fails {
            assert_eq!(bench.ring.open_claim(), Some(part));
            assert!(!bench.ring.claim_failed());
        } else {
            bench.ring.claim_is_stored();
        }
        let words = bench.ring.stream(1);
        assert_eq!((words.ring_dropped_lines.load(SeqCst), words.lost_lines.load(SeqCst)), expected);
        assert_eq!((words.done.load(SeqCst), bench.ring.open_claim()), (to, None));
        collector.overwrite();
        assert_eq!(words.ring_dropped_lines.load(SeqCst), 1, "nobody had claimed the third");
        assert_eq!(bench.ring.claim(&part), Claimed::Gone);
    }
}

#[test]
fn what_the_supervisor_throws_away_is_counted_and_stands_in_the_ring_where_it_was() {
    let bench = bench();
    bench.say("one\ntwo\nthr");
    assert_eq!(bench.ring.discard(bench.again.as_fd(), 5, bench.read.as_fd()), 11);
    bench.say("ee\nfour\n");
    bench.take(5);
    bench.take(5);
    assert_eq!(all(&bench.ring, 0), [(5 | NOTICE, "2 true true".to_owned()), (5, "ee\nfour\n".to_owned())]);
    assert_eq!(bench.ring.stream(5).dropped_bytes.load(SeqCst), 11);
}

/// Numbered lines: every one is there, once, whole, in order.
fn check_numbers(text: &str, mut next: u64) -> u64 {
    for line in text.lines() {
        assert_eq!(line, format!("line {next}"));
        next += 1;
    }
    next
}

fn child(run: impl FnOnce()) -> u32 {
    let test = std::process::id();
    match process::fork().unwrap() {
        Some(pid) => pid,
        None => {
            if process::die_with(test) {
                run();
            }
            process::end(0)
        }
    }
}

/// Less than a step takes.
fn spin() {
    let until = clock::now().0 + machine::random() % 50_000;
    while clock::now().0 < until {}
}

fn kill(pid: u32) {
    process::kill_if_there(pid as i32, libc::SIGKILL);
    // SAFETY: integers; our own child.
    unsafe { libc::waitpid(pid as i32, core::ptr::null_mut(), 0) };
}

#[test]
fn collectors_killed_at_any_moment_lose_nothing_and_double_nothing() {
    let bench = bench();
    let lines = bench.many_lines();
    let text = numbers(lines);
    let writer = child(|| bench.write_in_pieces(&text));
    let (mut position, mut next, mut rest, mut buffer) = (0, 0, String::new(), Vec::new());
    let (mut killed, header) = (0, bench.ring.header);
    let started = clock::now();
    while next < lines {
        let collector = child(|| {
            let collector = Collector::new(bench.ring, bench.memory.as_fd());
            loop {
                if collector.take(0, 0, bench.read.as_fd()) == Taken::Nothing {
                    super::super::poll::wait_readable(bench.read.as_fd(), Some(10));
                }
            }
        });
        // Any moment of some of its steps.
        let until = header.progress.load(SeqCst) + machine::random() % 4;
        let late = clock::now() + Millis(100);
        loop {
            // At least once, because where the ring is full steps are taken and nothing else moves; and not for as
            // long as the collector finds something.
            for _ in 0..4 {
                let record = match bench.ring.read(position, &mut buffer) {
                    Read::Record(record) => record,
                    // No more than what was left of the area: every line is looked for.
                    Read::Gone(tail) => {
                        position = tail;
                        continue;
                    }
                    Read::Nothing => break,
                };
                rest += str::from_utf8(&buffer).unwrap();
                let whole = rest.rfind('\n').map_or(0, |end| end + 1);
                next = check_numbers(&rest[..whole], next);
                rest.drain(..whole);
                position = record.end;
                header.stored.store(position, SeqCst);
            }
            if header.progress.load(SeqCst) >= until || next == lines || clock::now() >= late {
                break;
            }
        }
        spin();
        kill(collector);
        killed += 1;
        assert!(clock::now().since(started).0 < 240_000, "{next} of {lines} lines");
    }
    kill(writer);
    assert!(killed > 20, "{killed}");
    println!("{killed} kills, {:?}", clock::now().since(started));
    assert_eq!(header.tail.load(SeqCst).min(1), 1, "the ring was too small for all of it");
}

#[test]
fn supervisors_killed_while_they_throw_away_count_every_line_once() {
    let bench = bench();
    let lines = bench.many_lines();
    let text = numbers(lines);
    let writer = child(|| bench.write_in_pieces(&text));
    let words = bench.ring.stream(7);
    let (mut killed, started) = (0, clock::now());
    while words.dropped_lines.load(SeqCst) < lines {
        let supervisor = child(|| {
            loop {
                if bench.ring.discard(bench.again.as_fd(), 7, bench.read.as_fd()) == 0 {
                    super::super::poll::wait_readable(bench.read.as_fd(), Some(10));
                }
            }
        });
        let until = bench.ring.header.drop_count.load(SeqCst) + machine::random() as u32 % 3;
        let late = clock::now() + Millis(100);
        while bench.ring.header.drop_count.load(SeqCst) < until && clock::now() < late {
            process::give_way();
        }
        spin();
        kill(supervisor);
        bench.ring.settle_discard(bench.again.as_fd());
        killed += 1;
        assert!(clock::now().since(started).0 < 240_000, "{}", words.dropped_lines.load(SeqCst));
    }
    kill(writer);
    assert_eq!(words.dropped_lines.load(SeqCst), lines);
    assert_eq!(words.dropped_bytes.load(SeqCst), text.len() as u64);
    assert!(killed > 20, "{killed}");
    println!("{killed} kills, {:?}", clock::now().since(started));
}
