//! The daemon in words: status for the control socket, reasons for people.

use crate::protocol::{self, ProgramStatus};
use crate::supervisor::{End, Exit, Hook, State, Status};
use crate::sys::page::Slot;
use crate::sys::process::Stage;
use crate::sys::{SysError, describe};
use crate::time::Instant;

use super::news::travel;
use super::table::{Entry, write_cut};

/// How the main process ended, as it travels.
fn last_exit(end: Option<End>) -> Option<protocol::LastExit> {
    let exit = match end? {
        End::Exited(exit) | End::Stopped(exit) => exit,
        // Ours to end: the kernel's word for it is SIGKILL.
        End::Hung | End::StartTimedOut | End::CheckFailed => Exit::Signal(libc::SIGKILL as u8),
        End::NotSpawned | End::HookFailed => return None,
    };
    match exit {
        Exit::Code(code) => Some(protocol::LastExit { code: Some(code), signal: None }),
        Exit::Signal(signal) => Some(protocol::LastExit { code: None, signal: Some(signal) }),
        Exit::Unknown => None,
    }
}

/// Why a program is as it is.
pub fn explain_end(entry: &mut Entry, end: Option<End>) {
    match end {
        None => entry.reason.clear(),
        // Said where it was found out, with the path and the error.
        Some(End::NotSpawned) => {}
        Some(End::Exited(Exit::Code(code))) => entry.explain(format_args!("exit code {code}")),
        Some(End::Exited(Exit::Signal(signal))) => {
            entry.explain(format_args!("killed by {}", signal_name(signal)))
        }
        Some(End::Exited(Exit::Unknown)) => entry.explain(format_args!("ended, nobody saw how")),
        Some(End::Stopped(Exit::Code(code))) => entry.explain(format_args!("stopped, exit code {code}")),
        Some(End::Stopped(Exit::Signal(signal))) => {
            entry.explain(format_args!("stopped by {}", signal_name(signal)))
        }
        Some(End::Stopped(Exit::Unknown)) => entry.explain(format_args!("stopped")),
        Some(End::Hung) if entry.program.heartbeat.is_none() => {
            entry.explain(format_args!("hung: it said so, or that it ends, and stayed"))
        }
        Some(End::Hung) => entry.explain(format_args!("hung: no heartbeat in time")),
        Some(End::StartTimedOut) => entry.explain(format_args!("not ready in time")),
        Some(End::CheckFailed) => {
            let Entry { check_text, reason, .. } = entry;
            let colon = if check_text.is_empty() { "" } else { ": " };
            write_cut(reason, format_args!("check failed{colon}{check_text}"));
        }
        Some(End::HookFailed) => entry.explain(format_args!("on_start failed")),
    }
    // One that took too long to start is explained while it still runs.
    let is_there = entry.published == State::Stopping && !entry.exit_taken;
    let words = if is_there { &entry.words } else { &entry.last_words };
    if matches!(end, Some(End::Exited(_) | End::StartTimedOut)) && !words.is_empty() {
        for part in [" (", words, ")"] {
            // What does not fit is left out.
            let _ = entry.reason.push_str(part);
        }
    }
}

/// SIGKILL for 9; SIG65 for what has no name.
fn signal_name(number: u8) -> heapless::String<16> {
    let mut text = heapless::String::new();
    match nix::sys::signal::Signal::try_from(i32::from(number)) {
        Ok(signal) => write_cut(&mut text, format_args!("{}", signal.as_str())),
        Err(_) => write_cut(&mut text, format_args!("signal {number}")),
    }
    text
}

/// Why something that runs beside a program could not be started.
pub fn explain_hook(entry: &mut Entry, hook: Hook, error: SysError) {
    let key = match hook {
        Hook::OnStart => "on_start",
        Hook::ReadyCheck => "ready_check",
        Hook::Check => "check",
        Hook::FindMain => "finding the main process",
        Hook::StopCommand => "stop_command",
        Hook::OnStop => "on_stop",
        Hook::OnFailure => "on_failure",
    };
    entry.explain(format_args!("{key}: {error}"));
}

/// Where a start got stuck, and why.
pub fn explain_failure(entry: &mut Entry, stage: u8, errno: i32) {
    let error = describe(errno);
    // Fields one by one: nothing is copied to say it.
    let Entry { program, spec, reason, .. } = entry;
    let mut explain = |words: core::fmt::Arguments| write_cut(reason, words);
    let text = match Stage::from_number(stage) {
        Some(Stage::Exec) => {
            let program = program.command.first().map_or("", String::as_str);
            return explain(format_args!("exec {program}: {error}"));
        }
        Some(Stage::Directory) => {
            let directory = program.directory.as_deref().unwrap_or("");
            return explain(format_args!("directory {directory}: {error}"));
        }
        Some(Stage::Clone) => "fork",
        Some(Stage::Limit) => "limit_*",
        Some(Stage::Scheduling) => "scheduling",
        Some(Stage::Nice) => "nice",
        Some(Stage::Affinity) => "cpu_affinity",
        Some(Stage::IoPriority) => "ioprio",
        Some(Stage::OomScore) => "oom_score_adj",
        Some(Stage::Descriptor) => "descriptors",
        Some(Stage::Group | Stage::User) => {
            let (user, group) = spec.exec.owner().unwrap_or_default();
            return explain(format_args!("become user {user}, group {group}: {error}"));
        }
        Some(Stage::Capability) => "capabilities",
        Some(Stage::NoNewPrivs) => "no_new_privs",
        Some(Stage::Cgroup) => "control group",
        Some(Stage::Watch) => "the directory of heartbeat_file",
        Some(Stage::State) => "state_directory",
        None => "start",
    };
    explain(format_args!("{text}: {error}"));
}

/// One program for a status reply.
pub fn program(entry: &Entry, slot: &Slot, status: &Status, now: Instant) -> ProgramStatus {
    let alive = slot.is_alive();
    let started = Instant(slot.spawned_at.load(std::sync::atomic::Ordering::SeqCst));
    ProgramStatus {
        name: name(entry.name()),
        state: travel(status.state),
        pid: if alive { slot.main() } else { 0 },
        restarts: status.restarts,
        failures: status.failures,
        uptime_ms: if alive { now.since(started).0 } else { 0 },
        since_ms: now.since(status.since).0,
        next_start_ms: status.next_start.map(|at| at.since(now).0),
        last_exit: last_exit(status.last_end),
        reason: entry.reason.clone(),
        status_text: entry.status_text.clone(),
        heartbeat: status
            .last_beat
            .map(|beat| protocol::Heartbeat { age_ms: now.since(beat).0, limit_ms: status.beat_limit.0 }),
        outputs: heapless::Vec::new(),
    }
}

/// A name as it travels.
pub fn name(text: &str) -> protocol::Name {
    let mut name = protocol::Name::new();
    // Fits: the configuration refuses longer names.
    let _ = name.push_str(text);
    name
}
