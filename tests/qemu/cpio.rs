//! An initramfs, written as the kernel reads it (cpio, `newc`): needs no program and no root.

use std::collections::BTreeSet;

/// A cpio archive that grows.
#[derive(Default)]
pub struct Cpio {
    bytes: Vec<u8>,
    entries: u32,
    directories: BTreeSet<String>,
}

const DIRECTORY: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;
const SYMLINK: u32 = 0o120_000;
const CHARACTER_DEVICE: u32 = 0o020_000;

impl Cpio {
    /// A file at an absolute path, and the directories above it.
    pub fn file(&mut self, path: &str, mode: u32, content: &[u8]) {
        self.directories_above(path);
        self.entry(path, REGULAR | mode, (0, 0), content);
    }

    pub fn symlink(&mut self, path: &str, target: &str) {
        self.directories_above(path);
        self.entry(path, SYMLINK | 0o777, (0, 0), target.as_bytes());
    }

    /// /dev/console, without which the first process has no output.
    pub fn console(&mut self) {
        self.directories_above("/dev/console");
        self.entry("/dev/console", CHARACTER_DEVICE | 0o600, (5, 1), b"");
    }

    /// The archive, ended and padded so that another may follow it.
    pub fn finish(mut self) -> Vec<u8> {
        self.entry("/TRAILER!!!", 0, (0, 0), b"");
        self.bytes.resize(self.bytes.len().next_multiple_of(512), 0);
        self.bytes
    }

    fn directories_above(&mut self, path: &str) {
        let ends: Vec<usize> = path.match_indices('/').map(|(at, _)| at).filter(|&at| at > 0).collect();
        for end in ends {
            if self.directories.insert(path[..end].into()) {
                self.entry(&path[..end], DIRECTORY | 0o755, (0, 0), b"");
            }
        }
    }

    fn entry(&mut self, path: &str, mode: u32, device: (u32, u32), content: &[u8]) {
        let name = path.strip_prefix('/').expect("an absolute path");
        self.entries += 1;
        let size = u32::try_from(content.len()).expect("a file below 4 GiB");
        let name_size = name.len() as u32 + 1;
        // Inode, mode, user, group, links, time, size, device, device of the node, name, checksum.
        let fields = [self.entries, mode, 0, 0, 1, 0, size, 0, 0, device.0, device.1, name_size, 0]
            .map(|n| format!("{n:08X}"));
        self.bytes.extend_from_slice(b"070701");
        self.bytes.extend_from_slice(fields.concat().as_bytes());
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}
