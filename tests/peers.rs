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
fn connect_as(instance: &Instance, user: u32, count: usize) -> Vec<Client> {
    let run_dir = instance.run_dir();
    let stranger = std::thread::spawn(move || {
        // The bare calls concern this thread only; the C library's would change all of the process.
        // SAFETY: integers, and no group at all.
        let became = unsafe {
            libc::syscall(libc::SYS_setgroups, 0, std::ptr::null::<u32>()) == 0
                && libc::syscall(libc::SYS_setresgid, NOBODY, NOBODY, NOBODY) == 0
                && libc::syscall(libc::SYS_setresuid, user, user, user) == 0
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

fn ask_for(client: &Client, mut request: Request) -> Result<Reply, Trouble> {
    let mut packet = [0; 8192];
    let packet = protocol::encode(&mut request, &mut packet).unwrap();
    client.send(packet, clock::now() + Millis(10_000))?;
    next(client)
}

fn is_served(client: &Client) -> bool {
    match ask_for(client, Request::Daemon) {
        Ok(Reply::Daemon(_)) => true,
        // Its place is another's, and it was told so.
        Ok(Reply::Refused { .. }) | Err(Trouble::Closed) => false,
        other => panic!("{other:?}"),
    }
}

fn assert_refused(client: &Client) {
    let reply = next(client);
    let Ok(Reply::Refused { text, .. }) = &reply else { panic!("{reply:?}") };
    assert!(text.contains("too many control connections"), "{text}");
    assert_eq!(next(client), Err(Trouble::Closed));
}

/// Places that one user who may only look can have.
const SHARE: usize = CONTROL_CLIENT_COUNT_MAX / 4;

#[test]
fn a_strangers_idle_connections_do_not_keep_root_out() {
    need_root();
    let mut instance = Instance::start("peers-idle", "");
    let strangers = connect_as(&instance, NOBODY, CONTROL_CLIENT_COUNT_MAX);
    let (former, held) = strangers.split_at(CONTROL_CLIENT_COUNT_MAX - SHARE);
    former.iter().for_each(assert_refused);
    assert!(held.iter().all(is_served), "a quarter of the places is for any user, the latest have it");

    let run_dir = instance.run_dir();
    let mut own: Vec<Client> = Vec::new();
    let mut one_more = || {
        own.push(connect(&run_dir));
        assert!(own.iter().all(is_served), "the {}th of root", own.len());
    };
    (0..CONTROL_CLIENT_COUNT_MAX - SHARE).for_each(|_| one_more());
    assert!(held.iter().all(is_served), "as long as there are places, nobody loses one");
    for gone in 1..=SHARE {
        one_more();
        let served: Vec<bool> = held.iter().map(is_served).collect();
        let expected: Vec<bool> = (0..SHARE).map(|index| index >= gone).collect();
        assert_eq!(served, expected, "the oldest goes first");
    }
    // All places are root's now: a stranger gets none.
    assert_refused(&connect_as(&instance, NOBODY, 1)[0]);
    assert!(own.iter().all(is_served));
    drop(own);
    instance.await_that("the places are free", || instance.ctl(&["status"]).status.success());
    assert!(is_served(&connect_as(&instance, NOBODY, 1)[0]), "a stranger who left took nothing along");
    instance.quit_clean();
}

#[test]
fn one_strangers_connections_do_not_keep_another_stranger_out() {
    need_root();
    let mut instance = Instance::start("peers-share", "");
    let greedy = connect_as(&instance, NOBODY, 3 * CONTROL_CLIENT_COUNT_MAX);
    let other = connect_as(&instance, NOBODY - 1, 2);
    assert!(other.iter().all(is_served));
    assert_eq!(greedy.iter().filter(|client| is_served(client)).count(), SHARE);
    instance.quit_clean();
}

#[test]
fn who_may_give_orders_by_group_takes_a_strangers_place_too() {
    need_root();
    let mut instance = Instance::start_with("peers-group", "control_group = daemon", "");
    let mut strangers = connect_as(&instance, NOBODY, SHARE);
    strangers.extend(connect_as(&instance, NOBODY - 1, SHARE));
    let own: Vec<Client> = strangers.iter().map(|_| connect(&instance.run_dir())).collect();
    assert!(strangers.iter().chain(&own).all(is_served));
    let output = instance.ctl_as(NOBODY, NOBODY, &[DAEMON], &["status"]);
    assert!(output.status.success(), "{output:?}");
    assert!(!is_served(&strangers[0]) && strangers[1..].iter().chain(&own).all(is_served));
    drop(own);
    instance.quit_clean();
}

#[test]
fn the_client_that_was_silent_for_longest_gives_way() {
    let mut instance = Instance::start("peers-silent", "");
    let clients: Vec<Client> = (0..CONTROL_CLIENT_COUNT_MAX).map(|_| connect(&instance.run_dir())).collect();
    assert!(clients.iter().rev().all(is_served));
    let newest = connect(&instance.run_dir());
    assert!(is_served(&newest));
    let (last, others) = clients.split_last().unwrap();
    assert_refused(last);
    assert!(others.iter().all(is_served));
    drop(clients);
    instance.quit_clean();
}

#[test]
fn who_sends_garbage_is_told_so_and_disconnected() {
    let mut instance = Instance::start("peers-garbage", "");
    for garbage in [&[9_u8][..], &[1, 255], &[0; 3000], &[1; 20_000]] {
        let client = connect(&instance.run_dir());
        client.send(garbage, clock::now() + Millis(10_000)).unwrap();
        let reply = next(&client);
        assert!(matches!(&reply, Ok(Reply::Refused { why: protocol::Refusal::BadRequest, .. })), "{reply:?}");
        assert_eq!(next(&client), Err(Trouble::Closed));
    }
    instance.quit_clean();
}

#[test]
fn a_subscriber_that_does_not_read_gives_way_and_one_that_reads_does_not() {
    let config =
        "[program:a]\ncommand = true\nstartsecs = 0\nrestart_delay = 10ms\nrestart_delay_max = 10ms\n";
    let mut instance = Instance::start("peers-subscribers", config);
    let [deaf, reader] = [(); 2].map(|()| connect(&instance.run_dir()));
    for client in [&deaf, &reader] {
        assert!(matches!(ask_for(client, Request::Subscribe), Ok(Reply::Done { .. })));
    }
    let others: Vec<Client> = (2..CONTROL_CLIENT_COUNT_MAX).map(|_| connect(&instance.run_dir())).collect();
    // Of one event each, so that the kernel takes no more of them long before this.
    for _ in 0..1000 {
        assert!(matches!(next(&reader), Ok(Reply::Events { .. })));
    }
    assert!(others.iter().all(is_served));
    let first = connect(&instance.run_dir());
    assert!(is_served(&first), "in place of who is deaf");
    assert!(others.iter().all(is_served));
    let newest = connect(&instance.run_dir());
    assert!(is_served(&newest) && others.iter().all(is_served) && !is_served(&first));
    assert!(matches!(next(&reader), Ok(Reply::Events { .. })));
    drop((others, first, newest, reader, deaf));
    instance.quit_clean();
}

fn descriptors_of(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

/// Gives a process no more than so many descriptors; how many it had before. (The hard limit stays: it could not
/// be raised again everywhere.)
fn limit_descriptors(pid: u32, count: usize) -> usize {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: valid structures; first the old limit is asked for, then the new one is given.
    unsafe {
        assert_eq!(libc::prlimit(pid as i32, libc::RLIMIT_NOFILE, std::ptr::null(), &raw mut limit), 0);
        let before = std::mem::replace(&mut limit.rlim_cur, count as _);
        let result = libc::prlimit(pid as i32, libc::RLIMIT_NOFILE, &raw const limit, std::ptr::null_mut());
        assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
        before as usize
    }
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

/// The first number at which a process has nothing open: with that for its limit it can open nothing.
fn first_free(pid: u32) -> usize {
    (0..).find(|number| fs::symlink_metadata(format!("/proc/{pid}/fd/{number}")).is_err()).unwrap()
}

#[test]
fn without_descriptors_clients_are_served_one_after_the_other_and_nothing_spins() {
    let config = "[program:a]\ncommand = sleep 1000\nstartsecs = 0\n";
    let mut instance = Instance::start("peers-exhausted", config);
    let pid = instance.await_state("a", "running").pid.unwrap();
    let supervisor = instance.status().supervisor_pid;
    let plenty = limit_descriptors(supervisor, first_free(supervisor));
    instance.await_that("the last client is gone", || {
        limit_descriptors(supervisor, first_free(supervisor));
        harness::wait(std::time::Duration::from_millis(20));
        fs::symlink_metadata(format!("/proc/{supervisor}/fd/{}", first_free(supervisor))).is_err()
    });
    // One after the other, and more at once than there are descriptors: the silent ones give way.
    for _ in 0..20 {
        instance.ctl_ok(&["status"]);
    }
    let silent: Vec<Client> = (0..10)
        .map(|_| {
            let client = connect(&instance.run_dir());
            assert!(is_served(&client));
            client
        })
        .collect();
    let served = silent.iter().filter(|client| is_served(client)).count();
    assert!((1..10).contains(&served), "{served}");
    drop(silent);
    // Who takes the news does not give way: the next one waits, and nobody is awake for it.
    let readers: Vec<Client> = (0..served)
        .map(|_| {
            let client = connect(&instance.run_dir());
            assert!(matches!(ask_for(&client, Request::Subscribe), Ok(Reply::Done { .. })));
            client
        })
        .collect();
    let waiting = connect(&instance.run_dir());
    harness::wait(std::time::Duration::from_millis(500));
    let before = harness::real::cpu_ms(supervisor);
    harness::wait(std::time::Duration::from_secs(2));
    let spent = harness::real::cpu_ms(supervisor) - before;
    assert!(spent < 100.0, "{spent} ms of processor time in 2 s");
    // Its program's fate is known and decided all the same.
    drop(readers);
    assert!(is_served(&waiting), "when another leaves");
    drop(waiting);
    harness::signal(pid, libc::SIGKILL);
    instance.await_program("a", "failed", |a| a.restarts > 0 || a.failures > 0);
    limit_descriptors(supervisor, plenty);
    instance.await_program("a", "again", |a| a.state == "running" && a.pid != Some(pid));
    assert_eq!(instance.status().supervisor_pid, supervisor);
    instance.quit_clean();
}
