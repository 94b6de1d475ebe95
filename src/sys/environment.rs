//! This process's own environment, changed.

use std::ffi::OsStr;

/// Sets a variable, or (`None`) takes it away. This process has one thread.
pub fn set(name: &str, value: Option<&OsStr>) {
    // SAFETY: no other thread reads or writes the environment: there is none.
    unsafe {
        match value {
            Some(value) => std::env::set_var(name, value),
            None => std::env::remove_var(name),
        }
    }
}
