//! Where a process of ours begins. By the C library and not by the runtime of Rust's standard library,
//! which brings 7 kB: a second stack and a table of threads, to say "stack overflow" before it ends
//! (SIGSEGV ends it without).

use std::ffi::{CStr, OsStr, OsString, c_char, c_int};
use std::os::fd::IntoRawFd;
use std::os::unix::ffi::OsStrExt;

/// Makes a function that takes the arguments and returns the exit code what an executable does.
#[macro_export]
macro_rules! entry {
    ($run:path) => {
        #[cfg(not(test))]
        #[unsafe(no_mangle)]
        extern "C" fn main(
            count: core::ffi::c_int,
            words: *const *const core::ffi::c_char,
        ) -> core::ffi::c_int {
            // SAFETY: what the C library hands to main.
            unsafe { $crate::sys::entry::start(count, words, $run) }
        }
        #[cfg(test)]
        const _: fn(Vec<std::ffi::OsString>) -> u8 = $run;
    };
}

/// Sees to what is taken for granted, then runs.
///
/// # Safety
///
/// The arguments of main(), in a process with one thread.
pub unsafe fn start(count: c_int, words: *const *const c_char, run: fn(Vec<OsString>) -> u8) -> c_int {
    // SAFETY: `count` C strings, which live as long as the process.
    let word = |index| unsafe { CStr::from_ptr(*words.add(index)) };
    let arguments =
        (0..count.max(0) as usize).map(|index| OsStr::from_bytes(word(index).to_bytes()).to_owned());
    open_standard_files();
    // Nobody reads any more: an error of the write, not the end of the writer.
    // SAFETY: an ignored signal runs no code.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
    c_int::from(run(arguments.collect()))
}

/// What is opened later must not become standard input, output or error.
fn open_standard_files() {
    // The lowest number that is free comes next; one above is no longer needed, and none can be had
    // where there is no /dev.
    while let Ok(file) = super::file::null() {
        let number = file.into_raw_fd();
        if number > libc::STDERR_FILENO {
            // SAFETY: opened above, known to nobody.
            unsafe { libc::close(number) };
            return;
        }
    }
}
