//! Replies to words: tables and sentences for people. Pure; knows no terminal but its width.

use crate::protocol::{DaemonStatus, Event, LastExit, LiveTimes, ProgramStatus, State};
use crate::time::Millis;

use super::signals;

/// Units of time, the largest first.
const UNITS: [(&str, u64); 4] = [("d", 86_400_000), ("h", 3_600_000), ("min", 60_000), ("s", 1000)];

/// A duration for a person: the two largest units that matter, tenths of a second below ten.
pub fn duration(time: Millis) -> String {
    let ms = time.0;
    if ms < 10_000 {
        return [&(ms / 1000).to_string(), ".", &(ms % 1000 / 100).to_string(), "s"].concat();
    }
    let mut text = String::new();
    let mut left = ms;
    for (unit, factor) in &UNITS {
        let count = left / factor;
        left %= factor;
        if count == 0 && text.is_empty() {
            continue;
        }
        let second = !text.is_empty();
        if count > 0 {
            text += if second { " " } else { "" };
            text += &count.to_string();
            text += unit;
        }
        if second {
            break;
        }
    }
    text
}

/// How a process ended.
pub fn last_exit(exit: LastExit) -> String {
    match (exit.code, exit.signal) {
        (_, Some(signal)) => ["killed by ", &signals::name(signal)].concat(),
        (Some(code), None) => ["exit code ", &code.to_string()].concat(),
        (None, None) => String::new(),
    }
}

/// Text that came from a program or a file, made harmless: a status text must not be able to
/// move the cursor or to colour what follows.
pub fn clean(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { '?' } else { letter }).collect()
}

/// The same for a text of several lines, which ends with a line end.
pub fn clean_lines(text: &str) -> String {
    text.lines().map(|line| clean(line) + "\n").collect()
}

/// How a text may look.
#[derive(Clone, Copy, Debug, Default)]
pub struct Look {
    /// Whether colours are understood.
    pub colour: bool,
    /// Columns; none: as wide as it gets.
    pub width: Option<usize>,
}

/// The lines about the daemon.
pub fn about(daemon: &DaemonStatus, programs: &[ProgramStatus]) -> String {
    let running = programs.iter().filter(|program| program.state == State::Running).count();
    let mut text = [
        "multusd ",
        &clean(&daemon.version),
        ", up ",
        &duration(Millis(daemon.uptime_ms)),
        ", ",
        &running.to_string(),
        " of ",
        &programs.len().to_string(),
        " programs running\n",
    ]
    .concat();
    if daemon.supervisor_restarts > 0 {
        text += &["supervisor replaced ", &times(daemon.supervisor_restarts), "\n"].concat();
    }
    if let Some(left) = daemon.shutdown_in_ms {
        text += &["shutdown in ", &duration(Millis(left)), "\n"].concat();
    }
    if !daemon.config_note.is_empty() {
        text += &["configuration: ", &clean(&daemon.config_note), "\n"].concat();
    }
    for limitation in &daemon.limitations {
        text += &["limitation: ", &clean(limitation), "\n"].concat();
    }
    text
}

/// How long outputs can stay live; nothing where there are none.
pub fn live(times: &LiveTimes) -> String {
    if times.outputs == 0 {
        return String::new();
    }
    let mut text = String::from("outputs stay live at most:");
    for (cause, time) in [
        (" crash ", times.crash_ms),
        (", hang ", times.hang_ms),
        (", hang of multusd too ", times.supervisor_ms),
        (", guard ", times.guard_ms),
        (", kernel ", times.kernel_ms),
    ] {
        text += cause;
        text += &match time {
            None => "for ever".to_string(),
            Some(time @ ..10_000) => [&time.to_string(), "ms"].concat(),
            Some(time) => duration(Millis(time)),
        };
    }
    text + "\n"
}

fn times(count: u32) -> String {
    if count == 1 { "once".to_string() } else { [&count.to_string(), " times"].concat() }
}

/// Headings of the table, and the order in which columns are left out where they do not fit:
/// 0 stays.
const COLUMNS: [(&str, u8); 6] =
    [("NAME", 0), ("STATE", 0), ("PID", 2), ("UPTIME", 3), ("RESTARTS", 1), ("LAST EXIT / REASON", 0)];

/// The last column is of no use when it is narrower than this; before that, others are left out.
const LAST_COLUMN_WIDTH_MIN: usize = 20;

/// The table of programs.
pub fn table(programs: &[ProgramStatus], look: Look) -> String {
    let rows: Vec<[String; 6]> = programs.iter().map(row).collect();
    let mut widths = COLUMNS.map(|(heading, _)| heading.len());
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut columns: Vec<usize> = (0..COLUMNS.len()).collect();
    for first_out in 1..=3 {
        let taken: usize = columns[..columns.len() - 1].iter().map(|column| widths[*column] + 2).sum();
        if look.width.is_none_or(|width| taken + LAST_COLUMN_WIDTH_MIN <= width) {
            break;
        }
        columns.retain(|column| COLUMNS[*column].1 != first_out);
    }
    let mut text = line(&COLUMNS.map(|(heading, _)| heading), &columns, &widths, look, "");
    for (program, row) in programs.iter().zip(&rows) {
        let colour = if look.colour { state_colour(program.state) } else { "" };
        text += &line(&row.each_ref().map(String::as_str), &columns, &widths, look, colour);
    }
    text
}

fn state_colour(state: State) -> &'static str {
    match state {
        State::Running => "\x1b[32m",
        State::Fatal => "\x1b[31m",
        State::Stopped | State::Exited => "",
        _ => "\x1b[33m",
    }
}

/// One line of the table, cut at the width; the state, column 1, has the colour.
fn line(cells: &[&str; 6], columns: &[usize], widths: &[usize; 6], look: Look, colour: &str) -> String {
    let mut text = String::new();
    let mut left = look.width.unwrap_or(usize::MAX);
    for column in columns {
        // Numbers are right-aligned so that the longest stands out.
        let padding = widths[*column].saturating_sub(cells[*column].chars().count());
        let blanks = |count| std::iter::repeat_n(' ', count);
        let mut cell = String::new();
        if matches!(column, 2 | 4) {
            cell.extend(blanks(padding));
        }
        cell += cells[*column];
        if !matches!(column, 2 | 4) && *column != 5 {
            cell.extend(blanks(padding));
        }
        if *column != 5 {
            cell += "  ";
        }
        let cell: String = cell.chars().take(left).collect();
        left -= cell.chars().count();
        let coloured = *column == 1 && !colour.is_empty();
        text += if coloured { colour } else { "" };
        text += &cell;
        text += if coloured { "\x1b[0m" } else { "" };
    }
    text.truncate(text.trim_end_matches(' ').len());
    text + "\n"
}

fn row(program: &ProgramStatus) -> [String; 6] {
    let dash = || "-".to_string();
    let process = program.pid != 0;
    [
        clean(&program.name),
        program.state.name().to_string(),
        if process { program.pid.to_string() } else { dash() },
        if process { duration(Millis(program.uptime_ms)) } else { dash() },
        program.restarts.to_string(),
        remark(program),
    ]
}

/// The last column: what a person who wonders about this program wants to know first.
fn remark(program: &ProgramStatus) -> String {
    let mut parts = Vec::new();
    if !program.reason.is_empty() {
        parts.push(clean(&program.reason));
    } else if let Some(exit) = program.last_exit {
        parts.push(last_exit(exit));
    }
    if let Some(left) = program.next_start_ms {
        parts.push(["next start in ", &duration(Millis(left))].concat());
    }
    // While the program runs its outputs are its own; at any other time they ought to be safe.
    if !matches!(program.state, State::Running | State::Starting) {
        for output in program.outputs.iter().filter(|output| !output.safe && output.level.is_none()) {
            parts.insert(0, ["output ", &clean(&output.name), " NOT CONFIRMED SAFE"].concat());
        }
    }
    if !program.status_text.is_empty() {
        parts.push(["\"", &clean(&program.status_text), "\""].concat());
    }
    parts.join(", ")
}

/// A line about events that are missing between two, or nothing.
pub fn gap(last: Option<u64>, seq: u64) -> String {
    let missing = last.map_or(0, |last| seq.saturating_sub(last.saturating_add(1)));
    if missing == 0 { String::new() } else { ["(", &missing.to_string(), " lost)\n"].concat() }
}

/// One event as a line, with the seconds since boot in front.
pub fn event(event: &Event) -> String {
    let ms = (event.at_ms % 1000 + 1000).to_string();
    let mut text = ["[", &(event.at_ms / 1000).to_string(), ".", &ms[1..], "] "].concat();
    if event.name.is_empty() {
        text += "multusd";
    } else {
        text += &[&*clean(&event.name), ": ", event.from.name(), " -> ", event.to.name()].concat();
        if event.pid != 0 {
            text += &[", pid ", &event.pid.to_string()].concat();
        }
    }
    if !event.reason.is_empty() {
        text += &[": ", &*clean(&event.reason)].concat();
    }
    text + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_show_the_two_units_that_matter() {
        for (ms, text) in [
            (0, "0.0s"),
            (9_999, "9.9s"),
            (10_000, "10s"),
            (60_000, "1min"),
            (61_000, "1min 1s"),
            (3_600_000, "1h"),
            (3_601_000, "1h"),
            (90_061_000, "1d 1h"),
            (u64::MAX, "213503982334d 14h"),
        ] {
            assert_eq!(duration(Millis(ms)), text);
        }
    }

    #[test]
    fn foreign_text_cannot_command_the_terminal() {
        assert_eq!(clean("a\x1b[31mb\n\u{9b}c\u{7f}é"), "a?[31mb??c?é");
    }

    fn program(name: &str, state: State) -> ProgramStatus {
        ProgramStatus {
            name: name.try_into().unwrap(),
            state,
            pid: 4711,
            restarts: 3,
            failures: 0,
            uptime_ms: 61_000,
            since_ms: 0,
            next_start_ms: None,
            last_exit: None,
            reason: "exit code 1".try_into().unwrap(),
            status_text: "pumping".try_into().unwrap(),
            heartbeat: None,
            outputs: heapless::Vec::new(),
        }
    }

    #[test]
    fn a_narrow_terminal_loses_the_least_wanted_columns_first() {
        let programs = [program("pump", State::Running)];
        let headings = |width| {
            let text = table(&programs, Look { colour: false, width: Some(width) });
            assert!(text.lines().all(|line| line.chars().count() <= width), "{text}");
            text.lines().next().unwrap().split_whitespace().map(str::to_string).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(headings(80), "NAME STATE PID UPTIME RESTARTS LAST EXIT / REASON");
        assert_eq!(headings(50), "NAME STATE PID UPTIME LAST EXIT / REASON");
        assert_eq!(headings(45), "NAME STATE UPTIME LAST EXIT / REASON");
        assert_eq!(headings(30), "NAME STATE LAST EXIT / REA");
        assert_eq!(headings(3), "NAM");
        assert_eq!(headings(0), "");
    }

    #[test]
    fn colours_change_no_column() {
        let programs = [program("pump", State::Running), program("x", State::Fatal)];
        let plain = table(&programs, Look::default());
        let mut coloured = table(&programs, Look { colour: true, width: None });
        assert!(coloured.contains("\x1b[32mrunning  \x1b[0m"), "{coloured:?}");
        assert!(coloured.contains("\x1b[31mfatal    \x1b[0m"), "{coloured:?}");
        for code in ["\x1b[32m", "\x1b[31m", "\x1b[0m"] {
            coloured = coloured.replace(code, "");
        }
        assert_eq!(coloured, plain);
    }

    #[test]
    fn an_output_that_is_not_safe_comes_first_unless_its_program_runs() {
        let mut pump = program("pump", State::Backoff);
        let output = crate::protocol::Output { name: "relay".try_into().unwrap(), level: None, safe: false };
        pump.outputs.push(output).unwrap();
        assert_eq!(remark(&pump), "output relay NOT CONFIRMED SAFE, exit code 1, \"pumping\"");
        pump.state = State::Running;
        assert_eq!(remark(&pump), "exit code 1, \"pumping\"");
    }
}
