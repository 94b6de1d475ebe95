//! What the daemon knows of each program beyond what the supervisor decides by: how to start it,
//! its descriptors, what runs beside it, and how to put its fate into words.

use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;

use crate::config::{AutoRestart, Program, ProgramKind, ProgramReady};
use crate::supervisor::{
    CheckRules, ChildId, ChildSet, ExitCodes, Generation, Hook, HookTimes, Kind, Ready, Restart, Rules, State,
};
use crate::sys::file;
use crate::sys::page::SAVED_WORDS_MAX;
use crate::sys::process::Recipe;
use crate::time::{Instant, Millis};

use super::spec::{Base, HOOK_KINDS, Spec};

/// A sentence about a program; longer ones are cut.
pub type Words = heapless::String<120>;

/// In memory, for reading: what a process of that user could change would outlive it. None: it needs none, or there is none
/// now; then it is made when it is to start.
pub fn settings(spec: &Spec) -> Option<OwnedFd> {
    if spec.exec.settings.is_empty() {
        return None;
    }
    let memory = file::memory(c"multusd-settings").ok()?;
    file::append(memory.as_fd(), &spec.exec.settings).ok()?;
    file::open_again_to_read(&memory).ok()
}

/// One program.
pub struct Entry {
    /// What the configuration says.
    pub program: Rc<Program>,
    /// The same, resolved.
    pub spec: Rc<Spec>,
    /// How to start it.
    pub recipe: Recipe,
    /// How to start its hooks, by `HookKind`.
    pub hooks: [Option<Box<Recipe>>; HOOK_KINDS],
    /// Digest of what the running process was made from.
    pub digest: u64,
    /// What a bundled child finds at descriptor 0.
    pub settings: Option<OwnedFd>,
    /// Its control group.
    pub group: Option<OwnedFd>,
    /// The group was killed as a whole, maybe by a former supervisor: `Hierarchy::renew_group`.
    pub group_killed: bool,
    /// A process died as it was born into the group: from now on they move there themselves.
    pub group_deadly: bool,
    /// Reports when the group becomes empty, while that is waited for.
    pub group_events: Option<OwnedFd>,
    /// A handle on its main process.
    pub process: Option<OwnedFd>,
    /// The main process's end has been reported.
    pub exit_taken: bool,
    /// Its control group stands still (or may do so: a former supervisor's doing).
    pub frozen: bool,
    /// What runs in its hook slot had ended before this supervisor came.
    pub beside_is_old: bool,
    /// What runs in its hook slot.
    pub beside: Option<(Beside, Generation)>,
    /// When its own `reload` has had its time.
    pub reload_until: Option<Instant>,
    /// Its processes are being killed; `TreeEmptied` is owed for this generation.
    pub killing: Option<Generation>,
    /// A sweep is to follow when the hook slot is free.
    pub sweep_owed: bool,
    /// A changed configuration, to be taken at the next start.
    pub next: Option<(Rc<Program>, Rc<Spec>)>,
    /// It came with, or was changed by, the configuration that is on probation.
    pub on_probation: bool,
    /// The failures it had in a row when it came on probation; they are not the change's.
    pub failures_before: u32,
    /// It is to leave the table.
    pub retiring: bool,
    /// Taken over from a former supervisor, no order performed yet.
    pub adopted: bool,
    /// Its own words (`STATUS=`).
    pub status_text: Words,
    /// Its own words for why it ends (`ERRNO=`).
    pub words: heapless::String<40>,
    /// It has published something that was not taken, and that was said.
    pub value_refused: bool,
    /// The same of the process before it, once that had ended.
    pub last_words: heapless::String<40>,
    /// What it last beat with: the time on its page, the byte on its port.
    pub beat_seen: u64,
    /// What its last failed check printed.
    pub check_text: Words,
    /// Why it is as it is.
    pub reason: Words,
    /// The state that subscribers know.
    pub published: State,
    /// What the adoption page holds.
    pub saved: [u64; SAVED_WORDS_MAX],
}

/// What runs beside a program, in its hook slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beside {
    /// A hook that the supervisor ordered.
    Hook(Hook),
    /// The search for what is left of it.
    Sweep,
    /// Its own `reload`.
    Reload,
}

impl Beside {
    /// As the adoption page has it.
    pub fn number(self) -> u32 {
        match self {
            Beside::Hook(Hook::OnStart) => 1,
            Beside::Hook(Hook::ReadyCheck) => 2,
            Beside::Hook(Hook::FindMain) => 3,
            Beside::Hook(Hook::StopCommand) => 4,
            Beside::Hook(Hook::OnStop) => 5,
            Beside::Hook(Hook::OnFailure) => 6,
            Beside::Sweep => 7,
            Beside::Reload => 8,
            Beside::Hook(Hook::Check) => 9,
        }
    }

    /// Back from it.
    pub fn from_number(number: u32) -> Option<Beside> {
        let hooks = [
            Hook::OnStart,
            Hook::ReadyCheck,
            Hook::FindMain,
            Hook::StopCommand,
            Hook::OnStop,
            Hook::OnFailure,
            Hook::Check,
        ];
        hooks
            .into_iter()
            .map(Beside::Hook)
            .chain([Beside::Sweep, Beside::Reload])
            .find(|b| b.number() == number)
    }
}

impl Entry {
    /// An entry that has never run.
    pub fn new(program: Rc<Program>, spec: Rc<Spec>, base: &Base) -> Self {
        Entry {
            recipe: spec.exec.recipe(base),
            hooks: recipes(&spec, base),
            digest: spec.exec.digest(),
            settings: settings(&spec),
            program,
            spec,
            group: None,
            group_killed: false,
            frozen: false,
            beside_is_old: false,
            group_deadly: false,
            group_events: None,
            process: None,
            exit_taken: false,
            beside: None,
            reload_until: None,
            killing: None,
            sweep_owed: false,
            next: None,
            on_probation: false,
            failures_before: 0,
            retiring: false,
            adopted: false,
            status_text: Words::new(),
            words: heapless::String::new(),
            last_words: heapless::String::new(),
            value_refused: false,
            beat_seen: 0,
            check_text: Words::new(),
            reason: Words::new(),
            published: State::Stopped,
            saved: [0; SAVED_WORDS_MAX],
        }
    }

    /// Takes a changed configuration whose running process need not change.
    pub fn amend(&mut self, program: Rc<Program>, spec: Rc<Spec>, base: &Base) {
        self.recipe = spec.exec.recipe(base);
        self.hooks = recipes(&spec, base);
        self.digest = spec.exec.digest();
        self.settings = settings(&spec);
        self.program = program;
        self.spec = spec;
        self.next = None;
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.program.name
    }

    /// Puts a reason into words, cut to what fits.
    pub fn explain(&mut self, words: core::fmt::Arguments) {
        write_cut(&mut self.reason, words);
    }
}

/// Replaces the text, cutting what does not fit.
pub fn write_cut<const N: usize>(text: &mut heapless::String<N>, words: core::fmt::Arguments) {
    struct Cut<'a, const N: usize>(&'a mut heapless::String<N>);
    impl<const N: usize> core::fmt::Write for Cut<'_, N> {
        fn write_str(&mut self, words: &str) -> core::fmt::Result {
            for letter in words.chars() {
                // Full: the rest is cut, which is what this type is for.
                let _ = self.0.push(letter);
            }
            Ok(())
        }
    }
    text.clear();
    // Cannot fail: the writer above never does.
    let _ = core::fmt::write(&mut Cut(text), words);
}

/// Boxed: most programs have no hooks, and a place for every kind would be most of an entry.
fn recipes(spec: &Spec, base: &Base) -> [Option<Box<Recipe>>; HOOK_KINDS] {
    let recipe = |command| Box::new(spec.exec.recipe_of(command, base));
    std::array::from_fn(|index| spec.hooks[index].as_ref().map(recipe))
}

/// What the supervisor must know of a program. Dependencies are added by [`relate`].
pub fn rules(program: &Program) -> Rules {
    let mut expected = ExitCodes::default();
    for code in &program.exitcodes {
        expected.insert(*code);
    }
    let timeout = |hook: &Option<crate::config::HookCommand>| hook.as_ref().map(|hook| hook.timeout);
    let (ready, ready_check) = match &program.ready {
        ProgramReady::Uptime => (Ready::Uptime, Millis::ZERO),
        ProgramReady::Notify | ProgramReady::Descriptor(_) => (Ready::Report, Millis::ZERO),
        // The search waits for the file by itself; it ends early only where nobody could write it.
        ProgramReady::PidFile => {
            (Ready::Check(Millis(100)), program.start_timeout.unwrap_or(Millis::from_secs(60)))
        }
        ProgramReady::Check { check, interval } => (Ready::Check(*interval), check.timeout),
    };
    Rules {
        kind: match program.kind {
            ProgramKind::Simple | ProgramKind::Notify => Kind::Simple,
            ProgramKind::Forking => Kind::Forking,
            ProgramKind::Oneshot => Kind::Oneshot,
        },
        ready,
        autostart: program.autostart,
        restart: match program.autorestart {
            AutoRestart::Always => Restart::Always,
            AutoRestart::Unexpected => Restart::Unexpected,
            AutoRestart::Never => Restart::Never,
        },
        expected,
        start_time: program.startsecs,
        retries: program.startretries,
        delay: program.restart_delay,
        delay_max: program.restart_delay_max,
        health_time: program.restart_reset,
        start_timeout: program.start_timeout,
        stop_timeout: program.stopwaitsecs,
        hooks: HookTimes {
            on_start: timeout(&program.on_start),
            stop_command: timeout(&program.stop_command),
            on_stop: timeout(&program.on_stop),
            on_failure: timeout(&program.on_failure),
            ready_check,
            check: program.check.as_ref().map_or(Millis::ZERO, |check| check.timeout),
        },
        heartbeat: program.heartbeat.as_ref().map(|heartbeat| heartbeat.limit),
        check: program.check.as_ref().map(|check| CheckRules {
            interval: check.interval,
            failures: check.failures,
            of: check.of,
        }),
        output_limit: program.outputs.iter().map(|output| output.limit).min(),
        critical: false, // the section that declares it comes with the escalation ladder
        after: ChildSet::EMPTY,
        requires: ChildSet::EMPTY,
        stops_after: ChildSet::EMPTY,
    }
}

/// The order in which everything is stopped, as a rank per program: dependents before what they
/// depend on, and among those free to go, the highest priority number first, as Supervisor does.
/// One total order, so that dependencies and priorities cannot wait for each other in a circle.
pub fn stop_ranks(programs: &[Rc<Program>]) -> Vec<usize> {
    let mut ranks = vec![usize::MAX; programs.len()];
    let blocked = |ranks: &[usize], index: usize| {
        let needs = |other: &Program| other.after.contains(&index) || other.requires.contains(&index);
        programs.iter().zip(ranks).any(|(other, rank)| *rank == usize::MAX && needs(other))
    };
    for rank in 0..programs.len() {
        let free =
            (0..programs.len()).filter(|index| ranks[*index] == usize::MAX && !blocked(&ranks, *index));
        // Later in the file goes first among equals: the reverse of the start.
        let Some(next) = free.max_by_key(|index| (programs[*index].priority, *index)) else { break };
        ranks[next] = rank;
    }
    ranks
}

/// Adds dependencies to rules. `place` says where in the table a program of the configuration is.
pub fn relate(
    rules: &mut Rules,
    own: usize,
    programs: &[Rc<Program>],
    ranks: &[usize],
    place: &dyn Fn(&str) -> Option<ChildId>,
) {
    let Some(program) = programs.get(own) else { return };
    let find = |index: &usize| programs.get(*index).and_then(|program| place(&program.name));
    program.after.iter().filter_map(find).for_each(|child| rules.after.insert(child));
    program.requires.iter().filter_map(find).for_each(|child| rules.requires.insert(child));
    for (index, other) in programs.iter().enumerate() {
        let depends = other.after.contains(&own) || other.requires.contains(&own);
        let outranks = other.priority > program.priority && ranks[index] < ranks[own];
        if depends || outranks {
            place(&other.name).into_iter().for_each(|child| rules.stops_after.insert(child));
        }
    }
}
