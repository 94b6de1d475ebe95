//! Why the machine booted, by the real binary in a machine whose boots the test makes: it says which boot this is, in
//! the place of what the kernel says.

mod harness;

use std::fs;
use std::path::Path;

use harness::mounts::{fill, in_own_mounts, memory_at, put_over};
use harness::{Instance, signal};

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// An instance on a machine that has just booted for the first time.
struct Machine {
    instance: Instance,
    boots: u32,
}

impl Machine {
    fn new(test: &str) -> Machine {
        let instance = Instance::prepare(test, "", "");
        let (reboot, poweroff) =
            (harness::script(&instance.dir, "reboot", ""), harness::script(&instance.dir, "poweroff", ""));
        // A watchdog that is not there: enough for a feed to be withheld.
        let watchdog = format!("[watchdog]\ndevice = {}/watchdog\n", instance.dir.display());
        let keys = format!("reboot_command = {reboot}\npoweroff_command = {poweroff}\n");
        instance.write_config_with(&keys, &watchdog);
        let mut machine = Machine { instance, boots: 0 };
        machine.boot();
        put_over(&machine.instance.dir.join("boot_id"), Path::new(BOOT_ID));
        machine
    }

    fn boot(&mut self) {
        self.boots += 1;
        let id = format!("{:08x}-1b4e-4f5e-9a53-5a3a0c1d2e3f\n", self.boots);
        fs::write(self.instance.dir.join("boot_id"), id).unwrap();
    }

    fn launch(&mut self) {
        self.instance.launch();
        // What is known is there when a job has read it.
        self.instance.await_that("the boot is known", || !self.reasons().starts_with("nothing"));
    }

    fn reasons(&self) -> String {
        self.instance.ctl_ok(&["reasons"])
    }

    /// Boots; how the former boot is said to have ended.
    fn boot_and_ask(&mut self) -> String {
        self.boot();
        self.launch();
        let reasons = self.reasons();
        let mut lines = reasons.lines();
        let now =
            lines.next().and_then(|line| line.strip_suffix(": runs")).unwrap_or_else(|| panic!("{reasons}"));
        let before =
            lines.next().and_then(|line| line.split_once(": ")).unwrap_or_else(|| panic!("{reasons}")).1;
        let said = format!("{now}, after: {before}");
        let status = self.instance.ctl_ok(&["status"]);
        assert!(status.contains(&format!("\n{said}\n")), "{status}");
        self.instance.await_that("it is an event", || {
            self.instance.ctl_ok(&["events", "--past"]).contains(&format!("multusd: {said}"))
        });
        assert!(self.instance.log().contains(&said), "{}", self.instance.log());
        said
    }

    fn ledger(&self) -> std::path::PathBuf {
        self.instance.dir.join("state/boots")
    }

    /// multusd is gone by an order.
    fn ended_by(&mut self, words: &[&str]) {
        self.instance.ctl_ok(words);
        self.instance.await_end();
    }
}

#[test]
fn each_boot_knows_how_the_one_before_it_ended() {
    in_own_mounts(|| {
        let mut machine = Machine::new("boots");
        machine.launch();
        assert_eq!(machine.reasons(), "boot 1: runs\n");
        assert!(!machine.instance.ctl_ok(&["status"]).contains("boot "), "there is none before it");
        machine.ended_by(&["reboot"]);
        assert_eq!(machine.boot_and_ask(), "boot 2, after: reboot, as ordered");
        machine.ended_by(&["poweroff"]);
        assert_eq!(machine.boot_and_ask(), "boot 3, after: power off, as ordered");
        machine.instance.quit();
        let quit = "multusd was ended, as ordered: what came then is not known";
        assert_eq!(machine.boot_and_ask(), format!("boot 4, after: {quit}"));
        machine.instance.kill_both();
        let lost = "ended without an order: power lost, reset or kernel failure";
        assert_eq!(machine.boot_and_ask(), format!("boot 5, after: {lost}"));
        machine.instance.quit();
        let all = format!(
            "boot 5: runs\nboot 4: {lost}\nboot 3: {quit}\nboot 2: power off, as ordered\nboot 1: reboot, as ordered\n"
        );
        machine.launch();
        assert_eq!(machine.reasons(), all, "it was only started again");
    });
}

#[test]
fn why_no_watchdog_was_fed_outlives_the_boot_in_which_that_was_so() {
    in_own_mounts(|| {
        let mut machine = Machine::new("boots-unfed");
        machine.launch();
        let status = machine.instance.status();
        let read = || fs::read(machine.ledger()).unwrap();
        let holds = |text: &[u8]| text.windows(10).filter(|part| *part == b"the guard ").count();
        signal(status.guard_pid, libc::SIGSTOP);
        machine.instance.await_that("it is on storage", || holds(&read()) == 1);
        signal(status.guard_pid, libc::SIGCONT);
        machine.instance.await_that("it is fed again", || machine.instance.log().contains("fed again"));
        machine.instance.kill_both();
        machine.boot_and_ask().strip_suffix("power lost, reset or kernel failure").expect("that was over");
        let status = machine.instance.status();
        signal(status.guard_pid, libc::SIGSTOP);
        machine.instance.await_that("it is on storage", || {
            let bytes = fs::read(machine.ledger()).unwrap();
            bytes.windows(10).any(|part| part == b"the guard ")
        });
        signal(status.supervisor_pid, libc::SIGKILL);
        signal(status.guard_pid, libc::SIGKILL);
        machine.instance.await_end();
        let said = machine.boot_and_ask();
        let why = "ended without an order while no watchdog was fed: the guard does not answer";
        assert_eq!(said, format!("boot 3, after: {why}"));
    });
}

#[test]
fn a_supervisor_that_is_replaced_changes_nothing_and_knows_all() {
    in_own_mounts(|| {
        let mut machine = Machine::new("boots-replaced");
        machine.launch();
        machine.ended_by(&["reboot"]);
        machine.boot_and_ask();
        let before = machine.reasons();
        let status = machine.instance.status();
        signal(status.supervisor_pid, libc::SIGKILL);
        machine.instance.await_that("its successor answers", || {
            let output = machine.instance.ctl(&["status", "--json"]);
            String::from_utf8_lossy(&output.stdout).contains("\"supervisor_restarts\":1")
        });
        assert_eq!(machine.reasons(), before);
        machine.ended_by(&["poweroff"]);
        assert_eq!(machine.boot_and_ask(), "boot 3, after: power off, as ordered");
    });
}

#[test]
fn one_damaged_slot_costs_the_last_note_and_two_are_said() {
    in_own_mounts(|| {
        let mut machine = Machine::new("boots-torn");
        machine.launch();
        for _ in 0..2 {
            machine.ended_by(&["reboot"]);
            machine.boot_and_ask();
        }
        machine.ended_by(&["reboot"]);
        let whole = fs::read(machine.ledger()).unwrap();
        // The word of the last reboot was in one of them only.
        for place in [0, 4096] {
            let mut damaged = whole.clone();
            damaged[place + 100] ^= 4;
            fs::write(machine.ledger(), damaged).unwrap();
            let said = machine.boot_and_ask();
            let known = ["reboot, as ordered", "ended without an order: power lost, reset or kernel failure"];
            assert!(known.iter().any(|end| said == format!("boot 4, after: {end}")), "{said}");
            assert!(machine.reasons().ends_with("boot 1: reboot, as ordered\n"));
            assert!(!machine.instance.log().contains("damaged"));
            machine.instance.quit();
        }
        for damaged in [vec![0xff; 8192], whole[..4000].to_vec(), vec![0; 20_000]] {
            fs::write(machine.ledger(), damaged).unwrap();
            fs::remove_file(machine.instance.dir.join("multusd.log")).unwrap();
            machine.boot();
            machine.launch();
            assert_eq!(machine.reasons(), "boot 1: runs\n");
            let said = format!(
                "the record of boots in {}/state is damaged and begins anew",
                machine.instance.dir.display()
            );
            machine.instance.await_that("that is said", || machine.instance.log().contains(&said));
            machine.instance.quit();
        }
    });
}

#[test]
fn a_card_that_is_full_has_room_and_one_that_is_read_only_is_said_and_nothing_else_changes() {
    in_own_mounts(|| {
        let mut machine = Machine::new("boots-full");
        let state = machine.instance.dir.join("state");
        memory_at(&state, "size=64k,mode=755", 0);
        machine.launch();
        fill(&state);
        machine.ended_by(&["reboot"]);
        assert_eq!(machine.boot_and_ask(), "boot 2, after: reboot, as ordered");
        machine.instance.quit();
        memory_at(&state, "size=64k,mode=755", libc::MS_REMOUNT | libc::MS_RDONLY);
        let before = fs::read(machine.ledger()).unwrap();
        // It is known all the same, and what is known is shown.
        let said = machine.boot_and_ask();
        assert_eq!(said, "boot 3, after: multusd was ended, as ordered: what came then is not known");
        let words =
            format!("why the machine boots is not recorded in {}: Read-only file system", state.display());
        assert!(machine.instance.status().limitations.contains(&words), "{:?}", machine.instance.status());
        assert_eq!(machine.instance.quit(), 0);
        assert_eq!(fs::read(machine.ledger()).unwrap(), before);
    });
}
