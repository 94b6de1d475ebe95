//! Checks of clocks, memory, waiting and signals.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::sync::atomic::Ordering::SeqCst;

use nix::sys::signal::Signal;

use crate::sys::page::Page;
use crate::sys::poll::{self, Interest, Poller, TIMER};
use crate::sys::signal::{self as signals_of, TermSignal};
use crate::sys::{clock, file, machine, process};
use crate::time::Millis;

use super::processes::Ends;
use super::{MOMENT_MS, Place, Tried, expect, refused};

pub fn clocks(_: &Place) -> Tried {
    let (first, boot) = (clock::now(), clock::boot_nanos());
    file::pause(2);
    expect(clock::now() > first, "the monotonic clock stands still, or goes back")?;
    expect(clock::boot_nanos() > boot, "the boot clock stands still, or goes back")?;
    // They differ by the time the machine was suspended.
    expect(clock::boot_nanos() >= first.0, "the boot clock is behind the monotonic clock")
}

pub fn random(_: &Place) -> Tried {
    expect(machine::kernel_random()? != machine::kernel_random()?, "the same bits twice")
}

pub fn memfd(_: &Place) -> Tried {
    const LENGTH: u32 = 4096;
    let file = File::from(file::sealed_memory(c"multusd-self-test", LENGTH)?);
    for length in [0, 2 * u64::from(LENGTH)] {
        let is_refused = file.set_len(length).is_err_and(|error| error.kind() == ErrorKind::PermissionDenied);
        expect(is_refused, "a sealed memory file changed its size")?;
    }
    let memory = file::memory(c"multusd-self-test")?;
    file::append(memory.as_fd(), b"words")?;
    expect(file::read_memory(memory.as_fd())? == b"words", "a memory file does not keep what is written")?;
    let page = Page::create()?;
    let pid = process::fork(|| {
        page.life.store(0x1234_5678_9abc_def0, SeqCst);
        0
    })?;
    Ends::default().of(pid)?;
    expect(page.life.load(SeqCst) == 0x1234_5678_9abc_def0, "what one process writes, another does not see")
}

pub fn pipe(_: &Place) -> Tried {
    let (read, write) = file::pipe(true)?;
    let (mut read, mut write) = (File::from(read), File::from(write));
    let mut bytes = [0; 8];
    let is_empty = read.read(&mut bytes).is_err_and(|error| error.kind() == ErrorKind::WouldBlock);
    expect(is_empty, "an empty pipe that should not wait gave something else than EAGAIN")?;
    write.write_all(b"words").map_err(refused("write"))?;
    expect(read.read(&mut bytes).map_err(refused("read"))? == 5, "a pipe does not give what was written")?;
    drop(write);
    expect(read.read(&mut bytes).map_err(refused("read"))? == 0, "a pipe without a writer has no end")
}

pub fn eventfd(_: &Place) -> Tried {
    let counter = poll::event_counter()?;
    expect(!poll::wait_readable(counter.as_fd(), Some(0)), "a new counter is readable")?;
    let pid = process::fork(|| {
        poll::wake(counter.as_fd());
        0
    })?;
    expect(poll::wait_readable(counter.as_fd(), Some(MOMENT_MS)), "another process's wake is not seen")?;
    poll::take_count(counter.as_fd());
    expect(!poll::wait_readable(counter.as_fd(), Some(0)), "a counter that was emptied is readable")?;
    Ends::default().of(pid).map(drop)
}

pub fn epoll(_: &Place) -> Tried {
    let mut poller = Poller::new()?;
    let (read, write) = file::pipe(false)?;
    poller.add(read.as_fd(), 7, Interest::Once)?;
    expect(poller.wait(false).is_empty(), "an empty pipe is ready")?;
    File::from(write).write_all(b"x").map_err(refused("write"))?;
    expect(poller.wait(false) == [7], "a pipe with something in it is not ready")?;
    expect(poller.wait(false).is_empty(), "readiness that is to be said once is said again")?;
    poller.remove(read.as_fd());
    Ok(())
}

pub fn timer(_: &Place) -> Tried {
    let (span, too_long) = (Millis(20), Millis(1000));
    let took = |since| clock::now().since(since);
    let mut poller = Poller::new()?;
    let start = clock::now();
    poller.arm(Some(start + span))?;
    expect(poller.wait(true) == [TIMER], "something else than the timer ended the wait")?;
    expect(took(start) >= span, "the timer fired before its time")?;
    expect(took(start) < too_long, "the timer fired a second late")?;
    signals_of::block()?;
    let start = clock::now();
    expect(signals_of::wait(Some(start + span)).is_none(), "a signal came that nobody sent")?;
    expect(took(start) >= span, "sigtimedwait returned before its time")?;
    expect(took(start) < too_long, "sigtimedwait returned a second late")
}

pub fn signals(_: &Place) -> Tried {
    signals_of::block()?;
    let own = std::process::id() as i32;
    for signal in [Signal::SIGUSR1, Signal::SIGHUP] {
        process::kill(own, signal as i32)?;
    }
    let until = clock::now() + Millis(MOMENT_MS.into());
    let mut taken = [signals_of::wait(Some(until)), signals_of::wait(Some(until))];
    taken.sort();
    let mut wanted = [Some(Signal::SIGUSR1), Some(Signal::SIGHUP)];
    wanted.sort();
    expect(taken == wanted, "blocked signals are lost")
}

pub fn signalfd(_: &Place) -> Tried {
    signals_of::block()?;
    let term = TermSignal::new()?;
    expect(!poll::wait_readable(term.as_fd(), Some(0)), "a signal came that nobody sent")?;
    process::kill(std::process::id() as i32, Signal::SIGTERM as i32)?;
    expect(poll::wait_readable(term.as_fd(), Some(MOMENT_MS)), "a signal that was sent is not seen")
}
