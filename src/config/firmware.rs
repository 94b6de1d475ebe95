//! Outputs before multusd: what a Raspberry Pi's firmware is told of their lines (`gpio=` in config.txt), and what they
//! are before that, by the chip.

use super::board::{Board, Drive, Level, Line, Output, Target};

/// What the file begins with.
const HEADER: &str = "# Levels of outputs until multusd takes them. Written by `multusd system` from multusd.cfg at every boot.\n";

/// The line of the header that an output is.
fn header_line(output: &Output) -> Option<u32> {
    match output.target {
        Target::Gpio(Line::Header(number)) => Some(number),
        _ => None,
    }
}

/// The file for config.txt to include; empty where no output is a line of the header.
pub fn firmware_lines(board: &Board) -> String {
    let mut text = String::new();
    for output in &board.outputs {
        let Some(number) = header_line(output) else { continue };
        let state = match (output.drive, output.safe) {
            (Drive::PushPull | Drive::OpenDrain, Level::Low) => "=op,dl\n",
            (Drive::PushPull | Drive::OpenSource, Level::High) => "=op,dh\n",
            // Not driven.
            (Drive::OpenDrain, Level::High) | (Drive::OpenSource, Level::Low) => "=ip\n",
        };
        text += if text.is_empty() { HEADER } else { "" };
        text += &["gpio=", &number.to_string(), state].concat();
    }
    text
}

/// What is to be known of an output whose line is pulled to the level that is not safe from power-on (BCM2835 ARM
/// Peripherals, table 6-31: 0 to 8 high, 9 to 27 low; so it is on all later models).
pub(super) fn contradiction(output: &Output) -> Option<String> {
    let number = header_line(output).filter(|number| *number <= 27)?;
    let (pulled, level) = if number <= 8 { ("high", Level::High) } else { ("low", Level::Low) };
    let words = [
        "GPIO ",
        &number.to_string(),
        " is pulled ",
        pulled,
        " from power-on until the firmware sets it, which is not safe: an external resistor is needed",
    ];
    (output.safe != level).then(|| words.concat())
}

#[cfg(test)]
mod tests {
    use crate::config::load_text;

    fn told(keys: &str) -> (String, Vec<String>) {
        let loaded = load_text(&format!("[output:a]\n{keys}\n")).unwrap();
        let warnings = loaded.warnings.iter().map(|warning| warning.to_string());
        let of_lines = warnings.filter(|warning| warning.contains(": GPIO ")).collect();
        (super::firmware_lines(&loaded.config.board), of_lines)
    }

    #[test]
    fn the_firmware_sets_each_line_to_its_safe_voltage_as_it_is_driven() {
        for (keys, line) in [
            ("gpio = 17", "gpio=17=op,dl\n"),
            ("gpio = 17\nsafe = high", "gpio=17=op,dh\n"),
            ("gpio = 17\nsafe = off\nactive = low", "gpio=17=op,dh\n"),
            ("gpio = 17\nsafe = on\nactive = low", "gpio=17=op,dl\n"),
            ("gpio = 17\nsafe = low\nactive = low", "gpio=17=op,dl\n"),
            ("gpio = 4\ndrive = open-drain", "gpio=4=op,dl\n"),
            ("gpio = 4\ndrive = open-drain\nsafe = high", "gpio=4=ip\n"),
            ("gpio = 27\ndrive = open-source", "gpio=27=ip\n"),
            ("gpio = 27\ndrive = open-source\nsafe = high", "gpio=27=op,dh\n"),
        ] {
            assert_eq!(told(keys).0, [super::HEADER, line].concat(), "{keys}");
        }
        for keys in ["gpio = pinctrl-bcm2835:17", "gpio = LED", "path = /x", "command = /x"] {
            assert_eq!(told(keys).0, "", "{keys}");
        }
        let all =
            load_text("[output:a]\ngpio = 17\n[output:b]\npath = /x\n[output:c]\ngpio = 22\nsafe = high\n");
        let lines = super::firmware_lines(&all.unwrap().config.board);
        assert_eq!(lines, [super::HEADER, "gpio=17=op,dl\ngpio=22=op,dh\n"].concat());
        assert!(lines.lines().all(|line| line.len() <= 98 + 8), "the firmware reads no longer lines");
    }

    #[test]
    fn a_line_that_is_pulled_to_what_is_not_safe_is_warned_of() {
        for number in 0..=27 {
            let (pulled, other) = if number <= 8 { ("high", "low") } else { ("low", "high") };
            let keys = |safe: &str| format!("gpio = {number}\nsafe = {safe}");
            assert_eq!(told(&keys(pulled)).1, Vec::<String>::new());
            let warning = format!(
                "text:2: GPIO {number} is pulled {pulled} from power-on until the firmware sets it, which is not safe: \
                 an external resistor is needed"
            );
            assert_eq!(told(&keys(other)).1, [warning]);
        }
        for keys in ["gpio = 28\nsafe = high", "gpio = pinctrl-rp1:4", "gpio = LED", "path = /x"] {
            assert_eq!(told(keys).1, Vec::<String>::new(), "{keys}");
        }
    }
}
