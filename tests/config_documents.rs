//! The sample file, the reference and the manual page are what the table of keys says.
//! `MULTUSD_BLESS=1 cargo test --test config_documents` writes them anew.

use multusd::config::{load_text, man_page, reference_markdown, sample};

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
    equals("board/multusd.cfg", &sample());
    equals("docs/configuration.md", &reference_markdown());
    equals("man/multusd.cfg.5", &man_page());
}

#[test]
fn the_sample_loads_without_errors_or_warnings() {
    let loaded = load_text(&sample()).unwrap();
    assert_eq!(loaded.warnings, []);
    assert_eq!(loaded.config.programs.len(), 1);
}

/// Whoever removes the semicolon before any key of the sample gets a configuration that works,
/// but for the keys that need another one.
#[test]
fn every_line_of_the_sample_can_be_switched_on() {
    let sample = sample();
    let mut count = 0;
    for (index, line) in sample.lines().enumerate() {
        let Some(key) = line.strip_prefix(';') else { continue };
        if key.is_empty() || key.starts_with([' ', '-']) {
            continue;
        }
        count += 1;
        let text: Vec<&str> =
            sample.lines().enumerate().map(|(at, line)| if at == index { key } else { line }).collect();
        let errors = match load_text(&text.join("\n")) {
            Ok(_) => continue,
            Err(errors) => errors.to_string(),
        };
        let needs_another = ["after =", "requires ="].iter().any(|needy| key.starts_with(needy));
        assert!(needs_another && errors.contains("there is no program"), "{key}: {errors}");
    }
    assert!(count > 70, "{count}");
}
