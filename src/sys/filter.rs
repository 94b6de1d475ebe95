//! A command between two files, with low priority, without shell, for as long as it may take: run beside a process
//! that has other things to do and no way to wait for it.

use std::os::fd::{AsRawFd, BorrowedFd};

use super::{SysError, file, machine, process};

/// The least share of the CPU.
const NICE: i32 = 19;

/// One that runs. It ends with who started it.
pub struct Filter {
    pid: libc::pid_t,
}

impl Filter {
    /// Starts a command (an absolute path and its arguments) that reads one file and writes another; it is killed after
    /// so many milliseconds. `bell` is rung when it has ended. What it says on standard error is nobody's.
    pub fn start(
        command: &[String],
        (input, output): (BorrowedFd, BorrowedFd),
        timeout_ms: u16,
        bell: impl FnOnce(),
    ) -> Result<Filter, SysError> {
        let parent = std::process::id();
        match process::fork()? {
            Some(pid) => Ok(Filter { pid: pid as libc::pid_t }),
            None => {
                let succeeded = process::die_with(parent) && run(command, input, output, timeout_ms) == Ok(0);
                bell();
                process::end((!succeeded).into())
            }
        }
    }

    /// Whether it has succeeded; `None`: it runs still. Asked until it has ended, and not again.
    pub fn ended(&self) -> Option<bool> {
        let mut status = 0;
        // SAFETY: integers, and one that lives across the call.
        let pid = unsafe { libc::waitpid(self.pid, &mut status, libc::WNOHANG) };
        (pid != 0).then_some(pid == self.pid && status == 0)
    }

    /// Waits for its end; whether it has succeeded.
    pub fn wait(self) -> bool {
        process::wait_for(self.pid as u32) == 0
    }

    /// Ends it.
    pub fn kill(self) {
        if self.ended().is_none() {
            // It is not reaped: the number is its own.
            process::kill_if_there(self.pid, libc::SIGKILL);
            // SAFETY: integers; no status wanted.
            unsafe { libc::waitpid(self.pid, std::ptr::null_mut(), 0) };
        }
    }
}

/// Waits for it; its status (wait(2)).
fn run(command: &[String], input: BorrowedFd, output: BorrowedFd, timeout_ms: u16) -> Result<i32, SysError> {
    let (null, parent) = (file::null()?, std::process::id());
    let Some(pid) = process::fork()? else {
        // SAFETY: descriptors of ours and plain numbers, in a process that has only this thread.
        unsafe {
            libc::dup2(input.as_raw_fd(), libc::STDIN_FILENO);
            libc::dup2(output.as_raw_fd(), libc::STDOUT_FILENO);
            libc::dup2(null.as_raw_fd(), libc::STDERR_FILENO);
            libc::setpriority(libc::PRIO_PROCESS as _, 0, NICE);
        }
        file::close_range(3, i32::MAX);
        if process::die_with(parent) {
            machine::become_program(command);
        }
        process::end(127)
    };
    Ok(process::wait_for_at_most(pid, timeout_ms))
}

#[cfg(test)]
mod tests {
    use super::super::poll;
    use super::*;
    use std::io::{Read, Seek, SeekFrom, Write};
    use std::os::fd::AsFd;

    fn run(command: &[&str], timeout_ms: u16) -> (bool, String) {
        let command: Vec<String> = command.iter().map(|word| word.to_string()).collect();
        let memory = |name| std::fs::File::from(file::memory(name).unwrap());
        let (mut input, mut output) = (memory(c"input"), memory(c"output"));
        input.write_all(b"words").unwrap();
        input.seek(SeekFrom::Start(0)).unwrap();
        let (read, write) = file::pipe(false).unwrap();
        let bell = || file::write_some(write.as_fd(), b"!").unwrap();
        let filter = Filter::start(&command, (input.as_fd(), output.as_fd()), timeout_ms, bell).unwrap();
        poll::wait_readable(read.as_fd(), None);
        let success = loop {
            if let Some(success) = filter.ended() {
                break success;
            }
            process::give_way();
        };
        let mut text = String::new();
        output.seek(SeekFrom::Start(0)).unwrap();
        output.read_to_string(&mut text).unwrap();
        (success, text)
    }

    #[test]
    fn a_filter_reads_one_file_and_writes_the_other() {
        assert_eq!(run(&["/usr/bin/tr", "a-z", "A-Z"], 60_000), (true, "WORDS".into()));
        assert_eq!(run(&["/bin/sh", "-c", "nice; exit 3"], 60_000), (false, "19\n".into()));
        assert_eq!(run(&["/nowhere"], 60_000), (false, String::new()));
    }

    #[test]
    fn a_filter_that_does_not_end_is_killed_when_its_time_is_over_or_when_it_is_ended() {
        assert_eq!(run(&["/bin/sleep", "1000"], 10), (false, String::new()));
        let null = file::null().unwrap();
        let command = ["/bin/sleep", "1000"].map(String::from);
        let filter = Filter::start(&command, (null.as_fd(), null.as_fd()), 60_000, || {}).unwrap();
        let pid = filter.pid;
        filter.kill();
        assert!(process::kill(pid, 0).is_err(), "it is gone and reaped");
    }
}
