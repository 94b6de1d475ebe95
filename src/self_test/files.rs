//! Checks of files and what is read from them.

use std::fs;
use std::os::unix::fs::MetadataExt;

use crate::sys::life::LifeFile;
use crate::sys::users::Accounts;
use crate::sys::{clock, file};
use crate::time::Millis;

use super::{Finding, Place, Tried, expect, refused};

pub fn time64(place: &Place) -> Tried {
    let path = place.path("dated")?;
    file::replace(&path, b"")?;
    // 2045-01-01, and the last second that fits 31 bits, and the one after.
    for seconds in [2_366_841_600, i64::from(i32::MAX), i64::from(i32::MAX) + 1] {
        file::set_modified(&path, seconds)?;
        let found = file::modified(&path)?;
        if found != seconds {
            let text =
                ["a file's time is ", &found.to_string(), " after it was set to ", &seconds.to_string()];
            return Err(Finding::Failed(text.concat().leak()));
        }
    }
    let now = clock::wall_seconds();
    fs::write(&path, b"x").map_err(refused("write"))?;
    // Files are dated by a coarser clock.
    let is_near = file::modified(&path)?.abs_diff(now as i64) < 60;
    expect(is_near, "a file written just now has another time than the clock")
}

pub fn directory(place: &Place) -> Tried {
    let path = place.path("directory")?;
    file::make_directory(&path, 0o755)?;
    let mode = fs::metadata(&path).map_err(refused("stat"))?.mode() & 0o7777;
    expect(mode == 0o755, "a directory has other permissions than it was made with")?;
    file::set_mode(&path, 0o777)?;
    let again = file::make_directory(&path, 0o755);
    expect(again.is_err(), "a directory that anybody may write is not recognised")?;
    let found = crate::sys::glob::glob(&place.path("direct*y")?.to_string_lossy());
    expect(found.len() == 1, "a pattern does not find what is there")
}

pub fn flock(place: &Place) -> Tried {
    let path = place.path("lock")?;
    let lock = file::lock(&path)?;
    expect(lock.is_some(), "a lock that nobody has is refused")?;
    expect(file::lock(&path)?.is_none(), "a lock is given twice")?;
    drop(lock);
    expect(file::lock(&path)?.is_some(), "a lock that was given back is refused")
}

pub fn atomic(place: &Place) -> Tried {
    let path = place.path("atomic")?;
    for text in [b"one", b"two"] {
        file::replace(&path, text)?;
        expect(file::read_own(&path, 3)? == text, "a file does not have what was written")?;
    }
    expect(!place.path("atomic.new")?.exists(), "a file that was renamed is there under its old name")
}

pub fn life(place: &Place) -> Tried {
    let path = place.path("life")?;
    let own = std::process::id();
    LifeFile::create(&path, 7)?.record(3).write(own, 0, clock::boot_nanos());
    let former = LifeFile::former(&path);
    let is_kept = former.is_some_and(|former| former.life == 7 && former.processes == [own]);
    expect(is_kept, "what was written by memory is not in the file")
}

pub fn inotify(place: &Place) -> Tried {
    let path = place.path("watched")?;
    file::make_directory(&path, 0o700)?;
    let watch = file::Watch::directory(&path)?;
    fs::write(path.join("new"), b"x").map_err(refused("write"))?;
    let start = clock::now();
    watch.wait(2000);
    expect(clock::now().since(start) < Millis(1000), "a new file is not told")
}

pub fn users(_: &Place) -> Tried {
    match Accounts::read().identity("root", None) {
        Ok(identity) => expect(identity.user == 0, "root in /etc/passwd is another"),
        Err(why) => Err(Finding::Absent(why.leak())),
    }
}
