//! What a new configuration changes, program by program, by name.

use std::rc::Rc;

use super::{Config, Log, LogFile, Program, ProgramReady};

/// The difference between two configurations; names in the order of the configuration they are in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Programs that only the new one has.
    pub added: Vec<String>,
    /// Programs that only the old one has.
    pub removed: Vec<String>,
    /// Programs that must be restarted: what was given to the process is different.
    pub changed: Vec<String>,
    /// Programs that differ only in how they are treated from now on.
    pub amended: Vec<String>,
    /// `[multusd]` is different.
    pub daemon_changed: bool,
    /// Inputs, outputs, watchdogs or the temperature are different.
    pub board_changed: bool,
    /// `[log]` is different: what keeps lines is restarted, and no program.
    pub log_changed: bool,
}

/// Compares.
pub fn compare(old: &Config, new: &Config) -> Changes {
    let mut changes = Changes {
        daemon_changed: old.daemon != new.daemon,
        board_changed: old.board != new.board,
        log_changed: old.log != new.log,
        ..Changes::default()
    };
    for program in &new.programs {
        let Some(former) = find(old, &program.name) else {
            changes.added.push(program.name.clone());
            continue;
        };
        if !keeps_running(former, program) {
            changes.changed.push(program.name.clone());
        } else if !same(old, former, new, program) {
            changes.amended.push(program.name.clone());
        }
    }
    let removed = old.programs.iter().filter(|program| find(new, &program.name).is_none());
    changes.removed = removed.map(|program| program.name.clone()).collect();
    changes
}

fn find<'a>(config: &'a Config, name: &str) -> Option<&'a Program> {
    config.programs.iter().map(Rc::as_ref).find(|program| program.name == name)
}

/// Whether what was given to the process is the same. Every field is named, so that a new one
/// cannot be forgotten here.
fn keeps_running(old: &Program, new: &Program) -> bool {
    #[rustfmt::skip]
    let Program {
        // What a running process does not notice.
        place: _, priority: _, autostart: _, autorestart: _, exitcodes: _, startsecs: _, startretries: _,
        stopsignal: _, stopwaitsecs: _, stopasgroup: _, killasgroup: _, stop_command: _, reload: _, after: _,
        requires: _, start_timeout: _, restart_delay: _, restart_delay_max: _, restart_reset: _, on_start: _,
        on_stop: _, on_failure: _, memory_max: _, pids_max: _, check: _, log: _,
        // What it was started with.
        name, section, child, command, directory, user, group, umask, environment, environment_file, redirect_stderr,
        stdout, stderr, kind, pidfile, ready, rlimits, nice, scheduling, cpu_affinity, ioprio,
        oom_score_adj, capabilities, no_new_privs, state_directory, heartbeat, outputs,
        inputs,
    } = old;
    // A descriptor or a socket is given to a process at its start; the other ways to be ready are
    // our own observations.
    let given = |ready: &ProgramReady| matches!(ready, ProgramReady::Descriptor(_) | ProgramReady::Notify);
    // A process has a pipe or /dev/null; where the pipe leads is the business of `log`.
    let log = |log: &Log| log.file == LogFile::None;
    let ready_same = *ready == new.ready || !given(ready) && !given(&new.ready);
    ready_same
        && (*name == new.name && *section == new.section && *child == new.child && *command == new.command)
        && (*directory == new.directory && *user == new.user && *group == new.group && *umask == new.umask)
        && (*environment == new.environment && *environment_file == new.environment_file)
        && (*redirect_stderr == new.redirect_stderr
            && log(stdout) == log(&new.stdout)
            && log(stderr) == log(&new.stderr))
        && (*kind == new.kind && *pidfile == new.pidfile && *rlimits == new.rlimits)
        && (*nice == new.nice
            && *scheduling == new.scheduling
            && *cpu_affinity == new.cpu_affinity
            && *ioprio == new.ioprio)
        && (*oom_score_adj == new.oom_score_adj && *capabilities == new.capabilities)
        && (*no_new_privs == new.no_new_privs && *state_directory == new.state_directory)
        && *heartbeat == new.heartbeat
        && (*outputs == new.outputs && *inputs == new.inputs)
}

/// Equal but for the place; dependencies by name, because indexes move when programs come and go.
/// Each program with the configuration that it is of.
pub fn same(old: &Config, former: &Program, new: &Config, program: &Program) -> bool {
    let names = |config: &Config, list: &[usize], other: &Config, other_list: &[usize]| {
        let name = |config: &'_ Config, index: &usize| {
            config.programs.get(*index).map(|program| program.name.clone())
        };
        list.len() == other_list.len()
            && list.iter().zip(other_list).all(|(one, two)| name(config, one) == name(other, two))
    };
    let mut former_here = former.clone();
    former_here.place = program.place;
    former_here.after.clone_from(&program.after);
    former_here.requires.clone_from(&program.requires);
    former_here == *program
        && names(old, &former.after, new, &program.after)
        && names(old, &former.requires, new, &program.requires)
}
