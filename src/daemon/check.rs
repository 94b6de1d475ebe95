//! `multusd --check FILE` and `multusctl check FILE`: a configuration judged without a daemon.

use crate::config::{self, Children};
use crate::sys::console;

use super::files::{RealFiles, absolute};
use super::jobs::missing_here;

/// Reports every error of a configuration, and what this machine lacks for it. Returns the exit code.
pub fn check(path: &str, children: Children) -> u8 {
    let loaded = match config::load(&mut RealFiles(children), &absolute(path)) {
        Ok(loaded) => loaded,
        Err(errors) => {
            console::complain(&errors.to_string());
            return 1;
        }
    };
    for warning in &loaded.warnings {
        console::complain(&format!("warning: {warning}"));
    }
    // Users and environment files may be the board's and not this machine's: worth a word only.
    for sentence in missing_here(&loaded) {
        console::complain(&format!("warning: {sentence}"));
    }
    let count = loaded.config.programs.len();
    let s = if count == 1 { "" } else { "s" };
    u8::from(console::output(format!("{path}: no errors, {count} program{s}\n").as_bytes()).is_err())
}
