//! What programs speak to multusd by: the header for C, the module for Python, the module of this crate, and
//! `multusctl beat` for shells. The same scenes for each, in a real instance.
//!
//! The program in Rust is this binary again, called for its test `client` with `CLIENT` in its environment; the
//! others are in `tests/clients`.

mod harness;

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use harness::{Instance, await_condition, is_alive, signal, wait};
use multusd::client::Multusd;
use multusd::sys::input::{Board, Published};

/// In the environment of the program in Rust: nothing, or the name of an input.
const CLIENT: &str = "MULTUSD_TEST_CLIENT";
const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const KINDS: [&str; 5] = ["notify", "fd", "counter", "file", "tcp"];

/// Not a test: the program in Rust.
#[test]
fn client() {
    let Ok(input) = std::env::var(CLIENT) else { return };
    let mut multusd = Multusd::from_environment().unwrap();
    if !input.is_empty() {
        let seen = multusd.input(&input).unwrap();
        let (is_read, high) = (seen.seen.high.is_some(), seen.seen.high == Some(true));
        let on = seen.on == Some(true);
        let (edges, at_ns) = (seen.seen.edges, seen.seen.at_ns);
        println!("\n{} {} {} {edges} {at_ns}", u8::from(is_read), u8::from(high), u8::from(on));
        return;
    }
    if let Some(lamp) = multusd.output("lamp") {
        lamp.set(true).unwrap();
    }
    multusd.ready().unwrap();
    multusd.status("speaks Rust").unwrap();
    loop {
        multusd.beat().unwrap();
        // SAFETY: no descriptors.
        unsafe { libc::poll(std::ptr::null_mut(), 0, 50) };
    }
}

/// A program, as `command` has it, and what its environment needs.
struct Client {
    language: &'static str,
    command: String,
    environment: String,
    kinds: &'static [&'static str],
}

fn rust() -> Client {
    let own = std::env::current_exe().unwrap();
    let command = format!("{} --exact client --nocapture --test-threads=1", own.display());
    Client { language: "Rust", command, environment: format!("{CLIENT}="), kinds: &KINDS }
}

fn python() -> Client {
    Client {
        language: "Python",
        command: format!("python3 {ROOT}/tests/clients/client.py"),
        environment: format!("PYTHONPATH={ROOT}/clients/python,PYTHONDONTWRITEBYTECODE=1"),
        kinds: &KINDS,
    }
}

/// What `release/packages` has besides gcc.
fn clang() -> String {
    let packages = Command::new(format!("{ROOT}/release/packages")).output().unwrap();
    let packages = String::from_utf8(packages.stdout).unwrap();
    packages.split_whitespace().find_map(|word| word.strip_prefix("deb:clang")).map_or_else(
        || panic!("release/packages names no clang: {packages}"),
        |version| format!("clang{version}"),
    )
}

/// Compiles the program in C, without a warning.
fn compiled(compiler: &str, more: &[&str]) -> PathBuf {
    let name: String = [compiler, more.concat().as_str()].concat().replace(['=', '+', '-', '/'], "");
    let to = std::env::temp_dir().join(format!("multusd-client-{name}-{}", std::process::id()));
    let mut command = Command::new(compiler);
    command.args(["-Wall", "-Wextra", "-Wpedantic", "-Wshadow", "-Wconversion", "-Werror", "-O2"]);
    command.args(more).arg(format!("-I{ROOT}/clients/c")).arg(format!("{ROOT}/tests/clients/client.c"));
    let output = command.arg("-o").arg(&to).output().unwrap_or_else(|error| panic!("{compiler}: {error}"));
    assert!(output.status.success(), "{command:?}\n{}", String::from_utf8_lossy(&output.stderr));
    to
}

fn c() -> Client {
    let program = compiled("cc", &["-std=c99"]);
    Client { language: "C", command: program.display().to_string(), environment: "A=b".into(), kinds: &KINDS }
}

/// Debian's compiler for 32-bit ARM; its C library runs on every Pi.
const ARM: &str = "arm-linux-gnueabi-gcc";

/// The program in C for a 32-bit Pi, static, and the emulator it runs in. Nothing is linked but the C library: on
/// a Pi Zero (armv6) there is no atomic store of 8 bytes without libatomic.
fn on_32_bits(march: &str, processor: &str) -> (PathBuf, [String; 3]) {
    let program = compiled(ARM, &["-std=c99", "-static", march]);
    let words = ["qemu-arm-static", "-cpu", processor].map(str::to_owned);
    (program, words)
}

fn c_on_a_pi_zero() -> Client {
    let (program, emulator) = on_32_bits("-march=armv6", "arm1176");
    let command = format!("{} {}", emulator.join(" "), program.display());
    Client { language: "C", command, environment: "A=b".into(), kinds: &KINDS }
}

fn shell(dir: &Path) -> Client {
    let beat = format!("{} multusctl beat", harness::binary());
    let script = harness::script(
        dir,
        "shell-client",
        &format!(
            "trap 'exit 0' TERM\n\
             lamp=\n\
             [ -z \"$MULTUSD_OUTPUTS\" ] || lamp=lamp=on\n\
             {beat} $lamp --ready --status 'speaks shell' || exit 9\n\
             while :; do {beat} || exit 9; sleep 0.1; done"
        ),
    );
    Client { language: "shell", command: script, environment: "A=b".into(), kinds: &KINDS[..4] }
}

impl Client {
    fn config(&self, dir: &Path) -> String {
        let sections = self.kinds.iter().map(|kind| {
            let port = || std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let keys = match *kind {
                "file" => format!("heartbeat_file = {}/beat-file", dir.display()),
                "tcp" => format!("heartbeat_port = {}", port()),
                "notify" => "outputs = lamp".into(),
                kind => format!("heartbeat_kind = {kind}"),
            };
            format!(
                "[program:{kind}]\ncommand = {}\nenvironment = {}\nready = notify\nheartbeat = 4s\n{keys}\n\
                 restart_delay = 10ms\nstopwaitsecs = 20s\n",
                self.command, self.environment
            )
        });
        format!("[output:lamp]\npath = {}/lamp\n{}", dir.display(), sections.collect::<String>())
    }
}

fn drives_a_supervised_program(test: &str, make: impl Fn(&Path) -> Client) {
    let mut instance = Instance::prepare(test, "", "");
    let client = make(&instance.dir);
    let lamp = instance.dir.join("lamp");
    fs::write(&lamp, "0\n").unwrap();
    instance.write_config(&client.config(&instance.dir));
    instance.launch();
    let mut pids = Vec::new();
    for kind in client.kinds {
        let program = instance.await_state(kind, "running");
        pids.push(program.pid.unwrap());
        let said = format!("speaks {}", client.language);
        instance.await_program(kind, &said, |program| program.status_text.as_deref() == Some(&said));
    }
    assert_eq!(fs::read_to_string(&lamp).unwrap().trim(), "1");
    // Two heartbeat times.
    wait(Duration::from_secs(8));
    for (kind, pid) in client.kinds.iter().zip(&pids) {
        let program = instance.program(kind);
        assert_eq!((program.pid, program.failures), (Some(*pid), 0), "{program:?}\n{}", instance.log());
    }
    // The next one switches it on again, and only after it was made safe.
    instance.ctl_ok(&["stop", "notify", "--wait"]);
    assert_eq!(fs::read_to_string(&lamp).unwrap().trim(), "0");
    instance.ctl_ok(&["start", "notify", "--wait"]);
    assert_eq!(fs::read_to_string(&lamp).unwrap().trim(), "1");
    // Each is found hung.
    for kind in client.kinds {
        let pid = instance.pid(kind);
        signal(pid, libc::SIGSTOP);
        assert!(await_condition(|| !is_alive(pid)), "{kind}\n{}", instance.log());
        instance.await_state(kind, "running");
    }
    assert_eq!(instance.quit(), 0);
    assert_eq!(fs::read_to_string(&lamp).unwrap().trim(), "0");
}

#[test]
fn a_program_in_rust_is_supervised() {
    drives_a_supervised_program("client-rust", |_| rust());
}

#[test]
fn a_program_in_c_is_supervised() {
    drives_a_supervised_program("client-c", |_| c());
}

#[test]
fn a_program_in_c_on_32_bits_is_supervised() {
    drives_a_supervised_program("client-c-32", |_| c_on_a_pi_zero());
}

#[test]
fn a_program_in_python_is_supervised() {
    drives_a_supervised_program("client-python", |_| python());
}

#[test]
fn a_program_in_shell_is_supervised() {
    drives_a_supervised_program("client-shell", shell);
}

#[test]
fn a_script_switches_its_outputs_and_one_that_said_it_ends_and_stays_is_made_to() {
    let beat = format!("{} multusctl beat", harness::binary());
    let mut instance = Instance::prepare("client-leaves", "", "");
    let say = |words: &str| format!("{beat} {words}; echo $? >>$0.codes\n");
    let switches = harness::script(
        &instance.dir,
        "switches",
        &["lamp=on bell=off", "lamp=up", "lam=on", "lamp=off bell=on --ready", "lamp"]
            .iter()
            .map(|words| say(words) + "cat /proc/self/fd/${MULTUSD_OUTPUTS##*=} >>$0.seen\n")
            .chain(["exec sleep 100000\n".into()])
            .collect::<String>(),
    );
    // It hears the signal but once it has said that it ends, and neither has a heartbeat.
    let leaves = |name: &str, trap: &str| {
        harness::script(
            &instance.dir,
            name,
            &format!("{trap}\n{beat} --ready --stopping\nwhile :; do sleep 1; done"),
        )
    };
    let (hears, deaf) =
        (leaves("hears", "trap 'echo >$0.heard; exit 3' TERM"), leaves("deaf", "trap '' TERM"));
    let dir = instance.dir.display();
    for lamp in ["lamp", "bell"] {
        fs::write(instance.dir.join(lamp), "0\n").unwrap();
    }
    instance.write_config(&format!(
        "[output:lamp]\npath = {dir}/lamp\n[output:bell]\npath = {dir}/bell\n\
         [program:switches]\ncommand = {switches}\nready = notify\noutputs = lamp, bell\n\
         [program:hears]\ncommand = {hears}\nready = notify\nautorestart = false\nstopwaitsecs = 1s\n\
         [program:deaf]\ncommand = {deaf}\nready = notify\nautorestart = false\nstopwaitsecs = 1s\n"
    ));
    instance.launch();
    instance.await_state("switches", "running");
    let read = |name: &str| fs::read_to_string(instance.dir.join(name)).unwrap_or_default();
    instance.await_that("all were tried", || read("switches.codes").lines().count() == 5);
    assert_eq!(read("switches.codes"), "0\n2\n1\n0\n2\n", "{}", instance.log());
    assert_eq!((read("lamp"), read("bell")), ("0\n".into(), "1\n".into()));
    let hears = instance.await_state("hears", "exited");
    assert_eq!(hears.reason.as_deref(), Some("exit code 3"));
    assert!(instance.dir.join("hears.heard").exists());
    let deaf = instance.await_state("deaf", "exited");
    assert_eq!(deaf.reason.as_deref(), Some("hung: it said so, or that it ends, and stayed"));
    instance.quit();
}

#[test]
fn the_header_compiles_without_a_warning_as_c_and_as_cpp_by_either_compiler() {
    let clang = clang();
    for compiler in ["gcc", clang.as_str()] {
        for standard in [
            &["-std=c99"][..],
            &["-std=c17"],
            &["-std=gnu11"],
            &["-x", "c++", "-std=c++11"],
            &["-x", "c++", "-std=c++20"],
        ] {
            fs::remove_file(compiled(compiler, standard)).unwrap();
        }
    }
}

#[test]
fn the_header_compiles_for_every_32_bit_arm_and_needs_no_library() {
    let (clang, cpp) = (clang(), ARM.replace("gcc", "g++"));
    for march in ["-march=armv5te", "-march=armv6", "-march=armv6kz", "-march=armv7-a"] {
        for (compiler, words) in [
            (ARM, &["-std=c99"][..]),
            (cpp.as_str(), &["-x", "c++", "-std=c++11"]),
            (clang.as_str(), &["--target=arm-linux-gnueabi", "-std=c17"]),
            (clang.as_str(), &["--target=arm-linux-gnueabi", "-x", "c++", "-std=c++20"]),
        ] {
            fs::remove_file(compiled(compiler, &[words, &[march]].concat())).unwrap();
        }
    }
}

#[test]
fn each_client_reads_the_page_of_inputs() {
    let (memory, page) = Board::create().unwrap();
    let board = Board::map(memory.as_fd()).unwrap();
    let said = |high| Published { high, edges: 7, at_ns: 123_456_789_012 };
    board.publish(0, "door", false, said(Some(true)));
    board.publish(1, "door-contact", true, said(Some(true)));
    board.publish(40, "unread", false, said(None));
    let program = compiled("cc", &["-std=c11"]);
    let small = [on_32_bits("-march=armv6", "arm1176"), on_32_bits("-march=armv7-a", "cortex-a7")];
    let own = std::env::current_exe().unwrap();
    let run = |language: &str, input: &str| {
        let on = |(program, emulator): &(PathBuf, [String; 3])| {
            let mut command = Command::new(&emulator[0]);
            command.args(&emulator[1..]).arg(program);
            command
        };
        let mut command = match language {
            "C" => Command::new(&program),
            "C on armv6" => on(&small[0]),
            "C on armv7" => on(&small[1]),
            "Python" => Command::new("python3"),
            _ => Command::new(&own),
        };
        match language {
            "C" | "C on armv6" | "C on armv7" => command.arg(input),
            "Python" => command.arg(format!("{ROOT}/tests/clients/client.py")).arg(input),
            _ => command.args(["--exact", "client", "--nocapture", "--test-threads=1"]).env(CLIENT, input),
        };
        let number = std::os::fd::AsRawFd::as_raw_fd(&page);
        command.env("PYTHONPATH", format!("{ROOT}/clients/python")).env("PYTHONDONTWRITEBYTECODE", "1");
        command.env("MULTUSD_INPUTS", "9");
        // SAFETY: a system call only, between fork and exec.
        unsafe {
            command.pre_exec(move || {
                // The page may be 9 by chance: dup2 would leave it to be closed by exec.
                let inherited =
                    if number == 9 { libc::fcntl(9, libc::F_SETFD, 0) } else { libc::dup2(number, 9) };
                if inherited >= 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
            })
        };
        let output = command.output().unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    for language in ["C", "C on armv6", "C on armv7", "Python", "Rust"] {
        for (input, expected) in [
            ("door", "1 1 1 7 123456789012"),
            ("door-contact", "1 1 0 7 123456789012"),
            ("unread", "0 0 0 7 123456789012"),
        ] {
            let (ended_well, text) = run(language, input);
            assert!(ended_well && text.lines().any(|line| line == expected), "{language} {input}: {text}");
        }
        assert!(!run(language, "doo").0, "{language}: no such input");
    }
    for path in [&program, &small[0].0, &small[1].0] {
        fs::remove_file(path).unwrap();
    }
}
