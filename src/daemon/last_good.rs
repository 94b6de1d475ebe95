//! The last good configuration, kept in `state_dir` for a start with a broken or missing file; beside it the one that a
//! reload has accepted since, until it is good or taken back. Replaced atomically, and checked when read: a torn copy is no
//! copy.

use std::path::Path;

use crate::limits::CONFIG_BYTES_MAX;
use crate::sys::{SysError, file};

/// Its name in `state_dir`.
pub const NAME: &str = "last-good.cfg";

/// The one that a reload has accepted and that has still to prove itself.
const RELOADED: &str = "last-reloaded.cfg";

/// What their first line begins with; length and digest follow.
const HEADER: &str = "; multusd last good configuration ";

/// What is said where nothing can be kept; the directory follows.
pub const NOT_KEPT: &str = "the last good configuration could not be kept in ";

fn header(text: &str) -> String {
    format!("{HEADER}{} {:016x}\n", text.len(), super::spec::digest(text.as_bytes()))
}

fn read(path: &Path) -> Option<String> {
    String::from_utf8(file::read_own(path, CONFIG_BYTES_MAX + 200).ok()?).ok()
}

/// Keeps a text that has proved itself; with `is_only`, in place of one that has not.
pub fn keep(state_dir: &Path, text: &str, is_only: bool) -> Result<(), SysError> {
    let (path, reloaded) = (state_dir.join(NAME), state_dir.join(RELOADED));
    let all = header(text) + text;
    if read(&reloaded).as_ref() == Some(&all) {
        // Whichever of the two names it has after a power cut.
        return file::rename(&reloaded, &path);
    }
    if is_only {
        file::remove(&reloaded);
    }
    write(state_dir, &path, &all)
}

/// Keeps a text that a reload accepts: who is told so may rely on it, whatever becomes of the file.
pub fn keep_reloaded(state_dir: &Path, text: &str) -> Result<(), SysError> {
    let (path, reloaded) = (state_dir.join(NAME), state_dir.join(RELOADED));
    let all = header(text) + text;
    if !file::is_regular(&reloaded) && read(&path).as_ref() == Some(&all) {
        return Ok(());
    }
    write(state_dir, &reloaded, &all)
}

fn write(state_dir: &Path, path: &Path, all: &str) -> Result<(), SysError> {
    file::make_directory(state_dir, 0o755)?;
    // What is there already need not be written again: cards wear out.
    if read(path).as_deref() == Some(all) { Ok(()) } else { file::replace(path, all.as_bytes()) }
}

/// The text kept last, if it is whole and ours: its commands are run.
pub fn recall(state_dir: &Path) -> Option<String> {
    [RELOADED, NAME].iter().find_map(|name| {
        let all = read(&state_dir.join(name))?;
        let (_, text) = all.split_once('\n')?;
        (all == header(text) + text).then(|| text.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn what_is_kept_is_recalled_and_every_damage_is_noticed() {
        let directory = std::env::temp_dir().join(format!("multusd-last-good-{}", std::process::id()));
        keep(&directory, "[program:a]\ncommand = x\n", true).unwrap();
        assert_eq!(recall(&directory).as_deref(), Some("[program:a]\ncommand = x\n"));
        let path = directory.join(NAME);
        let whole = fs::read(&path).unwrap();
        for cut in 0..whole.len() {
            fs::write(&path, &whole[..cut]).unwrap();
            assert_eq!(recall(&directory), None, "cut after {cut} bytes");
            let mut flipped = whole.clone();
            flipped[cut] ^= 1;
            fs::write(&path, &flipped).unwrap();
            assert_eq!(recall(&directory), None, "bit flipped in byte {cut}");
        }
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn what_a_reload_accepts_is_recalled_until_it_is_good_or_taken_back() {
        let directory = std::env::temp_dir().join(format!("multusd-reloaded-{}", std::process::id()));
        let names = || {
            let mut names: Vec<_> =
                fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            names.sort();
            names
        };
        keep(&directory, "one", true).unwrap();
        keep_reloaded(&directory, "one").unwrap();
        assert_eq!(names(), [NAME], "nothing changed, nothing is written");
        keep_reloaded(&directory, "two").unwrap();
        assert_eq!(recall(&directory).as_deref(), Some("two"));
        // Damaged, it is none.
        fs::write(directory.join(RELOADED), "two").unwrap();
        assert_eq!(recall(&directory).as_deref(), Some("one"));
        keep_reloaded(&directory, "two").unwrap();
        keep_reloaded(&directory, "one").unwrap();
        assert_eq!(recall(&directory).as_deref(), Some("one"), "back to the former one by a reload");
        keep_reloaded(&directory, "two").unwrap();
        keep(&directory, "two", false).unwrap();
        assert_eq!((recall(&directory).as_deref(), names()), (Some("two"), vec![NAME.into()]), "good");
        keep_reloaded(&directory, "three").unwrap();
        keep(&directory, "two", false).unwrap();
        assert_eq!(recall(&directory).as_deref(), Some("three"), "a newer one is accepted already");
        keep(&directory, "two", true).unwrap();
        assert_eq!((recall(&directory).as_deref(), names()), (Some("two"), vec![NAME.into()]), "taken back");
        fs::remove_dir_all(directory).unwrap();
    }
}
