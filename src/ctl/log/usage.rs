//! `log --usage`: what logs cost.

use std::sync::atomic::Ordering::SeqCst;

use super::super::daemon::Shared;
use super::super::lines::grid;
use super::super::{Call, Outcome, json, print, words};
use crate::protocol::Name;
use crate::sys::clock::now;
use crate::sys::log_ring::{day, word};

/// What the streams of one program have cost since they came to be.
#[derive(Default)]
pub struct LogUse<'a> {
    /// The program.
    pub name: &'a str,
    /// Bytes that were taken from it.
    pub said: u64,
    /// Bytes written to files: today (a day of uptime) …
    pub today: u64,
    /// … and in all.
    pub written: u64,
    /// Lines that were dropped, whoever did it.
    pub dropped: u64,
    /// Messages that syslog or the kernel did not take.
    pub unrelayed: u64,
}

/// The log ring.
pub struct RingUse {
    /// Bytes it has room for.
    pub size: u64,
    /// Bytes of it that are not stored yet.
    pub waiting: u64,
    /// They cannot be, for now.
    pub storage_fails: bool,
}

/// Shows all programs, or the chosen ones.
pub fn show(call: &Call, shared: &Shared, chosen: Option<&[Name]>) -> Outcome {
    let today = day(now().0 / 1_000_000);
    let mut sums: Vec<LogUse> = Vec::new();
    for stream in &shared.settings.streams {
        if chosen.is_some_and(|names| !names.iter().any(|name| name.as_str() == stream.name)) {
            continue;
        }
        if sums.last().is_none_or(|last| last.name != stream.name) {
            sums.push(LogUse { name: &stream.name, ..LogUse::default() });
        }
        let Some(sum) = sums.last_mut() else { continue };
        let words = shared.ring.stream(stream.number.into());
        let own = |at: usize| words.storer[at].load(SeqCst);
        sum.said += words.bytes_in.load(SeqCst);
        sum.today += if own(word::DAY) == today { own(word::TODAY) } else { 0 };
        sum.written += own(word::WRITTEN);
        sum.unrelayed += own(word::UNRELAYED);
        let lost = [&words.dropped_lines, &words.ring_dropped_lines, &words.lost_lines];
        sum.dropped += lost.iter().map(|word| word.load(SeqCst)).sum::<u64>();
    }
    let header = shared.ring.header();
    let ring = RingUse {
        size: shared.ring.size(),
        waiting: header.head.load(SeqCst).saturating_sub(header.stored.load(SeqCst)),
        storage_fails: header.storage_fails.load(SeqCst) != 0,
    };
    print(&if call.json { json::log_usage(&ring, &sums) } else { table(&ring, &sums) })
}

/// The same for people.
pub fn table(ring: &RingUse, programs: &[LogUse]) -> String {
    let mut rows = vec![["NAME", "SAID", "TODAY", "WRITTEN", "DROPPED", ""].map(String::from)];
    rows.extend(programs.iter().map(|program| {
        let [said, today, written] = [program.said, program.today, program.written].map(bytes);
        let dropped = (program.dropped + program.unrelayed).to_string();
        [words::clean(program.name), said, today, written, dropped, String::new()]
    }));
    let fails = if ring.storage_fails { "; storage takes nothing\n" } else { "\n" };
    [&grid(rows), "\n", &bytes(ring.waiting), " of ", &bytes(ring.size), " wait to be written", fails]
        .concat()
}

/// A size for a person.
fn bytes(count: u64) -> String {
    let (unit, factor) = match count {
        0..10_000 => return count.to_string() + " B",
        10_000..10_000_000 => (" kB", 1000),
        10_000_000..10_000_000_000 => (" MB", 1_000_000),
        _ => (" GB", 1_000_000_000),
    };
    (count / factor).to_string() + unit
}
