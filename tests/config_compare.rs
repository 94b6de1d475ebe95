//! What a reload would do: added, removed, restarted, amended; and that the table's "restarts the
//! program" is what the comparison does.

use multusd::child::CHILDREN;
use multusd::config::{Changes, Config, compare, key_help, load_text, sample};

fn config(text: &str) -> Config {
    load_text(text).unwrap_or_else(|errors| panic!("{text}\n{errors}")).config
}

fn names(list: &[&str]) -> Vec<String> {
    list.iter().map(|name| name.to_string()).collect()
}

#[test]
fn nothing_changed() {
    let one = config("[program:a]\ncommand = x\nafter = b\n[program:b]\ncommand = x\n");
    let moved = config("\n\n; moved\n[program:b]\ncommand = x\n[program:a]\ncommand = x\nafter = b\n");
    assert_eq!(compare(&one, &one), Changes::default());
    assert_eq!(compare(&one, &moved), Changes::default());
}

#[test]
fn programs_come_go_and_change() {
    let old = config(
        "[program:a]\ncommand = x\n[program:b]\ncommand = x\n[program:c]\ncommand = x\n[program:d]\ncommand = x\n",
    );
    let new = config(
        "[multusd]\nhostname = h\n[program:d]\ncommand = x\n[program:e]\ncommand = x\n[program:b]\ncommand = y\n\
         [program:c]\ncommand = x\nstopwaitsecs = 1\n",
    );
    let expected = Changes {
        added: names(&["e"]),
        removed: names(&["a"]),
        changed: names(&["b"]),
        amended: names(&["c"]),
        daemon_changed: true,
        board_changed: false,
        log_changed: false,
    };
    assert_eq!(compare(&old, &new), expected);
}

#[test]
fn how_lines_are_kept_is_no_matter_to_a_running_program() {
    let text = |log: &str, keys: &str| config(&format!("[log]\n{log}[program:a]\ncommand = x\n{keys}"));
    let plain = text("", "");
    let changes = compare(&plain, &text("flush = 1min\n", ""));
    assert_eq!(changes, Changes { log_changed: true, ..Changes::default() });
    for keys in
        ["stdout_syslog = yes", "log_stamp = none", "log_sync = yes", "log_rate = 1", "log_kmsg = yes"]
    {
        let changes = compare(&plain, &text("", keys));
        assert_eq!(changes, Changes { amended: names(&["a"]), ..Changes::default() }, "{keys}");
    }
}

#[test]
fn dependencies_are_compared_by_name() {
    let text = |after: &str, more: &str| {
        format!(
            "[program:z]\ncommand = x\nafter = {after}\n{more}[program:b]\ncommand = x\n[program:c]\ncommand = x\n"
        )
    };
    let old = config(&text("b", ""));
    let new = config(&text("b", "[program:a]\ncommand = x\npriority = 1\n"));
    assert_eq!(compare(&old, &new), Changes { added: names(&["a"]), ..Changes::default() });
    let new = config(&text("c", ""));
    assert_eq!(compare(&old, &new), Changes { amended: names(&["z"]), ..Changes::default() });
}

#[test]
fn the_table_says_what_needs_a_restart() {
    let others = "[program:network]\ncommand = x\n[program:database]\ncommand = x\n\
        [input:float-switch]\ngpio = 2\n[output:pump-relay]\ngpio = 3\n[output:lamp]\ngpio = 4\n";
    let before = config(&format!("[program:hello]\ncommand = x\n{others}"));
    let mut count = 0;
    let sample = sample(CHILDREN);
    for line in sample.lines() {
        let Some((key, _)) = line
            .strip_prefix(';')
            .filter(|rest| !rest.starts_with(' '))
            .and_then(|rest| rest.split_once(" ="))
        else {
            continue;
        };
        let help = key_help(Some(key), CHILDREN).unwrap();
        if !help.contains("[program:NAME]")
            || matches!(key, "process_name" | "command" | "numprocs" | "numprocs_start" | "killasgroup")
        {
            continue;
        }
        // The first example that is not the default.
        let examples =
            help.lines().filter_map(|line| line.split_once(&format!(" {key} = ")).map(|(_, value)| value));
        let changes = examples
            .map(|value| {
                let with = |more: &str| config(&format!("[program:hello]\ncommand = x\n{more}{others}"));
                // What does nothing alone, and with what.
                let needs = match key {
                    "heartbeat_kind" => "heartbeat = 1s\n",
                    "heartbeat_file" | "heartbeat_port" => "heartbeat = 1s\n",
                    _ if key.starts_with("check_") => "check = x\n",
                    _ => return compare(&before, &with(&format!("{key} = {value}\n"))),
                };
                compare(&with(needs), &with(&format!("{needs}{key} = {value}\n")))
            })
            .find(|changes| *changes != Changes::default());
        let alone = [
            "reload_timeout",
            "stop_command_timeout",
            "on_start_timeout",
            "on_stop_timeout",
            "on_failure_timeout",
        ];
        let Some(changes) = changes else {
            assert!(alone.contains(&key) || key.starts_with("ready_check_"), "{key} makes no difference");
            continue;
        };
        count += 1;
        let restarts = help.contains("restarts the program");
        let expected = if restarts { (1, 0) } else { (0, 1) };
        assert_eq!((changes.changed.len(), changes.amended.len()), expected, "{key}");
    }
    assert!(count > 50, "{count}");
}
