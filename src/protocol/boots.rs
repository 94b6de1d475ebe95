//! Boots as they travel, and in words. Pure, as all of the protocol.

use super::Reason;
use crate::packed::packed;

/// One boot, and how it ended.
#[derive(Clone, Debug, Default, PartialEq)]
#[cfg_attr(test, derive(serde::Serialize, serde::Deserialize))]
pub struct Boot {
    /// Counts up by one, from 1.
    pub number: u32,
    /// How it ended.
    pub end: BootEnd,
    /// Why, in words.
    pub why: Reason,
}
packed!(Boot { number, end, why });

/// How a boot ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(test, derive(serde::Serialize, serde::Deserialize))]
pub enum BootEnd {
    /// It has not: it runs.
    #[default]
    Running,
    /// Nobody knows.
    Unordered,
    /// The same, while no watchdog was fed.
    Unfed,
    /// By `reboot`.
    Reboot,
    /// By `poweroff`.
    PowerOff,
    /// Some time after everything was stopped by an order.
    Quit,
    /// By the watchdog, which says so.
    Watchdog,
    /// For heat, as the watchdog says.
    Heat,
    /// For low voltage, as the watchdog says.
    Voltage,
}
packed!(enum BootEnd {
    0 Running,
    1 Unordered,
    2 Unfed,
    3 Reboot,
    4 PowerOff,
    5 Quit,
    6 Watchdog,
    7 Heat,
    8 Voltage,
});

impl BootEnd {
    /// Its name in JSON, and the same for people.
    pub fn names(self) -> (&'static str, &'static str) {
        match self {
            BootEnd::Running => ("running", "runs"),
            BootEnd::Unordered => ("unordered", "ended without an order"),
            BootEnd::Unfed => ("unfed", "ended without an order while no watchdog was fed"),
            BootEnd::Reboot => ("reboot", "reboot, as ordered"),
            BootEnd::PowerOff => ("poweroff", "power off, as ordered"),
            BootEnd::Quit => ("quit", "multusd was ended, as ordered"),
            BootEnd::Watchdog => ("watchdog", "reset by the watchdog"),
            BootEnd::Heat => ("heat", "reset for heat"),
            BootEnd::Voltage => ("voltage", "reset for low voltage"),
        }
    }
}

impl core::fmt::Display for Boot {
    fn fmt(&self, f: &mut core::fmt::Formatter) -> core::fmt::Result {
        f.write_str(self.end.names().1)?;
        if !self.why.is_empty() {
            f.write_str(": ")?;
        }
        f.write_str(&self.why)
    }
}
