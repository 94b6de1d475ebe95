//! `[io:NAME]` with chips behind a real I2C bus of the kernel's: its i2c-stub, which answers SMBus as chips with registers do.

use super::boot::Boot;
use super::guest::{Guest, guest_seconds};
use super::shipped::{CTL, await_in, equipped_from, supervise};

/// A bus with chips of registers at these addresses, open to the group that the sections name.
fn with_chips(name: &str, machine: &str) -> Guest {
    let mut guest = equipped_from(name, &Boot::virt(), machine);
    let module = guest.gpio_sim_module().with_file_name("i2c-stub.ko");
    guest.put(module, "/modules/i2c-stub.ko");
    guest.ok("insmod /modules/i2c-dev.ko && insmod /modules/i2c-stub.ko chip_addr=0x48,0x20");
    await_in(&mut guest, "[ -c /dev/i2c-0 ]");
    guest.ok("chgrp nogroup /dev/i2c-0 && chmod 660 /dev/i2c-0");
    guest
}

const OUTSIDE: &str = "[io:outside]\nchip = lm75\nbus = 0\ngroup = nogroup\nevery = 100ms\n";
const LINES: &str = "[io:lines]\nchip = pcf8574\nbus = 0\ngroup = nogroup\nevery = 100ms\nrestart_delay = 1h\nrestart_delay_max = 1h\n\
    ch0 = door\nch1 = lamp from=light safe=0\n";
const GONE: &str = "[io:gone]\nchip = lm75\nbus = 0\naddress = 0x4f\ngroup = nogroup\nevery = 100ms\n";

fn await_value(guest: &mut Guest, name: &str, value: &str) {
    await_in(guest, &format!("{CTL} values | grep -q '^{name} *{value} '"));
}

fn pid(guest: &mut Guest, program: &str) -> String {
    guest.ok(&format!("{CTL} status {program} --json | sed -n 's/.*\"pid\":\\([0-9][0-9]*\\),.*/\\1/p'"))
}

/// Chips, and who follows them.
fn measured_and_set(guest: &mut Guest) {
    // The bytes of SMBus' words change places: the chip has the high one first.
    guest.ok("i2cset -y 0 0x48 0 0x0019 w");
    // A byte that is sent is what the stub's register is read of next: one for each level of the lamp, and in it the door.
    guest.ok("i2cset -y 0 0x20 0xfd 0x5a b && i2cset -y 0 0x20 0xff 0xa5 b");
    supervise(guest, &format!("{OUTSIDE}{LINES}{GONE}"), "io-outside io-lines io-gone");
    for (register, degrees) in [
        ("0x0019", "25"),
        ("0x007d", "125"),
        ("0x8000", "0.5"),
        ("0x0000", "0"),
        ("0x80ff", "-0.5"),
        ("0x00e7", "-25"),
        ("0x00c9", "-55"),
    ] {
        guest.ok(&format!("i2cset -y 0 0x48 0 {register} w"));
        await_value(guest, "io-outside.temperature", &format!("{degrees} C"));
    }

    await_value(guest, "io-lines.lamp", "0");
    await_value(guest, "io-lines.door", "0");
    guest.ok(&format!("{CTL} publish light=1"));
    await_value(guest, "io-lines.lamp", "1");
    await_value(guest, "io-lines.door", "1");
    // Too old is safe, without anybody saying so.
    guest.ok(&format!("{CTL} publish light=1 --for 300ms"));
    await_value(guest, "io-lines.lamp", "0");
    await_value(guest, "io-lines.door", "0");

    // The executable is settled: every process has it where the guard has.
    let child = pid(guest, "io-outside");
    let places = guest.ok(&format!("for p in {child} $(pidof multusd | tr ' ' '\\n' | sort -n | head -n 1); do grep -m 1 '/memfd:multusd (' /proc/$p/maps | cut -d- -f1; done"));
    let (of_child, of_guard) = places.split_once('\n').expect("two addresses");
    assert_eq!(of_child, of_guard);

    await_value(guest, "io-gone.temperature", "unknown C");
    await_in(guest, &format!("{CTL} status io-gone | grep -q 'I2C: '"));
    let said = guest.ok("grep -c 'io-gone: I2C' /tmp/multusd.log");
    assert_eq!(said, "1", "once, though it is asked ten times a second");

    // Killed with the lamp on, and (the second time in a row) not started again: somebody else switches it off.
    guest.ok(&format!("{CTL} publish light=1"));
    let state = |guest: &mut Guest| {
        await_in(guest, &format!("{CTL} status io-lines | grep -qE 'running|backoff'"));
        guest.ok(&format!("{CTL} status io-lines || true"))
    };
    for _ in 0..20 {
        if state(guest).contains("backoff") {
            break;
        }
        await_value(guest, "io-lines.lamp", "1");
        let pid = pid(guest, "io-lines");
        // Its end may not be known yet.
        guest.ok(&format!(
            "pid={pid}; [ -z \"$pid\" ] || {{ kill -9 $pid; while [ -e /proc/$pid ]; do sleep 0.05; done; }}; true"
        ));
    }
    assert!(state(guest).contains("backoff"));
    // The byte that was sent last is 0xfd, and nobody has asked since.
    assert_eq!(guest.ok("i2cget -y 0 0x20"), "0x5a");
}

#[test]
fn an_lm75_and_a_pcf8574_are_read_and_set_over_i2c_by_rppal() {
    let mut guest = with_chips("io-rppal", "aarch64");
    measured_and_set(&mut guest);
    modest(&mut guest);
}

#[test]
fn an_lm75_and_a_pcf8574_are_read_and_set_over_i2c_with_32_bits() {
    let mut guest = with_chips("io-32", "armv7");
    measured_and_set(&mut guest);
}

/// What it takes of the machine.
fn modest(guest: &mut Guest) {
    // Three of its kind run, and share what they can; each measures ten times a second, and says so.
    guest.ok(&format!("{CTL} start io-lines --wait"));
    await_value(guest, "io-lines.lamp", "1");
    let pid_of = pid(guest, "io-outside");
    let pss = guest.ok(&format!("sed -n 's/^Pss: *\\([0-9]*\\) kB/\\1/p' /proc/{pid_of}/smaps_rollup"));
    println!("PSS {pss} kB");
    assert!(pss.parse::<u32>().is_ok_and(|kb| kb <= 150), "{pss} kB");
    let slow = OUTSIDE.replace("100ms", "1h");
    guest.put_bytes(slow.as_bytes(), 0o644, "/etc/multusd.cfg");
    guest.ok(&format!("{CTL} reload --wait"));
    await_in(guest, &format!("{CTL} status io-outside | grep -q 'running'"));
    let pid = pid(guest, "io-outside");
    let switches = format!("sed -n 's/^voluntary_ctxt_switches:[[:space:]]*//p' /proc/{pid}/status");
    let counted = guest.ok_within(guest_seconds(60), &format!("{switches}; sleep 20; {switches}"));
    let counts: Vec<u32> = counted.lines().filter_map(|line| line.parse().ok()).collect();
    println!("woken {} times in 20 s", counts[1] - counts[0]);
    // It beats every 667 ms.
    assert!(counts[1] - counts[0] <= 32, "{counts:?}");
    let status = guest.ok(&format!("cat /proc/{pid}/status"));
    assert!(status.contains("CapPrm:\t0000000000000000") && status.contains("NoNewPrivs:\t1"), "{status}");
}
