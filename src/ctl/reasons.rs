//! `reasons`: the last boots of the machine, how each ended and why.

use super::daemon::{Daemon, unexpected};
use super::words::clean;
use super::{Call, Failure, Outcome, json, print};
use crate::protocol::{BOOT_COUNT_MAX, Boot, Refusal, Reply, Request};

/// The boots that are remembered, the newest first.
pub type Boots = heapless::Vec<Boot, BOOT_COUNT_MAX>;

/// `reasons`
pub fn reasons(call: &Call) -> Outcome {
    let boots = ask(&mut Daemon::connect(call)?)?;
    if call.json {
        return print(&json::boots(&boots));
    }
    let mut text = String::new();
    for boot in &boots {
        text += &["boot ", &boot.number.to_string(), ": ", &clean(&boot.to_string()), "\n"].concat();
    }
    print(if text.is_empty() { "nothing is known of any boot\n" } else { &text })
}

/// Asks for them; of a daemon that does not know the question, none.
pub fn ask(daemon: &mut Daemon) -> Result<Boots, Failure> {
    match daemon.ask(&mut Request::Reasons)? {
        Reply::Reasons { boots } => Ok(boots),
        Reply::Refused { why: Refusal::BadRequest, .. } => Ok(Boots::new()),
        other => Err(unexpected(&other)),
    }
}

/// How this boot came about, in a line; nothing where that is not known.
pub fn line(boots: &[Boot]) -> String {
    match boots {
        [now, before, ..] => {
            ["boot ", &now.number.to_string(), ", after: ", &clean(&before.to_string()), "\n"].concat()
        }
        _ => String::new(),
    }
}
