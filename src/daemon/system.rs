//! `multusd system`: what an image of multusd's does once at boot, before anything is supervised: who may log in, the time
//! zone, name and clock, programs from the boot partition, what the firmware is told of outputs. Each step does what it
//! can; what fails is said, and the rest goes on.
//!
//! The boot partition is whoever's who holds the card: what is taken from it is checked, or is root's to begin with.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::config::{self, Children, Config};
use crate::sys::{SysError, console, file, mount};

use super::files::{RealFiles, absolute};
use super::last_good;

/// The largest program that is copied.
const PROGRAM_BYTES_MAX: usize = 64 << 20;
/// A time zone's rules: some kilobytes.
const ZONE_BYTES_MAX: usize = 1 << 16;
/// The keys of those who may log in by SSH: some thousand of them.
const KEYS_BYTES_MAX: usize = 1 << 20;

/// SSH, by dropbear: only for keys, only for root (there is nobody else), with host keys that last.
const SSH: &str =
    "[program:ssh]\ncommand = /usr/sbin/dropbear -F -E -s -R\nstartsecs = 1\nrestart_delay_max = 1min\n";

/// The time, by chrony: set when it is first heard of, then kept; nobody is served, nobody may ask.
const NTP: &str = "[program:ntp]\ncommand = /usr/sbin/chronyd -d -u chrony -f /run/chrony.conf\nstartsecs = 1\n\
                   restart_delay_max = 5min\n";
/// A step at any of the first answers, however late they come: a board without a clock is years behind.
const CHRONY: &str = "makestep 1 10\ndriftfile /run/chrony/drift\npidfile /run/chrony/pid\nbindcmdaddress /run/chrony/sock\n\
                      cmdport 0\nport 0\n";
/// What the firmware is told of outputs: some bytes of each.
const LINES_BYTES_MAX: usize = 1 << 16;

struct Machine {
    root: PathBuf,
    children: Children,
}

/// Sets up the machine; the exit code: 1 if a step failed.
pub fn system(arguments: &mut dyn Iterator<Item = OsString>, children: Children) -> u8 {
    let (mut path, mut root) = (None, None);
    while let Some(word) = arguments.next() {
        match word.to_str() {
            Some("--config") => path = arguments.next(),
            Some("--root") => root = arguments.next(),
            _ => {
                console::complain("multusd system: usage: multusd system [--config FILE] [--root DIR]");
                return 2;
            }
        }
    }
    let own = Machine { root: root.unwrap_or_else(|| "/".into()).into(), children };
    let path = path.map_or_else(|| own.at("boot/multusd.cfg"), PathBuf::from);
    let found = own.configuration(&path.to_string_lossy());
    // Of neither: what holds where nothing is said.
    let config = found.clone().unwrap_or_default();
    let is_nowhere = found.is_none();
    let steps = [
        ("who may log in", own.let_in(&config)),
        ("the time zone", own.set_time_zone(&config)),
        ("programs of the boot partition", own.copy_programs(&config)),
        ("SSH", own.open_ssh()),
        ("the clock", own.set_clock(&config).map_err(words)),
        ("what runs where no file is good", if is_nowhere { own.fall_back() } else { Ok(()) }),
        ("outputs in config.txt", found.map_or(Ok(()), |found| own.tell_firmware(&found)).map_err(words)),
    ];
    let failed = steps.into_iter().filter_map(|(what, result)| Some((what, result.err()?)));
    failed.fold(0, |_, (what, error)| {
        console::complain(&["multusd system: ", what, ": ", &error].concat());
        1
    })
}

fn without_cr(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.retain(|byte| *byte != b'\r');
    bytes
}

/// A script that an editor of another system wrote: the kernel would look for an interpreter named `sh\r`. Anything
/// else is left as it is, also what a script carries along.
fn of_notepad(mut bytes: Vec<u8>) -> Vec<u8> {
    if bytes.starts_with(b"\xef\xbb\xbf#!") {
        bytes.drain(..3);
    }
    let line = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(0);
    let is_foreign = bytes.starts_with(b"#!") && bytes[..line].ends_with(b"\r") && !bytes.contains(&0);
    if is_foreign { without_cr(bytes) } else { bytes }
}

fn words(error: SysError) -> String {
    error.to_string()
}

impl Machine {
    fn at(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    /// The file's, or the last good one.
    fn configuration(&self, path: &str) -> Option<Config> {
        let errors = match config::load(&mut RealFiles(self.children), &absolute(path)) {
            Ok(loaded) => return Some(loaded.config),
            Err(errors) => errors,
        };
        console::complain(&["multusd system: ", &errors.to_string()].concat());
        let last_good = last_good::recall(&self.at("var/lib/multusd"));
        let last_good = last_good.and_then(|text| config::load_kept(&text, self.children).ok());
        last_good.map(|loaded| loaded.config)
    }

    /// On a machine that never had a good file, what the image itself runs is the last good configuration: its network,
    /// and SSH for those whose keys are on the card, so that it can be reached and helped.
    fn fall_back(&self) -> Result<(), String> {
        let mut text = file::read(&self.at("etc/multusd.d/image.cfg")).map_err(words)?;
        text.extend(file::read(&self.at("run/multusd.d/ssh.cfg")).unwrap_or_default());
        last_good::keep(&self.at("var/lib/multusd"), &String::from_utf8_lossy(&text), true).map_err(words)
    }

    /// /etc/shadow leads to a file in memory: without a password in the configuration nobody logs in.
    fn let_in(&self, config: &Config) -> Result<(), String> {
        let locked = file::read(&self.at("etc/shadow.locked")).map_err(words)?;
        let hash = config.system.root_password.as_deref().unwrap_or("!");
        let lines = String::from_utf8_lossy(&locked);
        let lines = lines.lines().map(|line| {
            match line.strip_prefix("root:").and_then(|rest| rest.split_once(':')) {
                Some((_, rest)) => ["root:", hash, ":", rest, "\n"].concat(),
                None => [line, "\n"].concat(),
            }
        });
        file::replace(&self.at("run/shadow"), lines.collect::<String>().as_bytes()).map_err(words)
    }

    fn set_time_zone(&self, config: &Config) -> Result<(), String> {
        let name = config.system.timezone.as_deref().unwrap_or("UTC");
        let zone = ["usr/share/zoneinfo/", name].concat();
        // Some are links to others.
        if file::read_bounded(&self.at(&zone), ZONE_BYTES_MAX).is_err() {
            return Err(["there is no ", name, "; it stays UTC"].concat());
        }
        let link = self.at("run/localtime");
        file::remove(&link);
        file::link(Path::new(&["/", &zone].concat()), &link).map_err(words)
    }

    /// Each whole or not at all, and only what has changed: cards wear out.
    fn copy_programs(&self, config: &Config) -> Result<(), String> {
        if !config.system.copy_programs {
            return Ok(());
        }
        let (from, to) = (self.at("boot/programs"), self.at("data/programs"));
        let mut names = Vec::new();
        file::each_name(&from, &mut |name, _| names.push(name.to_string_lossy().into_owned()));
        let mut failed = Vec::new();
        for name in names.iter().filter(|name| file::is_regular(&from.join(name))) {
            let copied = file::read_bounded(&from.join(name), PROGRAM_BYTES_MAX).and_then(|bytes| {
                let bytes = of_notepad(bytes);
                let target = to.join(name);
                if !file::read_own(&target, PROGRAM_BYTES_MAX).is_ok_and(|before| before == bytes) {
                    file::replace_with(&target, &bytes, 0o755)?;
                }
                file::set_mode(&target, 0o755)
            });
            if let Err(error) = copied {
                failed.push([name, ": ", &error.to_string()].concat());
            }
        }
        if failed.is_empty() { Ok(()) } else { Err(failed.join("; ")) }
    }

    /// With keys on the boot partition root may log in with one of them; without, nothing listens.
    fn open_ssh(&self) -> Result<(), String> {
        let keys = match file::read_bounded(&self.at("boot/authorized_keys"), KEYS_BYTES_MAX) {
            Ok(keys) if !keys.trim_ascii().is_empty() => keys,
            Err(error) if error.errno != libc::ENOENT => return Err(words(error)),
            _ => return Ok(()),
        };
        // Of a file that Notepad wrote.
        let keys = without_cr(keys);
        let home = self.at("run/root/.ssh");
        file::make_directory(&self.at("run/root"), 0o700).map_err(words)?;
        file::make_directory(&home, 0o700).map_err(words)?;
        file::replace(&home.join("authorized_keys"), &keys).map_err(words)?;
        self.add_section("ssh.cfg", SSH).map_err(words)
    }

    /// Something more to supervise.
    fn add_section(&self, name: &str, text: &str) -> Result<(), SysError> {
        let sections = self.at("run/multusd.d");
        file::make_directory(&sections, 0o755)?;
        file::replace(&sections.join(name), text.as_bytes())
    }

    /// With servers the clock is theirs; without, nothing is asked.
    fn set_clock(&self, config: &Config) -> Result<(), SysError> {
        if config.system.ntp.is_empty() {
            file::remove(&self.at("run/multusd.d/ntp.cfg"));
            return Ok(());
        }
        let lines = config.system.ntp.iter().map(|server| ["server ", server, " iburst\n"].concat());
        let text = lines.chain([CHRONY.into()]).collect::<String>();
        file::replace(&self.at("run/chrony.conf"), text.as_bytes())?;
        self.add_section("ntp.cfg", NTP)
    }

    /// Levels of outputs before Linux, at the next boot. The boot partition is writable only while that changes.
    fn tell_firmware(&self, config: &Config) -> Result<(), SysError> {
        let (boot, path) = (self.at("boot"), self.at("boot/outputs.txt"));
        let lines = config::firmware_lines(&config.board);
        let before = file::read_bounded(&path, LINES_BYTES_MAX).unwrap_or_default();
        if before == lines.as_bytes() {
            return Ok(());
        }
        let was_read_only = mount::is_read_only(&boot)?;
        if was_read_only {
            mount::set_read_only(&boot, false)?;
        }
        let written = file::replace(&path, lines.as_bytes());
        if was_read_only {
            mount::set_read_only(&boot, true)?;
        }
        written
    }
}
