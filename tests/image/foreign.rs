//! Boards that QEMU does not have, or has no card for: everything of their images but the hardware runs on its own machine.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};

use super::boots::boots;
use super::cache;
use super::card::{said, tool};
use super::config_txt::boards;
use super::cpio::Cpio;

/// What that machine's card is behind, and its watchdog.
const DRIVERS: [&str; 3] = ["virtio_pci", "virtio_blk", "i6300esb"];

/// Of an initramfs, the list of its modules.
fn order(initramfs: &Path) -> String {
    let script = "gzip -dc | cpio --quiet -i --to-stdout modules/order";
    let from = File::open(initramfs).expect("an initramfs");
    let done = Command::new("sh").args(["-c", script]).stdin(Stdio::from(from)).output().expect("sh");
    assert!(done.status.success() && !done.stdout.is_empty(), "{}", said(&done));
    String::from_utf8(done.stdout).expect("names")
}

/// The same command line with that machine's serial console.
pub fn with_console_of_virt(cmdline: &str) -> String {
    let words = cmdline.split(' ').map(|word| {
        let is_serial = word.starts_with("console=ttyS") || word.starts_with("console=ttyA");
        if is_serial { "console=ttyAMA0" } else { word }
    });
    words.collect::<Vec<_>>().join(" ")
}

/// A board's kernel has drivers for QEMU's own machine, its initramfs has not: they are added to it, as another archive.
pub fn add_drivers_of_virt(board: &str, initramfs: &Path) {
    let boards = boards();
    let word = |key: &str| boards[board].get(key).and_then(|value| value.as_str());
    let arch = word("arch").expect("an architecture");
    let system = word("release").map_or(arch.into(), |release| format!("{arch}-{release}"));
    let system = cache::folder().parent().expect("the build folder").join("board").join(system);
    let kernel = fs::read_to_string(system.join("kernel")).expect("the kernel's version");
    let (tree, mut order) = (system.join("tree").display().to_string(), order(initramfs));
    let mut archive = Cpio::default();
    for driver in DRIVERS {
        let words = ["-d", &tree, "-S", kernel.trim(), "--show-depends", driver];
        let shown = tool("modprobe", &words.map(String::from));
        assert!(shown.status.success(), "{driver}: {}", said(&shown));
        for path in said(&shown).lines().filter_map(|line| line.strip_prefix("insmod ")).map(str::trim) {
            let name =
                path.rsplit('/').next().and_then(|name| name.strip_suffix(".xz")).expect("a packed module");
            if !order.lines().any(|known| known == name) {
                let unpacked = tool("xz", &["-dc".into(), path.into()]);
                assert!(unpacked.status.success(), "{path}");
                archive.file(&format!("/modules/{name}"), 0o644, &unpacked.stdout);
                order += &format!("{name}\n");
            }
        }
    }
    archive.file("/modules/order", 0o644, order.as_bytes());
    let mut both = fs::read(initramfs).expect("an initramfs");
    // The kernel looks for the next archive at a multiple of four.
    both.resize(both.len().next_multiple_of(4), 0);
    both.extend(archive.finish());
    fs::write(initramfs, both).expect("room");
}

#[test]
fn the_image_of_a_raspberry_pi_5_boots_to_running_programs_with_its_kernel_and_another_boards_hardware() {
    boots("rpi5", "");
}

#[test]
fn the_image_of_a_raspberry_pi_4_boots_to_running_programs_with_another_boards_hardware() {
    boots("rpi4-64", "");
}

#[test]
fn the_image_of_a_raspberry_pi_zero_2_boots_to_running_programs_with_another_boards_hardware() {
    boots("rpi-zero2", "");
}
