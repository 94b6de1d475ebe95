//! A command between two files, run by a process that waits for storage anyway: with low priority, without shell.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use super::{SysError, machine, process};

/// The least share of the CPU.
const NICE: i32 = 19;

/// One that runs. It ends with who started it.
pub struct Filter {
    pid: u32,
    handle: OwnedFd,
}

impl Filter {
    /// Starts a command (an absolute path and its arguments) that reads one file and writes another. What it says on
    /// standard error is nobody's.
    pub fn start(command: &[String], input: BorrowedFd, output: BorrowedFd) -> Result<Filter, SysError> {
        let null = super::file::null()?;
        let own = std::process::id();
        match process::fork()? {
            Some(pid) => Ok(Filter { pid, handle: process::open_process(pid)? }),
            None => {
                // SAFETY: descriptors of ours and plain numbers, in a process that has only this thread.
                unsafe {
                    libc::dup2(input.as_raw_fd(), libc::STDIN_FILENO);
                    libc::dup2(output.as_raw_fd(), libc::STDOUT_FILENO);
                    libc::dup2(null.as_raw_fd(), libc::STDERR_FILENO);
                    libc::setpriority(libc::PRIO_PROCESS as _, 0, NICE);
                }
                super::file::close_range(3, i32::MAX);
                if process::die_with(own) {
                    machine::become_program(command);
                }
                process::end(127)
            }
        }
    }

    /// Whether it has succeeded; `None`: it runs still.
    pub fn ended(&self) -> Option<bool> {
        let mut status = 0;
        // SAFETY: integers, and one that lives across the call.
        let pid = unsafe { libc::waitpid(self.pid as libc::pid_t, &mut status, libc::WNOHANG) };
        (pid != 0).then_some(pid as u32 == self.pid && status == 0)
    }

    /// What becomes readable when it ends.
    pub fn handle(&self) -> BorrowedFd<'_> {
        self.handle.as_fd()
    }
}

impl Drop for Filter {
    /// One that is still there is killed.
    fn drop(&mut self) {
        if process::signal_process(self.handle.as_fd(), libc::SIGKILL).is_ok() {
            // SAFETY: integers; no status wanted.
            unsafe { libc::waitpid(self.pid as libc::pid_t, std::ptr::null_mut(), 0) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Seek, SeekFrom, Write};

    fn run(command: &[&str]) -> (bool, String) {
        let command: Vec<String> = command.iter().map(|word| word.to_string()).collect();
        let memory = |name| std::fs::File::from(super::super::file::memory(name).unwrap());
        let (mut input, mut output) = (memory(c"input"), memory(c"output"));
        input.write_all(b"words").unwrap();
        input.seek(SeekFrom::Start(0)).unwrap();
        let filter = Filter::start(&command, input.as_fd(), output.as_fd()).unwrap();
        super::super::poll::wait_readable(filter.handle(), None);
        let success = filter.ended().unwrap();
        let mut text = String::new();
        output.seek(SeekFrom::Start(0)).unwrap();
        output.read_to_string(&mut text).unwrap();
        (success, text)
    }

    #[test]
    fn a_filter_reads_one_file_and_writes_the_other() {
        assert_eq!(run(&["/usr/bin/tr", "a-z", "A-Z"]), (true, "WORDS".into()));
        assert_eq!(run(&["/bin/sh", "-c", "nice; exit 3"]), (false, "19\n".into()));
        assert_eq!(run(&["/nowhere"]), (false, String::new()));
    }

    #[test]
    fn a_filter_that_does_not_end_is_killed_with_its_handle() {
        let null = super::super::file::null().unwrap();
        let command = ["/bin/sleep", "1000"].map(String::from);
        let filter = Filter::start(&command, null.as_fd(), null.as_fd()).unwrap();
        let pid = filter.pid;
        assert_eq!(filter.ended(), None);
        drop(filter);
        assert!(process::kill(pid as i32, 0).is_err(), "it is gone and reaped");
    }
}
