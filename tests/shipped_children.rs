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
/// Its share of memory (PSS), kB, on the average: what is shared is whose it happens to be first.
const PSS_KB_MEAN: u64 = 150;
/// The same of any.
const PSS_KB_MAX: u64 = 175;
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

/// Everything that was started, ended with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = Command::new("kill").arg(self.0.id().to_string()).status();
        let _ = self.0.wait();
    }
}

fn field(pid: u32, file: &str, name: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

#[test]
fn children_take_150_kb_of_memory_each_and_wake_for_their_heartbeat_only() {
    let here = std::env::temp_dir().join(format!("multusd-shipped-{}", std::process::id()));
    fs::create_dir_all(&here).unwrap();
    for name in ["a", "b", "lamp"] {
        fs::write(here.join(name), "0\n").unwrap();
    }
    let config = here.join("multusd.cfg");
    fs::write(&config, CONFIG.replace("HERE", here.to_str().unwrap())).unwrap();
    let shipped = target().join("dist/x86_64/multusd");
    assert!(shipped.exists(), "{} is not there: make release", shipped.display());
    let run = here.join("run");
    let multusd = Command::new(&shipped)
        .args(["--config".as_ref(), config.as_os_str(), "--run-dir".as_ref(), run.as_os_str()])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let running_all = Running(multusd);
    let until = Instant::now() + Duration::from_secs(60);
    let pids = loop {
        let done = Command::new(&shipped)
            .arg0("multusctl")
            .args(["--run-dir", run.to_str().unwrap(), "status", "--json"])
            .output()
            .unwrap();
        let status = String::from_utf8_lossy(&done.stdout).into_owned();
        let running: Vec<(String, u32)> =
            children().filter_map(|name| Some((name.clone(), running(&status, &name)?))).collect();
        if running.len() == children().count() {
            break running;
        }
        assert!(Instant::now() < until, "{status} {}", String::from_utf8_lossy(&done.stderr));
        std::thread::yield_now();
    };
    // What a child does to begin may not be over; what it does for ever is the same every time.
    let mut wrong = beyond(&pids);
    for _ in 1..WHILES {
        if wrong.is_empty() {
            break;
        }
        wrong = beyond(&pids);
    }
    drop(running_all);
    fs::remove_dir_all(&here).unwrap();
    assert!(wrong.is_empty(), "{wrong:?}: too much memory, or more wake-ups than beats");
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
    let (mut wrong, mut sum) = (Vec::new(), 0);
    println!("{:14} {:>7} {:>9} {:>14}", "child", "PSS, kB", "private", "wake-ups in 9 s");
    for ((name, pid), before) in pids.iter().zip(before) {
        let pss = field(*pid, "smaps_rollup", "Pss:");
        let private =
            field(*pid, "smaps_rollup", "Private_Dirty:") + field(*pid, "smaps_rollup", "Private_Clean:");
        let woke = switches(*pid) - before;
        println!("{name:14} {pss:7} {private:9} {woke:14}");
        sum += pss;
        if pss > PSS_KB_MAX || woke > beats {
            wrong.push(name.clone());
        }
    }
    if sum > PSS_KB_MEAN * pids.len() as u64 {
        wrong.push("all of them".into());
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
