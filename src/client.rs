//! For programs that multusd runs: readiness, beats, status. Everything it needs stands in the environment
//! multusd gives its programs; where that says nothing (the program was started by hand), every call
//! succeeds and does nothing, so that no program needs a second way to run.
//!
//! ```no_run
//! let mut multusd = multusd::client::Multusd::from_environment()?;
//! multusd.ready()?;
//! loop {
//!     // a round of work
//!     multusd.beat()?;
//! #   break;
//! }
//! # Ok::<(), multusd::sys::SysError>(())
//! ```
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use crate::sys::counter::Mapped;
use crate::sys::input::{Published, Reader};
use crate::sys::{SysError, clock, file, gpio, poll, socket, stream, values};
use crate::time::Millis;

/// A program's side of everything that multusd and it say to each other.
pub struct Multusd {
    notify: Option<OwnedFd>,
    means: Means,
    limit: Option<Millis>,
    inputs: Option<Reader>,
    values: Option<values::Reader>,
}

/// One of the program's outputs: it alone drives it while it runs, and multusd makes it safe when it fails.
#[derive(Clone, Copy, Debug)]
pub struct Output(BorrowedFd<'static>);

impl Output {
    /// Switches it. A GPIO line that is configured `active = low` is turned around by the kernel; a file (an
    /// LED, a PWM, a test's) is written `1` or `0`: where other words are meant, write them to the descriptor.
    pub fn set(&self, on: bool) -> Result<(), SysError> {
        match gpio::set(self.0, on) {
            Err(error) if matches!(error.errno, libc::ENOTTY | libc::EINVAL) => {
                file::write_at_start(self.0, if on { b"1\n" } else { b"0\n" })
            }
            result => result,
        }
    }

    /// Its descriptor.
    pub fn descriptor(&self) -> BorrowedFd<'static> {
        self.0
    }
}

/// One input, as it was published last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Input {
    /// What it means; none: it is not read now.
    pub on: Option<bool>,
    /// Its voltage, the edges seen, and when the last of them was.
    pub seen: Published,
}

/// How it beats.
enum Means {
    Nothing,
    Notify,
    Descriptor(BorrowedFd<'static>),
    Counter(Mapped),
    File(PathBuf),
    /// The connection, and the last byte sent.
    Tcp(OwnedFd, u8),
}

fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

fn misunderstood<T>() -> Result<T, SysError> {
    Err(SysError { operation: "environment", errno: libc::EINVAL })
}

impl Multusd {
    /// What the environment says: `NOTIFY_SOCKET`, `MULTUSD_HEARTBEAT`, `MULTUSD_HEARTBEAT_USEC`. Fails where
    /// one of them says something that is not there, or that nobody understands (EINVAL).
    pub fn from_environment() -> Result<Multusd, SysError> {
        let notify = match variable("NOTIFY_SOCKET") {
            Some(path) => Some(socket::connect_notify(Path::new(&path))?),
            None => None,
        };
        let micros =
            variable("MULTUSD_HEARTBEAT_USEC").and_then(|micros| micros.to_str()?.parse::<u64>().ok());
        let means = match variable("MULTUSD_HEARTBEAT") {
            Some(means) => understand(means.to_str().unwrap_or(""))?,
            // Under another supervisor that speaks the same.
            None if variable("WATCHDOG_USEC").is_some() => Means::Notify,
            None => Means::Nothing,
        };
        let inputs = match variable("MULTUSD_INPUTS") {
            Some(number) => Some(Reader::map(descriptor(number.to_str().unwrap_or(""))?)?),
            None => None,
        };
        let values = match variable("MULTUSD_VALUES") {
            Some(number) => Some(values::Reader::map(descriptor(number.to_str().unwrap_or(""))?)?),
            None => None,
        };
        Ok(Multusd { notify, means, limit: micros.map(|micros| Millis(micros / 1000)), inputs, values })
    }

    /// The longest silence allowed; a third of it is a good pace. `None`: nobody judges.
    pub fn limit(&self) -> Option<Millis> {
        self.limit
    }

    /// It serves (`ready = notify`).
    pub fn ready(&self) -> Result<(), SysError> {
        self.say("READY=1")
    }

    /// It is about to end: it has its stop time, and its heartbeat is not judged in it.
    pub fn stopping(&self) -> Result<(), SysError> {
        self.say("STOPPING=1")
    }

    /// A line for people, in `multusctl status`.
    pub fn status(&self, text: &str) -> Result<(), SysError> {
        self.say(&["STATUS=", text].concat())
    }

    /// Anything else of sd_notify(3), such as `EXTEND_TIMEOUT_USEC=5000000`.
    pub fn say(&self, words: &str) -> Result<(), SysError> {
        match &self.notify {
            Some(notify) => socket::notify(notify.as_fd(), words.as_bytes()),
            None => Ok(()),
        }
    }

    /// The same without waiting; false: it cannot be taken now.
    pub fn try_say(&self, words: &str) -> bool {
        self.notify.as_ref().is_none_or(|notify| socket::send(notify.as_fd(), words.as_bytes()))
    }

    /// It makes progress. Never waits; costs a system call, or none where it beats by `counter`.
    pub fn beat(&mut self) -> Result<(), SysError> {
        match (&mut self.means, &self.notify) {
            (Means::Nothing, _) | (Means::Notify, None) => {}
            // A queue or a pipe that is full holds beats that were not looked at yet.
            (Means::Notify, Some(notify)) => drop(socket::send(notify.as_fd(), b"WATCHDOG=1")),
            (Means::Descriptor(pipe), _) => return file::write_some(*pipe, b"."),
            (Means::Counter(page), _) => page.beat(),
            (Means::File(path), _) => return file::touch(path),
            (Means::Tcp(connection, last), _) => {
                *last = *last % 9 + 1;
                return file::write_some(connection.as_fd(), &[*last]);
            }
        }
        Ok(())
    }

    /// One of the program's outputs (`outputs =`), by its name; `None`: it has none of this name, or one that
    /// a command drives.
    pub fn output(&self, name: &str) -> Option<Output> {
        let list = variable("MULTUSD_OUTPUTS")?;
        let pairs = list.to_str()?.split(',').filter_map(|pair| pair.split_once('='));
        let (_, number) = pairs.into_iter().find(|(known, _)| *known == name)?;
        descriptor(number).ok().map(Output)
    }

    /// One of the machine's inputs, if the program gets any (`inputs =`), by its name. No system call.
    pub fn input(&self, name: &str) -> Option<Input> {
        let (on, seen) = self.inputs.as_ref()?.read(name)?;
        Some(Input { on, seen })
    }

    /// An output of the machine, whoever owns it, by its name, if the program gets the page of inputs; what it is at
    /// is not known where its program does not say so.
    pub fn output_level(&self, name: &str) -> Option<Input> {
        let (on, seen) = self.inputs.as_ref()?.read_output(name)?;
        Some(Input { on, seen })
    }

    /// What somebody has published by this name, as it was published, and may be too old by now.
    pub fn published(&self, name: &str) -> Option<values::Value> {
        self.values.as_ref()?.read(name)
    }

    /// The state of a program, by the number it has in `protocol::State`, and how often it was started again (bundled
    /// children only); none: there is no such program.
    pub fn program(&self, name: &str) -> Option<(u8, u32)> {
        self.values.as_ref()?.program(name)
    }

    /// Each input and, where that is known, output of the machine: whether it is an output, its name, and how it is.
    pub fn each_line(&self, found: &mut dyn FnMut(bool, &str, Input)) {
        if let Some(lines) = &self.inputs {
            lines.each(&mut |is_output, name, on, seen| found(is_output, name, Input { on, seen }));
        }
    }

    /// Each value that anybody has published (bundled children only).
    pub fn each_value(&self, found: &mut dyn FnMut(values::Name, values::Value)) {
        if let Some(values) = &self.values {
            values.each(found);
        }
    }

    /// The counter that says that something was published (bundled children only).
    pub fn changes(&self) -> Option<BorrowedFd<'static>> {
        descriptor(variable("MULTUSD_CHANGES")?.to_str()?).ok()
    }

    /// What somebody has published by this name (bundled children only); none: nobody has, or it is not known now.
    pub fn value(&self, name: &str) -> Option<i64> {
        self.values.as_ref()?.read(name)?.now(clock::now())
    }

    /// Waits until what was said has been heard, at most so long; false: it has not. For a process that is
    /// about to end: of one that has ended nobody can know whose it was.
    pub fn wait_until_heard(&self, timeout_ms: u16) -> bool {
        self.notify.as_ref().is_none_or(|notify| socket::notify_barrier(notify.as_fd(), timeout_ms))
    }
}

fn descriptor(text: &str) -> Result<BorrowedFd<'static>, SysError> {
    match text.parse() {
        Ok(number @ 0..) => Ok(poll::borrow(number)),
        _ => misunderstood(),
    }
}

fn understand(text: &str) -> Result<Means, SysError> {
    let (kind, what) = text.split_once(':').unwrap_or((text, ""));
    Ok(match (kind, descriptor(what).ok()) {
        ("notify", _) => Means::Notify,
        ("fd", Some(pipe)) => Means::Descriptor(pipe),
        ("counter", Some(page)) => Means::Counter(Mapped::new(page)?),
        ("file", _) => Means::File(what.into()),
        ("tcp", _) => match what.parse::<u16>() {
            Ok(port) => Means::Tcp(stream::connect("127.0.0.1", false, port)?, 0),
            Err(_) => return misunderstood(),
        },
        _ => return misunderstood(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_understood_is_an_error_and_not_a_heart_that_does_not_beat() {
        for text in ["", "fd", "fd:", "fd:x", "fd:-1", "counter:9999", "tcp:", "tcp:70000", "pulse:3"] {
            assert!(understand(text).is_err(), "{text}");
        }
        assert!(
            matches!(understand("file:/run/a:b"), Ok(Means::File(path)) if path == Path::new("/run/a:b"))
        );
        assert!(matches!(understand("notify"), Ok(Means::Notify)));
    }
}
