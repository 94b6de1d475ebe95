//! `values` and `publish`: what programs tell each other, and telling them something by hand.

use super::daemon::{Daemon, unexpected};
use super::{Call, Exit, Outcome, fail, json, lines, orders, print, words};
use crate::config::milli_text;
use crate::protocol::{Reply, Request, ValueStatus};
use crate::time::Millis;

/// `values`
pub fn values(call: &Call) -> Outcome {
    let mut all: Vec<ValueStatus> = Vec::new();
    Daemon::connect(call)?.pages(|from| Request::Values { from }, &mut |reply| match reply {
        Reply::Values { values, next } => {
            all.extend(values);
            Ok(next)
        }
        other => Err(unexpected(&other)),
    })?;
    all.sort_by(|one, two| one.name.cmp(&two.name));
    if call.json {
        return print(&json::values(&all));
    }
    let rows = all.iter().map(|value| {
        let known = value.milli.map_or("unknown".to_string(), milli_text);
        [
            words::clean(&value.name),
            [&known, " ", &words::clean(&value.unit)].concat().trim_end().to_string(),
            value.raw.to_string(),
            words::duration(Millis(value.age_ms)),
            String::new(),
            String::new(),
        ]
    });
    let head = ["NAME", "VALUE", "RAW", "AGE", "", ""].map(str::to_string);
    print(&lines::grid([head].into_iter().chain(rows).collect()))
}

/// `publish NAME=VALUE`
pub fn publish(call: &Call) -> Outcome {
    let Some((name, value)) = call.arguments[0].split_once('=').filter(|_| !call.arguments[0].contains(' '))
    else {
        return fail(Exit::Usage, "publish NAME=VALUE, such as tank=12.5 or tank=unknown");
    };
    let mut text = [name, " ", value].concat();
    if let Some(unit) = &call.unit {
        text += &[" unit=", unit].concat();
    }
    if let Some(time) = call.lasting {
        text += &[" for=", &time.0.to_string(), "ms"].concat();
    }
    let Ok(text) = text.as_str().try_into() else { return fail(Exit::Usage, "this is too long") };
    orders::plain(&mut Daemon::connect(call)?, &mut Request::Publish { text })
}
