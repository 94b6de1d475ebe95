//! A daemon for tests of `multusctl`: a thread that serves a control socket, with programs that
//! change their state as the test says. It knows nothing a real daemon decides.

use std::collections::VecDeque;
use std::io::PipeWriter;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use multusd::limits::PACKET_BYTES_MAX;
use multusd::protocol::*;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{self, AddressFamily, Backlog, MsgFlags, SockFlag, SockType, UnixAddr};

/// Programs in a page of the fake: fewer than fit, so that every test turns pages.
const PAGE_COUNT: usize = 2;

/// What a program does next.
#[derive(Clone)]
pub struct Move {
    pub name: &'static str,
    pub to: State,
    pub pid: u32,
    pub exit: Option<LastExit>,
    pub reason: &'static str,
}

/// A program gets to a state, without more to say.
pub fn to(name: &'static str, to: State, pid: u32) -> Move {
    Move { name, to, pid, exit: None, reason: "" }
}

/// What the fake answers to one request.
#[allow(dead_code, clippy::large_enum_variant)]
pub enum Answer {
    /// What a daemon usually answers.
    Usual,
    /// This.
    Reply(Reply),
    /// These bytes.
    Bytes(Vec<u8>),
    /// Nothing.
    Silence,
    /// The end of the connection.
    Close,
}

/// What the fake knows.
pub struct World {
    pub daemon: DaemonStatus,
    pub live: LiveTimes,
    pub boots: Vec<Boot>,
    pub programs: Vec<ProgramStatus>,
    /// The long text behind replies.
    pub page: String,
    /// Happens one by one: the first with an order, each other after a status was read.
    pub moves: VecDeque<Move>,
    /// Goes to subscribers after the reply that is under way.
    pub news: Vec<Event>,
    /// Ends every subscription once the news are out.
    pub end_news: bool,
    /// Everything that was asked.
    pub asked: Vec<Request>,
    seq: u64,
    ordered: bool,
}

impl World {
    /// A daemon with these programs.
    pub fn new(programs: Vec<ProgramStatus>) -> World {
        let daemon = DaemonStatus {
            version: "0.1.0".try_into().unwrap(),
            guard_pid: 301,
            supervisor_pid: 302,
            uptime_ms: 11_520_000,
            supervisor_restarts: 0,
            programs: programs.len() as u16,
            shutdown_in_ms: None,
            config_note: heapless::String::new(),
            limitations: heapless::Vec::new(),
        };
        World {
            daemon,
            live: LiveTimes::default(),
            boots: Vec::new(),
            programs,
            page: String::new(),
            moves: VecDeque::new(),
            news: Vec::new(),
            end_news: false,
            asked: Vec::new(),
            seq: 40,
            ordered: false,
        }
    }

    /// The same, with things to happen.
    pub fn moving(programs: Vec<ProgramStatus>, moves: &[Move]) -> World {
        World { moves: moves.iter().cloned().collect(), ..World::new(programs) }
    }

    /// From now on things happen, although this client ordered nothing.
    pub fn order_from_elsewhere(&mut self) {
        self.ordered = true;
    }

    fn make_move(&mut self) {
        let Some(Move { name, to, pid, exit, reason }) = self.moves.pop_front() else { return };
        let program = self.programs.iter_mut().find(|program| program.name == name).unwrap();
        self.seq += 1;
        self.news.push(Event {
            seq: self.seq,
            at_ms: 100_000 + self.seq,
            name: name.try_into().unwrap(),
            from: program.state,
            to,
            pid,
            reason: reason.try_into().unwrap(),
        });
        program.state = to;
        program.pid = pid;
        program.reason = reason.try_into().unwrap();
        if exit.is_some() {
            program.last_exit = exit;
        }
    }

    fn usual(&mut self, request: &Request) -> Reply {
        let done = Reply::Done { text: heapless::String::new() };
        match request {
            Request::Daemon => Reply::Daemon(self.daemon.clone()),
            Request::Live => Reply::Live(self.live),
            Request::Reasons => Reply::Reasons { boots: self.boots.iter().cloned().collect() },
            Request::Status { from } => {
                let from = usize::from(*from);
                let page = self.programs.iter().skip(from).take(PAGE_COUNT).cloned().collect();
                let more = from + PAGE_COUNT < self.programs.len();
                Reply::Status { programs: page, next: more.then_some((from + PAGE_COUNT) as u16) }
            }
            Request::Order { .. } | Request::Reload { .. } => {
                self.ordered = true;
                self.make_move();
                done
            }
            Request::Page { from } => {
                // A few bytes at a time, for the same reason as PAGE_COUNT.
                let rest = &self.page[*from as usize..];
                let length = rest.len().min(10);
                let next = (length < rest.len()).then_some(*from + length as u32);
                Reply::Page { text: rest[..length].try_into().unwrap(), next }
            }
            // What it will tell is what it remembers, too.
            Request::History { from } => {
                let later = self.news.iter().filter(|event| event.seq >= *from);
                Reply::Events { events: later.take(3).cloned().collect() }
            }
            _ => done,
        }
    }
}

/// Decides what the fake answers; `Answer::Usual` is always possible.
pub type Script = Box<dyn FnMut(&Request, &mut World) -> Answer + Send>;

/// A running fake; dropping it ends it.
pub struct Fake {
    pub run_dir: PathBuf,
    world: Arc<Mutex<World>>,
    stop: Option<PipeWriter>,
    thread: Option<JoinHandle<()>>,
}

/// A directory of its own for every test, with a path short enough for a socket's name.
pub fn new_dir() -> PathBuf {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let dir = std::env::temp_dir().join(format!("multusctl-{}-{count}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    dir
}

impl Fake {
    /// Begins to serve.
    pub fn start(world: World, script: Script) -> Fake {
        let run_dir = new_dir();
        // std knows stream sockets only, but accepting is the same call, and safe there.
        let listener = UnixListener::from(listen(&run_dir.join("control")));
        let world = Arc::new(Mutex::new(world));
        let (stopped, stop) = std::io::pipe().unwrap();
        let shared = world.clone();
        let thread = std::thread::spawn(move || serve(&stopped.into(), &listener, &shared, script));
        Fake { run_dir, world, stop: Some(stop), thread: Some(thread) }
    }

    /// What was asked so far.
    pub fn asked(&self) -> Vec<Request> {
        self.world.lock().unwrap().asked.clone()
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.stop.take();
        let served = self.thread.take().map(JoinHandle::join);
        let _ = std::fs::remove_dir_all(&self.run_dir);
        if !std::thread::panicking() {
            assert!(served.is_some_and(|served| served.is_ok()), "the fake daemon panicked");
        }
    }
}

/// A control socket that nobody serves yet.
pub fn listen(path: &Path) -> OwnedFd {
    let listener =
        socket::socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None).unwrap();
    socket::bind(listener.as_raw_fd(), &UnixAddr::new(path).unwrap()).unwrap();
    socket::listen(&listener, Backlog::new(8).unwrap()).unwrap();
    listener
}

struct Connection {
    socket: OwnedFd,
    subscribed: bool,
    closed: bool,
}

impl Connection {
    fn send(&mut self, bytes: &[u8]) {
        // The client may be gone; that is its right.
        let _ = socket::send(self.socket.as_raw_fd(), bytes, MsgFlags::MSG_NOSIGNAL);
    }

    fn reply(&mut self, reply: &mut Reply) {
        let mut buffer = [0; PACKET_BYTES_MAX];
        let packet = encode(reply, &mut buffer).unwrap().to_vec();
        self.send(&packet);
    }
}

fn serve(stopped: &OwnedFd, listener: &UnixListener, world: &Mutex<World>, mut script: Script) {
    let mut connections: Vec<Connection> = Vec::new();
    loop {
        let mut files: Vec<PollFd> = [stopped.as_fd(), listener.as_fd()]
            .into_iter()
            .chain(connections.iter().map(|connection| connection.socket.as_fd()))
            .map(|file| PollFd::new(file, PollFlags::POLLIN))
            .collect();
        poll(&mut files, PollTimeout::NONE).unwrap();
        let ready: Vec<bool> = files.iter().map(|file| file.any().unwrap_or(false)).collect();
        if ready[0] {
            return;
        }
        for (connection, _) in connections.iter_mut().zip(&ready[2..]).filter(|(_, ready)| **ready) {
            let mut buffer = [0; PACKET_BYTES_MAX];
            let length = socket::recv(connection.socket.as_raw_fd(), &mut buffer, MsgFlags::empty());
            match length.ok().filter(|length| *length > 0) {
                None => connection.closed = true,
                Some(length) => {
                    answer(connection, &buffer[..length], &mut world.lock().unwrap(), &mut script)
                }
            }
        }
        publish(&mut connections, &mut world.lock().unwrap());
        connections.retain(|connection| !connection.closed);
        if ready[1] {
            let (socket, _) = listener.accept().unwrap();
            connections.push(Connection { socket: socket.into(), subscribed: false, closed: false });
        }
    }
}

fn answer(connection: &mut Connection, packet: &[u8], world: &mut World, script: &mut Script) {
    let request: Request = decode(packet).expect("multusctl sends what can be decoded");
    assert!(!connection.subscribed, "a subscriber sends nothing more");
    world.asked.push(request.clone());
    match script(&request, world) {
        Answer::Usual => {
            let mut reply = world.usual(&request);
            connection.reply(&mut reply);
            connection.subscribed = request == Request::Subscribe;
            connection.closed = request == Request::Quit;
        }
        Answer::Reply(mut reply) => connection.reply(&mut reply),
        Answer::Bytes(bytes) => connection.send(&bytes),
        Answer::Silence => {}
        Answer::Close => connection.closed = true,
    }
    let last_page = world.programs.len().saturating_sub(1) / PAGE_COUNT * PAGE_COUNT;
    if world.ordered && request == (Request::Status { from: last_page as u16 }) {
        world.make_move();
    }
}

fn publish(connections: &mut [Connection], world: &mut World) {
    if !connections.iter().any(|connection| connection.subscribed) {
        return;
    }
    let news = std::mem::take(&mut world.news);
    for connection in connections.iter_mut().filter(|connection| connection.subscribed) {
        for page in news.chunks(EVENT_PAGE_COUNT) {
            connection.reply(&mut Reply::Events { events: page.iter().cloned().collect() });
        }
        connection.closed |= world.end_news;
    }
}
