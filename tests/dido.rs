//! `[dido:NAME]` between three machines: three instances in network namespaces of their own, and between them a network that loses,
//! delays, turns around, doubles, cuts, records and replays. That network is a relay of the test's own: netem(8) neither records nor
//! replays, and not every kernel has it. What it can do is tried with it in `tests/qemu/netem.rs`.

mod harness;

use std::fs::{self, File};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use harness::real::{need_root, status_line};
use harness::{Instance, Random, binary, signal};

const PORT: u16 = 9190;
const REPEAT: Duration = Duration::from_millis(500);
const TIMEOUT: Duration = Duration::from_millis(1500);
/// A test's machine may do much else.
const SLACK: Duration = Duration::from_millis(700);

// ------------------------------------------------------------ the network

#[derive(Clone, Copy, Debug, Default)]
struct Weather {
    loss_percent: u64,
    double_percent: u64,
    delay_ms: (u64, u64),
    cut: bool,
    /// What is sent during a cut arrives when it ends.
    holds: bool,
}

const STORM: Weather =
    Weather { loss_percent: 30, double_percent: 20, delay_ms: (1, 60), cut: false, holds: false };

/// A packet and whom it is for.
type Sent = (usize, Vec<u8>);

#[derive(Default)]
struct Shared {
    weather: Mutex<Weather>,
    recorded: Mutex<Vec<Sent>>,
    end: AtomicBool,
}

/// Machines 0, 1, 2, and in the middle whom they take for each other.
struct Network {
    names: Vec<String>,
    shared: Arc<Shared>,
    relay: Option<JoinHandle<()>>,
    outside: UdpSocket,
}

fn ip(words: &str) {
    let done =
        Command::new("ip").args(words.split(' ')).output().expect("ip is needed: apt-get install iproute2");
    assert!(done.status.success(), "ip {words}: {}", String::from_utf8_lossy(&done.stderr));
}

/// Where a machine is; where the others believe it to be. The last speaks IPv6.
fn true_address(index: usize) -> IpAddr {
    if index == 2 { "fd77::3".parse().unwrap() } else { format!("10.77.0.{}", index + 1).parse().unwrap() }
}

fn address(index: usize) -> String {
    if index == 2 { format!("[fd77::103]:{PORT}") } else { format!("10.77.0.{}:{PORT}", 101 + index) }
}

/// A socket in another network namespace.
fn socket_in(namespace: &str, address: &str) -> UdpSocket {
    let (namespace, address) = (namespace.to_owned(), address.to_owned());
    let make = move || {
        let file = File::open(format!("/run/netns/{namespace}")).unwrap();
        // SAFETY: a descriptor of a namespace; only this thread moves there.
        assert_eq!(unsafe { libc::setns(file.as_raw_fd(), libc::CLONE_NEWNET) }, 0);
        UdpSocket::bind(address).unwrap()
    };
    std::thread::spawn(make).join().unwrap()
}

impl Network {
    fn new() -> Network {
        need_root();
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let id = format!("{}-{}", std::process::id(), NUMBER.fetch_add(1, SeqCst));
        let middle = format!("dido-{id}-m");
        ip(&format!("netns add {middle}"));
        ip(&format!("-n {middle} link add br0 type bridge"));
        ip(&format!("-n {middle} link set br0 up"));
        let mut names = vec![middle.clone()];
        for index in 0..3 {
            let name = format!("dido-{id}-{index}");
            ip(&format!("netns add {name}"));
            ip(&format!("-n {name} link add e0 type veth peer name e{index} netns {middle}"));
            ip(&format!("-n {middle} link set e{index} master br0 up"));
            ip(&format!("-n {name} link set lo up"));
            ip(&format!("-n {name} link set e0 up"));
            ip(&format!("-n {name} addr add 10.77.0.{}/24 dev e0", index + 1));
            ip(&format!("-n {name} addr add fd77::{}/64 dev e0 nodad", index + 1));
            ip(&format!("-n {middle} addr add 10.77.0.{}/24 dev br0", 101 + index));
            ip(&format!("-n {middle} addr add fd77::{}/64 dev br0 nodad", 101 + index));
            names.push(name);
        }
        let sockets: Vec<UdpSocket> = (0..3).map(|index| socket_in(&middle, &address(index))).collect();
        let shared = Arc::new(Shared::default());
        let outside = socket_in(&middle, "[::]:0");
        let (relayed, out) = (shared.clone(), outside.try_clone().unwrap());
        let relay = Some(std::thread::spawn(move || relay(&relayed, &sockets, &out)));
        Network { names, shared, relay, outside }
    }

    fn is(&self, weather: Weather) {
        *self.shared.weather.lock().unwrap() = weather;
    }

    fn recorded(&self) -> Vec<Sent> {
        std::mem::take(&mut self.shared.recorded.lock().unwrap())
    }

    /// Says something to a machine.
    fn inject(&self, to: usize, bytes: &[u8]) {
        deliver(&self.outside, to, bytes);
    }

    /// An instance on one of its machines.
    fn start(&self, index: usize, test: &str, config: &str) -> Instance {
        let mut instance = Instance::prepare(&format!("dido-{test}-{index}"), "", config);
        instance.network = Some(self.names[index + 1].clone());
        for name in ["lamp", "valve", "horn", "bell"] {
            fs::write(instance.dir.join(name), "?\n").unwrap();
        }
        instance.launch();
        instance
    }
}

fn deliver(from: &UdpSocket, to: usize, bytes: &[u8]) {
    let to = match true_address(to) {
        IpAddr::V4(four) => IpAddr::V6(four.to_ipv6_mapped()),
        six => six,
    };
    // A machine that is not there is no matter.
    let _ = from.send_to(bytes, SocketAddr::new(to, PORT));
}

fn relay(shared: &Shared, sockets: &[UdpSocket], out: &UdpSocket) {
    let mut random = Random(11);
    let mut under_way: Vec<(Instant, Sent)> = Vec::new();
    let mut held: Vec<Sent> = Vec::new();
    let mut polled: Vec<libc::pollfd> = sockets
        .iter()
        .map(|socket| libc::pollfd { fd: socket.as_raw_fd(), events: libc::POLLIN, revents: 0 })
        .collect();
    sockets.iter().for_each(|socket| socket.set_nonblocking(true).unwrap());
    while !shared.end.load(SeqCst) {
        let now = Instant::now();
        let due =
            under_way.iter().map(|(at, _)| at.saturating_duration_since(now).as_millis() as i32 + 1).min();
        // SAFETY: as many descriptors as said.
        unsafe { libc::poll(polled.as_mut_ptr(), polled.len() as u64, due.unwrap_or(20).min(20)) };
        let weather = *shared.weather.lock().unwrap();
        let mut send = |sent: &Sent| {
            let copies = 1 + usize::from(random.below(100) < weather.double_percent);
            for _ in 0..copies {
                if random.below(100) < weather.loss_percent {
                    continue;
                }
                let (least, most) = weather.delay_ms;
                match least + random.below(most - least + 1) {
                    0 => deliver(out, sent.0, &sent.1),
                    delay => under_way.push((Instant::now() + Duration::from_millis(delay), sent.clone())),
                }
            }
        };
        if !weather.cut {
            held.drain(..).for_each(|sent| send(&sent));
        }
        for (index, socket) in sockets.iter().enumerate() {
            let mut bytes = [0; 2048];
            while let Ok(length) = socket.recv(&mut bytes) {
                let sent = (index, bytes[..length].to_vec());
                shared.recorded.lock().unwrap().push(sent.clone());
                match weather {
                    Weather { cut: true, holds: true, .. } => held.push(sent),
                    Weather { cut: true, .. } => {}
                    _ => send(&sent),
                }
            }
        }
        let now = Instant::now();
        under_way.retain(|(at, sent)| {
            if *at <= now {
                deliver(out, sent.0, &sent.1);
            }
            *at > now
        });
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.shared.end.store(true, SeqCst);
        if let Some(relay) = self.relay.take() {
            let _ = relay.join();
        }
        for name in &self.names {
            let _ = Command::new("ip").args(["netns", "del", name]).output();
        }
    }
}

// ------------------------------------------------------------ the machines

/// Keys of the first machine with the two others; gone with the test.
struct Keys(std::path::PathBuf);

impl Keys {
    fn new(test: &str) -> Keys {
        let folder = std::env::temp_dir().join(format!("multusd-keys-{test}-{}", std::process::id()));
        let keys = Keys(folder);
        for name in ["one", "two"] {
            let done = multusctl(&["key", &keys.path(name)], "");
            assert_eq!(done.0, Some(0), "{done:?}");
        }
        keys
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Its exit code, what it said, what it complained about.
fn multusctl(words: &[&str], input: &str) -> (Option<i32>, String, String) {
    use std::io::Write;
    use std::process::Stdio;
    let mut command = Command::new(binary());
    command.arg("multusctl").args(words).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // One that wants nothing does not read.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let done = child.wait_with_output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (done.status.code(), text(&done.stdout), text(&done.stderr))
}

/// A float switch and a lamp on the first machine; a valve and a horn that holds on the second, a bell on the third.
struct Machines {
    sender: Instance,
    second: Instance,
    third: Instance,
    network: Network,
    keys: Keys,
}

fn timing() -> String {
    format!("port = {PORT}\nrepeat = {}ms\ntimeout = {}ms\n", REPEAT.as_millis(), TIMEOUT.as_millis())
}

fn receiver_config(keys: &Keys, index: usize) -> String {
    let key = keys.path(["", "one", "two"][index]);
    let (outputs, more) = match index {
        1 => ("valve, horn", "receive = valve from float, horn from lamp hold\n"),
        _ => ("bell", "receive = bell from !closed\n"),
    };
    let sections: String =
        outputs.split(", ").map(|name| format!("[output:{name}]\npath = %(here)s/{name}\n")).collect();
    format!(
        "{sections}[dido:hall]\n{}peer = {} {key}\noutputs = {outputs}\n{more}restart_delay = 100ms\nheartbeat = 1s\n",
        timing(),
        address(0)
    )
}

fn sender_config(keys: &Keys) -> String {
    format!(
        "[output:lamp]\npath = %(here)s/lamp\n[dido:hall]\n{}peer = {} {}, {} {}\n\
         send = value:float as float, lamp, !value:float as closed\n",
        timing(),
        address(1),
        keys.path("one"),
        address(2),
        keys.path("two")
    )
}

fn machines(test: &str) -> Machines {
    let network = Network::new();
    let keys = Keys::new(test);
    let second = network.start(1, test, &receiver_config(&keys, 1));
    let third = network.start(2, test, &receiver_config(&keys, 2));
    let sender = network.start(0, test, &sender_config(&keys));
    let machines = Machines { sender, second, third, network, keys };
    machines.float(false);
    machines.sender.ctl_ok(&["outputs", "set", "lamp", "off"]);
    for instance in [&machines.sender, &machines.second, &machines.third] {
        await_link(instance, true);
    }
    machines
}

/// A value that was published; none: there is none.
fn value(instance: &Instance, name: &str) -> Option<u64> {
    let text = instance.ctl_ok(&["values"]);
    let line = text.lines().find(|line| line.split_whitespace().next() == Some(&format!("dido-hall.{name}")));
    line?.split_whitespace().nth(1)?.parse().ok()
}

fn await_link(instance: &Instance, up: bool) {
    instance.await_that(&format!("link {up}"), || value(instance, "link") == Some(u64::from(up)));
}

fn level(instance: &Instance, name: &str) -> String {
    fs::read_to_string(instance.dir.join(name)).unwrap().trim().to_owned()
}

impl Machines {
    fn float(&self, on: bool) {
        self.sender.ctl_ok(&["publish", &format!("float={}", u8::from(on))]);
    }

    fn await_levels(&self, valve: &str, bell: &str) -> Duration {
        let begun = Instant::now();
        self.second.await_that(&format!("valve {valve}, bell {bell}"), || {
            level(&self.second, "valve") == valve && level(&self.third, "bell") == bell
        });
        begun.elapsed()
    }
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

#[test]
fn a_change_drives_the_outputs_of_both_others_at_once() {
    let machines = machines("at-once");
    let mut late = Vec::new();
    for round in 0..40 {
        let on = round % 2 == 0;
        let text = if on { "1" } else { "0" };
        let published = Instant::now();
        machines.float(on);
        let done = harness::await_condition(|| level(&machines.second, "valve") == text);
        late.push(published.elapsed().as_secs_f64() * 1000.0);
        assert!(done);
        machines.await_levels(text, text);
    }
    println!(
        "a change is at the other machine's output {:.2} ms after `multusctl publish` was started (median of {})",
        median(late.clone()),
        late.len()
    );
    assert!(median(late) < 100.0);
    // An output's state, and a horn that holds.
    machines.sender.ctl_ok(&["outputs", "set", "lamp", "on"]);
    machines.second.await_that("the horn follows the lamp", || level(&machines.second, "horn") == "1");
    let status = machines.sender.program("dido-hall").status_text.unwrap_or_default();
    assert!(status.starts_with("2 of 2 linked, accepted "), "{status}");
    assert!(status.contains("wrong-key 0, replayed 0, ") && status.contains("malformed 0"), "{status}");
}

#[test]
fn in_a_storm_outputs_are_right_and_in_a_cut_they_are_safe_within_the_timeout() {
    let machines = machines("storm");
    machines.network.is(STORM);
    let mut slowest = Duration::ZERO;
    for round in 0..20 {
        let on = round % 2 == 0;
        machines.float(on);
        let text = if on { "1" } else { "0" };
        slowest = slowest.max(machines.await_levels(text, text));
    }
    println!("30 % loss, 20 % doubled, 1 to 60 ms: right after {slowest:?} at most, of 20 changes");
    machines.sender.ctl_ok(&["outputs", "set", "lamp", "on"]);
    machines.second.await_that("the horn", || level(&machines.second, "horn") == "1");
    for holds in [false, true] {
        machines.network.is(Weather::default());
        machines.float(true);
        machines.await_levels("1", "1");
        machines.network.is(Weather { cut: true, holds, ..STORM });
        let cut = Instant::now();
        // What is changed now is not known over there.
        machines.float(false);
        machines.float(true);
        machines.await_levels("0", "0");
        let safe = cut.elapsed();
        assert!(safe < TIMEOUT + SLACK, "{safe:?}");
        assert_eq!(level(&machines.second, "horn"), "1", "it holds");
        await_link(&machines.second, false);
        await_link(&machines.sender, false);
        machines.sender.await_program("dido-hall", "both are silent", |program| {
            program.status_text.as_deref().is_some_and(|status| status.starts_with("0 of 2 linked, silent: "))
        });
        harness::wait(TIMEOUT);
        assert_eq!(level(&machines.second, "valve"), "0");
        machines.network.is(Weather::default());
        let healed = machines.await_levels("1", "1");
        println!("safe {safe:?} after the cut, right {healed:?} after its end");
        assert!(healed < REPEAT + SLACK, "{healed:?}");
    }
    for (instance, name) in [(&machines.second, "dido-hall"), (&machines.third, "dido-hall")] {
        assert_eq!(instance.program(name).restarts, 0);
    }
}

#[test]
fn what_was_recorded_and_comes_again_after_a_restart_changes_nothing() {
    let machines = machines("replay");
    machines.network.recorded();
    machines.float(true);
    machines.await_levels("1", "1");
    machines.sender.ctl_ok(&["outputs", "set", "lamp", "on"]);
    machines.second.await_that("the horn", || level(&machines.second, "horn") == "1");
    let recorded: Vec<Sent> = machines.network.recorded().into_iter().filter(|sent| sent.0 == 1).collect();
    assert!(recorded.len() >= 2, "changes, at the least");
    machines.float(false);
    machines.sender.ctl_ok(&["outputs", "set", "lamp", "off"]);
    machines.await_levels("0", "0");
    // While it runs.
    let before = value(&machines.second, "replayed").unwrap_or(0);
    recorded.iter().for_each(|sent| machines.network.inject(sent.0, &sent.1));
    let counted = before + recorded.len() as u64;
    machines.second.await_that("counted", || value(&machines.second, "replayed") >= Some(counted));
    assert_eq!(level(&machines.second, "valve"), "0");

    // Nobody says anything but the recording: after a restart of its reader, of all, and of the machine it is from.
    machines.network.is(Weather { cut: true, ..Weather::default() });
    for restarted in [&[&machines.second][..], &[&machines.sender], &[&machines.second, &machines.sender]] {
        for instance in restarted {
            let pid = instance.pid("dido-hall");
            signal(pid, libc::SIGKILL);
            instance.await_program("dido-hall", "another process", |program| {
                program.state == "running" && program.pid.is_some_and(|now| now != pid)
            });
        }
        let refused = || {
            ["replayed", "stale"].iter().map(|name| value(&machines.second, name).unwrap_or(0)).sum::<u64>()
        };
        let before = refused();
        for _ in 0..20 {
            for sent in &recorded {
                machines.network.inject(sent.0, &sent.1);
                assert_eq!(
                    (level(&machines.second, "valve"), level(&machines.second, "horn")),
                    ("0".into(), "0".into())
                );
            }
        }
        let counted = before + 20 * recorded.len() as u64;
        machines.second.await_that("counted", || refused() >= counted);
        assert_eq!(
            (level(&machines.second, "valve"), level(&machines.second, "horn")),
            ("0".into(), "0".into())
        );
    }
    // And the truth still gets through, while the recording goes on.
    machines.network.is(Weather::default());
    machines.float(true);
    let begun = Instant::now();
    while level(&machines.second, "valve") != "1" {
        recorded.iter().for_each(|sent| machines.network.inject(sent.0, &sent.1));
        // Not so many that nothing else finds room before the reader: against that no protocol helps.
        harness::wait(Duration::from_millis(1));
        assert!(begun.elapsed() < harness::PATIENCE);
    }
}

#[test]
fn a_wrong_key_truncated_and_random_packets_are_counted_and_harmless() {
    let machines = machines("wrong");
    machines.network.recorded();
    machines.float(true);
    machines.await_levels("1", "1");
    let pid = machines.second.pid("dido-hall");
    let recorded = machines.network.recorded();
    let own: Vec<&Sent> = recorded.iter().filter(|sent| sent.0 == 1).collect();
    // Made with another pair's key.
    let others: Vec<&Sent> = recorded.iter().filter(|sent| sent.0 == 2).collect();
    let mut random = Random(3);
    let (mut wrong, mut malformed) = (0, 0);
    for round in 0..2000 {
        // Not faster than it is taken, so that every one is counted.
        if round % 32 == 31 {
            harness::wait(Duration::from_millis(10));
        }
        match round % 4 {
            0 => machines.network.inject(1, &others[round % others.len()].1),
            1 => {
                let mut touched = own[round % own.len()].1.clone();
                let at = 1 + random.below(touched.len() as u64 - 1) as usize;
                touched[at] ^= 1 << random.below(8);
                machines.network.inject(1, &touched);
            }
            2 => {
                let whole = &own[round % own.len()].1;
                let length = random.below(whole.len() as u64) as usize;
                machines.network.inject(1, &whole[..length]);
                malformed += u64::from(length <= 41);
                wrong += u64::from(length > 41);
                continue;
            }
            _ => {
                let mut bytes: Vec<u8> = (0..random.below(1500)).map(|_| random.below(256) as u8).collect();
                if let Some(first) = bytes.first_mut() {
                    *first = 2;
                }
                machines.network.inject(1, &bytes);
                malformed += 1;
                continue;
            }
        }
        wrong += 1;
    }
    machines.second.await_that("counted", || {
        value(&machines.second, "wrong-key") >= Some(wrong * 9 / 10)
            && value(&machines.second, "malformed") >= Some(malformed * 9 / 10)
    });
    assert!(
        value(&machines.second, "wrong-key") <= Some(wrong)
            && value(&machines.second, "malformed") <= Some(malformed)
    );
    println!("{wrong} with a wrong key, {malformed} malformed");
    // A flood: what counts gets through, and the heart beats.
    let begun = Instant::now();
    let noise = vec![1; 1200];
    let mut sent = 0;
    while begun.elapsed() < Duration::from_secs(3) {
        for _ in 0..100 {
            machines.network.inject(1, &noise);
        }
        sent += 100;
    }
    println!("{sent} packets of noise in 3 s");
    machines.float(false);
    machines.await_levels("0", "0");
    assert_eq!(machines.second.pid("dido-hall"), pid, "nothing was restarted");
}

#[test]
fn a_child_that_is_killed_or_stands_still_leaves_its_outputs_safe_and_has_no_rights() {
    let machines = machines("killed");
    let status = fs::read_to_string(format!("/proc/{}/status", machines.second.pid("dido-hall"))).unwrap();
    let user = status_line(&status, "Uid").split_whitespace().next().unwrap().to_owned();
    assert!((61184..65520).contains(&user.parse::<u32>().unwrap()), "{user}");
    for key in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(status_line(&status, key), "0000000000000000", "{key}");
    }
    assert_eq!(status_line(&status, "NoNewPrivs"), "1");
    machines.sender.ctl_ok(&["outputs", "set", "lamp", "on"]);
    for (instance, number) in [
        (&machines.second, libc::SIGKILL),
        (&machines.second, libc::SIGSTOP),
        (&machines.sender, libc::SIGKILL),
        (&machines.sender, libc::SIGSTOP),
    ] {
        machines.float(true);
        machines.await_levels("1", "1");
        let pid = instance.pid("dido-hall");
        signal(pid, number);
        if std::ptr::eq(instance, &machines.second) {
            machines.second.await_that("safe", || level(&machines.second, "valve") == "0");
        }
        instance.await_program("dido-hall", "another process", |program| {
            program.state == "running" && program.pid.is_some_and(|now| now != pid)
        });
        // It is heard at once, as it begins anew.
        let again = machines.await_levels("1", "1");
        assert!(again < REPEAT + SLACK, "{again:?}");
    }
    // A sender that is stopped for good.
    machines.sender.ctl_ok(&["stop", "dido-hall", "--wait"]);
    machines.await_levels("0", "0");
}

#[test]
fn what_nobody_knows_is_as_if_nobody_spoke() {
    let machines = machines("unknown");
    machines.sender.ctl_ok(&["outputs", "set", "lamp", "on"]);
    machines.float(true);
    machines.await_levels("1", "1");
    machines.sender.ctl_ok(&["publish", "float=unknown"]);
    machines.await_levels("0", "0");
    assert_eq!(value(&machines.second, "link"), Some(1));
    // Believed for a time: then it is unknown, though nobody says so.
    machines.sender.ctl_ok(&["publish", "float=1", "--for", "700ms"]);
    machines.await_levels("1", "1");
    machines.await_levels("0", "0");
}

#[test]
fn a_child_without_its_key_says_which_and_one_without_work_sleeps() {
    let machines = machines("idle");
    // Wake-ups in five seconds: heartbeats (three a second), and what is said twice a second.
    let pid = machines.second.pid("dido-hall");
    let switches = || {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        status_line(&status, "voluntary_ctxt_switches").parse::<u64>().unwrap()
    };
    let before = switches();
    harness::wait(Duration::from_secs(5));
    let woken = switches() - before;
    println!("{woken} wake-ups in 5 s");
    assert!(woken <= 5 * (4 + 2) + 6, "{woken}");
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    println!("{}", rollup.lines().find(|line| line.starts_with("Pss:")).unwrap());

    fs::write(machines.keys.path("one"), "no key\n").unwrap();
    signal(pid, libc::SIGKILL);
    machines.second.await_state("dido-hall", "backoff");
    let path = machines.keys.path("one");
    machines.second.await_that("it says which", || {
        machines.second.ctl_ok(&["log", "dido-hall"]).contains(&format!("{path}: these are not 64"))
    });
    assert_eq!(level(&machines.second, "valve"), "0");
}

// ------------------------------------------------------------ keys

#[test]
fn a_key_is_made_once_shown_when_asked_and_taken_from_the_other_machine() {
    need_root();
    let keys = Keys::new("made");
    let path = keys.path("one");
    let (code, said, _) = multusctl(&["key", "--show", &path], "");
    let digits = said.trim().to_owned();
    assert!(
        code == Some(0) && digits.len() == 64 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()),
        "{said}"
    );
    assert_ne!(multusctl(&["key", "--show", &keys.path("two")], "").1.trim(), digits);
    // Root writes, the child reads, nobody else does anything.
    use std::os::unix::fs::MetadataExt;
    let status = fs::metadata(&path).unwrap();
    assert_eq!((status.mode() & 0o7777, status.uid()), (0o640, 0));
    assert!((61184..65520).contains(&status.gid()));

    // The other machine's file is the same; what is there stays.
    let other = keys.path("three");
    for (words, input, code) in [
        (&["key", &path][..], "", 1),
        (&["key", "--set", &other], "", 1),
        (&["key", "--set", &other], "abc\n", 1),
        (&["key", "--set", &other], &format!("{digits}0\n"), 1),
        (&["key", "--set", &other], &format!("  {}\n", digits.to_uppercase()), 0),
        (&["key", "--set", &other], &digits, 1),
        (&["key", &digits], "", 2),
        (&["key", "../x"], "", 2),
        (&["key", "--show", "--force", &path], "", 2),
        (&["key", "--show", &keys.path("none")], "", 1),
    ] {
        let (exit, said, complaint) = multusctl(words, input);
        assert_eq!(exit, Some(code), "{words:?}: {said}{complaint}");
        assert!(!said.contains(&digits) && !complaint.contains(&digits), "{words:?}: {said}{complaint}");
        assert_eq!(exit != Some(0), !complaint.is_empty(), "{words:?}");
    }
    assert_eq!(fs::read(&other).unwrap(), fs::read(&path).unwrap());
    assert_eq!(multusctl(&["key", "--force", &path], "").0, Some(0));
    assert_ne!(fs::read(&other).unwrap(), fs::read(&path).unwrap());
}

// ------------------------------------------------------------ Modbus

/// One multusd that serves Modbus, and nothing of dido; and one whose dido writes its coils and follows its coils.
#[test]
fn a_machine_that_speaks_only_modbus_is_written_and_followed() {
    let network = Network::new();
    let server = "[output:valve]\npath = %(here)s/valve\n[output:horn]\npath = %(here)s/horn\n\
        [modbus]\nport = 502\noutputs = valve, horn\n";
    let mut plc = network.start(1, "plc", server);
    let local = "10.77.0.2";
    let client = network.start(
        0,
        "modbus",
        &format!(
            "[dido:write]\ntarget = modbus://{local}/1/coil/0\nsend = value:float as float, !value:float as closed\n\
             repeat = 200ms\ntimeout = 600ms\n\
             [output:bell]\npath = %(here)s/bell\n[output:lamp]\npath = %(here)s/lamp\n\
             [dido:read]\nsource = modbus://{local}:502/1/coil/0\noutputs = bell, lamp\nreceive = lamp from !0 hold\n\
             repeat = 200ms\ntimeout = 600ms\n"
        ),
    );
    let levels =
        || [level(&plc, "valve"), level(&plc, "horn"), level(&client, "bell"), level(&client, "lamp")];
    let await_levels = |wanted: [&str; 4]| client.await_that(&format!("{wanted:?}"), || levels() == wanted);
    for _ in 0..3 {
        client.ctl_ok(&["publish", "float=1"]);
        await_levels(["1", "0", "1", "0"]);
        client.ctl_ok(&["publish", "float=0"]);
        await_levels(["0", "1", "0", "1"]);
    }
    client.ctl_ok(&["publish", "float=1"]);
    await_levels(["1", "0", "1", "0"]);
    let linked = |text: &str| {
        for name in ["dido-read", "dido-write"] {
            client.await_program(name, text, |program| {
                program.status_text.as_deref().is_some_and(|status| status.starts_with(text))
            });
        }
    };
    linked("1 of 1 linked");
    // It goes away: what follows it is safe, or held, in time; and finds it again.
    let cut = Instant::now();
    plc.kill_both();
    client.await_that("safe", || level(&client, "bell") == "0");
    assert!(cut.elapsed() < Duration::from_millis(600) + SLACK, "{:?}", cut.elapsed());
    assert_eq!(level(&client, "lamp"), "0", "it holds");
    linked("0 of 1 linked, silent: modbus://10.77.0.2");
    plc.launch();
    client.await_that("found again", || level(&client, "bell") == "1" && level(&plc, "valve") == "1");
    linked("1 of 1 linked");
    for name in ["dido-read", "dido-write"] {
        assert_eq!(client.program(name).restarts, 0);
    }
}
