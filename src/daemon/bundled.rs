//! Bundled children as programs of the configuration: what stands in their sections becomes an entry whose command is
//! our own image. From there on they are supervised as any program is.

use std::rc::Rc;

use crate::config::{self, Config, Program};
use crate::limits::LOG;
use crate::sys::process;

/// `log`. It is back at once when it fails, also the third time; its end is the last act of all, and takes the time
/// that storage takes.
const LOG_SECTION: &str = "[program:bundled]\ncommand = multusd log\nstartsecs = 0\nstopwaitsecs = 10\n\
    restart_delay = 50ms\nrestart_delay_max = 1s\nrestart_reset = 5s\nno_new_privs = true\n\
    stdout_logfile = NONE\nstderr_logfile = NONE\n";

/// Adds what the sections ask for: `log`, where a program's lines go anywhere.
pub fn add(config: &mut Config) {
    if !config.programs.iter().any(|program| has_log(program, false) || has_log(program, true)) {
        return;
    }
    let text = config::load_text(LOG_SECTION);
    let Some(program) = text.ok().and_then(|loaded| loaded.config.programs.into_iter().next()) else {
        return;
    };
    let mut program = Rc::unwrap_or_clone(program);
    program.name = LOG.into();
    program.section = LOG.into();
    program.user.clone_from(&config.log.user);
    // Behind all others, so that it is stopped when they are down.
    program.priority = i32::MIN;
    config.programs.push(Rc::new(program));
}

/// Whether standard output, or error, of a program goes anywhere.
pub fn has_log(program: &Program, is_err: bool) -> bool {
    let stream = if is_err { &program.stderr } else { &program.stdout };
    !(is_err && program.redirect_stderr)
        && (stream.file != config::LogFile::None || stream.syslog || program.log.kmsg)
}

/// It is one of ours.
pub fn is_bundled(program: &Program) -> bool {
    program.name == LOG || program.child.is_some()
}

/// It is a companion, a program of its own, of this bundled child: see `config/child.rs`.
pub fn companion_of(program: &Program) -> Option<&str> {
    // Commands of ours have two words, `multusd` and what it is to be.
    program.child.as_ref().filter(|_| program.command.len() == 1).map(|child| child.instance.as_str())
}

/// What a program may do as root: as it says; a bundled child may write where only others may.
pub fn capabilities(program: &Program) -> Option<u64> {
    const DAC_OVERRIDE: u64 = 1 << 1;
    match program.name == LOG {
        true => process::is_root().then_some(if program.user.is_none() { DAC_OVERRIDE } else { 0 }),
        false => program.capabilities,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Vec<String> {
        let mut config = config::load_text(text).unwrap().config;
        add(&mut config);
        config.programs.iter().map(|program| program.name.clone()).collect()
    }

    #[test]
    fn there_is_a_log_where_a_program_says_something_and_it_comes_last() {
        assert_eq!(
            names("[program:a]\ncommand = x\n[program:b]\ncommand = x\npriority = 2000\n"),
            ["a", "b", "log"]
        );
        let silent = "[program:a]\ncommand = x\nstdout_logfile = NONE\nstderr_logfile = NONE\n";
        assert_eq!(names(silent), ["a"]);
        assert_eq!(names(&format!("{silent}log_kmsg = true\n")), ["a", "log"]);
        let silent = "[program:a]\ncommand = x\nstdout_logfile = NONE\nredirect_stderr = true\n";
        assert_eq!(names(silent), ["a"]);
        assert_eq!(names(&format!("{silent}stdout_syslog = true\n")), ["a", "log"]);
    }
}
