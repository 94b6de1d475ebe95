//! The collector: pipes into the ring, and the storer watched. Waits in one place, for pipes, an order to end and the
//! storer's end; and, where the ring is full, for the storer, but not for long: programs wait then.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::Ordering::SeqCst;

use crate::config::{LogSettings, StreamSettings};
use crate::sys::log_collect::{Collector, Taken};
use crate::sys::log_ring::{Ring, STREAM_COUNT};
use crate::sys::poll::{self, Interest, Poller};
use crate::sys::signal::{self, CallSignal, TermSignal};
use crate::sys::{SysError, clock, console, file, futex, process};
use crate::time::{Instant, Millis};

use super::store::Store;

/// Takes of each pipe when told to end: a program that writes without end would keep this process for ever. What is
/// left in the pipes is the next one's.
const LAST_TAKES: usize = 64;
/// How long a storer that falls behind is waited for then: whoever is on the way down does not mind.
const LAST_PATIENCE: Millis = Millis(2000);
/// A pipe that had so much has more by now, likely.
const MUCH: u64 = 4096;
/// Rounds of pipes between two looks at anything else.
const ROUNDS: usize = 64;
/// Until drops are told of streams that say nothing any more.
const TELL_PAUSE: Millis = Millis(500);
/// Between two storers that end by themselves.
const STORER_PAUSE: Millis = Millis(200);

const TERM: u64 = 0;
const STORER: u64 = 1;
const PIPES: u64 = 2;
const CALL: u64 = 3;

/// The collector's process.
struct Collecting<'a> {
    settings: &'a LogSettings,
    ring: Ring,
    collector: Collector<'a>,
    poller: Poller,
    /// By number: its place among the settings, plus 1.
    places: [u16; STREAM_COUNT],
    storer: Option<Storer>,
    next_storer: Instant,
    /// Since when there has been too little room; none: there is enough.
    full_since: Option<Instant>,
    /// Who waits for something in the ring was told of everything before this.
    head_told: u64,
    /// The drops that all streams were looked at for.
    drops_told: u32,
    /// Told to end: the storer writes everything and ends, then we do.
    is_ending: bool,
    /// Who has the pipes' other ends.
    guard: u32,
}

struct Storer {
    pid: u32,
    handle: OwnedFd,
}

/// Runs until told to end; the exit code.
pub fn run(settings: &LogSettings, ring: Ring) -> u8 {
    process::set_title(c"multusd-log");
    match Collecting::new(settings, ring).and_then(|mut collecting| collecting.run()) {
        Ok(()) => 0,
        Err(error) => {
            console::complain(&["log: ", &error.to_string()].concat());
            1
        }
    }
}

impl<'a> Collecting<'a> {
    fn new(settings: &'a LogSettings, ring: Ring) -> Result<Self, SysError> {
        let mut places = [0; STREAM_COUNT];
        for (index, stream) in settings.streams.iter().enumerate() {
            places[usize::from(stream.number) % STREAM_COUNT] = index as u16 + 1;
        }
        ring.header().storer_ends.store(0, SeqCst);
        Ok(Collecting {
            settings,
            ring,
            collector: Collector::new(ring, poll::borrow(settings.ring as i32)),
            poller: Poller::new()?,
            places,
            storer: None,
            next_storer: Instant(0),
            full_since: None,
            head_told: 0,
            drops_told: ring.drop_count().wrapping_sub(1),
            is_ending: false,
            guard: std::os::unix::process::parent_id(),
        })
    }

    fn run(&mut self) -> Result<(), SysError> {
        signal::block_end()?;
        let term = TermSignal::new()?;
        self.poller.add(term.as_fd(), TERM, Interest::Read)?;
        let call = CallSignal::new()?;
        self.poller.add(call.as_fd(), CALL, Interest::Read)?;
        self.poller.add(poll::borrow(self.settings.poll as i32), PIPES, Interest::Read)?;
        loop {
            self.tend_storer();
            self.take_what_is_wanted();
            if self.is_ending && self.storer.is_none() && self.ring.header().storer_ends.load(SeqCst) == 2 {
                return Ok(());
            }
            let deadline = match &self.storer {
                None => Some(self.next_storer),
                // Somebody may have said the last thing for long.
                Some(_) => (self.ring.drop_count() != self.drops_told).then(|| clock::now() + TELL_PAUSE),
            };
            let _ = self.poller.arm(deadline);
            for token in self.poller.wait(true) {
                match token {
                    PIPES => self.take_ready(),
                    TERM if !self.is_ending => self.begin_end(),
                    STORER => self.reap_storer(),
                    CALL => call.take(),
                    _ => self.tell_of_drops(),
                }
            }
        }
    }

    /// Takes from every pipe that has something, as long as one has; bounded.
    fn take_ready(&mut self) {
        self.tell_of_drops();
        let set = poll::borrow(self.settings.poll as i32);
        for _ in 0..ROUNDS {
            let ready = poll::ready_in(set);
            if ready.is_empty() {
                return;
            }
            let (mut is_known, mut is_more) = (false, false);
            let mut silent = heapless::Vec::<u16, STREAM_COUNT>::new();
            for number in ready {
                let place = self.places.get(number as usize).copied().unwrap_or(0);
                let settings = self.settings;
                if let Some(stream) = settings.streams.get(usize::from(place).wrapping_sub(1)) {
                    is_known = true;
                    let count = self.take(stream);
                    is_more |= count >= MUCH;
                    if count == 0 {
                        // At most one of each.
                        let _ = silent.push(place - 1);
                    }
                }
            }
            if !silent.is_empty() && std::os::unix::process::parent_id() != self.guard {
                self.forget(&silent);
            }
            if !is_known {
                // A new program's, of which only our successor knows.
                return file::pause(10);
            }
            if !is_more {
                // Waiting says whether there is something as well as looking does.
                return;
            }
        }
    }

    /// Pipes that are ready and have nothing have lost their writers. While there is a guard it is one of them; where it is dead, nobody
    /// will ever write to them again, and they would be ready for ever. After the last of them there is nothing to do.
    fn forget(&mut self, silent: &[u16]) {
        let (set, settings) = (poll::borrow(self.settings.poll as i32), self.settings);
        for stream in silent.iter().filter_map(|index| settings.streams.get(usize::from(*index))) {
            poll::remove_from(set, poll::borrow(stream.pipe as i32));
            self.places[usize::from(stream.number) % STREAM_COUNT] = 0;
        }
        if self.places.iter().all(|place| *place == 0) && !self.is_ending {
            self.begin_end();
        }
    }

    /// Tells of what was dropped, also of streams that say nothing any more.
    fn tell_of_drops(&mut self) {
        self.leave_trouble();
        let count = self.ring.drop_count();
        if count == self.drops_told {
            return;
        }
        let mut told = self.settings.streams.iter();
        let all = self.full_since.is_none();
        if told.all(|stream| self.collector.tell_of_drops(stream.number.into(), stream.generation, all))
            && all
        {
            self.drops_told = count;
        }
        self.told(false);
    }

    /// Takes once; how many bytes.
    fn take(&mut self, stream: &StreamSettings) -> u64 {
        let (number, pipe) = (usize::from(stream.number), poll::borrow(stream.pipe as i32));
        loop {
            match self.collector.take(number, stream.generation, pipe) {
                Taken::Nothing => {
                    self.told(false);
                    return 0;
                }
                Taken::Bytes(count) => {
                    let is_device = stream.path.as_ref().is_some_and(|path| path.starts_with("/dev/"));
                    self.told(stream.sync || stream.syslog || stream.kmsg || is_device);
                    return count;
                }
                Taken::Full => self.make_room(),
            }
        }
    }

    /// Something may be in the ring, if only a notice: who wants to know of it is woken.
    fn told(&mut self, at_once: bool) {
        let header = self.ring.header();
        let head = header.head.load(SeqCst);
        if head == std::mem::replace(&mut self.head_told, head) {
            return;
        }
        if at_once || head >= header.wake_at.load(SeqCst) {
            header.wake_at.store(u64::MAX, SeqCst);
            self.ring.call_storer();
        }
        if header.followers.load(SeqCst) != 0 {
            header.follower_bell.fetch_add(1, SeqCst);
            futex::wake(&header.follower_bell);
        }
        self.leave_trouble();
    }

    /// The storer has caught up.
    fn leave_trouble(&mut self) {
        let header = self.ring.header();
        let head = header.head.load(SeqCst);
        if self.full_since.is_some() && head - header.stored.load(SeqCst).min(head) < self.ring.size() / 2 {
            self.full_since = None;
        }
    }

    /// The ring is full of what is not stored. The storer is given a little time, once; then the oldest is given up.
    fn make_room(&mut self) {
        let header = self.ring.header();
        let now = clock::now();
        let patience = if self.is_ending { LAST_PATIENCE } else { Millis(self.settings.overdue_ms / 2) };
        let until = *self.full_since.get_or_insert(now) + patience;
        let bell = header.room_bell.load(SeqCst);
        self.ring.call_storer();
        let may_wait = header.storage_fails.load(SeqCst) == 0 && self.storer.is_some();
        match until.since(now) {
            left if left > Millis::ZERO && may_wait => futex::wait(&header.room_bell, bell, Some(left)),
            _ => self.collector.overwrite(),
        }
    }

    /// Told to end: what programs have said by now is taken, then the storer is told.
    fn begin_end(&mut self) {
        self.is_ending = true;
        self.take_all();
        self.ring.header().storer_ends.store(1, SeqCst);
        self.ring.call_storer();
    }

    /// What programs have said by now; bounded.
    fn take_all(&mut self) {
        let settings = self.settings;
        for stream in &settings.streams {
            let takes = (0..LAST_TAKES).take_while(|_| self.take(stream) > 0).count();
            debug_assert!(takes <= LAST_TAKES);
        }
    }

    /// Everything is to be synced, or written: what is in the pipes belongs to it. Also what a former one was asked.
    fn take_what_is_wanted(&mut self) {
        let header = self.ring.header();
        let wanted = [&header.sync_wanted, &header.flush_wanted].map(|word| word.load(SeqCst));
        let taken = [&header.sync_taken, &header.flush_taken];
        if taken.map(|word| word.load(SeqCst)) != wanted {
            self.take_all();
            taken.iter().zip(wanted).for_each(|(word, wanted)| word.store(wanted, SeqCst));
            self.ring.call_storer();
        }
    }

    fn tend_storer(&mut self) {
        let ended = self.ring.header().storer_ends.load(SeqCst) == 2;
        if self.storer.is_some() || ended || self.next_storer > clock::now() {
            return;
        }
        self.next_storer = clock::now() + STORER_PAUSE;
        let own = std::process::id();
        match process::fork() {
            Ok(Some(pid)) => match process::open_process(pid) {
                Ok(handle) => {
                    let _ = self.poller.add(handle.as_fd(), STORER, Interest::Read);
                    self.storer = Some(Storer { pid, handle });
                }
                // It is of no use if nobody hears of its end.
                Err(_) => {
                    process::kill_if_there(pid as i32, signal::KILL);
                    process::wait_for(pid);
                }
            },
            Ok(None) => {
                process::end(if process::die_with(own) { store(self.settings, self.ring) } else { 1 })
            }
            Err(_) => {}
        }
    }

    fn reap_storer(&mut self) {
        let has_ended = |storer: &mut Storer| process::has_ended(storer.handle.as_fd());
        if let Some(storer) = self.storer.take_if(has_ended) {
            self.poller.remove(storer.handle.as_fd());
            process::wait_for(storer.pid);
        }
    }
}

/// The storer's process.
fn store(settings: &LogSettings, ring: Ring) -> i32 {
    process::set_title(c"multusd-store");
    // What it takes is in the ring; pipes and ring stay the collector's.
    file::close_range(3, i32::MAX);
    let header = ring.header();
    let mut store = Store::new(settings, &ring);
    loop {
        let bell = header.storer_bell.load(SeqCst);
        let is_last = header.storer_ends.load(SeqCst) == 1;
        let due = store.work(clock::now());
        ring.call_collector();
        if is_last {
            store.finish();
            header.storer_ends.store(2, SeqCst);
            return 0;
        }
        let now = clock::now();
        futex::wait(&header.storer_bell, bell, due.map(|due| due.since(now) + Millis(1)));
    }
}
