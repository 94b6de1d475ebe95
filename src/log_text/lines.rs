//! Cuts what programs write into lines, wherever the pieces end; folds repeated lines and limits their rate.
//! Pure: bytes in, events out.

/// A longer line is cut: what is never ended must not be held for ever.
pub const LINE_BYTES_MAX: usize = 4096;

/// Tokens are thousandths of lines.
const TOKEN: u64 = 1000;

/// Seconds' worth of lines that may come at once.
const BURST_SECONDS: u64 = 2;

/// When something was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct When {
    /// Milliseconds since boot.
    pub mono_ms: u64,
    /// Milliseconds since 1970.
    pub wall_ms: u64,
}

/// The pieces of one stream become lines.
#[derive(Debug, Default)]
pub struct Cutter {
    /// The line that has no end yet, and when it began.
    partial: Vec<u8>,
    since: When,
    /// Where its first byte is in the ring.
    at: u64,
    /// The beginning of the line was lost: so is the rest.
    pub discards: bool,
    /// Line ends and bytes that were discarded, and not taken account of yet.
    pub discarded: (u64, u64),
}

/// A line without its end.
pub struct Line<'a> {
    /// What it says.
    pub text: &'a [u8],
    /// When it began.
    pub when: When,
    /// It is too long and goes on in the next one.
    pub is_cut: bool,
    /// The position in the ring behind it.
    pub end: u64,
}

impl Cutter {
    /// Takes a piece that begins at a position of the ring; every line that is whole now is handed on.
    pub fn take(&mut self, mut piece: &[u8], mut at: u64, when: When, line: &mut dyn FnMut(Line)) {
        while !piece.is_empty() {
            let ending = piece.iter().position(|byte| *byte == b'\n');
            let mut length = ending.unwrap_or(piece.len());
            let mut used = (length + 1).min(piece.len());
            if self.discards {
                self.discards = ending.is_none();
                self.discarded.0 += u64::from(ending.is_some());
                self.discarded.1 += used as u64;
            } else {
                if self.partial.is_empty() {
                    (self.since, self.at) = (when, at);
                }
                let room = LINE_BYTES_MAX - self.partial.len();
                let is_cut = length > room;
                if is_cut {
                    (length, used) = (room, room);
                } else if ending.is_none() {
                    return self.partial.extend_from_slice(piece);
                }
                let (when, end) = (self.since, at + used as u64);
                // Most lines are whole: no need to copy them.
                if self.partial.is_empty() {
                    line(Line { text: &piece[..length], when, is_cut, end });
                } else {
                    self.partial.extend_from_slice(&piece[..length]);
                    line(Line { text: &self.partial, when, is_cut, end });
                    self.partial.clear();
                }
            }
            (piece, at) = (&piece[used..], at + used as u64);
        }
    }

    /// The line that has no end yet: what is there of it, since when, and where it begins in the ring.
    pub fn partial(&self) -> Option<(&[u8], When, u64)> {
        (!self.partial.is_empty()).then_some((&self.partial[..], self.since, self.at))
    }

    /// It is no matter any more.
    pub fn forget(&mut self) {
        // One that was never ended is no reason to hold 4 KB; the next one may well be short.
        self.partial = Vec::new();
    }

    /// What is there of a line is no line any more.
    pub fn discard(&mut self) {
        self.discarded.1 += self.partial.len() as u64;
        self.forget();
    }
}

/// Repeated lines are counted.
#[derive(Debug, Default)]
pub struct Fold {
    last: Vec<u8>,
    is_known: bool,
    /// Not told yet.
    pub repeats: u64,
}

impl Fold {
    /// True: it is the last line again, and counted.
    pub fn is_again(&mut self, line: &[u8]) -> bool {
        if self.is_known && self.last == line {
            self.repeats += 1;
            return true;
        }
        self.is_known = true;
        self.last.clear();
        self.last.extend_from_slice(line);
        false
    }
}

/// A token bucket.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rate {
    tokens: u64,
    last_ms: Option<u64>,
    /// Lines that were dropped and are not told of yet.
    pub dropped: u64,
}

impl Rate {
    /// Whether a line may pass, `limit` per second on average; 0: no limit. A clock that goes back gives nothing.
    pub fn passes(&mut self, limit: u32, now_ms: u64) -> bool {
        if limit == 0 {
            return true;
        }
        let full = u64::from(limit) * BURST_SECONDS * TOKEN;
        let earned = match self.last_ms {
            None => full,
            Some(last) => now_ms.saturating_sub(last).saturating_mul(u64::from(limit)),
        };
        self.last_ms = Some(now_ms.max(self.last_ms.unwrap_or(0)));
        self.tokens = self.tokens.saturating_add(earned).min(full);
        match self.tokens.checked_sub(TOKEN) {
            Some(rest) => {
                self.tokens = rest;
                true
            }
            None => {
                self.dropped += 1;
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn when(mono_ms: u64) -> When {
        When { mono_ms, wall_ms: 0 }
    }

    /// Lines with when they began and where they end; the pieces lie in the ring one behind the other.
    fn cut(cutter: &mut Cutter, pieces: &[&str]) -> Vec<(String, u64, bool, u64)> {
        let (mut found, mut at) = (Vec::new(), 100);
        for (time, piece) in pieces.iter().enumerate() {
            cutter.take(piece.as_bytes(), at, when(time as u64), &mut |line| {
                let text = String::from_utf8_lossy(line.text).into_owned();
                found.push((text, line.when.mono_ms, line.is_cut, line.end));
            });
            at += piece.len() as u64;
        }
        found
    }

    #[test]
    fn a_line_in_two_pieces_is_one_and_began_with_the_first() {
        let mut cutter = Cutter::default();
        let found = cut(&mut cutter, &["one\ntw", "o\n\nthr", "ee"]);
        assert_eq!(
            found,
            [("one".into(), 0, false, 104), ("two".into(), 0, false, 108), (String::new(), 1, false, 109)]
        );
        assert_eq!(cutter.partial(), Some((&b"three"[..], when(1), 109)));
        cutter.forget();
        assert_eq!(cutter.partial(), None);
    }

    #[test]
    fn a_line_without_end_is_cut_and_nothing_of_it_is_lost() {
        let long = "x".repeat(2 * LINE_BYTES_MAX + 5);
        let found = cut(&mut Cutter::default(), &[&long[..10], &long[10..], "\nnext\n"]);
        let lengths: Vec<_> = found.iter().map(|(text, _, is_cut, _)| (text.len(), *is_cut)).collect();
        assert_eq!(lengths, [(LINE_BYTES_MAX, true), (LINE_BYTES_MAX, true), (5, false), (4, false)]);
        // One that just fits is not cut.
        let fits = "y".repeat(LINE_BYTES_MAX) + "\n";
        assert_eq!(cut(&mut Cutter::default(), &[&fits]).len(), 1);
    }

    #[test]
    fn after_a_loss_within_a_line_its_rest_is_discarded() {
        let mut cutter = Cutter { discards: true, ..Cutter::default() };
        cutter.take(b"rest", 0, when(0), &mut |_| panic!());
        assert_eq!((cutter.discards, cutter.discarded), (true, (0, 4)));
        let found = cut(&mut cutter, &[" of it\nwhole\nbegin"]);
        assert_eq!((found, cutter.discarded), (vec![("whole".into(), 0, false, 113)], (1, 11)));
        cutter.discard();
        assert_eq!((cutter.partial(), cutter.discarded), (None, (1, 16)));
    }

    #[test]
    fn a_repeated_line_is_counted_until_another_comes() {
        let mut fold = Fold::default();
        let again: Vec<_> = ["", "", "a", "a", "a", "b"].map(|line| fold.is_again(line.as_bytes())).into();
        assert_eq!(again, [false, true, false, true, true, false]);
        assert_eq!(fold.repeats, 3);
    }

    #[test]
    fn a_flood_passes_at_its_rate_after_a_burst() {
        let mut rate = Rate::default();
        // A line per millisecond for 20 s, 10 per second allowed.
        let passed = (0..20_000).filter(|ms| rate.passes(10, *ms)).count();
        assert!((215..=220).contains(&passed), "{passed}");
        assert_eq!(passed as u64 + rate.dropped, 20_000);
        // The clock went back: nothing is earned, nothing breaks.
        assert!(!rate.passes(10, 5));
        assert!(Rate::default().passes(0, 0) && Rate::default().passes(1, u64::MAX));
    }

    proptest! {
        #[test]
        fn however_the_pieces_fall_the_lines_are_the_same(
            text in "[ab\n]{0,300}", cuts in proptest::collection::vec(0usize..300, 0..10)
        ) {
            let mut cuts: Vec<usize> = cuts.into_iter().filter(|at| *at <= text.len()).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&str> = cuts.windows(2).map(|pair| &text[pair[0]..pair[1]]).collect();
            let mut cutter = Cutter::default();
            let mut all: String = cut(&mut cutter, &pieces).into_iter().map(|line| line.0 + "\n").collect();
            all += str::from_utf8(cutter.partial().map_or(&b""[..], |partial| partial.0)).unwrap();
            prop_assert_eq!(all, text);
        }
    }
}
