//! The link to one other machine: when a packet is made, and whether one that came says how things are *now*. Reads no clock,
//! touches nothing, keeps nothing beyond its process's life.
//!
//! Every packet says which packet of the other side its maker has heard last. So whoever gets one knows that it was made after
//! that, by its own clock and in its own present life: what was recorded, held back or made for a former life proves
//! nothing, and its states are not taken. Who sends asks for an answer, and again soon where none comes; who answers says
//! whether the states were taken.

use crate::time::{Instant, Millis};

use super::packet::{Body, Head, Heard, Session};

/// Two packets of one's own accord are at least so far apart, and so are answers to a machine that has not shown yet that it is alive.
const GAP: Millis = Millis(5);
/// The other side's timeout cannot make us send more often.
const REPEAT_MIN: Millis = Millis(20);

/// What became of a packet that was sealed with the right key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It says how things are now.
    Taken,
    /// It cannot show that it was made just now.
    Stale,
    /// It was here before, or one that was made after it.
    Replayed,
}

/// What is known of the other side's present life.
struct Theirs {
    session: Session,
    /// The highest number of a packet.
    count: u64,
    /// Its time.
    time: u64,
    /// Its states were taken.
    taken: bool,
}

/// One machine's end of it.
pub struct Link {
    session: Session,
    timeout: Millis,
    repeat: Millis,
    /// How long the other side believes us.
    their_timeout: Option<Millis>,
    count: u64,
    /// Time of the last packet made; no two have the same.
    made: u64,
    theirs: Option<Theirs>,
    /// The newest of our packets that came back.
    latest: u64,
    /// Until then what was heard is how things are.
    live_until: Instant,
    /// The first packet since which nothing was answered that was asked.
    unanswered: Option<u64>,
    /// When the last one of our own accord was due, and went.
    begun: Instant,
    asked: Instant,
    greeted: Instant,
    /// When the other side asked last.
    was_asked: Instant,
    /// When the next one is due; never, where nothing is to be said.
    next: Instant,
    /// How long an answer took last.
    round_trip: Millis,
}

impl Link {
    /// One that has heard nothing yet. `repeat`: it has states to say, so often; none: it only answers.
    pub fn new(session: Session, timeout: Millis, repeat: Option<Millis>, now: Instant) -> Link {
        Link {
            session,
            timeout,
            repeat: repeat.unwrap_or(Millis::ZERO),
            their_timeout: None,
            count: 0,
            made: 0,
            theirs: None,
            latest: 0,
            live_until: Instant(0),
            unanswered: None,
            begun: now,
            asked: Instant(0),
            greeted: Instant(0),
            was_asked: Instant(0),
            next: if repeat.is_some() { now } else { Instant::NEVER },
            round_trip: Millis::ZERO,
        }
    }

    /// What was heard is how things are.
    pub fn is_live(&self, now: Instant) -> bool {
        now < self.live_until
    }

    /// When it stops being so by itself.
    pub fn live_until(&self) -> Instant {
        self.live_until
    }

    /// When a packet is to be made ([`Link::ask`]).
    pub fn next(&self) -> Instant {
        self.next
    }

    fn sends(&self) -> bool {
        self.repeat != Millis::ZERO
    }

    /// So often, and more often where the other side is impatient: three fit into its timeout.
    fn repeat(&self) -> Millis {
        let bound = self.their_timeout.map_or(self.repeat, |timeout| Millis(timeout.0 / 3).max(REPEAT_MIN));
        self.repeat.min(bound)
    }

    /// Something has changed: that is said at once.
    pub fn change(&mut self, now: Instant) {
        if self.sends() {
            self.unanswered = None;
            self.next = now.max(self.asked + GAP);
        }
    }

    fn make(&mut self, now: Instant, wants: bool, heard: Option<Heard>) -> (Head, Body<'static>) {
        self.count += 1;
        self.made = now.0.max(self.made + 1);
        let timeout_ms = self.timeout.0.min(u32::MAX.into()) as u32;
        let body = Body { time: self.made, heard, wants, timeout_ms, states: heapless::Vec::new() };
        (Head { session: self.session, count: self.count }, body)
    }

    /// A packet of one's own accord, without its states.
    pub fn ask(&mut self, now: Instant) -> (Head, Body<'static>) {
        let theirs = self.theirs.as_ref();
        let heard =
            theirs.map(|theirs| Heard { session: theirs.session, time: theirs.time, taken: theirs.taken });
        let made = self.make(now, true, heard);
        self.asked = now;
        if self.unanswered.is_none() {
            self.unanswered = Some(self.made);
            self.begun = now;
        }
        // Soon again where nobody answers; who has been silent for long is asked twice in its time, no more.
        let repeat = self.repeat();
        let again = if self.is_live(now) {
            Millis(self.round_trip.0.clamp(repeat.0 / 10, repeat.0 / 2))
        } else {
            Millis(repeat.0 / 2)
        };
        self.next = now + again.max(GAP);
        made
    }

    /// A packet has come that was sealed with the pair's key. With it what is to be answered, if anything: made by [`Link::answer`].
    pub fn take(&mut self, now: Instant, head: &Head, body: &Body) -> (Verdict, Option<Heard>) {
        if head.session == self.session {
            return (Verdict::Replayed, None);
        }
        let ours = body.heard.filter(|heard| heard.session == self.session && heard.time <= self.made);
        let fresh = ours.filter(|heard| now < Instant(heard.time) + self.timeout);
        let mut heard = Heard { session: head.session, time: body.time, taken: false };
        let wants = body.wants;
        match (&mut self.theirs, fresh) {
            (Some(theirs), _) if theirs.session == head.session => {
                if head.count <= theirs.count {
                    return (Verdict::Replayed, None);
                }
                *theirs = Theirs { count: head.count, time: body.time, taken: fresh.is_some(), ..*theirs };
            }
            // Another life of theirs. All packets of former ones have heard less of us, so that none of them gets here again.
            (theirs, Some(heard)) if heard.time > self.latest => {
                *theirs =
                    Some(Theirs { session: head.session, count: head.count, time: body.time, taken: true });
            }
            // It may be alive, it may be a recording: the answer lets it show which. It changes nothing here.
            _ => {
                let is_in_time = now >= self.greeted + GAP;
                if wants && is_in_time {
                    self.greeted = now;
                }
                return (Verdict::Stale, Some(heard).filter(|_| wants && is_in_time));
            }
        }
        let Some(ours) = fresh else { return (Verdict::Stale, Some(heard).filter(|_| wants)) };
        heard.taken = true;
        self.latest = self.latest.max(ours.time);
        self.live_until = self.live_until.max(Instant(ours.time) + self.timeout);
        self.their_timeout = Some(Millis(body.timeout_ms.into()));
        if self.sends() {
            self.hear_answer(now, &ours);
        }
        (Verdict::Taken, Some(heard).filter(|_| wants))
    }

    /// What was asked may be answered by this.
    fn hear_answer(&mut self, now: Instant, ours: &Heard) {
        if self.unanswered.is_none_or(|asked| ours.time < asked) {
            return;
        }
        self.round_trip = now.since(Instant(ours.time));
        self.unanswered = None;
        let repeat = self.repeat();
        // Where both ask at the same time one leaves it to the other.
        let yields = now.since(self.was_asked) < repeat
            && self.theirs.as_ref().is_some_and(|theirs| self.session < theirs.session);
        let pace = if yields { Millis(repeat.0 * 3 / 2) } else { repeat };
        self.next = match ours.taken {
            true => (self.begun + pace).max(self.asked + GAP),
            // It did not believe us yet; now we know what it wants to hear.
            false => now.max(self.asked + GAP),
        };
    }

    /// The answer, without its states.
    pub fn answer(&mut self, now: Instant, heard: Heard) -> (Head, Body<'static>) {
        self.was_asked = now;
        if self.sends() && self.unanswered.is_none() && self.is_live(now) {
            // It says everything, too: the other side's pace is enough for both.
            self.next = self.next.max(now + Millis(self.repeat().0 * 3 / 2));
        }
        self.make(now, false, Some(heard))
    }
}
