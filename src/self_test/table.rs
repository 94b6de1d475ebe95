//! The one table of checks, in the order in which they are made: what others rest on comes first.

use super::{Place, files, groups, memory, processes, sockets, starts};

/// One check.
pub struct Check {
    /// Its name, which is promised to scripts.
    pub name: &'static str,
    /// What it tries.
    pub what: &'static str,
    /// What is lost: the rest of a sentence that begins with "Without it".
    pub lost: &'static str,
    /// Without it multusd does not keep its promises; else it does less, and says so.
    pub is_required: bool,
    /// It is made in the fresh directory.
    pub in_directory: bool,
    /// It makes a control group.
    pub in_group: bool,
    /// Makes it, in a process of its own.
    pub run: fn(&Place),
}

/// The check with this number; there are fewer than 64.
pub fn check(number: usize) -> Option<Check> {
    let run = *RUN.get(number)?;
    let mut words = TEXT.split('|');
    for _ in 0..4 * number {
        words.next();
    }
    let kind = words.next()?.as_bytes();
    Some(Check {
        name: words.next()?,
        what: words.next()?,
        lost: words.next()?,
        is_required: kind.contains(&b'!'),
        in_directory: kind.contains(&b'/'),
        in_group: kind.contains(&b'G'),
        run,
    })
}

/// Makes of the table one text and a list of functions: as rows of pointers and lengths it would be one
/// more kilobyte.
macro_rules! checks {
    ($($text:literal $run:path,)*) => {
        const TEXT: &str = concat!($($text, "|"),*);
        const RUN: &[fn(&Place)] = &[$($run),*];
        #[cfg(test)]
        pub const COUNT: usize = [$($text),*].len();
    };
}

// "!" required, "?" helpful; "/" in the directory, "G" with a group. Name, what it tries, what is lost.
checks! {
    "!|clock|clock_gettime|no deadline is kept" memory::clocks,
    "?/|time64|a file's time in 2045|times after January 2038 are wrong" files::time64,
    "!|memfd|shared, sealed memory|a dead supervisor leaves its successor nothing" memory::memfd,
    "!|own-memory|/proc/self/maps|what a start needed may be given back with what is in use" memory::own_memory,
    "!|epoll|epoll|the supervisor cannot wait" memory::epoll,
    "!|timer|timerfd, sigtimedwait|no deadline is kept" memory::timer,
    "!|signals|sigprocmask|the guard misses exits and orders" memory::signals,
    "!|signalfd|signalfd|log writer and multusctl do not end in order" memory::signalfd,
    "!|wait|WNOWAIT|an exit is taken for another's" processes::wait,
    "!|pidfd|Linux 5.3|exits are not heard of, signals hit strangers" processes::pidfd,
    "!|clone-files|CLONE_FILES, eventfd|outputs and sockets die with the supervisor" processes::clone_files,
    "!|clone-parent|CLONE_PARENT|programs are orphans when the supervisor dies" processes::clone_parent,
    "!|parent-death|PR_SET_PDEATHSIG|jobs of a dead multusd go on" processes::parent_death,
    "!|subreaper|PR_SET_CHILD_SUBREAPER|what a program left escapes" processes::subreaper,
    "!|proc|/proc|processes of programs are not found" processes::proc,
    "!|trees|SIGSTOP, /proc|stops without control groups leave processes" processes::trees,
    "!|close-range|Linux 5.9|programs inherit what is not theirs" processes::close_range,
    "!|exec|one program, and none|nothing can be started" starts::exec,
    "?|limits|limits, umask, oom_score_adj, no_new_privs|programs with these keys do not start" starts::limits,
    "?|scheduling|nice, scheduling, cpu_affinity, ioprio|programs with these keys do not start" starts::scheduling,
    "?|identity|another user|programs with the key user do not start" starts::identity,
    "?|capabilities|some of root's powers|programs with the key capabilities do not start" starts::capabilities,
    "!/|flock|flock|two instances can run in one directory" files::flock,
    "!/|atomic-file|fsync, rename|a power cut leaves half a configuration" files::atomic,
    "!/|life-file|posix_fallocate, mmap|what a killed multusd left is not found" files::life,
    "?/|inotify|inotify|a pid file is noticed up to 100 ms late" files::inotify,
    "!/|control-socket|SOCK_SEQPACKET, SO_PEERCRED|multusctl cannot reach multusd" sockets::control,
    "!/|notify-socket|SO_PASSCRED|programs of type notify are never ready" sockets::notify,
    "?|gpio|/dev/gpiochip*, version 2|inputs and outputs with the key gpio are never there" files::gpio,
    "?G|cgroup|version 2|processes are found by session and environment" groups::group,
    "?G|clone-into-cgroup|Linux 5.7|a start takes some milliseconds longer" groups::birth,
    "?G|cgroup-kill|Linux 5.14|a group is frozen and killed one by one" groups::kill,
    "?G|cgroup-memory|Raspberry Pi: cgroup_enable=memory in cmdline.txt|memory_max has no effect" groups::memory,
}
