//! One running QEMU: started, listened to, asked through its monitor and its qtest socket, and killed.
//! Knows what became of the machine; knows nothing of orders to the guest.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nanoserde::DeJson;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;

use super::boot::{Board, Boot, Ends};
use super::cache::{Cache, QEMU};
use super::ending::{Ending, panic_reason};
use super::qmp::{Event, Line, Objects, quoted};
use super::wire::{Wire, listen};

/// How long QEMU itself may take for an answer of its own, on the busiest of machines.
const QEMU_PATIENCE: Duration = Duration::from_secs(120);
/// How often the guest's clock is looked at while nothing happens.
pub const LOOK: Duration = Duration::from_millis(250);
/// The disk through which files come into a guest. Its size is part of a saved state.
const PAYLOAD_BYTES: u64 = 64 << 20;

/// QEMU's process; killed when let go of.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A QEMU that dies with the thread that starts it, and that is born with these descriptors.
pub fn inherit<const COUNT: usize>(command: &mut Command, ends: [RawFd; COUNT]) {
    let us = nix::unistd::getpid();
    let prepare = move || {
        set_pdeathsig(Signal::SIGKILL)?;
        // Whoever died in the meantime sends no signal any more.
        if nix::unistd::getppid() != us {
            return Err(nix::errno::Errno::ESRCH.into());
        }
        for end in ends {
            // SAFETY: open in the parent as long as this runs, and so in this copy of it.
            let end = unsafe { std::os::fd::BorrowedFd::borrow_raw(end) };
            fcntl(end, FcntlArg::F_SETFD(FdFlag::empty()))?;
        }
        Ok(())
    };
    // SAFETY: system calls only, no allocation and no lock, between fork and exec.
    unsafe { command.pre_exec(prepare) };
}

/// Starts QEMU with our ends of its wires: the agent's, the monitor's and qtest's.
fn spawn(program: &str, folder: &Path, arguments: impl FnOnce(&Ends) -> Vec<String>) -> (Process, [Wire; 3]) {
    let ((agent, agent_end), (qmp, qmp_end), (qtest, qtest_end)) = (Wire::pair(), Wire::pair(), Wire::pair());
    let ends = [agent_end.as_raw_fd(), qmp_end.as_raw_fd(), qtest_end.as_raw_fd()];
    let said = File::create(folder.join("qemu.log")).expect("QEMU's log");
    let mut command = Command::new(program);
    command.args(arguments(&Ends { agent: ends[0], qmp: ends[1], qtest: ends[2], folder }));
    command.stdin(Stdio::null()).stdout(said.try_clone().expect("QEMU's log")).stderr(said);
    inherit(&mut command, ends);
    let child = command.spawn().unwrap_or_else(|error| {
        panic!("{program} does not start: {error} (apt-get install -y qemu-system-arm)")
    });
    (Process(child), [agent, qmp, qtest])
}

/// A running machine. Dies with this value, and with the thread that made it.
pub struct Machine {
    pub board: Board,
    // Before the cache: QEMU is dead when the next one may start.
    process: Process,
    cache: Cache,
    pub folder: PathBuf,
    pub agent: Wire,
    pub events: VecDeque<Event>,
    /// What became of the guest since it was last seen up.
    pub fate: Option<Ending>,
    /// The console at that moment: it may say other things soon.
    fate_console: Option<String>,
    /// Where the console of the present boot begins.
    console_from: usize,
    qmp: Wire,
    qtest: Wire,
    replies: VecDeque<String>,
    qtest_replies: VecDeque<String>,
    bitten: bool,
    /// Held by QEMU, its clock included.
    pub stopped: bool,
}

impl Machine {
    /// Starts QEMU: at the beginning, or paused at a saved state.
    pub fn start(cache: Cache, name: &str, boot: &Boot, state: Option<&str>) -> Machine {
        let folder = cache.run_folder(name);
        fs::write(folder.join("initramfs"), boot.initramfs(&cache)).expect("the initramfs");
        let payload = File::create(folder.join("payload")).expect("the payload disk");
        payload.set_len(PAYLOAD_BYTES).expect("the payload disk");
        let make = |ends: &Ends| {
            let mut all = boot.arguments(&cache, ends);
            if state.is_some() {
                all.extend(["-incoming".into(), "defer".into()]);
            }
            all
        };
        let (process, wires) = spawn(QEMU, &folder, make);
        let mut machine = Machine::of(boot.board, cache, folder, process, wires);
        if let Some(state) = state {
            machine
                .qmp("migrate-incoming", &format!(r#"{{"uri":{}}}"#, quoted(&format!("exec:cat {state}"))));
            machine.await_migration();
            machine.qmp("cont", "{}");
        }
        machine
    }

    /// Starts a QEMU of these arguments, in a folder where its console is to be the file `console`.
    pub fn launch(
        cache: Cache,
        folder: PathBuf,
        board: Board,
        arguments: impl FnOnce(&Ends) -> Vec<String>,
    ) -> Machine {
        let (process, wires) = spawn(board.qemu(), &folder, arguments);
        Machine::of(board, cache, folder, process, wires)
    }

    fn of(board: Board, cache: Cache, folder: PathBuf, process: Process, wires: [Wire; 3]) -> Machine {
        let [agent, qmp, qtest] = wires;
        let mut machine = Machine {
            board,
            process,
            cache,
            folder,
            agent,
            events: VecDeque::new(),
            fate: None,
            fate_console: None,
            console_from: 0,
            qmp,
            qtest,
            replies: VecDeque::new(),
            qtest_replies: VecDeque::new(),
            bitten: false,
            stopped: false,
        };
        machine.greet();
        machine
    }

    /// The monitor says hello first and wants an answer.
    fn greet(&mut self) {
        self.reply("QEMU's greeting");
        self.qmp("qmp_capabilities", "{}");
        // The end of a migration comes as an event.
        self.qmp("migrate-set-capabilities", r#"{"capabilities":[{"capability":"events","state":true}]}"#);
    }

    /// Stops the machine and writes its state to a file.
    pub fn save(&mut self, path: &str) {
        self.qmp("stop", "{}");
        self.qmp("migrate-set-parameters", r#"{"max-bandwidth":10000000000}"#);
        self.qmp("migrate", &format!(r#"{{"uri":{}}}"#, quoted(&format!("exec:cat >{path}"))));
        self.await_migration();
    }

    fn await_migration(&mut self) {
        let began = Instant::now();
        loop {
            while let Some(event) = self.events.pop_front() {
                match (event.name.as_str(), event.data.status.as_deref()) {
                    ("MIGRATION", Some("completed")) => return,
                    ("MIGRATION", Some("failed")) => self.fail("the state is not readable"),
                    _ => {}
                }
            }
            self.go_on("the state", began);
        }
    }

    /// A step of waiting for QEMU itself, which either goes on or is a broken test.
    fn go_on(&mut self, what: &str, began: Instant) {
        if self.qmp.ended {
            let ending = self.fate.clone().map_or_else(String::new, |fate| fate.to_string());
            self.fail(&format!("waiting for {what}: {ending}"));
        }
        assert!(began.elapsed() < QEMU_PATIENCE, "QEMU does not answer: {what}");
        self.listen(LOOK);
    }

    /// Fails the test, with everything there is to know.
    pub fn fail(&self, why: &str) -> ! {
        panic!("{why}\n{}\n(all of it in {})", self.console_tail(), self.folder.display());
    }

    pub fn pid(&self) -> u32 {
        self.process.0.id()
    }

    /// Ends QEMU and keeps the turn.
    pub fn into_cache(self) -> Cache {
        self.cache
    }

    pub fn cache(&self) -> &Cache {
        &self.cache
    }

    /// Everything on the guest's console since it was started or was last up again.
    pub fn console(&self) -> String {
        let bytes = fs::read(self.folder.join("console")).unwrap_or_default();
        String::from_utf8_lossy(bytes.get(self.console_from..).unwrap_or_default()).into_owned()
    }

    /// The console's last lines, of the moment when it ended with the guest.
    pub fn console_tail(&self) -> String {
        super::ending::tail(&self.fate_console.clone().unwrap_or_else(|| self.console()))
    }

    /// Waits until something arrives and takes it in; whether anything did. The one place that waits.
    pub fn listen(&mut self, at_most: Duration) -> bool {
        let any = listen(&mut [&mut self.agent, &mut self.qmp, &mut self.qtest], at_most);
        while let Some(line) = self.qmp.line() {
            let read = Line::deserialize_json(&line).unwrap_or_else(|error| panic!("{error:?} in {line}"));
            match read.event {
                Some(name) => self.happened(Event { name, data: read.data.unwrap_or_default() }),
                None => self.replies.push_back(line),
            }
        }
        while let Some(line) = self.qtest.line() {
            // What is not an answer would be an interrupt line nobody asked for.
            if line.starts_with("OK") || line.starts_with("FAIL") {
                self.qtest_replies.push_back(line);
            }
        }
        if self.qmp.ended {
            self.reap();
        }
        any
    }

    fn happened(&mut self, event: Event) {
        match event.name.as_str() {
            "WATCHDOG" => self.bitten = true,
            // QEMU says `guest-panic` and the like; what matters is that the guest is not what it was.
            "RESET" => {
                let ending = if self.bitten { Ending::WatchdogBit } else { Ending::Reset };
                self.ended(ending);
            }
            "STOP" => self.stopped = true,
            "RESUME" => self.stopped = false,
            "SHUTDOWN" => self.ended(Ending::PoweredOff),
            _ => {}
        }
        self.events.push_back(event);
    }

    /// The first ending is the one that counts. A kernel that panicked says so on its console.
    fn ended(&mut self, ending: Ending) {
        if self.fate.is_none() {
            let console = self.console();
            let reason = panic_reason(&console);
            self.fate = Some(reason.map_or(ending, |reason| Ending::Panicked { reason }));
            self.fate_console = Some(console);
        }
    }

    /// QEMU has gone: how.
    fn reap(&mut self) {
        let status = self.process.0.wait().expect("QEMU is our child");
        let said = || fs::read_to_string(self.folder.join("qemu.log")).unwrap_or_default();
        match status.signal() {
            Some(signal) => self.ended(Ending::QemuKilled { signal }),
            None => self.ended(Ending::QemuExited { code: status.code().unwrap_or(-1), said: said() }),
        }
    }

    /// QEMU is no more.
    pub fn is_gone(&self) -> bool {
        self.qmp.ended
    }

    /// The guest is up again: what became of the one before is history.
    pub fn forget_fate(&mut self) {
        self.fate = None;
        self.bitten = false;
        // A panic of before must not explain what comes.
        self.console_from += self.fate_console.take().map_or(0, |console| console.len());
    }

    /// Gives QEMU a command; the line of its reply.
    pub fn qmp(&mut self, command: &str, arguments: &str) -> String {
        self.qmp.send(format!("{{\"execute\":\"{command}\",\"arguments\":{arguments}}}\n").as_bytes());
        let line = self.reply(command);
        let error = Line::deserialize_json(&line).ok().and_then(|read| read.error);
        if let Some(error) = error {
            self.fail(&format!("QEMU does not {command}: {}", error.desc));
        }
        line
    }

    fn reply(&mut self, what: &str) -> String {
        let began = Instant::now();
        loop {
            if let Some(line) = self.replies.pop_front() {
                return line;
            }
            self.go_on(what, began);
        }
    }

    /// Touches the hardware past the guest; none when QEMU is gone.
    pub fn qtest(&mut self, command: &str) -> Option<String> {
        self.qtest.send(format!("{command}\n").as_bytes());
        let began = Instant::now();
        while !self.is_gone() {
            if let Some(line) = self.qtest_replies.pop_front() {
                assert!(line.starts_with("OK"), "{command}: {line}");
                return Some(line);
            }
            assert!(began.elapsed() < QEMU_PATIENCE, "QEMU does not answer: {command}");
            self.listen(LOOK);
        }
        None
    }

    /// A 32-bit register.
    pub fn read_register(&mut self, address: u64) -> Option<u32> {
        let reply = self.qtest(&format!("readl {address:#x}"))?;
        let hex = reply.trim_start_matches("OK").trim().trim_start_matches("0x").to_string();
        Some(u64::from_str_radix(&hex, 16).expect("a number from qtest") as u32)
    }

    pub fn write_register(&mut self, address: u64, value: u32) {
        self.qtest(&format!("writel {address:#x} {value:#x}"));
    }

    /// The guest's clock, in ticks since whenever; none when QEMU is gone.
    pub fn clock(&mut self) -> Option<u32> {
        match self.board {
            // The PL031, counting seconds; `-rtc clock=vm` makes it the machine's own time.
            Board::Virt => self.read_register(0x0901_0000),
            // The free-running counter, in microseconds: it begins anew after 71 minutes.
            Board::Raspi3b | Board::Raspi2b => self.read_register(0x3f00_3004),
            Board::Raspi0 => self.read_register(0x2000_3004),
        }
    }

    /// How long QEMU's threads have wanted a processor and got none: that long its guest stood still while
    /// the guest's clock ran on.
    pub fn starved(&self) -> Duration {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.pid())).into_iter().flatten().flatten();
        let waited = tasks.filter_map(|task| {
            // Time on a processor, time in the queue for one (nanoseconds), turns.
            let line = fs::read_to_string(task.path().join("schedstat")).ok()?;
            line.split_whitespace().nth(1)?.parse::<u64>().ok()
        });
        Duration::from_nanos(waited.sum())
    }

    pub fn ticks_per_second(&self) -> u32 {
        match self.board {
            Board::Virt => 1,
            Board::Raspi3b | Board::Raspi2b | Board::Raspi0 => 1_000_000,
        }
    }

    /// The path of the only device of a type.
    pub fn device(&mut self, kind: &str) -> String {
        let parent = "/machine/unattached";
        let reply = self.qmp("qom-list", &format!(r#"{{"path":{}}}"#, quoted(parent)));
        let objects = Objects::deserialize_json(&reply).expect("QEMU's list of devices").list;
        let found = objects.iter().find(|object| object.kind == format!("child<{kind}>"));
        format!("{parent}/{}", found.unwrap_or_else(|| panic!("the machine has no {kind}")).name)
    }
}
