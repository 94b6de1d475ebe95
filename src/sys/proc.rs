//! /proc, read: who descends from whom, who carries a marker. Reading another process's files can
//! wait for that process's memory lock, so only jobs call this, never the loop.

use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;

use super::{file, process};

/// The environment variable every process of ours carries: `MULTUSD_ID=LIFE/NAME`.
pub const MARKER: &str = "MULTUSD_ID";

/// One line of /proc/PID/stat (proc(5)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// Process id.
    pub pid: u32,
    /// Parent.
    pub parent: u32,
    /// Session.
    pub session: u32,
    /// State letter; `Z`: already dead.
    pub state: u8,
    /// Start, in clock ticks since boot.
    pub start: u64,
}

fn parse_stat(text: &[u8]) -> Option<Stat> {
    // The name in parentheses may contain anything; fields count from its last parenthesis.
    let close = text.iter().rposition(|byte| *byte == b')')?;
    let pid = std::str::from_utf8(&text[..text.iter().position(|byte| *byte == b' ')?]).ok()?.parse().ok()?;
    let mut fields = std::str::from_utf8(&text[close + 1..]).ok()?.split_ascii_whitespace();
    let state = *fields.next()?.as_bytes().first()?;
    let parent = fields.next()?.parse().ok()?;
    let session = fields.nth(1)?.parse().ok()?;
    let start = fields.nth(15)?.parse().ok()?;
    Some(Stat { pid, parent, session, state, start })
}

fn read(pid: u32, name: &str) -> Option<Vec<u8>> {
    file::read(format!("/proc/{pid}/{name}").as_ref()).ok()
}

/// What /proc says of a process; `None`: it is gone.
pub fn stat(pid: u32) -> Option<Stat> {
    parse_stat(&read(pid, "stat")?)
}

/// Every process.
pub fn all() -> Vec<Stat> {
    let mut all = Vec::new();
    file::each_name("/proc".as_ref(), &mut |name, _| {
        let number = name.to_str().ok().and_then(|name| name.parse().ok());
        all.extend(number.and_then(stat));
    });
    all
}

/// Whether the process was started with an environment entry that begins like this, up to a
/// zero byte where `entry` ends in one.
fn environment_has(pid: u32, entry: &[u8]) -> bool {
    let Some(mut environment) = read(pid, "environ") else { return false };
    environment.push(0);
    environment.starts_with(entry)
        || environment.windows(entry.len() + 1).any(|w| w[0] == 0 && &w[1..] == entry)
}

/// Those marked, and all that descend from them.
fn descendants(everyone: &[Stat], mut marked: Vec<bool>) -> Vec<bool> {
    loop {
        let mut grown = false;
        for index in 0..everyone.len() {
            let parent = everyone[index].parent;
            let by_parent =
                || everyone.iter().position(|stat| stat.pid == parent).is_some_and(|at| marked[at]);
            if !marked[index] && by_parent() {
                marked[index] = true;
                grown = true;
            }
        }
        if !grown {
            return marked;
        }
    }
}

/// How to recognise the processes of one program, or of a whole former life.
pub struct Quarry {
    /// The start of their marker's environment entry (with a final zero byte: all of it).
    pub marker: Vec<u8>,
    /// Processes that belong whatever their environment says, their sessions too.
    pub roots: Vec<u32>,
    /// Whose descendants they all are (the guard, which adopts orphans); nobody else is touched,
    /// so that a process number used again cannot make a stranger a victim. `None`: that process
    /// is dead, and its orphans are init's.
    pub ancestor: Option<u32>,
}

impl Quarry {
    /// All that are alive now: marked, in a root's session, or descending from such.
    pub fn find(&self) -> Vec<Stat> {
        let everyone: Vec<Stat> = all().into_iter().filter(|stat| stat.state != b'Z').collect();
        let within = match self.ancestor {
            None => vec![true; everyone.len()],
            Some(ancestor) => {
                descendants(&everyone, everyone.iter().map(|stat| stat.parent == ancestor).collect())
            }
        };
        let is_root = |stat: &Stat| {
            (self.roots.contains(&stat.pid) || self.roots.contains(&stat.session))
                && !self.is_marked_otherwise(stat.pid)
        };
        let own = std::process::id();
        let known = everyone.iter().zip(within);
        let members = known
            .map(|(stat, within)| {
                within && stat.pid != own && (is_root(stat) || environment_has(stat.pid, &self.marker))
            })
            .collect();
        let members = descendants(&everyone, members);
        everyone.into_iter().zip(members).filter(|(_, is)| *is).map(|(stat, _)| stat).collect()
    }

    /// It carries a marker, but not this one: another program's process under an old number.
    fn is_marked_otherwise(&self, pid: u32) -> bool {
        environment_has(pid, format!("{MARKER}=").as_bytes()) && !environment_has(pid, &self.marker)
    }

    /// Kills all of them, however fast they fork: first SIGSTOP in passes until a pass finds
    /// nobody new, then SIGKILL, then wait; all over again until none is left.
    pub fn kill_all(&self) {
        loop {
            let mut stopped: Vec<u32> = Vec::new();
            loop {
                let fresh: Vec<u32> =
                    self.find().iter().map(|stat| stat.pid).filter(|pid| !stopped.contains(pid)).collect();
                if fresh.is_empty() {
                    break;
                }
                for pid in &fresh {
                    // Gone already: found again, or not, in the next pass.
                    let _ = process::kill(*pid as i32, libc::SIGSTOP);
                }
                stopped.extend(fresh);
            }
            if stopped.is_empty() {
                return;
            }
            let handles: Vec<_> =
                stopped.iter().filter_map(|pid| Some((process::open_process(*pid).ok()?, *pid))).collect();
            for pid in &stopped {
                let _ = process::kill(*pid as i32, libc::SIGKILL);
            }
            for (handle, pid) in handles {
                // One in state D may take for ever; look again now and then, others may be done.
                if !super::poll::wait_readable(handle.as_fd(), Some(5000)) {
                    super::console::say(format_args!("waiting for process {pid} to die"));
                }
            }
        }
    }
}

/// Whether a process with this id was born in this interval of CLOCK_BOOTTIME nanoseconds, to the
/// resolution of /proc: is it the one we meant, or a later one with the same number?
#[allow(clippy::unnecessary_cast)] // 32 bits wide on some machines
pub fn was_born_between(pid: u32, after: u64, before: u64) -> bool {
    // SAFETY: reads what the kernel left beside the stack; 0: nothing.
    let per_second: u64 = match unsafe { libc::getauxval(libc::AT_CLKTCK) } {
        0 => 100,
        known => known as _,
    };
    let tick = 1_000_000_000 / per_second;
    stat(pid).is_some_and(|stat| {
        let start = stat.start.saturating_mul(tick);
        start.saturating_add(tick) >= after && start <= before.saturating_add(tick)
    })
}

/// The number (inode) of the socket on this machine whose own port and whose peer's are these, by the kernel's
/// table of TCP connections; `None`: there is none.
pub fn socket_of(port: u16, peer: u16) -> Option<Vec<u8>> {
    // An address is shown as a number, as the machine has it in memory; version 6 has ours at the end.
    let own = u32::from_ne_bytes([127, 0, 0, 1]);
    let [local, remote] = [port, peer].map(|port| format!("{own:08X}:{port:04X}"));
    ["/proc/net/tcp", "/proc/net/tcp6"].iter().find_map(|table| {
        let text = file::read(table.as_ref()).ok()?;
        text.split(|byte| *byte == b'\n').find_map(|line| {
            let mut fields = line.split(|byte| *byte == b' ').filter(|field| !field.is_empty()).skip(1);
            let is_it =
                fields.next()?.ends_with(local.as_bytes()) && fields.next()?.ends_with(remote.as_bytes());
            fields.nth(6).filter(|_| is_it).map(<[u8]>::to_vec)
        })
    })
}

/// Whether a process has a descriptor of the socket with this number.
pub fn holds_socket(pid: u32, socket: &[u8]) -> bool {
    let link = [b"socket:[", socket, b"]"].concat();
    let mut found = false;
    let directory = format!("/proc/{pid}/fd");
    file::each_name(directory.as_ref(), &mut |name, _| {
        let path = [directory.as_bytes(), b"/", name.to_bytes()].concat();
        let path = std::ffi::OsStr::from_bytes(&path);
        found |= nix::fcntl::readlink(path).is_ok_and(|to| to.as_bytes() == link);
    });
    found
}

/// The control group path of a process in the version 2 hierarchy.
pub fn cgroup_of(pid: u32) -> Option<String> {
    let text = String::from_utf8(read(pid, "cgroup")?).ok()?;
    text.lines().find_map(|line| line.strip_prefix("0::")).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_name_full_of_parentheses_does_not_shift_the_fields() {
        let text = b"42 (a) b (c)) S 7 42 40 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 987654 1 2 3\n";
        let stat = parse_stat(text).unwrap();
        assert_eq!((stat.pid, stat.parent, stat.session, stat.state, stat.start), (42, 7, 40, b'S', 987_654));
    }

    #[test]
    fn this_process_was_born_between_boot_and_now() {
        let own = std::process::id();
        assert!(was_born_between(own, 0, crate::sys::clock::boot_nanos()));
        assert!(!was_born_between(own, crate::sys::clock::boot_nanos() + 1_000_000_000, u64::MAX));
    }
}
