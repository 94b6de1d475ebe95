//! `[io:NAME]` as real processes. What is measured stands in files here, as it does in sysfs; chips behind I2C: `tests/qemu`, those
//! behind SPI are simulated beside the code.

mod harness;

use std::fs;
use std::path::Path;

use harness::real::{need_root, status_line};
use harness::{Instance, signal};

const CPU: &str =
    "[io:cpu]\nchip = cpu\npath = %(here)s/temp\nflags = %(here)s/flags\nevery = 100ms\nheartbeat = 500ms\n";
const PROBE: &str = "[io:probe]\nchip = file\npath = %(here)s/w1/28-*/temperature\nch0 = outside scale=0..1000:0..1 unit=C valid=-55000..125000\n\
     every = 100ms\n";

fn put(instance: &Instance, name: &str, text: &str) {
    let path = instance.dir.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    // A file is written as sysfs is read: all at once.
    fs::write(path.with_extension("new"), text).unwrap();
    fs::rename(path.with_extension("new"), path).unwrap();
}

fn start(test: &str, config: &str) -> Instance {
    let mut instance = Instance::prepare(test, "", config);
    put(&instance, "temp", "48312\n");
    put(&instance, "flags", "0\n");
    put(&instance, "w1/28-0316a4f7/temperature", "-23437\n");
    instance.launch();
    instance
}

/// A row of `multusctl values`: the value with its unit, and raw.
fn value(instance: &Instance, name: &str) -> Option<(String, String)> {
    let text = instance.ctl_ok(&["values"]);
    let row = text.lines().find(|line| line.split_whitespace().next() == Some(name))?;
    let words: Vec<&str> = row.split_whitespace().collect();
    let unit = if words.len() > 4 { format!("{} {}", words[1], words[2]) } else { words[1].to_owned() };
    Some((unit, words[words.len() - 2].to_owned()))
}

fn await_value(instance: &Instance, name: &str, wanted: &str, raw: &str) {
    let wanted = Some((wanted.to_owned(), raw.to_owned()));
    instance.await_that(&format!("{name} is {wanted:?}"), || value(instance, name) == wanted);
}

#[test]
fn temperatures_and_flags_are_values_and_not_known_while_they_cannot_be_read() {
    let instance = start("io-values", &format!("{CPU}{PROBE}"));
    await_value(&instance, "io-cpu.temperature", "48.312 C", "48312");
    await_value(&instance, "io-probe.outside", "-23.437 C", "-23437");
    await_value(&instance, "io-cpu.undervoltage", "0", "0");
    // Under-voltage now, and throttled some time ago.
    put(&instance, "flags", "40001\n");
    await_value(&instance, "io-cpu.undervoltage", "1", "1");
    await_value(&instance, "io-cpu.throttled", "0", "2");
    await_value(&instance, "io-cpu.capped", "0", "0");
    // A board without such a firmware.
    fs::remove_file(instance.dir.join("flags")).unwrap();
    await_value(&instance, "io-cpu.hot", "unknown", "0");
    await_value(&instance, "io-cpu.temperature", "48.312 C", "48312");
    assert!(!instance.log().contains("io-cpu: "), "which is no failure");
    // What a DS18B20 says before it has measured, and what cannot be.
    put(&instance, "w1/28-0316a4f7/temperature", "127937\n");
    await_value(&instance, "io-probe.outside", "unknown C", "127937");

    // It is pulled out, for a while: said once, its process stays.
    let pid = instance.pid("io-probe");
    fs::remove_dir_all(instance.dir.join("w1")).unwrap();
    await_value(&instance, "io-probe.outside", "unknown C", "0");
    instance.await_program("io-probe", "why", |probe| {
        probe.status_text.as_deref() == Some("open: No such file or directory")
    });
    put(&instance, "w1/28-aa/temperature", "20062\n");
    await_value(&instance, "io-probe.outside", "20.062 C", "20062");
    instance
        .await_program("io-probe", "well again", |probe| probe.status_text.as_deref() == Some("it answers"));
    assert_eq!(instance.pid("io-probe"), pid);
    assert_eq!(instance.log().matches("io-probe: open: No such file or directory").count(), 1);
    assert_eq!(instance.log().matches("io-probe: it answers").count(), 1);
}

#[test]
fn one_that_is_killed_or_stands_still_is_back_and_its_values_meanwhile_not_believed() {
    let instance = start("io-killed", CPU);
    for number in [libc::SIGKILL, libc::SIGSTOP] {
        await_value(&instance, "io-cpu.temperature", "48.312 C", "48312");
        let before = instance.program("io-cpu");
        signal(before.pid.unwrap(), number);
        let after = instance.await_program("io-cpu", "another process", |cpu| {
            cpu.state == "running" && cpu.pid.is_some() && cpu.pid != before.pid
        });
        assert_eq!(after.restarts, before.restarts + 1);
    }
    await_value(&instance, "io-cpu.temperature", "48.312 C", "48312");
    instance.ctl_ok(&["stop", "io-cpu", "--wait"]);
    // Nobody measures it.
    await_value(&instance, "io-cpu.temperature", "unknown C", "0");
}

#[test]
fn it_has_a_user_of_its_own_the_group_it_is_given_and_nothing_that_root_has() {
    need_root();
    let instance = start("io-rights", &format!("{CPU}group = dialout\n"));
    let pid = instance.await_state("io-cpu", "running").pid.unwrap();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = |key: &str| status_line(&status, key);
    let user = line("Uid").split_whitespace().next().unwrap().parse::<u32>().unwrap();
    assert!((61184..65520).contains(&user), "{user}");
    let group = number_of_group("dialout");
    assert!(line("Gid").split_whitespace().all(|number| number == group), "{}", line("Gid"));
    for key in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(line(key), "0000000000000000", "{key}");
    }
    assert_eq!(line("NoNewPrivs"), "1");
}

fn number_of_group(name: &str) -> String {
    let text = fs::read_to_string("/etc/group").unwrap();
    let row = text.lines().find_map(|line| line.strip_prefix(&format!("{name}:x:"))).expect("Debian's group");
    row.split(':').next().unwrap().to_owned()
}

/// A chip that is not there: the bus is none of this machine's.
const DAC: &str =
    "[io:dac]\nchip = mcp4922\nbus = 6\naddress = 2\nch0 = valve from=tank safe=0\nevery = 100ms\n";

#[test]
fn a_chip_that_is_not_there_ends_nobody_and_its_outputs_are_tried_to_be_made_safe_by_another_when_it_is_over()
{
    assert!(!Path::new("/dev/spidev6.2").exists());
    let instance = start("io-nothing", DAC);
    instance.await_state("io-dac", "running");
    instance.await_program("io-dac", "why", |dac| {
        dac.status_text.as_deref() == Some("open SPI: No such file or directory")
    });
    let pid = instance.pid("io-dac");
    await_value(&instance, "io-dac.valve", "unknown V", "0");
    instance.ctl_ok(&["publish", "tank=5"]);
    await_value(&instance, "io-dac.valve", "unknown V", "0");
    assert_eq!(instance.pid("io-dac"), pid);
    signal(pid, libc::SIGKILL);
    instance.await_that("a word of who comes after it", || {
        said(&instance).contains("outputs are not made safe: open SPI: No such file or directory")
    });
    instance.await_program("io-dac", "another process", |dac| {
        dac.state == "running" && dac.pid.is_some_and(|now| now != pid)
    });
    let count = said(&instance).matches("outputs are not made safe").count();
    instance.ctl_ok(&["stop", "io-dac", "--wait"]);
    instance.await_that("the same after a stop", || {
        said(&instance).matches("outputs are not made safe").count() > count
    });
}

/// What the processes of io-dac have written.
fn said(instance: &Instance) -> String {
    instance.ctl_ok(&["log", "io-dac"])
}
