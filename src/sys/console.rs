//! Standard error, for the loop: a word to whoever listens, never waiting for them. A console under
//! flow control, or a log collector that hangs, must not hang the supervisor.

use core::fmt;
use std::os::fd::BorrowedFd;

use super::SysError;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Longest line; POSIX makes writes of up to 512 bytes to a pipe that is ready whole and immediate.
const LINE_BYTES_MAX: usize = 512;

/// Says one line, or says nothing if that would have to wait. What does not fit a line is cut.
pub fn say(words: fmt::Arguments) {
    let mut line = Line { bytes: heapless::Vec::new() };
    // Cannot fail: the writer below never does.
    let _ = fmt::write(&mut line, format_args!("multusd: {words}"));
    line.bytes.truncate(LINE_BYTES_MAX - 1);
    // There is room for it now.
    let _ = line.bytes.push(b'\n');
    // SAFETY: standard error is open for the life of the process (the runtime sees to that), and is
    // only borrowed for these two calls.
    let stderr = unsafe { BorrowedFd::borrow_raw(libc::STDERR_FILENO) };
    let ready = poll(&mut [PollFd::new(stderr, PollFlags::POLLOUT)], PollTimeout::ZERO);
    if ready.is_ok_and(|count| count > 0) {
        // Nobody listens any more: then nobody misses it.
        let _ = nix::unistd::write(stderr, &line.bytes);
    }
}

/// Writes all of it to standard output, at once.
pub fn output(bytes: &[u8]) -> Result<(), SysError> {
    write_all(libc::STDOUT_FILENO, bytes)
}

/// Writes a line to standard error, for what is no daemon yet and may wait. One that is closed is no reason to fail.
pub fn complain(text: &str) {
    let _ = write_all(libc::STDERR_FILENO, [text, "\n"].concat().as_bytes());
}

fn write_all(number: i32, bytes: &[u8]) -> Result<(), SysError> {
    // SAFETY: as above; one that its owner closed is an error and no other file.
    super::file::append(unsafe { BorrowedFd::borrow_raw(number) }, bytes)
}

struct Line {
    bytes: heapless::Vec<u8, LINE_BYTES_MAX>,
}

impl fmt::Write for Line {
    fn write_str(&mut self, words: &str) -> fmt::Result {
        for byte in words.bytes() {
            // Full: the rest is cut.
            let _ = self.bytes.push(byte);
        }
        Ok(())
    }
}
