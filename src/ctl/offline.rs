//! What needs no daemon but knows the configuration's keys: `help KEY`.

use super::Exit;
use crate::config::{self, Children};

/// Explains a configuration key, or lists all keys. Returns the exit code.
pub fn help(key: Option<&str>, children: Children) -> u8 {
    match config::key_help(key, children) {
        Some(text) => super::print(&text).unwrap_or(Exit::Failed) as u8,
        None => {
            let name = key.unwrap_or_default();
            let near =
                config::nearest_key(name, children).map(|near| ["; did you mean ", near, "?"].concat());
            super::complain(&["there is no command or key ", name, near.as_deref().unwrap_or("")].concat());
            Exit::Usage as u8
        }
    }
}
