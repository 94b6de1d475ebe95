//! Checks of files, in the fresh directory, which is where their processes are.

use std::path::Path;

use crate::sys::gpio::{self, Chip};
use crate::sys::life::LifeFile;
use crate::sys::{clock, file};
use crate::time::Millis;

use super::verdict::{Verdict, got, must, tell};
use super::{MOMENT_MS, Place};

pub fn time64(_: &Place) {
    let path = Path::new("./dated");
    got(file::replace(path, b""));
    // Files are dated by a coarser clock.
    let age = clock::wall_seconds() as i64 - got(file::modified(path));
    must((-60..60).contains(&age), "a new file is not of now");
    // 2045-01-01, and the last second that fits 31 bits, and the one after.
    for seconds in [2_366_841_600, 0x7fff_ffff, 0x8000_0000] {
        got(file::set_modified(path, seconds));
        must(got(file::modified(path)) == seconds, "a file's time is not the one set");
    }
}

pub fn gpio(_: &Place) {
    let chips = gpio::chips();
    for number in &chips {
        let chip = got(Chip::open(*number));
        must(chip.line_count() > 0 && !chip.label().is_empty(), "a chip without lines or label");
        // Whatever it is called: asking is a call of version 2.
        must(!chip.line_is_called(chip.line_count(), ""), "a line beyond the last");
    }
    if chips.is_empty() {
        tell(Verdict::Absent, "no chip");
    }
}

pub fn flock(_: &Place) {
    let path = Path::new("lock");
    let lock = got(file::lock(path));
    must(lock.is_some(), "a free lock is refused");
    must(got(file::lock(path)).is_none(), "a lock is given twice");
}

pub fn atomic(_: &Place) {
    let path = Path::new("./atomic");
    for text in [b"one", b"two"] {
        got(file::replace(path, text));
        must(got(file::read_own(path, 3)) == text, "other contents than written");
    }
    must(!file::exists("atomic.new"), "a renamed file is still there");
}

pub fn life(_: &Place) {
    let path = Path::new("life");
    let own = std::process::id();
    got(LifeFile::create(path, 7)).record(3).write(own, 0, clock::boot_nanos());
    let former = LifeFile::former(path);
    let is_kept = former.is_some_and(|former| former.life == 7 && former.processes == [own]);
    must(is_kept, "what memory has is not in the file");
}

pub fn inotify(_: &Place) {
    let watch = got(file::Watch::directory(Path::new(".")));
    got(file::replace(Path::new("./new"), b""));
    let start = clock::now();
    watch.wait(MOMENT_MS);
    must(clock::now().since(start) < Millis(1000), "a new file is not told");
}
