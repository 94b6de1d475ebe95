//! Checks of clocks, memory, waiting and signals.

use std::os::fd::AsFd;
use std::sync::atomic::Ordering::SeqCst;

use nix::sys::signal::Signal;

use crate::sys::page::Page;
use crate::sys::poll::{self, Interest, Poller, TIMER};
use crate::sys::signal::{self as signals_of, TermSignal};
use crate::sys::{clock, file, memory, process};
use crate::time::{Instant, Millis};

use super::Place;
use super::verdict::{ends, fork, got, is_readable, must, soon};

pub fn clocks(_: &Place) {
    let (first, boot) = (clock::now(), clock::boot_nanos());
    file::pause(2);
    let (now, boot_now) = (clock::now(), clock::boot_nanos());
    must(now > first && boot_now > boot, "a clock stands still");
    // They differ by the time the machine was suspended.
    must(boot_now >= now.0, "the boot clock is behind");
}

pub fn memfd(_: &Place) {
    let file = got(file::sealed_memory(c"multusd-self-test", 4096));
    for length in [0, 8192] {
        let result = nix::unistd::ftruncate(file.as_fd(), length);
        must(result == Err(nix::errno::Errno::EPERM), "a sealed file changed its size");
    }
    let page = got(Page::create());
    if fork() == 0 {
        page.life.store(7, SeqCst);
        process::end(0)
    }
    ends(1);
    must(page.life.load(SeqCst) == 7, "it is not shared");
}

/// What is given back after a start is the executable's to the last byte, and nobody's to write.
pub fn own_memory(_: &Place) {
    let maps = got(file::read("/proc/self/maps".as_ref()));
    let parts = memory::unwritten();
    must(!parts.is_empty(), "no constants and no code");
    for (start, end) in parts {
        let mut known = 0;
        for line in maps.split(|byte| *byte == b'\n') {
            let hexadecimal = |text: &str| usize::from_str_radix(text, 16).ok();
            let mut words = core::str::from_utf8(line).unwrap_or("").split_ascii_whitespace();
            let Some((from, until)) = words.next().and_then(|range| range.split_once('-')) else { continue };
            let (Some(from), Some(until)) = (hexadecimal(from), hexadecimal(until)) else { continue };
            let overlap = until.min(end).saturating_sub(from.max(start));
            must(
                overlap == 0 || words.next().is_some_and(|rights| rights.as_bytes()[1] == b'-'),
                "it is written to",
            );
            known += overlap;
        }
        must(known == end - start, "it has holes");
    }
}

pub fn epoll(_: &Place) {
    let mut poller = got(Poller::new());
    let (read, write) = got(file::pipe(false));
    got(poller.add(read.as_fd(), 7, Interest::Once));
    must(poller.wait(false).is_empty(), "an empty pipe is ready");
    poll::wake(write.as_fd());
    must(*poller.wait(false) == [7], "a full pipe is not ready");
    must(poller.wait(false).is_empty(), "what is to be said once is said again");
}

/// Not before its time, and not a second late.
fn in_time(since: Instant) {
    let took = clock::now().since(since);
    must(took >= Millis(20) && took < Millis(1000), "a wait ended early, or a second late");
}

pub fn timer(_: &Place) {
    let mut poller = got(Poller::new());
    let start = clock::now();
    got(poller.arm(Some(start + Millis(20))));
    must(*poller.wait(true) == [TIMER], "something else ended the wait");
    in_time(start);
    let start = clock::now();
    must(signals_of::wait(Some(start + Millis(20))).is_none(), "a signal came that nobody sent");
    in_time(start);
}

fn send_self(signal: Signal) {
    got(process::kill(std::process::id() as i32, signal as i32));
}

pub fn signals(_: &Place) {
    got(signals_of::block());
    send_self(Signal::SIGUSR1);
    send_self(Signal::SIGHUP);
    // The lowest number first.
    for wanted in [Signal::SIGHUP, Signal::SIGUSR1] {
        must(signals_of::wait(Some(soon())) == Some(wanted), "blocked signals are lost");
    }
}

pub fn signalfd(_: &Place) {
    let term = got(TermSignal::new());
    must(!poll::wait_readable(term.as_fd(), Some(0)), "a signal came that nobody sent");
    send_self(Signal::SIGTERM);
    must(is_readable(term.as_fd()), "a signal is not seen");
}
