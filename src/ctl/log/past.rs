//! What a stream has said: the last lines of its files, and behind them what the log ring has that is in no file yet.

use std::os::fd::AsFd;
use std::path::Path;
use std::sync::atomic::Ordering::SeqCst;

use super::ear::{Ear, each_record};
use super::line::Line;
use crate::config::StreamSettings;
use crate::sys::clock::now;
use crate::sys::log_claim::OPEN_LINE;
use crate::sys::log_file;
use crate::sys::log_ring::Ring;

/// Read from a file's end, so much at once.
const BLOCK_BYTES: u64 = 16 * 1024;
/// Lines that `log` writes are shorter; in what somebody else wrote there, a piece of this length is one.
const LINE_BYTES_MAX: usize = 64 * 1024;
/// Of one stream, so much is read from files at most: who wants more has tools for files.
const FILE_BYTES_MAX: u64 = 8 << 20;
/// Lines become written while they are read here: then once more, but not for ever.
const ATTEMPTS: usize = 100;

/// Which lines are wanted.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// At most so many, the last ones.
    pub count: usize,
    /// Not before this: since boot and by the wall clock.
    pub since: Option<(u64, String)>,
}

/// Lines, and how it goes on.
#[derive(Debug, Default)]
pub struct Past {
    /// The oldest first.
    pub lines: Vec<Line>,
    /// What comes next.
    pub ear: Ear,
    /// There may be more, or it could not be read: why.
    pub note: Option<String>,
}

/// Where the lines of a stream are stored.
#[derive(Clone, Copy, Debug)]
pub enum Stored<'a> {
    /// Here.
    In(&'a str),
    /// Somewhere that is read for another stream, or cannot be read again.
    Elsewhere,
    /// Nowhere: the ring is all there is.
    Nowhere,
}

/// Reads.
pub fn past(ring: &Ring, stream: &StreamSettings, stored: Stored, wanted: &Wanted) -> Past {
    let mut found = Past::default();
    for _ in 0..ATTEMPTS {
        let before = state(ring, stream);
        let is_same;
        (found, is_same) = attempt(ring, stream, stored, wanted, before.1);
        if is_same && state(ring, stream) == before {
            break;
        }
    }
    let lines = &mut found.lines;
    if let Some((mono_ms, wall)) = &wanted.since {
        // Of the ring: what is there is of now.
        lines.retain(|line| line.mono_ms.is_none_or(|ms| ms >= *mono_ms) || line.wall >= *wall);
    }
    lines.drain(..lines.len().saturating_sub(wanted.count));
    found
}

type Claim = Option<(u64, u64)>;

/// How far its lines are stored, and what of them is being stored just now.
fn state(ring: &Ring, stream: &StreamSettings) -> (u64, Claim, u64) {
    let done = ring.stream(stream.number.into()).done.load(SeqCst);
    let (turn, claim) = ring.claimed_of(stream.number);
    (done, claim, if claim.is_some() { turn } else { 0 })
}

/// Second: whether the file was the same all the time.
fn attempt(
    ring: &Ring,
    stream: &StreamSettings,
    stored: Stored,
    wanted: &Wanted,
    claim: Claim,
) -> (Past, bool) {
    let mut found = Past::default();
    let words = ring.stream(stream.number.into());
    let goes_on = words.storer[OPEN_LINE].load(SeqCst) == u64::from(stream.generation) << 1 | 1;
    let inode_of = |path: &str| log_file::open_to_look(Path::new(path)).map_or(0, |(_, inode, _)| inode);
    let mut inode = 0;
    if !matches!(stored, Stored::Nowhere) {
        found.ear.at = words.done.load(SeqCst);
    }
    if let Stored::In(path) = stored {
        inode = inode_of(path);
        let mut back = Back {
            stream,
            wanted,
            lines: Vec::new(),
            newer_ms: now().0 / 1_000_000,
            left: FILE_BYTES_MAX,
            ended: false,
        };
        found.note = back.read_files(path, claim);
        found.lines = back.lines;
        found.lines.reverse();
        if found.note.is_some() && found.lines.is_empty() {
            // Not to be read: whatever the ring has still is better than nothing.
            found.ear.at = 0;
        }
        if goes_on && !back.ended {
            found.ear.begun = found.lines.pop();
        }
    }
    let (ear, lines) = (&mut found.ear, &mut found.lines);
    let tail = ring.header().tail.load(SeqCst);
    let (end, _) = each_record(ring, tail, &mut |record, bytes| {
        ear.hear(stream, record, bytes, &mut |line| lines.push(line));
    });
    ear.at = ear.at.max(end);
    let is_same = match stored {
        Stored::In(path) => inode_of(path) == inode,
        _ => true,
    };
    (found, is_same)
}

/// Reads backwards.
struct Back<'a> {
    stream: &'a StreamSettings,
    wanted: &'a Wanted,
    /// The newest first.
    lines: Vec<Line>,
    /// When the line was said that was read last, since boot.
    newer_ms: u64,
    /// Bytes that may be read.
    left: u64,
    /// The last line of the file has its end.
    ended: bool,
}

impl Back<'_> {
    /// The file and those it was before; why that was not all.
    fn read_files(&mut self, path: &str, claim: Claim) -> Option<String> {
        let mut number = 0;
        let mut name = path.to_string();
        loop {
            match self.read_file(&name, claim.filter(|_| number == 0)) {
                Ok(true) => {}
                Ok(false) => return None,
                Err(error) if error.errno == libc::ENOENT => {
                    // Of one that is being rotated there is none for a moment.
                    if number > 0 {
                        let squeezed = name + ".gz";
                        let is_there = crate::sys::file::exists(&squeezed);
                        return is_there.then(|| ["older lines are in ", &squeezed].concat());
                    }
                }
                Err(error) => return Some([&name, ": ", &error.to_string()].concat()),
            }
            if self.left == 0 {
                return Some(["older lines are in ", &name].concat());
            }
            number += 1;
            if number > self.stream.backups {
                return None;
            }
            name = [path, ".", &number.to_string()].concat();
        }
    }

    /// One file; whether more are wanted.
    fn read_file(&mut self, path: &str, claim: Claim) -> Result<bool, crate::sys::SysError> {
        let (file, inode, mut at) = log_file::open_to_look(Path::new(path))?;
        if let Some((_, size)) = claim.filter(|claim| claim.0 == inode) {
            at = at.min(size);
        }
        let mut block: Vec<u8> = Vec::new();
        while at > 0 && self.left > 0 {
            let from = at.saturating_sub(BLOCK_BYTES);
            let mut piece = vec![0; (at - from) as usize];
            let length = log_file::read_at(file.as_fd(), from, &mut piece)?;
            piece.truncate(length);
            piece.extend_from_slice(&block);
            (block, at) = (piece, from);
            self.left = self.left.saturating_sub(BLOCK_BYTES);
            while !block.is_empty() {
                let has_end = block.ends_with(b"\n");
                let body = block.len() - usize::from(has_end);
                let start = match block[..body].iter().rposition(|byte| *byte == b'\n') {
                    Some(end) => end + 1,
                    None if from == 0 || body > LINE_BYTES_MAX => 0,
                    None => break,
                };
                if self.lines.is_empty() {
                    self.ended = has_end;
                }
                if !self.take(Line::of_file(&block[start..body], self.stream.stamp)) {
                    return Ok(false);
                }
                block.truncate(start);
            }
        }
        Ok(true)
    }

    /// Whether more are wanted.
    fn take(&mut self, line: Line) -> bool {
        if let Some((mono_ms, wall)) = &self.wanted.since {
            // Of what was said before the machine was started only the date is of use.
            let ms = line.mono_ms.filter(|ms| *ms <= self.newer_ms);
            let is_new = ms.is_some_and(|ms| ms >= *mono_ms) || line.wall >= *wall;
            if line.mono_ms.is_some() {
                self.newer_ms = ms.unwrap_or(0);
            }
            let has_stamp = line.mono_ms.is_some() || !line.wall.is_empty();
            if has_stamp && !is_new {
                return false;
            }
        }
        self.lines.push(line);
        self.lines.len() < self.wanted.count
    }
}
