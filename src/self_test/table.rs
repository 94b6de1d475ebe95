//! The one table of checks, in the order in which they are made: what others rest on comes first.

use super::{Place, Tried, files, groups, memory, processes, sockets, starts};

/// Whether multusd can do without.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Without it multusd does not keep its promises.
    Required,
    /// Without it multusd does less, and says so.
    Helpful,
}
use Need::{Helpful, Required};

/// One check. Names are promised to scripts.
pub struct Check {
    /// Its name.
    pub name: &'static str,
    /// Whether multusd can do without.
    pub need: Need,
    /// What it tries: a phrase.
    pub what: &'static str,
    /// What is lost: the rest of a sentence that begins with "Without it".
    pub lost: &'static str,
    /// Makes it, in a process of its own.
    pub run: fn(&Place) -> Tried,
    /// It makes a control group.
    pub in_group: bool,
}

const fn check(
    name: &'static str,
    need: Need,
    run: fn(&Place) -> Tried,
    what: &'static str,
    lost: &'static str,
) -> Check {
    Check { name, need, what, lost, run, in_group: false }
}

const fn in_group(check: Check) -> Check {
    Check { in_group: true, ..check }
}

/// The checks.
pub const CHECKS: &[Check] = &[
    check(
        "clock",
        Required,
        memory::clocks,
        "monotonic and boot clock go forward (clock_gettime)",
        "no deadline can be kept",
    ),
    check(
        "time64",
        Helpful,
        files::time64,
        "a file's time in 2045 is kept and read as it was set (utimensat, statx)",
        "times after January 2038 are shown wrong",
    ),
    check(
        "random",
        Helpful,
        memory::random,
        "random bits without waiting (getrandom)",
        "lives of multusd are told apart by clock and process number only",
    ),
    check(
        "memfd",
        Required,
        memory::memfd,
        "memory shared between processes, whose file is sealed (memfd_create, F_ADD_SEALS, mmap)",
        "nothing could be left to the successor of a supervisor that died",
    ),
    check("pipe", Required, memory::pipe, "pipes (pipe2)", "programs would have no output"),
    check(
        "eventfd",
        Required,
        memory::eventfd,
        "a counter that wakes another process (eventfd)",
        "the guard could not tell the supervisor of an exit",
    ),
    check(
        "epoll",
        Required,
        memory::epoll,
        "waiting for many descriptors at once (epoll)",
        "the supervisor could not wait",
    ),
    check(
        "timer",
        Required,
        memory::timer,
        "waits that end in time and not before (timerfd, sigtimedwait)",
        "no deadline can be kept",
    ),
    check(
        "signals",
        Required,
        memory::signals,
        "blocked signals stay until they are taken (sigprocmask, sigtimedwait)",
        "the guard would miss exits and orders",
    ),
    check(
        "signalfd",
        Required,
        memory::signalfd,
        "a signal as something to poll (signalfd)",
        "log writer and multusctl could not be ended in order",
    ),
    check(
        "wait",
        Required,
        processes::wait,
        "an exit is seen before its number is free (waitid with WNOWAIT)",
        "an exit could be taken for another process's",
    ),
    check(
        "pidfd",
        Required,
        processes::pidfd,
        "handles on processes (pidfd_open, pidfd_send_signal; Linux 5.3)",
        "the supervisor would not hear of exits, and signals could hit strangers",
    ),
    check(
        "clone-files",
        Required,
        processes::clone_files,
        "two processes share their descriptors (CLONE_FILES)",
        "outputs and sockets of programs would die with the supervisor",
    ),
    check(
        "clone-parent",
        Required,
        processes::clone_parent,
        "a process makes children for its parent (CLONE_PARENT)",
        "programs would be orphans when the supervisor dies",
    ),
    check(
        "parent-death",
        Required,
        processes::parent_death,
        "a process dies with its parent (PR_SET_PDEATHSIG)",
        "jobs of a dead multusd would go on",
    ),
    check(
        "subreaper",
        Required,
        processes::subreaper,
        "orphans come to us (PR_SET_CHILD_SUBREAPER)",
        "processes that a program left could escape",
    ),
    check(
        "proc",
        Required,
        processes::proc,
        "/proc tells of processes, their parents and their birth",
        "processes of a program, and those of a former life, would not be found",
    ),
    check(
        "trees",
        Required,
        processes::trees,
        "a process and what it forked are found and killed (SIGSTOP, SIGKILL, /proc)",
        "without control groups a stop would leave processes behind",
    ),
    check(
        "close-range",
        Required,
        processes::close_range,
        "many descriptors closed at once (close_range; Linux 5.9)",
        "programs would inherit what is not theirs, and a dead supervisor's descriptors would stay open",
    ),
    check(
        "start-failure",
        Required,
        starts::failure,
        "a program that cannot be started says at which step and why",
        "a wrong path would look like a crash",
    ),
    check(
        "exec",
        Required,
        starts::exec,
        "a program is started with its environment and directory, and its exit code comes back (execve)",
        "nothing could be started",
    ),
    check(
        "limits",
        Helpful,
        starts::limits,
        "limits, umask, oom_score_adj and no_new_privs (prlimit, prctl)",
        "programs with these keys do not start",
    ),
    check(
        "scheduling",
        Helpful,
        starts::scheduling,
        "nice, scheduling, cpu_affinity and ioprio",
        "programs with these keys do not start",
    ),
    check(
        "identity",
        Helpful,
        starts::identity,
        "a program runs as another user (setgroups, setresgid, setresuid)",
        "programs with the key user do not start",
    ),
    check(
        "capabilities",
        Helpful,
        starts::capabilities,
        "a program keeps some of root's powers (capset, PR_CAPBSET_DROP, PR_CAP_AMBIENT)",
        "programs with the key capabilities do not start",
    ),
    check(
        "directory",
        Required,
        files::directory,
        "directories with permissions of their own (mkdir, chmod)",
        "there is no place for the control socket",
    ),
    check(
        "flock",
        Required,
        files::flock,
        "locks on files (flock)",
        "two instances could run in one directory",
    ),
    check(
        "atomic-file",
        Required,
        files::atomic,
        "a file is replaced as a whole (fsync, rename)",
        "a power cut could leave half a configuration",
    ),
    check(
        "life-file",
        Required,
        files::life,
        "a file that processes write by memory (posix_fallocate, mmap)",
        "what a killed multusd left would not be found",
    ),
    check(
        "inotify",
        Helpful,
        files::inotify,
        "news of a file that appears (inotify)",
        "the pid file of a forking program is noticed up to 100 ms late",
    ),
    check(
        "users",
        Helpful,
        files::users,
        "/etc/passwd names root",
        "users and groups can be given by number only",
    ),
    check(
        "control-socket",
        Required,
        sockets::control,
        "packets between processes, and who sent them (SOCK_SEQPACKET, SO_PEERCRED)",
        "multusctl could not reach multusd",
    ),
    check(
        "peer-groups",
        Helpful,
        sockets::groups,
        "the groups of whoever connects (SO_PEERGROUPS; Linux 4.13)",
        "control_group lets nobody in",
    ),
    check(
        "notify-socket",
        Required,
        sockets::notify,
        "messages that carry who sent them (SOCK_DGRAM, SO_PASSCRED)",
        "programs of type notify would never be ready",
    ),
    check(
        "socket-pair",
        Required,
        sockets::pair,
        "two connected sockets (socketpair)",
        "programs that tell their readiness by a descriptor would never be ready",
    ),
    in_group(check(
        "cgroup",
        Helpful,
        groups::group,
        "control groups, version 2: one is made, joined and emptied",
        "the processes of a program are found by session and environment instead",
    )),
    in_group(check(
        "clone-into-cgroup",
        Helpful,
        groups::birth,
        "a process is born in its control group (CLONE_INTO_CGROUP; Linux 5.7)",
        "a start takes some milliseconds longer",
    )),
    in_group(check(
        "cgroup-kill",
        Helpful,
        groups::kill,
        "a control group is killed at once (cgroup.kill; Linux 5.14)",
        "its processes are frozen and killed one by one",
    )),
    in_group(check(
        "cgroup-memory",
        Helpful,
        groups::memory,
        "the memory controller (on a Raspberry Pi: cgroup_enable=memory in cmdline.txt)",
        "memory_max has no effect",
    )),
];
