//! THE BUNDLED CHILDREN: processes of our own image that are supervised like any program. They do not know each other.

pub mod log;

use std::os::fd::AsFd;

use crate::sys::{console, socket};

/// Something that a person should know: an event of multusd's, which it says, too. Waits for nobody; where multusd
/// cannot be told, it is only said.
pub(crate) fn report(words: core::fmt::Arguments) {
    let is_told = std::env::var_os("NOTIFY_SOCKET").is_some_and(|path| {
        let words = format!("MULTUSD_EVENT={words}");
        socket::connect_notify(path.as_ref()).is_ok_and(|to| socket::send(to.as_fd(), words.as_bytes()))
    });
    if !is_told {
        console::say(words);
    }
}
