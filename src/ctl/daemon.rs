//! A conversation with the daemon: one request, one reply, one deadline. Turns trouble on the way
//! into sentences and exit codes.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use super::{Call, Exit, Failure, fail, nearest, words};
use crate::config::{self, LogSettings};
use crate::limits::{CHILD_COUNT_MAX, LOG, PACKET_BYTES_MAX};
use crate::packed;
use crate::protocol::{self, DaemonStatus, Event, LiveTimes, ProgramStatus, Refusal, Reply, Request};
use crate::sys::clock::now;
use crate::sys::control_client::{Client, Trouble};
use crate::sys::log_ring::Ring;
use crate::sys::terminal::{Interrupts, Woken};
use crate::sys::{describe, file, log_file, poll};
use crate::time::{Instant, Millis};

/// How long one exchange may take. The daemon answers within a wake-up, some milliseconds; a busy
/// board with a slow card still answers within this, and a person waits no longer.
const TIMEOUT: Millis = Millis(10_000);

/// How long `--wait` waits: longer than the usual stop time of a program with its kill.
const WAIT_TIMEOUT: Millis = Millis(60_000);

/// What the daemon gives to read.
pub struct Shared {
    /// Mapped for reading only.
    pub ring: Ring,
    /// Whose lines are in it, and where else they are.
    pub settings: LogSettings,
    /// What was asked for is done when the ring's `sync_done` is this.
    pub sync: u32,
    /// Tells this ring from another.
    pub inode: u64,
}

/// A connection to the daemon.
pub struct Daemon {
    path: PathBuf,
    client: Client,
    timeout: Millis,
    deadline: Instant,
    buffer: Vec<u8>,
}

impl Daemon {
    /// Connects to the daemon the call means. All of the command has to happen in its time.
    pub fn connect(call: &Call) -> Result<Daemon, Failure> {
        let path = call.run_dir.join("control");
        let timeout = call.timeout.unwrap_or(if call.wait { WAIT_TIMEOUT } else { TIMEOUT });
        let deadline = now() + timeout;
        match Client::connect(&path, deadline) {
            Ok(client) => Ok(Daemon { path, client, timeout, deadline, buffer: vec![0; PACKET_BYTES_MAX] }),
            Err(trouble) => Err(trouble_with(&path, timeout, trouble)),
        }
    }

    /// A second connection, which from now on only receives events. Returns when the daemon has
    /// taken the subscription: no event of an order given after that can be missed.
    pub fn subscribe(call: &Call) -> Result<Daemon, Failure> {
        let mut news = Daemon::connect(call)?;
        match news.ask(&mut Request::Subscribe)? {
            Reply::Done { .. } => Ok(news),
            other => Err(unexpected(&other)),
        }
    }

    /// When all has to be over.
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Begins the time anew: for commands that have no end.
    pub fn renew(&mut self) {
        self.deadline = now() + self.timeout;
    }

    /// Waits for events, the user or the time.
    pub fn wait(&self, interrupts: &Interrupts, until: Instant) -> Result<Woken, Failure> {
        interrupts.wait(&self.client, until).map_err(|trouble| self.trouble(trouble))
    }

    /// Asks, and waits for the reply.
    pub fn ask(&mut self, request: &mut Request) -> Result<Reply, Failure> {
        let packet = protocol::encode(request, &mut self.buffer).ok_or_else(not_understood)?;
        self.client.send(packet, self.deadline).map_err(|trouble| self.trouble(trouble))?;
        self.receive(self.deadline)
    }

    /// Asks for what is read without the daemon's help from then on: the log ring, and what `log` was told.
    pub fn shared(&mut self, request: &mut Request) -> Result<Shared, Failure> {
        let packet = protocol::encode(request, &mut self.buffer).ok_or_else(not_understood)?;
        self.client.send(packet, self.deadline).map_err(|trouble| self.trouble(trouble))?;
        let (packet, along) = match self.client.receive_with(&mut self.buffer, self.deadline) {
            Ok(received) => received,
            Err(trouble) => return Err(self.trouble(trouble)),
        };
        let sync = match protocol::decode(packet) {
            Some(Reply::Log { sync }) => sync,
            Some(other) => return Err(unexpected(&other)),
            None => return Err(not_understood()),
        };
        let [ring, settings] = along.ok_or_else(not_understood)?;
        let settings = file::read_memory(settings.as_fd()).ok().and_then(|bytes| packed::from_bytes(&bytes));
        let inode = log_file::inode(ring.as_fd());
        match (Ring::map(ring.as_fd(), false), settings) {
            (Ok(ring), Some(settings)) => Ok(Shared { ring, settings, sync, inode }),
            _ => Err(not_understood()),
        }
    }

    /// The daemon has closed the connection, one that asked for nothing it has not got.
    pub fn is_gone(&self) -> bool {
        poll::wait_readable(self.client.as_fd(), Some(0))
    }

    fn receive(&mut self, deadline: Instant) -> Result<Reply, Failure> {
        match self.client.receive(&mut self.buffer, deadline) {
            Ok(packet) => protocol::decode(packet).ok_or_else(not_understood),
            Err(trouble) => Err(self.trouble(trouble)),
        }
    }

    /// Events of a subscription, as many as came in one packet; none when the time has come.
    pub fn events(
        &mut self,
        until: Instant,
    ) -> Result<heapless::Vec<Event, { protocol::EVENT_PAGE_COUNT }>, Failure> {
        let packet = match self.client.receive(&mut self.buffer, until) {
            Err(Trouble::TimedOut) => return Ok(heapless::Vec::new()),
            Ok(packet) => packet,
            Err(trouble) => return Err(self.trouble(trouble)),
        };
        match protocol::decode(packet) {
            Some(Reply::Events { events }) => Ok(events),
            Some(other) => Err(unexpected(&other)),
            None => Err(not_understood()),
        }
    }

    /// Every event that is remembered.
    pub fn history(&mut self) -> Result<Vec<Event>, Failure> {
        let mut all: Vec<Event> = Vec::new();
        loop {
            let from = all.last().map_or(0, |last| last.seq + 1);
            match self.ask(&mut Request::History { from })? {
                // Onwards only, as with pages.
                Reply::Events { events } if events.first().is_some_and(|first| first.seq >= from) => {
                    all.extend(events);
                }
                Reply::Events { .. } => return Ok(all),
                other => return Err(unexpected(&other)),
            }
        }
    }

    /// Waits until the daemon has closed the connection.
    pub fn ended(&mut self) -> Result<(), Failure> {
        loop {
            match self.client.receive(&mut self.buffer, self.deadline) {
                // Had to make room for another: nothing has ended.
                Ok(packet) => {
                    if let Some(refused @ Reply::Refused { .. }) = protocol::decode(packet) {
                        return Err(unexpected(&refused));
                    }
                }
                Err(Trouble::Closed) => return Ok(()),
                Err(trouble) => return Err(self.trouble(trouble)),
            }
        }
    }

    /// The daemon itself.
    pub fn about(&mut self) -> Result<DaemonStatus, Failure> {
        match self.ask(&mut Request::Daemon)? {
            Reply::Daemon(status) => Ok(status),
            other => Err(unexpected(&other)),
        }
    }

    /// How long outputs can stay live.
    pub fn live(&mut self) -> Result<LiveTimes, Failure> {
        match self.ask(&mut Request::Live)? {
            Reply::Live(times) => Ok(times),
            other => Err(unexpected(&other)),
        }
    }

    /// Every page of something: each is asked for and given away, which says where the next begins.
    pub fn pages(
        &mut self,
        ask: fn(u16) -> Request,
        take: &mut dyn FnMut(Reply) -> Result<Option<u16>, Failure>,
    ) -> Result<(), Failure> {
        let mut from = 0;
        loop {
            let reply = self.ask(&mut ask(from))?;
            match take(reply)? {
                // Onwards only: whatever the other end says, this loop ends.
                Some(next) if next > from => from = next,
                _ => return Ok(()),
            }
        }
    }

    /// All programs.
    pub fn programs(&mut self) -> Result<Vec<ProgramStatus>, Failure> {
        let mut all = Vec::new();
        self.pages(|from| Request::Status { from }, &mut |reply| match reply {
            Reply::Status { programs, next } => {
                all.extend(programs);
                Ok(next.filter(|_| all.len() <= CHILD_COUNT_MAX))
            }
            other => Err(unexpected(&other)),
        })?;
        // What keeps the lines of all others comes last.
        all.sort_by_key(|program| program.name == LOG);
        Ok(all)
    }

    /// A long text behind the last reply; empty where there is none.
    pub fn page(&mut self) -> Result<String, Failure> {
        let mut all = String::new();
        let mut from = 0;
        while let Reply::Page { text, next } = self.ask(&mut Request::Page { from })? {
            all += &text;
            match next {
                Some(next) if next > from => from = next,
                _ => break,
            }
        }
        Ok(all)
    }

    /// The programs that words mean: names, patterns and `all`, each once, in the table's order
    /// for patterns. All of them, or a failure that names the first unknown one.
    pub fn named(&mut self, words: &[String]) -> Result<Vec<ProgramStatus>, Failure> {
        let programs = self.programs()?;
        let mut named: Vec<ProgramStatus> = Vec::new();
        for word in words {
            // `log` is meant only by its name.
            let meant = |program: &&ProgramStatus| match program.name == LOG {
                true => word == LOG,
                false => word == "all" || matches(word, &program.name),
            };
            let mut found = programs.iter().filter(meant).peekable();
            if found.peek().is_none() && word != "all" {
                let hint = nearest::suggestion(word, programs.iter().map(|program| program.name.as_str()));
                let what = if word.as_bytes().contains(&b'*') {
                    "no program matches "
                } else {
                    "no program is called "
                };
                return fail(Exit::NoSuchProgram, [what, &words::clean(word), &hint].concat());
            }
            for program in found {
                if !named.iter().any(|known| known.name == program.name) {
                    named.push(program.clone());
                }
            }
        }
        Ok(named)
    }

    fn trouble(&self, trouble: Trouble) -> Failure {
        trouble_with(&self.path, self.timeout, trouble)
    }

    /// That something did not happen in time.
    pub fn timed_out(&self) -> Failure {
        self.trouble(Trouble::TimedOut)
    }
}

/// Whether a name matches a pattern, in which `*` stands for anything.
fn matches(pattern: &str, name: &str) -> bool {
    let Some((first, mut pattern)) = pattern.split_once('*') else { return pattern == name };
    let Some(mut name) = name.strip_prefix(first) else { return false };
    while let Some((piece, rest)) = pattern.split_once('*') {
        // Two stars, one after the other.
        let at = if piece.is_empty() { Some(0) } else { config::find(name, piece) };
        let Some(at) = at else { return false };
        name = &name[at + piece.len()..];
        pattern = rest;
    }
    name.ends_with(pattern)
}

fn trouble_with(path: &Path, timeout: Millis, trouble: Trouble) -> Failure {
    let path = path.to_string_lossy();
    let (exit, text) = match trouble {
        Trouble::NoDaemon(errno) => {
            let why =
                [" (", describe(errno as i32), "). Is it running? Another instance: --run-dir DIR"].concat();
            (Exit::NoDaemon, ["no multusd answers at ", &path, &why].concat())
        }
        Trouble::NotAllowed(errno) => (Exit::Refused, [&*path, ": ", describe(errno as i32)].concat()),
        Trouble::TimedOut => (Exit::TimedOut, ["timed out after ", &words::duration(timeout)].concat()),
        Trouble::Closed => (Exit::NoDaemon, "multusd closed the connection".to_string()),
        Trouble::Failed(errno) => (Exit::Failed, [&*path, ": ", describe(errno as i32)].concat()),
    };
    Failure { exit, text }
}

/// A refusal: the daemon's own words, and the code for its kind.
pub fn refused(why: Refusal, text: &str) -> Failure {
    let (exit, usual) = match why {
        Refusal::NotAllowed => (Exit::Refused, "not allowed"),
        Refusal::BadRequest => (Exit::Refused, "multusd does not know this request"),
        Refusal::NoSuchProgram => (Exit::NoSuchProgram, "no such program"),
        Refusal::NotRunning => (Exit::NotRunning, "not running"),
        Refusal::Failed => (Exit::Failed, "failed"),
        Refusal::BadConfig => (Exit::Failed, "the configuration has errors"),
    };
    Failure { exit, text: if text.is_empty() { usual.to_string() } else { words::clean(text) } }
}

/// What an answer that is not the one asked for amounts to.
pub fn unexpected(reply: &Reply) -> Failure {
    match reply {
        Reply::Refused { why, text } => refused(*why, text),
        _ => not_understood(),
    }
}

/// That an answer was none.
pub fn not_understood() -> Failure {
    Failure {
        exit: Exit::Failed,
        text: "the answer of multusd is not understood; is it another version?".to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn a_star_stands_for_anything() {
        for (pattern, name) in [
            ("pump", "pump"),
            ("*", "pump"),
            ("web_*", "web_1"),
            ("web_*", "web_"),
            ("*_1", "web_1"),
            ("w*b*1", "web_1"),
            ("**", "x"),
            ("a*a", "aa"),
            ("*ab*ab", "abab"),
        ] {
            assert!(matches(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [
            ("pump", "pump2"),
            ("web_*", "we"),
            ("*_1", "web_12"),
            ("a*a", "a"),
            ("", "x"),
            ("*b*b", "ab"),
            ("ab*ab", "ab"),
        ] {
            assert!(!matches(pattern, name), "{pattern} {name}");
        }
    }
}
