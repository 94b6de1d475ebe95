//! Checks of processes: how they are made, watched, found and ended. The process that makes a check
//! stands for the guard, what it forks for the supervisor.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, IntoRawFd};

use crate::sys::page::Page;
use crate::sys::proc::{self as proc_of, Quarry};
use crate::sys::process::{self, Ended};
use crate::sys::{clock, file, poll, signal};
use crate::time::Millis;

use super::{Finding, MOMENT_MS, Place, Tried, expect, in_helper, refused};

/// What a process does that is there to be killed: it waits, and ends by itself in the end, should
/// everybody who knows of it be gone.
pub fn linger() -> i32 {
    file::pause(3 * MOMENT_MS);
    0
}

/// Ends of our children, in whatever order they come.
#[derive(Default)]
pub struct Ends(Vec<Ended>);

impl Ends {
    /// Waits for the end of this process: by a signal or not, and its number or the exit code.
    pub fn of(&mut self, pid: u32) -> Result<(bool, u8), Finding> {
        self.first(|ended| ended.0 == pid)
    }

    /// Waits for the end of a child that fits.
    pub fn first(&mut self, fits: impl Fn(&Ended) -> bool) -> Result<(bool, u8), Finding> {
        let until = clock::now() + Millis(MOMENT_MS.into());
        loop {
            while let Some(ended) = process::next_ended() {
                process::reap(ended.0);
                self.0.push(ended);
            }
            if let Some((_, signalled, value)) = self.0.iter().find(|ended| fits(ended)) {
                return Ok((*signalled, *value));
            }
            if clock::now() >= until {
                return Err(Finding::Failed("the end of a child is not told to us"));
            }
            // Returns at its exit where SIGCHLD is told; else the next look finds it.
            signal::wait(Some(clock::now() + Millis(20)));
        }
    }
}

pub fn wait(_: &Place) -> Tried {
    let pid = process::fork(|| 7)?;
    let until = clock::now() + Millis(MOMENT_MS.into());
    while process::next_ended().is_none() && clock::now() < until {
        signal::wait(Some(clock::now() + Millis(20)));
    }
    for _ in 0..2 {
        expect(process::next_ended() == Some((pid, false, 7)), "an exit is not told, or told once only")?;
    }
    process::reap(pid);
    expect(process::next_ended().is_none(), "an exit is told after it was taken")
}

pub fn pidfd(_: &Place) -> Tried {
    let pid = process::fork(linger)?;
    let handle = process::open_process(pid)?;
    expect(!process::has_ended(handle.as_fd()), "a handle says that a living process has ended")?;
    process::signal_process(handle.as_fd(), libc::SIGKILL)?;
    expect(poll::wait_readable(handle.as_fd(), Some(MOMENT_MS)), "a handle does not tell of the exit")?;
    let is_killed = Ends::default().of(pid)? == (true, libc::SIGKILL as u8);
    expect(is_killed, "a signal through a handle did not kill")?;
    let again = process::signal_process(handle.as_fd(), libc::SIGKILL);
    expect(again.is_err_and(|error| error.errno == libc::ESRCH), "a handle on the dead still takes signals")
}

pub fn clone_files(_: &Place) -> Tried {
    // Its exit code is the number it opened; 0, where it could not, is nobody's.
    let pid = process::spawn_supervisor(|| poll::event_counter().map_or(0, IntoRawFd::into_raw_fd))?;
    let (_, number) = Ends::default().of(pid)?;
    let counter = poll::borrow(number.into());
    poll::wake(counter);
    let is_there = number > 2 && poll::wait_readable(counter, Some(0));
    expect(is_there, "what one process opened is not open in the other")
}

pub fn clone_parent(_: &Place) -> Tried {
    let page = Page::create()?;
    let slot = page.job(0);
    let helper = process::fork(|| process::spawn_job(slot, 1, || 5).map_or_else(|error| error.errno, |_| 0))?;
    let mut ends = Ends::default();
    match ends.of(helper)? {
        (false, 0) => {}
        (_, errno) => return Err(in_helper("clone", errno)),
    }
    expect(slot.has_begun(), "the new process did not begin")?;
    let end = ends.of(slot.spawned())?;
    expect(end == (false, 5), "the child of our child did not end as told")
}

pub fn parent_death(_: &Place) -> Tried {
    let (read, write) = file::pipe(false)?;
    let (mut read, mut write) = (File::from(read), File::from(write));
    let parent = process::fork(|| {
        let own = std::process::id();
        let child = process::fork(|| {
            process::die_with(own);
            // From here on it is the only one who keeps the pipe open.
            let _ = write.write_all(b"x");
            linger()
        });
        if child.is_ok() {
            poll::wait_readable(read.as_fd(), Some(MOMENT_MS));
        }
        0
    })?;
    drop(write);
    Ends::default().of(parent)?;
    let mut bytes = [0; 8];
    expect(read.read(&mut bytes).map_err(refused("read"))? == 1, "a process could not be made")?;
    expect(poll::wait_readable(read.as_fd(), Some(MOMENT_MS)), "a process outlives its parent")
}

pub fn subreaper(_: &Place) -> Tried {
    process::become_subreaper()?;
    let parent = process::fork(|| process::fork(|| 6).map_or(1, |_| 0))?;
    let mut ends = Ends::default();
    expect(ends.of(parent)? == (false, 0), "a process could not be made")?;
    match ends.first(|ended| ended.0 != parent) {
        Ok(end) => expect(end == (false, 6), "the orphan did not end as told"),
        Err(_) => Err(Finding::Failed("the orphan did not come to us")),
    }
}

pub fn proc(_: &Place) -> Tried {
    let own = std::process::id();
    let Some(stat) = proc_of::stat(own) else {
        return Err(Finding::Failed("/proc does not know this process: is it mounted?"));
    };
    expect(stat.parent == std::os::unix::process::parent_id(), "/proc has another parent for this process")?;
    expect(proc_of::all().contains(&stat), "/proc does not list this process")?;
    let now = clock::boot_nanos();
    let second = 1_000_000_000;
    let is_born = proc_of::was_born_between(own, now.saturating_sub(60 * second), now);
    expect(is_born, "/proc has another birth for this process than the clock")
}

pub fn trees(_: &Place) -> Tried {
    process::become_subreaper()?;
    let (read, write) = file::pipe(false)?;
    let (mut read, mut write) = (File::from(read), File::from(write));
    let root = process::fork(|| {
        process::new_session();
        let child = process::fork(|| {
            let _ = write.write_all(b"x");
            linger()
        });
        child.map_or(1, |_| linger())
    })?;
    drop(write);
    let mut bytes = [0; 8];
    expect(read.read(&mut bytes).map_err(refused("read"))? == 1, "a process could not be made")?;
    // No process has this marker: they are found as what they are, a session and its descendants.
    let marker = [proc_of::MARKER, "=self-test/trees\0"].concat().into_bytes();
    Quarry { marker, roots: vec![root], ancestor: Some(std::process::id()) }.kill_all();
    let is_gone = poll::wait_readable(read.as_fd(), Some(MOMENT_MS));
    expect(is_gone, "a process that was to be killed is alive")?;
    Ends::default().of(root).map(drop)
}

pub fn close_range(_: &Place) -> Tried {
    let (read, write) = file::pipe(false)?;
    process::fork(|| {
        file::close_all_but(&mut []);
        linger()
    })?;
    drop(write);
    // Its copy was the last writing end.
    expect(poll::wait_readable(read.as_fd(), Some(MOMENT_MS)), "descriptors that were to be closed are open")
}
