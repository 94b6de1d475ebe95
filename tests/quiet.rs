//! The supervisor's loop allocates nothing once it has started, whatever happens (10 000 mixed
//! events and more), and sleeps when nothing happens. Control clients: as many as fit, and the
//! next one is refused in words.
//!
//! This binary runs multusd itself, with an allocator that counts: re-executed with `COUNT` in its
//! environment it is the daemon, else the tests. The count lies in a mapped file, so that it is
//! read from outside; only the process that the daemon calls its supervisor counts.

mod harness;

use std::alloc::{GlobalAlloc, Layout, System};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant as Clock};

use harness::{Instance, await_condition, script, signal, supervisor_of, wait};
use multusd::protocol::{self, Order, Reply, Request};
use multusd::sys::clock;
use multusd::sys::control_client::Client;
use multusd::time::Millis;

/// The variable that names the file with the count.
const COUNT: &str = "MULTUSD_TEST_COUNT";

/// The mapped count; null: nothing is counted.
static SHARED: AtomicPtr<AtomicU64> = AtomicPtr::new(std::ptr::null_mut());
/// The process whose allocations count: the supervisor. Its jobs are copies with another number.
static COUNTED: AtomicU32 = AtomicU32::new(0);

struct Counting;

fn count() {
    let shared = SHARED.load(SeqCst);
    if !shared.is_null() && COUNTED.load(SeqCst) == std::process::id() {
        // SAFETY: set once, to a mapping that stays.
        unsafe { &*shared }.fetch_add(1, SeqCst);
    }
}

// SAFETY: the system's allocator does the work; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: as the caller guarantees.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as the caller guarantees.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: as the caller guarantees.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Not a test: the daemon, when this binary is called as such.
#[test]
fn daemon() {
    let Some(path) = std::env::var_os(COUNT) else { return };
    let file = fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    // SAFETY: a new shared mapping of a file with that length, never unmapped.
    let address = unsafe {
        use std::os::fd::AsRawFd;
        let access = libc::PROT_READ | libc::PROT_WRITE;
        libc::mmap(std::ptr::null_mut(), 8, access, libc::MAP_SHARED, file.as_raw_fd(), 0)
    };
    assert_ne!(address, libc::MAP_FAILED);
    SHARED.store(address.cast(), SeqCst);
    let dir = PathBuf::from(std::env::var_os("MULTUSD_TEST_DIR").unwrap());
    let options = multusd::daemon::Options {
        config: dir.join("multusd.cfg"),
        run_dir: Some(dir.join("run")),
        children: multusd::child::CHILDREN,
    };
    die_with_parent(libc::SIGKILL);
    // The guard clones without threads' help: this thread becomes the only one in a fresh process.
    // SAFETY: the copy has one thread, and the test harness's other ones hold no lock it needs.
    if unsafe { libc::fork() } == 0 {
        die_with_parent(libc::SIGTERM);
        let code = multusd::guard::run(&|page| {
            COUNTED.store(std::process::id(), SeqCst);
            multusd::daemon::run(page, &options)
        });
        std::process::exit(i32::from(code));
    }
    // SAFETY: waits for the one child.
    unsafe { libc::wait(std::ptr::null_mut()) };
    std::process::exit(0);
}

/// Whatever becomes of a test, nothing of it stays: its guard is told to stop everything.
fn die_with_parent(signal: i32) {
    // SAFETY: integers.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, signal, 0, 0, 0) };
}

fn counted(dir: &Path) -> u64 {
    u64::from_ne_bytes(fs::read(dir.join("count")).unwrap()[..8].try_into().unwrap())
}

fn launch_counting(instance: &Instance) -> Child {
    fs::write(instance.dir.join("count"), [0; 8]).unwrap();
    let log = fs::File::create(instance.dir.join("multusd.log")).unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "daemon", "--nocapture", "--test-threads=1"]);
    command.env(COUNT, instance.dir.join("count")).env("MULTUSD_TEST_DIR", &instance.dir);
    command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
    let child = command.spawn().unwrap();
    instance.await_that("multusd answers", || instance.ctl(&["status"]).status.success());
    child
}

fn connect(instance: &Instance) -> Client {
    Client::connect(&instance.run_dir().join("control"), clock::now() + Millis(10_000)).expect("connects")
}

fn ask(client: &Client, request: &Request) -> Reply {
    let (mut packet, mut reply) = ([0; 8192], [0; 8192]);
    let until = clock::now() + Millis(10_000);
    client.send(protocol::encode(&mut request.clone(), &mut packet).unwrap(), until).expect("sent");
    protocol::decode(client.receive(&mut reply, until).expect("an answer")).expect("understood")
}

fn busy_programs(dir: &Path) -> String {
    let eager = "startsecs = 0\nrestart_delay = 1ms\nrestart_delay_max = 2ms\nstopwaitsecs = 1\n";
    let talk = "perl -MSocket -e 'socket(S,AF_UNIX,SOCK_DGRAM,0);$a=sockaddr_un($ENV{NOTIFY_SOCKET});\
                send(S,\"READY=1\",0,$a);for(1..50){send(S,\"STATUS=line $_\",0,$a)}'; exit 1";
    let section = |name: &str, command: &str, keys: &str| {
        format!("[program:{name}]\ncommand = {command}\n{eager}{keys}\n")
    };
    let yes = "/bin/true";
    let mut text = String::new();
    for number in 0..6 {
        text += &section(
            &format!("ends{number}"),
            "/bin/false",
            "stdout_logfile = NONE\nstderr_logfile = NONE\n",
        );
    }
    text += &section("talks", &script(dir, "talks", talk), "type = notify\n");
    text += &section("says", &script(dir, "says", "echo >&3; echo words; exit 1"), "ready = fd:3\n");
    text +=
        &section("hooked", "/bin/false", &format!("on_start = {yes}\non_failure = {yes}\non_stop = {yes}\n"));
    text += &section("missing", "/nowhere/at/all", "");
    text += &section("nowhere", "/bin/true", "directory = /nowhere\n");
    text += &section("family", &script(dir, "family", "sleep 100000 & exit 1"), "");
    text += &section("steady", "sleep 100000", "");
    text + &section("checked", "sleep 100000", &format!("ready = check\nready_check = {yes}\n"))
}

fn drive(instance: &Instance, enough: u64) -> u64 {
    let news = connect(instance);
    assert!(matches!(ask(&news, &Request::Subscribe), Reply::Done { .. }));
    let client = connect(instance);
    let name = |text: &str| text.try_into().unwrap();
    let orders =
        [Order::Restart, Order::Pause, Order::Resume, Order::Stop, Order::Start, Order::Once, Order::Start];
    let (mut events, mut round) = (0, 0_usize);
    let mut buffer = [0; 8192];
    let deadline = Clock::now() + Duration::from_secs(60);
    while events < enough {
        assert!(Clock::now() < deadline, "only {events} events");
        ask(&client, &Request::Status { from: 0 });
        ask(&client, &Request::Daemon);
        for program in ["steady", "checked", "hooked", "family"] {
            ask(&client, &Request::Order { name: name(program), order: orders[round % orders.len()] });
        }
        ask(&client, &Request::Signal { name: name("steady"), signal: libc::SIGKILL as u8 });
        ask(&client, &Request::Order { name: name("nobody"), order: Order::Stop });
        ask(&client, &Request::ReloadProgram { name: name("steady") });
        // Requests and orders that were taken; what happened to programs comes as news.
        events += 9;
        while let Ok(packet) = news.receive(&mut buffer, clock::now() + Millis(1)) {
            match protocol::decode(packet) {
                Some(Reply::Events { events: list }) => events += list.len() as u64,
                other => panic!("{other:?}"),
            }
        }
        drop(connect(instance));
        round += 1;
    }
    events
}

#[test]
fn ten_thousand_mixed_events_make_the_loop_allocate_nothing() {
    if std::env::var_os(COUNT).is_some() {
        return;
    }
    for keys in ["", "cgroup = off\n"] {
        let test = if keys.is_empty() { "quiet-cgroup" } else { "quiet-plain" };
        let instance = Instance::prepare(test, keys, "");
        instance.write_config_with(keys, &busy_programs(&instance.dir));
        let mut child = launch_counting(&instance);
        drive(&instance, 1000);
        let before = counted(&instance.dir);
        assert!(before > 100, "the start allocates: {before} says that nothing is counted");
        let supervisor = instance.status().supervisor_pid;
        let events = drive(&instance, 10_000);
        assert_eq!(instance.status().supervisor_pid, supervisor);
        let count = counted(&instance.dir) - before;
        assert_eq!(count, 0, "allocations in {events} events; {}", instance.log());
        instance.ctl(&["quit"]);
        child.wait().unwrap();
    }
}

/// Programs that beat by every means, each silent after a while, and found hung.
fn beating_programs(dir: &Path) -> String {
    let program = |name: &str, text: &str, keys: &str| {
        let command = script(dir, name, text);
        format!(
            "[program:{name}]\ncommand = {command}\nstartsecs = 500ms\nheartbeat = 300ms\n{keys}\nrestart_delay = 10ms\n"
        )
    };
    let often = "for i in 1 2 3 4 5 6 7 8 9; do";
    let silent = "sleep 0.1; done; sleep 100000";
    let touch = format!("{often} : >{}/beat; {silent}", dir.display());
    let beat = format!("{often} {} multusctl beat; {silent}", harness::binary());
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let count = format!(
        "perl -MSocket -e 'socket(S,PF_INET,SOCK_STREAM,0);connect(S,sockaddr_in({port},inet_aton(\"127.0.0.1\")));\
         for(1..9){{syswrite(S,chr($_));select(undef,undef,undef,0.1)}}sleep 1000'"
    );
    program("by-fd", &format!("{often} echo >&3; {silent}"), "heartbeat_kind = fd")
        + &program("by-file", &touch, &format!("heartbeat_file = {}/beat", dir.display()))
        + &program("by-counter", &beat, "heartbeat_kind = counter")
        + &program("by-notify", &beat, "heartbeat_kind = notify")
        + &program("by-tcp", &count, &format!("heartbeat_port = {port}"))
}

#[test]
fn beats_of_every_kind_make_the_loop_allocate_nothing() {
    if std::env::var_os(COUNT).is_some() {
        return;
    }
    let instance = Instance::prepare("quiet-beats", "", "");
    instance.write_config(&beating_programs(&instance.dir));
    let mut child = launch_counting(&instance);
    let await_restarts = |count: u32| {
        instance.await_that(&format!("{count} restarts of each"), || {
            instance.status().programs.iter().all(|program| program.restarts >= count)
        });
    };
    await_restarts(1);
    let before = counted(&instance.dir);
    await_restarts(4);
    assert_eq!(counted(&instance.dir) - before, 0, "{}", instance.log());
    instance.ctl(&["quit"]);
    child.wait().unwrap();
}

/// Times the process was given up or taken the processor.
fn switches(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let numbers = text.lines().filter(|line| line.contains("ctxt_switches")).map(|line| {
        line.split_ascii_whitespace().last().and_then(|number| number.parse::<u64>().ok()).unwrap()
    });
    numbers.sum()
}

#[test]
fn thirty_two_idle_programs_cost_no_more_than_two_wake_ups_a_second() {
    if std::env::var_os(COUNT).is_some() {
        return;
    }
    let text: String = (0..32)
        .map(|number| format!("[program:p{number}]\ncommand = sleep 100000\nstartsecs = 0\n"))
        .collect();
    let instance = Instance::start("quiet-idle", &text);
    instance.await_that("all run", || instance.status().programs.iter().all(|p| p.state == "running"));
    let status = instance.status();
    let both = || switches(status.guard_pid) + switches(status.supervisor_pid);
    // The last good copy is written, the client is gone.
    let mut last = both();
    assert!(await_condition(|| {
        wait(Duration::from_millis(200));
        std::mem::replace(&mut last, both()) == last
    }));
    let before = both();
    wait(Duration::from_secs(5));
    let count = both() - before;
    assert!(count <= 10, "{count} in 5 s");
}

#[test]
fn a_control_client_more_than_fit_is_refused_in_words_and_served_when_one_leaves() {
    if std::env::var_os(COUNT).is_some() {
        return;
    }
    let instance = Instance::start("quiet-clients", "");
    let mut clients: Vec<Client> =
        (0..multusd::limits::CONTROL_CLIENT_COUNT_MAX).map(|_| connect(&instance)).collect();
    for client in &clients {
        assert!(matches!(ask(client, &Request::Daemon), Reply::Daemon(_)));
    }
    // Who takes the news is not silent, and gives way to nobody.
    for client in &clients {
        assert!(matches!(ask(client, &Request::Subscribe), Reply::Done { .. }));
    }
    let one_more = connect(&instance);
    let mut buffer = [0; 8192];
    let packet = one_more.receive(&mut buffer, clock::now() + Millis(10_000)).expect("an answer");
    let Some(Reply::Refused { text, .. }) = protocol::decode(packet) else { panic!("not refused") };
    assert!(text.contains("too many control connections"), "{text}");
    let output = instance.ctl(&["status"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("too many control connections"), "{output:?}");
    clients.pop();
    instance.await_that("a place is free", || instance.ctl(&["status"]).status.success());
    let supervisor = supervisor_of(instance.guard_pid());
    assert!(supervisor != 0);
    signal(supervisor, libc::SIGKILL);
    drop(clients);
    instance.await_that("its successor serves", || instance.ctl(&["status"]).status.success());
}
