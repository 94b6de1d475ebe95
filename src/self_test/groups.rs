//! Checks of control groups, in one of our own below the group we are in, which the runner removes again.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::sys::cgroup::{self, Hierarchy};
use crate::sys::{clock, file, poll, process};

use super::Place;
use super::verdict::{KILLED, Verdict, ends, fork, got, is_readable, linger, must, soon, tell};

fn hierarchy(place: &Place) -> Hierarchy {
    match Hierarchy::open_for_trial(&place.name) {
        Ok(hierarchy) => hierarchy,
        Err(why) => tell(Verdict::Absent, &why),
    }
}

fn trial(place: &Place) -> OwnedFd {
    got(hierarchy(place).group("trial"))
}

/// A process that has joined the group and waits there to be killed.
fn member(group: BorrowedFd) -> u32 {
    let (read, write) = got(file::pipe(false));
    let pid = fork();
    if pid == 0 {
        got(cgroup::join(group));
        must(cgroup::contains(group, std::process::id()), "its process is not listed");
        // Whoever waits sees by it that we are in the group.
        poll::wake(write.as_fd());
        linger()
    }
    is_readable(read.as_fd());
    pid
}

pub fn group(place: &Place) {
    let group = trial(place);
    let group = group.as_fd();
    must(!got(cgroup::is_populated(group)), "a new group is populated");
    let pid = member(group);
    must(got(cgroup::is_populated(group)), "with a process it is not populated");
    process::kill_if_there(pid as i32, libc::SIGKILL);
    ends(1);
    let until = soon();
    while got(cgroup::is_populated(group)) {
        must(clock::now() < until, "it stays populated");
        cgroup::wait_until_changed(group);
    }
}

pub fn birth(place: &Place) {
    let group = trial(place);
    let group = group.as_fd();
    if fork() == 0 {
        if got(process::fork_into_group(group)).is_none() {
            must(cgroup::contains(group, std::process::id()), "born in another group");
        }
        process::end(3)
    }
    must(ends(2) == 6, "the process did not end as told");
}

pub fn kill(place: &Place) {
    let group = trial(place);
    member(group.as_fd());
    got(cgroup::kill(group.as_fd()));
    must(ends(1) == KILLED, "a process in it is alive");
}

pub fn memory(place: &Place) {
    if !hierarchy(place).has_memory {
        tell(Verdict::Absent, "no memory controller here")
    }
}
