//! `multusd system`: the machine is set up as the file on the card says, and as it says nothing.

mod harness;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use harness::mounts::{in_own_mounts, memory_at};

const HASH: &str = "$6$Zk3.lH2a$qJ9xVb0cWm/1";

/// What the image itself runs.
const IMAGE: &str = "[program:network]\ncommand = /usr/sbin/board-network\n";

/// A machine's files in a directory of its own.
struct Machine(PathBuf);

impl Machine {
    fn new(test: &str) -> Machine {
        let dir = std::env::temp_dir().join(format!("multusd-system-{test}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        let machine = Machine(dir);
        for folder in [
            "boot/programs",
            "data/programs",
            "etc/multusd.d",
            "run",
            "usr/share/zoneinfo/Europe",
            "var/lib/multusd",
        ] {
            fs::create_dir_all(machine.at(folder)).unwrap();
        }
        machine.write("etc/multusd.d/image.cfg", IMAGE.as_bytes());
        machine.write("etc/shadow.locked", b"root:!:0:0:99999:7:::\nnobody:!:0:0:99999:7:::\n");
        machine.write("usr/share/zoneinfo/UTC", b"UTC");
        machine.write("usr/share/zoneinfo/Europe/Berlin", b"CET");
        machine
    }

    fn at(&self, path: &str) -> PathBuf {
        self.0.join(path)
    }

    fn write(&self, path: &str, bytes: &[u8]) {
        fs::write(self.at(path), bytes).unwrap();
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.at(path)).unwrap()
    }

    fn mode(&self, path: &str) -> u32 {
        fs::metadata(self.at(path)).unwrap().permissions().mode() & 0o7777
    }

    fn set_up(&self) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_multusd"));
        command.args(["system", "--root"]).arg(&self.0).output().unwrap()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn words(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_file_from_notepad_sets_time_zone_and_password_and_brings_programs() {
    let machine = Machine::new("notepad");
    let text = format!(
        "\u{feff}[system]\r\ntimezone = Europe/Berlin\r\nroot_password = {HASH}\r\ncopy_programs = yes\r\n\
         [program:a]\r\ncommand = /data/programs/a\r\n"
    );
    machine.write("boot/multusd.cfg", text.as_bytes());
    machine.write("boot/programs/a", b"#!/bin/sh\nexec sleep 1000\n");
    machine.write("data/programs/b", b"of the user's own");
    let output = machine.set_up();
    assert!(output.status.success() && words(&output).is_empty(), "{}", words(&output));
    assert_eq!(
        fs::read_link(machine.at("run/localtime")).unwrap(),
        Path::new("/usr/share/zoneinfo/Europe/Berlin")
    );
    assert_eq!(machine.read("run/shadow"), format!("root:{HASH}:0:0:99999:7:::\nnobody:!:0:0:99999:7:::\n"));
    assert_eq!(machine.mode("run/shadow"), 0o600);
    assert_eq!((machine.read("data/programs/a").len(), machine.mode("data/programs/a")), (26, 0o755));
    assert_eq!(machine.read("data/programs/b"), "of the user's own");
    // What has not changed is not written again.
    let before = fs::metadata(machine.at("data/programs/a")).unwrap().modified().unwrap();
    assert!(machine.set_up().status.success());
    assert_eq!(fs::metadata(machine.at("data/programs/a")).unwrap().modified().unwrap(), before);
    machine.write("boot/programs/a", b"#!/bin/sh\nexit\n");
    assert!(machine.set_up().status.success());
    assert_eq!(machine.read("data/programs/a"), "#!/bin/sh\nexit\n");
    // A script of Notepad's is one for the kernel; what is no script is nobody's to change.
    machine.write("boot/programs/a", b"\xef\xbb\xbf#!/bin/sh\r\nexec sleep 1\r\n");
    machine.write("boot/programs/picture", b"\xef\xbb\xbfx\r\n");
    machine.write("boot/programs/archive", b"#!/bin/sh\nexit\n\r\n");
    assert!(machine.set_up().status.success());
    assert_eq!(machine.read("data/programs/archive"), "#!/bin/sh\nexit\n\r\n");
    assert_eq!(machine.read("data/programs/a"), "#!/bin/sh\nexec sleep 1\n");
    assert_eq!(machine.read("data/programs/picture"), "\u{feff}x\r\n");
}

#[test]
fn where_nothing_is_said_nobody_logs_in_nothing_is_copied_and_nothing_listens() {
    let machine = Machine::new("silent");
    machine.write("boot/multusd.cfg", b"[multusd]\nhostname = pump-7\n");
    machine.write("boot/programs/a", b"x");
    machine.write("boot/authorized_keys", b" \r\n");
    assert!(machine.set_up().status.success());
    assert_eq!(machine.read("run/shadow"), machine.read("etc/shadow.locked"));
    assert_eq!(fs::read_link(machine.at("run/localtime")).unwrap(), Path::new("/usr/share/zoneinfo/UTC"));
    assert_eq!(fs::read_dir(machine.at("data/programs")).unwrap().count(), 0);
    for path in ["run/multusd.d", "run/root", "run/openntpd.conf", "boot/outputs.txt"] {
        assert!(!machine.at(path).exists(), "{path}");
    }
}

#[test]
fn servers_of_the_time_are_asked_by_a_program_that_is_supervised_and_without_them_nobody_is() {
    let machine = Machine::new("ntp");
    machine.write("boot/multusd.cfg", b"[system]\nntp = pool.ntp.org, 192.168.1.1 2001:db8::1\n");
    let output = machine.set_up();
    assert!(output.status.success() && words(&output).is_empty(), "{}", words(&output));
    assert_eq!(
        machine.read("run/openntpd.conf"),
        "servers pool.ntp.org\nservers 192.168.1.1\nservers 2001:db8::1\n"
    );
    let section = machine.at("run/multusd.d/ntp.cfg");
    assert_eq!(
        machine.read("run/multusd.d/ntp.cfg"),
        "[program:ntp]\ncommand = /usr/sbin/board-time\nstartsecs = 1\n\
         restart_delay_max = 5min\n"
    );
    let check = Command::new(env!("CARGO_BIN_EXE_multusd")).arg("--check").arg(&section).output().unwrap();
    assert!(check.status.success(), "{}", words(&check));
    machine.write("boot/multusd.cfg", b"[system]\ntimezone = UTC\n");
    assert!(machine.set_up().status.success());
    assert!(!section.exists());
}

const OUTPUTS: &[u8] = b"[output:pump]\ngpio = 17\n[output:lamp]\ngpio = 22\nactive = low\nsafe = off\n\
                         [output:led]\npath = /sys/class/leds/ACT/brightness\n";
const LINES: &str = "gpio=17=op,dl\ngpio=22=op,dh\n";

#[test]
fn the_firmware_is_told_the_safe_levels_of_outputs_and_only_what_is_new() {
    let machine = Machine::new("outputs");
    machine.write("boot/multusd.cfg", OUTPUTS);
    let output = machine.set_up();
    assert!(output.status.success() && words(&output).is_empty(), "{}", words(&output));
    let told = machine.read("boot/outputs.txt");
    assert_eq!(told.split_once('\n').unwrap().1, LINES);
    let written = || fs::metadata(machine.at("boot/outputs.txt")).unwrap().modified().unwrap();
    let before = written();
    assert!(machine.set_up().status.success());
    assert_eq!(written(), before);
    // A file that nobody understands, and no last good one: what was safe is left as it is.
    machine.write("boot/multusd.cfg", b"[output:pump]\ngpoi = 17\n");
    machine.set_up();
    assert_eq!(machine.read("boot/outputs.txt"), told);
    machine.write("boot/multusd.cfg", b"[system]\n");
    assert!(machine.set_up().status.success());
    assert_eq!(machine.read("boot/outputs.txt"), "");
}

#[test]
fn the_boot_partition_is_writable_only_while_the_firmware_is_told_something_new() {
    in_own_mounts(|| {
        let machine = Machine::new("outputs-mount");
        let boot = machine.at("boot");
        let flags = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
        memory_at(&boot, "size=64k,mode=700", flags);
        machine.write("boot/multusd.cfg", OUTPUTS);
        memory_at(&boot, "", flags | libc::MS_REMOUNT | libc::MS_RDONLY);
        let output = machine.set_up();
        assert!(output.status.success() && words(&output).is_empty(), "{}", words(&output));
        assert!(machine.read("boot/outputs.txt").ends_with(LINES));
        let mounts = fs::read_to_string("/proc/thread-self/mounts").unwrap();
        let mount = mounts.lines().find(|line| line.contains(boot.to_str().unwrap())).unwrap();
        let options: Vec<&str> = mount.split(' ').nth(3).unwrap().split(',').collect();
        for option in ["ro", "nosuid", "nodev", "noexec"] {
            assert!(options.contains(&option), "{option} is missing: {mount}");
        }
        assert!(fs::write(boot.join("x"), "").is_err());
        harness::mounts::unmount(&boot);
    });
}

#[test]
fn ssh_opens_with_a_key_on_the_card_and_for_whoever_has_it() {
    let machine = Machine::new("ssh");
    machine.write("boot/multusd.cfg", b"");
    machine.write("boot/authorized_keys", b"ssh-ed25519 AAAAC3Nz me@laptop\r\n");
    assert!(machine.set_up().status.success());
    assert_eq!(machine.read("run/root/.ssh/authorized_keys"), "ssh-ed25519 AAAAC3Nz me@laptop\n");
    for (path, mode) in
        [("run/root", 0o700), ("run/root/.ssh", 0o700), ("run/root/.ssh/authorized_keys", 0o600)]
    {
        assert_eq!(machine.mode(path), mode, "{path}");
    }
    let section = machine.at("run/multusd.d/ssh.cfg");
    let check = Command::new(env!("CARGO_BIN_EXE_multusd")).arg("--check").arg(&section).output().unwrap();
    assert!(check.status.success(), "{}", words(&check));
}

#[test]
fn with_a_broken_file_the_last_good_one_holds_and_the_error_is_named() {
    let machine = Machine::new("broken");
    machine.write("boot/multusd.cfg", b"[system]\ntimezone = Europe/Berlin\nroot_pasword = x\n");
    let output = machine.set_up();
    assert!(words(&output).contains("boot/multusd.cfg:3: "), "{}", words(&output));
    // There is none: nobody gets in by a broken file.
    assert_eq!(machine.read("run/shadow"), machine.read("etc/shadow.locked"));
    // What the image itself runs is what there is to run, also by multusd itself, and SSH for a key.
    let last_good = || machine.read("var/lib/multusd/last-good.cfg");
    assert!(last_good().ends_with(IMAGE), "{}", last_good());
    fs::remove_file(machine.at("var/lib/multusd/last-good.cfg")).unwrap();
    machine.write("boot/authorized_keys", b"ssh-ed25519 A a\n");
    machine.set_up();
    assert!(last_good().contains(IMAGE) && last_good().contains("[program:ssh]"), "{}", last_good());
    let good = format!("[system]\ntimezone = Europe/Berlin\nroot_password = {HASH}\n");
    let kept =
        format!("; multusd last good configuration {} {:016x}\n{good}", good.len(), digest(good.as_bytes()));
    machine.write("var/lib/multusd/last-good.cfg", kept.as_bytes());
    machine.set_up();
    assert!(machine.read("run/shadow").starts_with(&format!("root:{HASH}:")));
}

#[test]
fn a_step_that_fails_is_named_and_the_others_are_done() {
    let machine = Machine::new("fails");
    let text = format!("[system]\ntimezone = Mars/Olympus\nroot_password = {HASH}\ncopy_programs = yes\n");
    machine.write("boot/multusd.cfg", text.as_bytes());
    machine.write("boot/programs/a", b"x");
    let output = machine.set_up();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(words(&output), "multusd system: the time zone: there is no Mars/Olympus; it stays UTC\n");
    assert!(machine.read("run/shadow").contains(HASH));
    assert_eq!(machine.read("data/programs/a"), "x");
    assert_eq!(machine.set_up().status.code(), Some(1));
}

/// As the last good copy is sealed: FNV-1a.
fn digest(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}
