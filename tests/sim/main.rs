//! The decision core under simulated time: known answers first, then random scripts.
//!
//! Must never read a clock to decide anything, and never pass by doing nothing: what the random
//! scripts reached is counted, and the counts are asserted.

mod board;
mod known_answers;
mod liveness;
mod oracle;
mod properties;
