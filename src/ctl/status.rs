//! Commands that only look: `status`, `events`, and the names for completion.

use super::daemon::Daemon;
use super::reasons;
use super::words::Look;
use super::{Call, Exit, Failure, Outcome, fail, json, print, words};
use crate::protocol::{Event, State};
use crate::sys::clock::now;
use crate::sys::terminal::{self, Interrupts, Woken};
use crate::time::{Instant, Millis};

/// How often a watched table is drawn when nothing happens: only the ages in it have changed.
const REDRAW: Millis = Millis(1000);

/// `status [NAME...]`
pub fn status(call: &Call) -> Outcome {
    let mut daemon = Daemon::connect(call)?;
    if call.watch {
        return watch(call, &mut daemon);
    }
    let (text, exit) = view(call, &mut daemon, look())?;
    print(&text)?;
    Ok(exit)
}

/// What there is to see, and the exit code it means.
fn view(call: &Call, daemon: &mut Daemon, look: Look) -> Result<(String, Exit), Failure> {
    let everything = call.arguments.is_empty();
    let about = match everything || call.json {
        true => Some((daemon.about()?, daemon.live()?, reasons::ask(daemon)?)),
        false => None,
    };
    let programs = if everything { daemon.programs()? } else { daemon.named(&call.arguments)? };
    let all_run = programs.iter().all(|program| program.state == State::Running);
    let text = match about {
        Some((about, live, boots)) if call.json => json::status(&about, &live, &boots, &programs),
        Some((about, live, boots)) => {
            let lines = words::about(&about, &programs) + &reasons::line(&boots) + &words::live(&live);
            lines + &words::table(&programs, look)
        }
        None => words::table(&programs, look),
    };
    Ok((text, if everything || all_run { Exit::Ok } else { Exit::NotRunning }))
}

/// Whether stdout is something that can be drawn on.
fn is_screen() -> bool {
    terminal::is_output() && std::env::var_os("TERM").is_none_or(|kind| kind != "dumb")
}

fn look() -> Look {
    let columns = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse::<u32>().ok());
    let wished = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    Look {
        colour: is_screen() && wished,
        width: columns.or_else(|| Some(terminal::size()?.0.into())).map(|columns| columns as usize),
    }
}

/// Draws again at every event, and once a second for the ages, until the user wants out.
fn watch(call: &Call, daemon: &mut Daemon) -> Outcome {
    let mut news = Daemon::subscribe(call)?;
    let screen = is_screen() && !call.json;
    let Ok(interrupts) = Interrupts::take() else { return fail(Exit::Failed, "cannot receive signals") };
    let _restored = if screen { Some(Screen::enter()?) } else { None };
    loop {
        daemon.renew();
        let (text, _) = view(call, daemon, look())?;
        let frame = if screen { frame(&text, terminal::size().map(|size| size.1)) } else { text };
        if print(&frame)? != Exit::Ok {
            return Ok(Exit::Failed);
        }
        // A pipe gets a table per change; that time has passed is no change to a program.
        let until = if screen { now() + REDRAW } else { Instant::NEVER };
        match news.wait(&interrupts, until)? {
            Woken::Interrupted => return Ok(Exit::Ok),
            Woken::Packet => while !news.events(now())?.is_empty() {},
            Woken::Resized | Woken::Deadline => {}
        }
    }
}

/// A frame over the former one: each line clears what was left of the older one, and no more
/// lines than there are rows, so that nothing scrolls.
fn frame(text: &str, rows: Option<u16>) -> String {
    let mut frame = String::from("\x1b[H");
    let rows = rows.map_or(usize::MAX, usize::from);
    for (row, line) in text.lines().take(rows).enumerate() {
        if row > 0 {
            frame += "\r\n";
        }
        frame += line;
        frame += "\x1b[K";
    }
    frame + "\x1b[J"
}

/// The terminal's second screen, without a cursor, and cutting lines instead of wrapping them. The
/// first one, with what the user had on it, comes back at the end, however that comes.
struct Screen;

impl Screen {
    fn enter() -> Result<Screen, Failure> {
        print("\x1b[?1049h\x1b[?25l\x1b[?7l")?;
        Ok(Screen)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _ = print("\x1b[?7h\x1b[?25h\x1b[?1049l");
    }
}

/// `events`
pub fn events(call: &Call) -> Outcome {
    let mut last = None;
    let mut show = |events: &[Event]| {
        let mut text = String::new();
        for event in events {
            // What was remembered may come once more.
            if last.is_some_and(|last| event.seq <= last) {
                continue;
            }
            if call.json {
                text += &json::event(event);
            } else {
                text += &words::gap(last, event.seq);
                text += &words::event(event);
            }
            last = Some(event.seq);
        }
        print(&text)
    };
    let mut news = if call.past { None } else { Some(Daemon::subscribe(call)?) };
    if call.past || call.lines.is_some() {
        let all = Daemon::connect(call)?.history()?;
        let first = all.len().saturating_sub(call.lines.unwrap_or(usize::MAX));
        if show(&all[first..])? != Exit::Ok {
            return Ok(Exit::Failed);
        }
    }
    while let Some(news) = &mut news {
        if show(&news.events(Instant::NEVER)?)? != Exit::Ok {
            return Ok(Exit::Failed);
        }
    }
    Ok(Exit::Ok)
}

/// `names`: for completion.
pub fn names(call: &Call) -> Outcome {
    let programs = Daemon::connect(call)?.programs()?;
    print(&programs.iter().map(|program| words::clean(&program.name) + "\n").collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::frame;

    #[test]
    fn a_frame_never_scrolls() {
        assert_eq!(frame("a\nb\nc\n", Some(2)), "\x1b[Ha\x1b[K\r\nb\x1b[K\x1b[J");
        assert_eq!(frame("a\n", None), "\x1b[Ha\x1b[K\x1b[J");
        assert_eq!(frame("", Some(2)), "\x1b[H\x1b[J");
    }
}
