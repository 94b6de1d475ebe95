//! Power cuts: a run of the image is recorded once, write by write; every cut is a card as that run's card would be, had
//! power gone at that moment, and it has to boot, with everything that was acknowledged before.
//!
//! `MULTUSD_CUTS`: how many (5); `MULTUSD_CUTS_SEED`; `MULTUSD_CUTS_AT_ONCE`: machines at the same time (1). A failure says
//! how to see it again.

mod bare;
mod recording;

use std::env;
use std::fs::{self, File};
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Instant, SystemTime};

use super::card::{Card, said, tool};
use super::harness::Random;
use super::writes::Cut;
use bare::Bare;
use recording::{Note, Recording, What};

/// A number from the environment.
fn number(name: &str) -> Option<u64> {
    let text = env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} = {text}: a number is expected")))
}

/// Copies a card, holes as holes.
fn copy(from: &Path, to: &Path) {
    let done = Command::new("cp").arg("--sparse=always").args([from, to]).status();
    assert!(done.is_ok_and(|status| status.success()), "no copy of {}", from.display());
}

/// What a card must have after a cut.
#[derive(Debug, PartialEq, Eq)]
struct Owed {
    /// The generation that was acknowledged last, and the newest that may be there instead.
    generations: (u32, u32),
    /// Lines 1 to this are in the log.
    lines: u32,
}

fn owed(notes: &[Note], entries: usize) -> Owed {
    let mut owed = Owed { generations: (1, 1), lines: 0 };
    for note in notes.iter().filter(|note| note.entries <= entries) {
        match note.what {
            What::Begun(number) => owed.generations.1 = number,
            What::Reloaded(number) => owed.generations.0 = number,
            What::Synced(number) => owed.lines = number,
            What::Phase(_) => {}
        }
    }
    owed
}

/// One cut: when, and what the card had written by then.
struct Try<'a> {
    recording: &'a Recording,
    seed: u64,
}

impl Try<'_> {
    /// Each phase gets as many.
    fn moment(&self, index: usize) -> (&str, usize, Random) {
        let mut random = Random(self.seed.wrapping_add((index as u64).wrapping_mul(0x1_0000_0001)));
        let phases = self.recording.phases();
        let mut names: Vec<&str> = phases.iter().map(|phase| phase.0).collect();
        names.sort_unstable();
        names.dedup();
        let name = names[index % names.len()];
        let alike: Vec<_> = phases.iter().filter(|phase| phase.0 == name).collect();
        let (_, from, to) = *alike[random.below(alike.len() as u64) as usize];
        let entries = from + 1 + random.below((to - from).max(1) as u64) as usize;
        (name, entries.min(self.recording.record.len()), random)
    }

    /// Boots the card of a cut; a sentence about it, or what is wrong.
    fn run(&self, index: usize) -> Result<String, String> {
        let (phase, entries, mut random) = self.moment(index);
        let owed = owed(&self.recording.notes, entries);
        let folder = self.recording.folder.join(format!("cut-{index}"));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
        let card = Card { board: "qemu-virt".into(), folder };
        copy(&self.recording.blank(), &card.path());
        let file = File::options().write(true).open(card.path()).map_err(|error| error.to_string())?;
        let Cut { unflushed, whole, missing, torn } =
            self.recording.record.cut(entries, &mut random, &file).map_err(|error| error.to_string())?;
        let about = format!(
            "cut {index}: {phase}, after write {entries}; since the last flush {unflushed}: {whole} there, {torn} torn, {missing} \
             missing; owed {owed:?}"
        );
        let began = Instant::now();
        let result = judge(&card, self.recording, &owed);
        match result {
            Ok(words) => {
                let _ = fs::remove_dir_all(&card.folder);
                Ok(format!("{about}: {words}, {:.1} s", began.elapsed().as_secs_f64()))
            }
            Err(error) => Err(format!(
                "{about}: {error}\n(again: MULTUSD_CUTS_RECORD={} MULTUSD_CUTS_SEED={} MULTUSD_CUTS_ONLY={index}; the card is in \
                 {})",
                self.recording.folder.display(),
                self.seed,
                card.folder.display()
            )),
        }
    }
}

/// The identity of the data partition's file system, where there is one that is in use.
fn data_identity(card: &Card) -> Option<Vec<u8>> {
    use std::os::unix::fs::FileExt;
    let data = *card.partitions().get(2).filter(|data| data.kind == 0x83)?;
    let mut identity = vec![0; 16];
    let file = File::open(card.path()).expect("the card");
    // The superblock's, at 1024, has it at 0x68.
    file.read_exact_at(&mut identity, data.start + 1024 + 0x68).expect("a superblock");
    Some(identity)
}

/// The file in which the firmware finds the levels of outputs.
fn outputs(card: &Card) -> String {
    card.get("/outputs.txt").map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}

/// The same, as the first generation of the configuration wants it; no other has an output.
fn outputs_of_the_first(text: &str) -> bool {
    text.lines().filter(|line| !line.starts_with('#')).eq(["gpio=17=op,dl"]) && text.ends_with('\n')
}

/// Boots it, and looks whether everything is there.
fn judge(card: &Card, recording: &Recording, owed: &Owed) -> Result<String, String> {
    let before = data_identity(card);
    // The firmware repairs nothing: to it the file is whole, or not there.
    let text = outputs(card);
    if !text.is_empty() && !outputs_of_the_first(&text) {
        return Err(format!("the firmware reads {text:?}"));
    }
    let mut bare = Bare::restored(&recording.boot, &card.path());
    let mut generation = None;
    for _ in 0..2 {
        let lines = ["agent is ready".to_owned(), "generation ".to_owned()];
        let (which, rest) = bare.any(&lines)?;
        if which == 1 {
            generation = Some(rest);
        }
    }
    drop(bare);
    let generation = generation.and_then(|text| text.parse().ok()).ok_or("the agent came twice")?;
    let (least, most) = owed.generations;
    if !(least..=most).contains(&generation) {
        return Err(format!("generation {generation} runs"));
    }
    let text = outputs(card);
    let is_right = if generation == 1 { outputs_of_the_first(&text) } else { text.is_empty() };
    if !is_right {
        return Err(format!("generation {generation}, and in outputs.txt is {text:?}"));
    }
    if before.is_some() && before != data_identity(card) {
        return Err("the data partition was formatted again".into());
    }
    let partitions = card.partitions();
    let boot = card.extracted(partitions[0], "boot.part");
    let done = tool("fsck.vfat", &["-n".into(), boot.display().to_string()]);
    if !done.status.success() {
        return Err(format!("generation {generation}; fsck.vfat: {}", said(&done)));
    }
    let data = *partitions.get(2).filter(|data| data.kind == 0x83).ok_or("there is no data partition")?;
    let data = card.extracted(data, "data.part").display().to_string();
    // The boot replayed the journal, and has written since: once more, as the next boot would do it.
    let mended = tool("e2fsck", &["-p".into(), data.clone()]);
    let done = tool("e2fsck", &["-f".into(), "-n".into(), data.clone()]);
    if mended.status.code().is_none_or(|code| code > 1) || !done.status.success() {
        return Err(format!("e2fsck: {}{}", said(&mended), said(&done)));
    }
    let log = card.folder.join("log");
    tool("debugfs", &["-R".into(), format!("dump /log/agent-stdout.log {}", log.display()), data]);
    let log = fs::read(log).unwrap_or_default();
    let log = String::from_utf8_lossy(&log);
    for number in 1..=owed.lines {
        let end = format!(" line {number}");
        match log.lines().filter(|line| line.ends_with(&end)).count() {
            1 => {}
            count => return Err(format!("line {number} of the log is there {count} times:\n{log}")),
        }
    }
    Ok(format!("generation {generation} runs, {} lines of the log are there", log.lines().count()))
}

#[test]
fn whatever_power_takes_the_card_boots_with_everything_that_was_acknowledged() {
    let recording = match env::var("MULTUSD_CUTS_RECORD") {
        Ok(folder) => Recording::kept(Path::new(&folder)),
        Err(_) => {
            let began = Instant::now();
            let recording = Recording::make();
            println!(
                "recorded: {} writes and flushes, {:.0} s",
                recording.record.len(),
                began.elapsed().as_secs_f64()
            );
            recording
        }
    };
    for (name, from, to) in recording.phases() {
        println!("  {name}: {} to {to}", from + 1);
    }
    let now = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let seed = number("MULTUSD_CUTS_SEED").unwrap_or_else(now);
    let count = number("MULTUSD_CUTS").unwrap_or(5) as usize;
    println!("{count} cuts, seed {seed}");
    let attempt = Try { recording: &recording, seed };
    let (next, failures) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let only = number("MULTUSD_CUTS_ONLY").map(|index| index as usize);
    let began = Instant::now();
    let work = || {
        loop {
            let index = next.fetch_add(1, SeqCst);
            if index >= only.map_or(count, |only| only + 1) {
                break;
            }
            if only.is_some_and(|only| index != only) {
                continue;
            }
            match attempt.run(index) {
                Ok(words) => println!("{words}"),
                Err(error) => {
                    println!("FAILED {error}");
                    failures.lock().expect("no panic").push(index);
                }
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..number("MULTUSD_CUTS_AT_ONCE").unwrap_or(1).max(1) {
            scope.spawn(work);
        }
    });
    println!("{count} cuts in {:.0} s", began.elapsed().as_secs_f64());
    let failures = failures.into_inner().expect("no panic");
    assert!(failures.is_empty(), "cuts that failed: {failures:?}");
}

#[test]
fn what_is_owed_is_what_was_acknowledged_before_the_cut() {
    let note = |entries, what| Note { entries, what };
    let notes = [
        note(0, What::Phase("first boot".into())),
        note(10, What::Synced(7)),
        note(20, What::Begun(2)),
        note(30, What::Reloaded(2)),
    ];
    let owed = |entries| owed(&notes, entries);
    assert_eq!(owed(9), Owed { generations: (1, 1), lines: 0 });
    assert_eq!(owed(10), Owed { generations: (1, 1), lines: 7 });
    assert_eq!(owed(25), Owed { generations: (1, 2), lines: 7 });
    assert_eq!(owed(30), Owed { generations: (2, 2), lines: 7 });
}
