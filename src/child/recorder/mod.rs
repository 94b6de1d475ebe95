//! `[recorder]`: what inputs, outputs and values were when, in files of CSV that survive a power cut at any instruction, never
//! grow beyond what they may, and are followed by whoever brings their rows to a database (`recorder-mysql/`).
//!
//! A row is written by one call when it comes, so that no death of this process loses it; it is on storage within `sync`.

pub mod row;
mod step;
pub mod store;

use std::path::{Path, PathBuf};

use crate::config::child::{duration, number, other, path, size};
use crate::config::{Child, Key, Settings, Wrong, key, read_duration, read_size, thousandths};
use crate::sys::{SysError, clock};
use crate::time::{Instant, Millis};

use super::life::{Life, live};
use row::{Moment, Row};
use step::{Kind, Limits, Recorder, Seen};
use store::Store;

/// What a file of the record is at least and at most: rows of some minutes; what is looked through at the start.
const FILE_BYTES_MIN: u64 = 4096;
const FILE_BYTES_MAX: u64 = 64 << 20;
/// Storage that takes nothing is asked again after this.
const RETRY: Millis = Millis(1000);

const PATTERNS: &str = "names of inputs, outputs and values, such as door, output:pump-*, !sensors.noise";
const DATABASE: &str = "an address such as mysql://user:password@host:3306/database";

/// Its keys.
pub static KEYS: &[Key] = &[
    key!(
        "record",
        other(PATTERNS, |text| is(patterns(text).iter().all(|word| step::is_pattern(word)))),
        "*",
        "door, output:*, sensors.*, !sensors.noise",
        "What is recorded, by name; one * stands for anything, input:, output: or value: before it for those alone, and what \
         begins with ! is not."
    ),
    key!(
        "directory",
        path(),
        "(its own in state_dir)",
        "/data/record",
        "Where its files are; one that is its user's to write to."
    ),
    key!(
        "size",
        size(FILE_BYTES_MIN),
        "8MB",
        "64MB",
        "Bytes of all its files together; the oldest is removed when there would be more."
    ),
    key!("files", number(2, 1000), "8", "30", "Files among which these are divided."),
    key!(
        "sync",
        duration(0),
        "10s",
        "0s",
        "What is written is on storage after so long: what a power cut can take, against the wear of a card. 0s is at once."
    ),
    key!(
        "interval",
        duration(0),
        "100ms",
        "1s",
        "Rows of the same input or output are at least so far apart; the edges between are counted."
    ),
    key!("value_interval", duration(0), "10s", "1min", "The same of a value."),
    key!(
        "value_step",
        other("a number with at most three decimals", |text| is(
            thousandths(text).is_some_and(|step| step >= 0)
        )),
        "0",
        "0.5",
        "A value that differs by less from what was recorded last has not changed."
    ),
    key!(
        "database",
        other(DATABASE, |text| is(Address::read(text).is_some())),
        "(none)",
        "mysql://multusd@db.example/plant",
        "Database of MariaDB or MySQL to which every row is brought, too, by the program multusd-recorder-mysql; how: docs/children.md."
    ),
    key!(
        "database_program",
        path(),
        "(in PATH)",
        "/data/programs/multusd-recorder-mysql",
        "Where that program is."
    ),
    key!(
        "password_file",
        path(),
        "(none)",
        "/data/recorder.password",
        "File whose first line is the password for the database; read by multusd, as root, when the configuration is."
    ),
    key!(
        "machine",
        other("a text of at most 60 bytes", |text| is(text.len() <= 60)),
        "(the host's name)",
        "pump in hall 7",
        "What this machine is called in the database."
    ),
];

/// Its row.
pub const CHILD: Child = Child {
    word: "recorder",
    header: "[recorder]",
    named: false,
    drives: false,
    title: "A record of inputs, outputs and values",
    keys: KEYS,
    program: "ready = notify\nstart_timeout = 60s\nheartbeat = 10s\nheartbeat_kind = counter\nno_new_privs = true\n\
        stopwaitsecs = 10\nrestart_delay = 100ms\nrestart_delay_max = 10s\ncapabilities = none\nstate_directory = true\n",
    check,
    run: |settings| live(c"multusd-recorder", |life| serve(life, settings)),
};

fn is(right: bool) -> Result<(), Wrong> {
    if right { Ok(()) } else { Err(Wrong::Kind) }
}

/// `mysql://user:password@host:port/database`
#[derive(Debug, PartialEq, Eq)]
pub struct Address<'a> {
    /// Who.
    pub user: &'a str,
    /// May be in a file instead.
    pub password: Option<&'a str>,
    /// A name or an address; one of IP version 6 without its brackets.
    pub host: &'a str,
    /// 3306 where it is not said.
    pub port: u16,
    /// In which the table is.
    pub database: &'a str,
}

impl Address<'_> {
    /// What a text says; a password may hold anything but white space.
    pub fn read(text: &str) -> Option<Address<'_>> {
        let rest = text.strip_prefix("mysql://").filter(|rest| !rest.contains(char::is_whitespace))?;
        let (who, place) = rest.rsplit_once('@')?;
        let (user, password) = who.split_once(':').map_or((who, None), |(user, word)| (user, Some(word)));
        let (place, database) = place.split_once('/')?;
        let (host, port) = match place.strip_prefix('[').and_then(|six| six.split_once(']')) {
            Some((host, port)) => (host, port),
            None => place.split_at(place.find(':').unwrap_or(place.len())),
        };
        let port = if port.is_empty() { 3306 } else { port.strip_prefix(':')?.parse().ok()? };
        let is_plain =
            |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'`');
        let is_right =
            port > 0 && [user, host, database].into_iter().all(is_plain) && !database.contains('/');
        is_right.then_some(Address { user, password, host, port, database })
    }
}

fn patterns(text: &str) -> Vec<String> {
    text.split([',', ' ', '\n']).filter(|word| !word.is_empty()).map(String::from).collect()
}

/// Bytes of all files, and how many there are.
fn bounds(settings: &Settings) -> (u64, usize) {
    let text = |name| settings.text(KEYS, name);
    (read_size(text("size")).unwrap_or(FILE_BYTES_MIN), text("files").parse().unwrap_or(2))
}

fn check(settings: &Settings) -> Result<(), (&'static str, String)> {
    let (bytes, files) = bounds(settings);
    let each = bytes / files as u64;
    if !(FILE_BYTES_MIN..=FILE_BYTES_MAX).contains(&each) {
        let words = format!(
            "is {each} bytes for each of {files} files; right are {FILE_BYTES_MIN} to {FILE_BYTES_MAX}"
        );
        return Err(("size", words));
    }
    let text = |name| settings.text(KEYS, name);
    let twice = Address::read(text("database")).is_some_and(|address| address.password.is_some());
    match (text("database").is_empty(), text("password_file").is_empty()) {
        (true, false) => {
            Err(("password_file", "is for a database, and there is none; write database = mysql://…".into()))
        }
        (false, false) if twice => Err(("password_file", "is said, and a password in database, too".into())),
        _ => Ok(()),
    }
}

/// Where the files are.
pub fn directory(settings: &Settings) -> Option<PathBuf> {
    match settings.text(KEYS, "directory") {
        "" => std::env::var_os("STATE_DIRECTORY").map(PathBuf::from),
        path => Some(path.into()),
    }
}

fn moment() -> Moment {
    Moment {
        now_ns: clock::now().0,
        boot_ns: clock::boot_nanos(),
        wall_ms: clock::wall_millis(),
        synchronised: clock::is_synchronised(),
    }
}

/// Looks at everything; when to look again though nothing is published.
fn look(
    life: &Life,
    recorder: &mut Recorder,
    patterns: &[String],
    now: Instant,
    take: step::Take,
) -> Option<Instant> {
    let mut again = None;
    let mut later = |then: Option<Instant>| again = [again, then].into_iter().flatten().min();
    life.multusd.each_line(&mut |is_output, name, input| {
        let kind = if is_output { Kind::Output } else { Kind::Input };
        if step::is_wanted(patterns, kind, name) {
            let seen = Seen {
                kind,
                name: step::name(name),
                milli: input.on.map(|on| 1000 * i64::from(on)),
                unit: step::NO_UNIT,
                edges: Some(input.seen.edges),
                at: Instant(input.seen.at_ns),
            };
            later(recorder.see(now, seen, take));
        }
    });
    life.multusd.each_value(&mut |name, value| {
        if step::is_wanted(patterns, Kind::Value, &name) {
            let milli = value.now(now);
            // It is too old then, though nobody says so.
            later(value.until.filter(|_| milli.is_some()));
            let seen = Seen { kind: Kind::Value, name, milli, unit: value.unit, edges: None, at: value.at };
            later(recorder.see(now, seen, take));
        }
    });
    recorder.seen_all(now, take);
    again
}

fn serve(life: &mut Life, settings: &Settings) -> Result<(), SysError> {
    let time = |name| read_duration(settings.text(KEYS, name)).unwrap_or_default();
    let patterns = patterns(settings.text(KEYS, "record"));
    let limits = Limits {
        interval: time("interval"),
        value_interval: time("value_interval"),
        value_step: thousandths(settings.text(KEYS, "value_step")).unwrap_or(0),
    };
    let (bytes_max, files) = bounds(settings);
    let nowhere = SysError { operation: "directory", errno: libc::ENOENT };
    let directory = directory(settings).ok_or(nowhere)?;
    let (mut store, cut) = Store::open(&directory, bytes_max, files)?;
    let mut recorder = Recorder::new(limits);
    let mut files =
        Files { store: &mut store, sync: time("sync"), sync_at: None, retry_at: None, is_told: false };
    let own = |name, milli| Row { at_ns: clock::now().0, kind: "recorder", name, milli, ..Row::default() };
    files.store.take(&moment(), &own("start", None));
    if cut > 0 {
        files.store.take(&moment(), &own("cut", Some(cut as i64 * 1000)));
    }
    life.changes(0)?;
    let mut is_ready = false;
    loop {
        let moment = moment();
        let now = Instant(moment.now_ns);
        let mut take = |row: &Row| files.store.take(&moment, row);
        recorder.clock(&moment, &mut take);
        let again = look(life, &mut recorder, &patterns, now, &mut take);
        files.keep(life, &moment, &directory)?;
        if !is_ready {
            is_ready = true;
            life.multusd.ready()?;
        }
        let deadline = [again, files.sync_at, files.retry_at].into_iter().flatten().min();
        if life.wait(deadline)?.is_none() {
            let moment = self::moment();
            files.store.take(&moment, &own("stop", None));
            files.store.write(&moment)?;
            return files.store.sync();
        }
    }
}

/// The files, and when something is to be done with them.
struct Files<'a> {
    store: &'a mut Store,
    sync: Millis,
    sync_at: Option<Instant>,
    /// They take nothing.
    retry_at: Option<Instant>,
    /// And that was said.
    is_told: bool,
}

impl Files<'_> {
    /// Writes and syncs what is due.
    fn keep(&mut self, life: &Life, moment: &Moment, directory: &Path) -> Result<(), SysError> {
        let now = Instant(moment.now_ns);
        if self.retry_at.is_some_and(|at| now < at) {
            return Ok(());
        }
        let mut kept = self.store.write(moment);
        if self.store.is_dirty && self.sync_at.is_none() {
            self.sync_at = Some(now + self.sync);
        }
        if self.sync_at.is_some_and(|at| now >= at) && kept.is_ok() {
            kept = self.store.sync();
            self.sync_at = None;
        }
        self.retry_at = kept.err().map(|_| now + RETRY);
        if self.retry_at.is_some() {
            self.sync_at = None;
        }
        if self.is_told != kept.is_err() {
            self.is_told = kept.is_err();
            let words = match kept {
                Ok(()) => "",
                Err(error) => {
                    super::report(format_args!("record {}: {error}", directory.display()));
                    "storage takes nothing; rows wait"
                }
            };
            life.multusd.status(words)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_says_who_where_and_into_what() {
        let address =
            |user, password, host, port| Some(Address { user, password, host, port, database: "plant" });
        for (text, expected) in [
            ("mysql://a:b@db/plant", address("a", Some("b"), "db", 3306)),
            ("mysql://a@db:3307/plant", address("a", None, "db", 3307)),
            ("mysql://a:p@ss:/w@10.0.0.1/plant", address("a", Some("p@ss:/w"), "10.0.0.1", 3306)),
            ("mysql://a:b@[::1]:3307/plant", address("a", Some("b"), "::1", 3307)),
        ] {
            assert_eq!(Address::read(text), expected, "{text}");
        }
        for wrong in [
            "",
            "mysql://",
            "mysql://db/plant",
            "mysql://a@db",
            "mysql://a@db/",
            "mysql://a@/plant",
            "mysql://@db/plant",
            "mysql://a@db:0/plant",
            "mysql://a@db:x/plant",
            "mysql://a@db/pl`ant",
            "mysql://a@db/a/b",
            "http://a@db/plant",
            "mysql://a b@db/plant",
            "mysql://a@[::1/plant",
        ] {
            assert_eq!(Address::read(wrong), None, "{wrong}");
        }
    }
}
