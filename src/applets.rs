//! What this binary is besides the daemon: one row per applet. argv[0]'s file name or the first
//! argument chooses. Does nothing itself; a bundled child is one row here and its own room.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use crate::child::CHILDREN;
use crate::config::Child;
use crate::ctl::table::Described;
use crate::{child, ctl, daemon, probe, self_test};

/// One applet.
pub struct Applet {
    /// Its name and what help and manual page say of it.
    pub described: Described,
    /// It has a name of its own in the file system, a symbolic link to this binary.
    pub is_linked: bool,
    /// Runs it with the arguments after its name; returns the exit code.
    pub run: fn(&mut dyn Iterator<Item = OsString>) -> u8,
}

/// The applets, in the order in which they are shown.
pub const APPLETS: &[Applet] = &[
    Applet {
        described: Described {
            name: "multusctl",
            what: "speaks to the running multusd; multusctl help KEY explains the configuration",
            options: &[],
        },
        is_linked: true,
        run: |arguments| ctl::main(arguments, CHILDREN, |path| daemon::check(path, CHILDREN)),
    },
    Applet {
        described: Described {
            name: "self-test",
            what: "tries every facility of this machine's kernel that multusd rests on, and says which are not there",
            options: self_test::OPTIONS,
        },
        // For whoever installs a board, not for every day: it needs no place among the commands.
        is_linked: false,
        run: self_test::main,
    },
    Applet {
        described: Described {
            name: "probe",
            what: "asks tcp:HOST:PORT, unix:PATH or http://HOST[:PORT]/PATH once, as a check does",
            options: &[],
        },
        is_linked: false,
        run: probe::main,
    },
    Applet {
        described: Described {
            name: "system",
            what: "sets up the machine as [system] says, once at boot, in an image of multusd's",
            options: &[
                ("--config FILE", "the configuration; /boot/multusd.cfg"),
                ("--root DIR", "set up a machine whose files are in DIR, to try it"),
            ],
        },
        is_linked: false,
        run: |arguments| daemon::system(arguments, CHILDREN),
    },
    Applet {
        described: Described {
            name: "log",
            what: "keeps what programs write; only multusd runs it",
            options: &[],
        },
        is_linked: false,
        run: child::log::main,
    },
];

/// The applet that is meant when the binary is called by this name (argv[0], a path or not).
pub fn called(as_name: &OsStr) -> Option<&'static Applet> {
    let name = Path::new(as_name).file_name()?;
    APPLETS.iter().find(|applet| applet.is_linked && name == applet.described.name)
}

/// The bundled child that a first argument names.
pub fn child(argument: &OsStr) -> Option<&'static Child> {
    CHILDREN.iter().find(|child| argument == child.word)
}

/// The applet that a first argument names.
pub fn named(argument: &OsStr) -> Option<&'static Applet> {
    APPLETS.iter().find(|applet| argument == applet.described.name)
}

/// What there is to say of each.
pub fn described() -> Vec<&'static Described> {
    APPLETS.iter().map(|applet| &applet.described).collect()
}

/// The names that are to be links to this binary, one per line.
pub fn links() -> String {
    let linked = APPLETS.iter().filter(|applet| applet.is_linked);
    linked.flat_map(|applet| [applet.described.name, "\n"]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(found: Option<&Applet>) -> &str {
        found.map_or("", |applet| applet.described.name)
    }

    #[test]
    fn a_link_chooses_by_its_file_name_alone() {
        assert_eq!(name(called(OsStr::new("/usr/bin/multusctl"))), "multusctl");
        assert_eq!(name(called(OsStr::new("multusctl"))), "multusctl");
        for other in ["/multusctl/multusd", "multusd", "self-test", "", "/", "multusctl2"] {
            assert_eq!(name(called(OsStr::new(other))), "", "{other}");
        }
    }

    #[test]
    fn a_first_argument_chooses_by_its_whole_text() {
        assert_eq!(name(named(OsStr::new("self-test"))), "self-test");
        assert_eq!(name(named(OsStr::new("multusctl"))), "multusctl");
        assert_eq!(name(named(OsStr::new("/usr/bin/multusctl"))), "");
    }

    #[test]
    fn only_what_has_a_name_of_its_own_becomes_a_link() {
        assert_eq!(links(), "multusctl\n");
    }
}
