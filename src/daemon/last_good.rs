//! The last good configuration, kept in `state_dir` for a start with a broken or missing file.
//! Replaced atomically, and checked when read: a torn copy is no copy.

use std::path::Path;

use crate::limits::CONFIG_BYTES_MAX;
use crate::sys::{SysError, file};

/// Its name in `state_dir`.
pub const NAME: &str = "last-good.cfg";

/// What its first line begins with; length and digest follow.
const HEADER: &str = "; multusd last good configuration ";

fn header(text: &str) -> String {
    format!("{HEADER}{} {:016x}\n", text.len(), super::spec::digest(text.as_bytes()))
}

/// Keeps a text.
pub fn keep(state_dir: &Path, text: &str) -> Result<(), SysError> {
    file::make_directory(state_dir, 0o755)?;
    let path = state_dir.join(NAME);
    let bytes = header(text) + text;
    // What is there already need not be written again: cards wear out.
    // Nothing that could block or lead elsewhere is read.
    if file::read_own(&path, bytes.len()).is_ok_and(|before| before == bytes.as_bytes()) {
        return Ok(());
    }
    file::replace(&path, bytes.as_bytes())
}

/// The text kept, if it is whole and ours: its commands are run.
pub fn recall(state_dir: &Path) -> Option<String> {
    let bytes = file::read_own(&state_dir.join(NAME), CONFIG_BYTES_MAX + 200).ok()?;
    let all = String::from_utf8(bytes).ok()?;
    let (_, text) = all.split_once('\n')?;
    (all == header(text) + text).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn what_is_kept_is_recalled_and_every_damage_is_noticed() {
        let directory = std::env::temp_dir().join(format!("multusd-last-good-{}", std::process::id()));
        keep(&directory, "[program:a]\ncommand = x\n").unwrap();
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
}
