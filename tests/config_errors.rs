//! Broken files, sections and combinations of keys, each with the exact text that is reported.
//! What single values can have wrong is in `config_key_errors.rs`.

mod config_machine;

use config_machine::Machine;
use multusd::child::CHILDREN;
use multusd::config::load;
use multusd::limits::{CONFIG_BYTES_MAX, INCLUDE_COUNT_MAX, PROGRAM_COUNT_MAX};

/// What there is besides the sections of children.
const SECTIONS: [&str; 9] = [
    "[multusd]",
    "[include]",
    "[program:NAME]",
    "[input:NAME]",
    "[output:NAME]",
    "[watchdog]",
    "[temperature]",
    "[log]",
    "[system]",
];

#[rustfmt::skip]
const CASES: &[(&str, &str, &str)] = &[
    ("an empty file", "", "multusd.cfg: has no section: was it cut off? A machine that supervises nothing is written as [multusd]"),
    ("a file of comments", "\u{feff}; all of it\r\n\r\n# was here\r\n", "multusd.cfg: has no section: was it cut off? A machine that supervises nothing is written as [multusd]"),
    ("a key before the first section", "command = /bin/a\n", "multusd.cfg:1: `command` stands before the first [section]"),
    ("an unclosed section", "[program:a\ncommand = /bin/a\n", "multusd.cfg:1: `[program:a` has no closing ]"),
    ("text after a section", "[program:a] b\n", "multusd.cfg:1: `b` stands after the section's ]"),
    ("an unknown section", "[porgram:a]\ncommand = /bin/a\n", "multusd.cfg:1: unknown section [porgram:a]; did you mean [program:a]?"),
    ("an unknown section without a name", "[programm]\n", "multusd.cfg:1: unknown section [programm]; did you mean [program:NAME]?"),
    ("another unknown section", "[zebra]\n", "multusd.cfg:1: unknown section [zebra]; known are {sections}"),
    ("a section of a later version", "[lan]\ntimeout = 10s\n", "multusd.cfg:1: [lan] is for a later version; this one has {sections}"),
    ("an instance of a later version", "[openvpn:pump]\n", "multusd.cfg:1: [openvpn:pump] is for a later version; this one has {sections}"),
    ("a peer without a key", "[dido:a]\nport = 9190\npeer = 10.0.0.1:9190\nsend = x\n[output:x]\npath = /x\n", "multusd.cfg:3: peer: 10.0.0.1:9190 has no key; write for example 192.168.0.100:9190 hall-2, or key = hall-2"),
    ("a peer by its name", "[dido:a]\nport = 9190\npeer = hall.local:9190 k\nsend = x\n[output:x]\npath = /x\n", "multusd.cfg:3: peer: hall.local:9190 is no address and port; write for example 192.168.0.100:9190 or [fd00::2]:9190 (names are not looked up)"),
    ("a key with a digit too few, which is not said", "[dido:a]\nport = 9190\npeer = 10.0.0.1:9190\nkey = 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcde\nsend = x\n[output:x]\npath = /x\n", "multusd.cfg:4: key is neither a name, nor a path, nor 64 hexadecimal digits"),
    ("a state that is none", "[dido:a]\nport = 9190\npeer = 10.0.0.1:9190 k\nsend = door\n", "multusd.cfg:4: send: door is neither an input nor an output; write for example value:sensors.full where it is a value"),
    ("an output that follows nobody", "[dido:a]\nport = 9190\npeer = 10.0.0.1:9190 k\noutputs = x\nreceive = y from z\n[output:x]\npath = /x\n", "multusd.cfg:5: receive: y from z begins with none of its outputs; write for example valve from float-switch"),
    ("a timeout that one lost packet ends", "[dido:a]\nport = 9190\npeer = 10.0.0.1:9190 k\noutputs = x\nrepeat = 2s\n[output:x]\npath = /x\n", "multusd.cfg:1: timeout is less than twice repeat: every second packet would have to arrive"),
    ("a Modbus server that is none", "[dido:a]\nsource = modbus://plc/1/input/0\noutputs = x\n[output:x]\npath = /x\n", "multusd.cfg:2: source: modbus://plc/1/input/0 is no machine that speaks Modbus; write for example modbus://192.168.0.7:502/1/coil/0: address, unit, coil (or input, of a source) and the first"),
    ("registers that meet", "[modbus]\ninputs = a, b\noutputs = x\noutput_start = 1\n[input:a]\ngpio = 2\n[input:b]\ngpio = 3\n[output:x]\npath = /x\n", "multusd.cfg:4: its registers meet those of input_start"),
    ("registers beyond the last", "[modbus]\nvalues = a\nvalue_start = 65535\n", "multusd.cfg:3: what it begins goes beyond the last address, 65535"),
    ("a server of nothing", "[modbus]\nport = 0\n", "multusd.cfg:2: is neither served by TCP nor on a serial line; write for example port = 502"),
    ("a direction that is no output", "[modbus]\nserial = /dev/ttyS0\nrs485 = tx\n", "multusd.cfg:3: tx is none of its outputs; write it into outputs, too"),
    ("a name that no value may have", "[modbus]\nsetpoints = a/b\n", "multusd.cfg:2: setpoints = \"a/b\" is not a list of names; write for example speed, valve"),
    ("a network that is none", "[modbus]\nallow = 10.0.0.0/33\n", "multusd.cfg:2: allow = \"10.0.0.0/33\" is not a list of addresses and networks such as 192.168.1.0/24; write for example 192.168.1.0/24, fd00::/8"),
    ("a chip that is none", "[io:a]\nchip = lm57\n", "multusd.cfg:2: chip = \"lm57\" is not one of lm75, tmp75, mcp3208, mcp4922, pcf8574, cpu, file, pwm; write for example lm75"),
    ("a section without a chip", "[io:a]\nevery = 1s\n", "multusd.cfg:1: has no chip; write for example chip = lm75"),
    ("a word of a channel that is none", "[io:a]\nchip = mcp3208\nch0 = tank skale=0..1:0..2\n", "multusd.cfg:3: ch0 = \"tank skale=0..1:0..2\" has `skale=0..1:0..2`, which says nothing of a channel; write for example tank scale=0..4095:0..250 unit=l valid=10..4090"),
    ("an output that has nothing safe", "[io:a]\nchip = mcp4922\nch0 = valve from=tank\n", "multusd.cfg:3: ch0 = \"valve from=tank\" is an output without safe=; write for example valve from=control.valve safe=0"),
    ("an output that follows nobody", "[io:a]\nchip = mcp4922\nch0 = valve\n", "multusd.cfg:3: this chip has outputs only: say which value it follows (from=) and what is safe (safe=)"),
    ("a channel too many", "[io:a]\nchip = mcp4922\nch0 = a from=x safe=0\nch2 = b from=x safe=0\n", "multusd.cfg:4: this chip has 2, from ch0 on"),
    ("an address that no chip has", "[io:a]\nchip = lm75\naddress = 0x78\n", "multusd.cfg:3: this chip's is 3 to 119"),
    ("a command in the place of what makes outputs safe", "[io:a]\nchip = lm75\non_failure = /bin/true\n", "multusd.cfg:3: `on_failure` belongs in [program:NAME]"),
    ("a pattern that is none", "[recorder]\nrecord = door, relay:a\n", "multusd.cfg:2: record = \"door, relay:a\" is not names of inputs, outputs and values, such as door, output:pump-*, !sensors.noise; write for example door, output:*, sensors.*, !sensors.noise"),
    ("a record of too small files", "[recorder]\nfiles = 100\nsize = 100KB\n", "multusd.cfg:3: is 1024 bytes for each of 100 files; right are 4096 to 67108864"),
    ("a database without a user, and nobody reads the password", "[recorder]\ndatabase = mysql://admin:secret\n", "multusd.cfg:2: database = \"mysql://…\" is not an address such as mysql://user:password@host:3306/database; write for example mysql://multusd@db.example/plant"),
    ("an address of another kind, and nobody reads the password", "[recorder]\ndatabase = http://a:b@host/x\n", "multusd.cfg:2: database = \"http://…@host/x\" is not an address such as mysql://user:password@host:3306/database; write for example mysql://multusd@db.example/plant"),
    ("two passwords", "[recorder]\ndatabase = mysql://a:b@host/x\npassword_file = /x\n", "multusd.cfg:3: is said, and a password in database, too"),
    ("a password for no database", "[recorder]\npassword_file = /x\n", "multusd.cfg:2: is for a database, and there is none; write database = mysql://…"),
    ("a program that is called as a companion", "[program:recorder-mysql]\ncommand = x\n[recorder]\ndatabase = mysql://a@host/x\n", "multusd.cfg:4: the program name \"recorder-mysql\" is used twice; the first is in line 1"),
    ("a wrong value of a child", "[template:a]\noutputs = x\non = 5\n[output:x]\npath = /x\n", "multusd.cfg:3: on = \"5\" has no unit; write for example 200ms"),
    ("a child without what it needs", "[template:a]\non = 5s\n", "multusd.cfg:1: has no outputs to switch; write for example outputs = lamp"),
    ("an unknown key of a child", "[template:a]\noutputs = x\nofff = 5s\n[output:x]\npath = /x\n", "multusd.cfg:3: unknown key `offf`; did you mean `off`?"),
    ("a key of a program that a child decides", "[template:a]\noutputs = x\ncommand = /bin/sh\n[output:x]\npath = /x\n", "multusd.cfg:3: `command` belongs in [program:NAME]"),
    ("a child without a name", "[template]\n", "multusd.cfg:1: [template] has no name; write for example [template:pump]"),
    ("an output of two children", "[template:a]\noutputs = x\n[template:b]\noutputs = x\n[output:x]\npath = /x\n", "multusd.cfg:4: outputs: x has an owner already, in line 2; an output has one"),
    ("a child and a program of one name", "[program:template-a]\ncommand = x\n[template:a]\noutputs = x\n[output:x]\npath = /x\n", "multusd.cfg:3: the program name \"template-a\" is used twice; the first is in line 1"),
    ("a child that requires nobody", "[template:a]\noutputs = x\nrequires = b\n[output:x]\npath = /x\n", "multusd.cfg:3: requires: there is no program b"),
    ("a section of Supervisor", "[supervisord]\nlogfile = /x\n", "multusd.cfg:1: [supervisord] is Supervisor's and has no counterpart here; remove it"),
    ("a program without a name", "[program:]\ncommand = x\n", "multusd.cfg:1: the program name \"\" is empty"),
    ("a program section without colon", "[program]\ncommand = x\n", "multusd.cfg:1: [program] has no name; write for example [program:pump]"),
    ("a misspelt daemon section", "[multsud]\n", "multusd.cfg:1: unknown section [multsud]; did you mean [multusd]?"),
    ("a name with a space", "[program:a b]\ncommand = x\n", "multusd.cfg:1: the program name \"a b\" holds a space"),
    ("a name with a slash", "[program:a/b]\ncommand = x\n", "multusd.cfg:1: the program name \"a/b\" holds the character /"),
    ("a name with a colon", "[program:a:b]\ncommand = x\n", "multusd.cfg:1: the program name \"a:b\" holds the character :"),
    ("a name that begins with a dot", "[program:.a]\ncommand = x\n", "multusd.cfg:1: the program name \".a\" begins with a dot or a hyphen"),
    ("a name that begins with a hyphen", "[program:-a]\ncommand = x\n", "multusd.cfg:1: the program name \"-a\" begins with a dot or a hyphen"),
    ("a reserved name", "[program:all]\ncommand = x\n", "multusd.cfg:1: the program name \"all\" means all programs"),
    ("a duplicate section", "[program:a]\ncommand = /bin/a\n[program:a]\ncommand = /bin/b\n", "multusd.cfg:3: duplicate section [program:a]; the first is in line 1"),
    ("a duplicate daemon section", "[multusd]\n[multusd]\n", "multusd.cfg:2: duplicate section [multusd]; the first is in line 1"),
    ("an unknown key", "[program:a]\ncomand = /bin/a\ncommand = /bin/a\n", "multusd.cfg:2: unknown key `comand`; did you mean `command`?"),
    ("a key of a program in the daemon", "[multusd]\ncommand = x\n", "multusd.cfg:2: `command` belongs in [program:NAME]"),
    ("an indented section", "[program:a]\ncommand = /bin/a\n  [program:b]\n", "multusd.cfg:3: an indented line continues command; move `[program:b]` to the left"),
    ("an output without a target", "[output:a]\nsafe = low\n", "multusd.cfg:1: the section has none of gpio, path, command; write for example gpio = 17"),
    ("an output with two targets", "[output:a]\ngpio = 17\npath = /x\n", "multusd.cfg:3: an output has one of gpio, path, command; gpio is in line 2"),
    ("a text for a path that does not fit", "[output:a]\npath = /x\nwrite_high = a2345678901234567890123456789012\n", "multusd.cfg:3: write_high is longer than 31 bytes"),
    ("an output with two owners", "[output:a]\ngpio = 17\n[program:p]\ncommand = x\noutputs = a\n[program:q]\ncommand = x\noutputs = a\n", "multusd.cfg:8: outputs: a has an owner already, in line 5; an output has one"),
    ("an unknown output", "[output:lamp]\ngpio = 17\n[program:p]\ncommand = x\noutputs = lmap\n", "multusd.cfg:5: there is no output lmap; did you mean lamp?"),
    ("an input nobody described", "[program:p]\ncommand = x\ninputs = door\n", "multusd.cfg:3: there is no input door; add a section [input:door]"),
    ("an input without a line", "[input:a]\n", "multusd.cfg:1: the section has no gpio; write for example gpio = 17"),
    ("a line used twice", "[input:a]\ngpio = 17\n[output:b]\ngpio = 17\n", "multusd.cfg:4: gpio: this line is used in line 2 already"),
    ("a line that is not on the header", "[input:a]\ngpio = 99\n", "multusd.cfg:2: gpio = \"99\" is out of range (0 to 57 on the header); write for example 17 or pinctrl-bcm2835:17"),
    ("an output's name that cannot travel", "[output:a=b]\ngpio = 17\n", "multusd.cfg:1: the output name \"a=b\" holds the character ="),
    ("an output's name that is too long", "[output:a2345678901234567890123456789012]\ngpio = 17\n", "multusd.cfg:1: the output name \"a2345678901234567890123456789012\" is longer than 31 bytes"),
    ("a heartbeat without a unit", "[program:p]\ncommand = x\nheartbeat = 500\n", "multusd.cfg:3: heartbeat = \"500\" has no unit; write for example 500ms"),
    ("a heartbeat too short to judge", "[program:p]\ncommand = x\nheartbeat = 5ms\n", "multusd.cfg:3: heartbeat = \"5ms\" is out of range (10ms to 3650d); write for example 500ms"),
    ("a kind of heartbeat without its file", "[program:p]\ncommand = x\nheartbeat = 1s\nheartbeat_kind = file\n", "multusd.cfg:4: heartbeat_kind = file needs heartbeat_file, and no heartbeat_port"),
    ("a heartbeat's port used twice", "[program:p]\ncommand = x\nheartbeat = 1s\nheartbeat_port = 9\n[program:q]\ncommand = x\nheartbeat = 1s\nheartbeat_port = 9\n", "multusd.cfg:5: heartbeat_port = 9 is used in line 1 already"),
    ("a check's interval without a check", "[program:p]\ncommand = x\ncheck_interval = 1s\n", "multusd.cfg:3: needs check; write for example check = tcp:127.0.0.1:80"),
    ("more failures than checks", "[program:p]\ncommand = x\ncheck = x\ncheck_failures = 5 of 3\n", "multusd.cfg:4: check_failures = \"5 of 3\" is out of range (1 to 32); write for example 3 or 3 of 5"),
    ("a watchdog of both kinds", "[watchdog]\ndevice = /dev/watchdog1\ngpio = 12\n", "multusd.cfg:3: a watchdog has a device or a gpio, not both"),
    ("a device's watchdog of less than a second", "[watchdog]\ntimeout = 500ms\n", "multusd.cfg:2: timeout is shorter than 1s, which no device can do"),
    ("a ring too large", "[log]\nring = 17MB\n", "multusd.cfg:2: ring = \"17MB\" is out of range (64KB to 16MB); write for example 1MB"),
    ("a syslog server by name", "[log]\nsyslog = udp:example.org\n", "multusd.cfg:2: syslog = \"udp:example.org\" is not no, local or udp:ADDRESS:PORT (names are not looked up); write for example udp:192.168.1.2:514"),
    ("a compressor without its path", "[log]\ncompress = gzip\n", "multusd.cfg:2: compress = \"gzip\" is not a command with an absolute path; write for example /bin/gzip"),
    ("a program called as the log", "[program:log]\ncommand = x\n", "multusd.cfg:1: the program name \"log\" means multusd's own log"),
    ("temperatures that never meet", "[temperature]\nmin = 76\nmax = 80\n", "multusd.cfg:2: min must be below max by more than hysteresis: nothing would ever start again"),
    ("a temperature with a unit", "[temperature]\nmax = 80C\n", "multusd.cfg:2: max = \"80C\" is not a temperature in degrees Celsius; write for example 75.5"),
    ("an input without a name", "[input]\ngpio = 3\n", "multusd.cfg:1: [input] has no name; write for example [input:pump]"),
    ("several errors at once", "[multusd]\nhostnam = x\n[program:a]\nstartsecs = abc\nnice = 99\n[zebra]\n", "multusd.cfg:2: unknown key `hostnam`; did you mean `hostname`?\nmultusd.cfg:3: the section has no command; write for example command = /usr/bin/pump --port 3\nmultusd.cfg:4: startsecs = \"abc\" is not a number of seconds; write for example 1 or 2.5s\nmultusd.cfg:5: nice = \"99\" is out of range (-20 to 19); write for example 5\nmultusd.cfg:6: unknown section [zebra]; known are {sections}"),
    ("no command", "[program:a]\nuser = b\n", "multusd.cfg:1: the section has no command; write for example command = /usr/bin/pump --port 3"),
    ("an empty command", "[program:a]\ncommand =\n", "multusd.cfg:2: command has no value; write for example /usr/bin/pump --port 3"),
    ("a commented-out command", "[program:a]\ncommand = ; /bin/a\n", "multusd.cfg:2: command has no value; write for example /usr/bin/pump --port 3"),
    ("an open double quote", "[program:a]\ncommand = /bin/a \"b\n", "multusd.cfg:2: command = \"/bin/a \"b\" has a \" that is not closed"),
    ("an open single quote", "[program:a]\ncommand = echo it's\n", "multusd.cfg:2: command = \"echo it's\" has a ' that is not closed"),
    ("a last backslash", "[program:a]\ncommand = /bin/a \\\n", "multusd.cfg:2: command = \"/bin/a \\\" ends with a backslash that escapes nothing"),
    ("an empty program", "[program:a]\ncommand = \"\" b\n", "multusd.cfg:2: command = \"\"\" b\" has no program to run"),
    ("a single percent sign", "[program:a]\ncommand = date +%s\n", "multusd.cfg:2: command = \"date +%s\" holds a single %; write %% for a percent sign"),
    ("an unknown expansion", "[program:a]\ncommand = /bin/a %(nme)s\n", "multusd.cfg:2: command = \"/bin/a %(nme)s\" holds the unknown name %(nme); known are program_name, process_num, numprocs, group_name, here, host_node_name and ENV_NAME"),
    ("an open expansion", "[program:a]\ncommand = /bin/a %(program_name\n", "multusd.cfg:2: command = \"/bin/a %(program_name\" holds a %( that is not complete; write for example %(program_name)s, or %% for a percent sign"),
    ("a text as a number", "[program:a]\ncommand = /bin/a %(program_name)d\n", "multusd.cfg:2: command = \"/bin/a %(program_name)d\" holds %(program_name)d, which is not a number; write %(program_name)s"),
    ("a variable that is not there", "[program:a]\ncommand = /bin/a %(ENV_NOPE)s\n", "multusd.cfg:2: command = \"/bin/a %(ENV_NOPE)s\" needs NOPE, which is not in multusd's environment"),
    ("a process number in the daemon", "[multusd]\nstate_dir = /x/%(process_num)d\n", "multusd.cfg:2: state_dir = \"/x/%(process_num)d\" holds the unknown name %(process_num); known are here, host_node_name and ENV_NAME"),
    ("a daemon's time without a unit", "[multusd]\nreload_watch = 30\n", "multusd.cfg:2: reload_watch = \"30\" has no unit; write for example 30s"),
    ("a relative state directory", "[multusd]\nstate_dir = state\n", "multusd.cfg:2: state_dir = \"state\" is not an absolute path; write for example /data/multusd"),
    ("a bad cgroup", "[multusd]\ncgroup = on\n", "multusd.cfg:2: cgroup = \"on\" is not auto, off or an absolute path; write for example off or /sys/fs/cgroup/multusd"),
    ("a bad host name", "[multusd]\nhostname = pump 7\n", "multusd.cfg:2: hostname = \"pump 7\" is not a host name; write for example pump-7"),
    ("a label of a host name that ends", "[multusd]\nhostname = pump-.hall\n", "multusd.cfg:2: hostname = \"pump-.hall\" is not a host name; write for example pump-7"),
    ("a server of the time that is none", "[system]\nntp = pool.ntp.org, a;b\n", "multusd.cfg:2: ntp = \"pool.ntp.org, a;b\" is not a list of servers; write for example pool.ntp.org or 192.168.1.1, ntp.example.com"),
    ("a name used twice", "[program:a]\ncommand = /bin/a\n[program:b]\nprocess_name = a\ncommand = /bin/b\n", "multusd.cfg:4: the program name \"a\" is used twice; the first is in line 1"),
    ("a misspelt dependency", "[program:a]\ncommand = /bin/a\nrequires = netwrok\n[program:network]\ncommand = x\n", "multusd.cfg:3: requires: there is no program netwrok; did you mean network?"),
    ("a cycle of two", "[program:a]\ncommand = x\nafter = b\n[program:b]\ncommand = x\nrequires = a\n", "multusd.cfg:3: these programs wait for each other: a -> b -> a (line 3, line 6)"),
    ("a cycle of three", "[program:a]\ncommand = x\nafter = b\n[program:b]\ncommand = x\nafter = c, d\n[program:c]\ncommand = x\nrequires = a\n[program:d]\ncommand = x\n", "multusd.cfg:3: these programs wait for each other: a -> b -> c -> a (line 3, line 6, line 9)"),
    ("include without files", "[include]\nfiles = %(nope)s\n", "multusd.cfg:2: files = \"%(nope)s\" holds the unknown name %(nope); known are here, host_node_name and ENV_NAME"),
];

#[test]
fn every_broken_file_is_explained() {
    let children = CHILDREN.iter().map(|child| child.header);
    let sections: Vec<&str> = SECTIONS.into_iter().chain(children).collect();
    for (name, text, expected) in CASES {
        let expected = expected.replace("{sections}", &sections.join(", "));
        assert_eq!(errors(&mut Machine::with(text.as_bytes())), expected, "{name}");
    }
}

fn errors(machine: &mut Machine) -> String {
    match load(machine, "multusd.cfg") {
        Ok(_) => panic!("accepted"),
        Err(errors) => errors.to_string(),
    }
}

fn error_of(bytes: &[u8]) -> String {
    errors(&mut Machine::with(bytes))
}

#[test]
fn files_that_are_no_text() {
    assert_eq!(
        error_of(b"[program:a]\r\ncommand = /bin/a\r\n\0\0\0"),
        "multusd.cfg:3: the file is damaged: it holds a NUL byte; copy it here again"
    );
    assert_eq!(
        error_of(b"[program:a]\ncommand = /bin/\x01a"),
        "multusd.cfg:2: holds the control character 0x01; is this a text file?"
    );
    assert_eq!(
        error_of(b"[program:a]\ncommand = gr\xfc\xdfe"),
        "multusd.cfg:2: holds the byte 0xfc, which is not UTF-8; save the file as UTF-8"
    );
    assert_eq!(error_of(b"\xff\xfe[\0m\0"), "multusd.cfg: is UTF-16; save it as UTF-8");
    assert_eq!(
        error_of(&vec![b'\n'; CONFIG_BYTES_MAX + 1]),
        "multusd.cfg: is too large; all files together may have 1048576 bytes"
    );
}

#[test]
fn files_that_cannot_be_read() {
    let mut machine = Machine::default();
    assert_eq!(errors(&mut machine), "multusd.cfg: cannot be read: No such file or directory");
    machine.directory("multusd.cfg");
    assert_eq!(errors(&mut machine), "multusd.cfg: cannot be read: Is a directory");
}

#[test]
fn a_megabyte_of_noise_is_a_bounded_list_of_errors() {
    let mut seed = 7u64;
    let mut noise: Vec<u8> = Vec::new();
    while noise.len() < CONFIG_BYTES_MAX {
        seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        noise.push((seed >> 56) as u8);
    }
    assert_eq!(errors(&mut Machine::with(&noise)).lines().count(), 1);
    let letters: Vec<u8> =
        noise.iter().map(|byte| b"[]=:;# \n\nabcdeilmnoprstux"[usize::from(byte % 25)]).collect();
    let text = error_of(&letters);
    assert_eq!(text.lines().count(), 101);
    assert!(text.lines().last().unwrap().starts_with("multusd.cfg: and "), "{text}");
    let keys: String = (0..100_000).map(|index| format!("comand{index}=\n")).collect();
    let text = error_of(format!("[program:a]\n{}", &keys[..CONFIG_BYTES_MAX - 20]).as_bytes());
    assert_eq!(text.lines().count(), 101);
}

#[test]
fn names_and_values_that_are_too_long() {
    let long = "x".repeat(64);
    let shown = "x".repeat(60);
    assert_eq!(
        error_of(format!("[program:{long}]\ncommand = x").as_bytes()),
        format!("multusd.cfg:1: the program name \"{shown}…\" is longer than 63 bytes")
    );
    let long = "x".repeat(61);
    assert_eq!(
        error_of(format!("[program:{long}]\ncommand = x\nnumprocs = 2").as_bytes()),
        format!("multusd.cfg:1: the program name \"{long}_00\" is longer than 63 bytes")
    );
    assert_eq!(
        error_of(format!("[program:a]\ncommand = {}", "x".repeat(33_000)).as_bytes()),
        format!("multusd.cfg:2: command = \"{shown}…\" is longer than 32768 bytes")
    );
    let lines = "  xxxxxxxxxxxxxxx\n".repeat(2049);
    let text = error_of(format!("[program:a]\ncommand =\n{lines}").as_bytes());
    assert!(text.ends_with("is longer than 32768 bytes"), "{text}");
}

#[test]
fn one_program_more_than_fits_is_an_error_with_its_line() {
    let programs = |count: usize| -> String {
        (0..count).map(|index| format!("[program:p{index}]\ncommand = x\n")).collect()
    };
    assert!(load(&mut Machine::with(programs(PROGRAM_COUNT_MAX).as_bytes()), "multusd.cfg").is_ok());
    assert_eq!(
        error_of(programs(PROGRAM_COUNT_MAX + 5).as_bytes()),
        "multusd.cfg:257: more than 128 programs; this is the first too many"
    );
    let text = "[program:p]\ncommand = x\nnumprocs = 128\n[program:q]\ncommand = x\n[program:r]\ncommand = x\nnice = 99";
    assert_eq!(
        error_of(text.as_bytes()),
        "multusd.cfg:4: more than 128 programs; this section has the first too many\n\
         multusd.cfg:8: nice = \"99\" is out of range (-20 to 19); write for example 5"
    );
}

#[test]
fn errors_in_included_files_have_their_names_and_lines() {
    let mut machine = Machine::default();
    machine.file("multusd.cfg", "[include]\nfiles = d/*.cfg e.cfg\n[program:a]\ncommand = x\nafter = b\n");
    machine.file("./d/b.cfg", "[program:b]\ncommand = x\nrequires = c\n");
    machine.file("./d/c.cfg", "[program:c]\ncommand = x\nrequires = a\n[program:a]\n");
    machine.file("./d/d.cfg", "[include]\nfiles = x\nfiles = y");
    machine.file("./e.cfg", "oops");
    assert_eq!(
        errors(&mut machine),
        "multusd.cfg:5: these programs wait for each other: a -> b -> c -> a (line 5, ./d/b.cfg:3, ./d/c.cfg:3)\n\
         ./d/c.cfg:4: duplicate section [program:a]; the first is in multusd.cfg:3\n\
         ./d/d.cfg:1: [include] works in the main file only\n\
         ./e.cfg:1: `oops` is neither a [section] nor a key = value"
    );
}

#[test]
fn a_missing_part_makes_no_second_error() {
    let mut machine = Machine::default();
    machine.file("multusd.cfg", "[include]\nfiles = *.cfg\n[program:a]\ncommand = x\nafter = b\n");
    machine.directory("./b.cfg");
    assert_eq!(errors(&mut machine), "./b.cfg: cannot be read: Is a directory");
}

#[test]
fn too_many_files_are_an_error() {
    let mut machine = Machine::default();
    machine.file("multusd.cfg", "[include]\nfiles = *.inc\n");
    for index in 0..=INCLUDE_COUNT_MAX {
        machine.file(&format!("./{index}.inc"), "");
    }
    assert_eq!(errors(&mut machine), "multusd.cfg:2: files: more than 256 files match");
}

#[test]
fn the_environment_cannot_bring_lines_in() {
    let mut machine = Machine::with(b"[program:a]\ncommand = x %(ENV_EVIL)s");
    machine.env.push(("EVIL", "1\nuser = root"));
    assert_eq!(
        errors(&mut machine),
        "multusd.cfg:2: command = \"x %(ENV_EVIL)s\" needs %(ENV_EVIL)s, which holds a control character"
    );
}
