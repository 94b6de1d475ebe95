//! The control protocol's bytes are a promise: what any released version wrote, every later one
//! reads. `tests/golden/protocol-v1.txt` holds one message per line. Lines may only be added;
//! `MULTUSD_BLESS=1 cargo test` adds the missing ones and changes none.

use std::fmt::{Debug, Write as _};

use multusd::limits::PACKET_BYTES_MAX;
use multusd::packed::Packed;
use multusd::protocol::*;
use proptest::prelude::*;

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/protocol-v1.txt");

fn text<const N: usize>(text: &str) -> heapless::String<N> {
    text.try_into().unwrap()
}

fn list<T: Clone, const N: usize>(items: &[T]) -> heapless::Vec<T, N> {
    items.iter().cloned().collect()
}

fn requests() -> Vec<(&'static str, Request)> {
    let order = |order| Request::Order { name: text("pump"), order };
    let set = |level, force| Request::SetOutput { name: text("lamp"), level, force };
    vec![
        ("Daemon", Request::Daemon),
        ("Status", Request::Status { from: 300 }),
        ("Order-Start", order(Order::Start)),
        ("Order-Once", order(Order::Once)),
        ("Order-Stop", order(Order::Stop)),
        ("Order-Restart", order(Order::Restart)),
        ("Order-Pause", order(Order::Pause)),
        ("Order-Resume", order(Order::Resume)),
        ("Signal", Request::Signal { name: text("pump"), signal: 15 }),
        ("ReloadProgram", Request::ReloadProgram { name: text("pump") }),
        ("Reload", Request::Reload { dry: false }),
        ("Reload-dry", Request::Reload { dry: true }),
        ("Subscribe", Request::Subscribe),
        ("Quit", Request::Quit),
        ("Shutdown-Reboot", Request::Shutdown { how: Shutdown::Reboot, in_ms: 300_000 }),
        ("Shutdown-PowerOff", Request::Shutdown { how: Shutdown::PowerOff, in_ms: 0 }),
        ("CancelShutdown", Request::CancelShutdown),
        ("Page", Request::Page { from: 70_000 }),
        ("Inputs", Request::Inputs { from: 8 }),
        ("Outputs", Request::Outputs { from: 300 }),
        ("SetOutput-Low", set(LevelWord::Low, false)),
        ("SetOutput-High", set(LevelWord::High, true)),
        ("SetOutput-Off", set(LevelWord::Off, false)),
        ("SetOutput-On", set(LevelWord::On, false)),
        ("Watchdogs", Request::Watchdogs),
        ("Live", Request::Live),
        ("Log", Request::Log { follow: false }),
        ("Log-follow", Request::Log { follow: true }),
        ("SyncLog", Request::SyncLog),
        ("History", Request::History { from: 300 }),
        ("Reasons", Request::Reasons),
        ("Values", Request::Values { from: 16 }),
        ("Publish", Request::Publish { text: text("outside -23.5 unit=C raw=17 for=5s") }),
        ("Renew", Request::Renew),
    ]
}

/// One number per variant. A new variant does not compile here until it has its own, and the
/// count below then asks for its golden line.
fn request_kind(request: &Request) -> usize {
    match request {
        Request::Daemon => 0,
        Request::Status { .. } => 1,
        Request::Order { .. } => 2,
        Request::Signal { .. } => 3,
        Request::ReloadProgram { .. } => 4,
        Request::Reload { .. } => 5,
        Request::Subscribe => 6,
        Request::Quit => 7,
        Request::Renew => 22,
        Request::Shutdown { .. } => 8,
        Request::CancelShutdown => 9,
        Request::Page { .. } => 10,
        Request::Inputs { .. } => 11,
        Request::Outputs { .. } => 12,
        Request::SetOutput { .. } => 13,
        Request::Watchdogs => 14,
        Request::Live => 15,
        Request::Log { .. } => 16,
        Request::SyncLog => 17,
        Request::History { .. } => 18,
        Request::Reasons => 19,
        Request::Values { .. } => 20,
        Request::Publish { .. } => 21,
    }
}
const REQUEST_KINDS: usize = 23;

fn reply_kind(reply: &Reply) -> usize {
    match reply {
        Reply::Done { .. } => 0,
        Reply::Refused { .. } => 1,
        Reply::Daemon(_) => 2,
        Reply::Status { .. } => 3,
        Reply::Events { .. } => 4,
        Reply::Page { .. } => 5,
        Reply::Inputs { .. } => 6,
        Reply::Outputs { .. } => 7,
        Reply::Watchdogs { .. } => 8,
        Reply::Live(_) => 9,
        Reply::Log { .. } => 10,
        Reply::Reasons { .. } => 11,
        Reply::Values { .. } => 12,
    }
}
const REPLY_KINDS: usize = 13;

const STATES: [State; 9] = [
    State::Stopped,
    State::Starting,
    State::Running,
    State::Backoff,
    State::Stopping,
    State::Exited,
    State::Fatal,
    State::Paused,
    State::Held,
];

const REFUSALS: [(&str, Refusal); 6] = [
    ("Refused-NotAllowed", Refusal::NotAllowed),
    ("Refused-NoSuchProgram", Refusal::NoSuchProgram),
    ("Refused-NotRunning", Refusal::NotRunning),
    ("Refused-Failed", Refusal::Failed),
    ("Refused-BadRequest", Refusal::BadRequest),
    ("Refused-BadConfig", Refusal::BadConfig),
];

fn daemon() -> DaemonStatus {
    DaemonStatus {
        version: text("0.1.0"),
        guard_pid: 301,
        supervisor_pid: 302,
        uptime_ms: 11_520_000,
        supervisor_restarts: 1,
        programs: 3,
        shutdown_in_ms: Some(299_000),
        config_note: text("the file has errors"),
        limitations: list(&[text("no control groups"), text("not root")]),
    }
}

fn pump() -> ProgramStatus {
    ProgramStatus {
        name: text("pump"),
        state: State::Running,
        pid: 4711,
        restarts: 2,
        failures: 1,
        uptime_ms: 61_000,
        since_ms: 60_500,
        next_start_ms: None,
        last_exit: Some(LastExit { code: None, signal: Some(9) }),
        reason: text("hung"),
        status_text: text("pumping"),
        heartbeat: Some(Heartbeat { age_ms: 120, limit_ms: 500 }),
        outputs: list(&[
            Output { name: text("pump-relay"), level: Some(true), safe: false },
            Output { name: text("lamp"), level: None, safe: true },
        ]),
    }
}

fn waiting() -> ProgramStatus {
    ProgramStatus {
        name: text("logger"),
        state: State::Backoff,
        pid: 0,
        restarts: 0,
        failures: 3,
        uptime_ms: 0,
        since_ms: 900,
        next_start_ms: Some(2000),
        last_exit: Some(LastExit { code: Some(1), signal: None }),
        reason: text(""),
        status_text: text(""),
        heartbeat: None,
        outputs: list(&[]),
    }
}

fn float_switch() -> InputStatus {
    InputStatus {
        name: text("float-switch"),
        wire: text("gpio 27"),
        level: Some(true),
        active_low: true,
        edges: 70_000,
        age_ms: Some(300),
        reason: text(""),
    }
}

fn unread() -> InputStatus {
    InputStatus { level: None, age_ms: None, reason: text("GPIO line: busy"), ..float_switch() }
}

const OUTPUT_STATES: [OutputState; 5] =
    [OutputState::Unconfirmed, OutputState::Boot, OutputState::Safe, OutputState::Driven, OutputState::Set];

fn relay(state: OutputState) -> OutputStatus {
    OutputStatus {
        name: text("pump-relay"),
        wire: text("gpio 17"),
        state,
        level: Some(false),
        active_low: false,
        safe: true,
        confirmed_ms: Some(1200),
        owner: text("pump"),
        reason: text("reads high"),
    }
}

fn event(seq: u64, from: State, to: State) -> Event {
    Event { seq, at_ms: 123_456, name: text("pump"), from, to, pid: 4711, reason: text("exit code 1") }
}

fn live(outputs: u16, ms: Option<u64>) -> Reply {
    let (crash_ms, hang_ms) = (Some(10), ms.map(|ms| ms - 3000));
    Reply::Live(LiveTimes {
        outputs,
        crash_ms,
        hang_ms,
        supervisor_ms: ms,
        guard_ms: Some(10_010),
        kernel_ms: None,
    })
}

fn watchdogs() -> Reply {
    let chip = Watchdog {
        name: text(""),
        what: text("/dev/watchdog"),
        asked_ms: 60_000,
        timeout_ms: Some(15_000),
        pretimeout_ms: Some(3000),
        left_ms: Some(14_000),
        fed_ms: Some(310),
        note: text("the last reset was the watchdog's"),
    };
    let external = Watchdog {
        name: text("external"),
        what: text("pinctrl-bcm2835:17"),
        asked_ms: 1600,
        timeout_ms: None,
        pretimeout_ms: None,
        left_ms: None,
        fed_ms: None,
        note: text("Device or resource busy"),
    };
    let temperature = Temperature {
        now: Some(-1500),
        min: -10_000,
        max: 80_000,
        hysteresis: 5000,
        age_ms: Some(900),
        open: true,
        text: text("-1.5 °C"),
    };
    let withheld = text("outputs of pump are not confirmed safe");
    Reply::Watchdogs { watchdogs: list(&[chip, external]), withheld, temperature: Some(temperature) }
}

const BOOT_ENDS: [BootEnd; 9] = [
    BootEnd::Running,
    BootEnd::Unordered,
    BootEnd::Unfed,
    BootEnd::Reboot,
    BootEnd::PowerOff,
    BootEnd::Quit,
    BootEnd::Watchdog,
    BootEnd::Heat,
    BootEnd::Voltage,
];

fn boot(end: BootEnd) -> Boot {
    Boot { number: 300 - end as u32, end, why: text(if end == BootEnd::Running { "" } else { "power lost" }) }
}

fn replies() -> Vec<(&'static str, Reply)> {
    let around = |first: usize| {
        let pair = |index: usize| event(index as u64 + 7, STATES[index % 9], STATES[(index + 1) % 9]);
        (first..first + 5).map(pair).collect()
    };
    let mut all = vec![
        ("Done", Reply::Done { text: text("") }),
        ("Done-text", Reply::Done { text: text("3 programs changed") }),
        ("Daemon", Reply::Daemon(daemon())),
        ("Status", Reply::Status { programs: list(&[pump(), waiting()]), next: Some(8) }),
        ("Status-last", Reply::Status { programs: list(&[]), next: None }),
        ("Events-0-4", Reply::Events { events: around(0) }),
        ("Events-5-9", Reply::Events { events: around(5) }),
        ("Page", Reply::Page { text: text("line 12: \u{e9}\n"), next: Some(4096) }),
        ("Page-last", Reply::Page { text: text(""), next: None }),
        ("Inputs", Reply::Inputs { inputs: list(&[float_switch(), unread()]), next: Some(8) }),
        ("Outputs", Reply::Outputs { outputs: OUTPUT_STATES.into_iter().map(relay).collect(), next: None }),
        ("Watchdogs", watchdogs()),
        ("Live", live(2, Some(3510))),
        ("Live-for-ever", live(1, None)),
        ("Log", Reply::Log { sync: 300 }),
        ("Reasons", Reply::Reasons { boots: BOOT_ENDS.into_iter().map(boot).collect() }),
        (
            "Values",
            Reply::Values {
                values: list(&[
                    ValueStatus {
                        name: text("sensor.outside"),
                        milli: Some(-23_500),
                        raw: 17,
                        unit: text("C"),
                        age_ms: 300,
                        left_ms: Some(4700),
                    },
                    ValueStatus { name: text("multusd.failed"), raw: -1, ..ValueStatus::default() },
                ]),
                next: Some(16),
            },
        ),
        ("Values-none", Reply::Values { values: list(&[]), next: None }),
        ("Reasons-none", Reply::Reasons { boots: list(&[]) }),
        ("Watchdogs-none", Reply::Watchdogs { watchdogs: list(&[]), withheld: text(""), temperature: None }),
    ];
    for (label, why) in REFUSALS {
        all.push((label, Reply::Refused { why, text: text("not you") }));
    }
    all
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len() / 2).map(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).unwrap()).collect()
}

fn encoded(message: &(impl Packed + Clone)) -> Vec<u8> {
    encode(&mut message.clone(), &mut [0; PACKET_BYTES_MAX]).expect("fits a packet").to_vec()
}

/// Compares every message with its golden line, both ways; returns the lines that are missing.
fn compare<T>(kind: &str, messages: &[(&str, T)], golden: &str) -> String
where
    T: Packed + Default + Clone + PartialEq + Debug,
{
    let mut missing = String::new();
    for (label, message) in messages {
        let bytes = encoded(message);
        let start = format!("{kind} {label} ");
        match golden.lines().find_map(|line| line.strip_prefix(&start)) {
            Some(line) => {
                assert_eq!(line, hex(&bytes), "{start}: the bytes have changed, old clients break");
                assert_eq!(decode::<T>(&unhex(line)).as_ref(), Some(message), "{start}");
            }
            None => writeln!(missing, "{start}{}", hex(&bytes)).unwrap(),
        }
    }
    let known = |label: &str| messages.iter().any(|(name, _)| *name == label);
    for line in golden.lines().filter(|line| line.starts_with(kind)) {
        let label = line.split(' ').nth(1).unwrap();
        assert!(known(label), "{kind} {label} is a released message that nothing writes here any more");
    }
    missing
}

#[test]
fn released_bytes_are_read_and_written_for_ever() {
    let golden = std::fs::read_to_string(GOLDEN).unwrap_or_default();
    let missing = compare("Request", &requests(), &golden) + &compare("Reply", &replies(), &golden);
    if std::env::var_os("MULTUSD_BLESS").is_some() && !missing.is_empty() {
        std::fs::write(GOLDEN, golden + &missing).unwrap();
    } else {
        assert_eq!(missing, "", "messages without a golden line; MULTUSD_BLESS=1 adds them");
    }
}

#[test]
fn every_variant_has_a_golden_line() {
    let mut seen: Vec<usize> = requests().iter().map(|(_, request)| request_kind(request)).collect();
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen, (0..REQUEST_KINDS).collect::<Vec<_>>());
    let mut seen: Vec<usize> = replies().iter().map(|(_, reply)| reply_kind(reply)).collect();
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen, (0..REPLY_KINDS).collect::<Vec<_>>());
}

fn full<const N: usize>() -> heapless::String<N> {
    "x".repeat(N).as_str().try_into().unwrap()
}

fn largest_program() -> ProgramStatus {
    let output = Output { name: full(), level: Some(true), safe: true };
    ProgramStatus {
        name: full(),
        state: State::Held,
        pid: u32::MAX,
        restarts: u32::MAX,
        failures: u32::MAX,
        uptime_ms: u64::MAX,
        since_ms: u64::MAX,
        next_start_ms: Some(u64::MAX),
        last_exit: Some(LastExit { code: Some(255), signal: Some(255) }),
        reason: full(),
        status_text: full(),
        heartbeat: Some(Heartbeat { age_ms: u64::MAX, limit_ms: u64::MAX }),
        outputs: std::iter::repeat_n(output, 8).collect(),
    }
}

#[test]
fn the_largest_messages_fit_a_packet() {
    let event = Event {
        seq: u64::MAX,
        at_ms: u64::MAX,
        name: full(),
        from: State::Held,
        to: State::Held,
        pid: u32::MAX,
        reason: full(),
    };
    let daemon = DaemonStatus {
        version: full(),
        guard_pid: u32::MAX,
        supervisor_pid: u32::MAX,
        uptime_ms: u64::MAX,
        supervisor_restarts: u32::MAX,
        programs: u16::MAX,
        shutdown_in_ms: Some(u64::MAX),
        config_note: full(),
        limitations: std::iter::repeat_n(full(), 8).collect(),
    };
    let watchdog = Watchdog {
        name: full(),
        what: full(),
        asked_ms: u64::MAX,
        timeout_ms: Some(u64::MAX),
        pretimeout_ms: Some(u64::MAX),
        left_ms: Some(u64::MAX),
        fed_ms: Some(u64::MAX),
        note: full(),
    };
    let temperature = Temperature {
        now: Some(i32::MIN),
        min: i32::MIN,
        max: i32::MIN,
        hysteresis: i32::MIN,
        age_ms: Some(u64::MAX),
        open: true,
        text: full(),
    };
    let page = std::iter::repeat_n(largest_program(), STATUS_PAGE_COUNT).collect();
    let input = InputStatus {
        name: full(),
        wire: full(),
        level: Some(true),
        active_low: true,
        edges: u64::MAX,
        age_ms: Some(u64::MAX),
        reason: full(),
    };
    let output = OutputStatus {
        name: full(),
        wire: full(),
        state: OutputState::Set,
        level: Some(true),
        active_low: true,
        safe: true,
        confirmed_ms: Some(u64::MAX),
        owner: full(),
        reason: full(),
    };
    let value = ValueStatus {
        name: full(),
        milli: Some(i64::MIN),
        raw: i64::MIN,
        unit: full(),
        age_ms: u64::MAX,
        left_ms: Some(u64::MAX),
    };
    let boot = Boot { number: u32::MAX, end: BootEnd::Voltage, why: full() };
    let (inputs, outputs) = (list(&vec![input; LINE_PAGE_COUNT]), list(&vec![output; LINE_PAGE_COUNT]));
    let largest = [
        Reply::Inputs { inputs, next: Some(u16::MAX) },
        Reply::Outputs { outputs, next: Some(u16::MAX) },
        Reply::Values {
            values: std::iter::repeat_n(value, VALUE_PAGE_COUNT).collect(),
            next: Some(u16::MAX),
        },
        Reply::Status { programs: page, next: Some(u16::MAX) },
        Reply::Events { events: std::iter::repeat_n(event, EVENT_PAGE_COUNT).collect() },
        Reply::Daemon(daemon),
        Reply::Page { text: full(), next: Some(u32::MAX) },
        Reply::Reasons { boots: std::iter::repeat_n(boot, BOOT_COUNT_MAX).collect() },
        Reply::Refused { why: Refusal::BadConfig, text: full() },
        Reply::Watchdogs {
            watchdogs: std::iter::repeat_n(watchdog, 4).collect(),
            withheld: full(),
            temperature: Some(temperature),
        },
    ];
    for reply in largest {
        let bytes = encoded(&reply);
        assert!(decode::<Reply>(&bytes).is_some_and(|back| back == reply), "{} bytes", bytes.len());
    }
    let request = Request::Order { name: full(), order: Order::Resume };
    assert_eq!(decode::<Request>(&encoded(&request)), Some(request));
}

#[test]
fn what_does_not_fit_the_buffer_is_not_encoded() {
    for length in 0..encoded(&Request::Status { from: 300 }).len() {
        assert_eq!(encode(&mut Request::Status { from: 300 }, &mut vec![0; length]), None);
    }
}

#[test]
fn another_version_is_not_decoded() {
    let mut packet = encoded(&Request::Daemon);
    assert_eq!(decode::<Request>(&packet), Some(Request::Daemon));
    packet[0] = VERSION + 1;
    assert_eq!(decode::<Request>(&packet), None);
    assert_eq!(decode::<Request>(&[]), None);
    assert_eq!(decode::<Request>(&[VERSION]), None);
}

#[test]
fn a_message_cut_anywhere_is_none() {
    for (_, reply) in replies() {
        let packet = encoded(&reply);
        for length in 0..packet.len() {
            assert_eq!(decode::<Reply>(&packet[..length]), None);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2048, failure_persistence: None, ..ProptestConfig::default() })]

    /// A client can send anything; nothing of it may end the daemon.
    #[test]
    fn no_bytes_panic_the_decoder(mut bytes in proptest::collection::vec(any::<u8>(), 0..512), versioned: bool) {
        if let (true, Some(first)) = (versioned, bytes.first_mut()) {
            *first = VERSION;
        }
        let _ = decode::<Request>(&bytes);
        let _ = decode::<Reply>(&bytes);
    }

    /// The same from near the truth, where random bytes hardly ever come.
    #[test]
    fn no_damage_panics_the_decoder(which in any::<proptest::sample::Index>(), at in any::<proptest::sample::Index>(), to: u8) {
        let replies = replies();
        let mut packet = encoded(&replies[which.index(replies.len())].1);
        let at = at.index(packet.len());
        packet[at] = to;
        let _ = decode::<Reply>(&packet);
        let _ = decode::<Request>(&packet);
    }
}
