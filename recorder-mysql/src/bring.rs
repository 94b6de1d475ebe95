//! From the files into the table. Which rows the database has, it says itself: its highest is asked for whenever it is back, and
//! what is brought at once is one statement, of which a transactional table takes all or nothing.

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use multusd::log_text::stamp;
use multusd::sys::{clock, console, inotify, poll};
use mysql::prelude::Queryable;
use mysql::{Conn, OptsBuilder, Params, Value};

use crate::Shared;
use crate::follow::Follower;

/// Rows that one statement brings.
const ROWS_MAX: usize = 500;
/// Rows that come within this time come together: a statement costs the database a sync.
const TOGETHER: Duration = Duration::from_millis(500);
/// So often a database is asked whether it is still there when there is nothing to bring.
const ASK_MS: u16 = 30_000;
/// Pauses before it is tried again.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(60);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// The table; its columns are those of the files.
const TABLE: &str = "CREATE TABLE IF NOT EXISTS multusd_record (\
    record CHAR(16) CHARACTER SET ascii NOT NULL, \
    number BIGINT UNSIGNED NOT NULL, \
    machine VARCHAR(64) NOT NULL, \
    time DATETIME(3) NOT NULL, \
    synchronised BOOLEAN NOT NULL, \
    boot CHAR(8) CHARACTER SET ascii NOT NULL, \
    monotonic DECIMAL(20,9) NOT NULL, \
    kind VARCHAR(8) CHARACTER SET ascii NOT NULL, \
    name VARCHAR(64) NOT NULL, \
    state DECIMAL(20,3) NULL, \
    unit VARCHAR(16) NOT NULL, \
    lasted DECIMAL(20,3) NULL, \
    edges BIGINT UNSIGNED NULL, \
    PRIMARY KEY (record, number), \
    KEY name_time (name, time)) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4";
const INSERT: &str = "INSERT INTO multusd_record (record, number, machine, time, synchronised, boot, monotonic, kind, \
    name, state, unit, lasted, edges) VALUES ";
const ROW: &str = "(?,?,?,?,?,?,?,?,?,?,?,?,?)";

/// Where and as whom.
pub struct Login {
    /// Who.
    pub user: String,
    /// Empty: none.
    pub password: String,
    /// A name or an address.
    pub host: String,
    /// TCP.
    pub port: u16,
    /// In which the table is.
    pub database: String,
    /// What this machine is called.
    pub machine: String,
}

type Failure = Box<dyn std::error::Error>;

/// For ever.
pub fn bring(login: &Login, directory: &Path, shared: &Shared) {
    let mut pause = PAUSE_MIN;
    let mut away: Option<String> = None;
    let mut follower = None;
    loop {
        let begun = Instant::now();
        let mut was_there = false;
        let result = session(login, directory, shared, &mut follower, &mut || {
            was_there = true;
            shared.say(format!("brings rows to {}", login.host));
        });
        let Err(error) = result else { continue };
        if was_there || begun.elapsed() > PAUSE_MAX {
            (pause, away) = (PAUSE_MIN, None);
        }
        let since = away.get_or_insert_with(|| {
            // In the log once, in the status until it is back.
            console::say(format_args!("{}: {error}", login.host));
            let mut text = Vec::new();
            stamp::wall(&mut text, clock::wall_millis());
            String::from_utf8_lossy(&text).into_owned()
        });
        let waiting = follower.as_ref().map_or(0, Follower::waiting);
        shared.say(format!("database away since {since}, {waiting} rows wait: {error}"));
        shared.is_busy(false);
        std::thread::sleep(pause);
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

fn session(
    login: &Login,
    directory: &Path,
    shared: &Shared,
    kept: &mut Option<Follower>,
    is_there: &mut dyn FnMut(),
) -> Result<(), Failure> {
    let words = |error: multusd::sys::SysError| error.to_string();
    let changes = inotify::queue().map_err(words)?;
    let path = CString::new(directory.as_os_str().as_encoded_bytes())?;
    inotify::watch(changes.as_raw_fd(), &path).map_err(words)?;
    let follower =
        match kept.take().filter(Follower::is_newest).or_else(|| Follower::new(PathBuf::from(directory))) {
            Some(follower) => kept.insert(follower),
            None => return Err("there is no record yet".into()),
        };
    shared.is_busy(true);
    let mut conn = connect(login)?;
    conn.query_drop(TABLE)?;
    let last: Option<Option<u64>> =
        conn.exec_first("SELECT MAX(number) FROM multusd_record WHERE record = ?", (&follower.record,))?;
    let last = last.flatten().unwrap_or(0);
    follower.go_to(last + 1);
    is_there();
    let own = follower.last();
    if own < last {
        // Storage that lost what it said it had: those numbers are given out again.
        multusd::child::report(format_args!(
            "the database has rows to {last} of record {}, which ends at {own}: rows to {last} are not brought",
            follower.record
        ));
    }
    loop {
        let record = follower.record.clone();
        let rows = follower.rows(ROWS_MAX)?;
        let count = rows.lines.len();
        shared.is_busy(true);
        if count > 0 {
            insert(&mut conn, &record, &login.machine, &rows.lines)?;
        }
        // Once: who comes to it again finds the rows behind the hole in the table.
        if rows.gone > 0 {
            multusd::child::report(format_args!(
                "{} rows were removed before the database had them (record {record})",
                rows.gone
            ));
        }
        shared.is_busy(false);
        if count == ROWS_MAX {
            continue;
        }
        if count > 0 {
            std::thread::sleep(TOGETHER);
        } else if !poll::wait_readable(changes.as_fd(), Some(ASK_MS)) {
            shared.is_busy(true);
            conn.ping()?;
        } else {
            inotify::has_changed(changes.as_fd(), b"");
            if !follower.is_newest() {
                return Ok(());
            }
        }
    }
}

fn connect(login: &Login) -> Result<Conn, mysql::Error> {
    let options = OptsBuilder::new()
        .ip_or_hostname(Some(&login.host))
        .tcp_port(login.port)
        .user(Some(&login.user))
        .pass(Some(&login.password).filter(|word| !word.is_empty()))
        .db_name(Some(&login.database))
        .prefer_socket(false)
        .tcp_connect_timeout(Some(CONNECT_TIMEOUT))
        .read_timeout(Some(ANSWER_TIMEOUT))
        .write_timeout(Some(ANSWER_TIMEOUT))
        // What does not fit is an error, not something else.
        .init(vec!["SET SESSION sql_mode = 'TRADITIONAL'"]);
    Conn::new(options)
}

fn insert(conn: &mut Conn, record: &str, machine: &str, lines: &[String]) -> Result<(), mysql::Error> {
    let mut values = Vec::new();
    for line in lines {
        values.extend(row(record, machine, line));
    }
    let rows = vec![ROW; lines.len()].join(",");
    conn.exec_drop([INSERT, &rows].concat(), Params::Positional(values))
}

/// The columns of a row, in the order of the statement.
fn row(record: &str, machine: &str, line: &str) -> [Value; 13] {
    let mut fields = line.split(',');
    let mut text = || fields.next().unwrap_or("");
    let [number, time, synchronised, boot, monotonic, kind, name] = std::array::from_fn(|_| text());
    let [state, unit, lasted, edges] = std::array::from_fn(|_| text());
    let time = time.trim_end_matches('Z').replace('T', " ");
    let or_null = |text: &str| if text.is_empty() { Value::NULL } else { text.into() };
    [
        record.into(),
        number.into(),
        machine.into(),
        time.into(),
        synchronised.into(),
        boot.into(),
        monotonic.into(),
        kind.into(),
        name.into(),
        or_null(state),
        unit.into(),
        or_null(lasted),
        or_null(edges),
    ]
}
