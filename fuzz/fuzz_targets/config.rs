//! The configuration reader: no bytes make it panic, its errors are bounded, and what it accepts
//! means the same when its canonical text is read again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use multusd::child::CHILDREN;
use multusd::config::{Changes, Children, Files, compare, load, load_kept};

/// A machine that serves the input as main file, with an included file and an environment.
struct Machine<'a>(&'a [u8]);

impl Files for Machine<'_> {
    fn read(&mut self, path: &str) -> Result<Vec<u8>, String> {
        match path {
            "/boot/multusd.cfg" => Ok(self.0.to_vec()),
            "/boot/more.cfg" => Ok(b"[program:more]\ncommand = more %(ENV_X)s\n".to_vec()),
            _ => Err("No such file or directory".into()),
        }
    }
    fn glob(&mut self, pattern: &str) -> Vec<String> {
        if pattern.ends_with("*.cfg") { vec!["/boot/more.cfg".into()] } else { Vec::new() }
    }
    fn host_name(&mut self) -> String {
        "pump-7".into()
    }
    fn env(&mut self, name: &str) -> Option<String> {
        match name {
            "X" => Some("a ; 5% # b".into()),
            "E" => Some(String::new()),
            _ => None,
        }
    }
    fn children(&self) -> Children {
        CHILDREN
    }
}

fuzz_target!(|data: &[u8]| {
    match load(&mut Machine(data), "/boot/multusd.cfg") {
        Ok(loaded) => {
            let again = load_kept(&loaded.canonical, CHILDREN).expect("the canonical text is accepted");
            assert_eq!(again.canonical, loaded.canonical);
            assert_eq!(compare(&loaded.config, &again.config), Changes::default());
        }
        Err(errors) => assert!((1..=101).contains(&errors.0.len())),
    }
});
