//! What is accepted, and what it means: known answers for every key and every trick of the syntax.

mod config_machine;

use config_machine::Machine;
use multusd::child::CHILDREN;
use multusd::config::*;
use multusd::time::Millis;

fn loaded(text: &str) -> Loaded {
    load(&mut Machine::with(text.as_bytes()), "multusd.cfg")
        .unwrap_or_else(|errors| panic!("{text}\n{errors}"))
}

fn program(lines: &str) -> Program {
    loaded(&format!("[program:a]\ncommand = /bin/a\n{lines}\n")).config.programs[0].as_ref().clone()
}

fn hook(words: &[&str], seconds: u64) -> HookCommand {
    HookCommand {
        command: words.iter().map(|word| word.to_string()).collect(),
        timeout: Millis::from_secs(seconds),
    }
}

#[test]
fn defaults_are_the_documented_ones() {
    let log = Log { file: LogFile::Auto, maxbytes: 1 << 20, backups: 1, syslog: false };
    let expected = Program {
        name: "a".into(),
        section: "a".into(),
        place: Place { file: 0, line: 1 },
        command: vec!["/bin/a".into()],
        priority: 999,
        autostart: true,
        autorestart: AutoRestart::Always,
        exitcodes: vec![0],
        startsecs: Millis(1000),
        startretries: None,
        stopsignal: 15,
        stopwaitsecs: Millis(10_000),
        stdout: log.clone(),
        stderr: log,
        restart_delay: Millis(100),
        restart_delay_max: Millis(60_000),
        restart_reset: Millis(10_000),
        ..Program::default()
    };
    assert_eq!(program(""), expected);
    let expected = Daemon {
        state_dir: "/var/lib/multusd".into(),
        run_dir: "/run/multusd".into(),
        log_dir: "/var/log/multusd".into(),
        reload_watch: Millis(30_000),
        save_counts: Millis(300_000),
        reboot_command: vec!["/sbin/reboot".into()],
        poweroff_command: vec!["/sbin/poweroff".into()],
        lock_memory: false,
        realtime_priority: 0,
        ..Daemon::default()
    };
    assert_eq!(loaded("[multusd]\n").config.daemon, expected);
    let expected = LogConfig {
        ring: 256 << 10,
        flush: Millis(10_000),
        total_maxbytes: 64 << 20,
        syslog: Syslog::Local,
        kmsg: true,
        daily_alarm: 50 << 20,
        ..LogConfig::default()
    };
    assert_eq!(loaded("[multusd]\n").config.log, expected);
}

#[test]
fn the_daemon_is_configured() {
    let text = "[multusd]\nhostname = pump-7.local\nstate_dir = /data/%(host_node_name)s\nrun_dir=/r\nlog_dir : /l\n\
                control_group = operators\ncgroup = /sys/fs/cgroup/m\nreload_watch = 5min\nsave_counts = 1h\n\
                reboot_command = /sbin/reboot -f\npoweroff_command = /off\nlock_memory = yes\nrealtime_priority = 98";
    let expected = Daemon {
        hostname: Some("pump-7.local".into()),
        state_dir: "/data/pump-7".into(),
        run_dir: "/r".into(),
        log_dir: "/l".into(),
        control_group: Some("operators".into()),
        cgroup: Cgroup::Path("/sys/fs/cgroup/m".into()),
        reload_watch: Millis(300_000),
        save_counts: Millis(3_600_000),
        reboot_command: vec!["/sbin/reboot".into(), "-f".into()],
        poweroff_command: vec!["/off".into()],
        lock_memory: true,
        realtime_priority: 98,
    };
    assert_eq!(loaded(text).config.daemon, expected);
}

#[test]
fn editors_leave_their_marks_and_nobody_notices() {
    let plain = loaded("[program:a]\ncommand = /bin/a\nuser = pump\n").config;
    for text in [
        "\u{feff}[program:a]\ncommand = /bin/a\nuser = pump\n",
        "[program:a]\r\ncommand = /bin/a\r\nuser = pump\r\n",
        "[program:a]\rcommand = /bin/a\ruser = pump",
        "[ program:a ]  ; the pump\n\tcommand=/bin/a# no, a comment needs a space",
        "[program:a]\ncommand:/bin/a\n; user = root\n\n#user = root\nUser\t=\tpump ; not root",
        "[program: a]\n  COMMAND =\n\n    ; the program\n    /bin/a\n  user = pump",
    ] {
        if text.contains("no, a comment") {
            let words = &loaded(text).config.programs[0].command;
            assert_eq!(words.join(" "), "/bin/a# no, a comment needs a space");
            continue;
        }
        assert_eq!(loaded(text).config, plain, "{text}");
    }
}

#[test]
fn values_go_on_in_indented_lines() {
    let text = "[program:a]\ncommand = /bin/sh -c ; the shell\n   'echo 1 ; echo 2' # two\n\n   # nothing\n   three\n\
                environment = A=\"1\",\n  USER=\"b ; c\"\nautostart = no";
    let program = loaded(text).config.programs.remove(0);
    assert_eq!(program.command, ["/bin/sh", "-c", "echo 1 ; echo 2", "three"]);
    assert_eq!(program.environment, [("A".into(), "1".into()), ("USER".into(), "b ; c".into())]);
    assert!(!program.autostart);
}

#[test]
fn names_are_replaced_by_what_they_stand_for() {
    let text = "[program:w]\nnumprocs = 2\nnumprocs_start = 9\n\
                command = w %(program_name)s %(group_name)s %(process_num)d %(process_num)03d %(numprocs)s %(ENV_PORT)s 5%% %;x\n\
                directory = %(here)s/w\nstdout_logfile = /log/%(host_node_name)s/%(process_num)s\n\
                environment = P=\"%(ENV_PERCENT)s\"\n";
    let mut machine = Machine::default();
    machine.file("/boot/multusd.cfg", text);
    machine.env = vec![("PORT", "80"), ("PERCENT", "50%")];
    let programs = load(&mut machine, "/boot/multusd.cfg").unwrap().config.programs;
    let names: Vec<&str> = programs.iter().map(|program| program.name.as_str()).collect();
    assert_eq!(names, ["w_09", "w_10"]);
    assert_eq!(programs[1].command.join(" "), "w w w 10 010 2 80 5% ;x");
    assert_eq!(programs[1].directory.as_deref(), Some("/boot/w"));
    assert_eq!(programs[1].stdout.file, LogFile::Path("/log/pump-7/10".into()));
    assert_eq!(programs[1].environment, [("P".into(), "50%".into())]);
    assert!(programs.iter().all(|program| program.section == "w"));
}

#[test]
fn what_a_process_is_given() {
    let lines = "directory = /data\nuser = pump\ngroup = 20\numask = 027\nenvironment_file = -/boot/a.env\n\
        redirect_stderr = on\nstdout_logfile = none\nstdout_logfile_maxbytes = 64KB\nstdout_logfile_backups = 4\n\
        stderr_logfile = /log/a b\nmemory_max = 64MB\npids_max = 50\nnice = -5\nscheduling = fifo:10\ncpu_affinity = 0,2-3\n\
        ioprio = best-effort:7\noom_score_adj = -1000\ncapabilities = CAP_NET_BIND_SERVICE net_raw\nno_new_privs = 1\nstate_directory = yes\n\
        limit_nofile = 10:20\nlimit_as = 1MB:unlimited\nlimit_core = 0";
    let expected = Program {
        directory: Some("/data".into()),
        user: Some("pump".into()),
        group: Some("20".into()),
        umask: Some(0o27),
        environment_file: Some(OptionalFile { path: "/boot/a.env".into(), optional: true }),
        redirect_stderr: true,
        stdout: Log { file: LogFile::None, maxbytes: 65536, backups: 4, syslog: false },
        stderr: Log { file: LogFile::Path("/log/a b".into()), maxbytes: 1 << 20, backups: 1, syslog: false },
        memory_max: Some(64 << 20),
        pids_max: Some(50),
        nice: Some(-5),
        scheduling: Some((1, 10)),
        cpu_affinity: Some(0b1101),
        ioprio: Some((2, 7)),
        oom_score_adj: Some(-1000),
        capabilities: Some(1 << 10 | 1 << 13),
        no_new_privs: true,
        state_directory: true,
        rlimits: vec![(7, 10, 20), (9, 1 << 20, u64::MAX), (4, 0, 0)],
        ..program("")
    };
    assert_eq!(program(lines), expected);
}

#[test]
fn how_lines_are_kept() {
    let expected = Program {
        log: ProgramLog { stamp: LogStamp::Monotonic, sync: true, rate: 100, fold: true, kmsg: true },
        stdout: Log { syslog: true, ..program("").stdout },
        ..program("")
    };
    let lines = "log_stamp = monotonic\nlog_sync = yes\nlog_rate = 100\nlog_fold = yes\nlog_kmsg = yes\n\
        stdout_syslog = yes\nstderr_syslog = no";
    assert_eq!(program(lines), expected);
    let text = "[log]\nring = 1MB\nflush = 1min\ntotal_maxbytes = 16MB\nram_only = yes\ncompress = /bin/gzip -9\n\
        syslog = udp:[::1]:5514\nkmsg = no\ndaily_alarm = 0\nuser = logger\n";
    let expected = LogConfig {
        ring: 1 << 20,
        flush: Millis(60_000),
        total_maxbytes: 16 << 20,
        ram_only: true,
        compress: vec!["/bin/gzip".into(), "-9".into()],
        syslog: Syslog::Udp { host: "::1".into(), is_six: true, port: 5514 },
        kmsg: false,
        daily_alarm: 0,
        user: Some("logger".into()),
    };
    assert_eq!(loaded(text).config.log, expected);
}

#[test]
fn how_a_program_starts_and_stops() {
    let lines = "priority = -1\nautostart = false\nautorestart = unexpected\nexitcodes = 0, 2\nstartsecs = 2.5\nstartretries = 3\n\
        stopsignal = SIGINT\nstopwaitsecs = 500ms\nstopasgroup = yes\nstop_command = a stop\nreload = hup\nrestart_delay = 1s\n\
        restart_delay_max = 1h\nrestart_reset = 5min\non_start = b c\non_start_timeout = 1s\non_stop = d\non_failure = e";
    let expected = Program {
        priority: -1,
        autostart: false,
        autorestart: AutoRestart::Unexpected,
        exitcodes: vec![0, 2],
        startsecs: Millis(2500),
        startretries: Some(3),
        stopsignal: 2,
        stopwaitsecs: Millis(500),
        stopasgroup: true,
        killasgroup: true,
        stop_command: Some(hook(&["a", "stop"], 10)),
        reload: Some(Reload::Signal(1)),
        restart_delay: Millis(1000),
        restart_delay_max: Millis(3_600_000),
        restart_reset: Millis(300_000),
        on_start: Some(hook(&["b", "c"], 1)),
        on_stop: Some(hook(&["d"], 10)),
        on_failure: Some(hook(&["e"], 10)),
        ..program("")
    };
    assert_eq!(program(lines), expected);
    let command = Reload::Command(hook(&["/bin/a", "--reload"], 3));
    assert_eq!(program("reload = /bin/a --reload\nreload_timeout = 3s").reload, Some(command));
    assert_eq!(program("autorestart = no").autorestart, AutoRestart::Never);
    assert_eq!(program("autorestart = yes").autorestart, AutoRestart::Always);
}

#[test]
fn readiness_follows_the_type() {
    let minute = Some(Millis(60_000));
    let check =
        |seconds, ms| ProgramReady::Check { check: hook(&["/bin/c", "-x"], seconds), interval: Millis(ms) };
    for (lines, ready, timeout) in [
        ("", ProgramReady::Uptime, None),
        ("type = notify", ProgramReady::Notify, minute),
        ("type = notify\nready = notify", ProgramReady::Notify, minute),
        ("type = forking", ProgramReady::Uptime, minute),
        ("type = forking\npidfile = /run/a", ProgramReady::Uptime, minute),
        ("type = forking\npidfile = /run/a\nready = pidfile", ProgramReady::PidFile, minute),
        ("type = oneshot", ProgramReady::Uptime, None),
        ("ready = fd", ProgramReady::Descriptor(3), minute),
        ("ready = fd:7\nstart_timeout = never", ProgramReady::Descriptor(7), None),
        ("ready = notify", ProgramReady::Notify, minute),
        ("ready = uptime\nstart_timeout = 5s", ProgramReady::Uptime, Some(Millis(5000))),
        ("ready_check = /bin/c -x", check(10, 1000), minute),
        (
            "ready = check\nready_check = /bin/c -x\nready_check_interval = 200ms\nready_check_timeout = 2s",
            check(2, 200),
            minute,
        ),
    ] {
        let program = program(lines);
        assert_eq!((program.ready, program.start_timeout), (ready, timeout), "{lines}");
    }
}

#[test]
fn dependencies_are_indexes_into_the_sorted_list() {
    let text = "[program:app]\ncommand = x\nafter = net, w w_01\nrequires = db\n\
                [program:w]\ncommand = x\nnumprocs = 2\n\
                [program:db]\ncommand = x\npriority = 1000\n\
                [program:net]\ncommand = x\npriority = 1\n";
    let programs = loaded(text).config.programs;
    let names: Vec<&str> = programs.iter().map(|program| program.name.as_str()).collect();
    assert_eq!(names, ["net", "app", "w_00", "w_01", "db"]);
    assert_eq!(programs[1].after, [0, 2, 3]);
    assert_eq!(programs[1].requires, [4]);
}

#[test]
fn files_are_included_in_order_and_can_be_switched_off() {
    let mut machine = Machine::default();
    machine.file(
        "/boot/multusd.cfg",
        "[program:main]\ncommand = x\n[include]\nfiles = d/* /etc/e.cfg gone.cfg d/b.cfg\n",
    );
    machine.file("/boot/d/b.cfg", "[program:b]\ncommand = %(here)s/b\n");
    machine.file("/boot/d/a.cfg", "[multusd]\nhostname = h\n[program:a]\ncommand = x\n");
    machine.file("/boot/d/c.cfg.disabled", "this is broken");
    machine.file("/etc/e.cfg", "");
    let loaded = load(&mut machine, "/boot/multusd.cfg").unwrap();
    assert_eq!(loaded.sources.names, ["/boot/multusd.cfg", "/boot/d/a.cfg", "/boot/d/b.cfg", "/etc/e.cfg"]);
    assert_eq!(loaded.config.programs[2].command, ["/boot/d/b"]);
    assert_eq!(loaded.config.programs[2].place, Place { file: 2, line: 1 });
    let warnings: Vec<String> = loaded.warnings.iter().map(Error::to_string).collect();
    assert_eq!(warnings, ["/boot/multusd.cfg:4: files: there is no /boot/gone.cfg"]);
}

#[test]
fn a_pattern_that_matches_the_main_file_does_not_include_it_again() {
    for path in ["multusd.cfg", "./multusd.cfg", "/boot/multusd.cfg"] {
        let mut machine = Machine::default();
        machine.file(path, "[include]\nfiles = *.cfg\n[program:a]\ncommand = x\n");
        machine.file("./multusd.cfg", "[include]\nfiles = *.cfg\n[program:a]\ncommand = x\n");
        assert_eq!(load(&mut machine, path).unwrap().sources.names, [path]);
    }
}

#[test]
fn keys_without_effect_and_a_file_without_programs_are_warned_of() {
    let text = "[program:a]\ncommand = x\nstdout_events_enabled = true\nserverurl = AUTO\nnumprocs = 2\n";
    let warnings: Vec<String> = loaded(text).warnings.iter().map(Error::to_string).collect();
    assert_eq!(
        warnings,
        [
            "multusd.cfg:3: stdout_events_enabled has no effect here",
            "multusd.cfg:4: serverurl has no effect here"
        ]
    );
    let warnings: Vec<String> = loaded("[multusd]\n").warnings.iter().map(Error::to_string).collect();
    assert_eq!(warnings, ["multusd.cfg: has no [program:NAME] section: nothing will run"]);
}

/// Warnings of a configuration with an output and its program, with a line number less than the file's name.
fn warnings_of(output: &str, program: &str, rest: &str) -> Vec<String> {
    let text = format!(
        "[output:relay]\ngpio = 17\n{output}[program:pump]\ncommand = x\noutputs = relay\n{program}{rest}"
    );
    loaded(&text).warnings.iter().map(Error::to_string).collect()
}

#[test]
fn an_output_that_can_stay_live_beyond_its_limit_is_warned_of_with_what_would_be_right() {
    let hangs = |output: &str, program: &str| warnings_of(output, program, "");
    // Nobody wrote a limit: the default one is for its program's failures.
    assert_eq!(hangs("", "heartbeat = 990ms\n"), [""; 0]);
    assert_eq!(
        hangs("", "heartbeat = 991ms\n"),
        [
            "multusd.cfg:1: limit = 1s, but relay can stay live for 1001ms when pump (line 3) hangs; heartbeat = 990ms there, or limit = 1001ms here, would be right"
        ]
    );
    assert_eq!(
        hangs("", ""),
        [
            "multusd.cfg:1: limit = 1s, but relay can stay live for ever when pump (line 3) hangs; heartbeat = 990ms there would be right"
        ]
    );
    assert_eq!(
        hangs("", "check = x\ncheck_interval = 1s\ncheck_timeout = 500ms\ncheck_failures = 2\n"),
        [
            "multusd.cfg:1: limit = 1s, but relay can stay live for 3010ms when pump (line 3) hangs; heartbeat = 990ms there, or limit = 3010ms here, would be right"
        ]
    );
    // Somebody wrote one, in line 3: it is for whatever fails.
    let machine = |limit: &str, watchdog: &str| {
        warnings_of(&format!("limit = {limit}\n"), "heartbeat = 500ms\n", watchdog)
    };
    assert_eq!(
        machine("10510ms", ""),
        [
            "multusd.cfg:3: limit = 10510ms, but relay can stay live for 10010ms when multusd fails, and for ever when the kernel does; a section [watchdog] would be right"
        ]
    );
    let watchdog = "[watchdog]\ntimeout = 9500ms\n[watchdog:outside]\ngpio = 12\ntimeout = 20s\n";
    assert_eq!(machine("13s", watchdog), [""; 0]);
    assert_eq!(
        machine("12999ms", watchdog),
        [
            "multusd.cfg:3: limit = 12999ms, but relay can stay live for 13s when multusd fails, and for 10s when the kernel does; limit = 13s here, or a shorter timeout of the watchdog, would be right"
        ]
    );
    let both = machine("200ms", "[watchdog]\ntimeout = 2s\n");
    assert_eq!(
        both,
        [
            "multusd.cfg:3: limit = 200ms, but relay can stay live for 510ms when pump (line 4) hangs; heartbeat = 190ms there, or limit = 510ms here, would be right",
            "multusd.cfg:3: limit = 200ms, but relay can stay live for 3510ms when multusd fails, and for 2s when the kernel does; limit = 3510ms here, or a shorter timeout of the watchdog, would be right"
        ]
    );
    // No watchdog shortens what the supervisor takes.
    assert!(
        machine("3509ms", "[watchdog]\ntimeout = 2s\n")[0].ends_with("limit = 3510ms here would be right")
    );
    // What nobody drives stays as it is.
    let alone = loaded("[output:relay]\ngpio = 17\nlimit = 10ms\n[program:a]\ncommand = x\n").warnings;
    assert_eq!(alone, []);
}

#[test]
fn the_canonical_text_stands_for_itself() {
    let mut machine = Machine::default();
    machine.file(
        "/boot/multusd.cfg",
        "[include]\nfiles = *.inc\n[multusd]\nrun_dir = /run/multusd ; the default\nhostname = %(host_node_name)s\n",
    );
    machine.file(
        "/boot/a.inc",
        "[program:a] ; a\nUSER = pump\nstartsecs=1\ncommand = %(here)s/a %(ENV_X)s 'a ; b'\n   %(program_name)s\nstdout_events_enabled = 1",
    );
    machine.env = vec![("X", " # 5% ; ")];
    let loaded = load(&mut machine, "/boot/multusd.cfg").unwrap();
    assert_eq!(
        loaded.canonical,
        "; Written by multusd: its configuration with everything included and expanded.\n\n\
         [multusd]\nhostname = pump-7\n\n\
         [program:a]\nuser = pump\ncommand = /boot/a %# 5%% %; 'a %; b'\n    %(program_name)s\n"
    );
    assert_eq!(loaded.config.programs[0].command, ["/boot/a", "#", "5%", ";", "a ; b", "a"]);
    let again = load_text(&loaded.canonical).unwrap();
    assert_eq!(again.canonical, loaded.canonical);
    assert_eq!(again.config.programs[0].command, loaded.config.programs[0].command);
}

#[test]
fn help_for_keys() {
    let list = key_help(None, CHILDREN).unwrap();
    assert!(
        list.lines()
            .any(|line| line == "  user                    User, by name or number, with all its groups"),
        "{list}"
    );
    let one = key_help(Some("StartSecs"), CHILDREN).unwrap();
    assert_eq!(
        one,
        "startsecs in [program:NAME]\n\n\
         It must run this long before its start counts as successful; with 0 it counts at once.\n\n  \
         Value:    a number of seconds\n  Range:    0 to 3650d\n  Default:  1\n  Example:  startsecs = 1\n  \
         or:       startsecs = 2.5s\n"
    );
    assert_eq!(key_help(Some("comand"), CHILDREN), None);
    assert_eq!(nearest_key("comand", CHILDREN), Some("command"));
    assert_eq!(nearest_key("zebra", CHILDREN), None);
    assert_eq!(
        (web_editable("startsecs", CHILDREN), web_editable("command", CHILDREN), web_editable("x", CHILDREN)),
        (Some(true), Some(false), None)
    );
}
