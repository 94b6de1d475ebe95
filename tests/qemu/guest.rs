//! What a test has in its hand: a guest that takes orders, files and levels on lines, and is waited for in
//! its own time.

use std::fmt::Display;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use super::boot::{Board, Boot};
use super::cache::Cache;
use super::ending::Ending;
use super::machine::{LOOK, Machine};
use super::qmp::Event;

/// A time of the guest's clock. It runs while the machine runs, whatever the guest does; of a limit, what
/// QEMU waited for a processor is not used up.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct GuestSeconds(u32);

pub const fn guest_seconds(seconds: u32) -> GuestSeconds {
    GuestSeconds(seconds)
}

/// For what ought to take no time.
const SHORT: GuestSeconds = guest_seconds(30);
/// For a boot.
const BOOT: GuestSeconds = guest_seconds(120);
/// What this machine may take at least, however slow: only for a stopped guest is it waited that long.
const HOST_LIMIT: Duration = Duration::from_secs(120);

/// PL061 of `virt`: the data register's address holds a mask of the lines it is about.
const PL061: u64 = 0x0903_0000;

/// What an order gave.
#[derive(Clone, Debug, PartialEq)]
pub struct Reply {
    pub code: i32,
    pub bytes: Vec<u8>,
}

impl Reply {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }
}

/// A guest that is up. Gone, and QEMU with it, when the test lets go of it.
pub struct Guest {
    machine: Machine,
    orders: u32,
    /// An order given up: its answer may still come, before that of the next.
    unanswered: Option<u32>,
}

impl Guest {
    /// A freshly booted `virt`, out of a saved state: half a second. The name is the test's.
    pub fn restored(name: &str) -> Guest {
        Guest::restored_from(name, &Boot::virt())
    }

    /// The same for a boot of one's own; the first ever boots and saves.
    pub fn restored_from(name: &str, boot: &Boot) -> Guest {
        assert!(boot.board == Board::Virt, "a Pi is booted: its states were never tried");
        let mut cache = Cache::open();
        let state = cache.state(boot);
        if !state.exists() {
            let mut guest = Guest::boot(cache, &format!("{name}.boot"), boot);
            // Renamed into place: a killed test leaves no half state.
            let half = state.with_extension("half");
            guest.machine.save(&shell_quoted(&half));
            std::fs::rename(&half, &state).expect("the state's file");
            guest.machine.cache().forget_old_states();
            cache = guest.machine.into_cache();
        }
        let began = Instant::now();
        let used =
            File::options().append(true).open(&state).and_then(|file| file.set_modified(SystemTime::now()));
        used.expect("the state's file");
        let machine = Machine::start(cache, name, boot, Some(&shell_quoted(&state)));
        let mut guest = Guest::over(machine);
        guest.ok("true");
        println!("{name}: restored in {:.2} s", began.elapsed().as_secs_f64());
        guest
    }

    /// Boots.
    pub fn booted(name: &str, boot: &Boot) -> Guest {
        Guest::boot(Cache::open(), name, boot)
    }

    /// Boots a Raspberry Pi 3. Its console is how it is spoken to.
    pub fn raspi3b(name: &str) -> Guest {
        Guest::booted(name, &Boot::raspi3b())
    }

    /// A machine that is not up yet, and how it comes up is the caller's business.
    pub fn over(machine: Machine) -> Guest {
        Guest { machine, orders: 0, unanswered: None }
    }

    fn boot(cache: Cache, name: &str, boot: &Boot) -> Guest {
        let began = Instant::now();
        let mut guest = Guest::over(Machine::start(cache, name, boot, None));
        guest.await_up();
        println!("{name}: booted in {:.2} s", began.elapsed().as_secs_f64());
        guest
    }

    // ---------------------------------------------------------------- orders

    /// Gives the guest's shell an order, which may have several lines. Its reply, or how it ended with the
    /// guest. What an order leaves running must not write to the order's own output.
    pub fn order_within(&mut self, limit: GuestSeconds, order: &str) -> Result<Reply, Ending> {
        self.orders += 1;
        let number = self.orders;
        let line = order.replace('\\', "\\\\").replace('\n', "\\n");
        self.machine.agent.send(format!("{number} {line}\n").as_bytes());
        let reply = self.reply(&mark(number), limit, order);
        self.unanswered = reply.is_err().then_some(number);
        reply
    }

    /// The same with the usual limit.
    pub fn order(&mut self, order: &str) -> Result<Reply, Ending> {
        self.order_within(SHORT, order)
    }

    /// An order that must succeed; what it printed, without the last line end.
    pub fn ok_within(&mut self, limit: GuestSeconds, order: &str) -> String {
        match self.order_within(limit, order) {
            Ok(reply) if reply.code == 0 => reply.text().trim_end_matches('\n').into(),
            Ok(reply) => {
                self.fail(format!("\"{order}\" gave exit code {} and:\n{}", reply.code, reply.text()))
            }
            Err(ending) => self.fail(ending),
        }
    }

    pub fn ok(&mut self, order: &str) -> String {
        self.ok_within(SHORT, order)
    }

    /// Everything up to the mark and the number behind it.
    fn reply(&mut self, wanted: &str, limit: GuestSeconds, order: &str) -> Result<Reply, Ending> {
        let mut patience = Patience::new(limit);
        let mut searched = 0;
        loop {
            let arrived = &mut self.machine.agent.arrived;
            if let Some((at, end)) = find_mark(arrived, searched, wanted.as_bytes()) {
                let code = String::from_utf8_lossy(&arrived[at + wanted.len()..end]).trim().parse();
                let late =
                    self.unanswered.and_then(|number| find_mark(&arrived[..at], 0, mark(number).as_bytes()));
                let from = late.map_or(0, |(_, end)| end + 1);
                // On a console others speak too: there the agent says where its answer begins.
                let opened = opening(wanted);
                let opened_length = opened.len();
                let opened =
                    arrived[from..at].windows(opened.len()).rposition(|window| window == opened.as_bytes());
                let bytes = arrived[opened.map_or(from, |found| from + found + opened_length)..at].to_vec();
                arrived.drain(..=end);
                return Ok(Reply { code: code.unwrap_or(-1), bytes });
            }
            searched = arrived.len().saturating_sub(wanted.len() + 4);
            if let Some(fate) = &self.machine.fate {
                return Err(fate.clone());
            }
            patience.step(&mut self.machine, order)?;
        }
    }

    // ---------------------------------------------------------------- what happens to the machine

    /// Waits until a guest that boots, or was reset, takes orders.
    pub fn await_up(&mut self) {
        if let Err(ending) = self.reply("\u{1e}hello ", BOOT, "the boot") {
            self.fail(ending);
        }
    }

    /// Types at a console.
    pub fn send(&mut self, text: &str) {
        self.machine.agent.send(text.as_bytes());
    }

    /// Waits until a console without an agent has said this; all it has said until then. What has been waited
    /// for is not found again.
    pub fn await_text(&mut self, limit: GuestSeconds, text: &str) -> Result<String, Ending> {
        let mut patience = Patience::new(limit);
        let mut searched = 0;
        loop {
            let arrived = &mut self.machine.agent.arrived;
            let found = arrived[searched..].windows(text.len()).position(|window| window == text.as_bytes());
            if let Some(at) = found {
                let said: Vec<u8> = arrived.drain(..searched + at + text.len()).collect();
                return Ok(String::from_utf8_lossy(&said).into_owned());
            }
            searched = (arrived.len() + 1).saturating_sub(text.len());
            if let Some(fate) = &self.machine.fate {
                return Err(fate.clone());
            }
            patience.step(&mut self.machine, text)?;
        }
    }

    /// After a reset: what the console said before it is over.
    pub fn forget_fate(&mut self) {
        self.machine.forget_fate();
        self.machine.agent.arrived.clear();
        self.unanswered = None;
    }

    /// Everything on the console since it was started or was last up again.
    pub fn console(&self) -> String {
        self.machine.console()
    }

    /// Waits for the reset that was announced or is due, and until the guest takes orders again.
    pub fn await_reboot(&mut self, limit: GuestSeconds) {
        self.await_event("RESET", limit);
        self.machine.forget_fate();
        self.await_up();
    }

    /// Waits for an event of QMP: WATCHDOG, RESET, SHUTDOWN, …
    pub fn await_event(&mut self, name: &str, limit: GuestSeconds) -> Event {
        let mut patience = Patience::new(limit);
        loop {
            if let Some(event) = self.event(name) {
                return event;
            }
            if self.machine.is_gone() {
                let ending = self.machine.fate.clone().map_or_else(String::new, |fate| fate.to_string());
                self.fail(format!("no {name}: {ending}"));
            }
            if let Err(ending) = patience.step(&mut self.machine, name) {
                self.fail(format!("no {name}: {ending}"));
            }
        }
    }

    /// Takes the first event of this name that has happened.
    pub fn event(&mut self, name: &str) -> Option<Event> {
        self.machine.listen(Duration::ZERO);
        let at = self.machine.events.iter().position(|event| event.name == name)?;
        self.machine.events.remove(at)
    }

    /// The reset button.
    pub fn press_reset(&mut self) {
        self.machine.qmp("system_reset", "{}");
    }

    /// Cuts the power: nothing is written any more, by anybody.
    pub fn cut_power(self) {
        drop(self);
    }

    /// A command to QEMU itself, its arguments in JSON.
    pub fn qmp(&mut self, command: &str, arguments: &str) -> String {
        self.machine.qmp(command, arguments)
    }

    /// QEMU's process number.
    pub fn qemu_pid(&self) -> u32 {
        self.machine.pid()
    }

    // ---------------------------------------------------------------- files

    /// Brings a file of this machine into the guest, with its permissions.
    pub fn put(&mut self, host: impl AsRef<Path>, guest: &str) {
        let (bytes, mode) = super::cache::content_and_mode(host.as_ref());
        self.put_bytes(&bytes, mode, guest);
    }

    /// The module of `sim_chip`.
    pub fn gpio_sim_module(&self) -> std::path::PathBuf {
        self.machine.cache().gpio_sim()
    }

    /// Brings bytes into the guest as a file.
    pub fn put_bytes(&mut self, bytes: &[u8], mode: u32, guest: &str) {
        assert!(self.machine.board == Board::Virt, "files come into a Pi when it boots: Boot::file");
        let payload = File::options().write(true).open(self.machine.folder.join("payload"));
        let payload = payload.expect("the payload disk");
        let size = payload.metadata().expect("the payload disk").len();
        assert!(bytes.len() as u64 <= size, "{guest}: larger than the payload disk");
        payload.write_all_at(bytes, 0).expect("the payload disk");
        let (folder, _) = guest.rsplit_once('/').expect("an absolute path");
        // The guest forgets what it knows of the disk when the last who reads it is done.
        self.ok_within(
            guest_seconds(120),
            &format!(
                "mkdir -p '{folder}/' && rm -f '{guest}' && head -c {} /dev/vda >'{guest}' && chmod {mode:o} '{guest}'",
                bytes.len()
            ),
        );
    }

    /// The content of a file of the guest.
    pub fn get(&mut self, guest: &str) -> Vec<u8> {
        match self.order_within(guest_seconds(120), &format!("cat '{guest}'")) {
            Ok(reply) if reply.code == 0 => reply.bytes,
            Ok(reply) => self.fail(format!("{guest}: {}", reply.text())),
            Err(ending) => self.fail(ending),
        }
    }

    // ---------------------------------------------------------------- lines of virt's PL061, 0 to 7; 3 is a power key

    /// Drives an input of the guest from outside.
    pub fn set_line(&mut self, line: u32, level: bool) {
        let device = self.machine.device("pl061");
        let level = u32::from(level);
        self.machine.qtest(&format!("set_irq_in {device} unnamed-gpio-in {line} {level}"));
    }

    /// The level of a line, whoever drives it.
    pub fn line(&mut self, line: u32) -> bool {
        match self.machine.read_register(PL061 + (4 << line)) {
            Some(value) => value != 0,
            None => self.fail("QEMU is gone"),
        }
    }

    /// Waits until a line has this level.
    pub fn await_line(&mut self, line: u32, level: bool, limit: GuestSeconds) {
        let mut patience = Patience::new(limit);
        while self.line(line) != level {
            if let Err(ending) = patience.step_of(&mut self.machine, Duration::from_millis(5), "a level") {
                self.fail(format!("line {line} is not {level}: {ending}"));
            }
        }
    }

    /// A 32-bit register of the machine, past the guest.
    pub fn register(&mut self, address: u64) -> u32 {
        match self.machine.read_register(address) {
            Some(value) => value,
            None => self.fail("QEMU is gone"),
        }
    }

    /// Waits until these bits of a register are so.
    pub fn await_register(&mut self, address: u64, mask: u32, value: u32, limit: GuestSeconds) {
        let mut patience = Patience::new(limit);
        while self.register(address) & mask != value {
            if let Err(ending) = patience.step_of(&mut self.machine, Duration::from_millis(5), "a register") {
                self.fail(format!("{address:#x} & {mask:#x} is not {value:#x}: {ending}"));
            }
        }
    }

    pub fn set_register(&mut self, address: u64, value: u32) {
        self.machine.write_register(address, value);
    }

    // ---------------------------------------------------------------- post mortem

    /// The last lines of the guest's console.
    pub fn console_tail(&self) -> String {
        self.machine.console_tail()
    }

    /// Fails the test with the reason and the console.
    pub fn fail(&self, why: impl Display) -> ! {
        self.machine.fail(&why.to_string())
    }
}

/// What begins the line after an order's output.
fn mark(number: u32) -> String {
    format!("\u{1e}{number} ")
}

/// What begins an answer where others speak on the same line.
fn opening(mark: &str) -> String {
    mark.replacen('\u{1e}', "\u{1e}[", 1)
}

/// The mark and the line end behind it.
fn find_mark(bytes: &[u8], from: usize, mark: &[u8]) -> Option<(usize, usize)> {
    let at = from + bytes.get(from..)?.windows(mark.len()).position(|window| window == mark)?;
    let end = at + bytes[at..].iter().position(|&byte| byte == b'\n')?;
    Some((at, end))
}

/// A path for a shell.
fn shell_quoted(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', r"'\''"))
}

/// A limit in the guest's time, and a far larger one in ours for a guest whose clock stands still.
struct Patience {
    limit: GuestSeconds,
    began: Instant,
    /// The guest's clock and QEMU's hunger at the first look: most waits are over before.
    first: Option<(u32, Duration)>,
}

impl Patience {
    fn new(limit: GuestSeconds) -> Patience {
        Patience { limit, began: Instant::now(), first: None }
    }

    fn step(&mut self, machine: &mut Machine, what: &str) -> Result<(), Ending> {
        self.step_of(machine, LOOK, what)
    }

    /// Waits for whatever comes next; looks at the clocks when nothing does.
    fn step_of(&mut self, machine: &mut Machine, at_most: Duration, what: &str) -> Result<(), Ending> {
        if machine.listen(at_most) || self.began.elapsed() < LOOK {
            return Ok(());
        }
        if machine.stopped {
            return Err(Ending::Stopped);
        }
        let Some(ticks) = machine.clock() else { return Ok(()) };
        let starved = machine.starved();
        let (first_ticks, first_starved) = *self.first.get_or_insert((ticks, starved));
        let passed = u64::from(ticks.wrapping_sub(first_ticks) / machine.ticks_per_second());
        let limit = u64::from(self.limit.0);
        if passed.saturating_sub(starved.saturating_sub(first_starved).as_secs()) > limit {
            // What came while we looked counts.
            if machine.listen(Duration::ZERO) {
                return Ok(());
            }
            return Err(Ending::Silent { order: what.into(), guest_seconds: self.limit.0 });
        }
        if self.began.elapsed() > HOST_LIMIT + Duration::from_secs(4 * limit) {
            return Err(Ending::Stalled { order: what.into(), host_seconds: self.began.elapsed().as_secs() });
        }
        Ok(())
    }
}
