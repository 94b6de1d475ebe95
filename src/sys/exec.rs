//! What a new process does between clone and exec to become its program: it shares nothing with us
//! but the adoption page, makes system calls, allocates nothing and takes no lock.

use std::cell::UnsafeCell;
use std::ffi::CString;
use std::os::fd::{BorrowedFd, RawFd};
use std::ptr;
use std::rc::Rc;

#[cfg(not(target_arch = "arm"))]
use libc::{SYS_setgroups, SYS_setresgid, SYS_setresuid};
// Those without a suffix know 16-bit numbers there.
#[cfg(target_arch = "arm")]
use libc::{
    SYS_setgroups32 as SYS_setgroups, SYS_setresgid32 as SYS_setresgid, SYS_setresuid32 as SYS_setresuid,
};

use super::{SysError, check};

/// Where a child was when it could not go on to its program; kept in its slot with the errno.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Stage {
    /// clone(2) itself.
    Clone = 1,
    /// setrlimit(2)
    Limit,
    /// sched_setscheduler(2)
    Scheduling,
    /// setpriority(2)
    Nice,
    /// sched_setaffinity(2)
    Affinity,
    /// ioprio_set(2)
    IoPriority,
    /// /proc/self/oom_score_adj
    OomScore,
    /// dup2(2)
    Descriptor,
    /// setgroups(2), setresgid(2)
    Group,
    /// setresuid(2)
    User,
    /// capset(2), prctl(2)
    Capability,
    /// PR_SET_NO_NEW_PRIVS
    NoNewPrivs,
    /// chdir(2)
    Directory,
    /// execve(2)
    Exec,
    /// cgroup.procs
    Cgroup,
    /// inotify_add_watch(2)
    Watch,
    /// mkdir(2), chown(2)
    State,
}

impl Stage {
    /// The stage with this number.
    pub fn from_number(number: u8) -> Option<Stage> {
        use Stage::*;
        [
            Clone, Limit, Scheduling, Nice, Affinity, IoPriority, OomScore, Descriptor, Group, User,
            Capability, NoNewPrivs, Directory, Exec, Cgroup, Watch, State,
        ]
        .into_iter()
        .find(|stage| *stage as u8 == number)
    }

    /// The call it got stuck at, named as its man page is.
    pub fn operation(self) -> &'static str {
        match self {
            Stage::Clone => "clone",
            Stage::Limit => "prlimit",
            Stage::Scheduling => "sched_setscheduler",
            Stage::Nice => "setpriority",
            Stage::Affinity => "sched_setaffinity",
            Stage::IoPriority => "ioprio_set",
            Stage::OomScore => "oom_score_adj",
            Stage::Descriptor => "dup2",
            Stage::Group => "setgroups",
            Stage::User => "setresuid",
            Stage::Capability => "capset",
            Stage::NoNewPrivs => "prctl(PR_SET_NO_NEW_PRIVS)",
            Stage::Directory => "chdir",
            Stage::Exec => "execve",
            Stage::Cgroup => "cgroup.procs",
            Stage::Watch => "inotify_add_watch",
            Stage::State => "mkdir",
        }
    }
}

/// An entry of this text stands for one that ends in the process's own number.
pub const OWN_NUMBER: &[u8] = b"WATCHDOG_PID=";

/// The entry, the digits of a process number, and a zero byte.
const OWN_NUMBER_BYTES: usize = OWN_NUMBER.len() + 11;

/// Everything a program's process is to be, ready for the kernel: prepared when configuration is
/// applied, so that starting allocates nothing.
pub struct Recipe {
    /// Paths to try in turn (one, or those a search of PATH would try).
    pub paths: Vec<CString>,
    argv: Vec<CString>,
    _envp: (Vec<CString>, Rc<[CString]>),
    argv_pointers: Vec<*const libc::c_char>,
    envp_pointers: Vec<*const libc::c_char>,
    /// Working directory.
    pub directory: Option<CString>,
    /// User, group and supplementary groups.
    pub identity: Option<Identity>,
    /// umask(2)
    pub umask: Option<u32>,
    /// setrlimit(2): resource, soft, hard.
    pub limits: Vec<(u32, u64, u64)>,
    /// setpriority(2)
    pub nice: Option<i32>,
    /// sched_setscheduler(2): policy, real-time priority.
    pub scheduling: Option<(i32, i32)>,
    /// sched_setaffinity(2), CPU n is bit n.
    pub affinity: Option<u128>,
    /// ioprio_set(2): class, level.
    pub io_priority: Option<(u8, u8)>,
    /// /proc/self/oom_score_adj
    pub oom_score: Option<CString>,
    /// Capabilities kept, by number; all others are dropped, from the bounding set too.
    pub capabilities: Option<u64>,
    /// PR_SET_NO_NEW_PRIVS
    pub no_new_privs: bool,
    /// The directory that is watched for its beats.
    pub watched: Option<CString>,
    /// A directory that is made for it, below one that nobody else can write to.
    pub state: Option<CString>,
    /// The environment's `WATCHDOG_PID`, whose number the process itself writes.
    own_number: Option<Box<UnsafeCell<[u8; OWN_NUMBER_BYTES]>>>,
}

/// Who a process runs as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// uid
    pub user: u32,
    /// gid
    pub group: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
}

impl Recipe {
    /// A recipe for this program with these arguments (element 0 included) and this environment: its
    /// own entries, and of the shared ones those whose names it does not have.
    pub fn new(paths: Vec<CString>, argv: Vec<CString>, own: Vec<CString>, shared: &Rc<[CString]>) -> Self {
        let name = |entry: &CString| entry.as_bytes().split(|byte| *byte == b'=').next().map(<[u8]>::to_vec);
        let overridden = |entry: &CString| own.iter().any(|other| name(entry) == name(other));
        let inherited = shared.iter().filter(|entry| !overridden(entry));
        let is_own_number = |entry: &CString| entry.as_bytes() == OWN_NUMBER;
        let own_number =
            own.iter().any(is_own_number).then(|| Box::new(UnsafeCell::new([0; OWN_NUMBER_BYTES])));
        let entries = inherited.chain(own.iter().filter(|entry| !is_own_number(entry)));
        let pointers = entries.map(|entry| entry.as_ptr());
        let number_pointer = own_number.iter().map(|cell| cell.get().cast::<libc::c_char>().cast_const());
        let envp_pointers = pointers.chain(number_pointer).chain([ptr::null()]).collect();
        Recipe {
            argv_pointers: argv.iter().map(|word| word.as_ptr()).chain([ptr::null()]).collect(),
            envp_pointers,
            paths,
            argv,
            _envp: (own, shared.clone()),
            directory: None,
            identity: None,
            umask: None,
            limits: Vec::new(),
            nice: None,
            scheduling: None,
            affinity: None,
            io_priority: None,
            oom_score: None,
            capabilities: None,
            no_new_privs: false,
            watched: None,
            state: None,
            own_number,
        }
    }

    /// The first path, for messages.
    pub fn path(&self) -> &str {
        self.paths.first().or(self.argv.first()).and_then(|path| path.to_str().ok()).unwrap_or("?")
    }
}

/// Descriptors beyond the standard three that one start may hand over: every output, and a few more.
pub const EXTRA_COUNT_MAX: usize = crate::limits::OUTPUT_COUNT_MAX + 8;

/// Gives every descriptor to the function it is given.
pub type Inherited<'a> = &'a dyn Fn(&mut dyn FnMut(RawFd));

/// What one particular start hands to the process besides its recipe.
pub struct Wiring<'a> {
    /// Standard input, output and error.
    pub standard: [RawFd; 3],
    /// Further descriptors and the number each is to have, at most [`EXTRA_COUNT_MAX`].
    pub extra: &'a [(RawFd, RawFd)],
    /// Descriptors that it inherits under their own numbers (above 2, and none of `extra`).
    pub inherited: Inherited<'a>,
    /// Its control group's directory, where there is one.
    pub cgroup: Option<BorrowedFd<'a>>,
    /// It may be born there; else it moves there itself.
    pub born_in_cgroup: bool,
    /// The queue that what happens in its watched directory comes into.
    pub watch: Option<RawFd>,
    /// Where it leaves its number for a later life; hooks, which are short, leave none.
    pub life: Option<&'a super::life::LifeRecord>,
}

/// Becomes the program; returns only where it could not, and why.
pub(super) fn become_program(recipe: &Recipe, wiring: &Wiring) -> (Stage, i32) {
    match prepare(recipe, wiring) {
        Err((stage, error)) => (stage, error.errno),
        Ok(()) => (Stage::Exec, exec(recipe)),
    }
}

fn at(stage: Stage) -> impl FnOnce(SysError) -> (Stage, SysError) {
    move |error| (stage, error)
}

/// Order matters: what needs privileges first, then the identity, then what it may not undo.
fn prepare(recipe: &Recipe, wiring: &Wiring) -> Result<(), (Stage, SysError)> {
    // SAFETY: setsid(2) and umask(2) touch no memory; a fresh child is no group leader.
    unsafe {
        libc::setsid();
        if let Some(mask) = recipe.umask {
            libc::umask(mask as libc::mode_t);
        }
    }
    super::signal::unblock_and_reset();
    if let Some((queue, directory)) = wiring.watch.zip(recipe.watched.as_ref()) {
        // Here, where a look at the storage may wait, and before the queue's number is taken by another.
        super::inotify::watch(queue, directory).map_err(at(Stage::Watch))?;
    }
    // Before any limit on descriptors: the numbers it uses on the way are high.
    wire(wiring).map_err(at(Stage::Descriptor))?;
    super::machine::restore_descriptor_limit();
    join_cgroup(wiring.cgroup).map_err(at(Stage::Cgroup))?;
    apply_scheduling(recipe)?;
    if let Some(score) = &recipe.oom_score {
        write_oom_score(score).map_err(at(Stage::OomScore))?;
    }
    apply_limits(recipe).map_err(at(Stage::Limit))?;
    if recipe.capabilities.is_some() {
        drop_bounding(recipe.capabilities).map_err(at(Stage::Capability))?;
    }
    if let Some(path) = &recipe.state {
        // Here, where storage may wait.
        make_state(path, recipe.identity.as_ref()).map_err(at(Stage::State))?;
    }
    if let Some(identity) = &recipe.identity {
        take_identity(identity)?;
    }
    if let Some(kept) = recipe.capabilities {
        keep_capabilities(kept, recipe.identity.as_ref().is_some_and(|id| id.user != 0))
            .map_err(at(Stage::Capability))?;
    }
    if recipe.no_new_privs {
        // SAFETY: plain prctl with integers.
        check("prctl", unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) })
            .map_err(at(Stage::NoNewPrivs))?;
    }
    if let Some(directory) = &recipe.directory {
        // SAFETY: a valid C string.
        check("chdir", unsafe { libc::chdir(directory.as_ptr()) }).map_err(at(Stage::Directory))?;
    }
    Ok(())
}

/// Writes this process's number into the environment it is about to hand over.
fn write_own_number(recipe: &Recipe) {
    let Some(cell) = &recipe.own_number else { return };
    let mut digits = [0; 10];
    let (mut number, mut first) = (std::process::id(), digits.len());
    while number > 0 {
        first -= 1;
        digits[first] = b'0' + (number % 10) as u8;
        number /= 10;
    }
    // SAFETY: this process's own copy, and one thread.
    let entry = unsafe { &mut *cell.get() };
    entry.fill(0);
    let number = entry.split_at_mut(OWN_NUMBER.len());
    number.0.copy_from_slice(OWN_NUMBER);
    number.1[..digits.len() - first].copy_from_slice(&digits[first..]);
}

/// Tries each path as execvp(3) would, without its fallback to a shell.
fn exec(recipe: &Recipe) -> i32 {
    write_own_number(recipe);
    let mut errno = libc::ENOENT;
    for path in &recipe.paths {
        // SAFETY: all pointers are to C strings and null-terminated lists owned by the recipe.
        unsafe { libc::execve(path.as_ptr(), recipe.argv_pointers.as_ptr(), recipe.envp_pointers.as_ptr()) };
        match nix::errno::Errno::last_raw() {
            libc::ENOENT | libc::ENOTDIR => {}
            libc::EACCES => errno = libc::EACCES,
            other => return other,
        }
    }
    errno
}

/// Where clone3 could not place the process: it moves itself, if it is not there already.
fn join_cgroup(group: Option<BorrowedFd>) -> Result<(), SysError> {
    let Some(group) = group else { return Ok(()) };
    if super::cgroup::contains(group, std::process::id()) { Ok(()) } else { super::cgroup::join(group) }
}

fn apply_limits(recipe: &Recipe) -> Result<(), SysError> {
    for (resource, soft, hard) in &recipe.limits {
        let limit = libc::rlimit { rlim_cur: *soft as libc::rlim_t, rlim_max: *hard as libc::rlim_t };
        // SAFETY: a valid rlimit; an unknown resource is an error, not undefined. (prlimit avoids
        // the C libraries' different types for the resource.)
        check("prlimit", unsafe { libc::prlimit(0, *resource as _, &limit, ptr::null_mut()) })?;
    }
    Ok(())
}

fn apply_scheduling(recipe: &Recipe) -> Result<(), (Stage, SysError)> {
    // SAFETY: each call takes integers or a structure that lives across it.
    unsafe {
        if let Some((policy, priority)) = recipe.scheduling {
            let mut parameter = std::mem::zeroed::<libc::sched_param>();
            parameter.sched_priority = priority;
            // The system call itself: musl's wrapper is a stub that always fails (its reading of
            // POSIX is that the call must reach every thread).
            let result = libc::syscall(libc::SYS_sched_setscheduler, 0, policy, &parameter);
            check("sched_setscheduler", result as libc::c_int).map_err(at(Stage::Scheduling))?;
        }
        if let Some(nice) = recipe.nice {
            check("setpriority", libc::setpriority(libc::PRIO_PROCESS, 0, nice)).map_err(at(Stage::Nice))?;
        }
        if let Some(mask) = recipe.affinity {
            let words = mask.to_ne_bytes();
            let result = libc::syscall(libc::SYS_sched_setaffinity, 0, words.len(), words.as_ptr());
            if result < 0 {
                return Err((Stage::Affinity, SysError::last("sched_setaffinity")));
            }
        }
        if let Some((class, level)) = recipe.io_priority {
            let value = libc::c_int::from(class) << 13 | libc::c_int::from(level);
            let result = libc::syscall(libc::SYS_ioprio_set, 1, 0, value);
            check("ioprio_set", result as libc::c_int).map_err(at(Stage::IoPriority))?;
        }
    }
    Ok(())
}

/// The longest path the kernel takes.
const PATH_BYTES_MAX: usize = 4096;

/// Makes a directory and what leads to it, and gives it to the user the process becomes. Who has it, has it: what is in it
/// is not looked at.
fn make_state(path: &CString, identity: Option<&Identity>) -> Result<(), SysError> {
    let bytes = path.as_bytes_with_nul();
    let mut part = [0_u8; PATH_BYTES_MAX];
    if bytes.len() > part.len() {
        return Err(SysError { operation: "mkdir", errno: libc::ENAMETOOLONG });
    }
    let mut made = -1;
    let ends = bytes.iter().enumerate().skip(1).filter(|(_, byte)| matches!(byte, b'/' | 0));
    for (end, _) in ends {
        part[..end].copy_from_slice(&bytes[..end]);
        part[end] = 0;
        // SAFETY: a C string on our stack. What is there already is right, or fails where it is opened.
        made = unsafe { libc::mkdir(part.as_ptr().cast(), 0o755) };
    }
    // SAFETY: a C string; the descriptor dies with the exec. No link is followed: who has the directory has none above it.
    unsafe {
        let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW | libc::O_CLOEXEC;
        let directory = check("open", libc::open(path.as_ptr(), flags))?;
        if made == 0 {
            // Our umask may have taken what others need to read; what somebody took later stays taken.
            libc::fchmod(directory, 0o755);
        }
        if let Some(identity) = identity.filter(|_| libc::geteuid() == 0) {
            check("fchown", libc::fchown(directory, identity.user, identity.group))?;
        }
    }
    Ok(())
}

fn write_oom_score(score: &CString) -> Result<(), SysError> {
    // SAFETY: opens by a constant path, writes bytes we own; the descriptor dies with the exec.
    unsafe {
        let file = check(
            "open",
            libc::open(c"/proc/self/oom_score_adj".as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC),
        )?;
        let bytes = score.as_bytes();
        let written = libc::write(file, bytes.as_ptr().cast(), bytes.len());
        check("write", written as libc::c_int).map(drop)
    }
}

fn wire(wiring: &Wiring) -> Result<(), SysError> {
    let wanted = wiring.standard.into_iter().zip(0..).chain(wiring.extra.iter().copied());
    // First out of the way of the numbers that are about to be taken.
    let high = wiring.extra.iter().fold(256, |high, (_, number)| high.max(number + 1));
    let mut aside = heapless::Vec::<(RawFd, RawFd), { EXTRA_COUNT_MAX + 3 }>::new();
    for (source, number) in wanted {
        // SAFETY: fcntl on a descriptor with integers; the copies are close-on-exec.
        let copy = check("fcntl", unsafe { libc::fcntl(source, libc::F_DUPFD_CLOEXEC, high) })?;
        // There is room for as many as may be given.
        let _ = aside.push((copy, number));
    }
    (wiring.inherited)(&mut |number| {
        // SAFETY: fcntl with integers.
        unsafe { libc::fcntl(number, libc::F_SETFD, 0) };
    });
    for (source, number) in aside {
        // SAFETY: dup2 of descriptors; whatever had the number is ours, and this is a copy.
        check("dup2", unsafe { libc::dup2(source, number) })?;
    }
    Ok(())
}

fn take_identity(identity: &Identity) -> Result<(), (Stage, SysError)> {
    // SAFETY: the group list outlives the call; the rest are integers.
    unsafe {
        let (group, user) = (identity.group, identity.user);
        // Without the privilege this is only possible where nothing changes.
        if libc::geteuid() != 0 && libc::geteuid() == user && libc::getegid() == group {
            return Ok(());
        }
        // So that capabilities can be kept over the change of user; cleared by the exec.
        libc::prctl(libc::PR_SET_KEEPCAPS, 1, 0, 0, 0);
        // By the kernel's calls: the C library's have all threads do it, and look for them in its tables.
        let (count, groups) = (identity.groups.len(), identity.groups.as_ptr());
        check("setgroups", libc::syscall(SYS_setgroups, count, groups) as _).map_err(at(Stage::Group))?;
        check("setresgid", libc::syscall(SYS_setresgid, group, group, group) as _)
            .map_err(at(Stage::Group))?;
        check("setresuid", libc::syscall(SYS_setresuid, user, user, user) as _).map_err(at(Stage::User))?;
        if user != 0 {
            libc::prctl(libc::PR_SET_KEEPCAPS, 0, 0, 0, 0);
        }
    }
    Ok(())
}

/// The highest capability number a 64 bit set can hold (CAP_LAST_CAP is 40 in Linux 5.9 … 6.18).
const CAPABILITY_COUNT: u32 = 64;

fn drop_bounding(kept: Option<u64>) -> Result<(), SysError> {
    for number in 0..CAPABILITY_COUNT {
        if kept.is_some_and(|kept| kept >> number & 1 == 0) {
            // SAFETY: plain prctl with integers; EINVAL says that this kernel has no such number.
            let result = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, number as libc::c_ulong, 0, 0, 0) };
            match check("prctl(PR_CAPBSET_DROP)", result) {
                Err(error) if error.errno == libc::EINVAL => break,
                Err(error) => return Err(error),
                Ok(_) => {}
            }
        }
    }
    Ok(())
}

/// capset(2), version 3: two words each of effective, permitted, inheritable.
fn keep_capabilities(kept: u64, ambient: bool) -> Result<(), SysError> {
    #[repr(C)]
    struct Header {
        version: u32,
        pid: i32,
    }
    let header = Header { version: 0x2008_0522, pid: 0 };
    let (low, high) = (kept as u32, (kept >> 32) as u32);
    let data = [low, low, low, high, high, high];
    // SAFETY: header and data are laid out as capset(2) says and outlive the call.
    unsafe {
        check("capset", libc::syscall(libc::SYS_capset, &header, data.as_ptr()) as libc::c_int)?;
        if ambient {
            for number in (0..CAPABILITY_COUNT).filter(|number| kept >> number & 1 == 1) {
                let raise = libc::PR_CAP_AMBIENT_RAISE as libc::c_ulong;
                let number = number as libc::c_ulong;
                check("prctl(PR_CAP_AMBIENT)", libc::prctl(libc::PR_CAP_AMBIENT, raise, number, 0, 0))?;
            }
        }
    }
    Ok(())
}
