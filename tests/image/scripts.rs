//! What the image's scripts call is in the image: a name that is missing is found here, not on the day when power has gone
//! in the wrong moment.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::cache;
use super::card::{Card, said, tool};

/// The programs that shell scripts call.
fn called(scripts: &[PathBuf]) -> BTreeSet<String> {
    cache::run("scripts/need", &["test-image", "shfmt"]);
    let done = Command::new("python3").arg("tests/image/called.py").args(scripts).output().expect("python3");
    assert!(done.status.success(), "{}", said(&done));
    String::from_utf8(done.stdout).expect("names").lines().map(String::from).collect()
}

/// Files of a folder of the root file system's sources.
fn sources(folder: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(Path::new("board/rootfs").join(folder)).expect("a folder of the image's");
    entries.map(|entry| entry.expect("an entry").path()).collect()
}

/// The first word of each line that has this before it.
fn first_words(path: &str, before: &str) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let lines = text.lines().filter(|line| !line.starts_with(['#', ';']));
    let words =
        lines.filter_map(|line| line.rsplit_once(before)?.1.split_whitespace().next().map(String::from));
    words.collect()
}

#[test]
fn every_program_that_the_images_scripts_call_is_in_the_image() {
    let card = Card::flashed("scripts", "qemu-virt");
    let root = card.extracted(card.partitions()[1], "root.part").display().to_string();
    let listed = tool("unsquashfs", &["-d".into(), String::new(), "-l".into(), root.clone()]);
    let listed = said(&listed);
    let in_root: BTreeSet<&str> = listed.lines().filter(|line| line.starts_with('/')).collect();
    assert!(in_root.contains("/usr/sbin/multusd") && in_root.contains("/bin/sh"), "{listed}");
    let is_in_root = |name: &String| match name.starts_with('/') {
        true => in_root.contains(name.as_str()),
        // As /etc/profile and init's own path have it.
        false => ["/bin/", "/sbin/", "/usr/bin/", "/usr/sbin/"]
            .iter()
            .any(|folder| in_root.contains([folder, name.as_str()].concat().as_str())),
    };

    let mut names = called(&[sources("usr/sbin"), sources("etc/init.d")].concat());
    for known in ["udhcpc", "modprobe", "stat", "login", "multusctl"] {
        assert!(names.contains(known), "not even {known} is found to be called");
    }
    names.extend(first_words("board/rootfs/etc/inittab", ":"));
    names.extend(first_words("board/rootfs/etc/multusd.d/image.cfg", "command = "));
    let missing: Vec<_> = names.iter().filter(|name| !is_in_root(name)).collect();
    assert!(missing.is_empty(), "called, and not in the root file system: {missing:?}");

    // The first programs have BusyBox's, and those of the root file system by their paths there.
    let done = tool("unsquashfs", &["-cat".into(), root, "bin/busybox".into()]);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let begin = done
        .stdout
        .windows(6)
        .position(|bytes| bytes == b"\0[\0[[\0")
        .expect("the names of BusyBox's applets");
    let table = &done.stdout[begin + 1..];
    let end = table.windows(2).position(|bytes| bytes == b"\0\0").expect("the last of them");
    let applets: BTreeSet<String> = table[..end]
        .split(|byte| *byte == 0)
        .map(|name| String::from_utf8_lossy(name).into_owned())
        .collect();
    let names = called(&["board/initramfs/init".into()]);
    for known in ["insmod", "sha256sum", "switch_root", "/sbin/e2fsck"] {
        assert!(names.contains(known), "not even {known} is found to be called");
    }
    let missing: Vec<_> = names
        .iter()
        .filter(|name| if name.starts_with('/') { !is_in_root(name) } else { !applets.contains(*name) })
        .collect();
    assert!(missing.is_empty(), "called, and not in the initramfs: {missing:?}");
}
