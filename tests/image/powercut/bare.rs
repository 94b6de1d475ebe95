//! A virt machine with a card and a line to the program `agent` on it; nothing else is asked of it, so that several run at
//! once and none waits for a login. Dies with its value.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;

/// A boot takes 8 s; on a machine that does much else, many times that.
const PATIENCE: Duration = Duration::from_secs(240);

/// What boots: taken from the card once, as every card is a copy of one.
pub struct Boot {
    pub kernel: PathBuf,
    pub initramfs: PathBuf,
}

/// A running machine.
pub struct Bare {
    qemu: Child,
    to: ChildStdin,
    lines: Receiver<String>,
    console: PathBuf,
}

impl Drop for Bare {
    fn drop(&mut self) {
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }
}

impl Bare {
    /// Switches on. With a record, every write to the card is written there, too.
    pub fn power_on(boot: &Boot, card: &Path, record: Option<&Path>) -> Bare {
        let console = card.with_extension("console");
        let _ = std::fs::remove_file(&console);
        let mut command = Command::new("qemu-system-aarch64");
        command.args(["-M", "virt", "-cpu", "cortex-a53", "-m", "256", "-accel", "tcg,thread=single"]);
        command.args(["-nodefaults", "-no-user-config", "-display", "none"]);
        command.arg("-kernel").arg(&boot.kernel).arg("-initrd").arg(&boot.initramfs);
        command.args(["-append", "console=ttyAMA0 quiet panic=1 oops=panic"]);
        command.arg("-serial").arg(format!("file:{}", console.display()));
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
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let us = nix::unistd::getpid();
        let prepare = move || {
            set_pdeathsig(Signal::SIGKILL)?;
            // Whoever died in the meantime sends no signal any more.
            if nix::unistd::getppid() == us { Ok(()) } else { Err(nix::errno::Errno::ESRCH.into()) }
        };
        // SAFETY: system calls only, no allocation and no lock, between fork and exec.
        unsafe { command.pre_exec(prepare) };
        let mut qemu = command.spawn().expect("QEMU (apt-get install -y qemu-system-arm)");
        let (to, from) = (qemu.stdin.take().expect("a pipe"), qemu.stdout.take().expect("a pipe"));
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(from).split(b'\n').map_while(Result::ok) {
                // Nobody listens any more: the machine is switched off.
                let _ = sender.send(String::from_utf8_lossy(&line).trim().to_owned());
            }
        });
        Bare { qemu, to, lines, console }
    }

    /// The first line that begins with one of these: which one, and the rest of it.
    pub fn any(&mut self, beginnings: &[String]) -> Result<(usize, String), String> {
        let until = Instant::now() + PATIENCE;
        let mut others = String::new();
        while let Ok(line) = self.lines.recv_timeout(until.saturating_duration_since(Instant::now())) {
            let found = beginnings.iter().position(|beginning| line.starts_with(beginning));
            match found {
                Some(which) => return Ok((which, line[beginnings[which].len()..].to_owned())),
                None => others = others + &line + "\n",
            }
        }
        let console = std::fs::read(&self.console).unwrap_or_default();
        let console = String::from_utf8_lossy(&console);
        let tail = console.get(console.len().saturating_sub(3000)..).unwrap_or(&console);
        Err(format!("no line of {beginnings:?}, but:\n{others}\non the console:\n{tail}"))
    }

    /// Gives an order in the guest's shell, which must succeed.
    pub fn ok(&mut self, order: &str) {
        self.send(order);
        let (_, code) = self.any(&["done ".into()]).unwrap_or_else(|error| panic!("{order}: {error}"));
        assert_eq!(code, "0", "{order}");
    }

    /// The same, without waiting for its end.
    pub fn send(&mut self, order: &str) {
        writeln!(self.to, "{order}").expect("QEMU lives");
    }
}
