//! `multusctl new`: what it writes works unchanged, and its test finds a program that does not.

mod harness;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A folder for one test, with multusd and multusctl for whoever looks in PATH.
struct Place(PathBuf);

impl Place {
    fn new(test: &str) -> Place {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("new-{test}"));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(folder.join("bin")).unwrap();
        for name in ["multusd", "multusctl"] {
            symlink(harness::binary(), folder.join("bin").join(name)).unwrap();
        }
        Place(folder)
    }

    fn run(&self, words: &[&str]) -> Output {
        let path = format!("{}:{}", self.0.join("bin").display(), std::env::var("PATH").unwrap());
        Command::new(words[0]).args(&words[1..]).current_dir(&self.0).env("PATH", path).output().unwrap()
    }

    fn made(&self, language: &str) {
        let output = self.run(&["multusctl", "new", "my-pump", "--lang", language]);
        assert!(output.status.success(), "{}", said(&output));
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}

fn passes(language: &str) {
    let place = Place::new(language);
    place.made(language);
    let output = place.run(&["my-pump/test"]);
    assert!(output.status.success() && said(&output).ends_with("my-pump: passed\n"), "{}", said(&output));
    // The section may go wherever sections are.
    let mode = fs::metadata(place.0.join("my-pump/my-pump.cfg")).unwrap().permissions().mode();
    assert_eq!(mode & 0o111, 0);
}

#[test]
fn a_program_in_rust_passes_its_own_test_unchanged() {
    passes("rust");
}

#[test]
fn a_program_in_c_passes_its_own_test_unchanged() {
    passes("c");
}

#[test]
fn a_program_in_python_passes_its_own_test_unchanged() {
    passes("python");
}

#[test]
fn a_program_in_shell_passes_its_own_test_unchanged() {
    passes("sh");
}

#[test]
fn a_program_that_is_never_ready_fails_its_test() {
    let place = Place::new("broken");
    place.made("sh");
    let path = place.0.join("my-pump/my-pump");
    let text = fs::read_to_string(&path).unwrap().replace("multusctl beat --ready\n", "false\nexit 1\n");
    fs::write(&path, text).unwrap();
    let test = place.0.join("my-pump/test");
    let quick = fs::read_to_string(&test).unwrap().replace("-lt 300", "-lt 20");
    fs::write(&test, quick).unwrap();
    let output = place.run(&["my-pump/test"]);
    assert!(!output.status.success() && said(&output).contains("not ready"), "{}", said(&output));
}

#[test]
fn nothing_is_overwritten_and_a_name_is_no_path() {
    let place = Place::new("refused");
    place.made("sh");
    let before = fs::read(place.0.join("my-pump/my-pump")).unwrap();
    let code = |words: &[&str]| place.run(words).status.code();
    assert_eq!(code(&["multusctl", "new", "my-pump", "--lang", "python"]), Some(1));
    assert_eq!(fs::read(place.0.join("my-pump/my-pump")).unwrap(), before);
    for wrong in ["../x", "a/b", "a b", "", ".x", "a;b", "ä"] {
        assert_eq!(code(&["multusctl", "new", wrong, "--lang", "sh"]), Some(2), "{wrong}");
    }
    assert_eq!(code(&["multusctl", "new", "other", "--lang", "perl"]), Some(2));
    assert_eq!(code(&["multusctl", "new", "other"]), Some(2));
    assert!(!place.0.join("other").exists());
}
