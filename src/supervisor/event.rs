//! What happened. Past tense: an event is a fact and orders nothing.

#![allow(
    missing_docs,
    reason = "each variant has its sentence; its fields are newtypes that say what they are"
)]

use crate::time::{Instant, Millis};

use super::{ChildId, Generation, Hook};

/// How a process ended, as the kernel reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It returned this status, 0..=255.
    Code(u8),
    /// This signal ended it.
    Signal(u8),
    /// It ended, and nobody could say how (adopted from a former life, or a forked-away daemon).
    Unknown,
}

/// What an operator, or a client allowed to act as one, wants of a child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Run it and keep it running; what it requires is wanted too. Forgets earlier failures.
    Start,
    /// Run it; do not restart it when it ends.
    Once,
    /// Take it down in order and leave it down. What requires it goes down first and is held.
    Stop,
    /// Down in order, then up at once, whatever the back-off says.
    Restart,
    /// Stop its processes (SIGSTOP), outputs safe, heartbeat not judged.
    Pause,
    /// Let a paused child go on; its deadlines restart in full.
    Resume,
}

/// A fact about one child or the machine. Facts about an earlier generation are ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The ordered process exists.
    Spawned { child: ChildId, generation: Generation },
    /// No process came of the order to spawn (fork refused), or it ended before its program
    /// began (directory missing, user unknown, exec refused). Nothing of it is alive.
    SpawnFailed { child: ChildId, generation: Generation },
    /// The child says it serves: READY=1, a newline on its descriptor.
    ReadyReported { child: ChildId, generation: Generation },
    /// The child proved progress, at this time (which is not to come).
    Beat { child: ChildId, generation: Generation, at: Instant },
    /// The child said itself that it hangs (WATCHDOG=trigger), or broke the protocol of its heartbeat.
    Hung { child: ChildId, generation: Generation },
    /// This incarnation asked for another heartbeat time (WATCHDOG_USEC). Without effect where no
    /// heartbeat is configured.
    HeartbeatChanged { child: ChildId, generation: Generation, limit: Millis },
    /// The child asked for more time: its current deadlines do not fall before `until`.
    DeadlineExtended { child: ChildId, generation: Generation, until: Instant },
    /// The child said that it ends (STOPPING=1): it has its stop time, and is judged by nothing else.
    LeaveAnnounced { child: ChildId, generation: Generation },
    /// A health check found the child failing, or a resource limit was exceeded.
    CheckFailed { child: ChildId, generation: Generation },
    /// The child's main process ended. For a forking child before `MainFound`: the process that
    /// was spawned, which is expected to return 0.
    Exited { child: ChildId, generation: Generation, exit: Exit },
    /// No process of the child is left, after `KillTree`.
    TreeEmptied { child: ChildId, generation: Generation },
    /// Every output of the child reads back safe, after the `Force` with this attempt number.
    OutputsConfirmed { child: ChildId, attempt: u32 },
    /// The hook ended; for `FindMain`, success means that the main process is known.
    HookFinished { child: ChildId, generation: Generation, hook: Hook, success: bool },
    /// An operator's order for one child.
    Ordered { child: ChildId, order: Order },
    /// Take everything down in order; `Action::Finish` follows when all are down.
    StopOrdered,
    /// Nothing may run now (too hot, too cold): everything down in order, and held.
    GateClosed,
    /// What is wanted may run again.
    GateOpened,
    /// The guard answered: it is alive.
    GuardEchoed,
}
