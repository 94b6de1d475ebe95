//! `multusctl renew`: another executable takes over guard and supervisor, and nobody else notices; what cannot is refused, and
//! changes nothing.

mod harness;

use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use harness::{Instance, Random, signal, supervisor_of};

const CONFIG: &str = "[output:lamp]\npath = %(here)s/lamp\n[template:lamp]\noutputs = lamp\non = 1h\nheartbeat = 1s\n\
    [program:steady]\ncommand = %(here)s/steady\nstartsecs = 0\nstdout_logfile = %(here)s/steady.out\n\
    [program:crashing]\ncommand = %(here)s/crashing\nstartsecs = 0\nrestart_delay = 50ms\nrestart_delay_max = 50ms\n";

/// Says a number ten times a second; ends at once.
const SCRIPTS: [(&str, &str); 2] = [
    ("steady", "i=0; while :; do i=$((i+1)); echo $i; \"${0%/*}/sleeper\" 0.1; done"),
    ("crashing", "\"${0%/*}/sleeper\" 0.1; exit 1"),
];

/// An instance that runs from an executable of its own.
fn start(test: &str) -> (Instance, PathBuf) {
    let mut instance = Instance::scripted_only(test, "", &SCRIPTS, CONFIG);
    fs::write(instance.dir.join("lamp"), "0\n").unwrap();
    let executable = instance.public_binary();
    let log = fs::File::create(instance.dir.join("multusd.log")).unwrap();
    let copy = executable.clone();
    instance.launch_as(|command| {
        let arguments: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
        *command = Command::new(&copy);
        command.args(arguments).stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
    });
    for name in STEADY {
        instance.await_state(name, "running");
    }
    (instance, executable)
}

/// Another executable is at this path, as a package manager does it.
fn put(path: &Path, bytes: &[u8]) {
    let new = path.with_extension("new");
    fs::write(&new, bytes).unwrap();
    fs::set_permissions(&new, fs::Permissions::from_mode(0o755)).unwrap();
    fs::rename(new, path).unwrap();
}

/// Which file a process runs.
fn image(pid: u32) -> u64 {
    fs::metadata(format!("/proc/{pid}/exe")).unwrap().ino()
}

fn descriptors(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

const STEADY: [&str; 3] = ["steady", "template-lamp", "log"];

fn pids(instance: &Instance) -> [u32; 3] {
    STEADY.map(|name| instance.pid(name))
}

/// What `steady` has said.
fn numbers(instance: &Instance) -> Vec<u64> {
    instance.ctl_ok(&["log", "--sync"]);
    let lines = instance.lines("steady.out");
    lines.iter().map(|line| line.rsplit(' ').next().unwrap().parse().unwrap()).collect()
}

#[test]
fn another_executable_takes_over_and_no_program_notices() {
    let (mut instance, executable) = start("renew");
    let guard = instance.guard_pid();
    let before = pids(&instance);
    let original = fs::read(&executable).unwrap();
    let mut counts = Vec::new();
    for round in 0..5 {
        // Another file, which does the same: what is behind an executable's end is nothing to the kernel.
        put(&executable, &[&original[..], &[round]].concat());
        let (old, supervisor) = (image(guard), instance.status().supervisor_pid);
        let said = instance.ctl_ok(&["renew"]);
        assert!(said.contains("renewed from ") && said.contains(" goes on; programs run on"), "{said}");
        let status = instance.status();
        assert_eq!((status.guard_pid, status.supervisor_restarts), (guard, 0));
        assert_ne!(status.supervisor_pid, supervisor);
        assert_ne!(image(guard), old);
        assert_eq!(image(status.supervisor_pid), image(guard));
        assert_eq!(fs::read(format!("/proc/{guard}/exe")).unwrap().last(), Some(&round));
        assert_eq!(pids(&instance), before);
        assert!(status.limitations.iter().all(|words| !words.contains("former")), "{:?}", status.limitations);
        let count = numbers(&instance).len();
        instance.await_that("it goes on", || numbers(&instance).len() > count);
        counts.push(descriptors(guard));
    }
    assert!(counts[4] <= counts[1] + 1, "nothing is left over: {counts:?}");
    let numbers = numbers(&instance);
    assert!(numbers.iter().copied().eq(1..=numbers.len() as u64), "no line is lost or doubled");
    // It judges as before: who dies is replaced, who hangs too.
    let crashes = instance.program("crashing").restarts;
    instance.await_program("crashing", "it is restarted", |program| program.restarts > crashes + 2);
    for (name, number) in [("steady", libc::SIGKILL), ("template-lamp", libc::SIGSTOP)] {
        let pid = instance.pid(name);
        signal(pid, number);
        instance.await_program(name, "another process", |program| {
            program.state == "running" && program.pid.is_some_and(|now| now != pid)
        });
    }
    // A bundled child that is started now is of the executable that has taken over.
    assert_eq!(image(instance.pid("template-lamp")), image(guard));
    instance.write_config(&CONFIG.replace("on = 1h", "on = 2h"));
    instance.ctl_ok(&["reload"]);
    instance.quit_clean();
}

/// A program that does this.
fn compiled(instance: &Instance, body: &str) -> Vec<u8> {
    let path = instance.dir.join("another");
    let mut compiler = Command::new("gcc");
    compiler.args(["-static", "-x", "c", "-", "-o"]).arg(&path).stdin(Stdio::piped());
    let mut compiler = compiler.spawn().expect("gcc");
    let text = format!("#include <unistd.h>\nint main(void) {{ {body} }}\n");
    compiler.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    assert!(compiler.wait().unwrap().success());
    fs::read(path).unwrap()
}

#[test]
fn what_cannot_take_over_is_refused_and_changes_nothing() {
    let (mut instance, executable) = start("renew-not");
    let original = fs::read(&executable).unwrap();
    let before = (pids(&instance), instance.status().supervisor_pid, image(instance.guard_pid()));
    let count = descriptors(instance.guard_pid());
    // One that is multusd, and knows nothing of what this one has begun; and one that never ends.
    let another = compiled(&instance, "return 0x6e;");
    let hanging = compiled(&instance, "for (;;) pause();");
    for (bytes, words) in [
        (b"no executable\n".to_vec(), "is not multusd, or not for this machine"),
        (b"#!/bin/sh\nexit 109\n".to_vec(), "is not multusd, or not for this machine"),
        (original[..65536].to_vec(), "is not multusd, or not for this machine"),
        (fs::read("/bin/true").unwrap(), "is not multusd, or not for this machine"),
        (hanging, "is not multusd, or not for this machine"),
        (another, "cannot go on with what this one has begun"),
    ] {
        put(&executable, &bytes);
        let output = instance.ctl(&["renew"]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains(words), "{words}: {output:?}");
        assert!(said.contains(executable.to_str().unwrap()), "{said}");
    }
    fs::remove_file(&executable).unwrap();
    let output = instance.ctl(&["renew"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("cannot be read: No such file or directory"), "{said}");
    assert_eq!((pids(&instance), instance.status().supervisor_pid, image(instance.guard_pid())), before);
    assert!(descriptors(instance.guard_pid()) <= count + 1);
    // Asked by hand: of another layout, or with a configuration that is none.
    for words in [["1-2-3", "0"], ["", "none"]] {
        let code = Command::new(harness::binary()).arg("--adopts").args(words).stdin(Stdio::null()).status();
        assert_eq!(code.unwrap().code(), Some(0x6e));
    }
    put(&executable, &original);
    instance.ctl_ok(&["renew"]);
    assert_eq!(pids(&instance), before.0);
    instance.quit_clean();
}

#[test]
fn a_supervisor_killed_while_it_is_renewed_leaves_one_or_the_other_and_every_program() {
    let (mut instance, _) = start("renew-killed");
    let (guard, before) = (instance.guard_pid(), pids(&instance));
    let mut random = Random(5);
    for _ in 0..15 {
        let mut ctl = instance.ctl_spawn(&["renew"]);
        harness::wait(std::time::Duration::from_millis(random.below(120)));
        let supervisor = supervisor_of(guard);
        if supervisor != 0 {
            signal(supervisor, libc::SIGKILL);
        }
        let _ = ctl.wait();
        instance.await_that("a supervisor", || instance.ctl(&["status"]).status.success());
        assert_eq!(pids(&instance), before);
    }
    instance.ctl_ok(&["renew"]);
    assert_eq!((instance.status().guard_pid, pids(&instance)), (guard, before));
    instance.quit_clean();
}
