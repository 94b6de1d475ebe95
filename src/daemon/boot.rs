//! The two ways to begin: a new life, in which everything a former one left is ended before
//! anything starts; or taking over from a supervisor that died, in which nothing is.

use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::atomic::Ordering::SeqCst;

use crate::config::{self, Config};
use crate::limits::{CHILD_COUNT_MAX, CONTROL_CLIENT_COUNT_MAX};
use crate::protocol::Text;
use crate::supervisor::{Actions, ChildId, Event, Generation, Saved, Supervisor};
use crate::sys::cgroup::Hierarchy;
use crate::sys::life::LifeFile;
use crate::sys::page::{Keep, Page, SAVED_WORDS_MAX, request};
use crate::sys::poll::{self, Interest, Poller};
use crate::sys::proc::{MARKER, Quarry};
use crate::sys::{SysError, clock, describe, file, machine, process, reserve, socket};

use crate::time::Millis;

use super::files::RealFiles;
use super::in_force::InForce;
use super::jobs::{Prepared, SurroundingsOwned, prepare, resolve_all};
use super::news::News;
use super::observe::handle;
use super::perform::FLAG_READY;
use super::reload::understand;
use super::spec::{self, Base, Resolved, Spec, digest};
use super::table::{Beside, Entry, rules};
use super::{Daemon, Options, Token, last_good, reload, shutdown};

/// A sentence: why there is no beginning.
pub struct Refusal(pub String);

impl From<SysError> for Refusal {
    fn from(error: SysError) -> Self {
        Refusal(error.to_string())
    }
}

impl Daemon {
    pub(super) fn begin(page: &'static Page, options: &Options) -> Result<Daemon, Refusal> {
        if !page.is_sound() {
            return Err(Refusal("the adoption page is not of this version".into()));
        }
        machine::raise_descriptor_limit();
        reserve::fill();
        page.settle_kept();
        match in_force(page) {
            Some(number) => Daemon::take_over(page, options, number),
            None => Daemon::begin_life(page, options),
        }
    }

    /// Nothing of ours is there yet.
    fn begin_life(page: &'static Page, options: &Options) -> Result<Daemon, Refusal> {
        let First { mut prepared, note, is_the_file } = first_configuration(page, options);
        let children = options.children;
        let mut config =
            understand(&prepared.packed(), children).map(|(_, config)| config).unwrap_or_default();
        let run_dir = run_dir(options, &config);
        // Full or read-only is no reason to leave the machine to itself; what is wrong for good is.
        let mut trouble = None;
        let mut bear = |error: SysError| {
            // What follows from the first is no other trouble.
            let is_bearable = error.is_of_storage() || trouble.is_some();
            trouble.get_or_insert(error);
            if is_bearable { Ok(()) } else { Err(at(&run_dir, &error)) }
        };
        file::make_directory(&run_dir, 0o755).or_else(&mut bear)?;
        // A supervisor killed while it began this life may have taken it already.
        if page.kept(Keep::Lock).is_none() {
            match take_lock(&run_dir) {
                Ok(None) => {
                    return Err(Refusal(format!(
                        "another multusd runs in {} (see multusd.pid there)",
                        run_dir.display()
                    )));
                }
                Ok(lock) => page.keep(Keep::Lock, lock),
                Err(error) => bear(error)?,
            }
        }
        end_former_life(&run_dir);
        if let Some(mut again) = last_good_configuration(page, options).filter(|_| !is_the_file) {
            // A former life was about to keep a newer one as it ended; from now on nobody is.
            config = understand(&again.packed(), children).map(|(_, config)| config).unwrap_or_default();
            prepared = again;
        }
        let life = match LifeFile::create(&run_dir.join("life"), page.life.load(SeqCst)) {
            Ok(life) => life,
            Err(error) => bear(error).and_then(|()| Ok(LifeFile::in_memory()?))?,
        };
        page.keep(Keep::Null, Some(file::null()?));
        let mut daemon = Daemon::assemble(page, options, run_dir.clone(), life, &config)?;
        if let Some(hierarchy) = &daemon.hierarchy {
            hierarchy.clear()?;
        }
        // A supervisor that was killed on the way here left half of it.
        page.keep(Keep::Control, None);
        daemon.furnish().or_else(&mut bear)?;
        if let Some(error) = trouble {
            daemon.say_limitation(format_args!(
                "the run directory fails ({error}): what is missing there, multusctl or notify sockets, comes with the next \
                 reload (SIGHUP), and a later life may not find what this one leaves"
            ));
        }
        match page.image.load(SeqCst) {
            0 => {}
            errno => daemon.say_limitation(format_args!(
                "multusd runs from its file, not from memory ({}): where that cannot be read any more, nothing of it can be \
                 replaced",
                describe(errno)
            )),
        }
        let beats = |program: &Rc<config::Program>| program.heartbeat.is_some() && spec::uses_notify(program);
        if config.programs.iter().any(beats) {
            let length = socket::lengthen_queues();
            if length < 64 {
                daemon.say_limitation(format_args!(
                    "a NOTIFY_SOCKET holds {length} messages only (net.unix.max_dgram_qlen): who beats fast may wait"
                ));
            }
        }
        if let Some(name) = &config.daemon.hostname
            && let Err(error) = machine::set_host_name(name)
        {
            daemon.say_limitation(format_args!("hostname = {name}: {error}"));
        }
        let memory = file::memory(c"multusd-config")?;
        file::append(std::os::fd::AsFd::as_fd(&memory), &prepared.packed())?;
        if let Some(note) = note {
            daemon.set_note(format_args!("{note}"));
        }
        daemon.apply(InForce::new(config, prepared.resolved), false);
        daemon.say_open_promises();
        // From here on a successor takes over; before, it begins this life again.
        page.keep(Keep::Config, Some(memory));
        if is_the_file {
            daemon.keep_last_good(true);
        }
        daemon.tend_boots();
        Ok(daemon)
    }

    /// A supervisor died; what it kept is on the page.
    fn take_over(page: &'static Page, options: &Options, number: i32) -> Result<Daemon, Refusal> {
        let bytes = file::read_memory(poll::borrow(number))?;
        let (prepared, config) = understand(&bytes, options.children)
            .ok_or(Refusal("the configuration in memory is damaged".into()))?;
        if page.kept(Keep::Config).is_none() {
            // It died between putting the new one aside and in place: the old one stands.
            page.keep_as(Keep::ConfigBefore, Keep::Config);
            page.probation_until.store(0, SeqCst);
        }
        page.keep(Keep::ConfigNext, None);
        let run_dir = run_dir(options, &config);
        let life = LifeFile::open(&run_dir.join("life"))
            .or_else(|_| {
                // Somebody removed it. What starts from here on is found by a later life again.
                file::make_directory(&run_dir, 0o755)?;
                LifeFile::create(&run_dir.join("life"), page.life.load(SeqCst))
            })
            .or_else(|_| LifeFile::in_memory())?;
        let mut daemon = Daemon::assemble(page, options, run_dir, life, &config)?;
        daemon.watch_control();
        daemon.in_force = InForce::new(config, prepared.resolved);
        daemon.adopt_outputs();
        if let Err(error) = daemon.adopt_levels() {
            say!("no inputs: {error}");
        }
        daemon.adopt_boots();
        daemon.adopt_values();
        for index in 0..CHILD_COUNT_MAX.min(page.program_slots.load(SeqCst) as usize) {
            daemon.adopt(ChildId(index as u16));
        }
        daemon.apply(daemon.in_force.clone(), page.probation_until.load(SeqCst) != 0);
        daemon.tend_boots();
        daemon.resume_probation();
        if page.stopping.load(SeqCst) != 0 {
            daemon.stop_everything();
        }
        daemon.take_exits();
        if page.taking_over.load(SeqCst) != 0 {
            // The executable was the first part of it.
            page.requests.fetch_or(request::RELOAD, SeqCst);
        }
        // What was asked for between two supervisors.
        if let Some(counter) = page.kept(Keep::Wake) {
            poll::wake(poll::borrow(counter));
        }
        Ok(daemon)
    }

    fn assemble(
        page: &'static Page,
        options: &Options,
        run_dir: PathBuf,
        life: LifeFile,
        config: &Config,
    ) -> Result<Daemon, Refusal> {
        let guard = process::open_process(page.guard.load(SeqCst))?;
        let poller = Poller::new()?;
        let mut daemon = Daemon {
            page,
            options: options.clone(),
            life,
            poller,
            core: Box::new(Supervisor::new(page.life.load(SeqCst))),
            actions: Box::new(Actions::new()),
            undecided: false,
            table: (0..CHILD_COUNT_MAX).map(|_| None).collect(),
            hierarchy: None,
            is_hardened: false,
            clients: [const { None }; CONTROL_CLIENT_COUNT_MAX],
            is_deaf: false,
            news: News::new(page.events.load(SeqCst)),
            in_force: InForce::default(),
            base: Base::inherit(),
            waiting: Vec::new(),
            note: Text::new(),
            limitations: heapless::Vec::new(),
            reload: reload::Progress::default(),
            renewing: None,
            end: shutdown::End::default(),
            outputs: Vec::new(),
            inputs: Vec::new(),
            board: None,
            values: None,
            outputs_moved: false,
            counts: Default::default(),
            sought: None,
            seeks: 0,
            watch: super::watchdog::Watch::default(),
            boots: super::boots::Boots::default(),
            logs: super::logs::Logs::default(),
            retry_at: None,
            _guard: guard,
            run_dir,
        };
        daemon.watch(std::os::fd::AsFd::as_fd(&daemon._guard), Token::Guard, Interest::Read);
        if let Some(number) = page.kept(Keep::Wake) {
            daemon.watch(poll::borrow(number), Token::Wake, Interest::Read);
        }
        daemon.open_hierarchy(config);
        Ok(daemon)
    }

    /// What others look for in the run directory, as far as it is not there yet.
    pub(super) fn furnish(&mut self) -> Result<(), SysError> {
        if self.page.kept(Keep::Control).is_some() {
            return Ok(());
        }
        file::make_directory(&self.run_dir, 0o755)?;
        file::make_directory(&self.run_dir.join("notify"), 0o755)?;
        self.page.keep(Keep::Control, Some(socket::listen_control(&self.run_dir.join("control"))?));
        self.watch_control();
        let pid = format!("{}\n", self.page.guard.load(SeqCst));
        file::replace(&self.run_dir.join("multusd.pid"), pid.as_bytes())
    }

    pub(super) fn watch_control(&mut self) {
        if let Some(number) = self.page.kept(Keep::Control) {
            self.watch(poll::borrow(number), Token::Control, Interest::Read);
        }
    }

    fn open_hierarchy(&mut self, config: &Config) {
        if !process::is_root() {
            self.say_limitation(format_args!(
                "not root: user, group, raised priorities and limits cannot be set, the machine not rebooted"
            ));
        }
        let below = match &config.daemon.cgroup {
            config::Cgroup::Off => return,
            config::Cgroup::Auto => None,
            config::Cgroup::Path(path) => Some(PathBuf::from(path)),
        };
        let own = [self.page.guard.load(SeqCst), std::process::id()];
        // The same name in every life, so that what a former one left is found.
        let name = format!("multusd-{:08x}", digest(self.run_dir.as_os_str().as_encoded_bytes()) as u32);
        match Hierarchy::open(below.as_deref(), &name, &own) {
            Ok(hierarchy) => {
                self.hierarchy = Some(hierarchy);
            }
            Err(why) => self.say_limitation(format_args!(
                "no control groups ({why}): a program's processes are found by session and environment instead, \
                 memory_max and pids_max have no effect"
            )),
        }
    }

    /// One program that a former supervisor knew.
    fn adopt(&mut self, child: ChildId) {
        let index = child.index();
        let (slot, hook) = (self.page.program(index), self.page.hook(index));
        let mut words = [0; SAVED_WORDS_MAX];
        let name = slot.name();
        if name.is_empty() || !slot.saved(&mut words) {
            // It had a place, but nothing had been decided for it yet: it is installed again.
            return slot.clear();
        }
        slot.settle();
        hook.settle();
        let known = self.in_force.program(&name);
        let retiring = known.is_none();
        // A program that left the configuration just then: enough of one to stop it by.
        let Some((program, spec)) = known.or_else(|| leaving(&name)) else { return };
        let mut rules = rules(&program);
        rules.output_limit = self.output_limit(child).or(rules.output_limit);
        let mut entry = Entry::new(program, spec, &self.base);
        entry.saved = words;
        entry.adopted = true;
        entry.group_killed = true;
        entry.frozen = true;
        if slot.is_alive() {
            entry.process = handle(self.page, slot);
        }
        // An on_start hook prepares the generation to come.
        if hook.generation() >= slot.generation() && (hook.is_alive() || hook.exit().is_some()) {
            let beside = Beside::from_number(hook.purpose.load(SeqCst));
            // Searches of ours are simply started again.
            entry.beside = beside
                .filter(|beside| *beside != Beside::Sweep || hook.is_alive())
                .map(|beside| (beside, Generation(hook.generation())));
        }
        entry.beside_is_old = !hook.is_alive();
        if let Some((Beside::Reload, _)) = entry.beside {
            // When it was started is not known any more: it has its time once more.
            let time = match &entry.program.reload {
                Some(config::Reload::Command(command)) => command.timeout,
                _ => Millis::ZERO,
            };
            entry.reload_until = Some(clock::now() + time);
        }
        self.table[index] = Some(Box::new(entry));
        let now = clock::now();
        let mut saved: Saved = Default::default();
        let length = saved.len();
        saved.copy_from_slice(&words[..length]);
        self.core.adopt(now, child, rules, saved);
        if let Some(status) = self.core.status(child)
            && let Some(entry) = self.entry(child)
        {
            entry.published = status.state;
            super::report::explain_end(entry, status.last_end);
        }
        self.equip(child);
        self.watch_process(child);
        if slot.flags.load(SeqCst) & FLAG_READY != 0 {
            self.observe(Event::ReadyReported { child, generation: Generation(slot.generation()) });
        }
        if retiring {
            if let Some(entry) = self.entry(child) {
                entry.retiring = true;
            }
            self.core.retire(now, child);
        }
    }
}

/// The configuration that a former supervisor left in force.
fn in_force(page: &Page) -> Option<i32> {
    page.kept(Keep::Config).or(page.kept(Keep::ConfigBefore))
}

/// A life has begun: a supervisor that cannot go on leaves that to its successor.
pub fn is_under_way(page: &Page) -> bool {
    in_force(page).is_some()
}

/// A program with every default and no command: what is needed to stop one.
fn leaving(name: &str) -> Option<(Rc<config::Program>, Rc<Spec>)> {
    let text = format!("[program:{name}]\ncommand = /nowhere\n");
    let program = config::load_text(&text).ok()?.config.programs.into_iter().next()?;
    Some((program, Rc::default()))
}

fn at(path: &Path, error: &SysError) -> Refusal {
    Refusal(format!("{}: {error}", path.display()))
}

/// The lock on the run directory; `None`: another instance has it. Copies of a former life's
/// supervisor that are just dying have it too, for milliseconds.
fn take_lock(run_dir: &Path) -> Result<Option<std::os::fd::OwnedFd>, SysError> {
    for _ in 0..50 {
        if let Some(lock) = file::lock(&run_dir.join("lock"))? {
            return Ok(Some(lock));
        }
        file::pause(20);
    }
    Ok(None)
}

/// The run directory; right whatever the working directory.
fn run_dir(options: &Options, config: &Config) -> PathBuf {
    let path = options.run_dir.as_deref().unwrap_or(Path::new(&config.daemon.run_dir));
    std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf())
}

/// What a life begins with.
struct First {
    prepared: Prepared,
    /// What an operator should know about it.
    note: Option<String>,
    /// It is the file's, not what stands in for it.
    is_the_file: bool,
}

/// The file's configuration; else the last good one; else none, so that what reaches the machine
/// from outside (`multusctl`) still does. With a sentence where it is not the file's.
fn first_configuration(page: &Page, options: &Options) -> First {
    let life = page.life.load(SeqCst);
    let around = |config: &Config| SurroundingsOwned { run_dir: run_dir(options, config), life };
    let errors = match prepare(&options.config, options.children, &around) {
        Ok(read) => {
            read.warnings.iter().for_each(|warning| say!("warning: {warning}"));
            read.missing.iter().for_each(|sentence| say!("{sentence}"));
            // One program that lacks its user must not keep all the others from running.
            let note = read.missing.into_iter().next();
            return First { prepared: read.prepared, note, is_the_file: true };
        }
        Err(errors) => errors,
    };
    errors.lines().for_each(|error| say!("{error}"));
    let first = errors.lines().next().unwrap_or("").to_owned();
    match last_good_configuration(page, options) {
        Some(prepared) => {
            let note = Some(format!("the last good configuration is in force, because: {first}"));
            First { prepared, note, is_the_file: false }
        }
        None => {
            let prepared = Prepared { text: String::new(), resolved: Resolved::default() };
            let note = Some(format!("nothing is supervised, because: {first}"));
            First { prepared, note, is_the_file: false }
        }
    }
}

/// The last good configuration, if one was kept.
fn last_good_configuration(page: &Page, options: &Options) -> Option<Prepared> {
    let text = state_dir(&options.config).and_then(|directory| last_good::recall(Path::new(&directory)))?;
    let mut loaded = config::load_kept(&text, options.children).ok()?;
    super::bundled::add(&mut loaded.config);
    let run_dir = run_dir(options, &loaded.config);
    let around = SurroundingsOwned { run_dir, life: page.life.load(SeqCst) };
    let (resolved, _) = resolve_all(&loaded.config, &around);
    Some(Prepared { text: loaded.canonical, resolved })
}

/// Where a configuration that cannot be understood as a whole says its state is kept.
fn state_dir(path: &Path) -> Option<String> {
    use config::Files;
    let bytes = RealFiles(&[]).read(&path.to_string_lossy()).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let said = text.lines().find_map(|line| {
        let (key, value) = line.split_once('=')?;
        (key.trim() == "state_dir").then(|| value.trim().trim_matches('"').to_owned())
    });
    said.or_else(|| Some(config::load_text("").ok()?.config.daemon.state_dir))
}

/// Ends whatever a former life left, should it not have ended in order.
fn end_former_life(run_dir: &Path) {
    let Some(former) = LifeFile::former(&run_dir.join("life")) else { return };
    let quarry = Quarry {
        marker: format!("{MARKER}={:016x}/", former.life).into_bytes(),
        roots: former.processes,
        ancestor: None,
    };
    quarry.kill_all();
}
