//! The one table of checks, in the order in which they are made: what others rest on comes first.

use super::{Place, files, groups, memory, processes, sockets, starts};

/// Whether multusd can do without.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Without it multusd does not keep its promises.
    Required,
    /// Without it multusd does less, and says so.
    Helpful,
}
use Need::{Helpful, Required};

/// What a check is made in.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum In {
    /// Anything.
    Any,
    /// The fresh directory.
    Dir,
    /// A control group that it makes.
    Group,
}
use In::{Any, Dir, Group};

/// One check.
pub struct Check {
    /// Its name, which is promised to scripts; what it tries; and what is lost, the rest of a sentence
    /// that begins with "Without it".
    text: &'static str,
    /// Makes it, in a process of its own.
    pub run: fn(&Place),
    /// Whether multusd can do without.
    pub need: Need,
    /// What it is made in.
    pub within: In,
}

impl Check {
    /// Its name, what it tries, what is lost without.
    pub fn words(&self) -> [&'static str; 3] {
        let mut words = self.text.split('|');
        [(); 3].map(|()| words.next().unwrap_or_default())
    }

    /// Its name.
    pub fn name(&self) -> &'static str {
        self.words()[0]
    }
}

const fn check(text: &'static str, need: Need, within: In, run: fn(&Place)) -> Check {
    Check { text, run, need, within }
}

/// The checks.
#[rustfmt::skip]
pub const CHECKS: &[Check] = &[
    check("clock|clock_gettime|no deadline can be kept", Required, Any, memory::clocks),
    check("time64|a file's time in 2045|times after January 2038 are shown wrong", Helpful, Dir, files::time64),
    check("memfd|shared, sealed memory|nothing could be left to the successor of a supervisor that died", Required, Any, memory::memfd),
    check("epoll|epoll|the supervisor could not wait", Required, Any, memory::epoll),
    check("timer|timerfd, sigtimedwait|no deadline can be kept", Required, Any, memory::timer),
    check("signals|sigprocmask, sigtimedwait|the guard would miss exits and orders", Required, Any, memory::signals),
    check("signalfd|signalfd|log writer and multusctl could not be ended in order", Required, Any, memory::signalfd),
    check("wait|waitid with WNOWAIT|an exit could be taken for another process's", Required, Any, processes::wait),
    check("pidfd|Linux 5.3|exits would not be heard of, and signals could hit strangers", Required, Any, processes::pidfd),
    check("clone-files|CLONE_FILES, eventfd|programs' outputs and sockets would die with the supervisor", Required, Any, processes::clone_files),
    check("clone-parent|CLONE_PARENT|programs would be orphans when the supervisor dies", Required, Any, processes::clone_parent),
    check("parent-death|PR_SET_PDEATHSIG|jobs of a dead multusd would go on", Required, Any, processes::parent_death),
    check("subreaper|PR_SET_CHILD_SUBREAPER|processes that a program left could escape", Required, Any, processes::subreaper),
    check("proc|/proc|a program's processes would not be found", Required, Any, processes::proc),
    check("trees|SIGSTOP, SIGKILL, /proc|a stop without control groups would leave processes behind", Required, Any, processes::trees),
    check("close-range|Linux 5.9|programs would inherit what is not theirs", Required, Any, processes::close_range),
    check("exec|a program, and one that is not there|nothing could be started", Required, Any, starts::exec),
    check("limits|limits, umask, oom_score_adj, no_new_privs|programs with these keys do not start", Helpful, Any, starts::limits),
    check("scheduling|nice, scheduling, cpu_affinity, ioprio|programs with these keys do not start", Helpful, Any, starts::scheduling),
    check("identity|setgroups, setresgid, setresuid|programs with the key user do not start", Helpful, Any, starts::identity),
    check("capabilities|capset, PR_CAP_AMBIENT|programs with the key capabilities do not start", Helpful, Any, starts::capabilities),
    check("flock|flock|two instances could run in one directory", Required, Dir, files::flock),
    check("atomic-file|fsync, rename|a power cut could leave half a configuration", Required, Dir, files::atomic),
    check("life-file|posix_fallocate, mmap|what a killed multusd left would not be found", Required, Dir, files::life),
    check("inotify|inotify|a forking program's pid file is noticed up to 100 ms late", Helpful, Dir, files::inotify),
    check("control-socket|SOCK_SEQPACKET, SO_PEERCRED, socketpair|multusctl could not reach multusd", Required, Dir, sockets::control),
    check("peer-groups|SO_PEERGROUPS; Linux 4.13|control_group lets nobody in", Helpful, Dir, sockets::groups),
    check("notify-socket|SO_PASSCRED|programs of type notify would never be ready", Required, Dir, sockets::notify),
    check("cgroup|control groups, version 2|processes are found by session and environment instead", Helpful, Group, groups::group),
    check("clone-into-cgroup|Linux 5.7|a start takes some milliseconds longer", Helpful, Group, groups::birth),
    check("cgroup-kill|Linux 5.14|a group is frozen and killed one by one", Helpful, Group, groups::kill),
    check("cgroup-memory|on a Raspberry Pi: cgroup_enable=memory in cmdline.txt|memory_max has no effect", Helpful, Group, groups::memory),
];
