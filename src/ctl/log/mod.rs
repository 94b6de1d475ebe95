//! `log`: what programs write, as it is in their files and, where it is not there yet, in the log ring. This process
//! reads all that by itself: whatever it does, or does not, nobody waits for it.

mod ear;
mod line;
mod past;
mod usage;

use std::collections::VecDeque;
use std::sync::atomic::Ordering::SeqCst;

use super::daemon::{Daemon, Shared};
use super::{Call, Exit, Failure, Outcome, complain, fail, print_bytes, usage as misused, words};
use crate::config::StreamSettings;
use crate::log_text::stamp;
use crate::protocol::Request;
use crate::sys::clock::{now, wall_millis};
use crate::sys::log_ring::NOTICE;
use crate::sys::{futex, terminal};
use crate::time::Millis;
use ear::{Ear, each_record};
use line::Look;
use past::{Past, Stored, Wanted, past};
pub use usage::{LogUse, RingUse};

/// Lines that are shown unless the caller says how many.
const LINE_COUNT: usize = 100;

/// Who follows looks this often whether multusd is still there: nothing else says that it is not.
const LOOK_AGAIN: Millis = Millis(1000);

/// A stream that is read.
struct Source {
    stream: StreamSettings,
    ear: Ear,
}

/// `log [NAME...]`
pub fn log(call: &Call) -> Outcome {
    if call.sync {
        return sync(call);
    }
    let mut daemon = Daemon::connect(call)?;
    let chosen = match call.arguments.is_empty() {
        true => None,
        false => {
            Some(daemon.named(&call.arguments)?.into_iter().map(|program| program.name).collect::<Vec<_>>())
        }
    };
    let shared = daemon.shared(&mut Request::Log { follow: call.follow })?;
    if call.usage {
        return usage::show(call, &shared, chosen.as_deref());
    }
    let is_chosen = |stream: &StreamSettings| {
        chosen.as_ref().is_none_or(|names| names.iter().any(|name| name.as_str() == stream.name))
            && !(call.stdout && stream.is_err || call.stderr && !stream.is_err)
    };
    let streams: Vec<_> =
        shared.settings.streams.iter().filter(|stream| is_chosen(stream)).cloned().collect();
    for name in chosen.iter().flatten() {
        if !streams.iter().any(|stream| name.as_str() == stream.name) {
            return fail(Exit::Failed, [&*words::clean(name), " writes nothing that goes to a log"].concat());
        }
    }
    // Of one program that was named everybody knows whose they are.
    let named = !matches!(call.arguments.as_slice(), [word] if chosen.iter().flatten().any(|name| name.as_str() == word));
    let look = Look { json: call.json, named, clean: terminal::is_output() };
    let (out, sources) = read_past(call, &shared, &streams, look);
    if print_bytes(&out)? != Exit::Ok {
        return Ok(Exit::Failed);
    }
    if call.follow { follow(call, daemon, shared, sources, &is_chosen, look) } else { Ok(Exit::Ok) }
}

/// What programs have written by now is on storage when this returns.
fn sync(call: &Call) -> Outcome {
    if !call.arguments.is_empty() {
        return misused(super::table::find("log"), "--sync is about all programs");
    }
    let mut daemon = Daemon::connect(call)?;
    let shared = daemon.shared(&mut Request::SyncLog)?;
    if shared.settings.ram_only {
        return fail(Exit::Failed, "[log] ram_only = yes: nothing is written to storage");
    }
    let header = shared.ring.header();
    loop {
        let done = header.sync_done.load(SeqCst);
        if done.wrapping_sub(shared.sync) as i32 >= 0 {
            return Ok(Exit::Ok);
        }
        let left = daemon.deadline().since(now());
        if left == Millis::ZERO {
            let failure = daemon.timed_out();
            let why = if header.storage_fails.load(SeqCst) != 0 { ": storage takes nothing" } else { "" };
            return Err(Failure { text: failure.text + why, ..failure });
        }
        futex::wait(&header.sync_done, done, Some(left));
    }
}

/// What was said until now, as it is shown; and how each stream goes on.
fn read_past(call: &Call, shared: &Shared, streams: &[StreamSettings], look: Look) -> (Vec<u8>, Vec<Source>) {
    let since = call.since.map(|ago| {
        let mut wall = Vec::new();
        stamp::wall(&mut wall, wall_millis().saturating_sub(ago.0));
        ((now() - ago).0 / 1_000_000, String::from_utf8_lossy(&wall).into_owned())
    });
    let usual = if since.is_some() { usize::MAX } else { LINE_COUNT };
    let wanted = Wanted { count: call.lines.unwrap_or(usual), since };
    let mut paths: Vec<&str> = Vec::new();
    let (mut lists, mut sources) = (Vec::new(), Vec::new());
    for stream in streams {
        let stored = match stream.path.as_deref() {
            Some(path) if shared.settings.ram_only || path.starts_with("/dev/") => Stored::Nowhere,
            Some(path) if !paths.contains(&path) => {
                paths.push(path);
                Stored::In(path)
            }
            // Two streams in one file cannot be told from each other there.
            Some(_) => Stored::Elsewhere,
            None => Stored::Nowhere,
        };
        let Past { lines, mut ear, note } = past(&shared.ring, stream, stored, &wanted);
        if let Some(note) = note {
            complain(&[&*words::clean(&stream.name), ": ", &note].concat());
        }
        let mut list = VecDeque::from(lines);
        if !call.follow {
            list.extend(ear.partial());
        }
        lists.push(list);
        sources.push(Source { stream: stream.clone(), ear });
    }
    let mut all = Vec::new();
    loop {
        let mut first: Option<usize> = None;
        for (index, list) in lists.iter().enumerate() {
            if let Some(line) = list.front()
                && first.and_then(|first| lists[first].front()).is_none_or(|first| line.is_before(first))
            {
                first = Some(index);
            }
        }
        let Some(index) = first else { break };
        all.extend(lists[index].pop_front().map(|line| (index, line)));
    }
    let mut out = Vec::new();
    for (index, line) in all.iter().skip(all.len().saturating_sub(wanted.count)) {
        line.show(&streams[*index], look, &mut out);
    }
    (out, sources)
}

/// Shows what is said from now on, until the user or multusd ends it.
fn follow(
    call: &Call,
    mut daemon: Daemon,
    mut shared: Shared,
    mut sources: Vec<Source>,
    is_chosen: &dyn Fn(&StreamSettings) -> bool,
    look: Look,
) -> Outcome {
    let mut position = sources.iter().map(|source| source.ear.at).min();
    let mut position = position.take().unwrap_or_else(|| shared.ring.header().head.load(SeqCst));
    // Streams that were looked for.
    let mut known: Vec<(u16, u16)> = Vec::new();
    loop {
        let header = shared.ring.header();
        let bell = header.follower_bell.load(SeqCst);
        let is_gone = daemon.is_gone();
        let (mut out, mut is_new) = (Vec::new(), false);
        if position < header.tail.load(SeqCst) {
            lose(&mut sources);
        }
        let (end, is_overtaken) = each_record(&shared.ring, position, &mut |record, bytes| {
            let key = (record.stream & !NOTICE, record.generation);
            match sources.iter_mut().find(|source| (source.stream.number, source.stream.generation) == key) {
                Some(Source { stream, ear }) => {
                    ear.hear(stream, record, bytes, &mut |line| line.show(stream, look, &mut out));
                }
                None if known.contains(&key) => {}
                None => {
                    known.push(key);
                    is_new = true;
                }
            }
        });
        if is_overtaken {
            lose(&mut sources);
        }
        sources.iter_mut().for_each(|source| source.ear.at = source.ear.at.max(end));
        if print_bytes(&out)? != Exit::Ok {
            return Ok(Exit::Failed);
        }
        if is_gone {
            // Replaced, or gone for good: then this says so.
            daemon = Daemon::connect(call)?;
        }
        if is_gone || is_new {
            daemon.renew();
            let before = std::mem::replace(&mut shared, daemon.shared(&mut Request::Log { follow: true })?);
            if before.inode != shared.inode {
                complain("multusd was started again");
                (position, known) = (0, Vec::new());
                sources.clear();
            }
            for stream in shared.settings.streams.iter().filter(|stream| is_chosen(stream)) {
                let is_same = |source: &Source| {
                    (source.stream.number, source.stream.generation) == (stream.number, stream.generation)
                };
                if !sources.iter().any(is_same) {
                    sources.push(Source { stream: stream.clone(), ear: Ear::default() });
                }
            }
            continue;
        }
        position = end;
        futex::wait(&header.follower_bell, bell, Some(LOOK_AGAIN));
    }
}

/// Something was overwritten before it was read here.
fn lose(sources: &mut [Source]) {
    complain("programs write faster than this is read: lines are missing here");
    sources.iter_mut().for_each(|source| source.ear.overtaken());
}
