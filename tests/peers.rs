//! Who is at the other end of the sockets, and can do no harm there: strangers who hold connections
//! to the control socket, and notifications with descriptors attached.

mod harness;

use std::fs;
use std::path::Path;

use harness::Instance;
use harness::real::need_root;
use multusd::limits::CONTROL_CLIENT_COUNT_MAX;
use multusd::protocol::{self, Reply, Request};
use multusd::sys::clock;
use multusd::sys::control_client::{Client, Trouble};
use multusd::time::Millis;

/// An account without rights (nobody), and a group that exists everywhere (daemon).
const NOBODY: u32 = 65_534;
const DAEMON: u32 = 1;

fn connect(run_dir: &Path) -> Client {
    Client::connect(&run_dir.join("control"), clock::now() + Millis(10_000)).expect("connects")
}

/// Connections of a user who may only look, in the order in which they were made.
fn connect_as_nobody(instance: &Instance, count: usize) -> Vec<Client> {
    let run_dir = instance.run_dir();
    let stranger = std::thread::spawn(move || {
        // The bare calls concern this thread only; the C library's would change all of the process.
        // SAFETY: integers, and no group at all.
        let became = unsafe {
            libc::syscall(libc::SYS_setgroups, 0, std::ptr::null::<u32>()) == 0
                && libc::syscall(libc::SYS_setresgid, NOBODY, NOBODY, NOBODY) == 0
                && libc::syscall(libc::SYS_setresuid, NOBODY, NOBODY, NOBODY) == 0
        };
        assert!(became, "{}", std::io::Error::last_os_error());
        (0..count).map(|_| connect(&run_dir)).collect()
    });
    stranger.join().unwrap()
}

/// The next packet that comes, unless the other end is gone.
fn next(client: &Client) -> Result<Reply, Trouble> {
    let mut reply = [0; 8192];
    let packet = client.receive(&mut reply, clock::now() + Millis(10_000))?;
    Ok(protocol::decode(packet).expect("understood"))
}

fn ask(client: &Client) -> Result<Reply, Trouble> {
    let mut packet = [0; 8192];
    let packet = protocol::encode(&mut Request::Daemon, &mut packet).unwrap();
    client.send(packet, clock::now() + Millis(10_000))?;
    next(client)
}

fn is_served(client: &Client) -> bool {
    match ask(client) {
        Ok(Reply::Daemon(_)) => true,
        Err(Trouble::Closed) => false,
        other => panic!("{other:?}"),
    }
}

fn assert_refused(client: &Client) {
    let reply = next(client);
    let Ok(Reply::Refused { text, .. }) = &reply else { panic!("{reply:?}") };
    assert!(text.contains("too many control connections"), "{text}");
    assert_eq!(next(client), Err(Trouble::Closed));
}

#[test]
fn a_strangers_idle_connections_do_not_keep_root_out() {
    need_root();
    let mut instance = Instance::start("peers-idle", "");
    let half = CONTROL_CLIENT_COUNT_MAX / 2;
    let strangers = connect_as_nobody(&instance, CONTROL_CLIENT_COUNT_MAX);
    let (held, one_too_many) = strangers.split_at(half);
    one_too_many.iter().for_each(assert_refused);
    assert!(held.iter().all(is_served), "half of the places are for anyone");

    let run_dir = instance.run_dir();
    let mut own: Vec<Client> = Vec::new();
    let mut one_more = || {
        own.push(connect(&run_dir));
        assert!(own.iter().all(is_served), "the {}th of root", own.len());
    };
    (0..half).for_each(|_| one_more());
    assert!(held.iter().all(is_served), "as long as there are places, nobody loses one");
    for gone in 1..=half {
        one_more();
        let served: Vec<bool> = held.iter().map(is_served).collect();
        let expected: Vec<bool> = (0..half).map(|index| index >= gone).collect();
        assert_eq!(served, expected, "the oldest goes first");
    }
    // All places are root's now: nobody is there to make room.
    assert_refused(&connect(&run_dir));
    assert_refused(&connect_as_nobody(&instance, 1)[0]);
    assert!(own.iter().all(is_served));
    drop(own);
    instance.await_that("the places are free", || instance.ctl(&["status"]).status.success());
    assert!(is_served(&connect_as_nobody(&instance, 1)[0]), "a stranger who left took nothing along");
    instance.quit_clean();
}

#[test]
fn who_may_give_orders_by_group_takes_a_strangers_place_too() {
    need_root();
    let mut instance = Instance::start_with("peers-group", "control_group = daemon", "");
    let strangers = connect_as_nobody(&instance, CONTROL_CLIENT_COUNT_MAX / 2);
    let own: Vec<Client> = strangers.iter().map(|_| connect(&instance.run_dir())).collect();
    assert!(strangers.iter().chain(&own).all(is_served));
    let output = instance.ctl_as(NOBODY, NOBODY, &[DAEMON], &["status"]);
    assert!(output.status.success(), "{output:?}");
    assert!(!is_served(&strangers[0]) && strangers[1..].iter().chain(&own).all(is_served));
    drop(own);
    instance.quit_clean();
}

fn descriptors_of(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

/// Gives a process no more than so many descriptors.
fn limit_descriptors(pid: u32, count: usize) {
    let limit = libc::rlimit { rlim_cur: count as _, rlim_max: count as _ };
    // SAFETY: a valid limit in; the old one is not asked for.
    let result =
        unsafe { libc::prlimit(pid as i32, libc::RLIMIT_NOFILE, &raw const limit, std::ptr::null_mut()) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
}

/// Sends a notification with 200 descriptors of a pipe at each SIGUSR1, and notes when nobody holds them.
const SENDER: &str = r#"#!/usr/bin/env python3
import array, os, signal, socket
here = os.path.dirname(os.path.abspath(__file__))
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
def note(line):
    with open(here + "/notes", "a") as notes:
        notes.write(line + "\n")
note("here")
for words in "plenty of room", "hardly any room":
    signal.sigwait({signal.SIGUSR1})
    reader, writer = os.pipe()
    sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [writer] * 200))
    text = "READY=1\nSTATUS=" + words
    sender.sendmsg([text.encode()], [rights], 0, os.environ["NOTIFY_SOCKET"])
    os.close(writer)
    # The end of the file: nobody holds the other end any more.
    note("end" if os.read(reader, 1) == b"" else "what?")
signal.pause()
"#;

#[test]
fn a_notification_with_200_descriptors_is_heard_and_leaves_none_behind() {
    let config = "[program:a]\ncommand = %(here)s/sender\ntype = notify\n";
    let mut instance = Instance::scripted_only("peers-descriptors", "", &[], config);
    harness::executable(&instance.dir.join("sender"), SENDER.as_bytes());
    instance.launch();
    instance.await_lines("notes", 1);
    let pid = instance.pid("a");
    let supervisor = instance.status().supervisor_pid;
    let before = descriptors_of(supervisor);
    // First with room for all of them, then with room for a few.
    for (index, words) in ["plenty of room", "hardly any room"].into_iter().enumerate() {
        harness::signal(pid, libc::SIGUSR1);
        instance
            .await_program("a", words, |a| a.state == "running" && a.status_text.as_deref() == Some(words));
        let notes = instance.await_lines("notes", 2 + index);
        assert_eq!(notes.last().map(String::as_str), Some("end"));
        // The connection that has just been asked on may still be there for a moment.
        instance.await_that("no more descriptors than before", || descriptors_of(supervisor) <= before);
        limit_descriptors(supervisor, before + 20);
    }
    assert_eq!(instance.status().supervisor_pid, supervisor);
    instance.quit_clean();
}
