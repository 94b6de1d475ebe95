//! From the ring's records to the text of a file: what was said is cut into lines, limited, folded, stamped; what was
//! lost is said in its place. Lines for syslog and the kernel's log go there at once.

use std::sync::atomic::Ordering::SeqCst;

use super::relay::Speaker;
use super::store::{BLOCK_BYTES, Store};
use super::write::Run;
use crate::config::LogStamp;
use crate::config::StreamSettings;
use crate::log_text::DROPPED;
use crate::log_text::lines::{Cutter, Fold, Line, Rate, When};
use crate::log_text::stamp::{number, stamp};
use crate::sys::log_ring::{NOTICE, Notice, RECORD_BYTES, Record, Ring, Stream, word};

/// What a line that is too long ends with; the next one goes on.
const CUT: &[u8] = b" -- goes on";

/// A stream, as it is heard.
pub(super) struct Voice<'a> {
    pub(super) stream: &'a StreamSettings,
    pub(super) words: &'static Stream,
    pub(super) target: usize,
    pub(super) cutter: Cutter,
    fold: Fold,
    rate: Rate,
    /// As it was when everything up to `done` had been heard.
    rate_then: Rate,
    /// Where the record begins in which the line that has no end yet does.
    partial_record: u64,
    /// Behind the last byte that was heard, and when that was said.
    heard_to: u64,
    when: When,
    dropped_to: u64,
}

impl<'a> Voice<'a> {
    /// Nothing is known of it until it goes back to what is stored.
    pub(super) fn new(stream: &'a StreamSettings, target: usize, ring: &Ring) -> Self {
        let words = ring.stream(stream.number.into());
        Voice {
            stream,
            words,
            target,
            cutter: Cutter::default(),
            fold: Fold::default(),
            rate: Rate::default(),
            rate_then: Rate::default(),
            partial_record: 0,
            heard_to: 0,
            when: When::default(),
            dropped_to: 0,
        }
    }

    /// Back to what is stored: what was heard since will be heard again.
    pub(super) fn go_back(&mut self) {
        self.cutter = Cutter::default();
        self.cutter.discards = self.words.storer[word::DISCARDS].load(SeqCst) == self.mark(true);
        self.fold = Fold::default();
        self.rate = self.rate_then;
        self.heard_to = self.words.done.load(SeqCst);
        self.dropped_to = 0;
    }

    /// Everything that was heard, but for a line without end, is stored.
    pub(super) fn is_stored(&mut self) {
        self.rate_then = self.rate;
    }

    /// Yes or no, as a word that is of this generation of the stream.
    pub(super) fn mark(&self, yes: bool) -> u64 {
        u64::from(self.stream.generation) << 1 | u64::from(yes)
    }

    /// Where the record begins in which the line that has no end yet does.
    pub(super) fn pending(&self) -> Option<u64> {
        self.cutter.partial().map(|_| self.partial_record)
    }

    /// Since when it waits.
    pub(super) fn since(&self) -> Option<u64> {
        self.cutter.partial().map(|(_, when, _)| when.mono_ms)
    }

    /// Whether a record is to be heard; and whether something before it was overwritten meanwhile.
    fn is_there(&mut self, record: &Record) -> (bool, bool) {
        let to = self.words.ring_dropped_to.load(SeqCst);
        let end = to & !7;
        if record.position < end {
            return (false, false);
        }
        if to != std::mem::replace(&mut self.dropped_to, to)
            && (self.heard_to < end || self.pending().is_some_and(|from| from < end))
        {
            self.cutter.forget();
            self.cutter.discards = to & 1 != 0;
            return (true, true);
        }
        (true, false)
    }
}

impl Store<'_> {
    /// Takes one record of a voice.
    pub(super) fn hear(&mut self, at: usize, record: &Record, bytes: &[u8]) {
        let voice = &mut self.voices[at];
        let target = voice.target;
        let start = record.position + RECORD_BYTES;
        let end = start + bytes.len() as u64;
        let done = voice.words.done.load(SeqCst);
        if self.batches[target].held_from.is_some() || end <= done {
            return;
        }
        let (is_there, is_cut) = voice.is_there(record);
        if !is_there {
            return;
        }
        if is_cut && self.batches[target].open_by == Some(at) {
            // What is written of a line goes on in what was overwritten.
            self.batches[target].end_line();
        }
        let voice = &mut self.voices[at];
        voice.when = When { mono_ms: record.mono_ms, wall_ms: record.wall_ms };
        voice.heard_to = end;
        match Notice::from_bytes(bytes).filter(|_| record.stream & NOTICE != 0) {
            Some(notice) => self.hear_notice(at, record.position, end, &notice),
            None => {
                if record.unsure && done <= start {
                    self.tear(at, true);
                }
                self.hear_words(
                    at,
                    record.position,
                    start.max(done),
                    &bytes[done.saturating_sub(start) as usize..],
                );
            }
        }
        self.account_for_discarded(at, record.position, end);
        if self.targets[target].sync || self.targets[target].is_device {
            self.write(target, self.targets[target].is_device);
            if self.targets[target].sync
                && let Err(error) = self.targets[target].sync()
            {
                self.targets[target].works(Err(&error));
            }
        }
    }

    fn hear_words(&mut self, at: usize, record: u64, mut start: u64, mut bytes: &[u8]) {
        if self.voices[at].cutter.discards {
            // The rest of a cut line first: it is counted before anything behind it can be stored.
            let length = bytes.iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |end| end + 1);
            let when = self.voices[at].when;
            self.voices[at].cutter.take(&bytes[..length], start, when, &mut |_| ());
            start += length as u64;
            bytes = &bytes[length..];
            self.account_for_discarded(at, record, start);
        }
        // Taken out while its lines are looked at.
        let voice = &mut self.voices[at];
        let (target, when) = (voice.target, voice.when);
        let mut first = voice.pending().unwrap_or(record);
        let mut cutter = std::mem::take(&mut voice.cutter);
        cutter.take(bytes, start, when, &mut |line| {
            self.line(at, first, &line);
            first = record;
        });
        if self.batches[target].held_from.is_none() {
            self.voices[at].partial_record = first;
            self.voices[at].cutter = cutter;
        }
    }

    fn hear_notice(&mut self, at: usize, record: u64, end: u64, notice: &Notice) {
        let batch = &mut self.batches[self.voices[at].target];
        if notice.cut {
            self.tear(at, notice.torn);
        } else if batch.open_by == Some(at) {
            // Nothing is lost here, but the beginning of a line is in the file already.
            batch.text.extend_from_slice(CUT);
        }
        self.say(at, &[notice.lines, notice.bytes], &DROPPED.map(str::as_bytes));
        self.account(at, Run { first: record, to: end, ..Run::default() }, self.voices[at].when);
    }

    /// What is there of a line is none, and maybe neither is what follows up to its end.
    fn tear(&mut self, at: usize, is_torn: bool) {
        let voice = &mut self.voices[at];
        voice.cutter.discard();
        voice.cutter.discards = is_torn;
        self.batches[voice.target].end_line();
    }

    fn account_for_discarded(&mut self, at: usize, first: u64, end: u64) {
        let voice = &mut self.voices[at];
        let (lines, bytes) = std::mem::take(&mut voice.cutter.discarded);
        let to = voice.cutter.partial().map_or(end, |(_, _, at)| at);
        if bytes > 0 {
            let when = voice.when;
            let run = Run { first, to, lines, bytes, lost_lines: lines, lost_bytes: bytes, ..Run::default() };
            self.account(at, run, when);
        }
    }

    /// Something becomes part of what is to be written; its text is there already.
    fn account(&mut self, at: usize, mut run: Run, when: When) {
        run.discards = self.voices[at].cutter.discards;
        self.batches[self.voices[at].target].add(run.of(at), when.mono_ms);
    }

    /// A line is whole (or as long as it may be).
    fn line(&mut self, at: usize, first: u64, line: &Line) {
        let voice = &mut self.voices[at];
        let (target, stream) = (voice.target, voice.stream);
        let batch = &self.batches[target];
        if batch.held_from.is_some() {
            return;
        }
        let ends = u64::from(!line.is_cut);
        let mut run =
            Run { first, to: line.end, lines: ends, bytes: line.text.len() as u64 + ends, ..Run::default() };
        // The rest of a line whose beginning is written belongs to it.
        if batch.open_by != Some(at) {
            if !voice.rate.passes(stream.rate, line.when.mono_ms) {
                (run.lost_lines, run.lost_bytes) = (run.lines, run.bytes);
                return self.account(at, run, line.when);
            }
            if stream.fold && voice.fold.is_again(line.text) {
                return self.account(at, run, line.when);
            }
        }
        self.relay(at, line.text, line.when, line.end);
        // A stamp and two notices have room besides.
        let limit = match self.targets[target].maxbytes {
            0 => BLOCK_BYTES,
            max => BLOCK_BYTES.min(max as usize),
        };
        let batch = &self.batches[target];
        if !batch.text.is_empty() && batch.text.len() + line.text.len() + 64 > limit {
            self.write(target, false);
            if self.batches[target].held_from.is_some() {
                return;
            }
        }
        self.say_counts(at);
        self.begin_line(at, line.when);
        let batch = &mut self.batches[target];
        if !self.targets[target].path.is_empty() {
            batch.text.extend_from_slice(line.text);
            batch.text.extend_from_slice(if line.is_cut { CUT } else { b"" });
        }
        batch.open_by = Some(at);
        batch.end_line();
        self.account(at, run, line.when);
    }

    fn relay(&mut self, at: usize, text: &[u8], when: When, end: u64) {
        let Voice { stream, words, .. } = &self.voices[at];
        if !(stream.syslog || stream.kmsg) || words.relayed.load(SeqCst) >= end {
            return;
        }
        let speaker = Speaker { name: &stream.name, is_err: stream.is_err };
        let mut lost = u64::from(stream.syslog && self.relay.syslog(&speaker, text, when));
        lost += u64::from(stream.kmsg && self.relay.kernel(&speaker, text, when));
        words.storer[word::UNRELAYED].fetch_add(lost, SeqCst);
        words.relayed.store(end, SeqCst);
    }

    /// A new line begins with its stamp, unless it is the rest of one.
    fn begin_line(&mut self, at: usize, when: When) {
        let voice = &self.voices[at];
        let (target, batch) = (&self.targets[voice.target], &mut self.batches[voice.target]);
        if batch.open_by == Some(at) {
            return;
        }
        batch.end_line();
        let kind = if target.is_device { LogStamp::None } else { voice.stream.stamp };
        if !target.path.is_empty() {
            // Lines that come together were said at the same moment.
            let (last, text) = &mut self.stamped;
            if std::mem::replace(last, (kind, when)) != (kind, when) {
                text.clear();
                stamp(text, kind, when.wall_ms, when.mono_ms);
            }
            batch.text.extend_from_slice(text);
        }
    }

    /// A line of our own: `-- `, and numbers with words behind each.
    fn say(&mut self, at: usize, numbers: &[u64], words: &[&[u8]]) {
        let voice = &self.voices[at];
        let (target, when) = (voice.target, voice.when);
        self.batches[target].end_line();
        self.begin_line(at, when);
        if !self.targets[target].path.is_empty() {
            let text = &mut self.batches[target].text;
            text.extend_from_slice(b"-- ");
            for (value, words) in numbers.iter().zip(words) {
                number(text, *value, 1);
                text.extend_from_slice(words);
            }
            text.push(b'\n');
        }
    }

    /// What was counted and not written.
    fn say_counts(&mut self, at: usize) {
        let voice = &mut self.voices[at];
        let (limit, first) = (voice.stream.rate, voice.heard_to);
        let repeats = std::mem::take(&mut voice.fold.repeats);
        let dropped = std::mem::take(&mut voice.rate.dropped);
        if repeats > 0 {
            self.say(at, &[repeats], &[b" times the last line again"]);
        }
        if dropped > 0 {
            let words: [&[u8]; 2] = [b" lines dropped: more than ", b" per second"];
            self.say(at, &[dropped, limit.into()], &words);
        }
        let batch = &mut self.batches[self.voices[at].target];
        if repeats + dropped > 0 {
            batch.extend(at, first);
        }
    }

    /// Before a target is written: what was counted, and (all, or what has waited its time) lines without end.
    pub(super) fn close_up(&mut self, target: usize, all: bool) {
        for at in 0..self.voices.len() {
            if self.voices[at].target != target {
                continue;
            }
            self.say_counts(at);
            let voice = &self.voices[at];
            let Some((text, when, _)) = voice.cutter.partial() else { continue };
            let (first, to) = (voice.partial_record, voice.heard_to);
            if !all && when.mono_ms.saturating_add(self.settings.flush_ms) > self.now_ms {
                continue;
            }
            let text = text.to_vec();
            self.relay(at, &text, when, to);
            self.begin_line(at, when);
            let batch = &mut self.batches[target];
            if !self.targets[target].path.is_empty() {
                batch.text.extend_from_slice(&text);
            }
            batch.open_by = Some(at);
            self.voices[at].cutter.forget();
            self.account(at, Run { first, to, bytes: text.len() as u64, ..Run::default() }, when);
        }
    }
}
