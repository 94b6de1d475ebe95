//! Fifty clients of the control socket at once, half of which send garbage, stall or never read: the others are
//! answered, programs do not notice, memory stays as it is. How late heartbeats are judged meanwhile is measured by
//! `bench/control`.

mod harness;

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use std::time::{Duration, Instant};

use harness::real::status_line;
use harness::{Instance, PATIENCE, Random, wait};
use multusd::protocol::{self, Reply, Request};
use multusd::sys::clock;
use multusd::sys::control_client::{Client, Trouble};
use multusd::time::Millis;

const BEHAVING: usize = 25;
const REQUESTS_EACH: usize = 60;

fn connect(run_dir: &Path) -> Option<Client> {
    Client::connect(&run_dir.join("control"), clock::now() + Millis(1000)).ok()
}

fn packet(request: &mut Request) -> Vec<u8> {
    let mut buffer = [0; 8192];
    protocol::encode(request, &mut buffer).unwrap().to_vec()
}

/// One answer, however often that has to be asked for.
fn ask(run_dir: &Path, connection: &mut Option<Client>, request: &mut Request) {
    let packet = packet(request);
    let until = Instant::now() + PATIENCE;
    while Instant::now() < until {
        let Some(client) = connection.take().or_else(|| connect(run_dir)) else { continue };
        let mut buffer = [0; 8192];
        let sent = client.send(&packet, clock::now() + Millis(30_000));
        match sent.and_then(|()| client.receive(&mut buffer, clock::now() + Millis(30_000))) {
            Ok(reply) => match protocol::decode::<Reply>(reply).expect("understood") {
                Reply::Refused { text, .. } => {
                    assert!(text.contains("too many control connections"), "{text}")
                }
                _ => {
                    *connection = Some(client);
                    return;
                }
            },
            Err(Trouble::Closed) => {}
            Err(other) => panic!("{other:?}"),
        }
        wait(Duration::from_millis(1));
    }
    panic!("not answered in {PATIENCE:?}");
}

fn behave(run_dir: &Path, number: usize, answered: &AtomicU32) {
    let mut connection = None;
    for turn in 0..REQUESTS_EACH {
        let mut request = if turn % 2 == 0 { Request::Status { from: 0 } } else { Request::Daemon };
        ask(run_dir, &mut connection, &mut request);
        answered.fetch_add(1, SeqCst);
        if number.is_multiple_of(2) {
            // As multusctl does; the others stay.
            connection = None;
        }
    }
}

fn misbehave(run_dir: &Path, number: usize, is_over: &AtomicBool) {
    let mut random = Random(number as u64);
    while !is_over.load(SeqCst) {
        let Some(client) = connect(run_dir) else { continue };
        let soon = || clock::now() + Millis(20);
        let mut buffer = [0; 8192];
        match number % 3 {
            0 => {
                let garbage: Vec<u8> = (0..random.below(300)).map(|_| random.below(256) as u8).collect();
                let _ = client.send(&garbage, soon());
                let _ = client.receive(&mut buffer, soon());
            }
            1 => {
                while !is_over.load(SeqCst) && client.receive(&mut buffer, soon()) == Err(Trouble::TimedOut) {
                }
            }
            _ => {
                let request = packet(&mut Request::Status { from: 0 });
                for _ in 0..1000 {
                    if client.send(&request, soon()).is_err() || is_over.load(SeqCst) {
                        break;
                    }
                }
            }
        }
        wait(Duration::from_millis(1));
    }
}

fn memory_kb(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    status_line(&text, "RssAnon").trim_end_matches(" kB").trim().parse().unwrap()
}

#[test]
fn fifty_clients_half_of_them_bad_keep_neither_each_other_nor_heartbeats_from_being_heard() {
    let beats: String = (0..8)
        .map(|number| {
            format!(
                "[program:p{number}]\ncommand = %(here)s/beats\nstartsecs = 0\nheartbeat = 5s\nheartbeat_kind = fd\n\
                 ready = uptime\n"
            )
        })
        .collect();
    let script = "n=${MULTUSD_HEARTBEAT#fd:}\nwhile :; do eval \"printf . >&$n\"; sleep 0.05; done";
    let mut instance = Instance::scripted("neighbours", "", &[("beats", script)], &beats);
    for number in 0..8 {
        instance.await_state(&format!("p{number}"), "running");
    }
    let run_dir = instance.run_dir();
    // Everything that is ever needed is there after this.
    let (mut first, warm) = (None, 64);
    (0..warm).for_each(|_| ask(&run_dir, &mut first, &mut Request::Status { from: 0 }));
    drop(first);
    let supervisor = instance.status().supervisor_pid;
    let before = memory_kb(supervisor);
    let (answered, is_over) = (AtomicU32::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let good: Vec<_> = (0..BEHAVING)
            .map(|number| {
                let (run_dir, answered) = (&run_dir, &answered);
                scope.spawn(move || behave(run_dir, number, answered))
            })
            .collect();
        for number in 0..BEHAVING {
            let (run_dir, is_over) = (&run_dir, &is_over);
            scope.spawn(move || misbehave(run_dir, number, is_over));
        }
        let results: Vec<_> = good.into_iter().map(|thread| thread.join()).collect();
        is_over.store(true, SeqCst);
        for result in results {
            result.expect("a client that behaves is answered");
        }
    });
    assert_eq!(answered.load(SeqCst), (BEHAVING * REQUESTS_EACH) as u32);
    let after = memory_kb(supervisor);
    assert!(after <= before + 256, "{before} kB before, {after} kB after");
    let status = instance.status();
    assert_eq!(status.supervisor_pid, supervisor);
    assert!(
        status.programs.iter().all(|program| program.restarts == 0 && program.state == "running"),
        "{status:?}"
    );
    instance.quit_clean();
}
