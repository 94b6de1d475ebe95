//! `multusctl beat`: a program that is a shell script says to multusd what it has to say.

use super::words::clean;
use super::{Call, Exit, Outcome, fail};
use crate::client::Multusd;
use crate::sys::SysError;

/// For what was said to be heard; a supervisor is replaced in far less.
const HEARD_MS_MAX: u16 = 10_000;

pub fn beat(call: &Call) -> Outcome {
    let of = |name| std::env::var(name).unwrap_or_default();
    let means = of("MULTUSD_HEARTBEAT");
    if means.starts_with("tcp:") {
        return fail(Exit::Failed, "a tcp heartbeat is beaten by a program that stays connected");
    }
    if means.is_empty() && of("NOTIFY_SOCKET").is_empty() && of("MULTUSD_OUTPUTS").is_empty() {
        return fail(Exit::Failed, "not run by multusd: neither NOTIFY_SOCKET nor MULTUSD_HEARTBEAT is set");
    }
    let failed = |error: SysError| fail(Exit::Failed, error.to_string());
    let multusd = match Multusd::from_environment() {
        Ok(multusd) => multusd,
        Err(error) => return failed(error),
    };
    for word in &call.arguments {
        let (name, on) = match word.split_once('=') {
            Some((name, level @ ("on" | "off"))) => (name, level == "on"),
            _ => return fail(Exit::Usage, "an output is switched by OUTPUT=on or OUTPUT=off"),
        };
        match multusd.output(name).map(|output| output.set(on)) {
            Some(Ok(())) => {}
            Some(Err(error)) => return failed(error),
            None => return fail(Exit::Failed, ["this program has no output ", &clean(name)].concat()),
        }
    }
    match say(multusd, call) {
        Ok(true) => Ok(Exit::Ok),
        Ok(false) => fail(Exit::TimedOut, "nobody hears it"),
        Err(error) => failed(error),
    }
}

fn say(mut multusd: Multusd, call: &Call) -> Result<bool, SysError> {
    if call.ready {
        multusd.ready()?;
    }
    if let Some(text) = &call.status {
        multusd.status(text)?;
    }
    multusd.beat()?;
    if call.stopping {
        multusd.stopping()?;
    }
    // We end here, and who we were can be found out only until then.
    Ok(multusd.wait_until_heard(HEARD_MS_MAX))
}
