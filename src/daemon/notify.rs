//! What a program says of itself on its NOTIFY_SOCKET: sd_notify(3), as far as it makes sense outside of
//! systemd. Every program has a socket of its own, which only its user can open.
//!
//! Who is heard: the program's main process, whatever shares its session, and what is in its control
//! group. That is what can be known without waiting: another program of the same user is in neither. A
//! sender that has ended when its words are read can be placed nowhere: of one that ran as the program's user
//! READY=1 is believed, and nothing else, least of all a beat. Whoever wants to be sure stays until it is heard
//! (`BARRIER=1`, as systemd-notify and `multusctl beat` do).
//!
//! Descriptors that come along (`BARRIER=1`, `FDSTORE=1`) never become ours: the kernel closes them when
//! the message is taken, which is after it was heeded, and that is all a barrier asks for. `FDSTORE`,
//! `NOTIFYACCESS` and whatever else is not named below are ignored, as sd_notify(3) demands of receivers.

use std::sync::atomic::Ordering::SeqCst;

use crate::config::HeartbeatKind;
use crate::limits::HEARTBEAT_MS_MIN;
use crate::supervisor::{ChildId, Event, Generation};
use crate::sys::page::{KeepForProgram, Slot};
use crate::sys::{cgroup, clock, describe, poll, process, socket};
use crate::time::Millis;

use super::perform::FLAG_READY;
use super::table::write_cut;
use super::{Daemon, borrow, bundled, report};

/// Longest notification read; sd_notify(3) messages are a few short lines.
const NOTIFICATION_BYTES_MAX: usize = 4096;

/// All that is believed of a sender that is gone.
const READY: &str = "READY=1";

/// Said of a program that reloads; it is gone with its next READY=1.
const RELOADING: &str = "reloading";

impl Daemon {
    /// What a program says of itself on its NOTIFY_SOCKET.
    pub(super) fn take_notifications(&mut self, child: ChildId) {
        let slot = self.page.program(child.index());
        let Some(number) = slot.kept(KeepForProgram::Notify) else { return };
        let mut buffer = [0; NOTIFICATION_BYTES_MAX];
        // As many as the kernel queues at most by default, so that one talker cannot hold us.
        for _ in 0..16 {
            let Some((length, peer)) = socket::peek_notification(poll::borrow(number), &mut buffer) else {
                return;
            };
            // Heeded before it is taken: a successor must know of it.
            let is_its_own = self.is_its_own(child, peer.pid);
            if is_its_own || self.may_have_been_its_own(child, &peer) {
                for line in buffer[..length].split(|byte| *byte == b'\n') {
                    let line = str::from_utf8(line).ok().filter(|line| is_its_own || *line == READY);
                    let line = line.unwrap_or("");
                    if let Some((key, value)) = line.split_once('=') {
                        self.heed(child, slot, key, value);
                    }
                }
            }
            socket::take_notification(poll::borrow(number));
        }
    }

    /// The process is one of the program's, as far as that can be known without waiting.
    fn is_its_own(&self, child: ChildId, pid: u32) -> bool {
        let slot = self.page.program(child.index());
        let Some(entry) = self.table[child.index()].as_ref() else { return false };
        if !slot.is_alive() || pid == 0 {
            return false;
        }
        let session = process::session_of(pid);
        pid == slot.main()
            || session.is_some() && session == process::session_of(slot.main())
            || entry.group.as_ref().is_some_and(|group| cgroup::contains(borrow(group), pid))
    }

    /// It is gone, and ran as the program's user.
    fn may_have_been_its_own(&self, child: ChildId, peer: &socket::Peer) -> bool {
        let Some(entry) = self.table[child.index()].as_ref() else { return false };
        let user = entry.spec.exec.owner().map_or(nix::unistd::geteuid().as_raw(), |(user, _)| user);
        let is_gone = || process::kill(peer.pid as i32, 0).is_err_and(|error| error.errno == libc::ESRCH);
        self.page.program(child.index()).is_alive() && peer.user == user && is_gone()
    }

    fn heed(&mut self, child: ChildId, slot: &Slot, key: &str, value: &str) {
        let now = clock::now();
        let generation = Generation(slot.generation());
        let Some(entry) = self.entry(child) else { return };
        let number = value.parse::<u64>().ok();
        let in_micros = number.map(|micros| Millis(micros / 1000));
        let event = match (key, value, in_micros) {
            ("READY", "1", _) => {
                slot.flags.fetch_or(FLAG_READY, SeqCst);
                if entry.reason == RELOADING {
                    entry.reason.clear();
                }
                Event::ReadyReported { child, generation }
            }
            ("RELOADING", "1", _) => return entry.explain(format_args!("{RELOADING}")),
            ("WATCHDOG", "1", _) if entry.beats_by(&HeartbeatKind::Notify) => {
                return self.beat(child, now);
            }
            ("WATCHDOG", "trigger", _) => Event::Hung { child, generation },
            // Ours is the fail-safe reading of 0: a program cannot rid itself of its heartbeat.
            ("WATCHDOG_USEC", _, Some(limit)) if number != Some(0) => {
                let limit = limit.max(Millis(HEARTBEAT_MS_MIN));
                Event::HeartbeatChanged { child, generation, limit }
            }
            ("EXTEND_TIMEOUT_USEC", _, Some(more)) => {
                Event::DeadlineExtended { child, generation, until: now + more }
            }
            ("STOPPING", "1", _) => Event::LeaveAnnounced { child, generation },
            ("MAINPID", ..) => return self.take_named_main(child, number.unwrap_or(0) as u32),
            ("STATUS", ..) => return write_cut(&mut entry.status_text, format_args!("{value}")),
            // Of our own children: something that whoever listens to events should know.
            ("MULTUSD_EVENT", ..) if bundled::is_bundled(&entry.program) => {
                let name = report::name(entry.name());
                return self.tell(format_args!("{name}: {value}"));
            }
            ("MULTUSD_LEVEL", ..) => return self.take_level(child, value),
            ("MULTUSD_VALUE", ..) => return self.take_value(child, value),
            ("ERRNO", ..) => {
                let errno = number.unwrap_or(0) as i32;
                return write_cut(&mut entry.words, format_args!("{}", describe(errno)));
            }
            ("EXIT_STATUS", ..) => return write_cut(&mut entry.words, format_args!("{key}={value}")),
            _ => return,
        };
        self.observe(event);
    }

    /// Another process of the program is its main process from now on: its end is the program's.
    fn take_named_main(&mut self, child: ChildId, pid: u32) {
        let slot = self.page.program(child.index());
        let Some(entry) = self.entry(child) else { return };
        // Of a forking program the end of the process spawned is awaited first.
        let is_forking = entry.spec.exec.forking && slot.main() == slot.spawned();
        if pid != slot.main() && !is_forking && self.is_its_own(child, pid) {
            self.take_main(child, pid);
        }
    }

    /// What a former process left in the socket must not speak for the next.
    pub(super) fn drain_notify(&mut self, child: ChildId) {
        if let Some(number) = self.page.program(child.index()).kept(KeepForProgram::Notify) {
            for _ in 0..1024 {
                if !socket::take_notification(poll::borrow(number)) {
                    break;
                }
            }
        }
    }
}
