//! That a file changed, said by the kernel (inotify(7)): never by comparing times of a clock that may step.
//! For the loop, which neither waits nor allocates here.

use std::ffi::CStr;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd};

use super::{SysError, check};

/// What counts as a change of a file: written to, touched, made, replaced by another.
const CHANGES: u32 =
    libc::IN_MODIFY | libc::IN_ATTRIB | libc::IN_CLOSE_WRITE | libc::IN_CREATE | libc::IN_MOVED_TO;

/// Bytes of an event before its name: watch, mask, cookie, length of the name.
const HEAD_BYTES: usize = 16;

/// A queue of changes that nothing is watched by yet.
pub fn queue() -> Result<OwnedFd, SysError> {
    // SAFETY: flags in, a descriptor of our own out.
    unsafe {
        let flags = libc::IN_CLOEXEC | libc::IN_NONBLOCK;
        Ok(OwnedFd::from_raw_fd(check("inotify_init1", libc::inotify_init1(flags))?))
    }
}

/// Watches what happens in a directory from now on. Looks the directory up, so it can wait for storage:
/// for a child before its exec, whose watch goes into the queue it shares with us.
pub fn watch(queue: i32, directory: &CStr) -> Result<(), SysError> {
    // SAFETY: a C string; a number that is no queue is an error.
    let result = unsafe { libc::inotify_add_watch(queue, directory.as_ptr(), CHANGES | libc::IN_ONLYDIR) };
    check("inotify_add_watch", result).map(drop)
}

/// Takes what has happened, at most some hundred changes, and says whether the file of this name was
/// among it. One that stays in the queue is found the next time.
pub fn has_changed(queue: BorrowedFd, name: &[u8]) -> bool {
    let mut buffer = [0; 4096];
    let length = nix::unistd::read(queue, &mut buffer).unwrap_or(0);
    contains(&buffer[..length], name)
}

fn contains(mut events: &[u8], name: &[u8]) -> bool {
    let mut found = false;
    while let Some((head, rest)) = events.split_first_chunk::<HEAD_BYTES>() {
        let length = u32::from_ne_bytes([head[12], head[13], head[14], head[15]]);
        let Some((padded, next)) = rest.split_at_checked(length as usize) else { break };
        found |= padded.split(|byte| *byte == 0).next() == Some(name);
        events = next;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::{AsFd, AsRawFd};

    #[test]
    fn only_the_named_file_counts_whatever_happens_to_it() {
        let directory = std::env::temp_dir().join(format!("multusd-inotify-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let path = std::ffi::CString::new(directory.to_str().unwrap()).unwrap();
        let queue = queue().unwrap();
        watch(queue.as_raw_fd(), &path).unwrap();
        let changed = || has_changed(queue.as_fd(), b"beat");
        assert!(!changed());
        std::fs::write(directory.join("beating"), "x").unwrap();
        assert!(!changed());
        std::fs::write(directory.join("beat"), "x").unwrap();
        assert!(changed() && !changed());
        let file = std::fs::File::options().append(true).open(directory.join("beat")).unwrap();
        file.set_modified(std::time::UNIX_EPOCH).unwrap();
        assert!(changed());
        std::fs::rename(directory.join("beating"), directory.join("beat")).unwrap();
        assert!(changed());
        std::fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn an_event_that_is_cut_is_no_change() {
        let mut event = [0; HEAD_BYTES + 8];
        event[12..16].copy_from_slice(&8_u32.to_ne_bytes());
        event[HEAD_BYTES..][..4].copy_from_slice(b"beat");
        assert!(contains(&event, b"beat"));
        for length in 0..event.len() {
            assert!(!contains(&event[..length], b"beat"), "{length}");
        }
    }
}
