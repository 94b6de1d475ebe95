//! Clients of sd_notify that others wrote, unchanged: systemd-notify, and one each from PyPI and npm. The latter
//! two are fetched, pinned, into the build folder: `make test-clients`.

mod harness;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use harness::real::both_ways;
use harness::{Instance, await_condition, is_alive, wait};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// Every message of the protocol that a program needs, as `tests/clients` and the shell's below send them: READY
/// and STATUS, then WATCHDOG again and again; MAINPID when there is a file `main`, EXTEND_TIMEOUT_USEC and
/// silence while there is one `quiet`, STOPPING when there is one `stop`.
fn plays_the_scene(test: &str, keys: &str, command: &str, environment: &str) {
    let mut instance = Instance::prepare(test, keys, "");
    let dir = instance.dir.clone();
    instance.write_config_with(
        keys,
        &format!(
            "[program:played]\ncommand = {command} {}\ntype = notify\nheartbeat = 3s\nstopwaitsecs = 5s\n\
             environment = {environment}\n",
            dir.display()
        ),
    );
    instance.launch();
    instance.await_program("played", "runs and says so", |program| {
        program.state == "running" && program.status_text.as_deref() == Some("at work")
    });
    let pid = instance.pid("played");
    let is_unharmed = |pid: u32| {
        let program = instance.program("played");
        assert_eq!((program.pid, program.failures), (Some(pid), 0), "{program:?}\n{}", instance.log());
    };
    wait(Duration::from_secs(5));
    is_unharmed(pid);
    fs::write(dir.join("main"), "").unwrap();
    instance.await_program("played", "has another main process", |program| program.pid != Some(pid));
    let child: u32 = fs::read_to_string(dir.join("child")).unwrap().trim().parse().unwrap();
    is_unharmed(child);
    fs::write(dir.join("quiet"), "").unwrap();
    wait(Duration::from_secs(6));
    is_unharmed(child);
    fs::remove_file(dir.join("quiet")).unwrap();
    wait(Duration::from_secs(4));
    is_unharmed(child);
    fs::write(dir.join("stop"), "").unwrap();
    wait(Duration::from_secs(4));
    is_unharmed(child);
    for one in [pid, child] {
        assert!(await_condition(|| !is_alive(one)), "{}", instance.log());
    }
}

#[test]
fn systemd_notify_of_debian_is_understood() {
    let found = Command::new("systemd-notify").arg("--version").output();
    assert!(found.is_ok(), "systemd-notify is needed: apt-get install systemd");
    let script = "here=$1\n\
        say() { systemd-notify \"$@\" || exit 9; }\n\
        say --ready --status='at work'\n\
        while [ ! -e $here/stop ]; do\n\
            if [ -e $here/main ] && [ ! -e $here/child ]; then\n\
                sleep 1000 & echo $! >$here/child; say MAINPID=$!\n\
            fi\n\
            if [ -e $here/quiet ]; then\n\
                say EXTEND_TIMEOUT_USEC=8000000; while [ -e $here/quiet ]; do sleep 0.1; done\n\
            fi\n\
            say WATCHDOG=1; sleep 0.1\n\
        done\n\
        say STOPPING=1\n\
        sleep 1000";
    for (way, keys) in both_ways() {
        let scripts =
            std::env::temp_dir().join(format!("multusd-systemd-notify-{way}-{}", std::process::id()));
        fs::create_dir_all(&scripts).unwrap();
        let command = harness::script(&scripts, "play", script);
        plays_the_scene(&format!("debian-{way}"), keys, &command, "A=b");
        fs::remove_dir_all(scripts).unwrap();
    }
}

/// A folder for what is fetched.
fn fetched(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("clients").join(name);
    fs::create_dir_all(&folder).unwrap();
    folder
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{command:?}: {text}\n{}", String::from_utf8_lossy(&output.stderr));
    text
}

#[test]
#[ignore = "fetches from PyPI: make test-clients"]
fn sdnotify_of_pypi_is_understood() {
    let venv = fetched("python");
    run(Command::new("python3").args(["-m", "venv"]).arg(&venv));
    run(Command::new(venv.join("bin/pip")).args(["install", "--quiet", "sdnotify==0.3.2"]));
    let command = format!("{}/bin/python {ROOT}/tests/clients/pypi.py", venv.display());
    plays_the_scene("pypi", "", &command, "A=b");
}

#[test]
#[ignore = "fetches from npm, and compiles it against libsystemd: make test-clients"]
fn sd_notify_of_npm_is_understood() {
    let folder = fetched("node");
    let install = ["install", "--silent", "--ignore-scripts", "--no-audit", "sd-notify@2.8.0", "--prefix"];
    run(Command::new("npm").args(install).arg(&folder));
    // Its own install script, by the node-gyp that comes with npm.
    let global = run(Command::new("npm").args(["root", "-g"]));
    let gyp = format!("{}/npm/node_modules/node-gyp/bin/node-gyp.js", global.trim());
    let package = folder.join("node_modules/sd-notify");
    run(Command::new("node").arg(gyp).args(["rebuild", "--nodedir=/usr"]).current_dir(package));
    let command = format!("node {ROOT}/tests/clients/npm.js");
    plays_the_scene("npm", "", &command, &format!("NODE_PATH={}/node_modules", folder.display()));
}
