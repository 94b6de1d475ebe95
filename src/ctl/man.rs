//! The manual pages multusctl(1) and multusd(8), derived from the tables. Not part of the binary:
//! nothing in it calls this, a test keeps the files under `man/` equal to it.

use crate::config::replaced;

use super::table::{self, COMMON, Described, EXITS, NAMES_HELP, Opt, both, spelled, usage};

/// Options of the daemon.
pub const DAEMON_OPTIONS: [&Opt; 8] = [
    &Opt {
        long: "config",
        value: "FILE",
        what: "read FILE instead of /boot/firmware/multusd.cfg, /boot/multusd.cfg or /etc/multusd.cfg",
    },
    &Opt {
        long: "run-dir",
        value: "DIR",
        what: "keep the control socket and what belongs to a life of the daemon in DIR, instead of /run/multusd",
    },
    &Opt {
        long: "check",
        value: "",
        what: "read the configuration (also: --check FILE), report all its errors and exit",
    },
    &Opt {
        long: "service",
        value: "",
        what: "be the main process of a unit of systemd, beside multusd itself: `systemctl restart` ends this one alone, and no \
               program; see docs/packages.md",
    },
    &Opt {
        long: "service-ended",
        value: "",
        what: "what such a unit runs as ExecStopPost=: lets systemd before version 254 start it again while programs run",
    },
    &Opt {
        long: "applets",
        value: "",
        what: "print the names that are to be links to this binary, one per line, and exit",
    },
    &Opt { long: "help", value: "", what: "show help and exit" },
    &Opt { long: "version", value: "", what: "show the version and exit" },
];

/// Text as roff wants it: no dash becomes a hyphen, no line begins a macro.
fn plain(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-");
    if text.starts_with(['.', '\'']) { ["\\&", &text].concat() } else { text }
}

fn head(name: &str, section: &str, what: &str) -> String {
    let version = env!("CARGO_PKG_VERSION");
    [
        ".\\\" Generated from the tables of commands and options.\n",
        ".TH ",
        &name.to_uppercase(),
        " ",
        section,
        " \"\" \"multusd ",
        version,
        "\" \"multusd\"\n.SH NAME\n",
        name,
        " \\- ",
        what,
        "\n",
    ]
    .concat()
}

fn heading(text: &mut String, title: &str) {
    *text += &[".SH ", title, "\n"].concat();
}

fn paragraph(text: &mut String, words: &str) {
    *text += &[".PP\n", &plain(words), "\n"].concat();
}

fn entry(text: &mut String, tag: &str, words: &str) {
    *text += &[".TP\n.B ", &plain(tag), "\n", &plain(words), "\n"].concat();
}

/// multusctl(1).
pub fn multusctl() -> String {
    let mut text = head("multusctl", "1", "talk to multusd, the fail\\-safe supervisor");
    heading(&mut text, "SYNOPSIS");
    text += ".B multusctl\n[\\fIoption\\fR...] \\fIcommand\\fR [\\fIargument\\fR...]\n";
    heading(&mut text, "DESCRIPTION");
    paragraph(
        &mut text,
        "multusctl asks the running multusd for the state of its programs, and gives it orders.",
    );
    paragraph(&mut text, NAMES_HELP);
    paragraph(
        &mut text,
        "An order returns when it is given, or with --wait when it has happened. Options may stand before and after the command.",
    );
    heading(&mut text, "COMMANDS");
    for command in table::shown() {
        entry(
            &mut text,
            &usage(command),
            &replaced([command.what, " ", command.more].concat().trim_end(), "  ", " "),
        );
        for opt in command.options {
            text += ".RS\n";
            entry(&mut text, &both(opt), opt.what);
            text += ".RE\n";
        }
    }
    heading(&mut text, "OPTIONS");
    for opt in COMMON {
        entry(&mut text, &both(opt), opt.what);
    }
    heading(&mut text, "EXIT STATUS");
    for (exit, word, what) in EXITS {
        entry(&mut text, &[&(exit as u8).to_string(), "  ", word].concat(), what);
    }
    heading(&mut text, "ENVIRONMENT");
    entry(
        &mut text,
        "NO_COLOR",
        "When set and not empty, the table has no colours. It has none either when it does not go to a terminal.",
    );
    entry(&mut text, "COLUMNS", "The width of the table, instead of the terminal's.");
    heading(&mut text, "FILES");
    entry(&mut text, "/run/multusd/control", "The socket of the daemon.");
    heading(&mut text, "EXAMPLES");
    for (line, words) in EXAMPLES {
        entry(&mut text, line, words);
    }
    heading(&mut text, "SEE ALSO");
    text += ".BR multusd (8)\n";
    text
}

const EXAMPLES: [(&str, &str); 4] = [
    ("multusctl status", "Everything at a glance."),
    (
        "multusctl restart --wait --timeout 20s pump",
        "In a script: goes on when the pump runs again, or fails.",
    ),
    ("multusctl stop 'web_*'", "All programs whose names begin with web_."),
    ("multusctl status --json", "For a program."),
];

/// What the guard does with signals.
const SIGNALS: [(&str, &str); 4] = [
    ("SIGTERM, SIGINT", "Stops every program, in order, and ends."),
    ("SIGHUP", "Reads the configuration again; multusctl reload says what came of it."),
    ("SIGUSR1", "Writes the state to standard error."),
    (
        "SIGUSR2",
        "Takes over what is new on storage, executable and configuration, without an end of any program: as multusctl \
         renew and multusctl reload.",
    ),
];

/// multusd(8), and what else is in the binary.
pub fn multusd(applets: &[&Described]) -> String {
    let mut text = head("multusd", "8", "fail\\-safe supervisor for embedded Linux");
    heading(&mut text, "SYNOPSIS");
    text += ".B multusd\n";
    for opt in DAEMON_OPTIONS {
        text += &["[", &plain(&spelled(opt)), "]\n"].concat();
    }
    heading(&mut text, "DESCRIPTION");
    paragraph(
        &mut text,
        "multusd starts the programs of its configuration, proves several times a second that each still makes \
         progress, and when one does not: drives its outputs to their safe level, kills it and starts it again, \
         for ever, with growing pauses. It stays in the foreground; an init system starts it.",
    );
    paragraph(
        &mut text,
        "The same binary is other programs too: called by the name of one, or with it as the first argument.",
    );
    heading(&mut text, "OPTIONS");
    for opt in DAEMON_OPTIONS {
        entry(&mut text, &spelled(opt), opt.what);
    }
    heading(&mut text, "SIGNALS");
    for (name, what) in SIGNALS {
        entry(&mut text, name, what);
    }
    heading(&mut text, "ALSO IN THIS BINARY");
    for applet in applets {
        entry(&mut text, applet.name, applet.what);
        for (option, what) in applet.options {
            text += ".RS\n";
            entry(&mut text, option, what);
            text += ".RE\n";
        }
    }
    heading(&mut text, "FILES");
    entry(
        &mut text,
        "/boot/firmware/multusd.cfg, /boot/multusd.cfg, /etc/multusd.cfg",
        "The configuration; multusctl help KEY explains its keys.",
    );
    entry(&mut text, "/run/multusd/control", "The control socket.");
    heading(&mut text, "SEE ALSO");
    text += ".BR multusctl (1)\n";
    text
}
