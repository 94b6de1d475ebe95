//! What is to be done. Imperative: the daemon performs it and reports the outcome as an event.

#![allow(
    missing_docs,
    reason = "each variant has its sentence; its fields are newtypes that say what they are"
)]

use crate::limits::ACTION_COUNT_MAX;

use super::{ChildId, Generation};

/// A signal for a child, by meaning. The daemon knows the number and whom it reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignalKind {
    /// The configured stop signal, to the main process, or its group where so configured.
    Stop,
    /// SIGSTOP to every process of the child.
    Pause,
    /// SIGCONT to every process of the child.
    Resume,
}

/// A command, or a small job of the daemon's own, that runs beside the child. A child has at
/// most one at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// `on_start`: before each start; its failure is a failed start.
    OnStart,
    /// `ready_check`: success means the child serves.
    ReadyCheck,
    /// `check`: health of a child that is ready.
    Check,
    /// Finds the main process of a child that forks away (pid file, else the only one left).
    FindMain,
    /// `stop_command`: asks the child to stop, in place of the stop signal.
    StopCommand,
    /// `on_stop`: after an ordered stop, when nothing of the child is alive and outputs are safe.
    OnStop,
    /// `on_failure`: after a failure, when nothing is alive and outputs are safe.
    OnFailure,
}

/// Which of its levels an output is forced to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// `boot`: no process of its owner was ever spawned.
    Boot,
    /// `safe`
    Safe,
}

/// One order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Drive every output of the child to this level and read it back; `OutputsConfirmed` with this
    /// attempt number follows when all of them read so.
    Force { child: ChildId, attempt: u32, level: Level },
    /// The child is ready: drive its outputs that have a `running` level to that, once; from then on
    /// they are the child's. Nothing follows.
    Serve { child: ChildId, generation: Generation },
    /// Start a process; `Spawned` or `SpawnFailed` follows.
    Spawn { child: ChildId, generation: Generation },
    /// Send a signal; nothing follows.
    Signal { child: ChildId, generation: Generation, signal: SignalKind },
    /// SIGKILL every process of the child and wait for the last; `Exited` (if the main process
    /// was alive) and `TreeEmptied` follow.
    KillTree { child: ChildId, generation: Generation },
    /// Start a hook; `HookFinished` follows.
    Run { child: ChildId, generation: Generation, hook: Hook },
    /// Kill the hook that is running: its time is over, or nobody needs its outcome. Its
    /// `HookFinished` follows, also where there is nothing (any more) to kill.
    EndHook { child: ChildId, generation: Generation, hook: Hook },
    /// Feed the hardware watchdog, once.
    Feed,
    /// Everything is down as ordered; the daemon may end.
    Finish,
}

/// The orders of one `decide`. Cannot overflow (see `limits`).
pub type Actions = heapless::Vec<Action, ACTION_COUNT_MAX>;
