//! From text to targets: each part is announced in the ring before it is written and confirmed after, so that a line is
//! written once, or counted as lost, whoever is killed meanwhile.

use std::sync::atomic::Ordering::SeqCst;

use super::hear::Voice;
use super::store::{BLOCK_BYTES, Store};
use super::target::keep_below;
use crate::sys::log_claim::{Claimed, OPEN_LINE, Part};
use crate::sys::log_ring::{day, word};
use crate::sys::process;

/// A part of a batch that is of one stream.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Run {
    pub(super) voice: usize,
    /// Where its first record begins, and `done` when it is written.
    pub(super) first: u64,
    pub(super) to: u64,
    /// Line ends and bytes of the program's in it, and how many of them are not in the text.
    pub(super) lines: u64,
    pub(super) bytes: u64,
    pub(super) lost_lines: u64,
    pub(super) lost_bytes: u64,
    /// What follows is the rest of a line that is discarded.
    pub(super) discards: bool,
    /// Where its text ends.
    pub(super) text_end: usize,
}

impl Run {
    pub(super) fn of(self, voice: usize) -> Run {
        Run { voice, ..self }
    }
}

/// What a target is to get next.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) text: Vec<u8>,
    runs: Vec<Run>,
    /// Since when its first line waits.
    pub(super) since_ms: Option<u64>,
    /// The last line of the text has no end, and is this voice's.
    pub(super) open_by: Option<usize>,
    /// The same of the file.
    open_then: Option<usize>,
    /// It does not work: what it is to get stays in the ring, from this position on.
    pub(super) held_from: Option<u64>,
    /// Until then.
    pub(super) retry_ms: u64,
}

impl Batch {
    /// What comes next begins a line.
    pub(super) fn end_line(&mut self) {
        if self.open_by.take().is_some() {
            self.text.push(b'\n');
        }
    }

    /// The target ends within a line of this voice.
    pub(super) fn goes_on_from(&mut self, voice: usize) {
        (self.open_by, self.open_then) = (Some(voice), Some(voice));
    }

    pub(super) fn add(&mut self, mut run: Run, when_ms: u64) {
        run.text_end = self.text.len();
        match self.runs.last_mut() {
            Some(last) if last.voice == run.voice => {
                last.to = run.to;
                last.lines += run.lines;
                last.bytes += run.bytes;
                last.lost_lines += run.lost_lines;
                last.lost_bytes += run.lost_bytes;
                last.discards = run.discards;
                last.text_end = run.text_end;
            }
            _ => self.runs.push(run),
        }
        self.since_ms.get_or_insert(when_ms);
    }

    /// Text of our own was added; the last part of this voice's has it.
    pub(super) fn extend(&mut self, voice: usize, first: u64) {
        if let Some(run) = self.runs.iter().rfind(|run| run.voice == voice) {
            let (to, discards) = (run.to, run.discards);
            self.add(Run { voice, first, to, discards, ..Run::default() }, 0);
        }
    }

    /// Where that begins in the ring, but for lines without end.
    pub(super) fn pending(&self) -> Option<u64> {
        self.runs.iter().map(|run| run.first).chain(self.held_from).min()
    }

    /// What is in the ring still.
    pub(super) fn forget(&mut self) {
        self.text = Vec::new();
        self.runs.clear();
        self.since_ms = None;
        self.open_by = self.open_then;
    }
}

/// Why a batch is not written.
enum Fault {
    /// The ring was faster.
    Gone,
    Because(String),
}

impl Store<'_> {
    /// Where in the ring that begins which a target is to get still.
    pub(super) fn pending(&self, target: usize) -> Option<u64> {
        let voices = self.voices.iter().filter(|voice| voice.target == target);
        voices.filter_map(Voice::pending).chain(self.batches[target].pending()).min()
    }

    /// Writes what waits for a target.
    pub(super) fn write(&mut self, target: usize, all: bool) {
        if self.batches[target].held_from.is_some() {
            return;
        }
        self.close_up(target, all);
        let batch = &mut self.batches[target];
        if batch.runs.is_empty() {
            return;
        }
        let (text, runs) = (std::mem::take(&mut batch.text), std::mem::take(&mut batch.runs));
        let result = self.write_runs(target, &text, &runs);
        match &result {
            Ok(()) => self.targets[target].works(Ok(())),
            Err(Fault::Because(error)) => self.targets[target].works(Err(error)),
            Err(Fault::Gone) => {}
        }
        let batch = &mut self.batches[target];
        if let Err(fault) = result {
            batch.runs = runs;
            // A file that is opened again has its last line ended.
            if let Fault::Because(_) = fault {
                batch.open_then = None;
            }
            return self.hold(target, matches!(fault, Fault::Gone));
        }
        batch.since_ms = None;
        batch.open_then = batch.open_by;
        // The room is kept where it is needed again soon.
        if text.len() > BLOCK_BYTES / 4 {
            batch.text = text;
            batch.text.clear();
        }
        self.voices.iter_mut().filter(|voice| voice.target == target).for_each(|voice| voice.is_stored());
        if self.total > self.settings.total_maxbytes {
            self.total = keep_below(&mut self.targets, self.settings.total_maxbytes);
        }
    }

    fn write_runs(&mut self, target: usize, text: &[u8], runs: &[Run]) -> Result<(), Fault> {
        let (ring, squeeze, at_target) = (self.ring, &self.settings.compress, target);
        let target = &mut self.targets[target];
        let prepared = target.prepare(text.len() as u64, squeeze, || ring.call_storer());
        let (inode, mut size) = prepared.map_err(Fault::Because)?;
        let mut from = 0;
        for run in runs {
            let text = text.get(from..run.text_end).unwrap_or_default();
            from = run.text_end;
            let voice = &self.voices[run.voice];
            let (stream, words) = (voice.stream, voice.words);
            let Run { first, to, lines, bytes, .. } = *run;
            let open = match text.last() {
                None => words.storer[OPEN_LINE].load(SeqCst),
                Some(b'\n') => 0,
                Some(_) => voice.mark(true),
            };
            let lost = [&words.lost_lines, &words.lost_bytes].map(|word| word.load(SeqCst));
            let discards = voice.mark(run.discards);
            let after = [discards, lost[0] + run.lost_lines, lost[1] + run.lost_bytes, open];
            let part = Part { stream: stream.number, first, to, lines, bytes, inode, size, after };
            loop {
                match ring.claim(&part) {
                    Claimed::Yes => break,
                    Claimed::Gone => return Err(Fault::Gone),
                    Claimed::Busy => process::give_way(),
                }
            }
            if let Err(error) = target.append(text) {
                ring.claim_failed();
                return Err(Fault::Because(error));
            }
            ring.claim_is_stored();
            if !text.is_empty() {
                let own = run.voice;
                let others = self
                    .voices
                    .iter()
                    .enumerate()
                    .filter(|(at, other)| *at != own && other.target == at_target);
                others.for_each(|(_, other)| other.words.storer[OPEN_LINE].store(0, SeqCst));
            }
            let written = if target.path.is_empty() || target.is_device { 0 } else { text.len() as u64 };
            size += written;
            self.total += written;
            let [today, of_day, alarm] = [word::TODAY, word::DAY, word::ALARM].map(|at| &words.storer[at]);
            words.storer[word::WRITTEN].fetch_add(written, SeqCst);
            let number = day(self.now_ms);
            if of_day.swap(number, SeqCst) != number {
                today.store(0, SeqCst);
            }
            let sum = today.fetch_add(written, SeqCst) + written;
            let max = self.settings.daily_alarm;
            if max > 0 && sum > max && alarm.swap(number, SeqCst) != number {
                crate::child::report(format_args!(
                    "{}: {sum} bytes of log written today; daily_alarm = {max}",
                    stream.name
                ));
            }
        }
        Ok(())
    }
}
