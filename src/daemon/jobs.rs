//! What may wait for storage or for another process, and so never runs in the loop: each in a
//! process of its own, a copy of the supervisor that ends with its result.

use std::os::fd::BorrowedFd;
use std::path::Path;

use crate::config;
use crate::packed;
use crate::sys::page::{OWN_JOB_COUNT, Slot};
use crate::sys::proc::{MARKER, Quarry};
use crate::sys::users::Accounts;
use crate::sys::{cgroup, file, proc, tcp};

use super::files::RealFiles;
use super::spec::{Base, Resolved, Surroundings, resolve};
use super::{bundled, last_good};

/// Jobs that belong to no program; index of `Page::job`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Job {
    /// Reads the configuration for a reload.
    Load,
    /// Keeps the last good configuration.
    Save,
    /// Looks for a GPIO line.
    Find,
    /// Finds out who connected to a heartbeat's port.
    Verify,
    /// Reads the temperature.
    Temperature,
    /// Keeps why the machine booted.
    Boots,
    /// Keeps how often inputs have changed.
    Counts,
    /// Reads and tries the executable that multusd is to become.
    Renew,
}

impl Job {
    /// All of them.
    pub const ALL: [Job; OWN_JOB_COUNT] =
        [Job::Load, Job::Save, Job::Find, Job::Verify, Job::Temperature, Job::Boots, Job::Counts, Job::Renew];
}

/// How to find every process of a program.
pub struct Tree<'a> {
    /// Its control group, where there is one.
    pub group: Option<BorrowedFd<'a>>,
    /// Otherwise.
    pub quarry: Quarry,
}

impl Tree<'_> {
    fn contains(&self, pid: u32) -> bool {
        self.processes().contains(&pid)
    }

    fn processes(&self) -> Vec<u32> {
        match self.group {
            Some(group) => {
                let mut found = Vec::new();
                cgroup::for_each_process(group, |pid| found.push(pid));
                found.retain(|pid| proc::stat(*pid).is_some_and(|stat| stat.state != b'Z'));
                found
            }
            None => self.quarry.find().iter().map(|stat| stat.pid).collect(),
        }
    }
}

/// A program's quarry.
pub fn quarry(life: u64, name: &str, slot: &Slot, guard: u32) -> Quarry {
    let roots = [slot.spawned(), slot.main()].into_iter().filter(|pid| *pid != 0).collect();
    Quarry { marker: format!("{MARKER}={life:016x}/{name}\0").into_bytes(), roots, ancestor: Some(guard) }
}

/// Ends every process of a program; returns when none is left.
pub fn sweep(tree: &Tree) -> i32 {
    match tree.group {
        None => tree.quarry.kill_all(),
        // A kernel before 5.14: hold them still, then kill one by one until none is left.
        Some(group) => {
            cgroup::freeze(group, true);
            cgroup::kill_one_by_one(group);
            cgroup::freeze(group, false);
            while cgroup::is_populated(group).unwrap_or(false) {
                cgroup::kill_one_by_one(group);
                cgroup::wait_until_changed(group);
            }
        }
    }
    0
}

/// Finds the main process that a forking program left: the one its pid file names, if that is one
/// of the program's own (a stale file may name anybody); without a pid file, the one process
/// that was handed to the guard. Waits for the file; its time is limited by whoever ordered it.
pub fn find_main(tree: &Tree, guard: u32, pidfile: Option<&str>, slot: &Slot) -> i32 {
    let found = match pidfile {
        Some(path) => wait_for_pidfile(tree, Path::new(path)),
        None => only_orphan(tree, guard),
    };
    match found {
        Some(pid) => {
            slot.answer.store(u64::from(pid), std::sync::atomic::Ordering::SeqCst);
            0
        }
        None => 1,
    }
}

fn only_orphan(tree: &Tree, guard: u32) -> Option<u32> {
    let orphans = tree.processes().into_iter().filter_map(proc::stat).filter(|stat| stat.parent == guard);
    // Several: the eldest is the daemon, the others are its workers' orphans.
    orphans.min_by_key(|stat| (stat.start, stat.pid)).map(|stat| stat.pid)
}

/// Whether it is one of the program's processes that is at the other end of a connection to our port.
pub fn verify(tree: &Tree, connection: BorrowedFd) -> i32 {
    let ports = tcp::port(connection).zip(tcp::peer_port(connection));
    // Theirs is our connection from the other side.
    let socket = ports.and_then(|(own, peer)| proc::socket_of(peer, own));
    let is_its_own =
        socket.is_some_and(|socket| tree.processes().into_iter().any(|pid| proc::holds_socket(pid, &socket)));
    i32::from(!is_its_own)
}

/// More than a number, a line end and somebody's blanks.
const PIDFILE_BYTES_MAX: usize = 4096;

fn wait_for_pidfile(tree: &Tree, path: &Path) -> Option<u32> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("/"));
    loop {
        // The watch first, then the look: a file written in between is seen.
        let watch = file::Watch::directory(directory);
        let bytes = file::read_bounded(path, PIDFILE_BYTES_MAX).unwrap_or_default();
        let named = str::from_utf8(&bytes).ok().and_then(|text| text.trim().parse::<u32>().ok());
        if let Some(pid) = named.filter(|pid| tree.contains(*pid)) {
            return Some(pid);
        }
        if tree.processes().is_empty() {
            return None;
        }
        match watch {
            Ok(watch) => watch.wait(1000),
            // No such directory yet, or no watches left: look again in a while.
            Err(_) => file::pause(100),
        }
    }
}

/// What a configuration in force looks like in memory: its text, then everything resolved.
pub struct Prepared {
    /// Canonical text.
    pub text: String,
    /// The same, resolved.
    pub resolved: Resolved,
}

impl Prepared {
    /// As bytes: the text's length, the text, the rest.
    pub fn packed(&mut self) -> Vec<u8> {
        let mut bytes = (self.text.len() as u32).to_le_bytes().to_vec();
        bytes.extend_from_slice(self.text.as_bytes());
        bytes.extend(packed::to_bytes(&mut self.resolved));
        bytes
    }

    /// Back from bytes; `None`: they are not whole.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (length, rest) = bytes.split_first_chunk::<4>()?;
        let (text, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        Some(Prepared { text: String::from_utf8(text.to_vec()).ok()?, resolved: packed::from_bytes(rest)? })
    }
}

/// A configuration that was read.
pub struct Read {
    /// It, resolved.
    pub prepared: Prepared,
    /// What is accepted and probably not meant, a sentence each.
    pub warnings: Vec<String>,
    /// What it needs and this machine has not, a sentence each.
    pub missing: Vec<String>,
    /// The files it is made of.
    files: Vec<String>,
    state_dir: String,
}

impl Read {
    /// Returns when all it is made of is on storage, and a copy of it where no editor can break it: from then on a power cut
    /// leaves it. An error is a sentence.
    pub fn settle(&self) -> Result<(), String> {
        self.files.iter().try_for_each(|name| {
            let result = file::settle(Path::new(name));
            result.map_err(|error| [name, ": cannot be brought to storage: ", &error.to_string()].concat())
        })?;
        if last_good::keep_reloaded(Path::new(&self.state_dir), &self.prepared.text).is_err() {
            say!("{}{}", last_good::NOT_KEPT, self.state_dir);
        }
        Ok(())
    }
}

/// Reads and resolves the configuration. `Err`: one line per error.
pub fn prepare(
    path: &Path,
    children: config::Children,
    around: &dyn Fn(&config::Config) -> SurroundingsOwned,
) -> Result<Read, String> {
    let path = super::files::absolute(&path.to_string_lossy());
    let mut loaded = config::load(&mut RealFiles(children), &path).map_err(|errors| errors.to_string())?;
    bundled::add(&mut loaded.config);
    let around = around(&loaded.config);
    let (resolved, errors) = resolve_all(&loaded.config, &around);
    let missing = sentences(&loaded, &errors).collect();
    let warnings = loaded.warnings.iter().map(|warning| warning.to_string()).collect();
    Ok(Read {
        prepared: Prepared { text: loaded.canonical, resolved },
        warnings,
        missing,
        files: loaded.sources.names,
        state_dir: loaded.config.daemon.state_dir,
    })
}

/// What a configuration needs and this machine has not, a sentence each.
pub fn missing_here(loaded: &config::Loaded) -> Vec<String> {
    let mut loaded = loaded.clone();
    bundled::add(&mut loaded.config);
    let loaded = &loaded;
    let around = SurroundingsOwned { run_dir: loaded.config.daemon.run_dir.clone().into(), life: 0 };
    let (_, errors) = resolve_all(&loaded.config, &around);
    sentences(loaded, &errors).collect()
}

fn sentences(loaded: &config::Loaded, errors: &[(usize, String)]) -> impl Iterator<Item = String> {
    let file = |index: u16| loaded.sources.names.get(usize::from(index)).map_or("", String::as_str);
    errors.iter().map(move |(index, error)| match loaded.config.programs.get(*index) {
        None => format!("{}: {error}", file(0)),
        Some(program) if bundled::is_bundled(program) => format!("{}: [{}]: {error}", file(0), program.name),
        Some(program) => {
            let place = program.place;
            format!("{}:{}: [program:{}]: {error}", file(place.file), place.line, program.section)
        }
    })
}

/// Like `Surroundings`, by value.
#[derive(Clone)]
pub struct SurroundingsOwned {
    /// Where sockets are.
    pub run_dir: std::path::PathBuf,
    /// This life's number.
    pub life: u64,
}

/// Resolves with this machine's accounts and this process's environment.
pub fn resolve_all(config: &config::Config, around: &SurroundingsOwned) -> (Resolved, Vec<(usize, String)>) {
    let surroundings = Surroundings {
        accounts: &Accounts::read(),
        run_dir: &around.run_dir,
        life: around.life,
        base: &Base::inherit(),
    };
    resolve(config, &surroundings)
}
