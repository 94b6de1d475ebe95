//! The executables as they ship (`make release`), on a real kernel of the architecture they are for.

use std::path::{Path, PathBuf};

use nanoserde::DeJson;

use super::boot::Boot;
use super::guest::{Guest, guest_seconds};
use super::harness::Status;

/// multusctl, speaking to the multusd of these tests.
pub const CTL: &str = "multusctl --run-dir /run/multusd";

/// An executable of `make release`.
pub fn executable(machine: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    let path = target.join("dist").join(machine).join("multusd");
    assert!(path.exists(), "{} is not there: make release", path.display());
    path
}

/// A guest with the executable under both names.
pub fn equipped(name: &str) -> Guest {
    equipped_from(name, &Boot::virt(), "aarch64")
}

/// The same after another boot, or with the executable of another machine that this kernel runs too.
pub fn equipped_from(name: &str, boot: &Boot, machine: &str) -> Guest {
    let mut guest = Guest::restored_from(name, boot);
    guest.put(executable(machine), "/bin/multusd");
    guest.ok("ln -s multusd /bin/multusctl");
    guest
}

/// Starts multusd in the guest and waits until these programs are ready.
pub fn supervise(guest: &mut Guest, config: &str, programs: &str) {
    guest.put_bytes(config.as_bytes(), 0o644, "/etc/multusd.cfg");
    guest.ok("(multusd --run-dir /run/multusd >/tmp/multusd.log 2>&1 </dev/null &)");
    guest.ok(&format!(
        "until {CTL} status >/dev/null 2>&1; do sleep 0.05; done; {CTL} start {programs} --wait"
    ));
}

fn status(guest: &mut Guest) -> Status {
    Status::deserialize_json(&guest.ok(&format!("{CTL} status --json"))).expect("JSON")
}

/// A condition in the guest's shell, looked at until it holds: `order` has a limit of its own.
pub fn await_in(guest: &mut Guest, condition: &str) {
    guest.ok_within(guest_seconds(60), &format!("until {condition}; do sleep 0.05; done"));
}

#[test]
fn the_self_test_passes_on_a_real_kernel_in_64_and_in_32_bits() {
    let mut guest = Guest::restored("self-test");
    // A 64-bit kernel runs the 32-bit executables too: the same system calls, with 32-bit structures.
    for machine in ["aarch64", "armv7", "armv6"] {
        let path = format!("/bin/multusd-{machine}");
        guest.put(executable(machine), &path);
        let said = guest.ok_within(guest_seconds(120), &format!("{path} self-test"));
        println!("{machine}: {}", said.lines().last().unwrap_or_default());
        // Nothing is left out here, and nothing may be missing: neither controllers nor clone flags.
        assert!(
            said.lines().last().is_some_and(|line| line.contains(" 0 failed, 0 absent")),
            "{machine}: {said}"
        );
        // Chips and lines were asked of the PL061 of this machine, with structures of 32 bits.
        assert!(
            said.lines().any(|line| line.starts_with("ok") && line.contains("gpio")),
            "{machine}: {said}"
        );
        guest.ok("touch -d '2045-06-01 12:00:00' /tmp/2045");
        assert_eq!(guest.ok(&format!("{path} self-test --time-of /tmp/2045")), "2379931200", "{machine}");
    }
}

#[test]
fn the_demo_of_make_run_runs_on_a_board() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut boot = Boot::virt()
        .file(executable("aarch64"), "/bin/multusd")
        .file(root.join("demo/multusd.cfg"), "/demo/multusd.cfg")
        .file(root.join("tests/qemu/guest/first-demo"), "/first");
    for program in std::fs::read_dir(root.join("demo/programs")).expect("the demo's programs") {
        let path = program.expect("a program").path();
        boot = boot.file(&path, &format!("/demo/programs/{}", path.file_name().unwrap().to_string_lossy()));
    }
    let mut guest = Guest::booted("demo", &boot);
    guest.ok("ln -s multusd /bin/multusctl");

    // The machine may be there before multusd is.
    await_in(&mut guest, "[ -S /run/multusd/control ]");
    // Up: all but the two that are here to fail.
    let up = ["steady", "dependant", "deaf", "forker"];
    guest.ok_within(guest_seconds(60), &format!("{CTL} start {} --wait", up.join(" ")));
    let first = status(&mut guest);
    let uptime = seconds(&guest.ok("cut -d' ' -f1 /proc/uptime"));
    let kernel = guest.ok("dmesg | sed -n 's/^\\[ *\\([0-9.]*\\)\\] Run .*init as init.*/\\1/p'");
    let guard = guest.ok(&format!("cut -d' ' -f22 /proc/{}/stat", first.guard_pid));
    let youngest = first.programs.iter().filter(|p| up.contains(&p.name.as_str())).map(|p| p.since_ms).min();
    println!(
        "seconds since the machine's start: kernel hands over {kernel}, multusd begins {:.2}, all up {:.2} \
         (one of them waits for a task of 2 s)",
        seconds(&guard) / 100.0,
        uptime - youngest.unwrap_or_default() as f64 / 1000.0,
    );
    for (name, pid) in [("guard", first.guard_pid), ("supervisor", first.supervisor_pid)] {
        let memory = guest.ok(&format!("grep -E '^(Rss|Pss|Private_Dirty):' /proc/{pid}/smaps_rollup"));
        println!("{name}: {}", memory.split_whitespace().collect::<Vec<_>>().join(" "));
    }

    // Killed, it comes back; who needs it is taken down first and comes back after it.
    let steady = |status: &Status| status.programs.iter().find(|p| p.name == "steady").cloned().unwrap();
    let before = steady(&first).pid.expect("it runs");
    guest.ok(&format!("kill -9 {before}"));
    await_in(&mut guest, &format!("{CTL} status steady | grep -q ' running .* 1 '"));
    let again = steady(&status(&mut guest));
    assert_eq!((again.restarts, again.last_exit.and_then(|exit| exit.signal)), (1, Some(9)));
    assert!(again.pid.is_some_and(|pid| pid != before));
    await_in(&mut guest, &format!("{CTL} status dependant | grep -q running"));

    // The end, in order: who depends goes first, the deaf one is killed, nobody is left.
    guest.ok(&format!("({CTL} events >/tmp/events 2>&1 </dev/null &)"));
    // Until the listener is there: a change it must see.
    await_in(&mut guest, &format!("{CTL} restart forker --wait && [ -s /tmp/events ]"));
    guest.ok_within(guest_seconds(60), &format!("{CTL} quit --wait"));
    await_in(&mut guest, &format!("[ ! -e /proc/{} ]", first.guard_pid));
    let events = guest.ok("cat /tmp/events");
    let at = |what: &str| {
        let line = events
            .lines()
            .rfind(|line| line.contains(what))
            .unwrap_or_else(|| panic!("no {what:?}: {events}"));
        seconds(line.trim_start_matches('[').split(']').next().unwrap_or_default())
    };
    // Told to stop when the other is down, and not when everybody was told.
    assert!(at("steady: running -> stopping") >= at("dependant: stopping -> stopped"), "{events}");
    assert!(at("steady: running -> stopping") > at("deaf: running -> stopping"), "{events}");
    assert!(events.contains("deaf: stopping -> stopped: stopped by SIGKILL"), "{events}");
    assert_eq!(
        guest.order("ps | grep -v grep | grep /demo/programs").map(|reply| reply.text()),
        Ok(String::new())
    );
}

fn seconds(text: &str) -> f64 {
    text.trim().parse().unwrap_or_else(|_| panic!("not a number: {text:?}"))
}

#[test]
fn a_program_that_takes_more_memory_than_it_may_is_killed_and_restarted() {
    let mut guest = equipped("memory-max");
    let config = "[program:glutton]\ncommand = /bin/sh /glutton\nstartsecs = 0\nmemory_max = 8MB\n\
                  [program:frugal]\ncommand = sleep 100000\nstartsecs = 0\n";
    // Its own memory, not a file's, and far more of it than it may have.
    let glutton = "[ -e /tmp/fed ] && exec sleep 100000\n: >/tmp/fed\nx=$(head -c 40000000 /dev/zero | tr '\\0' x)\n: $x\n";
    guest.put_bytes(glutton.as_bytes(), 0o755, "/glutton");
    supervise(&mut guest, config, "frugal");
    await_in(&mut guest, &format!("{CTL} status glutton | grep -q ' running .* 1 '"));
    let status = status(&mut guest);
    let [glutton, frugal] =
        ["glutton", "frugal"].map(|name| status.programs.iter().find(|p| p.name == name).unwrap());
    assert!(glutton.failures >= 1 || glutton.restarts == 1, "{glutton:?}");
    assert_eq!(frugal.restarts, 0);
    assert!(
        guest.ok("dmesg").contains("Memory cgroup out of memory"),
        "by its control group, not by the machine"
    );
}

#[test]
fn a_program_that_makes_more_processes_than_it_may_cannot() {
    let mut guest = equipped("pids-max");
    let config = "[program:rabbit]\ncommand = /bin/sh /rabbit\nstartsecs = 0\npids_max = 10\n";
    // The shell that may not fork ends; the program goes on, and is not restarted with all it made.
    guest.put_bytes(
        b"(while :; do sleep 100000 & done) 2>/tmp/rabbit\nexec sleep 200000\n",
        0o755,
        "/rabbit",
    );
    supervise(&mut guest, config, "rabbit");
    await_in(&mut guest, "grep -q 'fork' /tmp/rabbit");
    let count = guest.ok("ps | grep -c '[s]leep 100000'");
    assert!(count.parse::<u32>().is_ok_and(|count| (1..10).contains(&count)), "{count}");
    guest.ok(&format!("{CTL} stop rabbit --wait"));
    assert_eq!(guest.order("ps | grep '[s]leep 100000'").map(|reply| reply.text()), Ok(String::new()));
}
