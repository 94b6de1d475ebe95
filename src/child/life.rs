//! What every bundled child does besides its own work: it says when it serves, beats at the pace its heartbeat wants, and ends
//! when it is told to.

use std::cell::{Cell, RefCell};
use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd};
use std::rc::Rc;

use crate::client::{Multusd, Output};
use crate::config::{Driven, Settings};
use crate::sys::poll::{Interest, Poller, READY_COUNT_MAX};
use crate::sys::signal::{self, TermSignal};
use crate::sys::{SysError, clock, console, file, gpio, memory, process};
use crate::time::{Instant, Millis};

const TERM: u64 = u64::MAX - 1;

/// Tokens of what can be read from now.
pub type Events = heapless::Vec<u64, READY_COUNT_MAX>;

/// A child's life.
pub struct Life {
    /// What it says to multusd, and its inputs and outputs.
    pub multusd: Multusd,
    poller: Poller,
    _term: TermSignal,
    pace: Option<Millis>,
    next_beat: Instant,
    has_begun: bool,
    switched: Switched,
}

/// What outputs were switched to, until multusd was told; none: it was.
type Switched = Rc<RefCell<Vec<(String, Option<bool>)>>>;

/// When it is told again what it could not take.
const TELL_AGAIN: Millis = Millis(10);

/// Lives: `begin` prepares, `serve` returns when the child is told to end. The exit code.
pub fn live(name: &CStr, serve: impl FnOnce(&mut Life) -> Result<(), SysError>) -> u8 {
    process::set_title(name);
    match Life::begin().and_then(|mut life| serve(&mut life)) {
        Ok(()) => 0,
        Err(error) => {
            console::complain(&error.to_string());
            1
        }
    }
}

/// An output that the child owns.
pub struct Drive {
    output: Output,
    /// What is written for off and on, where it is a file.
    words: Option<[String; 2]>,
    safe: bool,
    switched: Switched,
    place: usize,
    last: Cell<Option<bool>>,
}

impl Drive {
    /// Switches it.
    pub fn set(&self, on: bool) -> Result<(), SysError> {
        match &self.words {
            None => self.output.set(on)?,
            Some(words) => file::write_at_start(self.output.descriptor(), words[usize::from(on)].as_bytes())?,
        }
        if self.last.replace(Some(on)) != Some(on) {
            self.switched.borrow_mut()[self.place].1 = Some(on);
        }
        Ok(())
    }

    /// Whether it is on; none: it reads neither.
    pub fn level(&self) -> Option<bool> {
        match &self.words {
            None => gpio::value(self.output.descriptor()).ok(),
            Some(words) => {
                let mut bytes = [0; 64];
                file::read_at_start(self.output.descriptor(), &mut bytes);
                let text = bytes.split(|byte| matches!(byte, 0 | b'\n')).next().unwrap_or(&[]);
                [false, true].into_iter().find(|on| words[usize::from(*on)].trim_end().as_bytes() == text)
            }
        }
    }

    /// As safe as the configuration says.
    pub fn make_safe(&self) -> Result<(), SysError> {
        self.set(self.safe)
    }
}

impl Life {
    /// Its outputs; without those that a command drives.
    pub fn outputs(&self, settings: &Settings) -> Vec<Drive> {
        settings.outputs.iter().filter_map(|driven| self.drive(driven)).collect()
    }

    /// One of them; none: a command drives it.
    pub fn drive(&self, driven: &Driven) -> Option<Drive> {
        let words = driven.is_file.then(|| [&driven.off, &driven.on].map(|word| [word, "\n"].concat()));
        let output = self.multusd.output(&driven.name)?;
        let mut switched = self.switched.borrow_mut();
        switched.push((driven.name.clone(), None));
        let place = switched.len() - 1;
        let (last, switched) = (Cell::new(None), self.switched.clone());
        Some(Drive { output, words, safe: driven.safe, switched, place, last })
    }

    fn begin() -> Result<Life, SysError> {
        signal::block_end()?;
        let multusd = Multusd::from_environment()?;
        let poller = Poller::new()?;
        let term = TermSignal::new()?;
        poller.add(term.as_fd(), TERM, Interest::Read)?;
        // A third of what is allowed: one that is late is made up for by the next.
        let pace = multusd.limit().map(|limit| Millis((limit.0 / 3).max(1)));
        let switched = Switched::default();
        Ok(Life { multusd, poller, _term: term, pace, next_beat: Instant(0), has_begun: false, switched })
    }

    /// From now on `wait` says when this can be read from, by this token (small ones are the child's).
    pub fn watch(&self, descriptor: BorrowedFd, token: u64) -> Result<(), SysError> {
        self.poller.add(descriptor, token, Interest::Read)
    }

    /// From now on `wait` says this token whenever an input, an output or a value was published anew.
    pub fn changes(&self, token: u64) -> Result<(), SysError> {
        match self.multusd.changes() {
            Some(counter) => self.poller.add(counter, token, Interest::Count),
            None => Ok(()),
        }
    }

    /// Says what outputs were switched to; when to try again, where nobody listens now.
    fn tell(&self) -> Option<Instant> {
        let mut switched = self.switched.borrow_mut();
        let mut words = String::new();
        for (name, on) in switched.iter() {
            if let Some(on) = on {
                let lines = ["MULTUSD_LEVEL=", name, if *on { " on\n" } else { " off\n" }];
                words.extend(lines);
            }
        }
        if words.is_empty() {
            return None;
        }
        if !self.multusd.try_say(&words) {
            return Some(clock::now() + TELL_AGAIN);
        }
        switched.iter_mut().for_each(|(_, on)| *on = None);
        None
    }

    /// The same of a connection that is being made, too: it is said when that is done, and once when something more comes.
    pub fn watch_edges(&self, descriptor: BorrowedFd, token: u64) -> Result<(), SysError> {
        self.poller.add(descriptor, token, Interest::Edges)
    }

    /// No more.
    pub fn forget(&self, descriptor: BorrowedFd) {
        self.poller.remove(descriptor);
    }

    /// Waits until something can be read, until then, or until a beat is due, which it gives. None: it is to end.
    pub fn wait(&mut self, deadline: Option<Instant>) -> Result<Option<Events>, SysError> {
        if !std::mem::replace(&mut self.has_begun, true) {
            // Its section is read: what only that took counts as its own no longer.
            memory::give_back();
        }
        let beat = self.pace.map(|_| self.next_beat);
        let again = self.tell();
        self.poller.arm([deadline, beat, again].into_iter().flatten().min())?;
        let events = self.poller.wait(true);
        if events.contains(&TERM) {
            // Not judged any more: the end may take its time.
            self.multusd.stopping()?;
            return Ok(None);
        }
        let now = clock::now();
        if let Some(pace) = self.pace.filter(|_| now >= self.next_beat) {
            self.multusd.beat()?;
            self.next_beat = now + pace;
        }
        Ok(Some(events))
    }
}
