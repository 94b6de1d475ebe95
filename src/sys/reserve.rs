//! Descriptors that are held for the moment at which there is none left. A process forked from this one has
//! copies, and gives them up for what it opens itself.

use std::sync::atomic::{AtomicI32, Ordering::Relaxed};

use super::check;

/// A directory, a file in it and a process are open at once where processes are looked for.
const RESERVED: usize = 4;

/// Their numbers; 0: given up.
static HELD: [AtomicI32; RESERVED] = [const { AtomicI32::new(0) }; RESERVED];

/// Takes as many as are missing and can be had.
pub fn fill() {
    for held in HELD.iter().filter(|held| held.load(Relaxed) == 0) {
        // SAFETY: integers; standard input is always open, and a second number for it is ours.
        let number = unsafe { libc::fcntl(libc::STDIN_FILENO, libc::F_DUPFD_CLOEXEC, 3) };
        held.store(check("fcntl", number).unwrap_or(0), Relaxed);
    }
}

/// Gives one up; false: there is none.
pub fn release_one() -> bool {
    HELD.iter().any(|held| match held.swap(0, Relaxed) {
        0 => false,
        // SAFETY: taken above, known to nobody else.
        number => unsafe { libc::close(number) == 0 },
    })
}

/// Gives all up, in a process that has a table of its own.
pub fn release_all() {
    while release_one() {}
}
