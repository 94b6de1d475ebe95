//! What is kept in the build folder between runs: the kernel, the saved states, and the lock by which
//! guests take turns.

use std::collections::hash_map::DefaultHasher;
use std::fs::{self, File};
use std::hash::Hasher;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::fcntl::{Flock, FlockArg};

use super::boot::{Boot, Ends};
use super::cpio::Cpio;

/// The programs of a guest that are ours.
const INIT: &[u8] = include_bytes!("guest/init");
const AGENT: &[u8] = include_bytes!("guest/agent");

pub const QEMU: &str = "qemu-system-aarch64";

/// Where everything is kept between runs.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("the build folder").join("qemu")
}

/// The folder of the QEMU tests, held as long as a guest lives.
pub struct Cache {
    pub folder: PathBuf,
    _turn: Flock<File>,
}

impl Cache {
    /// Waits for its turn, and sees that everything is there.
    pub fn open() -> Cache {
        let cache = Cache::turn();
        run("scripts/need", &["test-qemu", "qemu-system-arm", "kmod", "xz-utils", "debian-archive-keyring"]);
        run("tests/qemu/fetch", &[cache.folder.to_str().expect("a readable path")]);
        cache
    }

    /// Waits for its turn; for who brings a kernel of their own.
    pub fn turn() -> Cache {
        let folder = folder();
        fs::create_dir_all(&folder).expect("the folder of the QEMU tests");
        let turn = File::create(folder.join("turn")).expect("the lock file");
        let turn = Flock::lock(turn, FlockArg::LockExclusive).map_err(|(_, error)| error).expect("the lock");
        Cache { folder, _turn: turn }
    }

    /// A file of the fetched kernel.
    pub fn kernel(&self, name: &str) -> PathBuf {
        self.folder.join("kernel").join(name)
    }

    /// The module gpio-sim, made when it is first wanted.
    pub fn gpio_sim(&self) -> PathBuf {
        run("tests/qemu/gpio-sim", &[self.folder.to_str().expect("a readable path")]);
        self.folder.join("gpio-sim/gpio-sim.ko")
    }

    /// A fresh folder for one run of QEMU; it stays for those who look for causes.
    pub fn run_folder(&self, name: &str) -> PathBuf {
        run_folder(name)
    }

    /// The initramfs all guests share.
    pub fn initramfs(&self) -> Vec<u8> {
        let mut cpio = Cpio::default();
        cpio.console();
        cpio.file("/init", 0o755, INIT);
        cpio.file("/agent", 0o755, AGENT);
        cpio.file("/bin/busybox", 0o755, &read(&self.kernel("busybox")));
        cpio.symlink("/bin/sh", "busybox");
        let mut modules: Vec<PathBuf> = fs::read_dir(self.kernel("modules"))
            .expect("the fetched modules")
            .map(|entry| entry.expect("an entry").path())
            .collect();
        modules.sort();
        for path in modules {
            let name = path.file_name().expect("a name").to_string_lossy();
            cpio.file(&format!("/modules/{name}"), 0o644, &read(&path));
        }
        cpio.finish()
    }

    /// Where the state of a booted guest is kept. The name holds everything the state depends on.
    pub fn state(&self, boot: &Boot) -> PathBuf {
        let mut hasher = DefaultHasher::new();
        let ends = Ends { agent: 0, qmp: 0, qtest: 0, folder: Path::new("") };
        hasher.write(boot.arguments(self, &ends).join("\n").as_bytes());
        hasher.write(&boot.initramfs(self));
        hasher.write(&read(&self.kernel("version")));
        let version = Command::new(QEMU).arg("--version").output().expect("QEMU runs");
        hasher.write(&version.stdout);
        let states = self.folder.join("state");
        fs::create_dir_all(&states).expect("a folder for states");
        states.join(format!("{:016x}", hasher.finish()))
    }

    /// Removes saved states but the two used last: 65 MB each.
    pub fn forget_old_states(&self) {
        let mut states: Vec<_> = fs::read_dir(self.folder.join("state"))
            .expect("the folder of states")
            .flatten()
            .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())))
            .collect();
        states.sort();
        for (_, path) in states.iter().rev().skip(2) {
            let _ = fs::remove_file(path);
        }
    }
}

/// A fresh folder for one test; it stays for those who look for causes.
pub fn run_folder(name: &str) -> PathBuf {
    let folder = folder().join("run").join(name);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).expect("a folder for the run");
    folder
}

/// A file of this machine and its permissions.
pub fn content_and_mode(path: &Path) -> (Vec<u8>, u32) {
    let mode = fs::metadata(path).unwrap_or_else(|error| panic!("{}: {error}", path.display())).permissions();
    (read(path), mode.mode() & 0o777)
}

fn read(path: &Path) -> Vec<u8> {
    fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Runs a script of the project; what it says is the reason of a failure.
pub fn run(script: &str, arguments: &[&str]) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let done = Command::new(root.join(script)).args(arguments).output().expect("a shell");
    assert!(done.status.success(), "{script}: {}", String::from_utf8_lossy(&done.stderr));
}
