//! `[modbus]` asked by clients that others wrote (mbpoll of Debian, pymodbus of PyPI), by many at once, and by some that mean no
//! good. Outputs are files here; lines of real chips: `tests/qemu`.

mod harness;

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use harness::real::{need_root, status_line};
use harness::{Instance, Random, signal};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const PYMODBUS: &str = "pymodbus==3.11.3";
const PYSERIAL: &str = "pyserial==3.5";

/// An instance with four outputs and the server.
struct Served {
    instance: Instance,
    port: u16,
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn served(test: &str, keys: &str) -> Served {
    served_at(test, free_port(), keys)
}

fn served_at(test: &str, port: u16, keys: &str) -> Served {
    let outputs: String = ["a", "b", "c", "d"]
        .iter()
        .map(|name| format!("[output:{name}]\npath = %(here)s/{name}\n"))
        .collect();
    let config = format!(
        "{outputs}[modbus]\nport = {port}\nname = pump-7\noutputs = a, b, c, d\nvalues = tank, gone\n{keys}\n"
    );
    let mut instance = Instance::prepare(test, "", &config);
    for name in ["a", "b", "c", "d"] {
        fs::write(instance.dir.join(name), "?\n").unwrap();
    }
    instance.launch();
    instance.await_state("modbus", "running");
    instance.ctl_ok(&["publish", "tank=12.5"]);
    Served { instance, port }
}

impl Served {
    fn level(&self, name: &str) -> String {
        fs::read_to_string(self.instance.dir.join(name)).unwrap().trim().to_owned()
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream
    }
}

/// One request (unit, function, data), and what is answered; none: the connection is closed.
fn ask(stream: &mut TcpStream, request: &[u8]) -> Option<Vec<u8>> {
    let [high, low] = (request.len() as u16).to_be_bytes();
    stream.write_all(&[&[0x12, 0x34, 0, 0, high, low], request].concat()).ok()?;
    let mut header = [0; 6];
    stream.read_exact(&mut header).ok()?;
    assert_eq!(header[..4], [0x12, 0x34, 0, 0]);
    let mut answer = vec![0; usize::from(u16::from_be_bytes([header[4], header[5]]))];
    stream.read_exact(&mut answer).ok()?;
    Some(answer)
}

/// A Python with pymodbus, fetched once.
fn python() -> PathBuf {
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock();
    let venv = Path::new(env!("CARGO_TARGET_TMPDIR")).join("pymodbus");
    let python = venv.join("bin/python");
    let has = || {
        Command::new(&python)
            .args(["-c", "import pymodbus, serial"])
            .status()
            .is_ok_and(|status| status.success())
    };
    if !has() {
        let made = Command::new("python3").args(["-m", "venv"]).arg(&venv).status().expect("python3");
        assert!(made.success(), "a venv: apt-get install python3-venv");
        let pip =
            Command::new(venv.join("bin/pip")).args(["install", "--quiet", PYMODBUS, PYSERIAL]).status();
        assert!(pip.is_ok_and(|status| status.success()), "{PYMODBUS} of PyPI");
        assert!(has());
    }
    python
}

fn pymodbus(whom: &str) {
    let done =
        Command::new(python()).arg(format!("{ROOT}/tests/clients/modbus.py")).arg(whom).output().unwrap();
    let said = String::from_utf8_lossy(&[&done.stdout[..], &done.stderr[..]].concat()).into_owned();
    assert!(done.status.success() && said.contains("every function answered"), "{said}");
}

/// mbpoll, which counts from 1; the values that it shows.
fn mbpoll(words: &str) -> Vec<String> {
    let done = Command::new("mbpoll").args(["-q", "-1"]).args(words.split(' ')).output();
    let done = done.expect("mbpoll is needed: apt-get install mbpoll");
    let text = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(done.status.success(), "{words}: {text}{}", String::from_utf8_lossy(&done.stderr));
    let shown = text.lines().filter(|line| line.starts_with('['));
    shown.filter_map(|line| line.split_whitespace().nth(1).map(String::from)).collect()
}

/// Two serial lines that are one.
struct Wire {
    socat: Child,
    ends: [PathBuf; 2],
}

impl Drop for Wire {
    fn drop(&mut self) {
        let _ = self.socat.kill();
        let _ = self.socat.wait();
    }
}

fn wire(test: &str) -> Wire {
    let ends = ["one", "two"]
        .map(|end| std::env::temp_dir().join(format!("multusd-{test}-{end}-{}", std::process::id())));
    let end = |path: &PathBuf| format!("pty,raw,echo=0,mode=666,link={}", path.display());
    let socat = Command::new("socat").args([end(&ends[0]), end(&ends[1])]).stderr(Stdio::null()).spawn();
    let socat = socat.expect("socat is needed: apt-get install socat");
    assert!(harness::await_condition(|| ends.iter().all(|end| end.exists())), "two ptys");
    Wire { socat, ends }
}

#[test]
fn pymodbus_is_answered_over_tcp() {
    let served = served("modbus-tcp", "");
    pymodbus(&format!("tcp:{}", served.port));
}

#[test]
fn pymodbus_is_answered_over_a_serial_line() {
    let wire = wire("pymodbus");
    let _served = served("modbus-rtu", &format!("parity = none\nserial = {}", wire.ends[0].display()));
    pymodbus(&format!("rtu:{}", wire.ends[1].display()));
}

#[test]
fn mbpoll_reads_and_writes_over_both() {
    let wire = wire("mbpoll");
    let served = served("modbus-mbpoll", &format!("serial = {}", wire.ends[0].display()));
    for line in [format!("-m tcp -p {} -a 1", served.port), "-m rtu -b 19200 -P even -a 1 -o 5".to_string()] {
        let whom = if line.contains("tcp") { "127.0.0.1".into() } else { wire.ends[1].display().to_string() };
        mbpoll(&format!("{line} -t 0 -r 1 {whom} 1 0 1 0"));
        assert_eq!(mbpoll(&format!("{line} -t 0 -r 1 -c 4 {whom}")), ["1", "0", "1", "0"]);
        assert_eq!((served.level("a"), served.level("b")), ("1".into(), "0".into()));
        mbpoll(&format!("{line} -t 4 -r 11 {whom} 0 1 1 0"));
        assert_eq!(mbpoll(&format!("{line} -t 4 -r 11 -c 4 {whom}")), ["0", "1", "1", "0"]);
        assert_eq!(mbpoll(&format!("{line} -t 3 -r 201 -c 2 {whom}")), ["0", "12500"]);
    }
}

#[test]
fn sixty_four_clients_are_served_and_one_more_takes_the_place_of_the_longest_silent() {
    let served = served("modbus-many", "");
    let mut clients: Vec<TcpStream> = (0..64).map(|_| served.connect()).collect();
    loop {
        let begun = Instant::now();
        for client in &mut clients {
            assert_eq!(ask(client, &[1, 1, 0, 0, 0, 4]).as_deref(), Some(&[1, 1, 1, 0][..]));
        }
        // All have spoken just now: who comes has to wait.
        let refused = ask(&mut served.connect(), &[1, 1, 0, 0, 0, 4]).is_none();
        // On a machine that stood still meanwhile nothing is said.
        if begun.elapsed() < Duration::from_millis(900) {
            assert!(refused);
            break;
        }
        clients = (0..64).map(|_| served.connect()).collect();
    }
    harness::wait(Duration::from_millis(1100));
    for client in clients.iter_mut().skip(1) {
        assert!(ask(client, &[1, 1, 0, 0, 0, 4]).is_some());
    }
    let mut late = served.connect();
    assert!(ask(&mut late, &[1, 1, 0, 0, 0, 4]).is_some());
    assert_eq!(ask(&mut clients[0], &[1, 1, 0, 0, 0, 4]), None, "it was the longest silent");
}

#[test]
fn a_client_that_takes_no_answers_delays_no_other_and_an_idle_one_is_sent_away() {
    let served = served("modbus-stuck", "idle_timeout = 2s");
    let mut stuck = served.connect();
    stuck.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
    let request = [0, 1, 0, 0, 0, 6, 1, 4, 0, 200, 0, 4].repeat(1000);
    let mut idle = served.connect();
    let mut other = served.connect();
    let mut slowest = Duration::ZERO;
    // Until it has been sent away, or nothing goes in any more.
    for _ in 0..200 {
        let refused = stuck.write_all(&request).is_err_and(|error| error.kind() != ErrorKind::WouldBlock);
        let begun = Instant::now();
        assert!(ask(&mut other, &[1, 1, 0, 0, 0, 4]).is_some());
        slowest = slowest.max(begun.elapsed());
        if refused {
            break;
        }
    }
    println!("the slowest answer beside a client that takes none: {slowest:?}");
    assert!(slowest < Duration::from_secs(2), "{slowest:?}");
    assert_eq!(idle.read_to_end(&mut Vec::new()).unwrap(), 0, "it was sent away");
}

#[test]
fn only_those_who_may_connect_and_only_who_may_write() {
    let keys = "allow = 10.0.0.0/8\n";
    let closed = served("modbus-allow", keys);
    assert_eq!(ask(&mut closed.connect(), &[1, 1, 0, 0, 0, 4]), None);
    let read_only = served("modbus-read-only", "read_only = true\n");
    let mut client = read_only.connect();
    assert_eq!(ask(&mut client, &[1, 5, 0, 0, 0xff, 0]).unwrap(), [1, 0x85, 2]);
    assert_eq!(ask(&mut client, &[1, 1, 0, 0, 0, 4]).unwrap(), [1, 1, 1, 0]);
}

#[test]
fn a_hundred_thousand_random_frames_crash_nothing_and_write_nothing() {
    let served = served("modbus-random", "read_only = true\n");
    let pid = served.instance.pid("modbus");
    let mut random = Random(7);
    let mut client = served.connect();
    let mut sent = 0;
    while sent < 100_000 {
        // Many at once; most have a right header, so that what is behind it is looked at.
        let mut bytes = Vec::new();
        let count = 1 + random.below(50);
        for _ in 0..count {
            let length = 2 + random.below(20) as u16;
            let [high, low] =
                (if random.below(200) == 0 { random.below(70_000) as u16 } else { length }).to_be_bytes();
            bytes.extend([
                0,
                0,
                0,
                0,
                high,
                low,
                1,
                [1, 2, 3, 4, 5, 6, 15, 16, 22, 23, 43, 0][random.below(12) as usize],
            ]);
            bytes.extend((2..length).map(|_| random.below(256) as u8));
        }
        sent += count;
        client.set_nonblocking(true).unwrap();
        let went = client.write_all(&bytes).is_ok();
        let mut answers = [0; 65536];
        while matches!(client.read(&mut answers), Ok(1..)) {}
        client.set_nonblocking(false).unwrap();
        if !went || random.below(20) == 0 {
            client = served.connect();
        }
    }
    let mut client = served.connect();
    assert_eq!(ask(&mut client, &[1, 1, 0, 0, 0, 4]).unwrap(), [1, 1, 1, 0]);
    assert_eq!(served.instance.pid("modbus"), pid);
    assert!(["a", "b", "c", "d"].iter().all(|name| served.level(name) == "0"));
}

#[test]
fn silence_makes_the_outputs_safe_within_its_time_and_a_write_brings_them_back() {
    let served = served("modbus-silence", "output_timeout = 300ms\n");
    let mut client = served.connect();
    let mut late = Vec::new();
    for _ in 0..7 {
        // Kept on by writing, for longer than the time.
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_millis(700) {
            assert_eq!(ask(&mut client, &[1, 15, 0, 0, 0, 4, 1, 3]).unwrap(), [1, 15, 0, 0, 0, 4]);
            assert_eq!((served.level("a"), served.level("c")), ("1".into(), "0".into()));
            harness::wait(Duration::from_millis(50));
        }
        let asked = Instant::now();
        ask(&mut client, &[1, 15, 0, 0, 0, 4, 1, 3]).unwrap();
        let written = Instant::now();
        // To read, and to write what is refused, is not to be there.
        while served.level("a") == "1" || served.level("b") == "1" {
            ask(&mut client, &[1, 1, 0, 0, 0, 4]).unwrap();
            ask(&mut client, &[1, 5, 0, 9, 0xff, 0]).unwrap();
            assert!(written.elapsed() < Duration::from_secs(20));
        }
        assert!(asked.elapsed() >= Duration::from_millis(300), "not before its time");
        late.push(written.elapsed().as_secs_f64() * 1000.0 - 300.0);
    }
    late.sort_by(f64::total_cmp);
    println!(
        "safe {:.1} ms after the time (median of {}), at most {:.1} ms",
        late[late.len() / 2],
        late.len(),
        late[late.len() - 1]
    );
    assert!(late[late.len() / 2] <= 50.0, "{late:?}");
}

#[test]
fn a_server_that_is_killed_or_stands_still_leaves_its_outputs_safe() {
    let served = served("modbus-killed", "heartbeat = 500ms\nrestart_delay = 1s\n");
    for number in [libc::SIGKILL, libc::SIGSTOP] {
        ask(&mut served.connect(), &[1, 5, 0, 0, 0xff, 0]).unwrap();
        assert_eq!(served.level("a"), "1");
        let pid = served.instance.pid("modbus");
        signal(pid, number);
        served.instance.await_that("safe", || served.level("a") == "0");
        served.instance.await_program("modbus", "another process", |program| {
            program.state == "running" && program.pid.is_some_and(|now| now != pid)
        });
    }
}

#[test]
fn it_serves_port_502_as_a_user_that_has_nothing_but_that() {
    need_root();
    let served = served_at("modbus-502", 502, "");
    assert!(ask(&mut served.connect(), &[1, 1, 0, 0, 0, 4]).is_some());
    let status = fs::read_to_string(format!("/proc/{}/status", served.instance.pid("modbus"))).unwrap();
    assert_eq!(status_line(&status, "CapEff"), "0000000000000400", "CAP_NET_BIND_SERVICE");
    assert_eq!(status_line(&status, "CapBnd"), "0000000000000400");
    assert_eq!(status_line(&status, "NoNewPrivs"), "1");
    assert!(!status_line(&status, "Uid").starts_with('0'));
    let mode = fs::metadata(served.instance.dir.join("a")).unwrap().permissions().mode();
    assert_eq!(mode & 0o002, 0, "it writes the file by what it was handed, not by its mode");
}

#[test]
fn programs_are_read_and_values_written_that_are_forgotten_with_who_wrote_them() {
    let keys = "output_timeout = 300ms\nsetpoints = speed, valve\nprograms = steady, modbus, nobody\n\
        [program:steady]\ncommand = sleep 100000\nstartsecs = 0\n";
    let served = served("modbus-setpoints", keys);
    served.instance.await_state("steady", "running");
    let mut client = served.connect();
    // Both run, one was started again; the third there is not.
    assert_eq!(
        ask(&mut client, &[1, 3, 1, 144, 0, 6]).unwrap()[3..],
        [0, 2, 0, 0, 0, 2, 0, 0, 0xff, 0xff, 0, 0]
    );
    signal(served.instance.pid("steady"), libc::SIGKILL);
    served.instance.await_that("it was started again", || {
        ask(&mut client, &[1, 3, 1, 144, 0, 2]).unwrap()[3..] == [0, 2, 0, 1]
    });
    let known = |name: &str| {
        let shown = served.instance.ctl_ok(&["values"]);
        let line = shown.lines().find(|line| line.starts_with(name)).map(String::from);
        line.and_then(|line| line.split_whitespace().nth(1).map(String::from)).unwrap_or_default()
    };
    // -23.5 and 0.007
    let write = [1, 16, 2, 88, 0, 4, 8, 0xff, 0xff, 0xa4, 0x34, 0, 0, 0, 7];
    assert_eq!(ask(&mut client, &write).unwrap(), [1, 16, 2, 88, 0, 4]);
    served.instance.await_that("both are there", || {
        !known("modbus.speed").is_empty() && !known("modbus.valve").is_empty()
    });
    assert_eq!(ask(&mut client, &[1, 3, 2, 88, 0, 4]).unwrap()[3..], write[7..]);
    served.instance.await_that("nobody stands for them", || known("modbus.speed") == "unknown");
    served.instance.await_that("nor does the server", || {
        ask(&mut client, &[1, 3, 2, 88, 0, 2]).unwrap()[3..] == [0x80, 0, 0, 0]
    });
}

#[test]
fn a_line_is_switched_to_sending_for_as_long_as_an_answer_takes() {
    use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
    let wire = wire("rs485");
    let served =
        served("modbus-rs485", &format!("baud = 1200\nrs485 = d\nserial = {}", wire.ends[0].display()));
    let watch = Inotify::init(InitFlags::IN_CLOEXEC).unwrap();
    watch.add_watch(&served.instance.dir.join("d"), AddWatchFlags::IN_MODIFY).unwrap();
    let line = format!("-m rtu -b 1200 -P even -a 1 -o 5 -t 0 -r 1 -c 3 {}", wire.ends[1].display());
    // An answer of six characters of eleven bits. Who is told late of the beginning sees it as shorter, so not each counts.
    let took_so_long = |_| {
        assert_eq!(mbpoll(&line), ["0", "0", "0"]);
        let mut times = Vec::new();
        while times.len() < 2 {
            let count = watch.read_events().unwrap().len();
            times.extend(std::iter::repeat_n(Instant::now(), count));
        }
        assert_eq!((times.len(), served.level("d")), (2, "0".into()), "on once, and off again");
        times[1] - times[0] >= Duration::from_millis(50)
    };
    assert!((0..10).any(took_so_long));
    // It is nobody's coil.
    let mut client = served.connect();
    assert_eq!(ask(&mut client, &[1, 1, 0, 0, 0, 4]).unwrap(), [1, 0x81, 2]);
    assert_eq!(ask(&mut client, &[1, 1, 0, 0, 0, 3]).unwrap(), [1, 1, 1, 0]);
}
