//! THE BUNDLED CHILDREN: processes of our own image that are supervised like any program. They do not know each other.

pub mod dido;
mod io;
pub mod life;
pub mod log;
pub mod modbus;
pub mod recorder;
mod status_led;
mod template;

use std::os::fd::AsFd;

use crate::config::{Child, Settings};
use crate::packed;
use crate::sys::{console, file, poll, socket};

/// Those that have a section of their own: one row each, in the order of the documentation.
pub static CHILDREN: &[Child] =
    &[status_led::CHILD, modbus::CHILD, dido::CHILD, io::CHILD, recorder::CHILD, template::CHILD];

/// How each is supervised unless its row says otherwise: it says when it serves, beats without a system call, has nothing
/// that root has, and is back at once when it fails.
macro_rules! supervised {
    () => {
        "ready = notify\nstart_timeout = 10s\nheartbeat = 2s\nheartbeat_kind = counter\nno_new_privs = true\nstopwaitsecs = 2\n\
         restart_delay = 100ms\nrestart_delay_max = 10s\n"
    };
}
use supervised;
/// The same of those that need no capability.
const SUPERVISED: &str = concat!(supervised!(), "capabilities = none\n");

/// Runs one of them; its section is descriptor 0. `is_over`: it has ended, and this leaves safe what it drove.
pub fn run(child: &'static Child, is_over: bool) -> u8 {
    let bytes = file::read_memory(poll::borrow(0)).unwrap_or_default();
    match packed::from_bytes::<Settings>(&bytes).filter(|settings| settings.word == child.word) {
        Some(settings) => (child.run)(&Settings { is_over, ..settings }),
        None => {
            console::complain(&["multusd ", child.word, ": only multusd runs this"].concat());
            2
        }
    }
}

/// Something that a person should know: an event of multusd's, which it says, too. Waits for nobody; where multusd
/// cannot be told, it is only said.
pub fn report(words: core::fmt::Arguments) {
    let is_told = std::env::var_os("NOTIFY_SOCKET").is_some_and(|path| {
        let words = format!("MULTUSD_EVENT={words}");
        socket::connect_notify(path.as_ref()).is_ok_and(|to| socket::send(to.as_fd(), words.as_bytes()))
    });
    if !is_told {
        console::say(words);
    }
}
