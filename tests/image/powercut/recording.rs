//! One run of a card, recorded: first boot, orders, a reboot, orders. With everything that was acknowledged, and how many
//! entries the record had at that moment: a cut behind it must not lose it.

use std::fmt::{self, Display};
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use super::super::card::Card;
use super::super::writes::{self, Record};
use super::bare::{Bare, Boot};

/// So large that the file system has the block size of a large one.
const CARD_BYTES: u64 = 640 << 20;

/// What the recorded configuration has besides the image's own. It ends with what tells which one it is, so that what is cut
/// off is missed. The output is a Raspberry Pi's, so that the firmware is told of it; the first reload removes it.
const PROGRAMS: &str = "
[output:relay]
gpio = 17

[program:agent]
command = /bin/sh /data/programs/agent

[program:generation]
command = /bin/sh /data/programs/generation 1
";

/// What somebody was told, or began.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// What happens from here on.
    Phase(String),
    /// The file is about to be replaced by this generation's.
    Begun(u32),
    /// `multusctl reload` has returned 0 with it in force.
    Reloaded(u32),
    /// `multusctl log --sync` has returned 0 with this line written.
    Synced(u32),
}

/// The same, and when: with so many entries.
#[derive(Clone, Debug)]
pub struct Note {
    pub entries: usize,
    pub what: What,
}

impl Display for Note {
    fn fmt(&self, to: &mut fmt::Formatter) -> fmt::Result {
        let entries = self.entries;
        match &self.what {
            What::Phase(name) => write!(to, "{entries} phase {name}"),
            What::Begun(number) => write!(to, "{entries} begun {number}"),
            What::Reloaded(number) => write!(to, "{entries} reloaded {number}"),
            What::Synced(number) => write!(to, "{entries} synced {number}"),
        }
    }
}

impl Note {
    fn read(line: &str) -> Note {
        let mut words = line.splitn(3, ' ');
        let mut word = || words.next().unwrap_or_else(|| panic!("a note: {line}"));
        let (entries, kind, rest) = (word().parse().expect("entries"), word(), word());
        let number = || rest.parse().expect("a number");
        let what = match kind {
            "phase" => What::Phase(rest.into()),
            "begun" => What::Begun(number()),
            "reloaded" => What::Reloaded(number()),
            _ => What::Synced(number()),
        };
        Note { entries, what }
    }
}

/// A recorded run.
pub struct Recording {
    pub folder: PathBuf,
    pub record: Record,
    pub notes: Vec<Note>,
    pub boot: Boot,
}

impl Recording {
    /// The card before anything was written to it.
    pub fn blank(&self) -> PathBuf {
        self.folder.join("card")
    }

    /// One that was made before: for a failure's causes.
    pub fn kept(folder: &Path) -> Recording {
        let notes = fs::read_to_string(folder.join("notes")).expect("the notes of a recording");
        let boot = Boot::of(folder);
        // Also removed by whoever wants to try another initramfs.
        if !boot.state.exists() {
            boot.hold(&folder.join("card"));
        }
        Recording {
            folder: folder.into(),
            record: Record::read(&folder.join("record")).expect("the record"),
            notes: notes.lines().map(Note::read).collect(),
            boot,
        }
    }

    /// Makes one.
    pub fn make() -> Recording {
        let card = Card::flashed("powercut", "qemu-virt");
        let file = File::options().write(true).open(card.path()).expect("the card");
        file.set_len(CARD_BYTES).expect("the card's size");
        let text = card.text("/multusd.cfg").replace(";reload_watch = 30s", "reload_watch = 5s");
        let text =
            text.replace(";[system]", "[system]").replace(";copy_programs = false", "copy_programs = true");
        assert!(
            text.contains("\nreload_watch") && text.contains("\ncopy_programs"),
            "the sample has changed"
        );
        card.put("/multusd.cfg", (text + PROGRAMS).replace('\n', "\r\n").as_bytes());
        card.put("/programs/agent", include_bytes!("agent"));
        card.put("/programs/generation", include_bytes!("generation"));
        let folder = card.folder.clone();
        let boot = Boot::of(&folder);
        fs::write(&boot.kernel, card.get("/vmlinuz").expect("a kernel")).expect("room");
        fs::write(&boot.initramfs, card.get("/initramfs.gz").expect("an initramfs")).expect("room");
        let recorded = folder.join("recorded");
        super::copy(&card.path(), &recorded);
        let mut run = Run {
            record: folder.join("record"),
            notes: Vec::new(),
            bare: Bare::recorded(&boot, &recorded, &folder.join("record")),
            generation: 1,
            line: 0,
        };
        run.everything();
        let Run { notes, bare, .. } = run;
        drop(bare);
        let _ = fs::remove_file(recorded);
        let lines: Vec<String> = notes.iter().map(|note| format!("{note}\n")).collect();
        fs::write(folder.join("notes"), lines.concat()).expect("room");
        Recording::kept(&folder)
    }

    /// The phases, each with its first entry and the one behind its last.
    pub fn phases(&self) -> Vec<(&str, usize, usize)> {
        let begins = self.notes.iter().filter_map(|note| match &note.what {
            What::Phase(name) => Some((name.as_str(), note.entries)),
            _ => None,
        });
        let begins: Vec<_> = begins.chain([("end", self.record.len())]).collect();
        begins.windows(2).map(|pair| (pair[0].0, pair[0].1, pair[1].1)).collect()
    }
}

/// The run while it goes on.
struct Run {
    record: PathBuf,
    notes: Vec<Note>,
    bare: Bare,
    generation: u32,
    line: u32,
}

impl Run {
    fn note(&mut self, what: What) {
        let entries = writes::count(&self.record).expect("a record");
        self.notes.push(Note { entries, what });
    }

    fn everything(&mut self) {
        self.notes.push(Note { entries: 0, what: What::Phase("first boot".into()) });
        self.up();
        for round in 0..2 {
            self.note(What::Phase("log writing".into()));
            for lines in [1, 40, 3, 200, 2] {
                self.write_lines(lines);
                self.sync();
            }
            self.write_lines(50);
            for is_watched in [false, true, false, false] {
                self.note(What::Phase("reload".into()));
                self.reload(is_watched);
            }
            if round == 0 {
                self.sync();
                self.note(What::Phase("reboot".into()));
                self.bare.send("multusctl reboot");
                self.up();
            }
        }
    }

    /// The generation in force runs, and orders are taken.
    fn up(&mut self) {
        // Whichever comes first.
        let mut awaited = ["agent is ready".to_owned(), format!("generation {}", self.generation)];
        for _ in 0..2 {
            let (which, _) = self.bare.any(&awaited).unwrap_or_else(|error| panic!("{error}"));
            awaited[which] = "\0".into();
        }
    }

    fn write_lines(&mut self, count: u32) {
        let from = self.line + 1;
        self.line += count;
        self.bare.ok(&format!("for n in $(seq {from} {}); do echo \"line $n\" >&9; done", self.line));
    }

    fn sync(&mut self) {
        self.bare.ok("multusctl log --sync");
        self.note(What::Synced(self.line));
    }

    /// As docs/image.md says.
    fn reload(&mut self, is_watched: bool) {
        self.generation += 1;
        let number = self.generation;
        self.note(What::Begun(number));
        self.bare.ok("mount -o remount,rw /boot");
        self.bare.ok(&format!(
            "sed -e '/output:relay/,/gpio/d' -e 's/\\(programs.generation\\) .*\\r/\\1 {number}\\r/' /boot/multusd.cfg \
             >/tmp/multusd.cfg"
        ));
        self.bare.ok("dd if=/tmp/multusd.cfg of=/boot/multusd.new conv=fsync 2>/dev/null");
        self.bare.ok("mv /boot/multusd.new /boot/multusd.cfg");
        self.bare.ok("mount -o remount,ro /boot");
        self.bare.ok("multusctl reload");
        self.note(What::Reloaded(number));
        if is_watched {
            // Until it has proved itself: it is kept then.
            self.bare.ok("sleep 6");
        }
    }
}
