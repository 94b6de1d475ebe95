//! Bundled children as they ship: what each costs of the executable, of memory and of sleep; and that the libraries they were
//! meant to be made of are in it. Needs the executables in target/dist, as `tests/release.rs` does.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Bytes of the executable that a child may cost.
const BYTES_MAX: u64 = 30_000;
/// Its share of memory (PSS), kB.
const PSS_KB_MAX: u64 = 150;
/// What it may write of the executable's own memory, kB: its variables, which no table of pointers is.
const OWN_KB_MAX: u64 = 8;
/// Whiles that are watched until one is quiet.
const WHILES: u32 = 6;
/// What is watched for wake-ups.
const IDLE: Duration = Duration::from_secs(9);

/// What the children need of others, and all of it configured: nothing happens in the next minutes but heartbeats, every
/// three seconds.
const CONFIG: &str = "[multusd]\nstate_dir = HERE/state\nlog_dir = HERE/log\n\
    [output:a]\npath = HERE/a\n[output:b]\npath = HERE/b\n\
    [status-led]\npath = HERE/lamp\nheartbeat = 9s\n\
    [modbus]\nport = 15020\nbind = 127.0.0.1\noutputs = a\nheartbeat = 9s\n\
    [template:one]\noutputs = b\non = 1h\noff = 1h\nheartbeat = 9s\n\
    [dido:hall]\nport = 15021\npeer = 127.0.0.1:9 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\n\
    send = value:x\nrepeat = 10h\ntimeout = 30h\nheartbeat = 9s\n\
    [io:hall]\nchip = file\npath = HERE/b\nevery = 10h\nheartbeat = 9s\n\
    [recorder]\nheartbeat = 9s\n";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

#[test]
fn each_child_costs_at_most_30_kb_of_the_executable() {
    let done = Command::new(root().join("release/bloat")).args(["aarch64", "--children"]).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let said = String::from_utf8(done.stdout).unwrap();
    print!("bytes of code and tables, aarch64\n{said}");
    let sizes: BTreeMap<&str, u64> = said
        .lines()
        .filter_map(|line| line.trim().split_once(' '))
        .map(|(size, name)| (name, size.parse().unwrap()))
        .collect();
    for child in multusd::child::CHILDREN {
        let size = sizes.get(&*child.word.replace('-', "_")).copied().unwrap_or(0);
        assert!(size > 0, "{} is not in the executable", child.word);
        assert!(size <= BYTES_MAX, "{}: {size} bytes", child.word);
    }
}

fn field(pid: u32, file: &str, name: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

/// Everything of CONFIG, up and running; gone with the test.
struct Running {
    multusd: Child,
    here: PathBuf,
    children: Vec<(String, u32)>,
}

impl Running {
    fn start(test: &str) -> Running {
        let here = std::env::temp_dir().join(format!("multusd-{test}-{}", std::process::id()));
        fs::create_dir_all(&here).unwrap();
        for name in ["a", "b", "lamp"] {
            fs::write(here.join(name), "0\n").unwrap();
        }
        let (config, run) = (here.join("multusd.cfg"), here.join("run"));
        let ports = CONFIG.replace("15020", &free_port()).replace("15021", &free_port());
        fs::write(&config, ports.replace("HERE", here.to_str().unwrap())).unwrap();
        let shipped = target().join("dist/x86_64/multusd");
        assert!(shipped.exists(), "{} is not there: make release", shipped.display());
        let multusd = Command::new(&shipped)
            .args(["--config".as_ref(), config.as_os_str(), "--run-dir".as_ref(), run.as_os_str()])
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut all = Running { multusd, here, children: Vec::new() };
        let until = Instant::now() + Duration::from_secs(60);
        while all.children.len() < children().count() {
            let done = Command::new(&shipped)
                .arg0("multusctl")
                .args(["--run-dir", run.to_str().unwrap(), "status", "--json"])
                .output()
                .unwrap();
            let status = String::from_utf8_lossy(&done.stdout).into_owned();
            all.children =
                children().filter_map(|name| Some((name.clone(), running(&status, &name)?))).collect();
            assert!(Instant::now() < until, "{status} {}", String::from_utf8_lossy(&done.stderr));
            std::thread::yield_now();
        }
        all
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = Command::new("kill").arg(self.multusd.id().to_string()).status();
        let _ = self.multusd.wait();
        let _ = fs::remove_dir_all(&self.here);
    }
}

fn free_port() -> String {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string()
}

#[test]
fn children_take_150_kb_of_memory_each_and_wake_for_their_heartbeat_only() {
    let all = Running::start("shipped");
    // What a child does to begin may not be over; what it does for ever is the same every time.
    let mut wrong = beyond(&all.children);
    for _ in 1..WHILES {
        if wrong.is_empty() {
            break;
        }
        wrong = beyond(&all.children);
    }
    assert!(wrong.is_empty(), "{wrong:?}: too much memory, or more wake-ups than beats");
}

/// Where a process has the executable, and the kB of it that it has written.
fn executable_of(pid: u32) -> (String, u64) {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps")).unwrap();
    let (mut place, mut own, mut is_in) = (None, 0, false);
    for line in text.lines() {
        if let Some(kilobytes) = line.strip_prefix("Private_Dirty:") {
            own += u64::from(is_in) * kilobytes.trim().trim_end_matches(" kB").parse::<u64>().unwrap();
        } else if line.split_once('-').is_some_and(|(start, _)| u64::from_str_radix(start, 16).is_ok()) {
            is_in = line.contains("/memfd:multusd (deleted)");
            if is_in {
                place.get_or_insert(line.split('-').next().unwrap().to_owned());
            }
        }
    }
    (place.expect("the executable's copy in memory"), own)
}

#[test]
fn all_processes_share_the_executables_tables_at_an_address_that_is_another_at_every_start() {
    let mut places = Vec::new();
    for _ in 0..2 {
        let all = Running::start("place");
        let (place, _) = executable_of(all.multusd.id());
        for (name, pid) in &all.children {
            let (of_child, own) = executable_of(*pid);
            assert_eq!(of_child, place, "{name}");
            assert!((1..=OWN_KB_MAX).contains(&own), "{name}: {own} kB");
        }
        // Another executable that takes over is where this one was.
        let done = Command::new(target().join("dist/x86_64/multusd"))
            .arg0("multusctl")
            .args(["--run-dir", all.here.join("run").to_str().unwrap(), "renew"])
            .output()
            .unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        assert_eq!(executable_of(all.multusd.id()).0, place);
        places.push(place);
    }
    assert_ne!(places[0], places[1], "nobody can know where it is");
}

/// Those that take too much or wake too often, in a while in which nothing happens.
fn beyond(pids: &[(String, u32)]) -> Vec<String> {
    let switches = |pid| field(pid, "status", "voluntary_ctxt_switches:");
    let before: Vec<u64> = pids.iter().map(|(_, pid)| switches(*pid)).collect();
    let begun = Instant::now();
    let end = begun + IDLE;
    while Instant::now() < end {
        std::thread::park_timeout(end - Instant::now());
    }
    let beats = begun.elapsed().as_secs() / 3 + 1;
    let mut wrong = Vec::new();
    println!("{:14} {:>7} {:>9} {:>14}", "child", "PSS, kB", "private", "wake-ups in 9 s");
    for ((name, pid), before) in pids.iter().zip(before) {
        let pss = field(*pid, "smaps_rollup", "Pss:");
        let private =
            field(*pid, "smaps_rollup", "Private_Dirty:") + field(*pid, "smaps_rollup", "Private_Clean:");
        let woke = switches(*pid) - before;
        println!("{name:14} {pss:7} {private:9} {woke:14}");
        if pss > PSS_KB_MAX || woke > beats {
            wrong.push(name.clone());
        }
    }
    wrong
}

/// The processes of CONFIG.
fn children() -> impl Iterator<Item = String> {
    let headers = CONFIG.lines().filter_map(|line| line.strip_prefix('[')?.strip_suffix(']'));
    let is_child = |header: &&str| {
        let word = header.split(':').next().unwrap_or_default();
        multusd::child::CHILDREN.iter().any(|child| child.word == word)
    };
    headers.filter(is_child).map(|header| header.replace(':', "-"))
}

/// The process of a program that runs, in what `status --json` says.
fn running(status: &str, name: &str) -> Option<u32> {
    let program = status.split_once(&format!("\"name\":\"{name}\""))?.1;
    let program = program.split("\"name\":").next()?;
    program.contains("\"state\":\"running\"").then_some(())?;
    program.split_once("\"pid\":")?.1.split([',', '}']).next()?.parse().ok()
}

/// The libraries that the product was asked to be made with.
const LIBRARIES: [&str; 9] =
    ["nix", "libc", "heapless", "serde", "postcard", "rppal", "rmodbus", "nanoserde", "embedded-io"];

#[test]
fn each_of_nine_libraries_is_in_the_shipped_executable_and_no_release_is_built_without_it() {
    let lines = fs::read(target().join("static/aarch64-unknown-linux-musl/release/multusd")).unwrap();
    let has = |text: &str| lines.windows(text.len()).any(|window| window == text.as_bytes());
    let copy = target().join("tmp/without");
    let _ = fs::remove_dir_all(&copy);
    fs::create_dir_all(&copy).unwrap();
    for name in ["src", "Cargo.lock"] {
        let done = Command::new("cp").args(["-r", name]).arg(&copy).current_dir(root()).status().unwrap();
        assert!(done.success());
    }
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    // Tests and benchmarks are not copied.
    let manifest = manifest.split("[[test]]").next().unwrap().to_owned()
        + &manifest[manifest.find("[profile.release]").unwrap()..];
    let (before, after) = manifest.split_once("[dev-dependencies]").unwrap();
    let checked = |before: &str| {
        fs::write(copy.join("Cargo.toml"), [before, "[dev-dependencies]", after].concat()).unwrap();
        let done = Command::new("cargo")
            .args(["check", "--release", "--quiet", "--bin", "multusd"])
            .env("CARGO_TARGET_DIR", target().join("tmp/without-target"))
            .current_dir(&copy)
            .output()
            .unwrap();
        (done.status.success(), String::from_utf8_lossy(&done.stderr).into_owned())
    };
    let (is_built, said) = checked(before);
    assert!(is_built, "with all of them: {said}");
    let mut wrong = Vec::new();
    for library in LIBRARIES {
        // Sources are known by where cargo has them: NAME-VERSION.
        let is_in = (0..10)
            .any(|digit| has(&format!("/{library}-{digit}.")) || has(&format!("/{library}_core-{digit}.")));
        let without: String =
            before.split_inclusive('\n').filter(|line| !line.starts_with(&format!("{library} = "))).collect();
        assert_ne!(without, before, "{library} is no dependency");
        let (is_built, said) = checked(&without);
        let complains = said.contains(&format!("`{}`", library.replace('-', "_")));
        println!(
            "{library:12} in the executable: {is_in}; without it: {}",
            if is_built { "built" } else { "not built" }
        );
        if !is_in || is_built || !complains {
            wrong.push(format!("{library}: {said}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
