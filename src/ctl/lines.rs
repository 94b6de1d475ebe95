//! `inputs` and `outputs`: what is wired, its level by both names, and why it is so; and, for
//! commissioning, an output set by hand.

use super::daemon::{Daemon, unexpected};
use super::{Call, Exit, Outcome, fail, json, orders, print, words};
use crate::protocol::{InputStatus, LevelWord, Name, OutputState, OutputStatus, Reply, Request};
use crate::time::Millis;

/// `inputs`
pub fn inputs(call: &Call) -> Outcome {
    let mut all: Vec<InputStatus> = Vec::new();
    Daemon::connect(call)?.pages(|from| Request::Inputs { from }, &mut |reply| match reply {
        Reply::Inputs { inputs, next } => {
            all.extend(inputs);
            Ok(next)
        }
        other => Err(unexpected(&other)),
    })?;
    if call.json {
        return print(&json::inputs(&all));
    }
    let rows = all.iter().map(|input| {
        let age = input.age_ms.map_or("-".to_string(), |age| words::duration(Millis(age)));
        let edges = input.edges.to_string();
        [
            words::clean(&input.name),
            level(input.level, input.active_low),
            edges,
            age,
            words::clean(&input.wire),
            words::clean(&input.reason),
        ]
    });
    print(&grid(
        [["NAME", "LEVEL", "EDGES", "LAST EDGE", "WIRE", ""].map(str::to_string)]
            .into_iter()
            .chain(rows)
            .collect(),
    ))
}

/// `outputs`, `outputs set NAME LEVEL`
pub fn outputs(call: &Call) -> Outcome {
    match call.arguments.as_slice() {
        [] => list(call),
        [set, name, word] if set == "set" => {
            let levels = [LevelWord::Low, LevelWord::High, LevelWord::Off, LevelWord::On];
            let named = ["low", "high", "off", "on"].iter().position(|known| known == word);
            let (Some(level), Ok(name)) = (named.map(|index| levels[index]), Name::try_from(name.as_str()))
            else {
                return fail(Exit::Usage, "outputs set NAME high|low|on|off");
            };
            orders::plain(
                &mut Daemon::connect(call)?,
                &mut Request::SetOutput { name, level, force: call.force },
            )
        }
        _ => fail(Exit::Usage, "outputs set NAME high|low|on|off"),
    }
}

fn list(call: &Call) -> Outcome {
    let mut all: Vec<OutputStatus> = Vec::new();
    Daemon::connect(call)?.pages(|from| Request::Outputs { from }, &mut |reply| match reply {
        Reply::Outputs { outputs, next } => {
            all.extend(outputs);
            Ok(next)
        }
        other => Err(unexpected(&other)),
    })?;
    if call.json {
        return print(&json::outputs(&all));
    }
    let rows = all.iter().map(|output| {
        let since = output.confirmed_ms.map(|time| [" for ", &words::duration(Millis(time))].concat());
        let state = match output.state {
            OutputState::Unconfirmed => "NOT CONFIRMED".to_string(),
            OutputState::Driven => "driven by its program".to_string(),
            other => {
                let safe = if output.safe && other != OutputState::Safe { ", safe" } else { "" };
                [state(other), safe, &since.unwrap_or_default()].concat()
            }
        };
        let owner = if output.owner.is_empty() { "-".to_string() } else { words::clean(&output.owner) };
        [
            words::clean(&output.name),
            level(output.level, output.active_low),
            state,
            owner,
            words::clean(&output.wire),
            words::clean(&output.reason),
        ]
    });
    print(&grid(
        [["NAME", "LEVEL", "STATE", "OWNER", "WIRE", ""].map(str::to_string)]
            .into_iter()
            .chain(rows)
            .collect(),
    ))
}

/// The voltage, and what it means.
fn level(high: Option<bool>, active_low: bool) -> String {
    match high {
        Some(high) => [voltage(high), " (", if high != active_low { "on" } else { "off" }, ")"].concat(),
        None => "-".to_string(),
    }
}

/// The voltage in a word.
pub fn voltage(high: bool) -> &'static str {
    if high { "high" } else { "low" }
}

/// The state in a word.
pub fn state(state: OutputState) -> &'static str {
    match state {
        OutputState::Unconfirmed => "unconfirmed",
        OutputState::Boot => "boot",
        OutputState::Safe => "safe",
        OutputState::Driven => "driven",
        OutputState::Set => "set",
    }
}

/// Columns as wide as they have to be.
pub fn grid(rows: Vec<[String; 6]>) -> String {
    let mut text = String::new();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0) + 2;
    let widths: [usize; 6] = std::array::from_fn(width);
    for row in &rows {
        for (cell, width) in row.iter().zip(widths) {
            text += cell;
            text.extend(std::iter::repeat_n(' ', width - cell.chars().count()));
        }
        text.truncate(text.trim_end_matches(' ').len());
        text += "\n";
    }
    text
}
