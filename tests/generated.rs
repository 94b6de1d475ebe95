//! Manual pages and completions are derived from the table of commands, and checked in so that a
//! package needs nothing but a copy. `MULTUSD_BLESS=1 cargo test` writes them anew.

use std::path::Path;
use std::process::Command;

use multusd::applets;
use multusd::ctl::{complete, man};

fn same(path: &str, text: &str) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    if std::env::var_os("MULTUSD_BLESS").is_some() {
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(&file, text).unwrap();
    }
    let there = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(there == text, "{path} is older than the table it is made from; MULTUSD_BLESS=1 writes it anew");
}

#[test]
fn manual_pages() {
    same("man/multusctl.1", &man::multusctl());
    same("man/multusd.8", &man::multusd(&applets::described()));
}

#[test]
fn completions() {
    for (shell, path) in [
        ("bash", "completions/multusctl.bash"),
        ("zsh", "completions/_multusctl"),
        ("fish", "completions/multusctl.fish"),
    ] {
        let text = complete::script(shell).unwrap();
        same(path, &text);
        let printed = Command::new(env!("CARGO_BIN_EXE_multusd"))
            .args(["multusctl", "completion", shell])
            .output()
            .unwrap();
        assert_eq!(String::from_utf8(printed.stdout).unwrap(), text);
    }
    assert_eq!(complete::script("csh"), None);
}

/// Whether the shell is here and finds no fault with the script.
fn accepts(shell: &str, flags: &[&str], path: &str) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    if let Ok(checked) = Command::new(shell).args(flags).arg(&file).output() {
        assert!(checked.status.success(), "{shell}: {}", String::from_utf8_lossy(&checked.stderr));
    }
}

#[test]
fn shells_that_are_here_accept_their_scripts() {
    accepts("bash", &["-n"], "completions/multusctl.bash");
    accepts("zsh", &["-n"], "completions/_multusctl");
    accepts("fish", &["--no-execute"], "completions/multusctl.fish");
}
