//! Values as they travel. Pure, as all of the protocol.

use super::Name;
use crate::limits::UNIT_BYTES_MAX;
use crate::packed::packed;

/// One value that somebody has published.
#[derive(Clone, Debug, Default, PartialEq)]
#[cfg_attr(test, derive(serde::Serialize, serde::Deserialize))]
pub struct ValueStatus {
    /// Its name, after the program's and a dot.
    pub name: Name,
    /// Thousandths of its unit; none: not known, or not any more.
    pub milli: Option<i64>,
    /// As it was measured.
    pub raw: i64,
    /// What it is measured in.
    pub unit: heapless::String<UNIT_BYTES_MAX>,
    /// Milliseconds since it was published.
    pub age_ms: u64,
    /// Milliseconds for which it is to be believed; none: until it is published again.
    pub left_ms: Option<u64>,
}
packed!(ValueStatus { name, milli, raw, unit, age_ms, left_ms });
