//! How children depend on each other: who is ready, who must come down and in which order, who may
//! start. Computed afresh from the table; nothing here is remembered, so nothing can be out of date.

use super::child::{Child, Phase, Rest};
use super::{ChildId, ChildSet};

/// The relations of one moment.
pub(super) struct View {
    ready: ChildSet,
    falling: ChildSet,
    go_down: ChildSet,
    awaited: ChildSet,
    closing: bool,
}

/// Why everything is to be down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Halt {
    /// It is not.
    No,
    /// For as long as the gate is closed: what is wanted is held.
    Gate,
    /// By order, for good.
    Closing,
}

/// What the others mean for one child.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    /// It is to be down: not wanted, ordered to restart, or something it requires is.
    pub falling: bool,
    /// Its stop may begin: nobody that must go first is left.
    pub go_down: bool,
    /// It may start, if it is due.
    pub may_start: bool,
    /// Everything is ordered down: nothing starts any more.
    pub closing: bool,
}

impl View {
    /// Reads the table.
    pub fn of(children: &[Child], halt: Halt) -> View {
        let all = halt != Halt::No;
        let ready = collect(children, Child::is_ready);
        let falling = falling(children, all);
        let awaited = awaited(children, &ready, &falling);
        let go_down = go_down(children, &falling, all);
        View { ready, falling, go_down, awaited, closing: halt == Halt::Closing }
    }

    /// What it means for one child.
    pub fn place(&self, id: ChildId, child: &Child) -> Place {
        let falling = self.falling.contains(id);
        let in_order = child.begun || !child.rules.after.intersects(&self.awaited);
        Place {
            falling,
            go_down: self.go_down.contains(id),
            may_start: !falling && in_order && self.ready.contains_all(&child.rules.requires),
            closing: self.closing,
        }
    }
}

fn ids(children: &[Child]) -> impl Iterator<Item = (ChildId, &Child)> {
    children.iter().enumerate().map(|(index, child)| (ChildId(index as u16), child))
}

fn collect(children: &[Child], is_member: impl Fn(&Child) -> bool) -> ChildSet {
    let mut set = ChildSet::EMPTY;
    for (id, child) in ids(children) {
        if is_member(child) {
            set.insert(id);
        }
    }
    set
}

/// Those that are to be down, and everyone who requires one of them.
fn falling(children: &[Child], all: bool) -> ChildSet {
    let mut falling = collect(children, |child| child.is_ordered_down() || all && !child.is_free());
    if falling.is_empty() {
        return falling;
    }
    loop {
        let before = falling;
        for (id, child) in ids(children) {
            if !child.is_free() && child.rules.requires.intersects(&falling) {
                falling.insert(id);
            }
        }
        if falling == before {
            return falling;
        }
    }
}

/// Those for whose first success or failure a first start waits. One that is held by something
/// hopeless is not waited for: an order of starting must not keep a whole board down.
fn awaited(children: &[Child], ready: &ChildSet, falling: &ChildSet) -> ChildSet {
    let mut awaited = ChildSet::EMPTY;
    for (id, child) in ids(children) {
        if !falling.contains(id) && child.is_coming_up() {
            awaited.insert(id);
        }
    }
    loop {
        let before = awaited;
        let mut hopeful = *ready;
        hopeful.merge(&awaited);
        for id in before.iter() {
            let held = children.get(id.index()).is_some_and(|child| {
                child.phase == Phase::Down(Rest::Due) && !hopeful.contains_all(&child.rules.requires)
            });
            if held {
                awaited.remove(id);
            }
        }
        if awaited == before {
            return awaited;
        }
    }
}

/// Those among the falling whose turn it is: nobody alive requires them and, when everything comes
/// down, those they are to outlive are down.
fn go_down(children: &[Child], falling: &ChildSet, all: bool) -> ChildSet {
    if falling.is_empty() {
        return ChildSet::EMPTY;
    }
    let alive = collect(children, Child::is_alive);
    let mut required = ChildSet::EMPTY;
    for id in alive.iter() {
        if let Some(child) = children.get(id.index()) {
            required.merge(&child.rules.requires);
        }
    }
    let (mut turn, mut waiting, mut under_way) = (ChildSet::EMPTY, ChildSet::EMPTY, false);
    for (id, child) in ids(children) {
        if !falling.contains(id) || !alive.contains(id) {
            continue;
        }
        let outlives = all && child.rules.stops_after.intersects(&alive);
        if !child.is_stoppable() {
            under_way = true;
        } else if required.contains(id) || outlives {
            waiting.insert(id);
        } else {
            turn.insert(id);
        }
    }
    // A circle in the configuration must not keep everything up for ever: when nobody's turn comes
    // by itself, it is everybody's.
    if turn.is_empty() && !under_way { waiting } else { turn }
}
