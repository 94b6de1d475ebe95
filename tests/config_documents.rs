//! The sample file, the reference and the manual page are what the table of keys says.
//! `MULTUSD_BLESS=1 cargo test --test config_documents` writes them anew.

use multusd::child::CHILDREN;
use multusd::config::{load_kept, man_page, reference_markdown, sample};

fn equals(path: &str, text: &str) {
    let path = format!("{}/{path}", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("MULTUSD_BLESS").is_some() {
        std::fs::create_dir_all(std::path::Path::new(&path).parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(found == text, "{path} is out of date; run this test with MULTUSD_BLESS=1");
}

#[test]
fn documents_are_what_the_table_says() {
    equals("board/multusd.cfg", &sample(CHILDREN));
    equals("docs/configuration.md", &reference_markdown(CHILDREN));
    equals("man/multusd.cfg.5", &man_page(CHILDREN));
}

#[test]
fn the_sample_loads_without_errors_or_warnings() {
    let loaded = load_kept(&sample(CHILDREN), CHILDREN).unwrap();
    assert_eq!(loaded.warnings, []);
    assert_eq!(loaded.config.programs.len(), 1);
}

/// Whoever removes the semicolon before any key of the sample gets a configuration that works,
/// but for the keys that need another one.
#[test]
fn every_line_of_the_sample_can_be_switched_on() {
    let sample = sample(CHILDREN);
    let mut count = 0;
    // A section that is commented out: its header, and what it cannot do without.
    let mut section = None;
    for (index, line) in sample.lines().enumerate() {
        let Some(key) = line.strip_prefix(';') else { continue };
        if key.is_empty() || key.starts_with([' ', '-']) {
            continue;
        }
        count += 1;
        if key.starts_with('[') {
            section = Some(key);
            continue;
        }
        let text = match section {
            None => {
                let lines = sample.lines().enumerate();
                lines.map(|(at, line)| if at == index { key } else { line }).collect::<Vec<_>>().join("\n")
            }
            Some(header) => {
                let target = ["gpio =", "path =", "command ="].iter().any(|word| key.starts_with(word));
                let of_path = key.starts_with("write_");
                let needed = match header {
                    "[input:NAME]" | "[output:NAME]" if !target && !of_path => "gpio = 2\n",
                    "[output:NAME]" if of_path => "path = /x\n",
                    // Children that have something to drive.
                    header if header.starts_with("[template") => "outputs = x\n",
                    header if header.starts_with("[io") => match key {
                        key if key.starts_with("chip") => "",
                        key if key.starts_with("ch") => "chip = pcf8574\n",
                        _ => "chip = lm75\n",
                    },
                    "[dido:NAME]" if key.starts_with("peer") => "port = 9190\nsend = value:x\n",
                    "[dido:NAME]" if key.starts_with("port") => "peer = 10.0.0.1:9190 k\nsend = value:x\n",
                    "[dido:NAME]" if key.starts_with("send") => "port = 9190\npeer = 10.0.0.1:9190 k\n",
                    "[dido:NAME]" => "port = 9190\npeer = 10.0.0.1:9190 k\nsend = value:x\n",
                    "[status-led]" => "gpio = 21\n",
                    "[watchdog]" if key.starts_with("enable") || key.starts_with("pulse") => "gpio = 2\n",
                    _ => "",
                };
                let output = if needed.starts_with("outputs") { "[output:x]\npath = /x\n" } else { "" };
                format!("{output}{header}\n{needed}{key}\n")
            }
        };
        let errors = match load_kept(&text, CHILDREN) {
            Ok(_) => continue,
            Err(errors) => errors.to_string(),
        };
        let needy = [
            ("after =", "there is no program"),
            ("requires =", "there is no program"),
            ("outputs =", "there is no output"),
            ("inputs =", "there is no input"),
            ("send =", "is neither an input nor an output"),
            ("receive =", "begins with none of its outputs"),
            ("heartbeat_", "needs heartbeat"),
            ("check_", "needs check"),
            ("password_file", "is for a database"),
        ];
        let says = needy.iter().find(|(start, _)| key.starts_with(start)).map(|(_, says)| says);
        assert!(says.is_some_and(|says| errors.contains(says)), "{key}: {errors}");
    }
    assert!(count > 70, "{count}");
}
