//! Checks of control groups, in one of our own below the group we are in, which is removed again.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::sys::cgroup::{self, Hierarchy};
use crate::sys::{SysError, clock, file, poll, process};
use crate::time::Millis;

use super::processes::{Ends, linger};
use super::{Finding, MOMENT_MS, Place, Tried, expect, in_helper};

/// The group for trials; gone, with all that is in it, when this is.
struct Trial(Hierarchy);

impl Trial {
    fn begin(place: &Place) -> Result<Trial, Finding> {
        Hierarchy::open_for_trial(&place.group).map(Trial).map_err(|why| Finding::Absent(why.leak()))
    }

    fn group(&self) -> Result<OwnedFd, Finding> {
        Ok(self.0.group("trial")?)
    }
}

impl Drop for Trial {
    fn drop(&mut self) {
        if let Ok(group) = self.0.group("trial") {
            cgroup::kill_one_by_one(group.as_fd());
            await_empty(group.as_fd());
        }
        self.0.remove();
    }
}

fn await_empty(group: BorrowedFd) -> bool {
    let until = clock::now() + Millis(MOMENT_MS.into());
    while cgroup::is_populated(group).unwrap_or(false) {
        if clock::now() >= until {
            return false;
        }
        cgroup::wait_until_changed(group);
    }
    true
}

/// A process that has joined the group and waits there to be killed.
fn member(group: BorrowedFd) -> Result<u32, Finding> {
    let (read, write) = file::pipe(false)?;
    let pid = process::fork(|| match cgroup::join(group) {
        Err(SysError { errno, .. }) => errno,
        Ok(()) => {
            // Whoever waits sees by it that we are in the group.
            let _ = File::from(write).write_all(b"x");
            linger()
        }
    })?;
    let is_answered = poll::wait_readable(read.as_fd(), Some(MOMENT_MS));
    // It ends the pipe without a word where it could not join.
    if is_answered && File::from(read).read(&mut [0]).is_ok_and(|length| length == 1) {
        return Ok(pid);
    }
    match Ends::default().of(pid)? {
        (false, errno @ 1..) => Err(in_helper("cgroup.procs", errno)),
        _ => Err(Finding::Failed("a process could not join a group")),
    }
}

pub fn group(place: &Place) -> Tried {
    let trial = Trial::begin(place)?;
    let group = trial.group()?;
    let group = group.as_fd();
    expect(!cgroup::is_populated(group)?, "a new group is populated")?;
    let pid = member(group)?;
    let mut members = Vec::new();
    cgroup::for_each_process(group, |pid| members.push(pid));
    expect(members == [pid], "a group does not list its one process")?;
    expect(cgroup::is_populated(group)?, "a group with a process is not populated")?;
    process::kill(pid as i32, libc::SIGKILL)?;
    Ends::default().of(pid)?;
    expect(await_empty(group), "a group whose process has ended stays populated")
}

pub fn birth(place: &Place) -> Tried {
    let trial = Trial::begin(place)?;
    let group = trial.group()?;
    let group = group.as_fd();
    let helper = process::fork(|| {
        let born = process::fork_into_group(group, || if cgroup::contains_self(group) { 6 } else { 7 });
        born.map_or_else(|error| error.errno, |_| 0)
    })?;
    let mut ends = Ends::default();
    match ends.of(helper)? {
        (false, 0) => {}
        (_, errno) => return Err(in_helper("clone3", errno)),
    }
    let end = ends.first(|ended| ended.0 != helper)?;
    expect(end == (false, 6), "a process was born in another group than told")
}

pub fn kill(place: &Place) -> Tried {
    let trial = Trial::begin(place)?;
    let group = trial.group()?;
    let pid = member(group.as_fd())?;
    cgroup::kill(group.as_fd())?;
    let end = Ends::default().of(pid)?;
    expect(end == (true, libc::SIGKILL as u8), "a group that was killed has a process")
}

pub fn memory(place: &Place) -> Tried {
    let trial = Trial::begin(place)?;
    if trial.0.has_memory { Ok(()) } else { Err(Finding::Absent("no memory controller here")) }
}
