//! `watchdog`: how the watchdogs and the temperature stand.

use super::daemon::{Daemon, not_understood, refused};
use super::words::{clean, duration};
use super::{Call, Exit, Outcome, json, print};
use crate::protocol::{Reply, Request, Watchdog};
use crate::time::Millis;

/// `watchdog`
pub fn watchdog(call: &Call) -> Outcome {
    let (watchdogs, withheld, temperature) = match Daemon::connect(call)?.ask(&mut Request::Watchdogs)? {
        Reply::Watchdogs { watchdogs, withheld, temperature } => (watchdogs, withheld, temperature),
        Reply::Refused { why, text } => return Err(refused(why, &text)),
        _ => return Err(not_understood()),
    };
    let all_armed = watchdogs.iter().all(|watchdog| watchdog.timeout_ms.is_some());
    let text = if call.json {
        json::watchdogs(&watchdogs, &withheld, temperature.as_ref())
    } else {
        let mut text: String = watchdogs.iter().map(line).collect();
        if watchdogs.is_empty() {
            text += "no watchdog is configured\n";
        } else if !withheld.is_empty() {
            text += &["NOT FED: ", &clean(&withheld), "\n"].concat();
        }
        if let Some(temperature) = temperature {
            text += &["temperature: ", &clean(&temperature.text), "\n"].concat();
        }
        text
    };
    print(&text)?;
    Ok(if all_armed && (watchdogs.is_empty() || withheld.is_empty()) { Exit::Ok } else { Exit::Failed })
}

/// One watchdog for people.
fn line(watchdog: &Watchdog) -> String {
    let time = |ms: u64| duration(Millis(ms));
    let gap = if watchdog.name.is_empty() { "" } else { ": " };
    let mut text = [&*clean(&watchdog.name), gap, &clean(&watchdog.what), ": "].concat();
    match watchdog.timeout_ms {
        None => text += "NOT ARMED",
        Some(timeout) => {
            text += &["resets after ", &time(timeout)].concat();
            if timeout != watchdog.asked_ms {
                text += &[" (not ", &time(watchdog.asked_ms), ")"].concat();
            }
            if let Some(before) = watchdog.pretimeout_ms {
                text += &[", warns ", &time(before), " before"].concat();
            }
            text += &match watchdog.fed_ms {
                Some(ago) => [", fed ", &time(ago), " ago"].concat(),
                None => ", not fed yet".into(),
            };
            if let Some(left) = watchdog.left_ms {
                text += &[", ", &time(left), " left"].concat();
            }
        }
    }
    if !watchdog.note.is_empty() {
        text += &["; ", &*clean(&watchdog.note)].concat();
    }
    text + "\n"
}
