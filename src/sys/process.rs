//! Makes processes: the supervisor, helpers of it, and programs. Without vfork (the caller would
//! wait for the child), and always as children of the guard (CLONE_PARENT), so that whoever of
//! them dies, and whoever of ours, one process hears of it.
//!
//! Between clone and exec a child shares nothing with us but the adoption page: it makes system
//! calls and writes its slot, allocates nothing and takes no lock.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;
use std::sync::atomic::Ordering::SeqCst;

use super::exec::become_program;
use super::page::Slot;
use super::{SysError, check, clock};
use crate::time::{Instant, Millis};

pub use super::exec::{EXTRA_COUNT_MAX, Identity, Recipe, Stage, Wiring};
/// clone3(2)'s arguments, as of Linux 5.7 (CLONE_INTO_CGROUP).
#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Clones this process into a control group; `Ok(None)` in the new one.
///
/// # Safety
/// As [`clone`].
unsafe fn clone_into(flags: libc::c_int, cgroup: BorrowedFd) -> Result<Option<u32>, SysError> {
    // Into the group by birth: moving a process into a group takes a lock that can cost tens
    // of milliseconds. The exit signal must be 0 with CLONE_PARENT (it is the parent's).
    let args = CloneArgs {
        flags: flags as u64 | CLONE_INTO_CGROUP,
        cgroup: cgroup.as_raw_fd() as u64,
        ..CloneArgs::default()
    };
    // SAFETY: the structure is valid and its size is given; no stack or thread pointers.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &args, size_of::<CloneArgs>()) };
    match check("clone3", pid as libc::c_int)? {
        0 => Ok(None),
        pid => Ok(Some(pid as u32)),
    }
}

/// Clones this process; `Ok(None)` in the new one.
///
/// # Safety
/// This process has one thread. The new one runs on a copy of the memory.
unsafe fn clone(flags: libc::c_int, cgroup: Option<BorrowedFd>) -> Result<Option<u32>, SysError> {
    if let Some(cgroup) = cgroup {
        // SAFETY: the caller's promise.
        match unsafe { clone_into(flags, cgroup) } {
            Ok(process) => return Ok(process),
            // Want of memory or of process numbers is the same for every kind of clone.
            Err(error) if error.errno == libc::EAGAIN || error.errno == libc::ENOMEM => return Err(error),
            // A sandbox forbids clone3 (ENOSYS, EPERM), an old kernel does not know the flag (E2BIG,
            // EINVAL), the group takes none this way (EBUSY, ENODEV): the child moves itself.
            Err(_) => {}
        }
    }
    // SAFETY: as fork(2), with the caller's flags; null stack means a copy of this one.
    let pid = unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) };
    match check("clone", pid as libc::c_int)? {
        0 => Ok(None),
        pid => Ok(Some(pid as u32)),
    }
}

/// Starts the supervisor: a copy of the guard that shares its descriptor table, so that whatever
/// the supervisor opens survives it under the same number. `run` never returns.
pub fn spawn_supervisor(run: impl FnOnce() -> i32) -> Result<u32, SysError> {
    // SAFETY: the guard has one thread.
    match unsafe { clone(libc::CLONE_FILES | libc::SIGCHLD, None) }? {
        Some(pid) => Ok(pid),
        None => end(run()),
    }
}

/// Starts a copy of this process that shares nothing with it and goes on beside it, as fork(2) does;
/// `None` in the copy. This process has one thread.
pub fn fork() -> Result<Option<u32>, SysError> {
    // SAFETY: one thread, as said; the flags are fork's.
    unsafe { clone(libc::SIGCHLD, None) }
}

/// The same as a child of our parent, born in a control group (CLONE_INTO_CGROUP, Linux 5.7), without
/// the other way that [`spawn`] has where the kernel refuses.
pub fn fork_into_group(group: BorrowedFd) -> Result<Option<u32>, SysError> {
    // SAFETY: one thread, as for `fork`.
    unsafe { clone_into(libc::CLONE_PARENT, group) }
}

/// Whether a program that this process turns into has the descriptor, too (fcntl(2), FD_CLOEXEC).
pub fn set_inherited(number: i32, inherited: bool) {
    // SAFETY: integers; a number that is not open is an error and no more.
    unsafe { libc::fcntl(number, libc::F_SETFD, if inherited { 0 } else { libc::FD_CLOEXEC }) };
}

/// From now on this process is killed when its parent dies (PR_SET_PDEATHSIG). False: it has died
/// already, before it could say anything by that.
pub fn die_with(parent: u32) -> bool {
    // SAFETY: plain prctl with integers.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
    std::os::unix::process::parent_id() == parent
}

/// No more: it lives on without its parent.
pub fn live_on() {
    // SAFETY: integers only.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, 0) };
}

/// Ends this process at once, without running anything that belongs to the parent's copy.
pub fn end(code: i32) -> ! {
    // SAFETY: _exit(2) only ends the process.
    unsafe { libc::_exit(code) }
}

/// Clones a child of the guard that holds the slot; what it does is `run`, which never returns.
fn spawn_child(
    slot: &Slot,
    serial: u32,
    flags: libc::c_int,
    birthplace: Option<BorrowedFd>,
    run: impl FnOnce(),
) -> Result<u32, SysError> {
    // SAFETY: the supervisor has one thread.
    match unsafe { clone(libc::CLONE_PARENT | flags, birthplace) } {
        Ok(Some(pid)) => {
            // It does so itself too; what is said of the slot from here on is true at once.
            slot.claim(serial, pid);
            Ok(pid)
        }
        Ok(None) => {
            if flags & libc::CLONE_FILES == 0 {
                super::reserve::release_all();
            }
            slot.born_before.store(clock::boot_nanos(), SeqCst);
            if slot.claim(serial, std::process::id()) {
                run();
            }
            end(0)
        }
        Err(error) => {
            slot.settle();
            Err(error)
        }
    }
}

/// Starts a copy of this process as the guard's child that runs `job` and ends with its result.
/// It dies with the guard. Used for what may wait: storage, /proc, name lookups.
pub fn spawn_job(slot: &Slot, generation: u32, job: impl FnOnce() -> i32) -> Result<u32, SysError> {
    spawn_sharing(slot, generation, 0, job)
}

/// The same for a job that goes on when this supervisor ends, and shares the guard's descriptors with
/// whichever supervisor there is: it sees what they open, and what it opens and keeps is theirs. It must
/// close nothing.
pub fn spawn_helper(slot: &Slot, generation: u32, job: impl FnOnce() -> i32) -> Result<u32, SysError> {
    spawn_sharing(slot, generation, libc::CLONE_FILES, job)
}

fn spawn_sharing(
    slot: &Slot,
    generation: u32,
    flags: libc::c_int,
    job: impl FnOnce() -> i32,
) -> Result<u32, SysError> {
    let serial = announce(slot, generation);
    let guard = std::os::unix::process::parent_id();
    spawn_child(slot, serial, flags, None, || end(if die_with(guard) { job() } else { 0 }))
}

/// Starts a program as the guard's child. Success means that the process exists; whether its
/// program could be started shows in the slot: `failure` says where it got stuck.
pub fn spawn(slot: &Slot, generation: u32, recipe: &Recipe, wiring: &Wiring) -> Result<u32, SysError> {
    let serial = announce(slot, generation);
    let birthplace = wiring.cgroup.filter(|_| wiring.born_in_cgroup);
    let spawned = spawn_child(slot, serial, 0, birthplace, || {
        if let Some(record) = wiring.life {
            record.write(std::process::id(), slot.born_after.load(SeqCst), slot.born_before.load(SeqCst));
        }
        turn_into(slot, recipe, wiring);
        end(127)
    });
    if let Err(error) = spawned {
        slot.record_failure(serial, Stage::Clone as u8, error.errno);
    }
    spawned
}

/// In a process that has claimed the slot: becomes the program. Returns only where that could not
/// be; why is in the slot then.
pub fn turn_into(slot: &Slot, recipe: &Recipe, wiring: &Wiring) {
    let (stage, errno) = become_program(recipe, wiring);
    slot.record_failure(slot.process().0, stage as u8, errno);
}

fn announce(slot: &Slot, generation: u32) -> u32 {
    slot.spawned_at.store(clock::now().0, SeqCst);
    slot.born_after.store(clock::boot_nanos(), SeqCst);
    slot.born_before.store(u64::MAX, SeqCst);
    slot.announce(generation)
}

/// A handle on a process that cannot come to mean another (pidfd_open(2)).
pub fn open_process(pid: u32) -> Result<OwnedFd, SysError> {
    // SAFETY: integers; the descriptor returned is ours.
    unsafe {
        let number = check("pidfd_open", libc::syscall(libc::SYS_pidfd_open, pid, 0) as libc::c_int)?;
        Ok(OwnedFd::from_raw_fd(number))
    }
}

/// Whether the process has ended, reaped or not.
pub fn has_ended(process: BorrowedFd) -> bool {
    super::poll::wait_readable(process, Some(0))
}

/// Sends a signal through a handle (pidfd_send_signal(2)).
pub fn signal_process(process: BorrowedFd, signal: i32) -> Result<(), SysError> {
    // SAFETY: a valid descriptor, an integer, no siginfo.
    let result = unsafe {
        libc::syscall(libc::SYS_pidfd_send_signal, process.as_raw_fd(), signal, ptr::null::<u8>(), 0)
    };
    check("pidfd_send_signal", result as libc::c_int).map(drop)
}

/// Sends a signal to a process id, or to a group where it is negative (kill(2)).
pub fn kill(pid: i32, signal: i32) -> Result<(), SysError> {
    // −1 and 0 would mean everybody, or ourselves, as would our own group.
    if pid == 0 || pid == -1 || pid == -nix::unistd::getpgrp().as_raw() {
        return Err(SysError { operation: "kill", errno: libc::ESRCH });
    }
    // SAFETY: integers.
    check("kill", unsafe { libc::kill(pid, signal) }).map(drop)
}

/// The same; nobody there is no error.
pub fn kill_if_there(pid: i32, signal: i32) {
    let _ = kill(pid, signal);
}

/// The process group of a process (getpgid(2)), unless that is our own: a process that has only just
/// been made is in it still, and a signal to it would be one to ourselves.
pub fn group_of(pid: u32) -> Option<i32> {
    let group = nix::unistd::getpgid(Some(nix::unistd::Pid::from_raw(pid as i32))).ok()?;
    (group != nix::unistd::getpgrp()).then_some(group.as_raw())
}

/// The session of a process (getsid(2)), unless that is our own: see [`group_of`]. Who belongs to it descends
/// from who began it.
pub fn session_of(pid: u32) -> Option<i32> {
    let session = nix::unistd::getsid(Some(nix::unistd::Pid::from_raw(pid as i32))).ok()?;
    (nix::unistd::getsid(None) != Ok(session)).then_some(session.as_raw())
}

/// Lets whoever else is ready to run do so.
pub fn give_way() {
    // SAFETY: no arguments.
    unsafe { libc::sched_yield() };
}

/// How one process ended: (pid, by a signal, code or signal number).
pub type Ended = (u32, bool, u8);

/// The next ended child, left unreaped so that its number stays its own until [`reap`].
pub fn next_ended() -> Option<Ended> {
    // SAFETY: `info` is a valid siginfo_t to write; with WNOHANG and no child it stays zeroed.
    unsafe {
        let mut info = std::mem::zeroed::<libc::siginfo_t>();
        let flags = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
        check("waitid", libc::waitid(libc::P_ALL, 0, &mut info, flags)).ok()?;
        let pid = info.si_pid() as u32;
        (pid != 0).then(|| (pid, info.si_code != libc::CLD_EXITED, info.si_status() as u8))
    }
}

/// Takes the ended child away (waitpid(2)).
pub fn reap(pid: u32) {
    // SAFETY: integers; no status wanted.
    unsafe { libc::waitpid(pid as libc::pid_t, ptr::null_mut(), libc::WNOHANG) };
}

/// Waits for the end of a child of ours, and takes it away; its status (waitpid(2)), 0 where all was well, -1 where it is none.
pub fn wait_for(pid: u32) -> i32 {
    let mut status = -1;
    // SAFETY: integers, and one that lives across the call.
    unsafe { libc::waitpid(pid as libc::pid_t, &mut status, 0) };
    status
}

/// The same, but a child that has not ended within `timeout_ms` is killed.
pub fn wait_for_at_most(pid: u32, timeout_ms: u16) -> i32 {
    let ends =
        |handle: OwnedFd| super::poll::wait_readable(std::os::fd::AsFd::as_fd(&handle), Some(timeout_ms));
    if !open_process(pid).is_ok_and(ends) {
        kill_if_there(pid as i32, libc::SIGKILL);
    }
    wait_for(pid)
}

/// Kills the children of this process, and those that come to it as orphans meanwhile, until none
/// is left or the time has come: one in state D cannot be killed. True: none is left. SIGCHLD is blocked.
pub fn kill_children(until: Instant) -> bool {
    let own = std::process::id();
    loop {
        while let Some((pid, ..)) = next_ended() {
            reap(pid);
        }
        let mut is_alone = true;
        for stat in super::proc::all() {
            if stat.parent == own {
                kill_if_there(stat.pid as i32, libc::SIGKILL);
                is_alone = false;
            }
        }
        if is_alone || clock::now() >= until {
            return is_alone;
        }
        super::signal::wait(Some(clock::now() + Millis(1000)));
    }
}

/// This process adopts the orphans among its descendants (PR_SET_CHILD_SUBREAPER).
pub fn become_subreaper() -> Result<(), SysError> {
    // SAFETY: plain prctl with integers.
    check("prctl(PR_SET_CHILD_SUBREAPER)", unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) })
        .map(drop)
}

/// Names this process in /proc/PID/comm (at most 15 bytes).
pub fn set_title(title: &std::ffi::CStr) {
    // SAFETY: a C string of any length; the kernel truncates.
    unsafe { libc::prctl(libc::PR_SET_NAME, title.as_ptr(), 0, 0, 0) };
}

/// Detaches from the terminal: signals typed there are the guard's to hear.
pub fn new_session() {
    // SAFETY: no arguments.
    unsafe { libc::setsid() };
}

/// From now on this process runs before all of lower real-time priority (SCHED_FIFO; 0: as everybody). Never what
/// is forked from it (SCHED_RESET_ON_FORK).
pub fn set_real_time(priority: u8) -> Result<(), SysError> {
    let policy = if priority == 0 { libc::SCHED_OTHER } else { libc::SCHED_FIFO } | libc::SCHED_RESET_ON_FORK;
    // SAFETY: zero is a value of every field; the structure lives across the call. (musl's wrapper always fails.)
    let result = unsafe {
        let mut parameter = std::mem::zeroed::<libc::sched_param>();
        parameter.sched_priority = priority.into();
        libc::syscall(libc::SYS_sched_setscheduler, 0, policy, &parameter)
    };
    check("sched_setscheduler", result as libc::c_int).map(drop)
}

/// Runs with root's powers.
pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}
