//! Lines of a real GPIO chip (the PL061 of `virt`, observed from outside the guest): what a program may do to a
//! line it was handed, what becomes of that, and what nobody else may do.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::boot::Boot;
use super::guest::{Guest, guest_seconds};
use super::shipped::{CTL, await_in, equipped, equipped_from, supervise};

/// The line of the output; from outside, line 5 of the PL061.
const RELAY: &str = "[output:relay]\ngpio = 9030000.pl061:5\n";

/// A program of `guest/` for the guest.
fn compiled(name: &str) -> PathBuf {
    let source = format!("{}/tests/qemu/guest/{name}.c", env!("CARGO_MANIFEST_DIR"));
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
    let status = Command::new("aarch64-linux-gnu-gcc")
        .args([
            "-O1",
            "-Wall",
            "-Wextra",
            "-Werror",
            "-ffreestanding",
            "-fno-stack-protector",
            "-nostdlib",
            "-static",
        ])
        // The kernel's own description of its interface, where this machine has it.
        .args(["-idirafter", "/usr/include", "-idirafter", "/usr/include/x86_64-linux-gnu"])
        .args(["-idirafter", "/usr/include/aarch64-linux-gnu", "-o"])
        .arg(&program)
        .arg(source)
        .status();
    assert!(status.is_ok_and(|status| status.success()), "gcc-aarch64-linux-gnu is needed");
    program
}

fn with_owner(name: &str) -> Guest {
    with_owner_in(equipped(name))
}

pub fn with_owner_in(mut guest: Guest) -> Guest {
    put_compiled(&mut guest, "owner");
    guest
}

/// Puts `guest/NAME.c` at `/bin/NAME`.
pub fn put_compiled(guest: &mut Guest, name: &str) {
    let program = compiled(name);
    guest.put(&program, &format!("/bin/{name}"));
    std::fs::remove_file(program).expect("the compiled program");
}

fn program(what: &str) -> String {
    format!(
        "[program:pump]\ncommand = /bin/owner {what}\nstartsecs = 0\nautorestart = false\noutputs = relay\n"
    )
}

fn await_relay(guest: &mut Guest, condition: &str) {
    await_in(guest, &format!("{CTL} outputs --json | grep -q '{condition}'"));
}

#[test]
fn the_line_a_program_inherits_works_and_is_nobody_elses() {
    let mut guest = with_owner("outputs-inherited");
    supervise(&mut guest, &(format!("{RELAY}safe = low\n") + &program("high")), "pump");
    guest.await_line(5, true, guest_seconds(30));
    await_relay(&mut guest, r#""level":"high".*"state":"driven""#);
    // EBUSY, while its owner lives and when it is dead.
    assert_eq!(guest.order("owner request 5").map(|reply| reply.code), Ok(16));
    guest.ok("kill -9 $(pidof owner)");
    guest.await_line(5, false, guest_seconds(30));
    await_relay(&mut guest, r#""state":"safe","safe":true"#);
    assert_eq!(guest.order("owner request 5").map(|reply| reply.code), Ok(16));
    // A successor moves nothing and has it all the same.
    guest.ok(&format!("{CTL} outputs set relay high"));
    guest.ok("kill -9 $(pidof multusd | tr ' ' '\\n' | while read p; do grep -q superv /proc/$p/comm && echo $p; done)");
    await_in(&mut guest, &format!("{CTL} status | grep -q 'supervisor replaced once'"));
    assert!(guest.line(5));
    assert_eq!(guest.order("owner request 5").map(|reply| reply.code), Ok(16));
    guest.ok(&format!("{CTL} start pump --wait; {CTL} stop pump --wait"));
    assert!(!guest.line(5));
}

#[test]
fn whatever_an_owner_does_to_its_line_it_is_forced_and_confirmed_when_all_of_it_is_dead() {
    let mut guest = with_owner("outputs-evil");
    let config = |what: &str, safe: &str| format!("{RELAY}safe = {safe}\n{}", program(what));
    supervise(&mut guest, &config("high", "low"), "pump");
    for what in ["input", "flip", "writes", "descendants"] {
        // Against what the line would read if nothing were done.
        for (safe, is_high) in [("high", true), ("low", false)] {
            guest.put_bytes(config(what, safe).as_bytes(), 0o644, "/etc/multusd.cfg");
            guest.ok(&format!("{CTL} reload; {CTL} start pump --wait"));
            await_in(
                &mut guest,
                &format!(
                    "grep -q '{what}' /proc/$(pidof owner | tr ' ' '\\n' | sort -n | head -n 1)/cmdline"
                ),
            );
            // The first of them: what it left behind is found and killed.
            guest.ok("kill -9 $(pidof owner | tr ' ' '\\n' | sort -n | head -n 1)");
            await_relay(&mut guest, r#""state":"safe","safe":true"#);
            assert_eq!(guest.order("pidof owner").map(|reply| reply.code), Ok(1), "{what}: somebody lives");
            assert_eq!(guest.line(5), is_high, "{what}, safe = {safe}");
        }
    }
}

#[test]
fn a_line_that_somebody_else_has_holds_its_program_and_the_feed_and_is_taken_when_it_is_free() {
    let mut guest = with_owner("outputs-busy");
    guest.ok("(owner take 5 >/dev/null 2>&1 </dev/null &) ; until pidof owner; do sleep 0.05; done");
    await_in(&mut guest, "! owner request 5");
    guest.put_bytes(
        format!("[watchdog]\ntimeout = 300s\n{RELAY}safe = low\nboot = high\n{}", program("high")).as_bytes(),
        0o644,
        "/etc/multusd.cfg",
    );
    guest.ok("(multusd --run-dir /run/multusd >/tmp/multusd.log 2>&1 </dev/null &)");
    await_relay(&mut guest, r#""state":"unconfirmed".*busy"#);
    let not_fed = format!("{CTL} watchdog | grep -q 'NOT FED: outputs of pump are not confirmed safe'");
    await_in(&mut guest, &not_fed);
    assert!(guest.ok("cat /tmp/multusd.log").contains("output relay: NOT CONFIRMED"));
    assert!(guest.ok(&format!("{CTL} status pump; true")).contains("output relay"));
    guest.ok("kill -9 $(pidof owner)");
    await_in(&mut guest, &format!("{CTL} status pump"));
    guest.await_line(5, true, guest_seconds(30));
    await_in(&mut guest, &format!("! {not_fed}"));
}

#[test]
fn edges_of_an_input_are_counted_and_published_also_beyond_a_supervisor() {
    counts_edges(equipped("inputs"));
}

#[test]
fn a_32_bit_multusd_drives_an_output_and_counts_the_edges_of_an_input() {
    let mut guest = equipped_from("lines-32", &Boot::virt(), "armv7");
    let config = format!(
        "{RELAY}safe = low\nrunning = high\n[program:pump]\ncommand = sleep 100000\nstartsecs = 0\noutputs = relay\n"
    );
    supervise(&mut guest, &config, "pump");
    assert!(guest.line(5));
    guest.ok(&format!("{CTL} stop pump --wait"));
    assert!(!guest.line(5));
    guest.ok(&format!("{CTL} quit --wait; until ! pidof multusd; do sleep 0.05; done"));
    counts_edges(guest);
}

fn counts_edges(mut guest: Guest) {
    // Its first record: level, edges.
    let reader = "#!/bin/sh\nwhile :; do dd if=/proc/self/fd/$MULTUSD_INPUTS bs=1 skip=68 count=12 2>/dev/null | hexdump -v -e '3/4 \"%u \"' >/tmp/now; mv /tmp/now /tmp/read; sleep 0.05; done\n";
    guest.put_bytes(reader.as_bytes(), 0o755, "/reader");
    guest.set_line(2, false);
    let config = "[input:float]\ngpio = 9030000.pl061:2\nactive = low\n[program:reader]\ncommand = /reader\nstartsecs = 0\ninputs = float\n";
    supervise(&mut guest, config, "reader");
    // Read, low, on.
    await_in(&mut guest, "grep -q '^5 0 0' /tmp/read");
    for (level, read) in [(true, "3 1 0"), (false, "5 2 0"), (true, "3 3 0")] {
        guest.set_line(2, level);
        await_in(&mut guest, &format!("grep -q '^{read}' /tmp/read"));
    }
    let table = guest.ok(&format!("{CTL} inputs"));
    assert!(table.contains("high (off)") && table.contains(" 3 "), "{table}");
    guest.ok("kill -9 $(pidof multusd | tr ' ' '\\n' | while read p; do grep -q superv /proc/$p/comm && echo $p; done)");
    await_in(&mut guest, &format!("{CTL} status | grep -q 'supervisor replaced once'"));
    guest.set_line(2, false);
    await_in(&mut guest, "grep -q '^5 4 0' /tmp/read");
    assert!(guest.order("owner request 2").is_ok_and(|reply| reply.code != 0));
}

#[test]
fn chips_that_may_wait_have_a_helper_and_a_label_that_two_have_is_refused_with_both() {
    let mut guest = equipped("outputs-slow");
    let chip = guest.sim_chip("slow", 8);
    let config = "[output:relay]\ngpio = slow:3\nsafe = high\n[program:pump]\ncommand = sleep 100000\nstartsecs = 0\nrunning = low\noutputs = relay\n";
    let config = config
        .replace("startsecs = 0\nrunning = low\n", "startsecs = 0\n")
        .replace("safe = high\n", "safe = high\nrunning = low\n");
    supervise(&mut guest, &config, "pump");
    await_in(&mut guest, "ps | grep -q '[m]ultusd-output' || grep -q multusd-output /proc/*/comm");
    await_relay(&mut guest, r#""state":"driven""#);
    assert!(!guest.sim_line(&chip, 3));
    guest.ok(&format!("{CTL} stop pump --wait"));
    assert!(guest.sim_line(&chip, 3));
    for name in ["twin-a", "twin-b"] {
        guest.ok(&format!(
            "cd /sys/kernel/config/gpio-sim && mkdir -p {name}/bank && cd {name} && echo 4 >bank/num_lines && echo twin >bank/label && echo 1 >live"
        ));
    }
    guest.put_bytes(config.replace("slow:3", "twin:1").as_bytes(), 0o644, "/etc/multusd.cfg");
    let reply = guest.order(&format!("{CTL} reload 2>&1")).expect("a reply");
    let words = reply.text();
    assert!(reply.code == 1 && words.matches("twin:1 (gpiochip").count() == 2, "{words}");
}

#[test]
fn that_lines_keep_their_level_after_everybody_is_said_where_the_driver_is_told_so() {
    let mut guest = equipped("outputs-persist");
    // As on a Raspberry Pi.
    let parameters = "/sys/module/pinctrl_bcm2835/parameters";
    guest.ok(&format!(
        "mount -t tmpfs tmpfs /sys/module; mkdir -p {parameters}; echo Y >{parameters}/persist_gpio_outputs"
    ));
    let config = format!("{RELAY}[program:pump]\ncommand = sleep 100000\nstartsecs = 0\noutputs = relay\n");
    supervise(&mut guest, &config, "pump");
    let said = "GPIO lines keep their last level when nobody holds them any more (persist_gpio_outputs)";
    guest.ok(&format!("{CTL} status | grep '{said}'; grep '{said}' /tmp/multusd.log"));
    guest.ok(&format!(
        "echo N >{parameters}/persist_gpio_outputs; {CTL} reload; ! {CTL} status | grep '{said}'"
    ));
}

#[test]
fn two_names_of_one_line_are_refused_with_the_other_one() {
    let mut guest = equipped("outputs-names");
    guest.sim_chip("other", 1);
    guest.ok(
        "cd /sys/kernel/config/gpio-sim && mkdir -p bank/bank/line3 && cd bank && echo 8 >bank/num_lines &&\n\
         echo bank >bank/label && printf valve >bank/line3/name && echo 1 >live",
    );
    let one = "[output:relay]\ngpio = bank:3\n[program:pump]\ncommand = sleep 100000\nstartsecs = 0\n";
    supervise(&mut guest, one, "pump");
    for other in ["[output:tap]\ngpio = valve\n", "[input:tap]\ngpio = valve\n"] {
        guest.put_bytes(format!("{one}{other}").as_bytes(), 0o644, "/etc/multusd.cfg");
        let reply = guest.order(&format!("{CTL} reload 2>&1")).expect("a reply");
        let words = reply.text();
        let said = "tap]: gpio: this is the line of [output:relay] by another name";
        assert!(reply.code == 1 && words.contains(said), "{words}");
    }
    guest.ok(&format!("{CTL} status pump"));
}
