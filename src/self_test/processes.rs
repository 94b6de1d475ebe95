//! Checks of processes: how they are made, watched, found and ended. The process that makes a check
//! stands for the guard, what it forks for the supervisor.

use std::os::fd::{AsFd, IntoRawFd};

use crate::sys::page::Page;
use crate::sys::proc::{self as proc_of, Quarry};
use crate::sys::{clock, file, poll, process, signal};
use crate::time::Millis;

use super::Place;
use super::verdict::{KILLED, ends, fork, got, is_readable, linger, must};

pub fn wait(_: &Place) {
    let pid = fork();
    if pid == 0 {
        process::end(7)
    }
    while process::next_ended().is_none() {
        signal::wait(Some(clock::now() + Millis(20)));
    }
    for _ in 0..2 {
        must(process::next_ended() == Some((pid, false, 7)), "an exit is not told, or once only");
    }
    process::reap(pid);
    must(process::next_ended().is_none(), "an exit is told after it was taken");
}

pub fn pidfd(_: &Place) {
    let pid = fork();
    if pid == 0 {
        linger()
    }
    let handle = got(process::open_process(pid));
    let handle = handle.as_fd();
    must(!process::has_ended(handle), "a handle says that the living have ended");
    got(process::signal_process(handle, libc::SIGKILL));
    must(is_readable(handle), "a handle does not tell of the exit");
    must(ends(1) == KILLED, "a handle did not kill");
}

pub fn clone_files(_: &Place) {
    // Its exit code is the number it opened.
    got(process::spawn_supervisor(|| got(poll::event_counter()).into_raw_fd()));
    let counter = poll::borrow(ends(1));
    poll::wake(counter);
    must(poll::wait_readable(counter, Some(0)), "descriptors are not shared");
}

pub fn clone_parent(_: &Place) {
    let page = got(Page::create());
    if fork() == 0 {
        got(process::spawn_job(page.job(0), 1, || 2));
        process::end(3)
    }
    must(ends(2) == 5, "our child's child is not ours");
}

pub fn parent_death(_: &Place) {
    let (read, write) = got(file::pipe(false));
    if fork() == 0 {
        let own = std::process::id();
        if fork() == 0 {
            process::die_with(own);
            // From here on it is the only one who keeps the pipe open.
            poll::wake(write.as_fd());
            linger()
        }
        is_readable(read.as_fd());
        process::end(0)
    }
    drop(write);
    ends(1);
    poll::take_count(read.as_fd());
    must(is_readable(read.as_fd()), "a process outlives its parent");
}

pub fn subreaper(_: &Place) {
    got(process::become_subreaper());
    if fork() == 0 {
        process::end(if fork() == 0 { 6 } else { 1 })
    }
    must(ends(2) == 7, "the orphan did not come to us");
}

pub fn proc(_: &Place) {
    let own = std::process::id();
    let is_listed = proc_of::all()
        .iter()
        .any(|stat| stat.pid == own && stat.parent == std::os::unix::process::parent_id());
    must(is_listed, "this process is not in it: is it mounted?");
    let now = clock::boot_nanos();
    let is_born = proc_of::was_born_between(own, now.saturating_sub(60_000_000_000), now);
    must(is_born, "another birth than by the clock");
}

pub fn trees(_: &Place) {
    got(process::become_subreaper());
    let (read, write) = got(file::pipe(false));
    let root = fork();
    if root == 0 {
        process::new_session();
        if fork() == 0 {
            poll::wake(write.as_fd());
        }
        linger()
    }
    drop(write);
    poll::take_count(read.as_fd());
    // No process has this marker: they are found as what they are, a session and its descendants.
    let marker = b"MULTUSD_ID=self-test/trees\0".to_vec();
    Quarry { marker, roots: vec![root], ancestor: Some(std::process::id()) }.kill_all();
    must(is_readable(read.as_fd()), "a killed process is alive");
}

pub fn close_range(_: &Place) {
    let (read, write) = got(file::pipe(false));
    if fork() == 0 {
        file::close_all_but(&mut []);
        linger()
    }
    drop(write);
    // Its copy was the last writing end.
    must(is_readable(read.as_fd()), "descriptors are open still");
}
