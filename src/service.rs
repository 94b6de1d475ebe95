//! STANDS FOR THE GUARD before systemd (`multusd --service`): the main process of a unit. The guard is a process beside it, in the
//! same unit. `systemctl restart` ends this one, whose successor finds the guard and has it take over what is new on storage; no
//! program notices. `systemctl stop` ends them all.
//!
//! It decides nothing about programs, and judges nobody while it runs: what the guard says to systemd goes through it, so that
//! systemd hears of neither when one of the two hangs, and kills this one. A successor judges the guard, once: by its answer.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::sys::signal::Signal;

use crate::guard::STOPPING;
use crate::sys::filter::Filter;
use crate::sys::poll::{self, Interest, Poller};
use crate::sys::signal::GuardSignals;
use crate::sys::{SysError, cgroup, clock, console, environment, file, image, proc, process, signal, socket};
use crate::time::Millis;

/// A guard answers as soon as it runs; one that has not by then does not run.
const ANSWER_MS_MAX: u16 = 2000;

/// systemctl asks process 1, which has other things to do at a shutdown. Without an answer everything is stopped.
const QUESTION_MS_MAX: u16 = 5000;

/// Of what is said in `systemctl list-jobs`, and of [`Record`].
const TEXT_BYTES_MAX: usize = 64 * 1024;

/// Of one message to systemd: ours are a word long.
const MESSAGE_BYTES_MAX: usize = 256;

/// In the unit's directory.
const RECORD: &str = "guard";

/// What a guard that is to begin is told: the next main process can find it, or not.
const RECORDED: &[u8; 1] = b"k";
const NOT_RECORDED: &[u8; 1] = b"n";

/// What is waited for: tokens of the poller.
const SIGNAL: u64 = 0;
const MESSAGE: u64 = 1;
const GUARD: u64 = 2;

/// The main process of the unit, until it is stopped or the guard ends; its exit code. `guard` is run in a process of its own.
pub fn run(guard: &dyn Fn() -> u8) -> u8 {
    if image::is_copy() {
        // The guard, which begins anew with our arguments whenever it becomes another executable.
        return guard();
    }
    stand(guard).unwrap_or_else(|why| {
        console::complain(&["multusd --service: ", &why].concat());
        1
    })
}

/// What the unit runs when its main process has ended.
pub fn ended() -> u8 {
    let directory = match directory() {
        Ok(directory) => directory,
        Err(why) => {
            console::complain(&["multusd --service-ended: ", &why].concat());
            return 2;
        }
    };
    let record = Record::read(&directory);
    let Some((record, guard)) = record.and_then(|record| record.guard().map(|guard| (record, guard))) else {
        // What is left of it is ending, and no reason to wait.
        let _ = cgroup::make_enterable();
        return 0;
    };
    if job().as_deref() == Some("stop") {
        // The main process did not live to order it, or had heard of a restart.
        let is_late = std::env::var_os("SERVICE_RESULT").is_some_and(|result| result == "timeout");
        end(&guard, if is_late { libc::SIGKILL } else { libc::SIGTERM });
        return 0;
    }
    // Where systemd has a place for the next one, nothing is in its way.
    if record.has_place {
        return 0;
    }
    let why = match cgroup::make_enterable() {
        Ok(true) => return 0,
        Ok(false) => "a program uses the controllers of its control group for groups of its own".into(),
        Err(why) => why,
    };
    console::complain(
        &["multusd --service-ended: everything is stopped, or this systemd could not start it again: ", &why]
            .concat(),
    );
    end(&guard, libc::SIGTERM);
    1
}

/// Ends a guard, and waits for that as long as the unit allows.
fn end(guard: &OwnedFd, signal: i32) {
    let _ = process::signal_process(guard.as_fd(), signal);
    poll::wait_readable(guard.as_fd(), None);
}

fn stand(guard: &dyn Fn() -> u8) -> Result<u8, String> {
    let directory = directory()?;
    let systemd =
        std::env::var_os("NOTIFY_SOCKET").ok_or("NOTIFY_SOCKET is not set: the unit has no Type=notify")?;
    let failed = |what: &'static str| move |error: SysError| format!("{what}: {error}");
    signal::block().map_err(failed("signals"))?;
    // Without control groups there is nothing to enter, and nothing in systemd's way.
    let has_place = cgroup::enter_leaf().unwrap_or(true);
    let path = directory.join("notify");
    let socket = match socket::listen_notify(&path, None) {
        Ok(socket) => socket,
        Err(error) => {
            // Programs are to run all the same. Then this process is the guard, as without a service.
            console::say(format_args!("a restart will stop programs: {}: {error}", path.display()));
            if let Some(former) = Record::read(&directory).and_then(|record| record.guard()) {
                end(&former, libc::SIGTERM);
            }
            return Ok(guard());
        }
    };
    let systemd = socket::connect_notify(Path::new(&systemd)).map_err(failed("NOTIFY_SOCKET"))?;
    let record = Record::of_this(has_place);
    let mut service = Service {
        systemd,
        socket,
        pid: 0,
        process: None,
        is_child: false,
        is_found_again: true,
        is_over: false,
        is_stopping: false,
    };
    if !service.find(&directory, &record) {
        service.start(guard, &path, &directory, &record).map_err(failed("the guard"))?;
    }
    let code = service.watch().map_err(failed("waiting"))?;
    if service.is_over {
        file::remove(&directory.join(RECORD));
    }
    Ok(code)
}

/// Where the unit keeps what one main process leaves to the next; root's alone.
fn directory() -> Result<PathBuf, String> {
    let directories = std::env::var_os("RUNTIME_DIRECTORY").and_then(|value| value.into_string().ok());
    let first = directories.as_deref().and_then(|all| all.split(':').next()).filter(|path| !path.is_empty());
    first.map(PathBuf::from).ok_or_else(|| {
        "RUNTIME_DIRECTORY is not set: this is for a unit of systemd that has RuntimeDirectory= (see docs/packages.md)".into()
    })
}

/// What a main process leaves to the next: who the guard is, and what it was started with.
#[derive(Debug, PartialEq, Eq)]
struct Record {
    pid: u32,
    /// Of the process with that number, in clock ticks since boot.
    start: u64,
    /// systemd puts the main process where no controllers are in its way.
    has_place: bool,
    /// Arguments, and how often systemd wants to hear of it: a guard that was started with others is not taken over.
    circumstances: String,
}

impl Record {
    fn of_this(has_place: bool) -> Record {
        let words = file::read_bounded(Path::new("/proc/self/cmdline"), TEXT_BYTES_MAX).unwrap_or_default();
        // Without the executable's own name: another one is no reason to stop anything.
        let after_name = words.iter().position(|byte| *byte == 0).unwrap_or_default();
        let mut words = words[after_name..].to_vec();
        words.extend(std::env::var_os("WATCHDOG_USEC").unwrap_or_default().as_encoded_bytes());
        Record { pid: 0, start: 0, has_place, circumstances: words.escape_ascii().to_string() }
    }

    /// The guard that is meant; `None`: it has ended.
    fn guard(&self) -> Option<OwnedFd> {
        let process = process::open_process(self.pid).ok()?;
        // Looked at after it was opened: it is the same from here on.
        let stat = proc::stat(self.pid)?;
        (stat.start == self.start && stat.state != b'Z').then_some(process)
    }

    fn keep(&self, directory: &Path, pid: u32) -> Result<(), SysError> {
        let start = proc::stat(pid).map_or(0, |stat| stat.start);
        let text = format!("{pid} {start} {}\n{}\n", u8::from(self.has_place), self.circumstances);
        file::replace(&directory.join(RECORD), text.as_bytes())
    }

    fn read(directory: &Path) -> Option<Record> {
        let text = file::read_bounded(&directory.join(RECORD), TEXT_BYTES_MAX).ok()?;
        let (numbers, circumstances) = str::from_utf8(&text).ok()?.split_once('\n')?;
        let mut numbers = numbers.split(' ').map(|number| number.parse::<u64>().ok());
        Some(Record {
            pid: u32::try_from(numbers.next()??).ok()?,
            start: numbers.next()??,
            has_place: numbers.next()?? != 0,
            circumstances: circumstances.strip_suffix('\n')?.into(),
        })
    }
}

struct Service {
    /// systemd's.
    systemd: OwnedFd,
    /// The guard's to speak to, instead of that.
    socket: OwnedFd,
    pid: u32,
    /// The guard (pidfd).
    process: Option<OwnedFd>,
    /// It is ours, and not one that a former main process has started.
    is_child: bool,
    /// The next main process will find it.
    is_found_again: bool,
    /// It has ended.
    is_over: bool,
    /// It has said that it ends, and that all was as ordered.
    is_stopping: bool,
}

impl Service {
    /// Whether there is a guard already, which goes on. One that cannot is ended.
    fn find(&mut self, directory: &Path, ours: &Record) -> bool {
        let Some(found) = Record::read(directory) else { return false };
        let Some(process) = found.guard() else { return false };
        self.pid = found.pid;
        let is_wanted = found.circumstances == ours.circumstances;
        if is_wanted {
            let _ = process::signal_process(process.as_fd(), libc::SIGUSR2);
        }
        if is_wanted && self.is_answered() {
            // Where the next main process finds a place may be another than last time.
            if let Err(error) = ours.keep(directory, found.pid) {
                console::say(format_args!("the record of the guard stays as it was: {error}"));
            }
            self.process = Some(process);
            return true;
        }
        if is_wanted {
            console::say(format_args!("the guard does not answer: killed, with everything it has started"));
            end(&process, libc::SIGKILL);
        } else {
            console::say(format_args!(
                "multusd is started with other arguments: the one that runs is stopped"
            ));
            end(&process, libc::SIGTERM);
        }
        false
    }

    fn is_answered(&mut self) -> bool {
        let until = clock::now() + Millis(ANSWER_MS_MAX.into());
        loop {
            let left = until.since(clock::now()).0.min(ANSWER_MS_MAX.into()) as u16;
            if !poll::wait_readable(self.socket.as_fd(), Some(left)) {
                return false;
            }
            if self.pass_on() {
                return true;
            }
        }
    }

    /// A guard that the next main process could not find again must not outlive this one: whoever starts it then would be in its
    /// way. So it begins when it has its record, and dies with us where it can have none.
    fn start(
        &mut self,
        guard: &dyn Fn() -> u8,
        path: &Path,
        directory: &Path,
        record: &Record,
    ) -> Result<(), SysError> {
        let (go, say_go) = file::pipe(false)?;
        let parent = std::process::id();
        let Some(pid) = process::fork()? else {
            drop(say_go);
            let mut word = [0];
            if !process::die_with(parent) || file::read_some(go.as_fd(), &mut word) != Some(1) {
                process::end(1);
            }
            if word == *RECORDED {
                process::live_on();
            }
            environment::set("NOTIFY_SOCKET", Some(path.as_os_str()));
            // It was meant for our process.
            environment::set("WATCHDOG_PID", None);
            // Ours alone.
            environment::set("RUNTIME_DIRECTORY", None);
            process::end(guard().into())
        };
        (self.pid, self.is_child) = (pid, true);
        self.process = Some(process::open_process(pid)?);
        let kept = record.keep(directory, pid);
        if let Err(error) = &kept {
            console::say(format_args!(
                "a restart will stop programs: who the guard is cannot be kept: {error}"
            ));
            file::remove(&directory.join(RECORD));
            self.is_found_again = false;
        }
        file::write_some(say_go.as_fd(), if kept.is_ok() { RECORDED } else { NOT_RECORDED })
    }

    /// Gives systemd what the guard says; false: the guard has said nothing.
    fn pass_on(&mut self) -> bool {
        let (mut words, mut has_spoken) = ([0; MESSAGE_BYTES_MAX], false);
        while let Some((length, peer)) = socket::peek_notification(self.socket.as_fd(), &mut words) {
            socket::take_notification(self.socket.as_fd());
            // The directory is root's: programs of root could speak as well.
            if peer.pid == self.pid {
                let words = &words[..length.min(MESSAGE_BYTES_MAX)];
                has_spoken = true;
                self.is_stopping |= words == STOPPING;
                // It waits where process 1 is busy: what the guard has said once it does not say again.
                let _ = socket::notify(self.systemd.as_fd(), words);
            }
        }
        has_spoken
    }

    fn watch(&mut self) -> Result<u8, SysError> {
        let signals = GuardSignals::new()?;
        let mut poller = Poller::new()?;
        poller.add(signals.as_fd(), SIGNAL, Interest::Read)?;
        poller.add(self.socket.as_fd(), MESSAGE, Interest::Read)?;
        if let Some(process) = &self.process {
            poller.add(process.as_fd(), GUARD, Interest::Read)?;
        }
        loop {
            for token in poller.wait(true) {
                if token == MESSAGE {
                    self.pass_on();
                } else if token == GUARD {
                    // Its last words.
                    self.pass_on();
                    self.is_over = true;
                    return Ok(self.outcome());
                }
            }
            while let Some(signal) = signals.next() {
                match signal {
                    Signal::SIGTERM | Signal::SIGINT if self.is_found_again && is_restart() => {
                        console::say(format_args!("to be started again: programs run on"));
                        return Ok(0);
                    }
                    Signal::SIGCHLD | Signal::SIGALRM => continue,
                    _ => {}
                }
                if let Some(process) = &self.process {
                    // It has ended: that is the next thing we hear.
                    let _ = process::signal_process(process.as_fd(), signal as i32);
                }
            }
        }
    }

    /// The exit code of the guard, as far as it can be known.
    fn outcome(&self) -> u8 {
        if !self.is_child {
            return u8::from(!self.is_stopping);
        }
        match process::wait_for(self.pid) {
            status if libc::WIFEXITED(status) => libc::WEXITSTATUS(status) as u8,
            _ => 1,
        }
    }
}

/// Whether systemd stops this unit in order to start it again.
fn is_restart() -> bool {
    job().is_some_and(|job| job == "restart" || job == "try-restart")
}

/// What systemd is about with this unit; `None`: nothing, or it cannot be known.
fn job() -> Option<String> {
    let unit = cgroup::unit()?;
    let systemctl = ["/usr/bin/systemctl", "/bin/systemctl"].into_iter().find(|path| file::exists(path))?;
    let said =
        said_by(&[systemctl, "list-jobs", "--no-legend", "--no-pager", &unit].map(String::from)).ok()?;
    job_in(&String::from_utf8_lossy(&said), &unit).map(String::from)
}

/// In the lines of `systemctl list-jobs`: number, unit, what is to be done, whether it is being done.
fn job_in<'a>(lines: &'a str, unit: &str) -> Option<&'a str> {
    lines.lines().find_map(|line| {
        let mut words = line.split_ascii_whitespace().skip(1);
        words.next().filter(|name| *name == unit)?;
        words.next()
    })
}

/// Runs a command; what it says on standard output, where it succeeds in time.
fn said_by(command: &[String]) -> Result<Vec<u8>, SysError> {
    let (null, said, bell) = (file::null()?, file::memory(c"said")?, poll::event_counter()?);
    let filter =
        Filter::start(command, (null.as_fd(), said.as_fd()), QUESTION_MS_MAX, || poll::wake(bell.as_fd()))?;
    // It is killed before that.
    poll::wait_readable(bell.as_fd(), Some(QUESTION_MS_MAX + 1000));
    match filter.wait() {
        true => file::read_memory(said.as_fd()),
        false => Err(SysError { operation: "systemctl", errno: libc::EIO }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restart_is_told_from_a_stop_by_the_unit_s_own_job() {
        let lines = "  811 multusd.service restart running\n  812 other.service    stop    waiting\n";
        assert_eq!(job_in(lines, "multusd.service"), Some("restart"));
        assert_eq!(job_in(lines, "other.service"), Some("stop"));
        assert_eq!(job_in("1 multusd.service try-restart running\n", "multusd.service"), Some("try-restart"));
        for lines in ["", "No jobs running.\n", "9 a.service restart running\n"] {
            assert_eq!(job_in(lines, "multusd.service"), None, "{lines}");
        }
    }

    #[test]
    fn the_next_main_process_reads_what_the_former_has_kept() {
        let directory = Path::new("/tmp").join(format!("multusd-service-{}", std::process::id()));
        std::fs::create_dir(&directory).unwrap();
        assert!(Record::read(&directory).is_none());
        let own = std::process::id();
        let record =
            Record { pid: 0, start: 0, has_place: true, circumstances: "multusd\\x00--service".into() };
        record.keep(&directory, own).unwrap();
        let start = proc::stat(own).unwrap().start;
        assert_eq!(Record::read(&directory), Some(Record { pid: own, start, ..record }));
        for text in ["", "1", "1 2 3", "x 2 1\na\n", "1 2\na\n", "99999999999 2 1\na\n"] {
            std::fs::write(directory.join(RECORD), text).unwrap();
            assert!(Record::read(&directory).is_none(), "{text}");
        }
        std::fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn what_a_command_says_is_read_and_one_that_fails_says_nothing() {
        let run = |words: &[&str]| said_by(&words.iter().map(|word| word.to_string()).collect::<Vec<_>>());
        assert_eq!(run(&["/bin/echo", "restart"]).unwrap(), b"restart\n");
        assert!(run(&["/bin/sh", "-c", "echo restart; exit 1"]).is_err());
        assert!(run(&["/nowhere"]).is_err());
    }
}
