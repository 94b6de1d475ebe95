//! A set of children as bits: what dependencies are made of.

use crate::limits::CHILD_COUNT_MAX;

use super::ChildId;

const WORDS: usize = CHILD_COUNT_MAX.div_ceil(64);

/// A set of children; one bit each, no heap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChildSet([u64; WORDS]);

impl ChildSet {
    /// The set without members.
    pub const EMPTY: ChildSet = ChildSet([0; WORDS]);

    /// Adds a child.
    pub fn insert(&mut self, child: ChildId) {
        self.0[child.index() / 64] |= 1 << (child.index() % 64);
    }

    /// Removes a child.
    pub fn remove(&mut self, child: ChildId) {
        self.0[child.index() / 64] &= !(1 << (child.index() % 64));
    }

    /// Whether the child is a member.
    pub fn contains(&self, child: ChildId) -> bool {
        self.0[child.index() / 64] & (1 << (child.index() % 64)) != 0
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }

    /// Whether the two sets share a member.
    pub fn intersects(&self, other: &ChildSet) -> bool {
        self.0.iter().zip(&other.0).any(|(mine, theirs)| mine & theirs != 0)
    }

    /// Whether every member of the other set is a member of this one.
    pub fn contains_all(&self, other: &ChildSet) -> bool {
        self.0.iter().zip(&other.0).all(|(mine, theirs)| theirs & !mine == 0)
    }

    /// Adds every member of the other set.
    pub fn merge(&mut self, other: &ChildSet) {
        for (mine, theirs) in self.0.iter_mut().zip(&other.0) {
            *mine |= theirs;
        }
    }

    /// Members in ascending order.
    pub fn iter(self) -> impl Iterator<Item = ChildId> {
        self.0.into_iter().enumerate().flat_map(|(word, bits)| {
            (0..64)
                .filter(move |bit| bits & (1 << bit) != 0)
                .map(move |bit| ChildId((word * 64 + bit) as u16))
        })
    }
}
