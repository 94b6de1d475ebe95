//! Proves that the simulation would notice: breaks the core in one place at a time and sees the
//! simulation fail. A mutant that survives is a promise nobody checks.
//!
//! Must never touch the sources themselves: it works on a copy, in a package of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// How a mutant must die.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Death {
    /// A test of the simulation fails.
    Test,
    /// The invariant is a constant assertion or a type: it does not compile.
    Compiler,
}

struct Mutation {
    name: &'static str,
    /// The invariant of `src/supervisor/mod.rs` that it breaks.
    invariant: u8,
    file: &'static str,
    /// Occurs exactly once in the file.
    find: &'static str,
    replace: &'static str,
    death: Death,
}

const fn mutation(
    name: &'static str,
    invariant: u8,
    file: &'static str,
    find: &'static str,
    replace: &'static str,
) -> Mutation {
    Mutation { name, invariant, file, find, replace, death: Death::Test }
}

const CHILD: &str = "src/supervisor/child.rs";
const ORDER: &str = "src/supervisor/order.rs";
const STEP: &str = "src/supervisor/step.rs";
const OUTPUTS: &str = "src/supervisor/outputs.rs";
const MOD: &str = "src/supervisor/mod.rs";
const WATCH: &str = "src/supervisor/watch.rs";
const SERIES: &str = "src/supervisor/series.rs";

const MUTATIONS: &[Mutation] = &[
    mutation(
        "spawns without waiting for the outputs",
        1,
        STEP,
        "Phase::Securing => self.secure(now) && self",
        "Phase::Securing => (self.secure(now) || true) && self",
    ),
    mutation(
        "believes a confirmation while the writer lives",
        1,
        CHILD,
        "Event::OutputsConfirmed { attempt, .. } if !self.may_write() => self",
        "Event::OutputsConfirmed { attempt, .. } => self",
    ),
    mutation(
        "takes a launcher that returned for the end of its daemon",
        3,
        STEP,
        "Starting { stage, .. } => matches!(stage, Stage::Up { .. }),",
        "Starting { .. } => true,",
    ),
    mutation("waits for the exit before it forces", 3, MOD, "        slot.died(now);\n", ""),
    mutation(
        "believes an attempt that was ordered before the tree was empty",
        1,
        CHILD,
        "            self.outputs.endanger(now);\n            self.outputs.renew(1);\n        }\n    }\n\n    /// The outputs are safe, or",
        "            self.outputs.endanger(now);\n        }\n    }\n\n    /// The outputs are safe, or",
    ),
    mutation(
        "takes the main process for the whole tree",
        2,
        CHILD,
        "            Phase::Starting { .. } | Phase::Running { .. } | Phase::Paused => {\n                self.fail(now, End::Exited(exit), jitter);",
        "            Phase::Starting { .. } | Phase::Running { .. } | Phase::Paused => {\n                self.fail(now, End::Exited(exit), jitter);\n                self.tree_emptied(now);",
    ),
    mutation(
        "listens to facts about another incarnation",
        2,
        CHILD,
        "Event::TreeEmptied { generation, .. } if generation == current => self.tree_emptied(now),",
        "Event::TreeEmptied { .. } | Event::Exited { .. } => self.tree_emptied(now),",
    ),
    mutation(
        "forgets that a spawn is under way when it is stopped",
        2,
        ORDER,
        "                self.phase = Phase::Stopping { since: now, stage: StopStage::Unborn };\n                return;",
        "                self.phase = Phase::Down(Rest::Due);\n                return;",
    ),
    mutation(
        "judges a silent child late",
        3,
        STEP,
        "(self.last_beat + self.beat_limit.unwrap_or(rules)).max(self.extended),",
        "(self.last_beat + self.beat_limit.unwrap_or(rules) + Millis(100)).max(self.extended),",
    ),
    mutation(
        "lets who said that it ends stay for ever",
        3,
        STEP,
        "let over = self.leave_deadline().is_due(now);",
        "let over = self.leave_deadline().is_due(now) && self.owns_outputs();",
    ),
    mutation(
        "takes a beat from the future at its word",
        3,
        CHILD,
        "self.last_beat.max(at.min(now))",
        "self.last_beat.max(at)",
    ),
    mutation(
        "forgets the boot level",
        1,
        STEP,
        "if self.spawn_count == 0 { Level::Boot }",
        "if self.spawn_count == u32::MAX { Level::Boot }",
    ),
    mutation(
        "keeps everything up while the gate is closed",
        4,
        "src/supervisor/view.rs",
        "let all = halt != Halt::No;",
        "let all = halt == Halt::Closing;",
    ),
    mutation(
        "counts checks that are further apart than the window",
        3,
        CHILD,
        "(self.checks & window).count_ones()",
        "self.checks.count_ones()",
    ),
    mutation(
        "forces unconfirmed outputs once",
        3,
        OUTPUTS,
        "if !self.urgent && now <= self.forced_at {",
        "if !self.urgent {",
    ),
    mutation(
        "kills without forcing",
        3,
        CHILD,
        "        self.phase = Phase::Clearing(fate);\n        if self.owns_outputs() {",
        "        self.phase = Phase::Clearing(fate);\n        if false {",
    ),
    mutation(
        "kills who was silent only because the supervisor was late",
        3,
        CHILD,
        "self.last_beat = self.last_beat.max(at.min(now));",
        "self.last_beat = self.last_beat.max(self.last_beat);",
    ),
    mutation(
        "feeds regardless of outputs",
        4,
        MOD,
        "&& watch.judge(now, overdue)",
        "&& watch.judge(now, overdue && false)",
    ),
    mutation(
        "feeds regardless of the guard",
        4,
        WATCH,
        "!overdue && self.is_answered(now)",
        "!overdue && (self.is_answered(now) || true)",
    ),
    mutation(
        "starves the watchdog for any unconfirmed output",
        4,
        CHILD,
        "self.rules.output_limit.is_some_and(|limit| self.outputs.is_overdue(now, limit))",
        "self.rules.output_limit.is_some_and(|_| self.outputs.is_overdue(now, Millis(0)))",
    ),
    mutation(
        "counts the limit from the last force",
        4,
        OUTPUTS,
        "        self.attempt = self.attempt.saturating_add(1);\n        self.forced_at = now;",
        "        self.attempt = self.attempt.saturating_add(1);\n        self.danger = Some(now);\n        self.forced_at = now;",
    ),
    mutation("does not pause", 5, CHILD, "Fate::Retry { at: now + pause }", "Fate::Retry { at: now }"),
    mutation(
        "restarts a failed spawn at the same moment",
        5,
        CHILD,
        "matches!(end, End::NotSpawned | End::HookFailed) || now",
        "matches!(end, End::HookFailed) || end != End::NotSpawned && now",
    ),
    mutation(
        "runs a failed on_start again at the same moment",
        5,
        CHILD,
        "matches!(end, End::NotSpawned | End::HookFailed) || now",
        "matches!(end, End::NotSpawned) || end != End::HookFailed && now",
    ),
    mutation(
        "starts again at the same moment what ended as it started",
        5,
        CHILD,
        "now.since(self.born) == Millis::ZERO;",
        "now < self.born;",
    ),
    mutation(
        "takes being ready for being healthy",
        5,
        CHILD,
        "Phase::Running { since } => now.since(since) >= self.rules.health_time,",
        "Phase::Running { since } => now >= since,",
    ),
    mutation(
        "forgets to double the pause",
        5,
        SERIES,
        "self.rung = self.rung.saturating_add(1);",
        "self.rung = self.rung.max(1);",
    ),
    mutation(
        "leaves a withheld feed due",
        6,
        WATCH,
        "        self.next = now + self.interval;\n",
        "        if !overdue {\n            self.next = now + self.interval;\n        }\n",
    ),
    mutation(
        "forces again at the same moment",
        6,
        OUTPUTS,
        "if !self.urgent && now <= self.forced_at {",
        "if !self.urgent && now < self.forced_at {",
    ),
    mutation(
        "asks to be woken for what is due already",
        6,
        STEP,
        "if deadline > now {",
        "if deadline.0 > 0 {",
    ),
    mutation(
        "takes the end of time for a deadline",
        6,
        "src/time.rs",
        "self.0 <= now.0 && self.0 != u64::MAX",
        "self.0 <= now.0",
    ),
    mutation(
        "gives every child's orders twice",
        7,
        MOD,
        "                push(actions, action);\n            }\n            if let",
        "                push(actions, action);\n                push(actions, action);\n            }\n            if let",
    ),
    Mutation {
        name: "has a list too small for all children",
        invariant: 7,
        file: "src/limits.rs",
        find: "CHILD_COUNT_MAX * ACTIONS_PER_CHILD_MAX + 2;",
        replace: "CHILD_COUNT_MAX * 2;",
        death: Death::Compiler,
    },
    Mutation {
        name: "allows a child fewer orders than it can have",
        invariant: 7,
        file: "src/limits.rs",
        find: "pub const ACTIONS_PER_CHILD_MAX: usize = 4;",
        replace: "pub const ACTIONS_PER_CHILD_MAX: usize = 3;",
        death: Death::Compiler,
    },
];

/// Scripts per mutant: the known answers catch most, the scripts the rest.
const SCRIPT_COUNT: &str = "200";

fn copy(from: &Path, to: &Path) {
    if from.is_dir() {
        fs::create_dir_all(to).expect("a directory in the target directory");
        for entry in fs::read_dir(from).expect("readable sources") {
            let entry = entry.expect("readable sources");
            copy(&entry.path(), &to.join(entry.file_name()));
        }
    } else {
        fs::copy(from, to).expect("a copy in the target directory");
    }
}

/// A package with nothing but the core, its simulation and the one crate it needs.
fn make_package(root: &Path, package: &Path) {
    let _ = fs::remove_dir_all(package);
    fs::create_dir_all(package.join("src")).expect("a directory in the target directory");
    for part in ["src/limits.rs", "src/time.rs", "src/supervisor", "tests/sim"] {
        if let Some(parent) = package.join(part).parent() {
            fs::create_dir_all(parent).expect("a directory in the target directory");
        }
        copy(&root.join(part), &package.join(part));
    }
    let lock = fs::read_to_string(root.join("Cargo.lock")).expect("a lock file");
    let version = lock
        .split("name = \"heapless\"\nversion = \"")
        .nth(1)
        .and_then(|rest| rest.split('"').next())
        .expect("heapless in the lock file");
    let manifest = format!(
        "[package]\nname = \"multusd\"\nversion = \"0.1.0\"\nedition = \"2024\"\n\n[workspace]\n\n\
         [dependencies]\nheapless = \"={version}\"\n\n[profile.dev]\nopt-level = 1\ndebug = false\n\
         incremental = true\n"
    );
    fs::write(package.join("Cargo.toml"), manifest).expect("a manifest");
    fs::write(package.join("Cargo.lock"), lock).expect("a lock file");
    let library = "//! The core alone.\npub mod limits;\npub mod supervisor;\npub mod time;\n";
    fs::write(package.join("src/lib.rs"), library).expect("a library");
}

/// Builds, then runs; `Ok` if all tests pass, else how it died and what it said.
fn simulate(package: &Path) -> Result<(), (Death, String)> {
    let cargo = || {
        let mut command = Command::new(env!("CARGO"));
        command.current_dir(package).args(["test", "--offline", "--quiet", "--test", "sim"]);
        command.env("CARGO_TARGET_DIR", package.join("target")).env("MULTUSD_SIM_SCRIPTS", SCRIPT_COUNT);
        command.env("RUST_BACKTRACE", "0").env_remove("MULTUSD_SIM_SEED").env_remove("RUSTFLAGS");
        command
    };
    for (death, last) in [(Death::Compiler, "--no-run"), (Death::Test, "--no-fail-fast")] {
        let output = cargo().arg(last).output().expect("cargo runs");
        if !output.status.success() {
            let text = [output.stdout, output.stderr].concat();
            return Err((death, String::from_utf8_lossy(&text).into_owned()));
        }
    }
    Ok(())
}

#[test]
fn every_mutant_of_the_core_is_noticed_by_the_simulation() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let package = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("mutants");
    make_package(&root, &package);
    let begun = std::time::Instant::now();
    if let Err((death, text)) = simulate(&package) {
        panic!("the unchanged core must pass ({death:?}):\n{text}");
    }
    let mut survivors = Vec::new();
    for mutation in MUTATIONS {
        let source = fs::read_to_string(root.join(mutation.file)).expect("a source");
        let found = source.matches(mutation.find).count();
        assert_eq!(found, 1, "{}: the text to replace occurs {found} times", mutation.name);
        let path = package.join(mutation.file);
        fs::write(&path, source.replacen(mutation.find, mutation.replace, 1)).expect("a mutant");
        let verdict = judge(mutation, simulate(&package));
        fs::write(&path, source).expect("the original again");
        let seconds = begun.elapsed().as_secs();
        let (Ok(line) | Err(line)) = &verdict;
        println!("{seconds:>4} s  invariant {}: {}: {line}", mutation.invariant, mutation.name);
        if verdict.is_err() {
            survivors.push(mutation.name);
        }
    }
    assert!(survivors.is_empty(), "not noticed as they should be: {survivors:#?}");
    // Had a mutant stayed behind, the ones after it would have died of it.
    if let Err((death, text)) = simulate(&package) {
        panic!("the core put back must pass ({death:?}):\n{text}");
    }
}

/// What killed a mutant; an error if nothing did, or not what should have.
fn judge(mutation: &Mutation, outcome: Result<(), (Death, String)>) -> Result<String, String> {
    let Err((death, text)) = outcome else { return Err("survived".into()) };
    let said = match death {
        _ if death != mutation.death => None,
        Death::Compiler => {
            text.lines().find(|line| line.starts_with("error[E0080]") || line.starts_with("error[E0308]"))
        }
        Death::Test => {
            text.lines().find(|line| line.contains("violated: ") || line.starts_with("assertion "))
        }
    };
    match said {
        Some(line) => Ok(line.to_string()),
        None => Err(format!("died by {death:?}, not as it should:\n{text}")),
    }
}

#[test]
fn every_invariant_has_two_mutants_at_least() {
    for invariant in 1..=7 {
        let count = MUTATIONS.iter().filter(|mutation| mutation.invariant == invariant).count();
        assert!(count >= 2, "invariant {invariant} has {count}");
    }
}
