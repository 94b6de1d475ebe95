//! Lines for syslog and the kernel's log, taken by real receivers: sockets as a syslog daemon has them, /dev/kmsg.

mod harness;

use std::fs;
use std::io::Read;
use std::net::UdpSocket;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::Duration;

use harness::mounts::{in_own_mounts, make_node, memory_at};
use harness::real::{need_root, status_line};
use harness::{Instance, PATIENCE, uninterrupted};

/// Says something on both streams, stays.
const TALK: &str = "echo hello\necho trouble >&2\nexec \"${0%/*}/sleeper\" 1000";

fn config(log: &str, keys: &str) -> String {
    format!("[log]\n{log}\n[program:pump]\ncommand = %(here)s/talk\nstartsecs = 0\n{keys}\n")
}

/// Two messages, sorted.
fn two(mut receive: impl FnMut(&mut [u8]) -> std::io::Result<usize>) -> [String; 2] {
    let mut take = || {
        let mut buffer = [0; 2048];
        let length = uninterrupted(|| receive(&mut buffer)).expect("a message in time");
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    };
    let mut found = [take(), take()];
    found.sort();
    found
}

#[test]
fn a_syslog_server_hears_both_streams_in_its_rfc() {
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let receiver = UdpSocket::bind(address).unwrap();
        receiver.set_read_timeout(Some(PATIENCE)).unwrap();
        let server = receiver.local_addr().unwrap();
        let text = config(&format!("syslog = udp:{server}"), "stdout_syslog = true\nstderr_syslog = true");
        let mut instance = Instance::scripted("relayudp", "", &[("talk", TALK)], &text);
        let messages = two(|buffer| receiver.recv(buffer));
        instance.quit_clean();
        for (message, (start, end)) in
            messages.iter().zip([("<28>1 20", " pump - - - trouble"), ("<30>1 20", " pump - - - hello")])
        {
            assert!(message.starts_with(start) && message.ends_with(end), "{message}");
            // VERSION TIMESTAMP HOSTNAME APP-NAME PROCID MSGID STRUCTURED-DATA MSG
            let words: Vec<&str> = message.split(' ').collect();
            assert!(words.len() == 8 && words[1].len() == 24 && words[1].ends_with('Z'), "{message}");
        }
    }
}

#[test]
fn the_local_syslog_hears_what_it_is_to_hear_and_nothing_else() {
    in_own_mounts(|| {
        // The machine may have a syslog; this one is the test's own.
        let dev = Path::new("/dev");
        memory_at(dev, "mode=755", 0);
        for (name, minor) in [("null", 3), ("zero", 5), ("random", 8), ("urandom", 9)] {
            make_node(&dev.join(name), libc::S_IFCHR, libc::makedev(1, minor)).unwrap();
        }
        let receiver = UnixDatagram::bind("/dev/log").unwrap();
        receiver.set_read_timeout(Some(PATIENCE)).unwrap();
        let text = config("", "stderr_syslog = true");
        let mut instance = Instance::scripted("relaylocal", "", &[("talk", TALK)], &text);
        let mut buffer = [0; 2048];
        let length = uninterrupted(|| receiver.recv(&mut buffer)).unwrap();
        instance.quit_clean();
        receiver.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
        let more = uninterrupted(|| receiver.recv(&mut [0; 2048]));
        assert_eq!(str::from_utf8(&buffer[..length]), Ok("<28>pump: trouble"));
        assert!(more.is_err(), "standard output was not asked for");
    });
}

#[test]
fn a_receiver_that_is_not_there_is_said_once_and_keeps_nobody_waiting() {
    let text = config(
        "syslog = udp:127.0.0.1:1\nflush = 50ms",
        "stdout_syslog = true\nlog_stamp = none\nstdout_logfile = %(here)s/out",
    );
    let main = "i=0\nwhile [ $i -lt 500 ]; do echo $i; i=$((i+1)); done\nexec \"${0%/*}/sleeper\" 1000";
    let mut instance = Instance::scripted("relaynobody", "", &[("talk", main)], &text);
    instance.await_lines("out", 500);
    instance.quit_clean();
    assert_eq!(instance.log().matches("syslog: ").count(), 1, "{}", instance.log());
}

/// Collector and storer have these, and can never have others.
fn assert_capabilities(instance: &Instance, expected: &str) {
    let log = instance.pid("log");
    let children = || fs::read_to_string(format!("/proc/{log}/task/{log}/children")).unwrap();
    instance.await_that("the storer", || !children().is_empty());
    let storer: u32 = children().trim().parse().expect("one storer");
    for pid in [log, storer] {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        for key in ["CapEff", "CapPrm", "CapBnd"] {
            assert_eq!(status_line(&status, key), expected, "{key} of {pid}");
        }
        assert_eq!(status_line(&status, "NoNewPrivs"), "1");
    }
}

#[test]
fn a_log_of_another_user_has_no_capability_and_the_kernels_log_is_not_its_to_write() {
    need_root();
    let text = config("user = nobody", "log_kmsg = true\nstdout_logfile = NONE\nstderr_logfile = NONE");
    let mut instance = Instance::scripted("relayuser", "", &[("talk", TALK)], &text);
    assert_capabilities(&instance, "0000000000000000");
    let said = "kmsg: open: Permission denied; lines for it are lost and counted";
    instance.await_that("it is said", || instance.log().contains(said));
    instance.quit_clean();
}

#[test]
fn the_kernels_log_has_the_lines_that_are_for_it() {
    need_root();
    let kmsg = fs::OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open("/dev/kmsg");
    let mut kmsg = kmsg.expect("/dev/kmsg");
    let mark = format!("kmsg-{}", std::process::id());
    let main = format!("echo {mark}\nexec \"${{0%/*}}/sleeper\" 1000");
    let text = config("", "log_kmsg = true");
    let mut instance = Instance::scripted("relaykmsg", "", &[("talk", &main)], &text);
    let mut found = String::new();
    instance.await_that("the line in the kernel's log", || {
        let mut buffer = [0; 8192];
        while let Ok(length) = kmsg.read(&mut buffer) {
            let message = String::from_utf8_lossy(&buffer[..length]);
            if message.contains(&mark) {
                found = message.into_owned();
            }
        }
        !found.is_empty()
    });
    // What docs/logs.md says they may, CAP_DAC_OVERRIDE: to write to /dev/kmsg takes no capability.
    assert_capabilities(&instance, "0000000000000002");
    instance.quit_clean();
    // Priority 30: daemon, informational.
    assert!(found.starts_with("30,") && found.contains(&format!(";pump: {mark}\n")), "{found}");
}
