//! File systems of a test's own: small ones, full ones, read-only ones, none at all. Nobody else sees them, and they
//! are gone with the processes that do.

use std::ffi::CString;
use std::fs;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Runs a test in a thread that has a view of the file systems of its own, and so have the processes it starts.
pub fn in_own_mounts(test: impl FnOnce() + Send + 'static) {
    super::real::need_root();
    let thread = std::thread::spawn(|| {
        unshare().expect("unshare");
        test();
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// What is mounted from now on is this thread's; may be called between fork and exec.
pub fn unshare() -> std::io::Result<()> {
    // SAFETY: constants.
    let result = unsafe {
        match libc::unshare(libc::CLONE_NEWNS) {
            0 => libc::mount(
                std::ptr::null(),
                c"/".as_ptr(),
                std::ptr::null(),
                libc::MS_REC | libc::MS_PRIVATE,
                std::ptr::null(),
            ),
            failed => failed,
        }
    };
    if result == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

/// Makes everything read-only, whatever is mounted (mount_setattr(2)); as above.
pub fn make_read_only() -> std::io::Result<()> {
    const RECURSIVE: libc::c_int = 0x8000;
    let attributes = [1_u64, 0, 0, 0]; // MOUNT_ATTR_RDONLY is to be set
    // SAFETY: a structure of the size given.
    let result = unsafe {
        libc::syscall(442, libc::AT_FDCWD, c"/".as_ptr(), RECURSIVE, &raw const attributes, 32_usize)
    };
    if result == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

/// Mounts an empty file system in memory with these options, or changes those of one that is there.
pub fn memory_at(path: &Path, options: &str, flags: libc::c_ulong) {
    fs::create_dir_all(path).expect("a place for it");
    let path = CString::new(path.as_os_str().as_bytes()).unwrap();
    let options = CString::new(options).unwrap();
    // SAFETY: C strings that live across the call.
    let result = unsafe {
        libc::mount(c"tmpfs".as_ptr(), path.as_ptr(), c"tmpfs".as_ptr(), flags, options.as_ptr().cast())
    };
    assert_eq!(result, 0, "{path:?}: {}", std::io::Error::last_os_error());
}

/// Takes it away.
pub fn unmount(path: &Path) {
    let path = CString::new(path.as_os_str().as_bytes()).unwrap();
    // SAFETY: a C string.
    unsafe { libc::umount2(path.as_ptr(), libc::MNT_DETACH) };
}

/// Fills a file system to its last byte, and where files are counted to its last file.
pub fn fill(path: &Path) {
    let mut filler = fs::File::create(path.join("filler")).expect("filler");
    let piece = [b'x'; 4096];
    while filler.write(&piece).is_ok_and(|written| written > 0) {}
    for number in 0..1000 {
        if fs::File::create(path.join(format!("filler-{number}"))).is_err() {
            return;
        }
    }
}

/// Puts one file in the place of another.
pub fn put_over(file: &Path, place: &Path) {
    let [from, to] = [file, place].map(|path| CString::new(path.as_os_str().as_bytes()).unwrap());
    let none = std::ptr::null();
    // SAFETY: C strings that live across the call.
    let result = unsafe { libc::mount(from.as_ptr(), to.as_ptr(), none, libc::MS_BIND, none.cast()) };
    assert_eq!(result, 0, "{place:?}: {}", std::io::Error::last_os_error());
}

/// Makes a FIFO or device file (mknod(2)).
pub fn make_node(path: &Path, kind: u32, device: u64) -> std::io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes()).expect("a path");
    // SAFETY: a C string and integers.
    let result = unsafe { libc::mknod(path.as_ptr(), kind | 0o600, device) };
    if result == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

/// A real file system (ext4) on a loop device, which can be frozen (FIFREEZE): writes to it wait.
pub struct Disk {
    pub directory: PathBuf,
    mount: fs::File,
}

impl Disk {
    /// Mounts a new one.
    pub fn at(directory: &Path) -> Disk {
        super::real::need_root();
        fs::create_dir_all(directory).unwrap();
        let image = directory.with_extension("image");
        fs::File::create(&image).unwrap().set_len(64 << 20).unwrap();
        let run = |command: &mut Command| {
            let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{command:?}: {said} (loop devices and e2fsprogs are needed)");
        };
        run(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&image));
        run(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(directory));
        fs::remove_file(&image).unwrap();
        Disk { mount: fs::File::open(directory).unwrap(), directory: directory.to_owned() }
    }

    /// Freezes or thaws it.
    pub fn freeze(&self, on: bool) {
        assert!(self.freezes(on), "{}", std::io::Error::last_os_error());
    }

    fn freezes(&self, on: bool) -> bool {
        const FIFREEZE: libc::c_ulong = 0xc004_5877;
        const FITHAW: libc::c_ulong = 0xc004_5878;
        let request = if on { FIFREEZE } else { FITHAW };
        // SAFETY: an ioctl that takes no memory.
        unsafe { libc::ioctl(self.mount.as_raw_fd(), request as _, 0) == 0 }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Thawed already is no matter.
        self.freezes(false);
        unmount(&self.directory);
    }
}
