//! Commands, and where their programs may be: looked up when the configuration is applied, so that no search is needed when one
//! is to run.

use crate::config::{self, HookCommand, Program};

use super::spec::Command;

/// The paths that a search of PATH would try, so that none is needed later.
pub(super) fn command(words: &[String], path: &str) -> Command {
    let program = words.first().map_or("", String::as_str);
    let paths = if program.as_bytes().contains(&b'/') {
        vec![program.to_owned()]
    } else {
        path.split(':').filter(|part| !part.is_empty()).map(|part| format!("{part}/{program}")).collect()
    };
    Command { paths, words: words.to_vec() }
}

/// A command besides the program's own. Of a bundled child: itself, once more, when it is over.
pub(super) fn hook_command(program: &Program, hook: &HookCommand, path: &str) -> Command {
    match &program.child {
        Some(child) if hook.command.first().is_some_and(|word| word == "multusd") => {
            own_image(&child.word, Some("over"))
        }
        _ => command(&hook.command, path),
    }
}

/// A check that needs no program is asked by ourselves, in a process of its own.
pub(super) fn check_command(words: &[String], path: &str) -> Command {
    let built_in = words.first().is_some_and(|word| config::CheckTarget::read(word).is_some());
    match (built_in, words) {
        (true, [target, ..]) => own_image("probe", Some(target)),
        _ => command(words, path),
    }
}

/// Ourselves, as one of the applets.
pub(super) fn own_image(applet: &str, argument: Option<&str>) -> Command {
    let words = ["multusd", applet].into_iter().chain(argument);
    Command { paths: vec!["/proc/self/exe".into()], words: words.map(String::from).collect() }
}
