//! Commands that change something: each is a request (or one per program), and with `--wait` the
//! patience to see it happen.

use super::daemon::{Daemon, not_understood, refused, unexpected};
use super::wait::{self, Goal};
use super::{Call, Exit, Failure, Outcome, complain, fail, nearest, print, signals, words};
use crate::protocol::{NOT_RENEWED, Name, Order, Refusal, Reply, Request, Shutdown};
use crate::time::Millis;

/// `start`
pub fn start(call: &Call) -> Outcome {
    order(call, Order::Start, Goal::Up)
}

/// `stop`
pub fn stop(call: &Call) -> Outcome {
    order(call, Order::Stop, Goal::Down)
}

/// `restart`
pub fn restart(call: &Call) -> Outcome {
    order(call, Order::Restart, Goal::UpAgain)
}

/// `once`
pub fn once(call: &Call) -> Outcome {
    order(call, Order::Once, Goal::Over)
}

/// `pause`
pub fn pause(call: &Call) -> Outcome {
    let mut daemon = Daemon::connect(call)?;
    each(&mut daemon, &call.arguments, |name| Request::Order { name, order: Order::Pause })
}

/// `cont`
pub fn cont(call: &Call) -> Outcome {
    let mut daemon = Daemon::connect(call)?;
    each(&mut daemon, &call.arguments, |name| Request::Order { name, order: Order::Resume })
}

/// `signal`
pub fn signal(call: &Call) -> Outcome {
    let Some((word, names)) = call.arguments.split_last() else { return Err(not_understood()) };
    let signal = signals::number(word);
    if signal.is_none() && word != "reload" {
        let known = signals::names().chain(["reload"]);
        let hint = nearest::suggestion(&signals::short(word), known);
        return fail(Exit::Usage, ["there is no signal ", &words::clean(word), &hint].concat());
    }
    let mut daemon = Daemon::connect(call)?;
    each(&mut daemon, names, |name| match signal {
        Some(signal) => Request::Signal { name, signal },
        None => Request::ReloadProgram { name },
    })
}

/// One order for every named program; with `--wait` until it has happened to each.
fn order(call: &Call, order: Order, goal: Goal) -> Outcome {
    if !call.wait {
        let mut daemon = Daemon::connect(call)?;
        return each(&mut daemon, &call.arguments, |name| Request::Order { name, order });
    }
    // The subscription comes before the order, so that nothing can happen unseen.
    let mut news = Daemon::subscribe(call)?;
    let mut daemon = Daemon::connect(call)?;
    let mut first = Exit::Ok;
    let mut taken = Vec::new();
    for program in daemon.named(&call.arguments)? {
        match one(&mut daemon, &mut Request::Order { name: program.name.clone(), order }, &program.name)? {
            Exit::Ok => taken.push(program),
            other => first = earlier(first, other),
        }
    }
    let waited = wait::programs(&mut daemon, &mut news, taken, goal)?;
    Ok(earlier(first, waited))
}

/// The same request for every named program. One that is refused does not keep the others from
/// their turn; the first refusal is the exit code.
fn each(daemon: &mut Daemon, names: &[String], request: impl Fn(Name) -> Request) -> Outcome {
    let mut first = Exit::Ok;
    for program in daemon.named(names)? {
        first = earlier(first, one(daemon, &mut request(program.name.clone()), &program.name)?);
    }
    Ok(first)
}

/// A request for one program. A refusal is told, and its code returned.
fn one(daemon: &mut Daemon, request: &mut Request, name: &str) -> Outcome {
    match daemon.ask(request)? {
        Reply::Done { text } => say(&text),
        Reply::Refused { why, text } => {
            let Failure { exit, text } = refused(why, &text);
            // The daemon's sentence may have named it already.
            let known = text.starts_with(name);
            complain(&if known { text } else { [&*words::clean(name), ": ", &text].concat() });
            Ok(exit)
        }
        _ => Err(not_understood()),
    }
}

fn earlier(first: Exit, second: Exit) -> Exit {
    if first == Exit::Ok { second } else { first }
}

/// What the daemon had to say, if anything.
fn say(text: &str) -> Outcome {
    if text.is_empty() { Ok(Exit::Ok) } else { print(&words::clean_lines(text)) }
}

/// A request that is not about a program.
pub fn plain(daemon: &mut Daemon, request: &mut Request) -> Outcome {
    match daemon.ask(request)? {
        Reply::Done { text } => say(&text),
        other => Err(unexpected(&other)),
    }
}

/// `reload`
pub fn reload(call: &Call) -> Outcome {
    let wait = call.wait && !call.dry;
    let news = if wait { Some(Daemon::subscribe(call)?) } else { None };
    let mut daemon = Daemon::connect(call)?;
    match daemon.ask(&mut Request::Reload { dry: call.dry })? {
        Reply::Done { text } => {
            let whole = daemon.page()?;
            say(if whole.is_empty() { &text } else { &whole })?;
        }
        Reply::Refused { why: Refusal::BadConfig, text } => {
            let whole = daemon.page()?;
            let errors = words::clean_lines(if whole.is_empty() { &text } else { &whole });
            let text = ["nothing is changed, the configuration has errors:\n", errors.trim_end()].concat();
            return fail(Exit::Failed, text);
        }
        other => return Err(unexpected(&other)),
    }
    match news {
        Some(mut news) => wait::settled(&mut daemon, &mut news),
        None => Ok(Exit::Ok),
    }
}

/// `reboot`
pub fn reboot(call: &Call) -> Outcome {
    shutdown(call, Shutdown::Reboot)
}

/// `poweroff`
pub fn power_off(call: &Call) -> Outcome {
    shutdown(call, Shutdown::PowerOff)
}

fn shutdown(call: &Call, how: Shutdown) -> Outcome {
    let mut request = match (call.cancel, call.after) {
        (true, Some(_)) => return fail(Exit::Usage, "--in and --cancel contradict each other"),
        (true, None) => Request::CancelShutdown,
        (false, after) => Request::Shutdown { how, in_ms: after.unwrap_or(Millis::ZERO).0 },
    };
    plain(&mut Daemon::connect(call)?, &mut request)
}

/// `renew`
pub fn renew(call: &Call) -> Outcome {
    let mut daemon = Daemon::connect(call)?;
    plain(&mut daemon, &mut Request::Renew)?;
    daemon.ended()?;
    // Its successor listens at the same socket.
    let about = Daemon::connect(call)?.about()?;
    if let Some(why) = about.limitations.iter().find(|words| words.starts_with(NOT_RENEWED)) {
        return fail(Exit::Failed, words::clean(why));
    }
    print(&["multusd ", &words::clean(&about.version), " goes on; programs run on\n"].concat())
}

/// `quit`
pub fn quit(call: &Call) -> Outcome {
    let mut daemon = Daemon::connect(call)?;
    match plain(&mut daemon, &mut Request::Quit) {
        // A daemon with nothing to stop may be gone before its answer is.
        Err(failure) if failure.exit == Exit::NoDaemon => return Ok(Exit::Ok),
        other => other?,
    };
    if call.wait {
        daemon.ended()?;
    }
    Ok(Exit::Ok)
}
