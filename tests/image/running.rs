//! A machine that runs from a card: started as the firmware would, spoken to through its serial console, where
//! it is logged in like anybody.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::ops::{Deref, DerefMut};
use std::path::Path;
use std::time::Instant;

use nanoserde::DeJson;

use super::boot::{Board, Ends};
use super::cache::Cache;
use super::card::{Card, PASSWORD};
use super::firmware::{Files, Resolved, model_named, resolve};
use super::foreign;
use super::guest::{Guest, GuestSeconds, guest_seconds};
use super::harness::Status;
use super::machine::Machine;

/// For a boot until somebody may log in. An ARMv7 machine with four processors is the slowest.
const BOOT: GuestSeconds = guest_seconds(400);
/// What the console says when Enter is awaited.
pub const PROMPT: &str = "Enter: log in";
/// What makes the shell of a login an agent: see tests/qemu/guest/agent. An answer begins with a mark of its own,
/// and comes in one piece: others write to this console too.
const AGENT: &str = "stty raw -echo; dmesg -n 1; cd /; printf '\\036hello 0\\n'; \
    while read -r number order; do (eval \"$(printf %b \"$order\")\") </dev/null >/run/answer 2>&1; code=$?; \
    printf '\\036[%s ' \"$number\"; cat /run/answer; printf '\\036%s %s\\n' \"$number\" \"$code\"; done\n";

/// What QEMU has for a board.
struct Target {
    board: Board,
    machine: &'static str,
    /// The model its firmware would run on; QEMU's own machine has none.
    model: Option<&'static str>,
    /// What its kernel needs to be told only because QEMU's hardware is incomplete.
    words: &'static str,
    /// More of the machine.
    more: &'static str,
    /// The board has other hardware.
    is_foreign: bool,
}

fn target(board: &str) -> Target {
    match board {
        "qemu-virt" => Target {
            board: Board::Virt,
            machine: "virt",
            model: None,
            words: "",
            more: "-cpu cortex-a53 -m 256 -device i6300esb -accel tcg,thread=single",
            is_foreign: false,
        },
        "rpi3-64" => Target {
            board: Board::Raspi3b,
            machine: "raspi3b",
            model: Some("3 B"),
            words: "",
            more: "-accel tcg,thread=single",
            is_foreign: false,
        },
        // QEMU has no power domains: asking for one never ends.
        "rpi0" => Target {
            board: Board::Raspi0,
            machine: "raspi0",
            model: Some("Zero"),
            words: "initcall_blacklist=bcm2835_power_driver_init",
            more: "-accel tcg,thread=single",
            is_foreign: false,
        },
        // Its four processors wait for each other: in one thread that takes for ever.
        "rpi2" => Target {
            board: Board::Raspi2b,
            machine: "raspi2b",
            model: Some("2 B"),
            words: "initcall_blacklist=bcm2835_power_driver_init",
            more: "-accel tcg,thread=multi",
            is_foreign: false,
        },
        // QEMU has none of these, or no card for it: everything but the hardware runs on its own machine.
        "rpi-zero2" | "rpi4-64" | "rpi5" => Target { is_foreign: true, ..target("qemu-virt") },
        _ => panic!("there is no {board}"),
    }
}

/// How a card is booted otherwise than usual.
#[derive(Clone, Default)]
pub struct Options {
    /// More words for the kernel's command line.
    pub words: String,
    /// QEMU's arguments in place of those for the card: a drive called `card` (virt only).
    pub drive: Option<Vec<String>>,
    /// More arguments.
    pub more: Vec<String>,
    /// The guest's clock counts instructions: see tests/qemu/boot.rs.
    pub icount: bool,
}

/// A card in a running machine; spoken to as a `Guest`.
pub struct Running {
    guest: Guest,
    began: Instant,
    name: String,
}

impl Deref for Running {
    type Target = Guest;
    fn deref(&self) -> &Guest {
        &self.guest
    }
}

impl DerefMut for Running {
    fn deref_mut(&mut self) -> &mut Guest {
        &mut self.guest
    }
}

impl Card {
    /// Switches on, and waits for nothing.
    pub fn power_on(&self) -> Running {
        self.power_on_with(&Options::default())
    }

    pub fn power_on_with(&self, options: &Options) -> Running {
        let cache = Cache::turn();
        let target = target(&self.board);
        let number = (1..).find(|n| !self.folder.join(format!("boot-{n}")).exists()).expect("a number");
        let folder = self.folder.join(format!("boot-{number}"));
        fs::create_dir(&folder).expect("a folder for the boot");
        // As the firmware does: everything comes from the card.
        let loaded = self.loaded(target.model);
        let place = |name: &str, path: &str| {
            let bytes = self.get(path).unwrap_or_else(|| panic!("no {path} on the card"));
            fs::write(folder.join(name), bytes).expect(name);
        };
        place("kernel", &loaded.kernel);
        place("initramfs", &loaded.initramfs[0]);
        if target.is_foreign {
            foreign::add_drivers_of_virt(&self.board, &folder.join("initramfs"));
        }
        if target.model.is_some() {
            place("tree", &loaded.tree);
        }
        let mut cmdline = loaded.cmdline;
        if target.is_foreign {
            // Beside the wrong one the right one would not be opened.
            cmdline = foreign::with_console_of_virt(&cmdline);
        }
        let words = format!("{cmdline} {} {}", target.words, options.words);
        let began = Instant::now();
        let path = self.path();
        let make = |ends: &Ends| arguments(&target, &path, words.trim(), ends, options);
        let machine = Machine::launch(cache, folder.clone(), target.board, make);
        let name = format!("{}/boot-{number}", self.folder.file_name().unwrap_or_default().display());
        Running { guest: Guest::over(machine), began, name }
    }

    /// What the firmware loads. QEMU's own machine has none, and is given what config.txt says.
    fn loaded(&self, model: Option<&str>) -> Resolved {
        match model {
            Some(model) => {
                let files = self.files();
                let files = files.iter().map(|name| (name.as_str(), self.get(name).unwrap_or_default()));
                let found = resolve(&Files::new(files), &model_named(model));
                found.unwrap_or_else(|wrong| panic!("the firmware would not boot this: {}", wrong.join("; ")))
            }
            None => {
                let config = self.text("/config.txt");
                let set =
                    |key: &str| config.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default();
                Resolved {
                    kernel: set("kernel=").into(),
                    initramfs: set("initramfs ").split_whitespace().take(1).map(String::from).collect(),
                    cmdline: self.text("/cmdline.txt").trim_end().into(),
                    ..Resolved::default()
                }
            }
        }
    }

    /// Switches on and waits until it takes orders.
    pub fn boot(&self) -> Running {
        self.boot_with(&Options::default())
    }

    pub fn boot_with(&self, options: &Options) -> Running {
        let mut running = self.power_on_with(options);
        running.log_in();
        running
    }
}

impl Running {
    /// Waits for the console's invitation and logs in. What the console had said until then.
    pub fn log_in(&mut self) -> String {
        let mut said = self.said(BOOT, PROMPT);
        self.send("\n");
        said += &self.said(guest_seconds(120), "login:");
        self.send("root\n");
        self.said(guest_seconds(120), "assword:");
        self.send(&format!("{PASSWORD}\n"));
        self.said(guest_seconds(120), "built-in commands.");
        self.send(AGENT);
        self.await_up();
        println!("{}: logged in after {:.1} s", self.name, self.began.elapsed().as_secs_f64());
        said
    }

    /// Everything the console says up to this text, which must come.
    pub fn said(&mut self, limit: GuestSeconds, text: &str) -> String {
        match self.await_text(limit, text) {
            Ok(said) => said,
            Err(ending) => self.fail(format!("{ending}, waiting for \"{text}\"")),
        }
    }

    /// Waits for a reset that was announced or is due, and logs in again.
    pub fn log_in_after_reset(&mut self, limit: GuestSeconds) -> String {
        self.await_event("RESET", limit);
        self.forget_fate();
        self.log_in()
    }

    /// After a reset: the machine begins anew.
    pub fn forget_fate(&mut self) {
        self.guest.forget_fate();
        self.began = Instant::now();
    }

    /// Asks the machine to switch itself off, which leaves everything written; it is given until QEMU has gone.
    pub fn power_off(mut self) {
        // The console may end before the order does.
        let _ = self.order("multusctl poweroff");
        let name = "SHUTDOWN";
        self.await_event(name, guest_seconds(60));
    }

    /// Cuts the power: nothing is written any more, by anybody.
    pub fn cut_power(self) {
        drop(self);
    }

    pub fn status(&mut self) -> Status {
        Status::deserialize_json(&self.ok("multusctl status --json")).expect("JSON")
    }

    /// A condition in the guest's shell, looked at until it holds.
    pub fn until(&mut self, limit: GuestSeconds, condition: &str) {
        self.ok_within(limit, &format!("until {condition}; do usleep 50000; done"));
    }

    /// Waits until all programs run that are to, and prints what that took and takes.
    pub fn all_up(&mut self) {
        self.until(guest_seconds(120), "multusctl status --json | grep -vq '\"starting\"'");
        let uptime: f64 = self.ok("cut -d' ' -f1 /proc/uptime").parse().expect("seconds");
        let status = self.status();
        let running = status.programs.iter().filter(|program| program.state == "running");
        let youngest = running.filter_map(|program| program.uptime_ms).min().expect("a program that runs");
        let figures = self.ok(
            "awk '/^MemTotal/ { t = $2 } /^MemAvailable/ { a = $2 } END { printf \"%d of %d kB of memory used\", t - a, t }' \
             /proc/meminfo\n\
             pss=0\n\
             for p in /proc/[0-9]*; do case $(cat $p/comm 2>/dev/null) in multusd*) \
             pss=$((pss + $(awk '/^Pss:/ { print $2 }' $p/smaps_rollup))) ;; esac; done\n\
             echo \", $pss kB (PSS) by multusd\"",
        );
        let began = uptime - youngest as f64 / 1000.0;
        println!("{}: all programs started {began:.1} s after the kernel; {figures}", self.name);
    }

    /// A point of the machine's time.
    pub fn moment(&self) -> Moment {
        Moment { at: Instant::now(), waits: self.waits() }
    }

    /// What has passed of the machine's time since then.
    pub fn passed(&self, since: &Moment) -> Passed {
        let waits = self.waits();
        let starved = waits.iter().map(|(thread, ns)| ns - since.waits.get(thread).unwrap_or(ns));
        let starved = starved.max().unwrap_or(0) as f64 / 1e9;
        Passed { seconds: since.at.elapsed().as_secs_f64(), starved }
    }

    /// How long each of QEMU's threads has wanted a processor and got none, in nanoseconds.
    fn waits(&self) -> BTreeMap<OsString, u64> {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.qemu_pid())).into_iter().flatten().flatten();
        let waits = tasks.filter_map(|task| {
            // Time on a processor, time in the queue for one, turns.
            let line = fs::read_to_string(task.path().join("schedstat")).ok()?;
            Some((task.file_name(), line.split_whitespace().nth(1)?.parse().ok()?))
        });
        waits.collect()
    }
}

/// A point in time, and how hungry QEMU's threads were until then.
pub struct Moment {
    at: Instant,
    waits: BTreeMap<OsString, u64>,
}

/// A time by the machine's clock, which runs on while this machine has no processor for it.
pub struct Passed {
    pub seconds: f64,
    /// How long the hungriest of QEMU's threads stood still of it.
    pub starved: f64,
}

impl Passed {
    /// No longer than this, but for what this machine took away.
    pub fn is_within(&self, seconds: f64) -> bool {
        self.seconds - self.starved <= seconds
    }
}

impl fmt::Display for Passed {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{:.1} s (of which QEMU waited {:.1} s for a processor)", self.seconds, self.starved)
    }
}

/// A kernel of the card's own, in a form QEMU takes.
fn arguments(target: &Target, card: &Path, words: &str, ends: &Ends, options: &Options) -> Vec<String> {
    let folder = ends.folder.display();
    let split = |line: &str| line.split_whitespace().map(String::from).collect::<Vec<_>>();
    let mut all = split(&format!(
        "-M {} -nodefaults -no-user-config -display none -rtc clock=vm -action watchdog=reset \
         -mon chardev=qmp,mode=control -qtest chardev:qtest -qtest-log /dev/null",
        target.machine
    ));
    let mut with = |option: &str, value: String| all.extend([option.to_string(), value]);
    with("-kernel", format!("{folder}/kernel"));
    with("-initrd", format!("{folder}/initramfs"));
    if target.model.is_some() {
        with("-dtb", format!("{folder}/tree"));
    }
    with("-append", words.into());
    with("-chardev", format!("socket,id=qmp,fd={}", ends.qmp));
    with("-chardev", format!("socket,id=qtest,fd={}", ends.qtest));
    with("-chardev", format!("socket,id=console,fd={},logfile={folder}/console", ends.agent));
    // The Pi's second port is its console where the first belongs to Bluetooth.
    if words.rsplit("console=").next().is_some_and(|last| last.starts_with("ttyS1")) {
        with("-serial", "null".into());
    }
    with("-serial", "chardev:console".into());
    let card = card.display();
    match (&options.drive, target.board) {
        (Some(drive), _) => all.extend(drive.iter().cloned()),
        // A killed QEMU has written everything: nothing is kept back in it.
        (None, Board::Virt) => {
            with("-drive", format!("if=none,id=card,format=raw,cache=unsafe,file={card}"));
        }
        (None, _) => with("-drive", format!("if=sd,format=raw,cache=unsafe,file={card}")),
    }
    if target.board == Board::Virt {
        all.extend(split("-device virtio-blk-pci,drive=card"));
    }
    all.extend(split(target.more));
    if options.icount {
        all.extend(split("-icount shift=2,sleep=off"));
    }
    all.extend(options.more.iter().cloned());
    all
}
