//! What a guest is made of: the machine, what it boots, and QEMU's command line for it.

use std::path::{Path, PathBuf};

use super::cache::Cache;

/// The machines there are. Always emulated, never KVM: a test runs the same everywhere.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Board {
    /// One Cortex-A53, virtio, an i6300esb watchdog, a PL061 with eight lines.
    Virt,
    /// A Raspberry Pi 3: its own GPIO registers; a serial console and nothing else to talk through.
    Raspi3b,
    /// A Raspberry Pi 2, ARMv7. Only booted from a card: tests/image.
    Raspi2b,
    /// A Raspberry Pi Zero, ARMv6. Only booted from a card.
    Raspi0,
}

impl Board {
    /// The QEMU that has it.
    pub fn qemu(self) -> &'static str {
        match self {
            Board::Virt | Board::Raspi3b => super::cache::QEMU,
            Board::Raspi2b | Board::Raspi0 => "qemu-system-arm",
        }
    }
}

/// How a guest is to be started.
#[derive(Clone)]
pub struct Boot {
    pub board: Board,
    icount: bool,
    words: String,
    files: Vec<(PathBuf, String)>,
}

/// The numbers of QEMU's ends of the wires, and the files of this one run.
pub struct Ends<'a> {
    pub agent: i32,
    pub qmp: i32,
    pub qtest: i32,
    pub folder: &'a Path,
}

impl Boot {
    pub fn virt() -> Boot {
        Boot { board: Board::Virt, icount: false, words: String::new(), files: Vec::new() }
    }

    pub fn raspi3b() -> Boot {
        Boot { board: Board::Raspi3b, ..Boot::virt() }
    }

    /// The guest's clock counts instructions, and idle time is skipped: minutes of waiting inside the guest
    /// pass at once, and its time does not depend on how busy this machine is. What the test does from
    /// outside, however, comes at any point of the guest's time: let a script inside the guest do the work.
    pub fn icount(mut self) -> Boot {
        self.icount = true;
        self
    }

    /// More words for the kernel's command line.
    pub fn kernel_words(mut self, words: &str) -> Boot {
        self.words = format!("{} {words}", self.words);
        self
    }

    /// A file of this machine, present in the guest from its first moment.
    pub fn file(mut self, host: impl AsRef<Path>, guest: &str) -> Boot {
        self.files.push((host.as_ref().into(), guest.into()));
        self
    }

    /// The initramfs with this boot's own files behind it.
    pub fn initramfs(&self, cache: &Cache) -> Vec<u8> {
        let mut bytes = cache.initramfs();
        if !self.files.is_empty() {
            let mut more = super::cpio::Cpio::default();
            for (host, guest) in &self.files {
                let (content, mode) = super::cache::content_and_mode(host);
                more.file(guest, mode, &content);
            }
            bytes.extend(more.finish());
        }
        bytes
    }

    /// QEMU's arguments.
    pub fn arguments(&self, cache: &Cache, ends: &Ends) -> Vec<String> {
        let (machine, list, console, agent) = match self.board {
            Board::Virt => ("virt", "virt", "ttyAMA0", "orders"),
            // The Pi's second port: the first belongs to Bluetooth and has no device file.
            Board::Raspi3b => ("raspi3b", "raspi", "ttyS1", "ttyS1"),
            Board::Raspi2b | Board::Raspi0 => panic!("only booted from a card"),
        };
        // -nodefaults is what makes `virt` bare; the clock the driver reads is the guest's own time.
        let mut all = words(&format!(
            "-M {machine} -nodefaults -no-user-config -display none -rtc clock=vm \
             -action watchdog=reset -mon chardev=qmp,mode=control -qtest chardev:qtest -qtest-log /dev/null"
        ));
        let folder = ends.folder.display();
        let mut with = |option: &str, value: String| all.extend([option.to_string(), value]);
        with("-kernel", cache.kernel("vmlinuz").display().to_string());
        with("-initrd", format!("{folder}/initramfs"));
        // A panic restarts at once: the machine says so, and nothing waits for a dead guest.
        with(
            "-append",
            format!(
                "console={console},115200 quiet panic=-1 guest_modules={list} guest_agent={agent}{}",
                self.words
            ),
        );
        with("-chardev", format!("socket,id=qmp,fd={}", ends.qmp));
        with("-chardev", format!("socket,id=qtest,fd={}", ends.qtest));
        match self.board {
            Board::Virt => {
                with("-chardev", format!("socket,id=orders,fd={}", ends.agent));
                with("-chardev", format!("file,id=console,path={folder}/console"));
                with(
                    "-drive",
                    format!("if=none,id=payload,format=raw,file.locking=off,file={folder}/payload"),
                );
                all.extend(words(
                    "-cpu cortex-a53 -m 256 -device i6300esb -device virtio-serial-pci \
                     -device virtserialport,chardev=orders,name=orders -device virtio-blk-pci,drive=payload",
                ));
            }
            Board::Raspi3b => {
                with("-chardev", format!("socket,id=console,fd={},logfile={folder}/console", ends.agent));
                with("-serial", "null".into());
                with("-dtb", cache.kernel("bcm2837-rpi-3-b.dtb").display().to_string());
            }
            Board::Raspi2b | Board::Raspi0 => panic!("only booted from a card"),
        }
        // The Pi's three idle cores would each keep a thread spinning.
        all.extend(words("-serial chardev:console -accel tcg,thread=single"));
        if self.icount {
            all.extend(words("-icount shift=2,sleep=off"));
        }
        all
    }
}

fn words(line: &str) -> Vec<String> {
    line.split_whitespace().map(String::from).collect()
}
