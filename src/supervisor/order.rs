//! What an operator's order makes of one child, and the ladder by which it comes down in order:
//! stop command, stop signal, stop time, SIGKILL.
//!
//! Must never take a child down out of turn: an order only notes the wish, and the ladder begins when
//! `step` is told that everyone who must go first is gone.

use crate::time::Instant;

use super::child::{Child, Fate, Last, Phase, Rest, Stage, StopStage};
use super::series::Series;
use super::{End, Exit, Hook, Order, SignalKind};

impl Child {
    /// Starts the ordered way down of a child that has, or is to get, a process.
    pub fn begin_stop(&mut self, now: Instant) {
        self.extended = Instant(0);
        match self.phase {
            Phase::Spawning { .. } => {
                self.phase = Phase::Stopping { since: now, stage: StopStage::Unborn };
                return;
            }
            // The process that was spawned is gone and the daemon is not known: nobody to ask.
            Phase::Starting { stage: Stage::Finding, .. } => return self.kill_by_order(now),
            // It may act before it is killed, so its outputs are its own once more.
            Phase::Paused => {
                self.owed.resume = true;
                self.outputs.release();
            }
            _ => {}
        }
        self.drop_unsent();
        if self.rules.hooks.stop_command.is_some() {
            self.phase = Phase::Stopping { since: now, stage: StopStage::Command { asked: false } };
        } else {
            self.ask_to_stop(now, true);
        }
    }

    /// From here the stop time runs; `by_signal` unless a stop command already asked.
    pub fn ask_to_stop(&mut self, now: Instant, by_signal: bool) {
        self.phase = Phase::Stopping { since: now, stage: StopStage::Asked };
        if by_signal {
            self.drop_unsent();
            self.owed.last = Some(Last::Signal(SignalKind::Stop));
        }
    }

    /// The stop time is over.
    pub fn kill_by_order(&mut self, now: Instant) {
        self.last_end = Some(End::Stopped(Exit::Unknown));
        self.farewell = self.rules.hooks.on_stop.map(|_| Hook::OnStop);
        self.order_dead(now, Fate::Ordered);
    }

    /// Forgets an order that did not leave yet; a hook that was not started does not run.
    pub fn drop_unsent(&mut self) {
        if let Some(Last::Run(_)) = self.owed.last {
            self.hook = None;
            self.owed.end_hook = false;
        }
        self.owed.last = None;
    }

    /// Takes in an operator's order. `Start`, `Once` and `Restart` reach it through `want` too.
    pub fn order(&mut self, now: Instant, order: Order) {
        match order {
            Order::Start => {
                self.once = false;
                self.want(true);
            }
            Order::Once => {
                self.once = true;
                self.want(true);
            }
            Order::Restart => {
                self.want(true);
                self.bounce = !matches!(self.phase, Phase::Down(_));
            }
            Order::Stop => {
                (self.wanted, self.once, self.bounce) = (false, false, false);
                if let Phase::Down(_) = self.phase {
                    self.phase = Phase::Down(Rest::Stopped);
                }
            }
            Order::Pause => {
                if let Phase::Running { .. } = self.phase {
                    self.phase = Phase::Paused;
                    self.owed.last = Some(Last::Signal(SignalKind::Pause));
                    if self.owns_outputs() {
                        // A process on another processor may finish one more write after the
                        // signal was sent: the first attempt proves nothing.
                        self.outputs.endanger(now);
                        self.outputs.renew(2);
                    }
                }
            }
            Order::Resume => {
                if self.phase == Phase::Paused {
                    self.outputs.release();
                    self.become_ready(now);
                    self.owed.last = Some(Last::Signal(SignalKind::Resume));
                }
            }
        }
    }

    /// It is to be up. `direct`: it was named in the order; else it is required by one that was,
    /// and what already runs, waits for its next start or has succeeded is left as it is.
    pub fn want(&mut self, direct: bool) {
        let idle = match self.phase {
            Phase::Down(Rest::Stopped | Rest::Fatal) => true,
            Phase::Down(Rest::Exited) => !self.succeeded,
            _ => !self.wanted,
        };
        let over = match self.phase {
            Phase::Clearing(fate) | Phase::Proving(fate) | Phase::Concluding { fate, .. } => {
                fate == Fate::Fatal || fate == Fate::Exited && !self.succeeded
            }
            _ => false,
        };
        self.wanted = true;
        if !(direct || idle || over) {
            return;
        }
        self.series = Series::NEW;
        self.phase = match self.phase {
            Phase::Down(_) => Phase::Down(Rest::Due),
            Phase::Clearing(_) => Phase::Clearing(Fate::Ordered),
            Phase::Proving(_) => Phase::Proving(Fate::Ordered),
            Phase::Concluding { asked, .. } => Phase::Concluding { fate: Fate::Ordered, asked },
            other => other,
        };
    }
}
