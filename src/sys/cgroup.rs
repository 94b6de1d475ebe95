//! Control groups, version 2 (kernel: Documentation/admin-guide/cgroup-v2.rst): the one way to
//! know every process of a program and to kill them all at once. cgroupfs lives in memory, so
//! these calls do not wait for storage.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::{UnlinkatFlags, read, unlinkat, write};

use super::{SysError, describe, file};

/// The directory of a hierarchy that this process may make groups in.
pub struct Hierarchy {
    directory: OwnedFd,
    /// Its path, for messages.
    pub path: PathBuf,
    /// Controllers its groups have: `memory`, `pids`.
    pub has_memory: bool,
    /// See above.
    pub has_pids: bool,
}

/// The cgroup2 mount and the path of this process in it, from /proc text.
fn locate(mountinfo: &str, membership: &str) -> Option<(PathBuf, PathBuf)> {
    let own = membership.lines().find_map(|line| line.strip_prefix("0::"))?;
    let mount = mountinfo.lines().find_map(|line| {
        // "… root mount-point options … - type source options" (proc(5))
        let mut fields = line.split(' ');
        let (root, point) = (fields.nth(3)?, fields.next()?);
        let kind = fields.skip_while(|field| *field != "-").nth(1)?;
        (kind == "cgroup2" && root == "/").then(|| PathBuf::from(point))
    })?;
    Some((mount, PathBuf::from(own.trim_start_matches('/'))))
}

const DIRECTORY: OFlag = OFlag::O_DIRECTORY.union(OFlag::O_CLOEXEC);

/// This process's own group; the one above, for a supervisor that is in the leaf already because it
/// replaces another.
fn inherited() -> Result<PathBuf, String> {
    let text = |path: &str| match file::read(Path::new(path)) {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Err(error) => Err(format!("{path}: {error}")),
    };
    let (mount, own) = locate(&text("/proc/self/mountinfo")?, &text("/proc/self/cgroup")?)
        .ok_or("no control group version 2 file system is mounted")?;
    let inherited = mount.join(own);
    Ok(match inherited.file_name() {
        Some(leaf) if leaf == LEAF || leaf == CONTROL => {
            inherited.parent().unwrap_or(&inherited).to_path_buf()
        }
        _ => inherited,
    })
}

fn in_words(what: &'static str, path: &Path) -> impl FnOnce(nix::errno::Errno) -> String {
    move |errno| format!("{what} {}: {}", path.display(), describe(errno as i32))
}

fn make_in(parent: BorrowedFd, path: &Path, name: &str) -> Result<OwnedFd, String> {
    make(parent, name).map_err(in_words("mkdir in", path))?;
    openat(parent, name, DIRECTORY, Mode::empty()).map_err(in_words("open in", path))
}

fn has_word(text: &[u8], word: &str) -> bool {
    text.split(u8::is_ascii_whitespace).any(|part| part == word.as_bytes())
}

impl Hierarchy {
    /// Finds or makes `name` below this process's own group (or below `below`). Under systemd
    /// with delegation the daemon's own processes `own` first move into a leaf of their own, as
    /// the rule against inner processes demands.
    pub fn open(below: Option<&Path>, name: &str, own: &[u32]) -> Result<Hierarchy, String> {
        let base = match below {
            Some(path) => path.to_path_buf(),
            None => inherited()?,
        };
        let parent = nix::fcntl::open(&base, DIRECTORY, Mode::empty()).map_err(in_words("open", &base))?;
        if is_systemd_unit(&base) && make(parent.as_fd(), LEAF).is_ok() {
            let leaf = openat(parent.as_fd(), LEAF, DIRECTORY, Mode::empty())
                .map_err(in_words("open leaf in", &base))?;
            for pid in own {
                put(leaf.as_fd(), "cgroup.procs", pid.to_string().as_bytes()).map_err(|e| e.to_string())?;
            }
        }
        enable_controllers(parent.as_fd());
        let directory = make_in(parent.as_fd(), &base, name)?;
        enable_controllers(directory.as_fd());
        // That a group may be made does not mean that a process may be put into it.
        let (has_memory, has_pids) = enabled(directory.as_fd());
        Ok(Hierarchy { has_memory, has_pids, path: base.join(name), directory })
    }

    /// Makes `name` below this process's own group and changes nothing else: no process moves, no
    /// controller is enabled; `has_memory` says what could be.
    pub fn open_for_trial(name: &str) -> Result<Hierarchy, String> {
        let base = inherited()?;
        let parent = nix::fcntl::open(&base, DIRECTORY, Mode::empty()).map_err(in_words("open", &base))?;
        let directory = make_in(parent.as_fd(), &base, name)?;
        let available = take(parent.as_fd(), "cgroup.controllers").unwrap_or_default();
        Ok(Hierarchy {
            has_memory: has_word(&available, "memory"),
            has_pids: false,
            path: base.join(name),
            directory,
        })
    }

    /// Gives its groups their controllers again, where somebody has taken them away: see [`make_enterable`].
    pub fn enable_controllers(&mut self) {
        let above = self.path.parent().map(|path| nix::fcntl::open(path, DIRECTORY, Mode::empty()));
        if let Some(Ok(above)) = above {
            enable_controllers(above.as_fd());
        }
        enable_controllers(self.directory.as_fd());
        (self.has_memory, self.has_pids) = enabled(self.directory.as_fd());
    }

    /// Kills everything in it, groups made by a former life included, and waits until it is
    /// empty. For the daemon's start only: it blocks.
    pub fn clear(&self) -> Result<(), SysError> {
        let mut rounds = 0_u32;
        while is_populated(self.directory.as_fd())? {
            rounds += 1;
            if rounds.is_multiple_of(100) {
                // Some 10 s each: a process in state D. Nothing may start beside it.
                super::console::say(format_args!("waiting for processes in {} to die", self.path.display()));
            }
            if kill(self.directory.as_fd()).is_err() {
                kill_one_by_one(self.directory.as_fd());
            }
            let events = open_events(self.directory.as_fd())?;
            wait_for_change(events.as_fd());
        }
        for group in &super::file::directories(&self.path) {
            remove_tree(group);
        }
        Ok(())
    }

    /// Finds or makes a program's group.
    pub fn group(&self, name: &str) -> Result<OwnedFd, SysError> {
        make(self.directory.as_fd(), name).map_err(SysError::of("mkdir"))?;
        let flags = OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        openat(self.directory.as_fd(), name, flags, Mode::empty()).map_err(SysError::of("open"))
    }

    /// Makes an empty group anew, without allocating. A group that was killed as a whole must not
    /// be used again: since Linux 6.14 the kernel compares how often the parent's group and the
    /// new one were killed, and kills what is born into it (clone3 with CLONE_INTO_CGROUP).
    pub fn renew_group(&self, name: &str) -> Result<OwnedFd, SysError> {
        match unlinkat(self.directory.as_fd(), name, UnlinkatFlags::RemoveDir) {
            Ok(()) | Err(nix::errno::Errno::ENOENT) => self.group(name),
            Err(_) => {
                // The program made groups below its own; they go first.
                remove_tree(&self.path.join(name));
                match unlinkat(self.directory.as_fd(), name, UnlinkatFlags::RemoveDir) {
                    Ok(()) | Err(nix::errno::Errno::ENOENT) => self.group(name),
                    Err(errno) => Err(SysError::of("rmdir")(errno)),
                }
            }
        }
    }

    /// Removes a program's group, and groups it made below; it must be empty of processes.
    pub fn remove_group(&self, name: &str) {
        remove_tree(&self.path.join(name));
    }

    /// Removes the whole directory, at the end of this life.
    pub fn remove(&self) {
        remove_tree(&self.path);
    }
}

/// For kernels without `cgroup.kill`: every process of the group and of the groups below it. For jobs
/// and the start.
pub fn kill_one_by_one(group: BorrowedFd) {
    kill_below(Path::new(&format!("/proc/self/fd/{}", group.as_raw_fd())));
}

fn kill_below(path: &Path) {
    let flags = OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    if let Ok(group) = nix::fcntl::open(path, flags, Mode::empty()) {
        for_each_process(group.as_fd(), |pid| super::process::kill_if_there(pid as i32, libc::SIGKILL));
    }
    for below in &super::file::directories(path) {
        kill_below(below);
    }
}

/// The daemon's own leaf below a delegated unit.
const LEAF: &str = "multusd";
/// systemd's, for processes that it runs beside the main one.
const CONTROL: &str = ".control";

fn is_systemd_unit(path: &Path) -> bool {
    std::env::var_os("INVOCATION_ID").is_some()
        && path.extension().is_some_and(|extension| extension == "service" || extension == "scope")
}

fn make(parent: BorrowedFd, name: &str) -> nix::Result<()> {
    match mkdirat(parent, name, Mode::from_bits_truncate(0o755)) {
        Err(nix::errno::Errno::EEXIST) => Ok(()),
        other => other,
    }
}

/// Whether the groups in it have the controllers memory and pids.
fn enabled(directory: BorrowedFd) -> (bool, bool) {
    let enabled = take(directory, "cgroup.subtree_control").unwrap_or_default();
    (has_word(&enabled, "memory"), has_word(&enabled, "pids"))
}

fn enable_controllers(directory: BorrowedFd) {
    // One at a time: a controller that is not there must not cost the other. Failure is seen
    // when the result is read back.
    let _ = put(directory, "cgroup.subtree_control", b"+memory");
    let _ = put(directory, "cgroup.subtree_control", b"+pids");
}

/// This process moves into the daemon's own leaf of its unit, and says whether systemd has put it there from the start
/// (DelegateSubgroup=multusd, systemd 254).
pub fn enter_leaf() -> Result<bool, String> {
    let base = inherited()?;
    if !is_systemd_unit(&base) {
        return Ok(false);
    }
    let parent = nix::fcntl::open(&base, DIRECTORY, Mode::empty()).map_err(in_words("open", &base))?;
    let leaf = make_in(parent.as_fd(), &base, LEAF)?;
    if contains(leaf.as_fd(), std::process::id()) {
        return Ok(true);
    }
    join(leaf.as_fd()).map_err(|error| format!("{}: {error}", base.display()))?;
    Ok(false)
}

/// The name of the unit that this process belongs to; none: of none.
pub fn unit() -> Option<String> {
    let base = inherited().ok().filter(|base| is_systemd_unit(base))?;
    Some(base.file_name()?.to_str()?.to_owned())
}

/// In a process that systemd runs beside a unit of ours which has no main process now: takes the controllers away from the
/// unit's groups, so that it can have one again. A group whose groups have controllers takes no process (rule against inner
/// processes), and before version 254 systemd knows no other place for it. False: somebody below uses them.
pub fn make_enterable() -> Result<bool, String> {
    let unit = inherited()?;
    if !is_systemd_unit(&unit) {
        return Ok(true);
    }
    let mut left = heapless::Vec::new();
    // From below: a controller that is in use there cannot be taken away above.
    for path in file::directories(&unit).iter().chain([&unit]) {
        let group = nix::fcntl::open(path, DIRECTORY, Mode::empty()).map_err(in_words("open", path))?;
        for controller in [&b"-memory"[..], b"-pids"] {
            // One that is not there cannot be taken away, and that is no error of ours.
            let _ = put(group.as_fd(), "cgroup.subtree_control", controller);
        }
        left = take(group.as_fd(), "cgroup.subtree_control").unwrap_or_default();
    }
    Ok(left.trim_ascii().is_empty())
}

fn remove_tree(path: &Path) {
    for below in &super::file::directories(path) {
        remove_tree(below);
    }
    // A group that will not go stays empty; the next life tries again.
    let _ = unlinkat(nix::fcntl::AT_FDCWD, path, UnlinkatFlags::RemoveDir);
}

/// Writes a control file of a group.
pub fn put(group: BorrowedFd, file: &str, bytes: &[u8]) -> Result<(), SysError> {
    let file = openat(group, file, OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty())
        .map_err(SysError::of("open"))?;
    write(file, bytes).map(drop).map_err(SysError::of("write"))
}

fn take(group: BorrowedFd, file: &str) -> Result<heapless::Vec<u8, 512>, SysError> {
    let file = openat(group, file, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())
        .map_err(SysError::of("open"))?;
    let mut bytes = heapless::Vec::new();
    // Cannot fail: the length is the capacity.
    let _ = bytes.resize(512, 0);
    let length = read(file, &mut bytes).map_err(SysError::of("read"))?;
    bytes.truncate(length);
    Ok(bytes)
}

/// Whether a process is alive in the group or below.
pub fn is_populated(group: BorrowedFd) -> Result<bool, SysError> {
    let events = take(group, "cgroup.events")?;
    Ok(!events.windows(11).any(|window| window == b"populated 0"))
}

/// The file whose exceptional condition says that `populated` changed.
pub fn open_events(group: BorrowedFd) -> Result<OwnedFd, SysError> {
    openat(group, "cgroup.events", OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())
        .map_err(SysError::of("open"))
}

/// Waits for the group to change, at most 100 ms; for jobs.
pub fn wait_until_changed(group: BorrowedFd) {
    if let Ok(events) = open_events(group) {
        wait_for_change(events.as_fd());
    }
}

fn wait_for_change(events: BorrowedFd) {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    // The descriptor was opened before the last look, or the change comes within the timeout;
    // a second look after 100 ms costs nothing where the start is all there is to do.
    let _ = poll(&mut [PollFd::new(events, PollFlags::POLLPRI)], PollTimeout::from(100_u8));
}

/// Kills every process in the group and below, at once. Linux 5.14; before, ENOENT.
pub fn kill(group: BorrowedFd) -> Result<(), SysError> {
    put(group, "cgroup.kill", b"1")
}

/// Freezes or thaws the group (Linux 5.2), for kernels without `cgroup.kill`.
pub fn freeze(group: BorrowedFd, frozen: bool) {
    // A group that cannot be frozen is swept again until nothing new turns up.
    let _ = put(group, "cgroup.freeze", if frozen { b"1" } else { b"0" });
}

/// Calls with each process id of the group (not of groups below it).
pub fn for_each_process(group: BorrowedFd, mut visit: impl FnMut(u32)) {
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
    let Ok(file) = openat(group, "cgroup.procs", flags, Mode::empty()) else { return };
    let (mut number, mut buffer) = (0_u32, [0_u8; 4096]);
    while let Ok(length @ 1..) = read(file.as_fd(), &mut buffer) {
        for byte in &buffer[..length] {
            match byte {
                b'0'..=b'9' => number = number.wrapping_mul(10).wrapping_add(u32::from(byte - b'0')),
                _ => visit(std::mem::take(&mut number)),
            }
        }
    }
}

/// Whether a process is in the group (not: below it). Allocates nothing.
pub fn contains(group: BorrowedFd, process: u32) -> bool {
    let mut found = false;
    for_each_process(group, |pid| found |= pid == process);
    found
}

/// Moves this process into the group.
pub fn join(group: BorrowedFd) -> Result<(), SysError> {
    put(group, "cgroup.procs", b"0")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hierarchy_is_found_in_hybrid_and_unified_layouts() {
        let hybrid = "30 24 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
                      31 30 0:27 / /sys/fs/cgroup/unified rw,nosuid shared:9 - cgroup2 cgroup2 rw\n";
        let membership = "8:pids:/x\n0::/system.slice/multusd.service\n";
        let (mount, own) = locate(hybrid, membership).unwrap();
        assert_eq!(mount.join(own), Path::new("/sys/fs/cgroup/unified/system.slice/multusd.service"));
        assert!(locate("", membership).is_none());
        assert!(locate(hybrid, "8:pids:/x\n").is_none());
    }
}
