//! File systems of a test's own: small ones, full ones, read-only ones, none at all. Nobody else sees them, and they
//! are gone with the processes that do.

use std::ffi::CString;
use std::fs;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

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
