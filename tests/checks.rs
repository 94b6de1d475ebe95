//! Health checks of running programs: commands, and the built-in ones that need no program.

mod harness;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::process::Command;
use std::thread;

use harness::real::both_ways;
use harness::{Instance, binary};

/// Healthy while the file is there; says why it is not.
const CHECK: &str = "#!/bin/sh\necho looking\n[ -e \"$1\" ] && exit 0\necho \"no $1\"\necho\nexit 7\n";

#[test]
fn a_program_whose_check_fails_often_enough_is_killed_and_restarted_and_the_last_line_says_why() {
    for (way, keys) in both_ways() {
        let config = "[program:a]\ncommand = sleep 1000\nstartsecs = 0\ncheck = %(here)s/check %(here)s/healthy\n\
                      check_interval = 20ms\ncheck_failures = 3\n";
        let scripts = [("check", CHECK)];
        let mut instance = Instance::scripted_only(&format!("check-{way}"), keys, &scripts, config);
        let healthy = instance.dir.join("healthy");
        fs::write(&healthy, "").unwrap();
        instance.launch();
        let first = instance.await_state("a", "running").pid.unwrap();
        fs::remove_file(&healthy).unwrap();
        let failed =
            instance.await_program("a", "another process", |a| a.pid.is_some_and(|pid| pid != first));
        assert_eq!(failed.reason, Some(format!("check failed: no {}", healthy.display())));
        fs::write(&healthy, "").unwrap();
        instance.quit_clean();
    }
}

#[test]
fn a_check_that_fails_now_and_then_is_no_failure_where_more_are_wanted_in_a_row() {
    let config = "[program:a]\ncommand = sleep 1000\nstartsecs = 0\ncheck = %(here)s/check %(here)s/count\n\
                  check_interval = 10ms\ncheck_failures = 2\n";
    // Every other time.
    let script =
        "#!/bin/sh\nn=$(cat \"$1\" 2>/dev/null || echo 0)\necho $((n + 1)) >\"$1\"\nexit $((n % 2))\n";
    let mut instance = Instance::scripted_only("check-odd", "", &[("check", script)], config);
    instance.launch();
    instance.await_that("twenty checks", || {
        fs::read_to_string(instance.dir.join("count"))
            .is_ok_and(|text| text.trim().parse::<u32>().is_ok_and(|n| n >= 20))
    });
    assert_eq!(instance.program("a").restarts, 0);
    instance.quit_clean();
}

#[test]
fn a_check_that_does_not_end_in_its_time_has_failed_and_is_killed() {
    let config = "[program:a]\ncommand = sleep 1000\nstartsecs = 0\ncheck = sleep 2000\n\
                  check_interval = 10ms\ncheck_timeout = 50ms\ncheck_failures = 1\nrestart_delay = 10ms\n";
    let mut instance = Instance::start("check-hangs", config);
    let failed = instance.await_program("a", "a restart", |a| a.restarts >= 1);
    assert_eq!(failed.reason.as_deref(), Some("check failed: no answer in time"));
    // quit_clean sees to it that nobody is left.
    instance.quit_clean();
}

#[test]
fn a_check_that_prints_without_end_neither_waits_nor_fills_anything() {
    let config = "[program:a]\ncommand = sleep 1000\nstartsecs = 0\ncheck = %(here)s/check\n\
                  check_interval = 10ms\ncheck_failures = 1\nrestart_delay = 10ms\n";
    let script = "#!/bin/sh\nhead -c 1000000 /dev/zero | tr '\\0' 'x'\nexit 1\n";
    let mut instance = Instance::scripted_only("check-chatty", "", &[("check", script)], config);
    instance.launch();
    let failed = instance.await_program("a", "a restart", |a| a.restarts >= 1);
    let reason = failed.reason.unwrap();
    assert!(reason.starts_with("check failed: xxx") && reason.len() <= 120, "{reason}");
    instance.quit_clean();
}

#[test]
fn a_check_goes_on_when_the_supervisor_is_replaced_meanwhile() {
    let config = "[program:a]\ncommand = sleep 1000\nstartsecs = 0\ncheck = %(here)s/check %(here)s/checks\ncheck_interval = 10ms\n";
    let script = "#!/bin/sh\necho x >>\"$1\"\n";
    let mut instance = Instance::scripted_only("check-takeover", "", &[("check", script)], config);
    instance.launch();
    let pid = instance.await_state("a", "running").pid;
    instance.await_lines("checks", 3);
    harness::signal(harness::supervisor_of(instance.guard_pid()), libc::SIGKILL);
    let so_far = instance.lines("checks").len();
    instance.await_lines("checks", so_far + 5);
    assert_eq!((instance.program("a").pid, instance.program("a").restarts), (pid, 0));
    instance.quit_clean();
}

/// `multusd probe`, and what it says.
fn probe(target: &str) -> (bool, String) {
    let output = Command::new(binary()).args(["probe", target]).output().unwrap();
    (output.status.success(), String::from_utf8(output.stdout).unwrap())
}

#[test]
fn built_in_checks_tell_who_serves_from_who_does_not() {
    let dir = std::env::temp_dir().join(format!("multusd-probe-{}", std::process::id()));
    fs::create_dir_all(&dir).unwrap();
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = tcp.local_addr().unwrap().port();
    assert_eq!(probe(&format!("tcp:127.0.0.1:{port}")), (true, String::new()));
    assert_eq!(probe(&format!("tcp:localhost:{port}")), (true, String::new()));
    drop(tcp);
    let target = format!("tcp:127.0.0.1:{port}");
    assert_eq!(probe(&target), (false, format!("{target}: connect: Connection refused\n")));

    let socket = dir.join("socket");
    let target = format!("unix:{}", socket.display());
    let listener = UnixListener::bind(&socket).unwrap();
    assert_eq!(probe(&target), (true, String::new()));
    drop(listener);
    assert_eq!(probe(&target), (false, format!("{target}: connect: Connection refused\n")));
    fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn a_built_in_check_of_http_goes_by_the_status_and_names_it() {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = server.local_addr().unwrap().port();
    let serving = thread::spawn(move || {
        let mut asked = Vec::new();
        for answer in ["HTTP/1.1 200 OK\r\n\r\n", "HTTP/1.1 503 Busy\r\nx: y\r\n\r\n", ""] {
            let (mut connection, _) = server.accept().unwrap();
            let mut request = [0; 200];
            let length = connection.read(&mut request).unwrap();
            asked.push(String::from_utf8_lossy(&request[..length]).into_owned());
            // In two pieces: a line may come in parts.
            let (first, second) = answer.split_at(answer.len() / 2);
            connection.write_all(first.as_bytes()).unwrap();
            connection.write_all(second.as_bytes()).unwrap();
        }
        asked
    });
    let target = format!("http://127.0.0.1:{port}/health?full=1");
    assert_eq!(probe(&target), (true, String::new()));
    assert_eq!(probe(&target), (false, format!("{target}: HTTP/1.1 503 Busy\n")));
    assert_eq!(probe(&target), (false, format!("{target}: no answer\n")));
    let asked = serving.join().unwrap();
    let start = format!("GET /health?full=1 HTTP/1.0\r\nHost: 127.0.0.1:{port}\r\n");
    assert!(
        asked.iter().all(|request| request.starts_with(&start) && request.ends_with("\r\n\r\n")),
        "{asked:?}"
    );
}

#[test]
fn a_program_that_stops_serving_is_restarted_by_its_built_in_check() {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = server.local_addr().unwrap().port();
    let config = format!(
        "[program:a]\ncommand = sleep 1000\nstartsecs = 0\ncheck = tcp:127.0.0.1:{port}\n\
         check_interval = 20ms\ncheck_failures = 2\nrestart_delay = 10ms\n"
    );
    let mut instance = Instance::start("check-tcp", &config);
    let first = instance.await_state("a", "running").pid.unwrap();
    // Checked a few times, by connections that are accepted here.
    for _ in 0..3 {
        drop(server.accept().unwrap());
    }
    assert_eq!(instance.program("a").pid, Some(first));
    drop(server);
    let failed = instance.await_program("a", "another process", |a| a.pid.is_some_and(|pid| pid != first));
    let expected = format!("check failed: tcp:127.0.0.1:{port}: connect: Connection refused");
    assert_eq!(failed.reason, Some(expected));
    instance.quit_clean();
}
