//! An SD card: an image of a board, copied for one test. Its files are read and changed as on any computer, by
//! mtools and e2fsprogs; nothing is mounted and nobody is root.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Mutex, PoisonError};

use nix::fcntl::{Flock, FlockArg};

use super::cache;

/// QEMU takes cards of a power of two only.
pub const CARD_BYTES: u64 = 512 << 20;
/// Where the boot partition begins: see board/image.
const BOOT_START: u64 = 1 << 20;
const SECTOR: u64 = 512;

/// The hash of `multusd`, cheap to check on a slow machine.
pub const PASSWORD: &str = "multusd";
const HASH: &str = "$6$rounds=1000$multusd$ha9/aFpyuysgidoiJFmF5A4l8ePa/vyhP03J8DkANzUTHAJ2S45dzxn060xsYAY3Z5GF.2hyeD8EwyJELzEsd/";

/// A card in the reader. Its file may be changed while no machine runs with it.
pub struct Card {
    /// The board's name in boards.toml.
    pub board: String,
    /// The test's files; `card` in it is the card.
    pub folder: PathBuf,
}

/// A partition as the first sector tells of it, in bytes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Partition {
    pub kind: u8,
    pub start: u64,
    pub length: u64,
}

/// The image of a board, made at most once by this process; from then on only read.
pub fn image(board: &str) -> PathBuf {
    static MADE: Mutex<BTreeMap<String, PathBuf>> = Mutex::new(BTreeMap::new());
    let mut made = MADE.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(path) = made.get(board) {
        return path.clone();
    }
    cache::run(
        "scripts/need",
        &[
            "test-image",
            "qemu-system-arm",
            "kmod",
            "mtools",
            "dosfstools",
            "e2fsprogs",
            "squashfs-tools",
            "cpio",
        ],
    );
    fs::create_dir_all(cache::folder()).expect("the folder of the QEMU tests");
    // Two processes would write the same file.
    let turn = File::create(cache::folder().join("images")).expect("the lock file");
    let _turn = Flock::lock(turn, FlockArg::LockExclusive).map_err(|(_, error)| error).expect("the lock");
    let began = std::time::Instant::now();
    cache::run("board/image", &[board]);
    let target = cache::folder().parent().expect("the build folder").join("board/images");
    let path = target.join(format!("multusd-{board}.img"));
    let size = fs::metadata(&path).expect("the image").len();
    println!("{board}: an image of {:.1} MB, in {:.1} s", size as f64 / 1e6, began.elapsed().as_secs_f64());
    made.insert(board.into(), path.clone());
    path
}

impl Card {
    /// Writes the image of a board to a card. The name is the test's.
    pub fn flashed(name: &str, board: &str) -> Card {
        let image = image(board);
        let card = Card { board: board.into(), folder: cache::run_folder(&format!("image-{name}")) };
        let done = Command::new("cp").arg("--sparse=always").args([&image, &card.path()]).status();
        assert!(done.is_ok_and(|status| status.success()), "no copy of {}", image.display());
        let file = File::options().write(true).open(card.path()).expect("the card");
        file.set_len(CARD_BYTES).expect("the card's size");
        card
    }

    /// The same with a console that lets in who knows PASSWORD, and more of a configuration.
    pub fn configured(name: &str, board: &str, more: &str) -> Card {
        let card = Card::flashed(name, board);
        card.configure(more);
        card
    }

    /// A copy of this card, for a test's next way on.
    pub fn copy(&self, name: &str) -> Card {
        let copy = Card { board: self.board.clone(), folder: cache::run_folder(&format!("image-{name}")) };
        let done = Command::new("cp").arg("--sparse=always").args([&self.path(), &copy.path()]).status();
        assert!(done.is_ok_and(|status| status.success()), "no copy of {}", self.path().display());
        copy
    }

    pub fn path(&self) -> PathBuf {
        self.folder.join("card")
    }

    // ---------------------------------------------------------------- the boot partition

    /// A file of the boot partition; none if it is not there.
    pub fn get(&self, path: &str) -> Option<Vec<u8>> {
        let got = self.mtool("mtype", &["-b".into(), format!("::{path}")], None);
        got.status.success().then_some(got.stdout)
    }

    /// The same as text, with Unix's line ends.
    pub fn text(&self, path: &str) -> String {
        let bytes = self.get(path).unwrap_or_else(|| panic!("no {path} on the boot partition"));
        String::from_utf8(bytes).expect("text").replace("\r\n", "\n")
    }

    /// Puts a file on the boot partition, in the place of one of that name.
    pub fn put(&self, path: &str, bytes: &[u8]) {
        let words = ["-o".into(), "-".into(), format!("::{path}")];
        let done = self.mtool("mcopy", &words, Some(bytes));
        assert!(done.status.success(), "{path}: {}", String::from_utf8_lossy(&done.stderr));
    }

    pub fn remove(&self, path: &str) {
        let done = self.mtool("mdel", &[format!("::{path}")], None);
        assert!(done.status.success(), "{path}: {}", String::from_utf8_lossy(&done.stderr));
    }

    /// Every file of the boot partition: `/kernel.img`, `/multusd.d/x.cfg`.
    pub fn files(&self) -> Vec<String> {
        boot_files(&self.path())
    }

    /// Sets the configuration: the image's own, root's password, and this. What is before its first section belongs
    /// to `[system]`.
    pub fn configure(&self, more: &str) {
        let text = with_password(&self.text("/multusd.cfg"), more);
        self.put("/multusd.cfg", text.replace('\n', "\r\n").as_bytes());
    }

    fn mtool(&self, tool: &str, words: &[String], input: Option<&[u8]>) -> Output {
        mtool(&self.path(), tool, words, input)
    }

    // ---------------------------------------------------------------- the card as a whole

    /// The partitions there are.
    pub fn partitions(&self) -> Vec<Partition> {
        let mut table = [0; 512];
        let file = File::open(self.path()).expect("the card");
        file.read_exact_at(&mut table, 0).expect("the first sector");
        let number = |at: usize| u32::from_le_bytes(table[at..at + 4].try_into().expect("four bytes"));
        (0..4)
            .map(|n| 446 + 16 * n)
            .map(|at| Partition {
                kind: table[at + 4],
                start: u64::from(number(at + 8)) * SECTOR,
                length: u64::from(number(at + 12)) * SECTOR,
            })
            .filter(|partition| partition.kind != 0)
            .collect()
    }

    /// A partition as a file of its own, sparse.
    pub fn extracted(&self, partition: Partition, name: &str) -> PathBuf {
        let path = self.folder.join(name);
        let _ = fs::remove_file(&path);
        let words = [
            format!("if={}", self.path().display()),
            format!("of={}", path.display()),
            "bs=1M".into(),
            "iflag=skip_bytes,count_bytes".into(),
            "conv=sparse".into(),
            format!("skip={}", partition.start),
            format!("count={}", partition.length),
        ];
        assert!(tool("dd", &words).status.success(), "dd of {name}");
        let file = File::options().write(true).open(&path).expect("the partition");
        file.set_len(partition.length).expect("the partition's size");
        path
    }

    /// Both file systems that are written to have no errors; the data partition's journal is replayed in a copy,
    /// as the next boot would do.
    pub fn check(&self) {
        let partitions = self.partitions();
        let boot = self.extracted(partitions[0], "boot.part");
        let done = tool("fsck.vfat", &["-n".into(), boot.display().to_string()]);
        assert!(done.status.success(), "fsck.vfat: {}", said(&done));
        let _ = fs::remove_file(boot);
        if let Some(data) = partitions.get(2).filter(|data| data.kind == 0x83) {
            let data = self.extracted(*data, "data.part");
            let path = data.display().to_string();
            // As the initramfs does.
            let mended = tool("e2fsck", &["-p".into(), path.clone()]);
            assert!(mended.status.code().is_some_and(|code| code < 4), "e2fsck -p: {}", said(&mended));
            let done = tool("e2fsck", &["-f".into(), "-n".into(), path]);
            assert!(done.status.success(), "e2fsck: {}{}", said(&mended), said(&done));
            let _ = fs::remove_file(data);
        }
    }

    /// A file of the data partition, by its path there: `/log/x`. What only the journal has is not seen; see
    /// `settle`.
    pub fn data(&self, path: &str) -> Option<Vec<u8>> {
        let data = *self.partitions().get(2)?;
        let got = self.folder.join("got");
        let _ = fs::remove_file(&got);
        let device = format!("{}?offset={}", self.path().display(), data.start);
        tool("debugfs", &["-R".into(), format!("dump {path} {}", got.display()), device]);
        fs::read(&got).ok()
    }
}

/// What `[system]` needs so that who knows PASSWORD may log in.
pub fn system_lines() -> String {
    format!("root_password = {HASH}\n")
}

/// A configuration with root's password, and more behind it.
fn with_password(text: &str, more: &str) -> String {
    let sections = if more.starts_with('[') { 0 } else { more.find("\n[").map_or(more.len(), |at| at + 1) };
    let (system, rest) = more.split_at(sections);
    let lines = system_lines() + system;
    if text.lines().any(|line| line.trim() == "[system]") {
        format!("{}\n{rest}", text.replacen("\n[system]\n", &format!("\n[system]\n{lines}"), 1))
    } else {
        format!("{text}\n[system]\n{lines}\n{rest}")
    }
}

/// Every file of the boot partition of an image.
pub fn boot_files(image: &Path) -> Vec<String> {
    let listed = mtool(image, "mdir", &["-b".into(), "-/".into(), "::".into()], None);
    assert!(listed.status.success(), "{}", String::from_utf8_lossy(&listed.stderr));
    let listed = String::from_utf8(listed.stdout).expect("names in ASCII");
    listed.lines().filter_map(|line| line.strip_prefix("::")).map(String::from).collect()
}

/// One of the mtools, on the boot partition of an image.
pub fn mtool(image: &Path, name: &str, words: &[String], input: Option<&[u8]>) -> Output {
    let drive = format!("{}@@{BOOT_START}", image.display());
    let mut child = Command::new(name)
        .args(["-i", &drive])
        .args(words)
        .env("MTOOLS_SKIP_CHECK", "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{name}: {error} (apt-get install -y mtools)"));
    let mut to = child.stdin.take().expect("a pipe");
    let _ = std::io::Write::write_all(&mut to, input.unwrap_or_default());
    drop(to);
    child.wait_with_output().expect("its output")
}

pub fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}

/// A tool of the system, also where an ordinary user's PATH lacks it.
pub fn tool(name: &str, words: &[String]) -> Output {
    let path = std::env::var("PATH").unwrap_or_default();
    let made = Command::new(name).args(words).env("PATH", format!("{path}:/usr/sbin:/sbin")).output();
    made.unwrap_or_else(|error| panic!("{name}: {error} (apt-get install -y dosfstools e2fsprogs)"))
}
