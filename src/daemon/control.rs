//! Answers what is asked over the control socket: one request, one reply. Who may not, is told so. Waits for nobody.

use std::sync::atomic::Ordering::SeqCst;

use crate::limits::LOG;
use crate::protocol::{self, DaemonStatus, Refusal, Reply, Request, Text};
use crate::supervisor::{Event, Order, State};
use crate::sys::clock;
use crate::time::{Instant, Millis};

use super::renew::Asker;
use super::table::{Beside, write_cut};
use super::{Daemon, report};

fn text(words: core::fmt::Arguments) -> Text {
    let mut text = Text::new();
    write_cut(&mut text, words);
    text
}

pub(super) fn done(words: core::fmt::Arguments) -> Reply {
    Reply::Done { text: text(words) }
}

pub(super) fn refused(why: Refusal, words: core::fmt::Arguments) -> Reply {
    Reply::Refused { why, text: text(words) }
}

impl Daemon {
    /// `None`: the reply comes later.
    pub(super) fn answer(&mut self, index: usize, allowed: bool, request: Request) -> Option<Reply> {
        let harmless = matches!(
            request,
            Request::Daemon
                | Request::Status { .. }
                | Request::Subscribe
                | Request::Page { .. }
                | Request::Inputs { .. }
                | Request::Outputs { .. }
                | Request::Watchdogs
                | Request::Live
                | Request::History { .. }
                | Request::Reasons
                | Request::Values { .. }
        );
        if !harmless && !allowed {
            let who =
                if self.in_force.control_group.is_some() { "root and the control group" } else { "root" };
            return Some(refused(Refusal::NotAllowed, format_args!("only {who} may do this")));
        }
        Some(match request {
            Request::Daemon => Reply::Daemon(self.describe()),
            Request::Status { from } => self.status_page(from),
            Request::Order { name, order } => self.order(&name, order),
            Request::Signal { name, signal } => self.signal_named(&name, signal),
            Request::ReloadProgram { name } => self.reload_program(&name),
            Request::Reload { dry } => return self.start_reload(Some(index), dry),
            Request::Subscribe => {
                if let Some(client) = &mut self.clients[index] {
                    client.subscribed = Some(self.news.next());
                }
                done(format_args!("subscribed"))
            }
            Request::Quit => {
                self.stop_everything();
                done(format_args!("stopping everything"))
            }
            Request::Renew => return self.start_renewal(Asker::Client(index)),
            Request::Shutdown { how, in_ms } => self.plan_shutdown(how, Millis(in_ms)),
            Request::CancelShutdown => self.cancel_shutdown(),
            Request::Page { from } => self.reload.page(from),
            Request::Inputs { from } => self.inputs_page(from),
            Request::Outputs { from } => self.outputs_page(from),
            Request::SetOutput { name, level, force } => self.set_output(&name, level, force),
            Request::Watchdogs => self.watch_report(),
            Request::Live => Reply::Live(self.live_times()),
            Request::Log { follow } => {
                if let Some(client) = &mut self.clients[index] {
                    client.follows = follow;
                }
                self.count_followers();
                return self.give_log(index, false);
            }
            Request::History { from } => Reply::Events { events: self.news.page(from).0 },
            Request::Reasons => self.boots_report(),
            Request::Values { from } => self.values_page(from),
            Request::Publish { text } => self.publish_by_hand(&text),
            Request::SyncLog => return self.give_log(index, true),
        })
    }

    fn describe(&self) -> DaemonStatus {
        let now = clock::now();
        let mut limitations = self.limitations.clone();
        // More than fit are on standard error only.
        let mut add = |words: core::fmt::Arguments| drop(limitations.push(text(words)));
        self.open_promises(&mut add);
        self.watch_limitations(&mut add);
        self.log_limitations(&mut add);
        match self.page.not_renewed.load(SeqCst) {
            0 => {}
            errno => add(format_args!("{}{}", protocol::NOT_RENEWED, crate::sys::describe(errno))),
        }
        if let Some(why) = self.why_gate_is_closed() {
            add(format_args!("{why}"));
        }
        let mut version = heapless::String::new();
        write_cut(&mut version, format_args!("{}", env!("CARGO_PKG_VERSION")));
        DaemonStatus {
            version,
            guard_pid: self.page.guard.load(SeqCst),
            supervisor_pid: std::process::id(),
            uptime_ms: now.since(crate::time::Instant(self.page.started_at.load(SeqCst))).0,
            supervisor_restarts: self.page.supervisor_restarts.load(SeqCst),
            programs: self.table.iter().flatten().filter(|entry| entry.name() != LOG).count() as u16,
            shutdown_in_ms: self.shutdown_pending().map(|at| at.since(now).0),
            config_note: self.note.clone(),
            limitations,
        }
    }

    fn status_page(&mut self, from: u16) -> Reply {
        let now = clock::now();
        let mut programs = heapless::Vec::new();
        for index in usize::from(from)..self.table.len() {
            let child = crate::supervisor::ChildId(index as u16);
            self.read_counter(child);
            let Some((entry, status)) = self.table[index].as_ref().zip(self.core.status(child)) else {
                continue;
            };
            if programs.is_full() {
                return Reply::Status { programs, next: Some(index as u16) };
            }
            // Not full, so there is a place.
            let mut program = report::program(entry, self.page.program(index), &status, now);
            program.outputs = self.outputs_of(child);
            let _ = programs.push(program);
        }
        Reply::Status { programs, next: None }
    }

    fn order(&mut self, name: &str, order: protocol::Order) -> Reply {
        let Some(child) = self.find(name) else {
            return refused(Refusal::NoSuchProgram, format_args!("no program `{name}`"));
        };
        let state = self.core.status(child).map(|status| status.state);
        let order = match order {
            protocol::Order::Start => Order::Start,
            protocol::Order::Once => Order::Once,
            protocol::Order::Stop => Order::Stop,
            protocol::Order::Restart => Order::Restart,
            protocol::Order::Pause if state != Some(State::Running) => {
                return refused(Refusal::NotRunning, format_args!("{name} is not running"));
            }
            protocol::Order::Pause => Order::Pause,
            protocol::Order::Resume if state != Some(State::Paused) => {
                return refused(Refusal::Failed, format_args!("{name} is not paused"));
            }
            protocol::Order::Resume => Order::Resume,
        };
        if self.end.is_coming(self.page) {
            return refused(Refusal::Failed, format_args!("everything is being stopped"));
        }
        self.observe(Event::Ordered { child, order });
        done(format_args!("{name}: taken"))
    }

    fn signal_named(&mut self, name: &str, signal: u8) -> Reply {
        match self.find(name) {
            None => refused(Refusal::NoSuchProgram, format_args!("no program `{name}`")),
            Some(_) if !(1..=64).contains(&signal) => {
                refused(Refusal::BadRequest, format_args!("there is no signal {signal}; write 1 to 64"))
            }
            Some(child) if self.signal_number(child, i32::from(signal)) => {
                done(format_args!("{name}: signalled"))
            }
            Some(_) => refused(Refusal::NotRunning, format_args!("{name} is not running")),
        }
    }

    /// The program's own reload.
    fn reload_program(&mut self, name: &str) -> Reply {
        use crate::config::Reload;
        let Some(child) = self.find(name) else {
            return refused(Refusal::NoSuchProgram, format_args!("no program `{name}`"));
        };
        let generation = crate::supervisor::Generation(self.page.program(child.index()).generation());
        let Some(entry) = self.entry(child) else {
            return refused(Refusal::NoSuchProgram, format_args!("no program `{name}`"));
        };
        let mut time = Millis::ZERO;
        let signal = match &entry.program.reload {
            None => return refused(Refusal::Failed, format_args!("{name} has no `reload =` in its section")),
            Some(Reload::Signal(signal)) => Some(*signal),
            Some(Reload::Command(hook)) => {
                time = hook.timeout;
                None
            }
        };
        let busy = entry.beside.is_some();
        match signal {
            Some(signal) if self.signal_number(child, signal) => done(format_args!("{name}: told to reload")),
            Some(_) => refused(Refusal::NotRunning, format_args!("{name} is not running")),
            None if busy => {
                refused(Refusal::Failed, format_args!("{name}: another command of it is running"))
            }
            None => match self.start_hook(child, generation, Beside::Reload) {
                Ok(()) => {
                    if let Some(entry) = self.entry(child) {
                        entry.reload_until = Some(clock::now() + time);
                    }
                    done(format_args!("{name}: told to reload"))
                }
                Err(error) => {
                    if let Some(entry) = self.entry(child) {
                        entry.beside = None;
                    }
                    refused(Refusal::Failed, format_args!("{name}: {error}"))
                }
            },
        }
    }

    /// When the first of the programs' own reloads has had its time.
    pub(super) fn reload_deadline(&self) -> Option<Instant> {
        self.table.iter().flatten().filter_map(|entry| entry.reload_until).min()
    }

    pub(super) fn end_late_reloads(&mut self) {
        let now = clock::now();
        for index in 0..self.table.len() {
            let Some(entry) = self.table[index].as_mut() else { continue };
            if entry.reload_until.is_some_and(|until| until <= now) {
                entry.reload_until = None;
                let child = crate::supervisor::ChildId(index as u16);
                if entry.beside.is_some_and(|(beside, _)| beside == Beside::Reload) {
                    say!("{}: its reload took too long and is killed", entry.name());
                    self.end_hook(child);
                }
            }
        }
    }
}
