//! From the records of the log ring to lines: of one stream, as far as its lines are in no file yet.

use super::line::Line;
use crate::config::StreamSettings;
use crate::log_text::DROPPED;
use crate::log_text::lines::{Cutter, When};
use crate::sys::log_ring::{NOTICE, Notice, RECORD_BYTES, Read, Record, Ring};

/// What was heard of a stream.
#[derive(Debug, Default)]
pub struct Ear {
    /// Up to this position of the ring; may be within a record.
    pub at: u64,
    /// The beginning of the line that goes on at `at`, of a file.
    pub begun: Option<Line>,
    cutter: Cutter,
}

impl Ear {
    /// Takes a record of this stream, if it is one; each line that is whole now is given away.
    pub fn hear(
        &mut self,
        stream: &StreamSettings,
        record: &Record,
        bytes: &[u8],
        give: &mut dyn FnMut(Line),
    ) {
        let start = record.position + RECORD_BYTES;
        let is_own = record.stream & !NOTICE == stream.number && record.generation == stream.generation;
        if !is_own || start + bytes.len() as u64 <= self.at {
            return;
        }
        let when = When { mono_ms: record.mono_ms, wall_ms: record.wall_ms };
        let from = self.at.saturating_sub(start);
        self.at = record.end;
        if record.stream & NOTICE != 0 {
            if let Some(notice) = Notice::from_bytes(bytes) {
                self.lose(notice.torn, notice.cut);
                let counts = [notice.lines, notice.bytes].map(|count| count.to_string());
                let text = ["-- ", &counts[0], DROPPED[0], &counts[1], DROPPED[1]].concat();
                give(Line::heard(when, text.into()));
            }
            return;
        }
        if record.unsure && from == 0 {
            self.lose(true, true);
        }
        let begun = &mut self.begun;
        self.cutter.take(bytes.get(from as usize..).unwrap_or_default(), start + from, when, &mut |line| {
            give(match begun.take() {
                Some(begun) => Line { text: [&begun.text, line.text].concat(), ..begun },
                None => Line::heard(line.when, line.text.to_vec()),
            });
        });
    }

    /// Bytes were lost here: in the middle of a line (`is_cut`), or up to within one (`is_torn`).
    fn lose(&mut self, is_torn: bool, is_cut: bool) {
        if is_cut {
            self.cutter.forget();
            self.begun = None;
            self.cutter.discards = is_torn;
        }
    }

    /// The line that has no end yet.
    pub fn partial(&mut self) -> Option<Line> {
        let heard = self.cutter.partial().map(|(text, when, _)| Line::heard(when, text.to_vec()));
        match (self.begun.take(), heard) {
            (Some(begun), Some(heard)) => Some(Line { text: [begun.text, heard.text].concat(), ..begun }),
            (begun, heard) => begun.or(heard),
        }
    }

    /// Some of what comes next was overwritten before it was read.
    pub fn overtaken(&mut self) {
        self.lose(true, true);
    }
}

/// Every record from a position on; the position behind the last one, and whether some were overwritten before.
pub fn each_record(ring: &Ring, mut position: u64, take: &mut dyn FnMut(&Record, &[u8])) -> (u64, bool) {
    let (mut buffer, mut overtaken) = (Vec::new(), false);
    loop {
        let head = ring.header().head.load(std::sync::atomic::Ordering::SeqCst);
        match ring.read(position, &mut buffer) {
            Read::Nothing => return (position.max(head), overtaken),
            Read::Gone(tail) => (position, overtaken) = (tail, true),
            Read::Record(record) => {
                position = record.end;
                take(&record, &buffer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(position: u64, stream: u16) -> Record {
        Record { position, end: position + 100, stream, generation: 3, ..Record::default() }
    }

    fn texts(heard: Vec<Line>) -> Vec<String> {
        heard.into_iter().map(|line| String::from_utf8(line.text).unwrap()).collect()
    }

    #[test]
    fn a_line_that_a_file_begins_goes_on_in_the_ring() {
        let stream = StreamSettings { number: 4, generation: 3, ..StreamSettings::default() };
        let begun = Line { text: b"be".to_vec(), wall: "then".into(), mono_ms: None };
        let mut ear = Ear { at: 1000 + RECORD_BYTES + 2, begun: Some(begun), ..Ear::default() };
        let mut heard = Vec::new();
        for (record, bytes) in [
            (record(500, 4), &b"is in the file\n"[..]),
            (record(1000, 4), b"begun\nnext\nla"),
            (record(1200, 5), b"another's\n"),
            (Record { generation: 2, ..record(1300, 4) }, b"a former one's\n"),
        ] {
            ear.hear(&stream, &record, bytes, &mut |line| heard.push(line));
        }
        assert_eq!(heard[0].wall, "then");
        assert_eq!(texts(heard), ["begun", "next"]);
        assert_eq!(ear.partial().map(|line| line.text), Some(b"la".to_vec()));
    }

    #[test]
    fn the_rest_of_a_line_that_was_cut_is_no_line() {
        let stream = StreamSettings { number: 4, generation: 3, ..StreamSettings::default() };
        let mut ear = Ear::default();
        let mut heard = Vec::new();
        let notice: Vec<u8> = [7u64, 300, 1, 1].into_iter().flat_map(u64::to_ne_bytes).collect();
        for (record, bytes) in [
            (record(0, 4), &b"a\nlost wi"[..]),
            (record(100, 4 | NOTICE), &notice),
            (record(200, 4), b"rest\nb\n"),
        ] {
            ear.hear(&stream, &record, bytes, &mut |line| heard.push(line));
        }
        assert_eq!(texts(heard), ["a", "-- 7 lines (300 bytes) dropped: log was overdue", "b"]);
        ear.overtaken();
        ear.hear(&stream, &record(300, 4), b"rest\nc\n", &mut |line| assert_eq!(line.text, b"c"));
    }
}
