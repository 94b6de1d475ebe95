//! ACTS. The one loop: waits, reports what happened to the supervisor, performs what it decides.
//!
//! Safe Rust, and no policy: that something is done is decided in `supervisor`, how the kernel is
//! asked stands in `sys`. After the start the loop allocates nothing (a reload does, while it is
//! applied), and it makes no call that can wait for storage, a name service or another process.

/// Says a line on standard error without ever waiting.
macro_rules! say {
    ($($words:tt)*) => { $crate::sys::console::say(format_args!($($words)*)) };
}

mod beats;
mod boot;
mod boots;
mod bundled;
mod changes;
mod check;
mod clients;
mod commands;
mod control;
mod counts;
mod environment;
mod files;
mod guarantees;
mod helper;
mod in_force;
mod inputs;
mod jobs;
mod last_good;
mod lines;
mod logs;
mod news;
mod notify;
mod observe;
mod outputs;
mod outputs_told;
mod perform;
mod reload;
mod renew;
mod report;
mod shutdown;
mod spec;
mod system;
mod table;
mod temperature;
mod two_slots;
mod values;
mod watchdog;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::atomic::Ordering::SeqCst;

use crate::config::{self, Children};
use crate::limits::{CHILD_COUNT_MAX, CONTROL_CLIENT_COUNT_MAX, LOG};
use crate::protocol::{self, LIMITATION_COUNT_MAX, Text};
use crate::supervisor::{Action, Actions, ChildId, Event, State, Supervisor};
use crate::sys::cgroup::Hierarchy;
use crate::sys::clock;
use crate::sys::input::Board;
use crate::sys::life::LifeFile;
use crate::sys::memory;
use crate::sys::page::{Keep, Page, SAVED_WORDS_MAX, request};
use crate::sys::poll::{self, Interest, Poller, READY_COUNT_MAX};
use crate::sys::process;
use crate::sys::reserve;
use crate::sys::values::Values;
use crate::time::{Instant, Millis};

pub use check::check;
use clients::Client;
use in_force::InForce;
use inputs::Input;
use news::{News, travel};
use outputs::Output;
pub use renew::adopts;
use spec::Base;
pub use system::system;
use table::{Entry, write_cut};

/// Rounds of deciding before anything else that happened is looked at: far more than any order needs.
const ROUNDS_MAX: usize = 64;

/// Between two tries of what the machine refused.
const RETRY_PAUSE: Millis = Millis(200);

/// What the command line says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The configuration file.
    pub config: PathBuf,
    /// The run directory, where it is not the configuration's.
    pub run_dir: Option<PathBuf>,
    /// The bundled children there are.
    pub children: Children,
}

/// Whose readiness a token stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token {
    Wake,
    Guard,
    Control,
    Client(usize),
    Notify(ChildId),
    Ready(ChildId),
    Group(ChildId),
    Process(ChildId),
    Input(usize),
    Beat(ChildId),
    BeatLink(ChildId),
    Log,
}

impl Token {
    fn number(self) -> u64 {
        let (kind, index) = match self {
            Token::Wake => (1, 0),
            Token::Guard => (2, 0),
            Token::Control => (3, 0),
            Token::Client(index) => (4, index),
            Token::Notify(child) => (5, child.index()),
            Token::Ready(child) => (6, child.index()),
            Token::Group(child) => (7, child.index()),
            Token::Process(child) => (8, child.index()),
            Token::Input(index) => (9, index),
            Token::Beat(child) => (10, child.index()),
            Token::BeatLink(child) => (11, child.index()),
            Token::Log => (12, 0),
        };
        kind << 32 | index as u64
    }

    fn from_number(number: u64) -> Option<Token> {
        let index = number as u32 as usize;
        let child = ChildId(index as u16);
        Some(match number >> 32 {
            1 => Token::Wake,
            2 => Token::Guard,
            3 => Token::Control,
            4 => Token::Client(index),
            5 => Token::Notify(child),
            6 => Token::Ready(child),
            7 => Token::Group(child),
            8 => Token::Process(child),
            9 => Token::Input(index),
            10 => Token::Beat(child),
            11 => Token::BeatLink(child),
            12 => Token::Log,
            _ => return None,
        })
    }
}

/// The supervisor's process.
struct Daemon {
    page: &'static Page,
    options: Options,
    run_dir: PathBuf,
    life: LifeFile,
    poller: Poller,
    core: Box<Supervisor>,
    /// Orders of the present decision; kept for its memory.
    actions: Box<Actions>,
    /// Something was observed that has not been decided upon.
    undecided: bool,
    /// Programs by `ChildId`.
    table: Vec<Option<Box<Entry>>>,
    hierarchy: Option<Hierarchy>,
    clients: [Option<Client>; CONTROL_CLIENT_COUNT_MAX],
    /// New clients are not looked for: there is no descriptor for one.
    is_deaf: bool,
    news: News,
    in_force: InForce,
    /// What every program inherits.
    base: Base,
    /// Programs of the configuration that wait for a place in the table.
    waiting: Vec<String>,
    /// Why the configuration in force is not the file's.
    note: Text,
    /// What cannot be done here.
    limitations: heapless::Vec<Text, LIMITATION_COUNT_MAX>,
    reload: reload::Progress,
    /// Who wants another executable, while a job tries it.
    renewing: Option<renew::Asker>,
    end: shutdown::End,
    outputs: Vec<Output>,
    inputs: Vec<Input>,
    /// Where values are published.
    values: Option<Values>,
    /// Where inputs are published.
    board: Option<Board>,
    /// What is to be kept of inputs.
    counts: counts::Counts,
    /// The level of an output may be another than what is published.
    outputs_moved: bool,
    /// A line that is being looked for, and how many were.
    sought: Option<config::Line>,
    seeks: u32,
    watch: watchdog::Watch,
    boots: boots::Boots,
    logs: logs::Logs,
    /// Memory is locked, or not, as the configuration in force has it.
    is_hardened: bool,
    /// When what could not be done for want of a process or of memory is tried again.
    retry_at: Option<Instant>,
    /// Watches the guard.
    _guard: OwnedFd,
}

/// The supervisor process: takes over what the page says a former one left, or begins a new life.
/// Returns when everything is done (`Page::finished` is then set), or when it cannot begin.
pub fn run(page: &'static Page, options: &Options) -> i32 {
    match Daemon::begin(page, options) {
        Ok(mut daemon) => {
            memory::give_back();
            if page.is_up.swap(1, SeqCst) == 0 {
                // It tells whoever started multusd.
                process::kill_if_there(page.guard.load(SeqCst) as i32, libc::SIGALRM);
            }
            daemon.run()
        }
        Err(boot::Refusal(sentence)) => {
            say!("{sentence}");
            // Programs that run are not given up: the guard tries again.
            if !boot::is_under_way(page) {
                page.finished.store(2, SeqCst);
            }
            1
        }
    }
}

impl Daemon {
    fn run(&mut self) -> i32 {
        loop {
            self.harden();
            self.settle();
            self.publish_outputs();
            if let Some(code) = self.end.code {
                return code;
            }
            let deadline = [
                self.core.next_deadline(),
                self.shutdown_deadline(),
                self.probation_deadline(),
                self.retry_at,
                self.reload_deadline(),
                self.outputs_deadline(),
                self.pulse_deadline(),
                self.temperature_deadline(),
                self.log_deadline(),
                self.counts_deadline(),
            ];
            // A timer that cannot be armed is a lost deadline: the next event comes anyway, and
            // the kernel does not refuse what it granted at the start.
            let _ = self.poller.arm(deadline.into_iter().flatten().min());
            self.take_events(true);
            self.beat_to_guard();
            self.judge_temperature();
            self.check_log();
        }
    }

    /// Memory and priority of guard and supervisor, as the configuration in force has them. Not before the start is
    /// over, whose memory is given back.
    fn harden(&mut self) {
        let daemon = &self.in_force.config.daemon;
        let (locked, priority) = (daemon.lock_memory, daemon.realtime_priority);
        let before = self.page.hardening();
        if std::mem::replace(&mut self.is_hardened, true)
            || (locked, priority) == (false, 0) && before == (false, 0)
        {
            return;
        }
        self.page.harden((locked, priority));
        // Any signal wakes the guard, and this one says nothing else.
        process::kill_if_there(self.page.guard.load(SeqCst) as i32, libc::SIGCHLD);
        if let Err(error) = memory::lock(locked) {
            self.say_limitation(format_args!("lock_memory has no effect: {error}"));
        }
        if locked {
            memory::touch_stack();
        }
        if (before.1, priority) != (0, 0)
            && let Err(error) = process::set_real_time(priority)
        {
            self.say_limitation(format_args!("realtime_priority has no effect: {error}"));
        }
    }

    /// Takes everything that has happened; where `waits`, when something has.
    fn take_events(&mut self, waits: bool) {
        let mut tokens = self.poller.wait(waits);
        // Bounded, so that a client that never stops asking cannot keep deadlines from being met.
        for _ in 0..4 {
            // Before anything else is looked at: outputs of the dead.
            for token in &tokens {
                if let Some(Token::Process(child)) = Token::from_number(*token) {
                    self.process_died(child);
                }
            }
            for token in &tokens {
                if let Some(token) = Token::from_number(*token) {
                    self.take(token);
                }
            }
            if tokens.len() < READY_COUNT_MAX {
                break;
            }
            tokens = self.poller.wait(false);
        }
    }

    fn take(&mut self, token: Token) {
        match token {
            Token::Wake => {
                if let Some(counter) = self.page.kept(Keep::Wake) {
                    poll::take_count(poll::borrow(counter));
                }
                self.take_requests();
                self.take_exits();
                self.take_answers();
            }
            Token::Guard => self.guard_is_dead(),
            Token::Control => self.accept_clients(),
            Token::Client(index) => self.serve(index),
            Token::Notify(child) => self.take_notifications(child),
            Token::Ready(child) => self.take_readiness(child),
            Token::Group(child) => self.check_tree(child),
            Token::Process(child) => self.process_ended(child),
            Token::Input(slot) => self.take_edges(slot),
            Token::Beat(child) => self.take_beat(child),
            Token::BeatLink(child) => self.take_link_bytes(child),
            Token::Log => self.log_has_something(),
        }
    }

    fn take_requests(&mut self) {
        if self.page.renew.load(SeqCst) != 0 {
            // The successor's.
            return;
        }
        if self.page.requests.load(SeqCst) & request::STOP != 0 {
            // Written down before the request is forgotten.
            self.stop_everything();
        }
        let requests = self.page.requests.swap(0, SeqCst);
        if requests & request::RELOAD != 0 {
            self.reload_asked_by_signal();
        }
        if requests & request::DUMP != 0 {
            self.dump();
        }
        if requests & request::RENEW != 0 {
            self.renew_asked_by_signal();
        }
    }

    /// Does everything that is to be done now; bounded, so that whatever keeps bringing about something
    /// else to do cannot keep exits, signals and clients waiting.
    fn settle(&mut self) {
        for _ in 0..ROUNDS_MAX {
            self.undecided = false;
            self.decide_and_perform();
            self.publish();
            self.check_retries();
            self.tidy_table();
            self.tend_outputs();
            self.check_shutdown();
            self.check_probation();
            self.end_late_reloads();
            // What that brought about is decided upon before anything is waited for.
            if !self.undecided || self.end.code.is_some() {
                return;
            }
        }
        self.retry_at = Some(clock::now() + Millis(1));
    }

    /// Decides and performs until nothing is left to do now. What was decided is saved before it
    /// is performed: a successor gives an order again rather than lose it.
    fn decide_and_perform(&mut self) {
        // Every order changes a child's phase, and no chain of phases without waiting is longer.
        for _ in 0..16 {
            let now = clock::now();
            if self.core.next_deadline().is_some_and(|deadline| deadline.is_due(now)) {
                // Somebody may be judged by this time: first everything that had happened by then is taken, so
                // that a supervisor that was late, or stopped at any instruction, does not hold it against them.
                self.take_events(false);
                self.read_counters(now);
            }
            self.core.decide(now, &mut self.actions);
            self.save();
            // By index: performing needs all of us, and changes nothing about the list.
            for index in 0..self.actions.len() {
                self.perform(self.actions[index]);
            }
            // A whole restart may go by before anything is waited for, and is news all the same.
            self.publish();
            if self.actions.is_empty() {
                self.undecided = false;
            }
            // Forced at every wake-up, not in every round of one.
            if self.actions.iter().all(|action| matches!(action, Action::Force { .. })) {
                break;
            }
        }
    }

    /// Something could not be done for want of a process, memory or a descriptor.
    fn try_again_soon(&mut self) {
        self.retry_at = Some(clock::now() + RETRY_PAUSE);
    }

    fn check_retries(&mut self) {
        if self.retry_at.is_none_or(|at| at > clock::now()) {
            return;
        }
        self.retry_at = None;
        reserve::fill();
        self.listen_again();
        self.take_inputs();
        for index in 0..self.table.len() {
            if self.table[index].as_ref().is_some_and(|entry| entry.sweep_owed) {
                self.start_sweep(ChildId(index as u16));
            }
            self.check_lost_main(ChildId(index as u16));
            self.listen_for_link(ChildId(index as u16));
        }
        self.start_verifying();
        self.tend_boots();
        self.tend_counts();
    }

    fn observe(&mut self, event: Event) {
        self.undecided = true;
        self.core.observe(clock::now(), event);
    }

    fn save(&mut self) {
        for (index, entry) in self.table.iter_mut().enumerate() {
            let Some(entry) = entry else { continue };
            let mut words = [0; SAVED_WORDS_MAX];
            let saved = self.core.save(ChildId(index as u16));
            words[..saved.len()].copy_from_slice(&saved);
            if words != entry.saved {
                entry.saved = words;
                self.page.program(index).save(&words);
            }
        }
    }

    /// Tells subscribers what changed.
    fn publish(&mut self) {
        let before = self.news.next();
        let mut failed = false;
        let now = clock::now();
        for (index, entry) in self.table.iter_mut().enumerate() {
            let Some(entry) = entry else { continue };
            let Some(status) = self.core.status(ChildId(index as u16)) else { continue };
            if status.state == entry.published {
                continue;
            }
            let from = std::mem::replace(&mut entry.published, status.state);
            report::explain_end(entry, status.last_end);
            failed |= status.failures > 0 && status.state != State::Running && entry.name() != LOG;
            let slot = self.page.program(index);
            self.news.add(protocol::Event {
                seq: 0,
                at_ms: now.0 / 1_000_000,
                name: report::name(entry.name()),
                from: travel(from),
                to: travel(status.state),
                pid: if slot.is_alive() { slot.main() } else { 0 },
                reason: entry.reason.clone(),
            });
        }
        if failed {
            self.flush_log();
        }
        if self.news.next() != before {
            self.publish_health();
            self.page.events.store(self.news.next(), SeqCst);
            self.tell_subscribers();
        }
    }

    /// News of the daemon itself: for subscribers, and on standard error.
    fn tell(&mut self, words: core::fmt::Arguments) {
        say!("{words}");
        let mut reason = heapless::String::new();
        write_cut(&mut reason, words);
        self.news.add(protocol::Event {
            seq: 0,
            at_ms: clock::now().0 / 1_000_000,
            name: protocol::Name::new(),
            from: protocol::State::Stopped,
            to: protocol::State::Stopped,
            pid: 0,
            reason,
        });
        self.page.events.store(self.news.next(), SeqCst);
        self.tell_subscribers();
    }

    /// SIGUSR1: the state in words, to standard error.
    fn dump(&mut self) {
        let now: Instant = clock::now();
        for (index, entry) in self.table.iter().enumerate() {
            let Some(entry) = entry else { continue };
            let Some(status) = self.core.status(ChildId(index as u16)) else { continue };
            let slot = self.page.program(index);
            say!(
                "{} {} for {} ms, process {}, {} restarts, {} failures in a row. {}",
                entry.name(),
                travel(status.state).name(),
                now.since(status.since).0,
                if slot.is_alive() { slot.main() } else { 0 },
                status.restarts,
                status.failures,
                entry.reason,
            );
        }
    }

    fn find(&self, name: &str) -> Option<ChildId> {
        let found =
            self.table.iter().position(|entry| entry.as_ref().is_some_and(|entry| entry.name() == name));
        found.map(|index| ChildId(index as u16))
    }

    fn entry(&mut self, child: ChildId) -> Option<&mut Entry> {
        self.table.get_mut(child.index())?.as_deref_mut()
    }

    fn watch(&self, descriptor: BorrowedFd, token: Token, interest: Interest) {
        // Refused only for want of memory or of watches; what is not watched is still seen
        // whenever its owner's exit is.
        let _ = self.poller.add(descriptor, token.number(), interest);
    }

    fn say_limitation(&mut self, words: core::fmt::Arguments) {
        let mut text = Text::new();
        write_cut(&mut text, words);
        if self.limitations.contains(&text) {
            return;
        }
        say!("{text}");
        // More than fit are on standard error only.
        let _ = self.limitations.push(text);
    }

    fn set_note(&mut self, words: core::fmt::Arguments) {
        write_cut(&mut self.note, words);
        if !self.note.is_empty() {
            say!("{}", self.note);
        }
    }
}

fn borrow(descriptor: &OwnedFd) -> BorrowedFd<'_> {
    descriptor.as_fd()
}

const _: () = assert!(CHILD_COUNT_MAX <= u16::MAX as usize);
