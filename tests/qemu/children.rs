//! Bundled children on lines of a chip, driven and observed from outside by `guest/lines.c`, with the guest's clock.

use super::guest::{Guest, guest_seconds};
use super::outputs::put_compiled;
use super::shipped::{CTL, await_in, equipped, supervise};

/// Milliseconds, the least first, of numbers of microseconds, one in a line.
fn sorted_ms(text: &str) -> Vec<f64> {
    let mut all: Vec<f64> =
        text.lines().map(|line| line.trim().parse::<f64>().expect("microseconds") / 1000.0).collect();
    all.sort_by(f64::total_cmp);
    all
}

/// A guest with `lines`.
fn with_lines(name: &str) -> Guest {
    let mut guest = equipped(name);
    put_compiled(&mut guest, "lines");
    guest
}

/// What a request (unit, function, data in hexadecimal) is answered with, so many bytes, the same way.
fn modbus(guest: &mut Guest, request: &str, answer: usize) -> String {
    let length = request.split(' ').count();
    let bytes: String =
        format!("0 1 0 0 0 {length:x} {request}").split(' ').map(|byte| format!("\\x{byte:0>2}")).collect();
    let shown = guest.ok(&format!(
        "printf '{bytes}' | nc 127.0.0.1 5020 -w 5 | head -c {} | hexdump -v -e '1/1 \"%x \"'",
        6 + answer
    ));
    shown.split_whitespace().skip(6).collect::<Vec<_>>().join(" ")
}

/// How often each of the lines has changed, as Modbus tells it.
fn counts(guest: &mut Guest, lines: u32) -> Vec<u64> {
    let request = format!("0 1 0 0 0 6 1 4 0 64 0 {:x}", 2 * lines);
    let bytes: String = request.split(' ').map(|byte| format!("\\x{byte:0>2}")).collect();
    let length = 9 + 4 * lines;
    let shown = guest.ok(&format!(
        "printf '{bytes}' | nc 127.0.0.1 5020 -w 5 | head -c {length} | hexdump -v -e '1/1 \"%u \"'"
    ));
    let all: Vec<u64> = shown.split_whitespace().map(|byte| byte.parse().expect("a byte")).collect();
    all[9..].chunks(4).map(|word| word.iter().fold(0, |sum, byte| sum << 8 | byte)).collect()
}

#[test]
fn pulses_of_a_millisecond_two_hundred_a_second_on_eight_lines_are_all_counted_and_bounce_is_not() {
    const PULSES: u64 = 1000;
    let mut guest = with_lines("children-pulses");
    let chip = guest.sim_chip("meters", 10);
    let inputs: String = (0..10)
        .map(|line| {
            format!(
                "[input:i{line}]\ngpio = meters:{line}\n{}",
                if line == 9 { "debounce = 20ms\n" } else { "" }
            )
        })
        .collect();
    let names: Vec<String> = (0..10).map(|line| format!("i{line}")).collect();
    let config =
        format!("[multusd]\nstate_dir = /tmp/state\n{inputs}[modbus]\ninputs = {}\n", names.join(", "));
    supervise(&mut guest, &config, "modbus");
    assert_eq!(counts(&mut guest, 10), [0; 10]);
    let pulls = |lines: std::ops::Range<u32>, guest: &Guest| {
        lines.map(|line| guest.sim_files(&chip, line)[0].clone()).collect::<Vec<_>>().join(" ")
    };
    let eight = pulls(0..8, &guest);
    guest.ok_within(guest_seconds(60), &format!("lines pulse {PULSES} 1000 4000 {eight}"));
    let expected = [2 * PULSES; 8];
    assert_eq!(counts(&mut guest, 10), [&expected[..], &[0, 0]].concat());
    // Bounces of a millisecond are none; what lasts is one pulse.
    let bouncing = pulls(8..10, &guest);
    guest.ok(&format!("lines pulse 20 1000 1000 {bouncing}; lines pulse 1 100000 1000 {bouncing}"));
    await_in(&mut guest, &format!("{CTL} inputs | grep '^i9 .* 2 '"));
    assert_eq!(counts(&mut guest, 10), [&expected[..], &[42, 2]].concat());
    // Not by the supervisor's death, nor by an ordered end and a new beginning.
    guest.ok("kill -9 $(pidof multusd | tr ' ' '\\n' | while read p; do grep -q superv /proc/$p/comm && echo $p; done)");
    await_in(&mut guest, &format!("{CTL} status | grep -q 'supervisor replaced once'"));
    guest.ok(&format!("lines pulse 1 1000 1000 {eight}"));
    guest.ok(&format!("{CTL} quit --wait; until ! pidof multusd; do sleep 0.05; done"));
    supervise(&mut guest, &config, "modbus");
    await_in(&mut guest, &format!("{CTL} inputs | grep '^i0 .* {} '", 2 * PULSES + 2));
    guest.ok(&format!("lines pulse 1 1000 1000 {eight}"));
    assert_eq!(counts(&mut guest, 10), [&[2 * PULSES + 4; 8][..], &[42, 2]].concat());
}

#[test]
fn what_is_written_by_modbus_is_at_the_line_and_what_is_at_the_line_is_read_and_silence_is_safe() {
    let mut guest = with_lines("children-modbus");
    let chip = guest.sim_chip("board", 4);
    let config = "[output:pump]\ngpio = board:0\n[output:lamp]\ngpio = board:1\nactive = low\nsafe = off\n\
        [input:float]\ngpio = board:2\n[input:door]\ngpio = board:3\nactive = low\n\
        [modbus]\ninputs = float, door\noutputs = pump, lamp\noutput_timeout = 300ms\nread_only = false\n";
    supervise(&mut guest, config, "modbus");
    for (float, door, read) in
        [(true, true, "1"), (false, true, "0"), (false, false, "2"), (true, false, "3")]
    {
        guest.pull(&chip, 2, float);
        guest.pull(&chip, 3, door);
        assert_eq!(modbus(&mut guest, "1 2 0 0 0 2", 4), format!("1 2 1 {read}"));
    }
    // Both at once, and at the line before it is answered; then nobody writes any more.
    assert!(!guest.sim_line(&chip, 0) && guest.sim_line(&chip, 1), "off");
    assert_eq!(modbus(&mut guest, "1 f 0 0 0 2 1 3", 6), "1 f 0 0 0 2");
    let [_, pump] = guest.sim_files(&chip, 0);
    await_in(&mut guest, &format!("grep -q 0 {pump}"));
    assert!(guest.sim_line(&chip, 1), "off is high where on is low");
    let late = sorted_ms(&guest.ok_within(guest_seconds(60), &format!("lines silent 21 5020 {pump}")));
    println!(
        "safe {:.1} ms (median of {}, {:.1} to {:.1}) after the last write, with 300 ms",
        late[late.len() / 2],
        late.len(),
        late[0],
        late[late.len() - 1]
    );
    assert!(late[0] >= 300.0 && late[late.len() / 2] <= 350.0, "{late:?}");
}

#[test]
fn a_lamp_on_a_line_keeps_its_pattern_to_twenty_milliseconds_and_is_safe_when_it_is_killed() {
    let mut guest = with_lines("children-lamp");
    let chip = guest.sim_chip("front", 1);
    let config = "[status-led]\ngpio = front:0\nactive = low\npattern.good = 150ms on, 250ms off\nrestart_delay = 5s\n";
    supervise(&mut guest, config, "status-led");
    let [_, lamp] = guest.sim_files(&chip, 0);
    let text = guest.ok_within(guest_seconds(60), &format!("lines watch 41 {lamp}"));
    let changes: Vec<(bool, f64)> = text
        .lines()
        .map(|line| line.split_once(' ').expect("level and time"))
        // On is low.
        .map(|(level, at)| (level == "0", at.trim().parse::<f64>().expect("microseconds") / 1000.0))
        .collect();
    let first = changes.iter().position(|(on, _)| *on).expect("it is on sometimes");
    let mut late: Vec<f64> = changes[first..]
        .iter()
        .enumerate()
        .map(|(index, (on, at))| {
            assert_eq!(*on, index % 2 == 0, "on and off take turns");
            (at - changes[first].1 - (index / 2 * 400 + index % 2 * 150) as f64).abs()
        })
        .collect();
    late.sort_by(f64::total_cmp);
    println!(
        "{} changes: median {:.1} ms off, at most {:.1} ms",
        late.len(),
        late[late.len() / 2],
        late[late.len() - 1]
    );
    assert!(late[late.len() * 9 / 10] <= 20.0, "{late:?}");
    await_in(&mut guest, &format!("grep -q 0 {lamp}"));
    guest.ok(&format!(
        "kill -9 $({CTL} status status-led --json | grep -o '\"pid\":[0-9]*' | head -n 1 | cut -d: -f2)"
    ));
    await_in(&mut guest, &format!("{CTL} outputs --json | grep -q '\"state\":\"safe\",\"safe\":true'"));
    assert!(guest.sim_line(&chip, 0), "dark");
}

#[test]
fn modbus_dido_a_lamp_and_the_recorder_see_the_same_input_at_once() {
    let mut guest = with_lines("children-together");
    let chip = guest.sim_chip("board", 3);
    let key = "0123456789abcdef".repeat(4);
    let config = format!(
        "[multusd]\nstate_dir = /tmp/state\n[input:service]\ngpio = board:0\n[output:valve]\ngpio = board:2\n\
         [modbus]\ninputs = service\n[recorder]\nrecord = input:service\n\
         [status-led]\ngpio = board:1\nupdate = service\npattern.updating = on\npattern.good = off\n\
         [dido:out]\nport = 9190\npeer = 127.0.0.1:9191 {key}\nsend = service\n\
         [dido:in]\nport = 9191\npeer = 127.0.0.1:9190 {key}\noutputs = valve\nreceive = valve from service\n"
    );
    guest.pull(&chip, 0, false);
    supervise(&mut guest, &config, "modbus recorder status-led dido-out dido-in");
    let [pull, _] = guest.sim_files(&chip, 0);
    let [_, lamp] = guest.sim_files(&chip, 1);
    let [_, valve] = guest.sim_files(&chip, 2);
    for round in 1..=5 {
        for (level, word) in [("1", "pull-up"), ("0", "pull-down")] {
            guest.ok(&format!("echo {word} >{pull}"));
            assert_eq!(modbus(&mut guest, "1 2 0 0 0 1", 4), format!("1 2 1 {level}"));
            for line in [&lamp, &valve] {
                await_in(&mut guest, &format!("grep -q {level} {line}"));
            }
            await_in(
                &mut guest,
                &format!(
                    "[ $(cat /tmp/state/programs/recorder/*.csv | grep -c ',input,service,{level},') -ge {round} ]"
                ),
            );
        }
    }
    let table = guest.ok(&format!("{CTL} status"));
    assert!(!table.contains("backoff"), "{table}");
}
