//! Lines to syslog and to the kernel's log: one message each, never waited for; what is not taken is lost and counted.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use crate::config::Syslog;
use crate::log_text::lines::When;
use crate::log_text::stamp::{number, wall};
use crate::sys::{SysError, file, log_file, machine, stream};

/// The facility `daemon`, with the severity of what is said on standard output (informational) and on standard error
/// (warning); RFC 5424, 6.2.1.
const PRIORITIES: [u64; 2] = [3 * 8 + 6, 3 * 8 + 4];

/// RFC 5424, 6.1: every receiver should take this much; the text's part of it.
const SYSLOG_BYTES_MAX: usize = 1900;

/// What the kernel takes at once is 1 kB with all it adds.
const KMSG_BYTES_MAX: usize = 900;

/// Milliseconds between two attempts to connect, and until a loss is over.
const PAUSE_MS: u64 = 1000;
const OVER_MS: u64 = 60_000;

/// The local receiver (syslog(3)).
const LOCAL: &str = "/dev/log";

/// Where messages go.
enum Way {
    Syslog(Syslog),
    Kernel,
}

/// One way, and what was lost on it.
struct Sender {
    way: Way,
    open: Option<OwnedFd>,
    /// Not tried before this.
    again_ms: u64,
    lost: u64,
    lost_ms: u64,
}

impl Sender {
    fn new(way: Way) -> Sender {
        Sender { way, open: None, again_ms: 0, lost: 0, lost_ms: 0 }
    }

    fn open(&self) -> Result<OwnedFd, SysError> {
        match &self.way {
            Way::Kernel => log_file::open_kernel_log(),
            Way::Syslog(Syslog::Udp { host, is_six, port }) => stream::datagrams(host, *is_six, *port),
            Way::Syslog(_) => stream::unix_datagrams(Path::new(LOCAL)),
        }
    }

    fn attempt(&mut self, message: &[u8], now_ms: u64) -> Result<(), SysError> {
        if self.open.is_none() && now_ms >= self.again_ms {
            self.again_ms = now_ms + PAUSE_MS;
            self.open = Some(self.open()?);
        }
        let Some(open) = self.open.as_ref().map(AsFd::as_fd) else {
            return Err(SysError { operation: "send", errno: libc::ENOTCONN });
        };
        let mut sent = match self.way {
            Way::Kernel => file::append(open, message),
            Way::Syslog(_) => stream::send_datagram(open, message),
        };
        // Over UDP that is told of the one before: nobody took it, but somebody may take this one.
        let refused = sent.err().filter(|error| error.errno == libc::ECONNREFUSED && self.is_udp());
        if refused.is_some() {
            sent = stream::send_datagram(open, message);
        }
        if let Some(error) = refused {
            self.lose(error, now_ms);
        }
        if sent.is_err_and(|error| error.errno != libc::EAGAIN) {
            self.open = None;
        }
        sent
    }

    fn is_udp(&self) -> bool {
        matches!(self.way, Way::Syslog(Syslog::Udp { .. }))
    }

    /// Sends; true: it is lost.
    fn send(&mut self, message: &[u8], now_ms: u64) -> bool {
        let before = self.lost;
        match self.attempt(message, now_ms) {
            Err(error) => self.lose(error, now_ms),
            Ok(()) if self.lost > 0 && now_ms >= self.lost_ms.saturating_add(OVER_MS) => {
                crate::child::report(format_args!(
                    "{}: taken again; {} lines were lost",
                    self.name(),
                    self.lost
                ));
                self.lost = 0;
            }
            Ok(()) => {}
        }
        self.lost > before
    }

    fn lose(&mut self, error: SysError, now_ms: u64) {
        if self.lost == 0 {
            crate::child::report(format_args!("{}: {error}; lines for it are lost and counted", self.name()));
        }
        self.lost += 1;
        self.lost_ms = now_ms;
    }

    fn name(&self) -> &'static str {
        match self.way {
            Way::Kernel => "kmsg",
            Way::Syslog(_) => "syslog",
        }
    }
}

/// Who says something.
pub struct Speaker<'a> {
    /// The program's name.
    pub name: &'a str,
    /// On standard error.
    pub is_err: bool,
}

/// Both.
pub struct Relay {
    syslog: Option<Sender>,
    kernel: Option<Sender>,
    host: String,
    message: Vec<u8>,
}

impl Relay {
    /// Opens nothing before there is something to say.
    pub fn new(syslog: &Syslog, kmsg: bool) -> Relay {
        Relay {
            syslog: (*syslog != Syslog::No).then(|| Sender::new(Way::Syslog(syslog.clone()))),
            kernel: kmsg.then(|| Sender::new(Way::Kernel)),
            host: machine::host_name(),
            message: Vec::new(),
        }
    }

    /// Hands a line on; true: it is lost.
    pub fn syslog(&mut self, speaker: &Speaker, text: &[u8], when: When) -> bool {
        let Some(sender) = &mut self.syslog else { return false };
        let host = sender.is_udp().then_some(self.host.as_str());
        compose(&mut self.message, host, speaker, &text[..text.len().min(SYSLOG_BYTES_MAX)], when);
        sender.send(&self.message, when.mono_ms)
    }

    /// The same to the kernel's log.
    pub fn kernel(&mut self, speaker: &Speaker, text: &[u8], when: When) -> bool {
        let Some(sender) = &mut self.kernel else { return false };
        compose(&mut self.message, None, speaker, &text[..text.len().min(KMSG_BYTES_MAX)], when);
        // Without it the kernel waits for more, and shows it to nobody until then.
        self.message.push(b'\n');
        sender.send(&self.message, when.mono_ms)
    }
}

/// With a host as RFC 5424 has it. Without one as syslog(3) does (RFC 3164), but for the time, which would be in the
/// receiver's time zone, not known here: a receiver that finds none puts in its own.
fn compose(message: &mut Vec<u8>, host: Option<&str>, speaker: &Speaker, text: &[u8], when: When) {
    message.clear();
    message.push(b'<');
    number(message, PRIORITIES[usize::from(speaker.is_err)], 1);
    message.push(b'>');
    match host {
        Some(host) => {
            message.extend_from_slice(b"1 ");
            wall(message, when.wall_ms);
            message.push(b' ');
            word(message, host, 255);
            word(message, speaker.name, 48);
            message.extend_from_slice(b"- - - ");
        }
        None => {
            message.extend_from_slice(speaker.name.as_bytes());
            message.extend_from_slice(b": ");
        }
    }
    // A control character could begin another message, or do things to a terminal.
    message.extend(text.iter().map(|byte| if *byte < b' ' || *byte == 0x7f { b' ' } else { *byte }));
}

/// Printable ASCII of at most so many bytes, and a space (RFC 5424, 6); a hyphen for nothing.
fn word(message: &mut Vec<u8>, text: &str, max: usize) {
    let text = if text.is_empty() { "-" } else { text };
    message.extend(text.bytes().take(max).map(|byte| if byte.is_ascii_graphic() { byte } else { b'_' }));
    message.push(b' ');
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHEN: When = When { mono_ms: 5000, wall_ms: 1_795_281_601_123 };

    fn composed(host: Option<&str>, name: &str, is_err: bool, text: &str) -> String {
        let mut message = b"rest".to_vec();
        compose(&mut message, host, &Speaker { name, is_err }, text.as_bytes(), WHEN);
        String::from_utf8(message).unwrap()
    }

    #[test]
    fn messages_have_the_forms_of_their_rfcs() {
        assert_eq!(composed(None, "pump", false, "on\n\x1b[2J"), "<30>pump: on  [2J");
        assert_eq!(
            composed(Some("pi-7"), "größe", true, "hot"),
            "<28>1 2026-11-21T17:20:01.123Z pi-7 gr____e - - - hot"
        );
        assert_eq!(composed(Some(""), "a", false, ""), "<30>1 2026-11-21T17:20:01.123Z - a - - - ");
    }

    #[test]
    fn a_datagram_arrives_and_one_that_nobody_takes_is_counted() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let receiver = std::net::UdpSocket::bind(address).unwrap();
            let local = receiver.local_addr().unwrap();
            let udp =
                Syslog::Udp { host: local.ip().to_string(), is_six: local.is_ipv6(), port: local.port() };
            let mut relay = Relay::new(&udp, false);
            let speaker = Speaker { name: "pump", is_err: false };
            assert!(!relay.syslog(&speaker, b"hello", WHEN));
            let mut buffer = [0; 200];
            let length = receiver.recv(&mut buffer).unwrap();
            let text = String::from_utf8_lossy(&buffer[..length]);
            assert!(
                text.starts_with("<30>1 2026-11-21T17:20:01.123Z ") && text.ends_with(" pump - - - hello"),
                "{text}"
            );
            drop(receiver);
            // A refusal is on its way for a while.
            let until = std::time::Instant::now() + std::time::Duration::from_secs(20);
            while !relay.syslog(&speaker, b"nobody", WHEN) {
                assert!(std::time::Instant::now() < until, "refusals are heard of");
                std::thread::yield_now();
            }
            assert!(!relay.kernel(&speaker, b"off", WHEN));
        }
    }
}
