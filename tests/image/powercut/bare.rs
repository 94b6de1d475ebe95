//! A virt machine with a card and a line to the program `agent` on it; nothing else is asked of it, so that several run at
//! once and none waits for a login. Dies with its value.
//!
//! What the kernel does before it begins the first program is the same with every card, and touches none: it is done once,
//! and every further boot begins there.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use super::super::cpio::Cpio;
use super::super::machine;

/// A boot takes 8 s; on a machine that does much else, many times that.
const PATIENCE: Duration = Duration::from_secs(240);

/// The first program of a kernel that is held: it goes on when something is typed.
const HOLD: &[u8] = b"#!/bin/busybox sh\necho held\nread -r _\nexec /init\n";

/// What boots: taken from the card once, as every card is a copy of one.
pub struct Boot {
    pub kernel: PathBuf,
    pub initramfs: PathBuf,
    /// The machine as it is when the first program begins.
    pub state: PathBuf,
}

impl Boot {
    /// Files of these names in a folder, the state yet to be made.
    pub fn of(folder: &Path) -> Boot {
        let [kernel, initramfs, state] = ["kernel", "initramfs", "state"].map(|name| folder.join(name));
        Boot { kernel, initramfs, state }
    }

    /// Boots as far as that with this card, which is not touched.
    pub fn hold(&self, card: &Path) {
        let mut hold = Cpio::default();
        hold.file("/hold", 0o755, HOLD);
        let initramfs = self.state.with_extension("initramfs");
        let mut both = fs::read(&self.initramfs).expect("the initramfs");
        // The kernel looks for the next archive at a multiple of four.
        both.resize(both.len().next_multiple_of(4), 0);
        both.extend(hold.finish());
        fs::write(&initramfs, both).expect("room");
        let boot = Boot { kernel: self.kernel.clone(), initramfs, state: self.state.clone() };
        let mut bare = Bare::start(&boot, card, None, Start::Held);
        bare.any(&["console: held".into()]).unwrap_or_else(|error| panic!("{error}"));
        let uri = format!("exec:cat >{}", self.state.display());
        bare.migrate("migrate", &uri, "\"completed\"");
    }
}

/// Where a machine begins.
#[derive(Clone, Copy, PartialEq)]
enum Start {
    /// Switched on.
    On,
    /// The same, but the first program waits.
    Held,
    /// There, with the state that was saved.
    Restored,
}

/// A running machine.
pub struct Bare {
    qemu: Child,
    to: ChildStdin,
    lines: Receiver<String>,
    console: UnixStream,
    qmp: UnixStream,
    /// Lines that nobody waited for.
    others: String,
    /// What the console said, without a limit.
    said: PathBuf,
}

impl Drop for Bare {
    fn drop(&mut self) {
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }
}

impl Bare {
    /// Switches on; every write to the card is recorded.
    pub fn recorded(boot: &Boot, card: &Path, record: &Path) -> Bare {
        File::create(record).expect("room");
        Bare::start(boot, card, Some(record), Start::On)
    }

    /// Goes on with a card where the kernel begins the first program.
    pub fn restored(boot: &Boot, card: &Path) -> Bare {
        let mut bare = Bare::start(boot, card, None, Start::Restored);
        bare.migrate("migrate-incoming", &format!("exec:cat {}", boot.state.display()), "\"RESUME\"");
        // Not earlier: what is typed into a machine without its state is lost.
        bare.console.write_all(b"\n").expect("QEMU lives");
        bare
    }

    fn start(boot: &Boot, card: &Path, record: Option<&Path>, start: Start) -> Bare {
        let said = card.with_extension("console");
        let _ = fs::remove_file(&said);
        let pair = || UnixStream::pair().expect("a pair of sockets");
        let ((console, console_end), (qmp, qmp_end)) = (pair(), pair());
        let ends = [console_end.as_raw_fd(), qmp_end.as_raw_fd()];
        let mut command = Command::new("qemu-system-aarch64");
        command.args(["-M", "virt", "-cpu", "cortex-a53", "-m", "256", "-accel", "tcg,thread=single"]);
        command.args(["-nodefaults", "-no-user-config", "-display", "none"]);
        command.arg("-kernel").arg(&boot.kernel).arg("-initrd").arg(&boot.initramfs);
        let hold = if start == Start::On { "" } else { " rdinit=/hold" };
        command.args(["-append", &format!("console=ttyAMA0 quiet panic=1 oops=panic{hold}")]);
        let log = said.display();
        command.args(["-chardev", &format!("socket,id=console,fd={},logfile={log}", ends[0])]);
        command.args(["-serial", "chardev:console", "-mon", "chardev=qmp,mode=control"]);
        command.args(["-chardev", &format!("socket,id=qmp,fd={}", ends[1])]);
        command.args(["-device", "virtio-serial-pci", "-chardev", "stdio,id=agent,signal=off"]);
        command.args(["-device", "virtconsole,chardev=agent"]);
        let card = card.display();
        let mut blocks = vec![
            // What is killed here has written everything; what power takes, `writes` takes.
            format!("driver=file,filename={card},node-name=file,cache.no-flush=on"),
            "driver=raw,file=file,node-name=card".into(),
        ];
        if let Some(record) = record {
            let log = format!("log.driver=file,log.filename={}", record.display());
            blocks.push(format!("driver=blklogwrites,file=card,{log},node-name=recorded"));
        }
        let top = if record.is_some() { "recorded" } else { "card" };
        for block in blocks {
            command.args(["-blockdev", &block]);
        }
        command.arg("-device").arg(format!("virtio-blk-pci,drive={top}"));
        if start == Start::Restored {
            command.args(["-incoming", "defer"]);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        machine::inherit(&mut command, ends);
        let mut qemu = command.spawn().expect("QEMU (apt-get install -y qemu-system-arm)");
        let (to, from) = (qemu.stdin.take().expect("a pipe"), qemu.stdout.take().expect("a pipe"));
        let (sender, lines) = channel();
        // A console that is not read holds the machine up.
        let (of_console, from_console) = (sender.clone(), console.try_clone().expect("a socket"));
        forward(BufReader::new(from_console), "console: ", of_console);
        forward(BufReader::new(from), "", sender);
        Bare { qemu, to, lines, console, qmp, others: String::new(), said }
    }

    /// Moves the machine's state, and waits until QEMU says this.
    fn migrate(&mut self, command: &str, uri: &str, awaited: &str) {
        let capabilities = r#"{"capabilities":[{"capability":"events","state":true}]}"#;
        let commands = [
            r#"{"execute":"qmp_capabilities"}"#,
            &format!(r#"{{"execute":"migrate-set-capabilities","arguments":{capabilities}}}"#),
            &format!(r#"{{"execute":"{command}","arguments":{{"uri":"{uri}"}}}}"#),
        ];
        writeln!(self.qmp, "{}", commands.join("\n")).expect("QEMU lives");
        let said = BufReader::new(&self.qmp).lines().map_while(Result::ok);
        let mut all = String::new();
        for line in said {
            if line.contains(awaited) {
                return;
            }
            all = all + &line + "\n";
        }
        panic!("{command}: {all}");
    }

    /// The first line that begins with one of these: which one, and the rest of it.
    pub fn any(&mut self, beginnings: &[String]) -> Result<(usize, String), String> {
        let until = Instant::now() + PATIENCE;
        self.others.clear();
        while let Ok(line) = self.lines.recv_timeout(until.saturating_duration_since(Instant::now())) {
            let found = beginnings.iter().position(|beginning| line.starts_with(beginning));
            match found {
                Some(which) => return Ok((which, line[beginnings[which].len()..].to_owned())),
                None => self.others += &(line + "\n"),
            }
        }
        let console = fs::read(&self.said).unwrap_or_default();
        let console = String::from_utf8_lossy(&console);
        let tail = console.get(console.len().saturating_sub(3000)..).unwrap_or(&console);
        Err(format!("no line of {beginnings:?}, but:\n{}\non the console:\n{tail}", self.others))
    }

    /// Gives an order in the guest's shell, which must succeed.
    pub fn ok(&mut self, order: &str) {
        self.send(order);
        let (_, code) = self.any(&["done ".into()]).unwrap_or_else(|error| panic!("{order}: {error}"));
        assert_eq!(code, "0", "{order}: {}", self.others);
    }

    /// The same, without waiting for its end.
    pub fn send(&mut self, order: &str) {
        writeln!(self.to, "{order}").expect("QEMU lives");
    }
}

/// Passes lines on until there are no more.
fn forward(from: impl BufRead + Send + 'static, beginning: &'static str, to: Sender<String>) {
    std::thread::spawn(move || {
        for line in from.split(b'\n').map_while(Result::ok) {
            // Nobody listens any more: the machine is switched off.
            let _ = to.send(format!("{beginning}{}", String::from_utf8_lossy(&line).trim()));
        }
    });
}
