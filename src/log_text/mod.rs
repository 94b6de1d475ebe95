//! The text of logs: what `log`, which writes it, and `multusctl log`, which reads it, must agree about. Pure.

pub mod lines;
pub mod stamp;

/// What is said, behind `-- `, of lines that were dropped because nobody took them in time: after how many that are,
/// and after how many bytes.
pub const DROPPED: [&str; 2] = [" lines (", " bytes) dropped: log was overdue"];
