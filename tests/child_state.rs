//! What a program finds when it starts: a clean slate, as if a shell had started it, but for what
//! is configured. And each configured setting, as the kernel tells it.

mod harness;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use harness::mounts::{in_own_mounts, put_over};
use harness::real::{command_line, need_root, state_of, status_line};
use harness::{Instance, await_condition};

/// A program with these keys in its section: it does nothing, and /proc tells what it was given.
fn section(name: &str, keys: &str) -> String {
    format!("[program:{name}]\ncommand = %(here)s/sleeper 1000\nstartsecs = 0\n{keys}\n")
}

fn instance(test: &str, config: &str) -> Instance {
    Instance::scripted(test, "", &[], config)
}

/// A process that has become its program and sleeps.
struct Found(u32);

impl Found {
    fn program(instance: &Instance, name: &str) -> Found {
        let asleep = |pid: u32| command_line(pid).contains("/sleeper\0") && state_of(pid) == Some('S');
        let what = "its program sleeps";
        Found(instance.await_program(name, what, |a| a.pid.is_some_and(asleep)).pid.unwrap())
    }

    fn read(&self, file: &str) -> String {
        fs::read_to_string(format!("/proc/{}/{file}", self.0)).unwrap().trim_end().to_owned()
    }

    fn status(&self, key: &str) -> String {
        status_line(&self.read("status"), key)
    }

    /// What a tool says of it.
    fn told(&self, tool: &str) -> String {
        let output = Command::new(tool).args(["-p", &self.0.to_string()]).output().expect(tool);
        String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
    }

    /// Soft and hard limit.
    fn limit(&self, name: &str) -> (String, String) {
        let text = self.read("limits");
        let line = text.lines().find_map(|line| line.strip_prefix(name)).expect(name).to_owned();
        let mut words = line.split_whitespace().map(str::to_owned);
        (words.next().unwrap(), words.next().unwrap())
    }

    fn environment(&self) -> BTreeMap<String, String> {
        let text = self.read("environ");
        let entries = text.split('\0').filter_map(|entry| entry.split_once('='));
        entries.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    /// Waits until exactly these descriptors are open (its loader opens some for a moment); what
    /// they are.
    fn descriptors(&self, expected: &[i32]) -> Vec<String> {
        let mut open = BTreeMap::new();
        let target = |entry: fs::DirEntry| {
            let number: i32 = entry.file_name().to_str()?.parse().ok()?;
            Some((number, fs::read_link(entry.path()).ok()?.to_string_lossy().into_owned()))
        };
        let found = await_condition(|| {
            let entries = fs::read_dir(format!("/proc/{}/fd", self.0)).unwrap();
            open = entries.flatten().filter_map(target).collect();
            open.keys().eq(expected)
        });
        assert!(found, "open are {open:?} instead of {expected:?}");
        open.into_values().collect()
    }
}

/// The same program, started by a plain shell.
struct Bare(Child, Found);

impl Bare {
    fn start(instance: &Instance) -> Bare {
        let mut command = Command::new("sh");
        command.args(["-c", "exec \"$0\" 1000"]).arg(instance.dir.join("sleeper"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        // SAFETY: system calls between fork and exec. Whatever the test itself inherited is no shell's: a job
        // in the background of a script ignores two signals, what nohup starts a third.
        unsafe {
            command.pre_exec(|| {
                libc::syscall(libc::SYS_close_range, 3, i32::MAX, 0);
                for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT] {
                    libc::signal(signal, libc::SIG_DFL);
                }
                Ok(())
            });
        }
        let child = command.spawn().unwrap();
        let pid = child.id();
        let asleep = || command_line(pid).contains("sleeper\0") && state_of(pid) == Some('S');
        instance.await_that("the bare one sleeps", || !command_line(pid).starts_with("sh\0") && asleep());
        Bare(child, Found(pid))
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Lines of /proc/PID/status that are about the process and not about what it was given.
const OWN: &[&str] = &[
    "Pid",
    "Tgid",
    "Ngid",
    "PPid",
    "NStgid",
    "NSpid",
    "NSpgid",
    "NSsid",
    "FDSize",
    "SigQ",
    "ShdPnd",
    "SigPnd",
    "voluntary_ctxt_switches",
    "nonvoluntary_ctxt_switches",
    "State",
];

fn compare(instance: &Instance) {
    let shell = Bare::start(instance);
    let (ours, bare) = (Found::program(instance, "a"), &shell.1);
    let given = |dump: &Found| -> BTreeMap<String, String> {
        let text = dump.read("status");
        let pairs = text.lines().filter_map(|line| line.split_once(':'));
        let about = |key: &str| !OWN.contains(&key) && !key.starts_with("Vm") && !key.starts_with("Rss");
        let mut given: BTreeMap<String, String> = pairs
            .filter(|(key, _)| about(key))
            .map(|(key, value)| (key.into(), value.trim().into()))
            .collect();
        // Signals 32 and 33 belong to the C library, which lets nobody change them.
        given.entry("SigIgn".into()).and_modify(|set| {
            let bits = u64::from_str_radix(set, 16).unwrap() & !(0b11 << 31);
            *set = format!("{bits:016x}");
        });
        given
    };
    assert_eq!(given(&ours), given(bare));
    for key in ["SigBlk", "SigIgn", "SigCgt"] {
        assert!(given(bare).contains_key(key), "{key} was compared");
    }
    for file in ["limits", "oom_score_adj", "timerslack_ns", "loginuid"] {
        assert_eq!(ours.read(file), bare.read(file), "{file}");
        assert!(!bare.read(file).is_empty(), "{file} was compared");
    }
    assert_eq!(fs::read_link(format!("/proc/{}/cwd", ours.0)).unwrap(), std::env::current_dir().unwrap());
    assert_eq!(ours.told("ionice"), bare.told("ionice"));
    let scheduling = |dump: &Found| -> Vec<String> {
        let text = dump.read("sched");
        let wanted = |line: &&str| ["policy", "prio", "uclamp"].iter().any(|key| line.starts_with(key));
        text.lines().filter(wanted).map(str::to_owned).collect()
    };
    assert_eq!(scheduling(&ours), scheduling(bare));
    assert!(!scheduling(bare).is_empty());
    let mut environment = ours.environment();
    assert!(environment.remove("MULTUSD_ID").is_some_and(|id| id.ends_with("/a")));
    let mut expected = bare.environment();
    // What the shell in between adds.
    for own in ["_", "PWD", "OLDPWD", "SHLVL"] {
        environment.remove(own);
        expected.remove(own);
    }
    assert_eq!(environment, expected);
    let open = ours.descriptors(&[0, 1, 2]);
    assert_eq!(bare.descriptors(&[0, 1, 2])[0], open[0]);
    assert!(open[1].starts_with("pipe:") && open[2].starts_with("pipe:"), "{open:?}");
}

#[test]
fn a_program_finds_what_a_bare_shell_would_give_it() {
    let mut instance = instance("state-bare", &section("a", ""));
    compare(&instance);
    instance.quit_clean();
}

#[test]
fn a_program_finds_the_same_however_multusd_was_started() {
    let mut instance = Instance::scripted_only("state-noise", "", &[], &section("a", ""));
    instance.launch_as(|command| {
        // SAFETY: system calls only, between fork and exec.
        unsafe {
            command.pre_exec(|| {
                for number in [7, 50, 300] {
                    libc::dup2(1, number);
                }
                let mut set = std::mem::zeroed();
                libc::sigemptyset(&mut set);
                for number in [libc::SIGUSR2, libc::SIGTERM, libc::SIGCHLD, libc::SIGRTMIN() + 3] {
                    libc::sigaddset(&mut set, number);
                }
                libc::sigprocmask(libc::SIG_BLOCK, &set, std::ptr::null_mut());
                let ignored = [
                    libc::SIGPIPE,
                    libc::SIGCHLD,
                    libc::SIGHUP,
                    libc::SIGINT,
                    libc::SIGTERM,
                    libc::SIGRTMAX(),
                ];
                for number in ignored {
                    libc::signal(number, libc::SIG_IGN);
                }
                Ok(())
            });
        }
    });
    compare(&instance);
    // An ignored SIGCHLD would hide every exit from the guard.
    let first = instance.pid("a");
    harness::signal(first, libc::SIGKILL);
    instance.await_program("a", "another process", |a| a.pid.is_some_and(|pid| pid != first));
    harness::signal(instance.guard_pid(), libc::SIGTERM);
    assert_eq!(instance.await_end().code(), Some(0));
}

#[test]
fn umask_directory_environment_and_priorities_take_effect() {
    let files = "environment = B=\"from the section\",C=\"a, b\"\nenvironment_file = %(here)s/env\numask = 027\ndirectory = /usr\nnice = 7\noom_score_adj = 321\n\
                 ioprio = best-effort:6\ncpu_affinity = 0\n";
    let config = section("a", files);
    let mut instance = Instance::scripted_only("state-plain", "", &[], &config);
    fs::write(instance.dir.join("env"), "A=from the file\nB=lost\n").unwrap();
    instance.launch();
    let dump = Found::program(&instance, "a");
    assert_eq!(dump.status("Umask"), "0027");
    assert_eq!(fs::read_link(format!("/proc/{}/cwd", dump.0)).unwrap(), Path::new("/usr"));
    let environment = dump.environment();
    let read = ["A", "B", "C"].map(|name| environment[name].as_str());
    assert_eq!(read, ["from the file", "from the section", "a, b"]);
    assert!(
        dump.read("sched").lines().any(|line| line.starts_with("prio") && line.ends_with("127")),
        "nice 7"
    );
    assert_eq!(dump.read("oom_score_adj"), "321");
    assert_eq!(dump.told("ionice"), "best-effort: prio 6");
    assert!(dump.told("taskset").ends_with("mask: 1"), "{}", dump.told("taskset"));
    instance.quit_clean();
}

#[test]
fn an_optional_environment_file_may_be_missing_and_another_one_may_not() {
    let mut instance = instance("state-envfile", &section("a", "environment_file = -/nowhere/env"));
    Found::program(&instance, "a");
    instance.write_config(&section("a", "environment_file = /nowhere/env"));
    let output = instance.ctl(&["reload"]);
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("/nowhere/env") && text.contains("No such file"), "{text}");
    instance.quit_clean();
}

#[test]
fn every_limit_takes_effect() {
    // What is 0 by default can be raised by CAP_SYS_RESOURCE (number 24) only.
    let own = fs::read_to_string("/proc/self/status").unwrap();
    let may_raise = u64::from_str_radix(&status_line(&own, "CapEff"), 16).unwrap() >> 24 & 1 == 1;
    let (rtprio, nice) = if may_raise { ("10", "20") } else { ("0", "0") };
    let limits = [
        ("nofile", "40:50", "Max open files", "40", "50"),
        ("core", "0", "Max core file size", "0", "0"),
        ("data", "1GB", "Max data size", "1073741824", "1073741824"),
        ("as", "2GB:unlimited", "Max address space", "2147483648", "unlimited"),
        ("fsize", "10MB", "Max file size", "10485760", "10485760"),
        ("stack", "1MB", "Max stack size", "1048576", "1048576"),
        ("nproc", "5000", "Max processes", "5000", "5000"),
        ("memlock", "64KB", "Max locked memory", "65536", "65536"),
        ("cpu", "3600", "Max cpu time", "3600", "3600"),
        ("rtprio", rtprio, "Max realtime priority", rtprio, rtprio),
        ("nice", nice, "Max nice priority", nice, nice),
        ("msgqueue", "100KB", "Max msgqueue size", "102400", "102400"),
        ("sigpending", "100", "Max pending signals", "100", "100"),
        ("rss", "32MB", "Max resident set", "33554432", "33554432"),
        ("locks", "90", "Max file locks", "90", "90"),
        ("rttime", "200000", "Max realtime timeout", "200000", "200000"),
    ];
    let keys: String = limits.iter().map(|(key, value, ..)| format!("limit_{key} = {value}\n")).collect();
    let mut instance = instance("state-limits", &section("a", &keys));
    let dump = Found::program(&instance, "a");
    for (key, _, name, soft, hard) in limits {
        assert_eq!(dump.limit(name), (soft.to_owned(), hard.to_owned()), "limit_{key}");
    }
    instance.quit_clean();
}

fn numbers(text: &str) -> BTreeSet<u32> {
    text.split_whitespace().map(|word| word.parse().unwrap()).collect()
}

fn groups_of(found: &Found) -> BTreeSet<u32> {
    numbers(&found.status("Groups"))
}

fn groups_by_id(account: &str) -> BTreeSet<u32> {
    let output = Command::new("id").args(["-G", account]).output().unwrap();
    numbers(&String::from_utf8(output.stdout).unwrap())
}

#[test]
fn user_and_groups_take_effect() {
    need_root();
    let config = [
        section("named", "user = nobody"),
        section("grouped", "user = nobody\ngroup = daemon"),
        section("grouponly", "group = daemon"),
    ];
    let mut instance = instance("state-user", &config.concat());
    let named = Found::program(&instance, "named");
    // The account's groups, all of them and no others (none of root's).
    assert_eq!(groups_of(&named), groups_by_id("nobody"));
    let nobody = named.status("Uid").split('\t').next().unwrap().to_owned();
    assert_eq!(named.status("Uid"), [nobody.as_str(); 4].join("\t"));
    assert_eq!(named.status("CapEff"), "0000000000000000");
    assert_eq!(named.status("CapPrm"), "0000000000000000");
    let grouped = Found::program(&instance, "grouped");
    assert_eq!(grouped.status("Gid"), "1\t1\t1\t1");
    let only = Found::program(&instance, "grouponly");
    assert_eq!((only.status("Uid"), only.status("Gid")), ("0\t0\t0\t0".into(), "1\t1\t1\t1".into()));
    instance.quit_clean();
}

#[test]
fn supplementary_groups_are_the_account_s() {
    in_own_mounts(|| {
        // A machine on which somebody is a member of a group besides its own.
        let list = std::env::temp_dir().join(format!("multusd-groups-{}", std::process::id()));
        let groups = fs::read_to_string("/etc/group").unwrap();
        fs::write(&list, groups + "multusd-test:x:54321:nobody\n").unwrap();
        put_over(&list, Path::new("/etc/group"));
        fs::remove_file(&list).unwrap();
        let mut instance = instance("state-groups", &section("a", "user = nobody"));
        let found = groups_of(&Found::program(&instance, "a"));
        assert!(found.contains(&54321), "{found:?}");
        assert_eq!(found, groups_by_id("nobody"));
        instance.quit_clean();
    });
}

#[test]
fn scheduling_takes_effect() {
    let mut config = section("batch", "scheduling = batch") + &section("idle", "scheduling = idle");
    need_root();
    config += &section("fifo", "scheduling = fifo:7");
    config += &section("rr", "scheduling = rr:3");
    let mut instance = instance("state-sched", &config);
    assert!(Found::program(&instance, "batch").told("chrt").contains("SCHED_BATCH"));
    assert!(Found::program(&instance, "idle").told("chrt").contains("SCHED_IDLE"));
    let fifo = Found::program(&instance, "fifo").told("chrt");
    assert!(fifo.contains("SCHED_FIFO") && fifo.ends_with("priority: 7"), "{fifo}");
    let rr = Found::program(&instance, "rr").told("chrt");
    assert!(rr.contains("SCHED_RR") && rr.ends_with("priority: 3"), "{rr}");
    instance.quit_clean();
}

#[test]
fn capabilities_are_exactly_the_configured_ones() {
    need_root();
    let config = [
        section("root", "capabilities = net_bind_service,kill"),
        section("user", "capabilities = net_bind_service,kill\nuser = nobody"),
        section("rootnone", "capabilities = none"),
        section("usernone", "capabilities = none\nuser = nobody\nno_new_privs = true"),
    ];
    // As root without powers it can only write where everybody can.
    let mut instance = instance("state-caps", &config.concat());
    let sets = |name: &str| {
        let dump = Found::program(&instance, name);
        ["CapEff", "CapPrm", "CapInh", "CapBnd", "CapAmb"]
            .map(|key| u64::from_str_radix(&dump.status(key), 16).unwrap())
    };
    let both = 1 << 10 | 1 << 5;
    let [effective, permitted, _, bounding, _] = sets("root");
    assert_eq!([effective, permitted, bounding], [both; 3]);
    assert_eq!(sets("user"), [both; 5]);
    assert_eq!(sets("rootnone"), [0; 5]);
    assert_eq!(sets("usernone"), [0; 5]);
    assert_eq!(Found::program(&instance, "usernone").status("NoNewPrivs"), "1");
    assert_eq!(Found::program(&instance, "user").status("NoNewPrivs"), "0");
    instance.quit_clean();
}

#[test]
fn a_readiness_descriptor_has_its_number_and_nothing_else_is_open() {
    let numbers = [3, 9, 256, 258];
    let config: String =
        numbers.map(|number| section(&format!("fd{number}"), &format!("ready = fd:{number}"))).concat();
    let mut instance = instance("state-fd", &config);
    for number in numbers {
        let name = format!("fd{number}");
        let open = Found(instance.await_program(&name, "alive", |a| a.pid.is_some()).pid.unwrap())
            .descriptors(&[0, 1, 2, number]);
        assert!(
            open[0] == "/dev/null" && open[1].starts_with("pipe:") && open[3].starts_with("socket:"),
            "{open:?}"
        );
    }
    instance.quit_clean();
}

#[test]
fn hooks_run_in_the_program_s_surroundings() {
    let keys = "umask = 027\ndirectory = /usr\non_start = %(here)s/hook\nnice = 3";
    let hook = "to=${0%/*}/open\numask > $to/umask\npwd > $to/pwd\nnice > $to/nice";
    let mut instance = Instance::scripted("state-hooks", "", &[("hook", hook)], &section("a", keys));
    Found::program(&instance, "a");
    let found = ["umask", "pwd", "nice"].map(|file| instance.read(&format!("open/{file}")));
    assert_eq!(found, ["0027\n", "/usr\n", "3\n"]);
    instance.quit_clean();
}

#[test]
fn a_setting_that_the_kernel_refuses_is_named() {
    let config = "[program:missing]\ncommand = sleep 1000\ndirectory = /nowhere/at/all\n";
    let mut instance = Instance::start("state-refused", config);
    let program = instance.await_program("missing", "refused", |a| a.failures > 0);
    assert_eq!(program.reason.as_deref(), Some("directory /nowhere/at/all: No such file or directory"));
    assert!(!Path::new("/nowhere").exists());
    assert_eq!(program.pid, None);
    instance.quit_clean();
}

#[test]
fn a_program_with_a_state_directory_has_one_of_its_own_and_keeps_it() {
    use std::os::unix::fs::MetadataExt;
    need_root();
    let keys = "state_directory = true\nuser = nobody\numask = 077\n";
    let instance = instance("state-directory", &section("pump", keys));
    let program = Found::program(&instance, "pump");
    let path = program.environment()["STATE_DIRECTORY"].clone();
    assert_eq!(Path::new(&path), instance.dir.join("state/programs/pump"));
    let nobody: u32 = program.status("Uid").split_whitespace().next().unwrap().parse().unwrap();
    let found = |path: &str| fs::metadata(path).map(|found| (found.uid(), found.mode() & 0o777)).unwrap();
    assert_eq!(found(&path), (nobody, 0o755), "whatever its umask is");
    assert_eq!(fs::metadata(instance.dir.join("state/programs")).unwrap().uid(), 0);
    fs::write(Path::new(&path).join("kept"), "x").unwrap();
    instance.ctl_ok(&["restart", "pump", "--wait"]);
    assert_ne!(Found::program(&instance, "pump").0, program.0);
    assert_eq!(fs::read_to_string(Path::new(&path).join("kept")).unwrap(), "x");
    // A link in its place is not followed.
    instance.ctl_ok(&["stop", "pump", "--wait"]);
    fs::remove_dir_all(&path).unwrap();
    let other = instance.dir.join("other");
    fs::create_dir(&other).unwrap();
    std::os::unix::fs::symlink(&other, &path).unwrap();
    instance.ctl(&["start", "pump"]);
    instance.await_program("pump", "it says why", |pump| {
        pump.reason.as_deref().is_some_and(|reason| reason.contains("state_directory"))
    });
    assert_eq!(fs::metadata(&other).unwrap().uid(), 0);
}
