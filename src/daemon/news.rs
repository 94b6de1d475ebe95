//! What happened lately: a ring of state changes with a sequence number, for subscribers and for
//! those who ask later. Fixed size; the oldest falls out, and the gap in the numbers says so.

use crate::protocol::{self, EVENT_PAGE_COUNT};
use crate::supervisor::State;

/// Changes remembered. A storm of all programs and their return fits.
const RING_COUNT: usize = 256;

/// The ring.
pub struct News {
    ring: Vec<protocol::Event>,
    /// Sequence number of the first change that was added here: from 1, or where a former supervisor stopped.
    first: u64,
    /// Sequence number of the next change.
    next: u64,
}

impl News {
    /// Empty, with all the memory it will ever need. A former supervisor would have used this number next: what it
    /// remembered is a gap.
    pub fn new(next: u64) -> Self {
        News { ring: Vec::with_capacity(RING_COUNT), first: next.max(1), next: next.max(1) }
    }

    /// Sequence number of the next change.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// Adds a change; its number is assigned here.
    pub fn add(&mut self, mut event: protocol::Event) {
        event.seq = self.next;
        let place = self.place(self.next);
        if self.ring.len() < RING_COUNT {
            self.ring.push(event);
        } else {
            self.ring[place] = event;
        }
        self.next += 1;
    }

    fn place(&self, seq: u64) -> usize {
        (seq - self.first) as usize % RING_COUNT
    }

    /// A page of changes from this number on (or from the oldest there is), and the number after.
    pub fn page(&self, from: u64) -> (heapless::Vec<protocol::Event, EVENT_PAGE_COUNT>, u64) {
        let oldest = self.next - self.ring.len() as u64;
        let from = from.clamp(oldest, self.next);
        let until = self.next.min(from + EVENT_PAGE_COUNT as u64);
        let events = (from..until).map(|seq| self.ring[self.place(seq)].clone()).collect();
        (events, until)
    }
}

/// A state as it travels.
pub fn travel(state: State) -> protocol::State {
    match state {
        State::Stopped => protocol::State::Stopped,
        State::Starting => protocol::State::Starting,
        State::Running => protocol::State::Running,
        State::Backoff => protocol::State::Backoff,
        State::Stopping => protocol::State::Stopping,
        State::Exited => protocol::State::Exited,
        State::Fatal => protocol::State::Fatal,
        State::Paused => protocol::State::Paused,
        State::Held => protocol::State::Held,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change() -> protocol::Event {
        protocol::Event {
            seq: 0,
            at_ms: 0,
            name: protocol::Name::new(),
            from: protocol::State::Stopped,
            to: protocol::State::Starting,
            pid: 0,
            reason: Default::default(),
        }
    }

    #[test]
    fn a_reader_that_was_too_slow_sees_a_gap_and_then_everything_there_is() {
        for first in [0, 1, 77] {
            let mut news = News::new(first);
            for _ in 0..RING_COUNT + 10 {
                news.add(change());
            }
            let (mut seen, mut from) = (Vec::new(), 1);
            loop {
                let (page, next) = news.page(from);
                if page.is_empty() {
                    break;
                }
                seen.extend(page.iter().map(|event| event.seq));
                from = next;
            }
            let oldest = first.max(1) + 10;
            assert_eq!(seen, (oldest..oldest + RING_COUNT as u64).collect::<Vec<_>>());
        }
    }
}
