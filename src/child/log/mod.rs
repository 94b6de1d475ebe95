//! `log`: takes what programs write and puts it into files. Two processes: the collector, which takes it into the ring
//! and touches no storage, ever; and the storer, which may wait for storage for as long as that takes.

mod hear;
mod lines;
mod relay;
pub mod settings;
mod stamp;
pub mod store;
mod target;
#[cfg(test)]
mod tests;
mod write;
