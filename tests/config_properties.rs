//! Properties of the configuration reader: no input makes it panic or report without bound, and the
//! canonical text always means the same as the text it was made from.
//!
//! A property holds trivially where nothing is ever accepted, so the generated configurations
//! count how many were.

mod config_machine;

use std::sync::atomic::{AtomicUsize, Ordering};

use config_machine::Machine;
use multusd::child::CHILDREN;
use multusd::config::*;
use proptest::prelude::*;
use proptest::sample::select;

/// Reads; whatever comes out must keep the promises.
fn read(bytes: &[u8]) -> Option<Loaded> {
    let mut machine = Machine::with(bytes);
    machine.env =
        vec![("X", "a b"), ("EMPTY", ""), ("SIGNS", "; # %"), ("QUOTE", "it's \""), ("KEY", "user = x")];
    machine.file("./more.cfg", "[program:more]\ncommand = m\n");
    match load(&mut machine, "multusd.cfg") {
        Ok(loaded) => {
            stands_for_itself(&loaded);
            Some(loaded)
        }
        Err(errors) => {
            assert!(!errors.0.is_empty() && errors.0.len() <= 101);
            assert!(errors.0.iter().take(100).is_sorted_by_key(|error| (error.place.file, error.place.line)));
            assert!(errors.0.iter().all(|error| error.message.chars().count() <= 501), "{errors}");
            assert!(errors.to_string().lines().count() == errors.0.len(), "{errors}");
            None
        }
    }
}

/// The canonical text makes an equal configuration, but for places, and is its own canonical text.
fn stands_for_itself(loaded: &Loaded) {
    let again =
        load_text(&loaded.canonical).unwrap_or_else(|errors| panic!("{}\n{errors}", loaded.canonical));
    assert_eq!(again.canonical, loaded.canonical);
    assert_eq!(placeless(&again.config), placeless(&loaded.config));
    assert_eq!(compare(&loaded.config, &again.config), Changes::default());
}

fn placeless(config: &Config) -> Config {
    let mut config = config.clone();
    for program in &mut config.programs {
        std::rc::Rc::make_mut(program).place = Place::default();
    }
    config
}

/// Keys with texts that are right for them, from their own help.
fn keys_and_examples() -> Vec<(String, String)> {
    let list = key_help(None, CHILDREN).unwrap();
    let names = list.lines().filter_map(|line| line.strip_prefix("  ")?.split(' ').next());
    let mut pairs = Vec::new();
    for name in names {
        let help = key_help(Some(name), CHILDREN).unwrap();
        let sign = format!(" {name} = ");
        pairs.extend(
            help.lines().filter_map(|line| Some((name.to_string(), line.split_once(&sign)?.1.to_string()))),
        );
    }
    assert!(pairs.len() > 80);
    pairs
}

/// Pieces of which almost right files are made.
fn piece() -> impl Strategy<Value = String> {
    let pair = || select(keys_and_examples());
    let odd = select(vec![
        "[program:",
        "a",
        "b",
        "]",
        "[multusd]",
        "[include]\nfiles = *.cfg\n",
        "\n",
        "\r\n",
        " ",
        "\t",
        "=",
        ":",
        ";",
        "#",
        "\"",
        "'",
        "\\",
        "%",
        "%%",
        "%;",
        "%#",
        "%(",
        "%(program_name)s",
        "%(process_num)02d",
        "%(ENV_X)s",
        "%(ENV_EMPTY)s",
        "%(ENV_SIGNS)s",
        "%(ENV_QUOTE)s",
        "%(ENV_KEY)s",
        "%(here)s",
        "\u{feff}",
        "ü",
        "\u{2028}",
        "command = ",
        "\n  ",
        ",",
        "1",
        "99999999999999999999",
        "-",
        "numprocs = 2\n",
        "environment = ",
        "after = a\n",
        "requires = b\n",
    ]);
    prop_oneof![
        3 => odd.prop_map(String::from),
        2 => pair().prop_map(|(key, value)| format!("{key} = {value}\n")),
        2 => (pair(), pair()).prop_map(|((key, _), (_, value))| format!("{key} = {value}\n")),
        1 => select(vec!["a", "b", "c", "w"]).prop_map(|name| format!("[program:{name}]\ncommand = x\n")),
    ]
}

/// Values of a command: pieces that survive the split, in all their spellings.
fn argument() -> impl Strategy<Value = String> {
    select(vec![
        "x",
        "'a ; b'",
        "\"c # d\"",
        "%;",
        "%%",
        "%(ENV_X)s",
        "%(ENV_SIGNS)s",
        "%(ENV_EMPTY)s",
        "%(program_name)s",
        "\\ ",
        "\n  y",
        "ü;",
        "=",
        "%(process_num)02d",
        "\"%(ENV_EMPTY)s\n z\"",
        "%(here)s",
        "\n ; comment\n w",
        "[x]",
        "''",
        "a;b",
        "\\;",
        "\n  %(ENV_EMPTY)s",
    ])
    .prop_map(String::from)
}

static ACCEPTED: AtomicUsize = AtomicUsize::new(0);

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        read(&bytes);
    }

    #[test]
    fn text_never_panics(text in "(?s).{0,300}") {
        read(text.as_bytes());
    }

    #[test]
    fn almost_right_files_never_panic(pieces in prop::collection::vec(piece(), 0..60)) {
        read(pieces.concat().as_bytes());
    }
}

/// One program: a command, distinct keys with examples, dependencies on earlier programs.
fn section(index: usize, arguments: &[String], pairs: &[(String, String)]) -> String {
    let mut text = format!("[program:p{index}]\ncommand = run {}\n", arguments.join(" "));
    let mut seen: Vec<&str> = vec![
        "command",
        "hostname",
        "state_dir",
        "run_dir",
        "log_dir",
        "control_group",
        "cgroup",
        "reload_watch",
        "save_counts",
        "reboot_command",
        "poweroff_command",
        "files",
    ];
    let clashes =
        ["process_name", "ready", "type", "pidfile", "killasgroup", "restart_delay", "restart_delay_max"];
    for (key, value) in pairs {
        let needy = ["heartbeat_", "check_"].iter().any(|start| key.starts_with(start));
        let of_program = key_help(Some(key), CHILDREN).unwrap().contains("in [program:NAME]");
        if seen.contains(&key.as_str()) || clashes.contains(&key.as_str()) || needy || !of_program {
            continue;
        }
        seen.push(key);
        match (key.as_str(), index) {
            ("after" | "requires", 0) => {}
            ("after" | "requires", _) => text.push_str(&format!("{key} = p{} ; earlier\n", index - 1)),
            // Each has its own: an output has one owner.
            ("outputs" | "inputs", _) => text.push_str(&format!("{key} = line{index}\n")),
            _ => text.push_str(&format!("{}\t:  {value}  # {key}\n", key.to_uppercase())),
        }
    }
    text
}

#[test]
fn generated_configurations_survive_their_canonical_text() {
    let pairs = prop::collection::vec(select(keys_and_examples()), 0..20);
    let program = (prop::collection::vec(argument(), 0..6), pairs);
    let strategy = prop::collection::vec(program, 0..6);
    let config = ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() };
    let result = proptest::test_runner::TestRunner::new(config).run(&strategy, |programs| {
        let mut text = String::from("[include]\nfiles = *.cfg\n[multusd]\nhostname = %(host_node_name)s\n");
        text.push_str("[watchdog]\n[watchdog:out]\ngpio = a line\n[temperature]\nmax = 70.5\n");
        for (index, (arguments, pairs)) in programs.iter().enumerate() {
            text.push_str(&section(index, arguments, pairs));
            text.push_str(&format!("[output:line{index}]\ngpio = {index} # one\nSAFE: on\n"));
            text.push_str(&format!("[input:line{index}]\ngpio = chip;x:{index}\n"));
        }
        if let Some(loaded) = read(text.as_bytes()) {
            ACCEPTED.fetch_add(1, Ordering::Relaxed);
            prop_assert!(loaded.config.programs.len() > programs.len());
        }
        Ok(())
    });
    result.unwrap();
    let accepted = ACCEPTED.load(Ordering::Relaxed);
    assert!(accepted > 350, "only {accepted} of 512 were accepted: the property is empty");
}
