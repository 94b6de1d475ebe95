//! How long a line of a real GPIO chip stays live when its owner is dead: multusd, and beside it a bare program
//! that waits for the same and makes the same system call. The kernel's own trace has the moments, so nothing
//! is disturbed by looking; the guest's clock counts instructions, so this machine's load plays no part, and a
//! time means how much is done, not how long a board takes for it.

use super::boot::Boot;
use super::guest::{Guest, guest_seconds};
use super::outputs::with_owner_in;
use super::shipped::{CTL, equipped_from, supervise};

const ROUNDS: usize = 21;

/// From a SIGKILL to the death that a pidfd reports, and from there to the line's level, in microseconds.
struct Fall {
    death: f64,
    level: f64,
}

/// Out of the trace: a SIGKILL, the SIGCHLD of the death (which is sent with the pidfd's news), a line set low.
fn falls(trace: &str) -> Vec<Fall> {
    let mut found = Vec::new();
    let (mut killed, mut dead) = (None, None);
    for line in trace.lines().filter(|line| !line.starts_with('#')) {
        let mut words = line.split(": ");
        let time = words.next().and_then(|head| head.split_whitespace().next_back()?.parse::<f64>().ok());
        let (Some(time), Some(event), Some(rest)) = (time, words.next(), words.next()) else { continue };
        match event {
            "signal_generate" if rest.starts_with("sig=9 ") => (killed, dead) = (Some(time), None),
            "signal_generate" if rest.starts_with("sig=17 ") && dead.is_none() => dead = Some(time),
            "gpio_value" if rest.ends_with("set 0") => {
                if let (Some(killed), Some(dead)) = (killed.take(), dead.take()) {
                    let micros = 1e6;
                    found.push(Fall { death: (dead - killed) * micros, level: (time - dead) * micros });
                }
            }
            _ => {}
        }
    }
    found
}

/// Runs so many rounds of an order with the trace on.
fn traced(guest: &mut Guest, round: &str) -> Vec<Fall> {
    guest.ok(": >/sys/kernel/tracing/trace; echo 1 >/sys/kernel/tracing/tracing_on");
    guest.ok_within(
        guest_seconds(120),
        &format!("round=0; while [ $round -lt {ROUNDS} ]; do round=$((round + 1)); {round}; done"),
    );
    guest.ok("echo 0 >/sys/kernel/tracing/tracing_on");
    falls(&String::from_utf8_lossy(&guest.get("/sys/kernel/tracing/trace")))
}

fn middle(times: impl Iterator<Item = f64>) -> (f64, f64) {
    let mut times: Vec<f64> = times.collect();
    times.sort_by(f64::total_cmp);
    (times[times.len() / 2], times[times.len() - 1])
}

/// `bench/gpio` shows what this prints.
#[test]
fn a_line_falls_soon_after_its_owners_death_beside_a_bare_program() {
    let mut guest = with_owner_in(equipped_from("latency", &Boot::virt().icount(), "aarch64"));
    guest.ok(
        "mount -t tracefs none /sys/kernel/tracing; cd /sys/kernel/tracing && echo 0 >tracing_on &&\n\
         echo 1 >events/gpio/gpio_value/enable && echo 'sig == 9 || sig == 17' >events/signal/signal_generate/filter &&\n\
         echo 1 >events/signal/signal_generate/enable",
    );
    // Asleep: waiting for what is to come.
    let asleep = |pid: &str| {
        format!(
            "until grep -q '^State:.S' /proc/{pid}/status; do [ -e /proc/{pid} ] || exit 3; sleep 0.01; done"
        )
    };
    let bare = format!(
        "sleep 100000 & victim=$!; owner bare $victim 6 & bare=$!; {}; {}; kill -9 $victim; wait $bare",
        asleep("$victim"),
        asleep("$bare")
    );
    let bare = traced(&mut guest, &bare);
    let config = "[output:relay]\ngpio = 9030000.pl061:5\nsafe = low\nrunning = high\n\
                  [program:pump]\ncommand = /bin/owner high\nstartsecs = 0\nrestart_delay = 10ms\nrestart_delay_max = 10ms\noutputs = relay\n";
    supervise(&mut guest, config, "pump");
    let supervisor =
        guest.ok(&format!("{CTL} status --json | sed 's/.*\"supervisor_pid\":\\([0-9]*\\).*/\\1/'"));
    let supervised =
        format!("{CTL} start pump --wait; {}; kill -9 $(pidof owner); sleep 0.2", asleep(&supervisor));
    let supervised = traced(&mut guest, &supervised);
    assert!(bare.len() == ROUNDS && supervised.len() == ROUNDS, "{} {}", bare.len(), supervised.len());
    println!(
        "gpio: microseconds of a guest that counts instructions; {ROUNDS} crashes of a line's owner each"
    );
    println!("gpio: {:16}{:>16}{:>14}{:>8}", "", "SIGKILL - dead", "dead - level", "max");
    let mut levels = Vec::new();
    for (name, falls) in [("bare program", &bare), ("multusd", &supervised)] {
        let (death, _) = middle(falls.iter().map(|fall| fall.death));
        let (level, max) = middle(falls.iter().map(|fall| fall.level));
        println!("gpio: {name:16}{death:>16.0}{level:>14.0}{max:>8.0}");
        levels.push(level);
    }
    let ratio = levels[1] / levels[0];
    println!("gpio: multusd takes {ratio:.2} times as long, which is {:.0} us more", levels[1] - levels[0]);
    assert!(ratio < 4.0, "the line waits for more than it should: {levels:?}");
}
