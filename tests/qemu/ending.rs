//! How it ended with a guest, in the words a failing test shows.

use std::fmt;

/// Why an order has no reply.
#[derive(Clone, Debug, PartialEq)]
pub enum Ending {
    /// QEMU itself died by a signal.
    QemuKilled { signal: i32 },
    /// QEMU itself ended; its last words.
    QemuExited { code: i32, said: String },
    /// The guest's kernel panicked, and why it says so.
    Panicked { reason: String },
    /// The watchdog reset the guest.
    WatchdogBit,
    /// The guest was reset, by itself or by the machine's button.
    Reset,
    /// The guest switched itself off.
    PoweredOff,
    /// The guest's clock went on and no reply came.
    Silent { order: String, guest_seconds: u32 },
    /// QEMU holds the machine: QMP's `stop`, or a watchdog that pauses. No hang of the guest.
    Stopped,
    /// The guest's clock did not go on as it should: QEMU hangs, or the host is far too slow.
    Stalled { order: String, host_seconds: u64 },
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Ending::QemuKilled { signal } => write!(f, "QEMU was killed by signal {signal}"),
            Ending::QemuExited { code, said } => {
                write!(f, "QEMU ended with exit code {code}: {}", said.trim())
            }
            Ending::Panicked { reason } => write!(f, "the guest's kernel panicked: {reason}"),
            Ending::WatchdogBit => write!(f, "the watchdog reset the guest"),
            Ending::Reset => write!(f, "the guest was reset"),
            Ending::PoweredOff => write!(f, "the guest powered off"),
            Ending::Stopped => write!(f, "QEMU has stopped the machine"),
            Ending::Silent { order, guest_seconds } => {
                write!(f, "no answer to \"{order}\" within {guest_seconds} s of guest time")
            }
            Ending::Stalled { order, host_seconds } => write!(
                f,
                "QEMU hangs, or this machine is far too slow: \
                 no answer to \"{order}\" in {host_seconds} s"
            ),
        }
    }
}

/// The reason of a panic in a kernel's console, if there was one.
pub fn panic_reason(console: &str) -> Option<String> {
    let (_, rest) = console.rsplit_once("Kernel panic - not syncing: ")?;
    Some(rest.lines().next().unwrap_or("").trim().into())
}

/// The last lines of a console, for people.
pub fn tail(console: &str) -> String {
    let lines: Vec<&str> = console.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
    let last = &lines[lines.len().saturating_sub(30)..];
    format!("--- the last {} lines of the guest's console:\n{}\n---", last.len(), last.join("\n"))
}
