//! The log writer: a process that takes what programs write and puts it into files, with sizes
//! capped. Storage may be slow or stuck; then this process waits, and the supervisor does not.
//!
//! A simple writer: what it dies with in hand is lost (at most one read). The `log` child of a
//! later version takes its place.

use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::SeqCst;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::sys::page::KeepForProgram;
use crate::sys::signal::TermSignal;
use crate::sys::{describe, file as sys_file, poll as sys_poll, process};

use super::Daemon;
use super::jobs::Job;
use super::spec::Stream;

/// One read: what a pipe holds by default.
const READ_BYTES: usize = 64 * 1024;

/// Reads per pipe when asked to end. A program that writes without end would keep this process for
/// ever; the pipes stay, and what is left in them is the next writer's.
const LAST_READS: usize = 16;

/// A device that takes nothing (a terminal that was stopped) holds up the other logs so long, once.
const DEVICE_PATIENCE_MS: u16 = 1000;

/// A file with its cap.
struct Log {
    stream: Stream,
    file: Option<OwnedFd>,
    /// A regular file: has a size, can be rotated. A device has none and cannot.
    is_regular: bool,
    size: u64,
    complained: bool,
}

impl Log {
    fn new(stream: Stream) -> Self {
        Log { stream, file: None, is_regular: false, size: 0, complained: false }
    }

    fn open(&mut self) -> Result<&OwnedFd, String> {
        let file = match self.file.take() {
            Some(file) => file,
            None => {
                let (file, is_regular) = crate::sys::log_file::open_log(Path::new(&self.stream.path))?;
                self.is_regular = is_regular;
                let size = sys_file::size(file.as_fd()).map_err(|error| error.to_string())?;
                self.size = if is_regular { size } else { 0 };
                file
            }
        };
        Ok(self.file.insert(file))
    }

    fn write(&mut self, bytes: &[u8]) {
        let result = self.open().map(|_| ()).and_then(|()| {
            let is_full = self.stream.maxbytes > 0 && self.size + bytes.len() as u64 > self.stream.maxbytes;
            if self.is_regular && is_full && self.size > 0 {
                self.rotate();
            }
            let patience = if self.complained { 0 } else { DEVICE_PATIENCE_MS };
            write_all(self.open()?, bytes, patience).map_err(|errno| describe(errno as i32).to_owned())
        });
        match result {
            Ok(()) => {
                self.size += bytes.len() as u64;
                self.complained = false;
            }
            Err(error) => {
                self.file = None;
                if !std::mem::replace(&mut self.complained, true) {
                    say!("{}: {error}; output is dropped until this works", self.stream.path);
                }
            }
        }
    }

    /// `x` becomes `x.1`, `x.1` becomes `x.2`, the last one goes.
    fn rotate(&mut self) {
        let Some(file) = self.file.take() else { return };
        // Another one took the name: what it is, the next opening looks at.
        if !sys_file::is_still(Path::new(&self.stream.path), file.as_fd()) {
            return;
        }
        let nth = |number: u32| PathBuf::from(format!("{}.{number}", self.stream.path));
        for number in (1..self.stream.backups).rev() {
            // Missing ones are no matter; what is no file of ours stays where it is.
            if sys_file::is_regular(&nth(number)) {
                let _ = sys_file::rename(&nth(number), &nth(number + 1));
            }
        }
        let path = Path::new(&self.stream.path);
        match self.stream.backups {
            0 => sys_file::remove(path),
            _ => drop(sys_file::rename(path, &nth(1))),
        }
        self.size = 0;
    }
}

/// Files take everything at once; a device may be slow, and is waited for as long as it goes on.
fn write_all(file: &OwnedFd, mut bytes: &[u8], patience_ms: u16) -> Result<(), Errno> {
    while !bytes.is_empty() {
        match nix::unistd::write(file, bytes) {
            // A file system without room that does not say so.
            Ok(0) => return Err(Errno::ENOSPC),
            Ok(count) => bytes = &bytes[count..],
            Err(Errno::EINTR) => {}
            Err(error @ Errno::EAGAIN) => {
                let mut fds = [PollFd::new(file.as_fd(), PollFlags::POLLOUT)];
                if poll(&mut fds, PollTimeout::from(patience_ms)) == Ok(0) {
                    return Err(error);
                }
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// What a pipe held.
#[derive(Debug, PartialEq)]
enum Taken {
    Something,
    Nothing,
    /// Nothing, and nothing can come any more.
    Gone,
}

/// Which file each pipe goes to; several pipes may share one.
struct Writer {
    pipes: Vec<(RawFd, usize)>,
    logs: Vec<Log>,
}

impl Writer {
    fn new(streams: Vec<(RawFd, Stream)>) -> Self {
        let mut writer = Writer { pipes: Vec::new(), logs: Vec::new() };
        for (pipe, stream) in streams {
            let known = writer.logs.iter().position(|log| log.stream.path == stream.path);
            let log = known.unwrap_or_else(|| {
                writer.logs.push(Log::new(stream));
                writer.logs.len() - 1
            });
            writer.pipes.push((pipe, log));
        }
        writer
    }

    /// Takes what one pipe holds, one read.
    fn take(&mut self, pipe: RawFd, log: usize, buffer: &mut [u8]) -> Taken {
        match nix::unistd::read(sys_poll::borrow(pipe), buffer) {
            Ok(length @ 1..) => {
                self.logs[log].write(&buffer[..length]);
                Taken::Something
            }
            Err(Errno::EAGAIN | Errno::EINTR) => Taken::Nothing,
            _ => Taken::Gone,
        }
    }

    /// Takes what a pipe holds, at most so many reads; false: the pipe is of no use any more. poll
    /// would report such a one for ever, and this process would do nothing but ask again.
    fn attend(
        &mut self,
        (pipe, log): (RawFd, usize),
        ready: PollFlags,
        reads: usize,
        buffer: &mut [u8],
    ) -> bool {
        for _ in 0..reads {
            match self.take(pipe, log, buffer) {
                Taken::Something => {}
                Taken::Nothing => {
                    let over = PollFlags::POLLHUP | PollFlags::POLLERR | PollFlags::POLLNVAL;
                    return ready.contains(PollFlags::POLLIN) || !ready.intersects(over);
                }
                Taken::Gone => return false,
            }
        }
        true
    }

    fn run(&mut self, term: &TermSignal) {
        let mut buffer = vec![0; READ_BYTES];
        loop {
            let mut fds: Vec<_> = self
                .pipes
                .iter()
                .map(|(pipe, _)| PollFd::new(sys_poll::borrow(*pipe), PollFlags::POLLIN))
                .collect();
            fds.push(PollFd::new(term.as_fd(), PollFlags::POLLIN));
            if let Err(errno) = poll(&mut fds, PollTimeout::NONE) {
                if errno != Errno::EINTR {
                    // No memory, say: not asked again at once.
                    sys_file::pause(100);
                }
                continue;
            }
            let ready: Vec<PollFlags> =
                fds.iter().map(|fd| fd.revents().unwrap_or(PollFlags::empty())).collect();
            // Asked to end: whatever is there still.
            let last = ready.last().is_some_and(|term| !term.is_empty());
            let reads = if last { LAST_READS } else { 1 };
            for (pipe, ready) in std::mem::take(&mut self.pipes).into_iter().zip(ready) {
                let is_due = last || !ready.is_empty();
                if !is_due || self.attend(pipe, ready, reads, &mut buffer) {
                    self.pipes.push(pipe);
                }
            }
            if last {
                return;
            }
        }
    }
}

fn write_until_told(streams: Vec<(RawFd, Stream)>) -> i32 {
    let Ok(term) = TermSignal::new() else { return 1 };
    process::set_title(c"multusd-log");
    // Copies of everything the supervisor has open came with the fork.
    let mut kept: Vec<RawFd> = streams.iter().map(|(pipe, _)| *pipe).collect();
    kept.push(term.as_fd().as_raw_fd());
    sys_file::close_all_but(&mut kept);
    Writer::new(streams).run(&term);
    0
}

impl Daemon {
    /// The streams have changed: the writer ends, and the next one knows the new ones.
    pub(super) fn restart_writer(&mut self) {
        self.reload.writer_is_stale = true;
    }

    pub(super) fn stop_writer(&mut self) {
        let slot = self.page.job(Job::Write as usize);
        if slot.is_alive() {
            let _ = process::kill(slot.spawned() as i32, libc::SIGTERM);
        }
    }

    /// Called when nothing else is to do: one writer, with the streams as they are now.
    pub(super) fn tend_writer(&mut self) {
        let slot = self.page.job(Job::Write as usize);
        if self.end.has_begun() || self.end.is_coming(self.page) && self.core.all_down() {
            return;
        }
        if slot.is_alive() {
            if std::mem::take(&mut self.reload.writer_is_stale) {
                self.stop_writer();
            }
            return;
        }
        if self.streams().next().is_none() {
            return;
        }
        if self.reload.writer_waits() {
            return self.try_again_soon();
        }
        self.reload.writer_is_stale = false;
        self.reload.writer_started();
        let started = process::spawn_job(slot, 1, || {
            write_until_told(self.streams().map(|(pipe, stream)| (pipe, stream.clone())).collect())
        });
        if let Err(error) = started {
            say!("log writer: {error}");
            self.try_again_soon();
        }
    }

    fn streams(&self) -> impl Iterator<Item = (RawFd, &Stream)> {
        let entries =
            self.table.iter().enumerate().filter_map(|(index, entry)| Some((index, entry.as_ref()?)));
        entries.flat_map(|(index, entry)| {
            let slot = self.page.program(index);
            let out = slot.kept(KeepForProgram::OutRead).zip(entry.spec.stdout.as_ref());
            let err = slot.kept(KeepForProgram::ErrRead).zip(entry.spec.stderr.as_ref());
            out.into_iter().chain(err)
        })
    }

    /// For a job's exit that was taken: told once.
    pub(super) fn job_has_ended(&self, job: Job) -> Option<i32> {
        let slot = self.page.job(job as usize);
        let record = slot.exit()?;
        let taken = slot.flags.swap(1, SeqCst) != 0;
        (!taken).then_some(if record.signalled { -1 } else { i32::from(record.value) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_full_file_is_rotated_and_the_oldest_goes() {
        let directory = std::env::temp_dir().join(format!("multusd-writer-{}", std::process::id()));
        let path = directory.join("sub/x.log");
        let stream = Stream { path: path.to_string_lossy().into_owned(), maxbytes: 10, backups: 2 };
        let mut log = Log::new(stream);
        for text in ["one 1234\n", "two 1234\n", "three 12\n", "four 123\n"] {
            log.write(text.as_bytes());
        }
        let read = |name: &str| fs::read_to_string(directory.join("sub").join(name)).unwrap_or_default();
        assert_eq!(
            [read("x.log"), read("x.log.1"), read("x.log.2"), read("x.log.3")],
            ["four 123\n", "three 12\n", "two 1234\n", ""]
        );
        fs::remove_dir_all(directory).unwrap();
    }
    #[test]
    fn a_pipe_that_nobody_can_write_to_any_more_is_emptied_and_dropped() {
        let directory = std::env::temp_dir().join(format!("multusd-writer-gone-{}", std::process::id()));
        let path = directory.join("x.log");
        let stream = Stream { path: path.to_string_lossy().into_owned(), maxbytes: 0, backups: 0 };
        let (read, write) = sys_file::pipe(true).unwrap();
        let mut writer = Writer::new(vec![(read.as_raw_fd(), stream)]);
        let (pipe, mut buffer) = (writer.pipes[0], [0; 8]);
        let mut attend = |ready| writer.attend(pipe, ready, 1, &mut buffer);
        assert!(attend(PollFlags::empty()), "nothing yet");
        sys_file::append(write.as_fd(), b"words").unwrap();
        drop(write);
        assert!(attend(PollFlags::POLLIN | PollFlags::POLLHUP), "there was something");
        assert!(!attend(PollFlags::POLLHUP), "there is nothing, and never will be");
        assert_eq!(fs::read_to_string(&path).unwrap(), "words");
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn a_pipe_with_more_than_the_last_reads_take_keeps_the_rest_for_the_next_writer() {
        let stream = Stream { path: "/dev/null".into(), maxbytes: 0, backups: 0 };
        let (read, write) = sys_file::pipe(true).unwrap();
        let mut writer = Writer::new(vec![(read.as_raw_fd(), stream)]);
        sys_file::append(write.as_fd(), &[b'x'; LAST_READS + 3]).unwrap();
        assert!(writer.attend(writer.pipes[0], PollFlags::POLLIN, LAST_READS, &mut [0]));
        assert_eq!(nix::unistd::read(&read, &mut [0; 64]), Ok(3));
    }

    #[test]
    fn a_file_that_took_the_place_of_the_log_is_not_rotated() {
        let directory = std::env::temp_dir().join(format!("multusd-writer-swap-{}", std::process::id()));
        let path = directory.join("x.log");
        let stream = Stream { path: path.to_string_lossy().into_owned(), maxbytes: 10, backups: 2 };
        let mut log = Log::new(stream);
        log.write(b"one 1234\n");
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("/dev/null", &path).unwrap();
        log.write(b"two 1234\n");
        assert!(log.complained && fs::symlink_metadata(&path).unwrap().is_symlink());
        assert!(!directory.join("x.log.1").exists());
        fs::remove_dir_all(directory).unwrap();
    }
}
