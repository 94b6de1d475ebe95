//! The command line of `multusd` itself, understood by the same means as that of `multusctl`. Here
//! and not in the daemon, so that the daemon's process never runs a line of it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::man::DAEMON_OPTIONS;
use super::table::{Described, spelled};

/// What was asked for.
#[derive(Debug, PartialEq, Eq)]
pub enum DaemonCall {
    /// Supervise.
    Run {
        /// The configuration file.
        config: PathBuf,
        /// The run directory, where it is not the configuration's.
        run_dir: Option<PathBuf>,
        /// In a process of its own, beside this one.
        is_service: bool,
    },
    /// The unit has no main process any more.
    ServiceEnded,
    /// Check this configuration file.
    Check(String),
    /// Print the names that are to be links to this binary.
    Applets,
    /// Say by the exit code whether this executable can go on with what another has begun: what that one knows, and the number of
    /// a descriptor. Asked by multusd itself.
    Adopts(String, String),
    /// Print this, and that is all.
    Print(String),
    /// Nothing that can be understood.
    Wrong(String),
}

/// Reads the arguments (without argv[0]). Without `--config`, the first of `paths` that exists is
/// the configuration, or the last. `applets` are for the help.
pub fn daemon_call(
    arguments: impl Iterator<Item = OsString>,
    paths: &[&str],
    applets: &[&Described],
) -> DaemonCall {
    read(arguments, paths, applets).unwrap_or_else(|error| {
        DaemonCall::Wrong(
            [&super::misunderstood(&error), "\nTry: multusd --help, or multusctl --help"].concat(),
        )
    })
}

fn read(
    arguments: impl Iterator<Item = OsString>,
    paths: &[&str],
    applets: &[&Described],
) -> Result<DaemonCall, lexopt::Error> {
    use lexopt::prelude::*;
    let (mut config, mut run_dir, mut check, mut is_service): (Option<PathBuf>, _, _, _) =
        (None, None, false, false);
    let mut parser = lexopt::Parser::from_args(arguments);
    while let Some(argument) = parser.next()? {
        match argument {
            Long("config") | Short('c') => config = Some(parser.value()?.into()),
            Long("run-dir") => run_dir = Some(parser.value()?.into()),
            Long("check") => check = true,
            // `multusd --check FILE`, as `multusctl check FILE`.
            Value(file) if check && config.is_none() => config = Some(file.into()),
            Long("adopts") => {
                let mut word = || parser.value().map(|word| word.to_string_lossy().into_owned());
                return Ok(DaemonCall::Adopts(word()?, word()?));
            }
            Long("service") => is_service = true,
            Long("service-ended") => return Ok(DaemonCall::ServiceEnded),
            Long("applets") => return Ok(DaemonCall::Applets),
            Long("help") | Short('h') => return Ok(DaemonCall::Print(help(applets))),
            Long("version") => {
                return Ok(DaemonCall::Print(["multusd ", env!("CARGO_PKG_VERSION"), "\n"].concat()));
            }
            other => return Err(other.unexpected()),
        }
    }
    let usual = || paths.iter().find(|path| Path::new(path).exists()).or(paths.last()).map(PathBuf::from);
    let config = config.or_else(usual).unwrap_or_default();
    Ok(match check {
        true => DaemonCall::Check(config.to_string_lossy().into_owned()),
        false => DaemonCall::Run { config, run_dir, is_service },
    })
}

fn help(applets: &[&Described]) -> String {
    let mut text =
        String::from("multusd: fail-safe supervisor for embedded Linux\n\nusage: multusd [OPTION]…\n\n");
    for option in DAEMON_OPTIONS {
        text += &["  ", &spelled(option), "\n      ", option.what, "\n"].concat();
    }
    text += "\nAlso in this binary, by the first argument or by a link of that name (see --applets):\n\n";
    for applet in applets {
        text += &["  ", applet.name, "\n      ", applet.what, "\n"].concat();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(words: &[&str]) -> DaemonCall {
        let applet = Described { name: "led", what: "blinks", options: &[] };
        daemon_call(words.iter().map(OsString::from), &["/nowhere/a", "/nowhere/b"], &[&applet])
    }

    #[test]
    fn every_documented_option_is_understood() {
        for option in DAEMON_OPTIONS {
            let long = ["--", option.long].concat();
            let words = if option.value.is_empty() { vec![long.as_str()] } else { vec![long.as_str(), "x"] };
            assert!(!matches!(call(&words), DaemonCall::Wrong(_)), "{long}");
        }
    }

    #[test]
    fn check_takes_its_file_either_way() {
        assert_eq!(call(&["--check", "x"]), DaemonCall::Check("x".into()));
        assert_eq!(call(&["--check", "--config", "x"]), DaemonCall::Check("x".into()));
        assert_eq!(call(&["--check"]), DaemonCall::Check("/nowhere/b".into()));
    }

    #[test]
    fn help_names_the_applets() {
        assert!(
            matches!(call(&["--help"]), DaemonCall::Print(text) if text.ends_with("\n  led\n      blinks\n"))
        );
        assert_eq!(call(&["--applets"]), DaemonCall::Applets);
    }

    #[test]
    fn what_is_not_understood_is_said() {
        assert!(matches!(call(&["--daemonize"]), DaemonCall::Wrong(text) if text.contains("--daemonize")));
        for (words, said) in [
            (&["x\t"][..], "unexpected argument \"x?\"\nTry: multusd --help, or multusctl --help"),
            (
                &["--check=x"],
                "unexpected argument for option '--check': \"x\"\nTry: multusd --help, or multusctl --help",
            ),
            (
                &["--run-dir"],
                "missing argument for option '--run-dir'\nTry: multusd --help, or multusctl --help",
            ),
        ] {
            assert_eq!(call(words), DaemonCall::Wrong(said.into()));
        }
    }
}
