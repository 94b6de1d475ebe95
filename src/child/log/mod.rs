//! `log`.

pub mod lines;
pub mod stamp;
