//! A day, simulated: what it costs storage. The budget:
//!
//! - a chatty program (a line of 150 bytes per second): 1.3 times the bytes of its lines are written to its files;
//! - at most one moment of writing per flush time, whoever has something to say, and none while nobody says anything;
//! - a program with a line per minute: one write per minute, at most;
//! - on the block device, with dirty pages written every 30 s as Linux does: see the numbers below.

use super::*;

const DAY_SECONDS: u64 = 86_400;

/// Blocks of the chatty program's day, of a file system with a journal, in 4 KB: a moment's data (2 pages), inode and
/// bitmap (2), journal (descriptor, 4 copies, commit) and 2 to spare.
const BLOCKS_PER_MOMENT_MAX: u64 = 12;

/// An ext4 file system in a file in memory, mounted.
pub(super) struct Disk {
    image: PathBuf,
    pub(super) mount: PathBuf,
    device: String,
}

/// Fails the test, in words, where it cannot show what it is there to show.
pub(super) fn run(words: &[&str]) {
    let output = std::process::Command::new(words[0]).args(&words[1..]).output();
    let output = output.unwrap_or_else(|error| panic!("{words:?}: {error}; e2fsprogs and mount are needed"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{words:?}: {said}; run the tests as root, where there are loop devices"
    );
}

impl Disk {
    pub(super) fn new(dir: &std::path::Path) -> Disk {
        let image = PathBuf::from("/dev/shm").join(dir.file_name().unwrap());
        let mount = dir.join("disk");
        fs::create_dir(&mount).unwrap();
        fs::File::create(&image).unwrap().set_len(64 << 20).unwrap();
        // Without its background work, which a day in seconds would count wrongly.
        let file = image.to_str().unwrap();
        run(&["mkfs.ext4", "-q", "-E", "lazy_itable_init=0,lazy_journal_init=0", file]);
        Disk::mount(image, mount)
    }

    fn mount(image: PathBuf, mount: PathBuf) -> Disk {
        let mut disk = Disk { image, mount, device: String::new() };
        let (image, place) = (disk.image.to_str().unwrap(), disk.mount.to_str().unwrap());
        run(&["mount", "-o", "loop", image, place]);
        let mounts = fs::read_to_string("/proc/mounts").unwrap();
        let line = mounts.lines().find(|line| line.contains(&[" ", place, " "].concat())).unwrap();
        disk.device = line.split(' ').next().unwrap().replace("/dev/", "");
        disk
    }

    /// What would be found after a power cut at this moment: the device as it is, mounted anew.
    pub(super) fn after_power_cut(&self) -> Disk {
        let image = self.image.with_extension("cut");
        fs::copy(&self.image, &image).unwrap();
        let mount = self.mount.with_extension("cut");
        let _ = fs::create_dir(&mount);
        // The journal is replayed.
        Disk::mount(image, mount)
    }

    fn sync(&self) {
        let directory = fs::File::open(&self.mount).unwrap();
        nix::unistd::syncfs(directory).unwrap();
    }

    /// Bytes written to the device (Documentation/block/stat.rst: sectors of 512 bytes, the seventh number).
    fn written(&self) -> u64 {
        let stat = fs::read_to_string(format!("/sys/block/{}/stat", self.device)).unwrap();
        stat.split_whitespace().nth(6).unwrap().parse::<u64>().unwrap() * 512
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Not mounted: it is why the test fails.
        let _ = std::process::Command::new("umount").arg("-l").arg(&self.mount).output();
        let _ = fs::remove_file(&self.image);
    }
}

/// A day in which stream 0 says a line every `every` seconds, of `length` bytes: (bytes said, bytes in files, moments
/// of writing, bytes on the device).
fn day(every: u64, length: usize) -> (u64, u64, u64, u64) {
    let mut bench = Bench::new(1);
    let disk = Disk::new(&bench.dir.clone());
    let path = disk.mount.join("0");
    bench.settings.streams[0].path = Some(path.to_string_lossy().into_owned());
    bench.settings.streams[0].stamp = LogStamp::Both;
    bench.settings.streams[0].backups = 100;
    disk.sync();
    let before = disk.written();
    let (mut said, mut moments, mut size) = (0, 0, 0);
    let line = format!("{}\n", "x".repeat(length - 1));
    for second in 0..DAY_SECONDS {
        if second % every == 0 {
            bench.say(0, &line);
            said += line.len() as u64;
        }
        bench.pass(1000);
        let now = fs::metadata(&path).map_or(0, |status| status.len());
        moments += u64::from(now != size);
        size = now;
        if second % 30 == 29 {
            disk.sync();
        }
    }
    bench.store().finish();
    disk.sync();
    let on_device = disk.written() - before;
    let written = bench.ring.stream(0).storer[crate::sys::log_ring::word::WRITTEN].load(SeqCst);
    let in_files: u64 = fs::read_dir(&disk.mount)
        .unwrap()
        .map(|entry| entry.unwrap().metadata().unwrap())
        .filter(|status| status.is_file())
        .map(|status| status.len())
        .sum();
    assert_eq!(written, in_files, "what is counted is what is there");
    bench.kill();
    drop(disk);
    println!(
        "a line of {length} bytes every {every} s: {said} bytes said, {written} in files, {moments} moments, on the device {on_device}"
    );
    (said, written, moments, on_device)
}

#[test]
fn a_chatty_program_costs_a_moment_per_flush_and_its_bytes() {
    let (said, written, moments, on_device) = day(1, 150);
    assert!(written <= said * 13 / 10, "{written} of {said}");
    assert!(moments <= DAY_SECONDS / 10 + 1, "{moments}");
    // The kernel writes every 30 s: 2880 moments.
    assert!(on_device <= DAY_SECONDS / 30 * BLOCKS_PER_MOMENT_MAX * 4096, "{on_device}");
}

#[test]
fn a_program_with_a_line_per_minute_costs_a_write_per_minute_at_most() {
    let (said, written, moments, on_device) = day(60, 60);
    assert!(moments <= DAY_SECONDS / 60, "{moments}");
    assert!(written <= said * 2, "{written} of {said}: stamps");
    assert!(on_device <= DAY_SECONDS / 60 * BLOCKS_PER_MOMENT_MAX * 4096, "{on_device}");
}

#[test]
fn a_program_that_says_nothing_costs_nothing() {
    let mut bench = Bench::new(2);
    bench.pass(DAY_SECONDS * 1000);
    let now = Instant::default() + Millis(bench.now_ms);
    assert_eq!(bench.store().work(now), None, "and wakes nobody");
    assert_eq!(fs::read_dir(&bench.dir).unwrap().count(), 0);
}

#[test]
fn too_much_in_a_day_is_told_once_and_counted_anew_the_next_day() {
    let mut bench = Bench::new(1);
    bench.settings.daily_alarm = 5000;
    let ring = bench.ring;
    let words = || bench_words(&ring);
    bench.now_ms = 1000;
    for _ in 0..10 {
        bench.say(0, &format!("{}\n", "x".repeat(999)));
        bench.pass(10_000);
    }
    assert_eq!(words(), (10_000, 1, 1));
    bench.pass(86_400_000);
    bench.say(0, "x\n");
    bench.pass(10_000);
    assert_eq!(words(), (2, 2, 1));
}

/// Bytes today, that day, the day of the alarm.
fn bench_words(ring: &Ring) -> (u64, u64, u64) {
    let words = &ring.stream(0).storer;
    (words[0].load(SeqCst), words[1].load(SeqCst), words[2].load(SeqCst))
}
