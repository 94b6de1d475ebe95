//! sd_notify(3) beyond the heartbeat: what a program says of itself, who is believed, and what happens to the
//! descriptors that come along.
//!
//! The program is this binary again, called for its test `talker`: it does what the test writes into a pipe.

mod harness;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant as Clock};

use harness::real::{Stranger, await_death, both_ways, need_root};
use harness::{Instance, await_condition, is_alive, signal, supervisor_of, wait};
use multusd::client::Multusd;

/// The directory in which the talker finds its orders; unset: this is a test.
const TALKER: &str = "TALKER_DIR";

/// Not a test: the program.
#[test]
fn talker() {
    let Some(dir) = std::env::var_os(TALKER).map(PathBuf::from) else { return };
    let socket = UnixDatagram::unbound().unwrap();
    socket.connect(std::env::var_os("NOTIFY_SOCKET").unwrap()).unwrap();
    assert_eq!(std::env::var("WATCHDOG_PID").ok(), Some(std::process::id().to_string()));
    let note = |text: String| fs::write(dir.join("note"), text + "\n").unwrap();
    loop {
        let orders = BufReader::new(fs::File::open(dir.join("orders")).unwrap());
        for line in orders.lines() {
            let line = line.unwrap();
            let (word, rest) = line.split_once(' ').unwrap_or((&line, ""));
            match word {
                "say" => drop(socket.send(rest.replace('|', "\n").as_bytes()).unwrap()),
                // A descriptor more than a barrier may have, again and again.
                "store" => {
                    for _ in 0..100 {
                        multusd_test_send(&socket, b"FDSTORE=1\nFDNAME=x", 3);
                    }
                    note("stored".into());
                }
                "barrier" => note(Multusd::from_environment().unwrap().wait_until_heard(20_000).to_string()),
                "child" => {
                    let child = Command::new("sleep").arg("1000").spawn().unwrap();
                    note(child.id().to_string());
                    // Reaped when it ends, as any parent does.
                    std::thread::spawn(move || { child }.wait());
                }
                "end" => std::process::exit(rest.parse().unwrap()),
                other => panic!("{other}"),
            }
        }
    }
}

/// Sends with so many copies of standard input.
fn multusd_test_send(socket: &UnixDatagram, words: &[u8], count: usize) {
    use nix::sys::socket::{ControlMessage, MsgFlags, UnixAddr, sendmsg};
    let along = vec![0; count];
    let rights = [ControlMessage::ScmRights(&along)];
    let words = [std::io::IoSlice::new(words)];
    sendmsg::<UnixAddr>(socket.as_raw_fd(), &words, &rights, MsgFlags::empty(), None).unwrap();
}

struct Talk {
    instance: Instance,
    orders: fs::File,
}

impl Talk {
    fn start(test: &str, daemon_keys: &str, keys: &str) -> Talk {
        let mut instance = Instance::prepare(test, daemon_keys, "");
        let dir = instance.dir.clone();
        let own = std::env::current_exe().unwrap();
        instance.write_config_with(
            daemon_keys,
            &format!(
                "[program:talker]\ncommand = {} --exact talker --nocapture --test-threads=1\ntype = notify\n\
                 environment = {TALKER}={}\nrestart_delay = 10ms\n{keys}\n",
                own.display(),
                dir.display()
            ),
        );
        let made = Command::new("mkfifo").arg(dir.join("orders")).status().unwrap();
        assert!(made.success());
        // It may run as another user.
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o777)).unwrap();
        fs::set_permissions(dir.join("orders"), fs::Permissions::from_mode(0o666)).unwrap();
        // Opened for both, so that it never ends for whoever reads it.
        let orders = fs::File::options().read(true).write(true).open(dir.join("orders")).unwrap();
        instance.launch();
        Talk { instance, orders }
    }

    fn order(&mut self, line: &str) {
        writeln!(self.orders, "{line}").unwrap();
    }

    /// The answer to an order that has one.
    fn ask(&mut self, line: &str) -> String {
        let note = self.instance.dir.join("note");
        let _ = fs::remove_file(&note);
        self.order(line);
        let mut text = String::new();
        self.instance.await_that(line, || {
            text = fs::read_to_string(&note).unwrap_or_default();
            text.ends_with('\n')
        });
        text.trim().to_owned()
    }

    /// Says it, and returns when it was heard.
    fn say(&mut self, words: &str) {
        self.order(&format!("say {words}"));
        assert_eq!(self.ask("barrier"), "true");
    }

    fn ready(&mut self) -> u32 {
        self.say("READY=1");
        self.instance.await_state("talker", "running").pid.unwrap()
    }

    fn socket(&self) -> PathBuf {
        self.instance.run_dir().join("notify/talker")
    }
}

fn descriptors(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

#[test]
fn what_a_program_says_of_itself_is_shown() {
    let mut talk = Talk::start("notify-shown", "", "heartbeat = 60s");
    assert_eq!(talk.instance.program("talker").state, "starting");
    let pid = talk.ready();
    talk.say("STATUS=filling the tank|X_PRIVATE=1|nonsense||=|");
    assert_eq!(talk.instance.program("talker").status_text.as_deref(), Some("filling the tank"));
    talk.say("RELOADING=1|MONOTONIC_USEC=12345");
    assert_eq!(talk.instance.program("talker").reason.as_deref(), Some("reloading"));
    talk.say("READY=1|STATUS=");
    let program = talk.instance.program("talker");
    assert_eq!((program.reason, program.status_text, program.pid), (None, None, Some(pid)));
    // Its own word for why it ends is kept.
    talk.say("ERRNO=28");
    talk.order("end 3");
    talk.instance.await_program("talker", "ended", |program| {
        program.reason.as_deref() == Some("exit code 3 (No space left on device)")
    });
}

#[test]
fn a_trigger_is_a_hang_at_once() {
    let mut talk = Talk::start("notify-trigger", "", "heartbeat = 60s");
    let pid = talk.ready();
    talk.order("say WATCHDOG=trigger");
    await_death(pid);
    talk.instance.await_program("talker", "hung", |program| {
        program.reason.as_deref().unwrap_or("").starts_with("hung")
    });
}

#[test]
fn a_program_may_change_its_heartbeat_but_not_rid_itself_of_it() {
    let mut talk = Talk::start("notify-usec", "", "heartbeat = 60s");
    let pid = talk.ready();
    talk.say("WATCHDOG_USEC=0");
    talk.say("WATCHDOG=1");
    assert!(is_alive(pid));
    talk.say("WATCHDOG_USEC=300000|WATCHDOG=1");
    let begun = Clock::now();
    await_death(pid);
    assert!(begun.elapsed() < Duration::from_secs(20));
    // The next process has the configuration's again.
    let pid = talk.ready();
    wait(Duration::from_millis(700));
    assert_eq!(talk.instance.pid("talker"), pid);
}

#[test]
fn a_program_gets_more_time_by_asking_and_its_stop_time_by_saying_that_it_ends() {
    let mut talk = Talk::start("notify-extend", "", "heartbeat = 1s\nstopwaitsecs = 3s");
    let pid = talk.ready();
    let begun = Clock::now();
    talk.order("say EXTEND_TIMEOUT_USEC=3000000");
    await_death(pid);
    assert!(begun.elapsed() >= Duration::from_secs(3), "{:?}", begun.elapsed());
    let pid = talk.ready();
    let begun = Clock::now();
    talk.order("say STOPPING=1");
    // However much it beats then: it said that it ends.
    while is_alive(pid) && begun.elapsed() < Duration::from_secs(20) {
        talk.order("say WATCHDOG=1");
        wait(Duration::from_millis(200));
    }
    let took = begun.elapsed();
    assert!(took >= Duration::from_millis(2900) && took < Duration::from_secs(15), "{took:?}");
}

#[test]
fn another_process_of_its_own_may_become_the_main_one_and_a_strangers_may_not() {
    for (way, keys) in both_ways() {
        let mut talk = Talk::start(
            &format!("notify-main-{way}"),
            keys,
            "heartbeat = 60s\nautorestart = false\nstartsecs = 0s",
        );
        let pid = talk.ready();
        let stranger = Stranger::start();
        for other in [stranger.pid(), std::process::id(), talk.instance.guard_pid(), 1, 0, 4_000_000_000] {
            talk.say(&format!("MAINPID={other}"));
            assert_eq!(talk.instance.pid("talker"), pid, "{other}");
        }
        let child: u32 = talk.ask("child").parse().unwrap();
        talk.say(&format!("MAINPID={child}"));
        assert_eq!(talk.instance.pid("talker"), child);
        // Its end is the program's, though its own parent is told how it ended.
        signal(child, libc::SIGKILL);
        talk.instance.await_state("talker", "exited");
        await_death(pid);
        assert!(is_alive(stranger.pid()));
    }
}

#[test]
fn a_strangers_messages_change_nothing() {
    need_root();
    for (way, keys) in both_ways() {
        let mut talk = Talk::start(&format!("notify-stranger-{way}"), keys, "heartbeat = 2s\nuser = nobody");
        let pid = talk.ready();
        // The same user, and root: both can open the socket, neither is the program's.
        let path = talk.socket();
        let words =
            format!("STATUS=evil\nMAINPID={}\nSTOPPING=1\nEXTEND_TIMEOUT_USEC=90000000\nWATCHDOG=1", 1);
        let as_user = |user: u32, group: u32| {
            let mut python = Command::new("python3");
            python.args(["-c", "import socket,sys,os\ns=socket.socket(socket.AF_UNIX,socket.SOCK_DGRAM)\ns.connect(sys.argv[1])\ns.send(sys.argv[2].encode())\nsys.stdin.read()"]);
            python
                .arg(&path)
                .arg(&words)
                .stdin(std::process::Stdio::piped())
                .stderr(std::process::Stdio::null());
            harness::real::become_user(&mut python, user, group, &[]);
            python.spawn().unwrap()
        };
        let nobody = nix::unistd::User::from_name("nobody").unwrap().unwrap();
        let mut same = as_user(nobody.uid.as_raw(), nobody.gid.as_raw());
        let mut root = as_user(0, 0);
        let mut other = as_user(1, 1);
        assert!(!other.wait().unwrap().success(), "another user cannot even open it");
        signal(pid, libc::SIGSTOP);
        // They stay alive, so that they could be found to be anybody's; and go on.
        let evil = UnixDatagram::unbound().unwrap();
        evil.connect(&path).unwrap();
        let dead = await_condition(|| {
            let _ = evil.send(words.as_bytes());
            !is_alive(pid)
        });
        assert!(dead, "{}", talk.instance.log());
        let program = talk.instance.program("talker");
        assert_ne!(program.status_text.as_deref(), Some("evil"));
        for child in [&mut same, &mut root] {
            drop(child.stdin.take());
            child.wait().unwrap();
        }
    }
}

#[test]
fn of_a_sender_that_is_gone_nothing_is_believed_but_that_the_program_is_ready() {
    for (way, keys) in both_ways() {
        let mut talk = Talk::start(&format!("notify-gone-{way}"), keys, "heartbeat = 2s");
        let send = |words: &str| {
            let mut python = Command::new("python3");
            let code = "import socket,sys\ns=socket.socket(socket.AF_UNIX,socket.SOCK_DGRAM)\ns.connect(sys.argv[1])\ns.send(sys.argv[2].encode())";
            assert!(python.args(["-c", code]).arg(talk.socket()).arg(words).status().unwrap().success());
        };
        let supervisor = supervisor_of(talk.instance.guard_pid());
        signal(supervisor, libc::SIGSTOP);
        send("STATUS=evil\nREADY=1\nEXTEND_TIMEOUT_USEC=90000000\nMAINPID=1");
        signal(supervisor, libc::SIGCONT);
        let program = talk.instance.await_state("talker", "running");
        assert_eq!(program.status_text, None);
        let dead = await_condition(|| {
            signal(supervisor, libc::SIGSTOP);
            send("WATCHDOG=1\nSTOPPING=1");
            signal(supervisor, libc::SIGCONT);
            !is_alive(program.pid.unwrap())
        });
        assert!(dead, "{}", talk.instance.log());
        talk.ready();
    }
}

#[test]
fn descriptors_that_come_along_are_closed_and_never_kept() {
    let mut talk = Talk::start("notify-descriptors", "", "heartbeat = 60s");
    talk.ready();
    let supervisor = supervisor_of(talk.instance.guard_pid());
    let before = descriptors(supervisor);
    assert_eq!(talk.ask("store"), "stored");
    for _ in 0..20 {
        assert_eq!(talk.ask("barrier"), "true");
    }
    let after = descriptors(supervisor);
    assert!(after <= before + 1, "{before} before, {after} after");
}

#[test]
fn a_shell_script_speaks_through_multusctl() {
    let script = "beat() { \"$1\" multusctl beat \"$@\"; }\n\
                  ctl=$1; shift\n\
                  \"$ctl\" multusctl beat --ready --status 'at work' || exit 9\n\
                  while [ ! -e \"$1\" ]; do \"$ctl\" multusctl beat || exit 9; sleep 0.1; done\n\
                  sleep 1000";
    let config = format!(
        "[program:shell]\ncommand = %(here)s/shell {} %(here)s/enough\ntype = notify\nheartbeat = 3s\n",
        harness::binary()
    );
    for (way, keys) in both_ways() {
        let instance =
            Instance::scripted(&format!("notify-shell-{way}"), keys, &[("shell", script)], &config);
        let program = instance.await_state("shell", "running");
        // Said after READY=1, in a message of its own.
        instance
            .await_program("shell", "at work", |program| program.status_text.as_deref() == Some("at work"));
        wait(Duration::from_secs(4));
        assert_eq!(instance.pid("shell"), program.pid.unwrap(), "{}", instance.log());
        fs::write(instance.dir.join("enough"), "").unwrap();
        await_death(program.pid.unwrap());
    }
}

#[test]
fn multusctl_beat_says_where_there_is_nobody_to_speak_to() {
    let run = |name: &str, value: &str| {
        let mut command = Command::new(harness::binary());
        command.args(["multusctl", "beat"]).env_remove("NOTIFY_SOCKET").env_remove("MULTUSD_HEARTBEAT");
        let output = command.env(name, value).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    for (name, value, what) in [
        ("UNRELATED", "1", "not run by multusd"),
        ("MULTUSD_HEARTBEAT", "tcp:1", "stays connected"),
        ("MULTUSD_HEARTBEAT", "pulse", "Invalid argument"),
        ("NOTIFY_SOCKET", "/nowhere/at/all", "No such file"),
    ] {
        let (code, words) = run(name, value);
        assert!(code == Some(1) && words.contains(what), "{name}={value}: {code:?} {words}");
    }
    let file = std::env::temp_dir().join(format!("multusd-beat-{}", std::process::id()));
    assert_eq!(run("MULTUSD_HEARTBEAT", &format!("file:{}", file.display())).0, Some(0));
    assert!(file.exists());
    fs::remove_file(Path::new(&file)).unwrap();
}
