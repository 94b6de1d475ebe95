//! KEEPS ALIVE. The parent of every process: it starts the supervisor and starts it again, hears
//! of every exit and writes it down before the process number is free, passes signals on, and
//! keeps the descriptors that must outlive a supervisor by sharing its table with it.
//!
//! No policy, no heap after the start, no input but signals: what does not happen here cannot go
//! wrong here. It waits in one place, `sigtimedwait`.

use std::ffi::OsString;
use std::path::Path;
use std::sync::atomic::Ordering::SeqCst;

use nix::sys::signal::Signal;

use crate::limits::{BEAT_SILENCE_MS_MAX, FIRST_BEAT_MS_MAX, SUPERVISOR_SILENCE_MS_MAX};
use crate::sys::output::force_all_safe;
use crate::sys::page::{Keep, Page, request};
use crate::sys::watchdog::WatchdogSlot;
use crate::sys::{SysError, clock, file, image, memory, poll, process, signal, socket};
use crate::time::{Instant, Millis};

/// A supervisor that lived this long had no trouble starting: many times what taking over needs,
/// and one that ends again and again just after it costs a few per cent of a processor.
const SUPERVISOR_SETTLED: Millis = Millis(200);
/// The longest pause between two supervisors. Children run on meanwhile.
const SUPERVISOR_PAUSE_MAX: Millis = Millis(5000);

/// Ends at the start that are no series yet.
const FAILURES_OF_NO_SERIES: u32 = 4;

/// What a guard that is well answers to SIGUSR2 at once (sd_notify(3) leaves names with X_ to whoever wants them).
const PRESENT: &[u8] = b"X_MULTUSD=1";

/// What it says when everything has ended as it was ordered.
pub const STOPPING: &[u8] = b"STOPPING=1";

/// How long the guard waits for the last of its descendants to die.
const LEAVING_MAX: Millis = Millis(10_000);

/// Runs for as long as multusd runs. `supervise` is the supervisor: it is called in a process of
/// its own, on a copy of this one's memory. Returns the exit code of multusd.
pub fn run(supervise: &dyn Fn(&'static Page) -> i32) -> u8 {
    // From here on nothing that is needed has to be read from storage.
    let image = image::become_copy().err().map_or(0, |error| error.errno);
    match prepare(image) {
        Ok(page) => Guard {
            page,
            started: Instant::default(),
            failures: 0,
            unheard: None,
            killed: 0,
            echoed: Instant::default(),
            heard: 0,
            missed: Millis::ZERO,
            patience: Millis::ZERO,
            hardening: (false, 0),
            starter: Starter::new(page),
        }
        .watch(supervise),
        Err(error) => {
            crate::sys::console::complain(&format!("multusd: cannot start: {error}"));
            1
        }
    }
}

/// `image`: why the executable is not in memory; 0: it is.
fn prepare(image: i32) -> Result<&'static Page, SysError> {
    // The same process, and as it was but for its executable: mask, children, descriptors.
    if let Some(page) = image::adopted().and_then(Page::adopt) {
        page.let_inherit(false);
        page.keep(Keep::Image, None);
        page.not_renewed.store(0, SeqCst);
        return Ok(page);
    }
    // Whatever our starter left open would reach every program.
    file::close_range(3, i32::MAX);
    signal::block()?;
    process::become_subreaper()?;
    let page = Page::create()?;
    page.started_at.store(clock::now().0, SeqCst);
    page.guard.store(std::process::id(), SeqCst);
    page.image.store(image, SeqCst);
    page.life.store(crate::sys::machine::random(), SeqCst);
    page.keep(Keep::Wake, Some(poll::event_counter()?));
    Ok(page)
}

struct Guard {
    page: &'static Page,
    /// When the present supervisor was started.
    started: Instant,
    /// Supervisors in a row that ended soon after their start.
    failures: u32,
    /// An exit that the supervisor has not been seen to take: since when, and its number.
    unheard: Option<(Instant, u32)>,
    /// The last supervisor that was killed for that.
    killed: u32,
    /// When the last echo was given.
    echoed: Instant,
    /// The last beat that was heard.
    heard: u64,
    /// Silence of the supervisor: the time of as many echoes as were given without a beat between.
    missed: Millis,
    /// How much of that is too much.
    patience: Millis,
    /// Memory locked, real-time priority: see `Page::harden`.
    hardening: (bool, u8),
    starter: Starter,
}

/// Who started multusd and wants to hear of it (sd_notify(3)): systemd, mostly.
struct Starter {
    page: &'static Page,
    /// It is told twice as often as it expects.
    pace: Option<Millis>,
    told: Instant,
    knows_that_it_is_up: bool,
    path: Option<OsString>,
}

impl Starter {
    /// As the environment says: `NOTIFY_SOCKET`, and, where they are meant for this process, `WATCHDOG_USEC` and `WATCHDOG_PID`.
    fn new(page: &'static Page) -> Starter {
        let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        let number = |name| variable(name)?.to_str()?.parse::<u64>().ok();
        let path = variable("NOTIFY_SOCKET");
        let is_meant = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        let expected =
            number("WATCHDOG_USEC").filter(|_| is_meant && path.is_some()).map(|usec| Millis(usec / 1000));
        page.expected_ms.store(expected.map_or(0, |time| time.0.min(u64::from(u32::MAX)) as u32), SeqCst);
        let pace = expected.map(|time| Millis((time.0 / 2).max(1)));
        let mut starter = Starter { page, pace, told: Instant::default(), knows_that_it_is_up: false, path };
        starter.meet();
        starter
    }

    /// Another one stands there, maybe, who knows nothing yet.
    fn meet(&mut self) {
        let socket = self.path.as_ref().and_then(|path| socket::connect_notify(Path::new(path)).ok());
        self.page.keep(Keep::Starter, socket);
        self.knows_that_it_is_up = false;
    }

    /// False: nobody hears it, or there is no room.
    fn say(&self, words: &[u8]) -> bool {
        self.page.kept(Keep::Starter).is_some_and(|number| socket::send(poll::borrow(number), words))
    }

    /// Tells what is due; when the next is. Never waits: a message that finds no room is followed by another.
    fn tell(&mut self, is_up: bool, is_well: bool) -> Option<Instant> {
        if is_up && !self.knows_that_it_is_up {
            self.knows_that_it_is_up = self.say(b"READY=1");
        }
        let (pace, now) = (self.pace?, clock::now());
        if self.told + pace <= now {
            self.told = now;
            if is_well && !self.say(b"WATCHDOG=1") {
                self.meet();
            }
        }
        Some(self.told + pace)
    }
}

impl Guard {
    fn watch(&mut self, supervise: &dyn Fn(&'static Page) -> i32) -> u8 {
        let mut next_start = Some(clock::now());
        loop {
            if next_start.is_some_and(|at| at <= clock::now()) {
                next_start = None;
                self.start(supervise);
                memory::give_back();
            }
            let deadline = match (next_start, self.unheard) {
                (Some(at), _) => Some(at),
                (None, Some((since, _))) => Some(since + Millis(SUPERVISOR_SILENCE_MS_MAX)),
                (None, None) => None,
            };
            let echo = self.echo();
            // A supervisor that is silent, or does not come up, is the guard's to repair, until that does not help.
            let is_well = self.failures <= FAILURES_OF_NO_SERIES
                && self.missed < self.patience + Millis(BEAT_SILENCE_MS_MAX);
            let is_up = self.page.is_up.load(SeqCst) != 0 && self.page.taking_over.load(SeqCst) == 0;
            let report = self.starter.tell(is_up, is_well);
            let signal = signal::wait(deadline.into_iter().chain(echo).chain(report).min());
            self.harden();
            match signal {
                Some(Signal::SIGTERM | Signal::SIGINT) => self.ask(request::STOP),
                Some(Signal::SIGHUP) => self.ask(request::RELOAD),
                Some(Signal::SIGUSR1) => self.ask(request::DUMP),
                Some(Signal::SIGUSR2) => {
                    self.starter.meet();
                    // Heard at once by who waits to know whether anybody is here.
                    self.starter.say(PRESENT);
                    self.page.taking_over.store(1, SeqCst);
                    self.ask(request::RENEW);
                }
                Some(_) => {
                    // Between two supervisors there is none whose end could be news.
                    if self.collect() && next_start.is_none() {
                        match self.page.finished.load(SeqCst) {
                            0 => next_start = Some(self.replace()),
                            done => return self.leave((done - 1) as u8),
                        }
                    }
                }
                None => self.judge(),
            }
        }
    }

    fn start(&mut self, supervise: &dyn Fn(&'static Page) -> i32) {
        self.started = clock::now();
        (self.missed, self.patience) = (Millis::ZERO, Millis(FIRST_BEAT_MS_MAX));
        let page = self.page;
        match process::spawn_supervisor(|| {
            process::new_session();
            process::set_title(c"multusd-superv");
            page.supervisor.store(std::process::id(), SeqCst);
            supervise(page)
        }) {
            Ok(pid) => page.supervisor.store(pid, SeqCst),
            // No memory, no process number: the same as a supervisor that ended at once, and
            // SIGALRM is the child that never was.
            Err(_) => drop(process::kill(std::process::id() as i32, libc::SIGALRM)),
        }
    }

    /// As the supervisor has it, and one priority above: a supervisor that never sleeps must not keep its judge from
    /// the only processor. Where that is not allowed, the supervisor says so.
    fn harden(&mut self) {
        let (locked, priority) = self.page.hardening();
        let before = std::mem::replace(&mut self.hardening, (locked, priority));
        if before.0 != locked {
            let _ = memory::lock(locked);
        }
        if before.1 != priority {
            let _ = process::set_real_time(priority + u8::from(priority > 0));
        }
    }

    fn ask(&self, what: u32) {
        self.page.requests.fetch_or(what, SeqCst);
        self.wake();
    }

    fn wake(&self) {
        if let Some(counter) = self.page.kept(Keep::Wake) {
            poll::wake(poll::borrow(counter));
        }
    }

    /// Writes down and reaps whatever ended; true: the supervisor did.
    fn collect(&mut self) -> bool {
        let mut supervisor_ended = self.page.supervisor.load(SeqCst) == 0;
        let mut heard = false;
        while let Some((pid, signalled, value)) = process::next_ended() {
            if pid == self.page.supervisor.load(SeqCst) {
                supervisor_ended = true;
            } else if self.page.record_exit(pid, signalled, value) {
                // At once, not after the loop: a restart waits for this.
                self.wake();
                heard = true;
            }
            process::reap(pid);
        }
        if heard && self.unheard.is_none() {
            self.unheard = Some((clock::now(), self.page.exits_written.load(SeqCst)));
        }
        supervisor_ended
    }

    /// An exit has waited for too long: either the supervisor has seen it and all is well, or it
    /// hangs, and a dead supervisor is better than one that hangs.
    fn judge(&mut self) {
        let Some((since, number)) = self.unheard else { return };
        let now = clock::now();
        if now < since + Millis(SUPERVISOR_SILENCE_MS_MAX) {
            return;
        }
        let (seen, written) = (self.page.exits_seen.load(SeqCst), self.page.exits_written.load(SeqCst));
        let pid = self.page.supervisor.load(SeqCst);
        // Numbers wrap around; later exits that wait are a matter of their own.
        if seen.wrapping_sub(number) as i32 >= 0 {
            self.unheard = (seen != written).then_some((now, written));
        } else if pid != 0 {
            if self.killed == pid {
                // It was killed and does not die: whatever it is about, it is nobody's supervisor.
                force_all_safe(self.page.outputs());
            }
            (self.killed, self.unheard) = (pid, Some((now, number)));
            // Its exit arrives as any other's.
            let _ = process::kill(pid as i32, libc::SIGKILL);
        }
    }

    /// Answers the supervisor's beats, and judges it by them; when to do so again. `None`: nothing is
    /// watched.
    fn echo(&mut self) -> Option<Instant> {
        let pace = Some(Millis(self.page.pace.load(SeqCst).into())).filter(|pace| *pace > Millis::ZERO)?;
        let now = clock::now();
        if self.echoed + pace > now {
            return Some(self.echoed + pace);
        }
        self.echoed = now;
        self.page.echo.store(now.0, SeqCst);
        let beat = self.page.beat.load(SeqCst);
        if beat != self.heard {
            self.heard = beat;
            (self.missed, self.patience) = (Millis::ZERO, Millis(BEAT_SILENCE_MS_MAX));
        } else if self.page.supervisor.load(SeqCst) != 0 {
            self.missed = self.missed + pace;
            self.judge_silence();
        }
        Some(now + pace)
    }

    /// A supervisor that does not beat is killed, and replaced when its exit arrives. One that does not
    /// die either leaves its outputs to the guard, and the machine to the watchdog.
    fn judge_silence(&self) {
        if self.missed < self.patience {
            return;
        }
        process::kill_if_there(self.page.supervisor.load(SeqCst) as i32, libc::SIGKILL);
        if self.missed >= self.patience + Millis(BEAT_SILENCE_MS_MAX) {
            force_all_safe(self.page.outputs());
        }
    }

    /// The supervisor is dead: what it opened for itself is closed, what it kept stays.
    fn replace(&mut self) -> Instant {
        self.page.supervisor.store(0, SeqCst);
        self.page.close_all_but_kept();
        self.unheard = None;
        if self.page.renew.swap(0, SeqCst) != 0 {
            self.renew();
            return clock::now();
        }
        self.page.supervisor_restarts.fetch_add(1, SeqCst);
        self.page.taking_over.store(0, SeqCst);
        let now = clock::now();
        if now.since(self.started) >= SUPERVISOR_SETTLED {
            self.failures = 0;
            return now;
        }
        self.failures = self.failures.saturating_add(1);
        if self.failures <= FAILURES_OF_NO_SERIES {
            // The first few are no series yet: an operator, or a test, may have killed them.
            return now;
        }
        // Nobody judges the programs, which may drive their outputs on: forced again at each failure.
        force_all_safe(self.page.outputs());
        now + Millis(10_u64 << self.failures.saturating_sub(FAILURES_OF_NO_SERIES).min(10))
            .min(SUPERVISOR_PAUSE_MAX)
    }

    /// Goes on as another executable, or, where that fails, as before.
    fn renew(&self) {
        let kept = [Keep::Image, Keep::Page].map(|which| self.page.kept(which));
        let [Some(image), Some(page)] = kept else { return };
        self.page.let_inherit(true);
        let error = image::become_renewed(poll::borrow(image), page);
        self.page.let_inherit(false);
        self.page.keep(Keep::Image, None);
        self.page.not_renewed.store(error.errno, SeqCst);
    }

    /// Everything is done: whoever is left among our descendants is killed, then multusd ends. The
    /// watchdogs are disarmed last, and only where that was ordered and nobody is left.
    fn leave(&self, code: u8) -> u8 {
        if code == 0 {
            self.starter.say(STOPPING);
        }
        // One in state D cannot be killed; init inherits it.
        let is_alone = process::kill_children(clock::now() + LEAVING_MAX);
        if code != 0 {
            force_all_safe(self.page.outputs());
        } else if is_alone && self.page.disarm.load(SeqCst) != 0 {
            self.page.watchdogs.iter().for_each(WatchdogSlot::disarm);
        }
        code
    }
}
