//! Rows: inputs, outputs, watchdogs, temperature, and how a program's health is watched.

use super::assemble::Draft;
use super::board::{Bias, Drive, Line};
use super::keys::Kind::{Choice, Command, Duration, Names, Number, Other, Path, Word};
use super::keys::{CHECK, CHECKS, DEGREES, Key, LINE, key};
use super::target::CheckTarget;
use super::value::{self, Wrong};
use super::words;
use crate::limits::CHECK_WINDOW_MAX;

pub(super) static HEALTH: &[Key] = &[
    key!("heartbeat", Duration(10, |d, v| d.heartbeat = Some(v)), "(not judged)", "500ms",
        "The longest silence of a program that is ready. One that is silent for longer hangs: its outputs are made safe at once, it is killed and started again.").restart(),
    key!("heartbeat_kind", Choice(&["notify", "fd", "counter", "file", "tcp"], |d, v| d.heartbeat_kind = Some(v)), "(notify, file with heartbeat_file, tcp with heartbeat_port)", "counter",
        "How it beats: notify (WATCHDOG=1 on NOTIFY_SOCKET), fd (a byte on the descriptor that MULTUSD_HEARTBEAT names), counter (the time in shared memory, without a system call), file (any change of heartbeat_file), tcp (counting bytes 1 to 9 on a connection to heartbeat_port).").restart(),
    key!("heartbeat_file", Path(|d, v| d.heartbeat_file = Some(v)), "(none)", "/run/pump.beat",
        "File whose every change is a beat. Its time stamp is never compared with a clock.").restart(),
    key!("heartbeat_port", Number(1, 65535, |d, v| d.heartbeat_port = Some(v as u16)), "(none)", "43100",
        "Port on 127.0.0.1 to which the program connects, and on which it sends the bytes 1 to 9, then 1 again.").restart(),
    key!("check", Other(CHECK, check), "(none)", "/usr/bin/pump --ping or http://127.0.0.1:8080/health",
        "Asks a program that is ready for its health, again and again: a command that succeeds, or tcp:HOST:PORT, unix:PATH or http://HOST[:PORT]/PATH. A command runs as the program's user; the last line it prints is kept as the reason."),
    key!("check_interval", Duration(10, |d, v| d.check_interval = v), "10s", "2s",
        "Pause between two checks.").web(),
    key!("check_timeout", Duration(10, |d, v| d.check_timeout = v), "5s", "1s",
        "A check that takes longer has failed.").web(),
    key!("check_failures", Other(CHECKS, check_failures), "3", "3 or 3 of 5",
        "Failed checks that make the program a failed one: so many in a row, or among the last so many.").web(),
    key!("outputs", Names(|d, v| d.outputs = v), "(none)", "pump-relay, lamp",
        "Outputs that the program owns. They are safe whenever it is not ready or not to be trusted. An output has one owner.").restart(),
    key!("inputs", Names(|d, v| d.inputs = v), "(none)", "float-switch",
        "Inputs that the program reads, from the page of memory that MULTUSD_INPUTS names.").restart(),
];

pub(super) static INPUT: &[Key] = &[
    key!(
        "gpio",
        Other(LINE, |d, v| {
            d.input.line = Some(line(v)?);
            Ok(())
        }),
        "(required)",
        "17 or pinctrl-bcm2835:17",
        "The line: its number on the 40-pin header (that of the Broadcom chip), or LABEL:NUMBER of another chip, or its own name."
    ),
    key!(
        "active",
        Choice(&["low", "high"], |d, v| d.input.active_low = v == 0),
        "high",
        "low",
        "The voltage that means on."
    )
    .web(),
    key!(
        "bias",
        Choice(&["as-is", "disabled", "pull-up", "pull-down"], |d, v| d.input.bias =
            [Bias::AsIs, Bias::Disabled, Bias::PullUp, Bias::PullDown][v]),
        "as-is",
        "pull-up",
        "Resistor on the chip."
    )
    .web(),
    key!(
        "debounce",
        Duration(0, |d, v| d.input.debounce = v),
        "0ms",
        "10ms",
        "Changes that do not last as long are no changes."
    )
    .web(),
];

pub(super) static OUTPUT: &[Key] = &[
    key!(
        "gpio",
        Other(LINE, |d, v| {
            d.output_line = Some(line(v)?);
            Ok(())
        }),
        "(none)",
        "17 or pinctrl-bcm2835:17",
        "The line: its number on the 40-pin header (that of the Broadcom chip), or LABEL:NUMBER of another chip, or its own name. An output is exactly one of gpio, path and command."
    ),
    key!(
        "path",
        Path(|d, v| d.output_path = Some(v)),
        "(none)",
        "/sys/class/leds/ACT/brightness",
        "File that is written, for example of an LED or a PWM."
    ),
    key!(
        "command",
        Command(|d, v| d.output_command = v),
        "(none)",
        "/usr/bin/usbrelay-set 1",
        "Command that sets it; its last argument is high or low, and its success is the confirmation."
    ),
    key!("write_high", Word(|d, v| d.write_high = v), "1", "255", "What is written to the path for high."),
    key!("write_low", Word(|d, v| d.write_low = v), "0", "0", "What is written to the path for low."),
    key!(
        "active",
        Choice(&["low", "high"], |d, v| d.output_active_low = v == 0),
        "high",
        "low",
        "The voltage that means on."
    ),
    key!(
        "drive",
        Choice(&["push-pull", "open-drain", "open-source"], |d, v| d.drive =
            [Drive::PushPull, Drive::OpenDrain, Drive::OpenSource][v]),
        "push-pull",
        "open-drain",
        "How the line is driven."
    ),
    key!(
        "safe",
        Choice(&LEVELS, |d, v| d.levels[0] = Some(v)),
        "low",
        "off",
        "The level that does no harm: high and low are voltages, on and off depend on active. Set after a crash, a hang, a failed check, a stop, a pause and while waiting."
    ),
    key!(
        "boot",
        Choice(&LEVELS, |d, v| d.levels[1] = Some(v)),
        "(the safe level)",
        "high",
        "The level from the start of multusd until its owner's first start."
    ),
    key!(
        "running",
        Choice(&LEVELS, |d, v| d.levels[2] = Some(v)),
        "(left to the program)",
        "on",
        "The level that is set once when its owner is ready."
    ),
    key!(
        "limit",
        Duration(10, |d, v| d.limit = v),
        "1s",
        "200ms",
        "How long it may be unconfirmed after something went wrong. Then no watchdog is fed any more, and the board is reset."
    ),
    key!(
        "timeout",
        Duration(10, |d, v| d.output_timeout = v),
        "500ms",
        "2s",
        "How long one attempt may take where it can take time: a path, a command, a line behind a bus."
    ),
];

pub(super) static WATCHDOG: &[Key] = &[
    key!(
        "device",
        Path(|d, v| d.device = Some(v)),
        "(/dev/watchdog)",
        "/dev/watchdog1",
        "The watchdog's device. Without a [watchdog] section none is ever opened."
    ),
    key!(
        "gpio",
        Other(LINE, |d, v| {
            d.feed = Some(line(v)?);
            Ok(())
        }),
        "(none)",
        "12",
        "Line that is pulsed to feed a watchdog outside, in place of a device."
    ),
    key!(
        "enable",
        Other(LINE, |d, v| {
            d.enable = Some(line(v)?);
            Ok(())
        }),
        "(none)",
        "13",
        "Line that is high while the watchdog outside is to watch."
    ),
    key!("pulse", Duration(1, |d, v| d.pulse = v), "10ms", "1ms", "Length of a pulse."),
    key!(
        "timeout",
        Duration(20, |d, v| d.watchdog_timeout = v),
        "10s",
        "15s",
        "Without a feed for this long the board is reset. What the driver cannot do is changed to what it can, and said."
    ),
    key!(
        "pretimeout",
        Duration(1000, |d, v| d.pretimeout = Some(v)),
        "(none)",
        "2s",
        "So long before the reset the kernel is told, where the driver can."
    ),
];

pub(super) static TEMPERATURE: &[Key] = &[
    key!(
        "path",
        Path(|d, v| d.temperature.path = v),
        "/sys/class/thermal/thermal_zone0/temp",
        "/sys/class/hwmon/hwmon0/temp1_input",
        "File with the temperature in thousandths of a degree Celsius."
    ),
    key!(
        "min",
        Other(DEGREES, |d, v| {
            d.temperature.min = degrees(v)?;
            Ok(())
        }),
        "-40",
        "0",
        "Below this all programs are stopped, in order, and outputs are safe."
    ),
    key!(
        "max",
        Other(DEGREES, |d, v| {
            d.temperature.max = degrees(v)?;
            Ok(())
        }),
        "80",
        "75.5",
        "Above this all programs are stopped, in order, and outputs are safe."
    ),
    key!(
        "hysteresis",
        Other(DEGREES, |d, v| {
            d.temperature.hysteresis = degrees(v)?;
            Ok(())
        }),
        "5",
        "2.5",
        "So far below max it must fall before they start again."
    ),
    key!("interval", Duration(100, |d, v| d.temperature.interval = v), "1s", "5s", "Between two readings."),
    key!(
        "unreadable",
        Choice(&["hot", "ignore"], |d, v| d.temperature.unreadable_is_hot = v == 0),
        "hot",
        "ignore",
        "What a temperature that cannot be read means."
    ),
];

/// By index: voltages, then words that depend on `active`.
pub(super) const LEVELS: [&str; 4] = ["low", "high", "off", "on"];

fn line(text: &str) -> Result<Line, Wrong> {
    let number = |text: &str| value::number(text, 0, 65535).map(|number| number as u32);
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        // The header of every Raspberry Pi so far has the lines 0 to 27; the chips have up to 57.
        return Ok(Line::Header(number(text).ok().filter(|number| *number < 58).ok_or(Wrong::Range)?));
    }
    if text.chars().any(char::is_control) {
        return Err(Wrong::Kind);
    }
    match text.rsplit_once(':') {
        Some((chip, offset)) if !chip.is_empty() => {
            Ok(Line::Offset { chip: chip.into(), offset: number(offset)? })
        }
        Some(_) => Err(Wrong::Kind),
        None => Ok(Line::Name(text.into())),
    }
}

/// Degrees Celsius with up to three decimals, in thousandths.
fn degrees(text: &str) -> Result<i32, Wrong> {
    let degrees = value::thousandths(text).ok_or(Wrong::Kind)?;
    if degrees.unsigned_abs() < 1_000_000 { Ok(degrees as i32) } else { Err(Wrong::Range) }
}

fn check(draft: &mut Draft, text: &str) -> Result<(), Wrong> {
    draft.check = words::command(text)?;
    match draft.check.first().and_then(|word| CheckTarget::read(word)) {
        Some(Err(fault)) => Err(Wrong::Say(fault.into())),
        Some(Ok(_)) if draft.check.len() > 1 => Err(Wrong::Say("is a target and takes no arguments".into())),
        _ => Ok(()),
    }
}

fn check_failures(draft: &mut Draft, text: &str) -> Result<(), Wrong> {
    let count = |text: &str| value::number(text.trim(), 1, i64::from(CHECK_WINDOW_MAX)).map(|n| n as u8);
    let (failures, of) = match words::find(text, " of ") {
        Some(at) => (count(&text[..at])?, count(&text[at + 4..])?),
        None => (count(text)?, count(text)?),
    };
    draft.check_failures = (failures <= of).then_some((failures, of)).ok_or(Wrong::Range)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_numbers_chips_with_numbers_or_names() {
        assert_eq!(line("17"), Ok(Line::Header(17)));
        assert_eq!(line("9030000.pl061:4"), Ok(Line::Offset { chip: "9030000.pl061".into(), offset: 4 }));
        assert_eq!(line("GPIO17"), Ok(Line::Name("GPIO17".into())));
        assert_eq!(line("58"), Err(Wrong::Range));
        for wrong in [":4", "chip:", "chip:x"] {
            assert_eq!(line(wrong), Err(Wrong::Kind), "{wrong}");
        }
    }

    #[test]
    fn degrees_have_up_to_three_decimals() {
        for (text, expected) in [("80", 80_000), ("75.5", 75_500), ("-0.25", -250), ("74.999", 74_999)] {
            assert_eq!(degrees(text), Ok(expected));
        }
        for wrong in ["", "-", "1.", ".5", "1.0001", "hot", "8 0"] {
            assert_eq!(degrees(wrong), Err(Wrong::Kind), "{wrong}");
        }
    }

    #[test]
    fn failures_are_so_many_in_a_row_or_among_the_last() {
        let mut draft = Draft::default();
        for (text, expected) in [("3", (3, 3)), ("3 of 5", (3, 5)), ("1 of 32", (1, 32))] {
            assert_eq!(check_failures(&mut draft, text), Ok(()));
            assert_eq!(draft.check_failures, expected);
        }
        for wrong in ["0", "5 of 3", "1 of 33"] {
            assert_eq!(check_failures(&mut draft, wrong), Err(Wrong::Range), "{wrong}");
        }
        assert_eq!(check_failures(&mut draft, "few"), Err(Wrong::Kind));
    }
}
