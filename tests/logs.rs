//! Log files where programs, or others, can put something else in their place.

mod harness;

use std::fs;
use std::os::unix::fs::{FileTypeExt, PermissionsExt, symlink};

use harness::Instance;
use harness::mounts::{in_own_mounts, make_node, memory_at, unmount};

/// Says more than a pipe and a small log hold, says that it has, stays.
const TALK: &str = "i=0\nwhile [ $i -lt 3000 ]; do echo \"line $i ..............................\"; i=$((i+1)); done\n\
                    echo > \"${0%/*}/talked\"\nexec \"${0%/*}/sleeper\" 1000";

/// Says something again and again.
const TICK: &str = "i=0\nwhile :; do echo $i; i=$((i+1)); \"${0%/*}/sleeper\" 0.01; done";

/// A talker `a` that writes to `a`, a program `b` that writes to `b`.
const BOTH: &str = "[program:a]\ncommand = %(here)s/talk\nstartsecs = 0\nstdout_logfile = %(here)s/logs/a\n\
    stdout_logfile_maxbytes = 4KB\nstdout_logfile_backups = 2\n\
    [program:b]\ncommand = %(here)s/tick\nstartsecs = 0\nstdout_logfile = %(here)s/logs/b\n";

/// Not started yet: what is to be in the logs' directory is put there first.
fn prepared(test: &str) -> Instance {
    let instance = Instance::scripted_only(test, "", &[("talk", TALK), ("tick", TICK)], BOTH);
    fs::create_dir(instance.dir.join("logs")).unwrap();
    instance
}

/// Everything was said, and the other program's log goes on.
fn await_both(instance: &Instance) {
    instance.await_lines("talked", 1);
    let now = instance.lines("logs/b").len();
    instance.await_lines("logs/b", now + 10);
}

/// Told once, whatever the number of lines that are dropped.
fn assert_said_once(instance: &Instance, what: &str) {
    assert_eq!(instance.log().matches(what).count(), 1, "{}", instance.log());
}

#[test]
fn a_symlink_planted_in_a_log_directory_is_not_followed() {
    let mut instance = prepared("loglink");
    let victim = instance.dir.join("victim");
    fs::write(&victim, "precious\n").unwrap();
    symlink(&victim, instance.dir.join("logs/a")).unwrap();
    symlink(instance.dir.join("nowhere"), instance.dir.join("logs/b.1")).unwrap();
    instance.launch();
    await_both(&instance);
    instance.quit_clean();
    assert_eq!(instance.lines("victim"), ["precious"]);
    assert!(fs::symlink_metadata(instance.dir.join("logs/a")).unwrap().is_symlink(), "left alone");
    assert!(!instance.dir.join("logs/a.1").exists() && !instance.dir.join("nowhere").exists());
    assert_said_once(&instance, "logs/a: a symbolic link");
}

#[test]
fn a_hard_link_in_place_of_a_log_file_is_not_written_to() {
    let mut instance = prepared("loghard");
    let victim = instance.dir.join("victim");
    fs::write(&victim, "precious\n").unwrap();
    fs::hard_link(&victim, instance.dir.join("logs/a")).unwrap();
    instance.launch();
    await_both(&instance);
    instance.quit_clean();
    assert_eq!(instance.lines("victim"), ["precious"]);
    assert!(!instance.dir.join("logs/a.1").exists());
    assert_said_once(&instance, "logs/a: has hard links");
}

#[test]
fn a_fifo_in_place_of_a_log_file_blocks_nobody() {
    for is_read in [false, true] {
        let mut instance = prepared(&format!("logfifo-{is_read}"));
        let fifo = instance.dir.join("logs/a");
        make_node(&fifo, libc::S_IFIFO, 0).unwrap();
        // With a reader it can be opened for writing, and would fill up: nobody reads.
        let reader = is_read.then(|| fs::OpenOptions::new().read(true).write(true).open(&fifo).unwrap());
        instance.launch();
        await_both(&instance);
        instance.quit_clean();
        drop(reader);
        assert!(fs::symlink_metadata(&fifo).unwrap().file_type().is_fifo(), "left alone");
        assert!(!instance.dir.join("logs/a.1").exists());
        assert_said_once(&instance, "logs/a: ");
    }
}

#[test]
fn a_device_is_written_to_and_never_rotated() {
    in_own_mounts(|| {
        let mut instance = prepared("logdevice");
        // Wherever device files are nothing, here they are something.
        let logs = instance.dir.join("logs");
        memory_at(&logs, "mode=755", 0);
        let device = logs.join("a");
        make_node(&device, libc::S_IFCHR, libc::makedev(1, 3)).unwrap();
        instance.launch();
        await_both(&instance);
        instance.quit_clean();
        assert!(fs::symlink_metadata(&device).unwrap().file_type().is_char_device());
        assert!(!logs.join("a.1").exists());
        assert!(!instance.log().contains("lines wait in memory"), "{}", instance.log());
        unmount(&logs);
    });
}

#[test]
fn a_log_file_can_be_read_by_its_owner_and_group_only() {
    let mut instance = prepared("logmode");
    instance.launch();
    await_both(&instance);
    instance.quit_clean();
    for name in ["logs/a", "logs/a.1", "logs/b"] {
        let mode = fs::metadata(instance.dir.join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o137, 0, "{name}: {mode:o}");
    }
}

#[test]
fn a_program_that_never_stops_writing_does_not_keep_the_writer_from_new_streams() {
    let flood = "exec yes";
    let scripts = [("flood", flood), ("tick", TICK)];
    let first = "[program:a]\ncommand = %(here)s/flood\nstartsecs = 0\nstdout_logfile = %(here)s/a\n\
        stdout_logfile_maxbytes = 1MB\nstdout_logfile_backups = 1\n";
    let mut instance = Instance::scripted("logflood", "", &scripts, first);
    instance.await_lines("a", 10);
    let second = "[program:b]\ncommand = %(here)s/tick\nstartsecs = 0\nstdout_logfile = %(here)s/b\n";
    instance.write_config(&format!("{first}{second}"));
    instance.ctl_ok(&["reload"]);
    instance.await_lines("b", 10);
    instance.quit_clean();
}

#[test]
fn last_words_are_written_on_quit() {
    let main = "trap 'echo last words; echo last complaint >&2; exit 0' TERM\necho up\n\
                while :; do \"${0%/*}/sleeper\" 1000 & wait; done";
    let config = "[program:a]\ncommand = %(here)s/main\nstartsecs = 0\n\
        stdout_logfile = %(here)s/out\nstderr_logfile = %(here)s/err\nlog_stamp = none\n";
    let mut instance = Instance::scripted("lastwords", "", &[("main", main)], config);
    instance.await_lines("out", 1);
    instance.quit_clean();
    assert_eq!(instance.lines("out"), ["up", "last words"]);
    assert_eq!(instance.lines("err"), ["last complaint"]);
}
