//! `[recorder]` as a real process: what it writes, that it survives its own death, who it is; and, with MariaDB from Debian really
//! run, stopped, killed and started, that every row is there exactly once.

mod harness;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use harness::real::{need_root, status_line};
use harness::{Instance, signal};

const RECORDER: &str =
    "[recorder]\nvalue_interval = 0s\ninterval = 20ms\nsync = 0s\nheartbeat = 1s\nrecord = * !multusd.*\n";
/// An output that changes by itself.
const BLINKER: &str =
    "[output:lamp]\npath = %(here)s/lamp\n[template:lamp]\noutputs = lamp\non = 50ms\noff = 50ms\n";

fn start(test: &str, config: &str) -> Instance {
    let mut instance = Instance::prepare(test, "", config);
    fs::write(instance.dir.join("lamp"), "0\n").unwrap();
    instance.launch();
    instance.await_state("recorder", "running");
    instance
}

fn directory(instance: &Instance) -> PathBuf {
    instance.dir.join("state/programs/recorder")
}

/// Rows of all files by their number, as fields; each line is whole.
fn rows(instance: &Instance) -> BTreeMap<u64, Vec<String>> {
    let mut rows = BTreeMap::new();
    for entry in fs::read_dir(directory(instance)).unwrap() {
        // One that is removed by now has had its time; the last line is being written.
        let Ok(text) = fs::read_to_string(entry.unwrap().path()) else { continue };
        let mut lines = text[..text.rfind('\n').unwrap_or(0)].lines();
        let Some(header) = lines.next().map(|line| line.split(',').collect::<Vec<_>>()) else { continue };
        assert_eq!(header[..2], ["row", "time"]);
        for line in lines {
            let fields: Vec<String> = line.split(',').map(String::from).collect();
            assert_eq!(fields.len(), header.len(), "{line}");
            let before = rows.insert(fields[0].parse().unwrap(), fields);
            assert!(before.is_none(), "twice: {line}");
        }
    }
    rows
}

/// Kind, name, state and unit of each row.
fn said(instance: &Instance) -> Vec<String> {
    rows(instance).values().map(|fields| fields[5..9].join(" ").trim_end().to_owned()).collect()
}

fn await_row(instance: &Instance, row: &str) {
    instance.await_that(row, || said(instance).iter().any(|said| said == row));
}

#[test]
fn every_change_of_an_output_and_of_a_value_is_a_row_with_when_and_for_how_long() {
    let instance = start("recorder-rows", &format!("{RECORDER}{BLINKER}"));
    let publish = |words: &[&str]| drop(instance.ctl_ok(&[&["publish"], words].concat()));
    publish(&["tank=12.5", "--unit", "m"]);
    await_row(&instance, "value tank 12.5 m");
    publish(&["tank=13", "--unit", "m", "--for", "200ms"]);
    await_row(&instance, "value tank 13 m");
    // It is too old then, though nobody says so.
    await_row(&instance, "value tank  m");
    await_row(&instance, "output lamp 1");
    await_row(&instance, "output lamp 0");
    let all = said(&instance);
    assert_eq!(all[0], "recorder start");
    let tank: Vec<&str> =
        all.iter().map(String::as_str).filter(|row| row.starts_with("value tank")).collect();
    assert_eq!(tank, ["value tank 12.5 m", "value tank 13 m", "value tank  m"]);
    let rows = rows(&instance);
    assert!(rows.keys().copied().eq(1..=rows.len() as u64), "no number is missing");
    let lost = rows.values().find(|row| row[6] == "tank" && row[7].is_empty()).unwrap();
    let lasted: f64 = lost[9].parse().unwrap();
    assert!((0.2..5.0).contains(&lasted), "{lasted} s");
    let lamp: Vec<&Vec<String>> = rows.values().filter(|row| row[6] == "lamp").collect();
    for pair in lamp.windows(2) {
        let [before, after] = [pair[0][10].parse::<u64>().unwrap(), pair[1][10].parse::<u64>().unwrap()];
        assert!(after > before, "edges are counted on: {pair:?}");
        let [before, after] = [pair[0][4].parse::<f64>().unwrap(), pair[1][4].parse::<f64>().unwrap()];
        assert!(after >= before, "no row is older than the one before: {pair:?}");
    }
}

#[test]
fn a_recorder_that_is_killed_or_stands_still_is_back_and_goes_on_with_the_next_number() {
    let instance = start("recorder-killed", &format!("{RECORDER}{BLINKER}"));
    for number in [libc::SIGKILL, libc::SIGSTOP, libc::SIGKILL] {
        let count = rows(&instance).len();
        instance.await_that("more rows", || rows(&instance).len() > count + 3);
        let pid = instance.pid("recorder");
        signal(pid, number);
        instance.await_program("recorder", "another process", |recorder| {
            recorder.state == "running" && recorder.pid.is_some_and(|now| now != pid)
        });
        instance.await_that("it says so", || {
            let starts = said(&instance).iter().filter(|row| *row == "recorder start").count();
            starts as u32 == instance.program("recorder").restarts + 1
        });
    }
    instance.ctl_ok(&["stop", "recorder", "--wait"]);
    let rows = rows(&instance);
    assert!(rows.keys().copied().eq(1..=rows.len() as u64), "no number is missing: {:?}", rows.keys());
    assert_eq!(said(&instance).last().unwrap(), "recorder stop");
}

#[test]
fn a_recorder_has_a_user_of_its_own_a_directory_of_its_own_and_nothing_that_root_has() {
    need_root();
    let instance = start("recorder-rights", &format!("{RECORDER}{BLINKER}"));
    let pid = instance.pid("recorder");
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = |key: &str| status_line(&status, key);
    let user: u32 = line("Uid").split_whitespace().next().unwrap().parse().unwrap();
    assert!((61184..65520).contains(&user), "{user}");
    for key in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(line(key), "0000000000000000", "{key}");
    }
    assert_eq!(line("NoNewPrivs"), "1");
    let directory = fs::metadata(directory(&instance)).unwrap();
    assert_eq!((directory.uid(), directory.mode() & 0o777), (user, 0o755));
    let above = fs::metadata(instance.dir.join("state/programs")).unwrap();
    assert_eq!((above.uid(), above.mode() & 0o022), (0, 0), "what leads to it is root's");
    for entry in fs::read_dir(self::directory(&instance)).unwrap() {
        let file = entry.unwrap().metadata().unwrap();
        assert_eq!((file.uid(), file.mode() & 0o777), (user, 0o644));
    }
}

#[test]
fn a_recorder_that_has_nothing_to_record_wakes_for_its_heartbeat_only() {
    let instance = start("recorder-idle", "[recorder]\nsync = 0s\nrecord = tank\n");
    instance.ctl_ok(&["publish", "tank=1"]);
    await_row(&instance, "value tank 1");
    let pid = instance.pid("recorder");
    let mut last = switches(pid);
    instance.await_that("it is at rest", || {
        harness::wait(Duration::from_millis(300));
        std::mem::replace(&mut last, switches(pid)) == last
    });
    let before = switches(pid);
    harness::wait(Duration::from_secs(7));
    let count = switches(pid) - before;
    // 10 s, of which a third is the pace.
    assert!((1..=3).contains(&count), "{count} in 7 s");
}

/// Times the process gave up the processor.
fn switches(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    status_line(&status, "voluntary_ctxt_switches").parse().unwrap()
}

// ---------------------------------------------------------------- with a database

/// A MariaDB of its own: directory, socket, port and, where root runs the test, a user that is nobody.
struct Database {
    dir: PathBuf,
    port: u16,
    server: Option<Child>,
}

const PASSWORD: &str = "p@ss:w/rd#1";

fn as_nobody(command: &mut Command) -> &mut Command {
    if nix::unistd::geteuid().is_root() {
        command.uid(65_534).gid(65_534);
    }
    command.stdin(Stdio::null())
}

impl Database {
    fn new(test: &str) -> Database {
        for program in ["/usr/sbin/mariadbd", "/usr/bin/mariadb", "/usr/bin/mariadb-install-db"] {
            assert!(Path::new(program).exists(), "no {program}: apt-get install -y mariadb-server");
        }
        let dir = std::env::temp_dir().join(format!("multusd-mariadb-{test}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).unwrap();
        if nix::unistd::geteuid().is_root() {
            std::os::unix::fs::chown(&dir, Some(65_534), Some(65_534)).unwrap();
        }
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut install = Command::new("/usr/bin/mariadb-install-db");
        // A server that starts removes the temporary tables of all others in its temporary directory.
        install.arg("--no-defaults").arg(format!("--datadir={}/data", dir.display()));
        install.arg(format!("--tmpdir={}", dir.display()));
        install.args([
            "--auth-root-authentication-method=normal",
            "--skip-test-db",
            "--innodb-log-file-size=4M",
        ]);
        let made = as_nobody(&mut install).env("HOME", &dir).current_dir(&dir).output().unwrap();
        assert!(made.status.success(), "{made:?}");
        let mut database = Database { dir, port, server: None };
        database.start();
        database.ask("CREATE DATABASE plant");
        database.ask(&format!(
            "CREATE USER multusd@'%' IDENTIFIED BY '{PASSWORD}'; GRANT SELECT, INSERT, CREATE ON plant.* TO multusd@'%'"
        ));
        database
    }

    fn start(&mut self) {
        let log = fs::File::create(self.dir.join("log")).unwrap();
        let at = |name: &str| self.dir.join(name).display().to_string();
        let mut server = Command::new("/usr/sbin/mariadbd");
        server
            .arg("--no-defaults")
            .arg(format!("--datadir={}", at("data")))
            .arg(format!("--socket={}", at("s")));
        server.arg(format!("--pid-file={}", at("pid"))).arg(format!("--port={}", self.port));
        server.arg(format!("--tmpdir={}", self.dir.display()));
        server.args([
            "--bind-address=127.0.0.1",
            "--innodb-buffer-pool-size=16M",
            "--innodb-log-file-size=4M",
        ]);
        server.stdout(log.try_clone().unwrap()).stderr(log);
        self.server = Some(as_nobody(&mut server).spawn().unwrap());
        let answers = harness::await_condition(|| self.try_ask("SELECT 1").is_some());
        assert!(answers, "{}", fs::read_to_string(self.dir.join("log")).unwrap());
    }

    fn end(&mut self, number: i32) {
        let mut server = self.server.take().unwrap();
        signal(server.id(), number);
        server.wait().unwrap();
    }

    /// By Debian's client, which knows nothing of ours.
    fn try_ask(&self, words: &str) -> Option<String> {
        let mut client = Command::new("/usr/bin/mariadb");
        client.args([
            "--no-defaults",
            "-u",
            "root",
            "-N",
            "-B",
            "--default-character-set=utf8mb4",
            "-e",
            words,
        ]);
        let answer = client.arg("-S").arg(self.dir.join("s")).output().unwrap();
        answer.status.success().then(|| String::from_utf8(answer.stdout).unwrap())
    }

    fn ask(&self, words: &str) -> String {
        self.try_ask(words).unwrap_or_else(|| panic!("{words}"))
    }

    /// The highest row; 0: there is none, or no answer.
    fn last_row(&self) -> u64 {
        let answer = self.try_ask("SELECT MAX(number) FROM plant.multusd_record").unwrap_or_default();
        answer.trim().parse().unwrap_or(0)
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        if self.server.is_some() {
            self.end(libc::SIGKILL);
        }
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// The companion, built where everything else is.
fn companion() -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap().join("recorder-mysql");
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/recorder-mysql/Cargo.toml");
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--locked", "--manifest-path", manifest, "--target-dir"]).arg(&target);
    assert!(cargo.status().unwrap().success());
    target.join("debug/multusd-recorder-mysql")
}

fn start_with_database(test: &str, address: &str, more: &str) -> Instance {
    let companion = companion();
    let database = format!("database = {address}\ndatabase_program = {}\n{more}", companion.display());
    start(test, &format!("{RECORDER}{database}{BLINKER}"))
}

/// A row as both have it: numbers as numbers.
fn same(fields: &[&str]) -> Vec<String> {
    let number = |text: &str| text.parse::<f64>().map_or(text.to_owned(), |number| format!("{number:.9}"));
    fields.iter().map(|text| if *text == "NULL" { String::new() } else { number(text) }).collect()
}

/// Every row of the files is in the table exactly once, and as it is in the file; and nothing else is.
fn compare(instance: &Instance, database: &Database) -> usize {
    let table = database.ask(
        "SELECT number, CONCAT(DATE_FORMAT(time, '%Y-%m-%dT%H:%i:%s.'), LPAD(MICROSECOND(time) DIV 1000, 3, '0'), 'Z'), \
         synchronised, boot, monotonic, kind, name, state, unit, lasted, edges FROM plant.multusd_record ORDER BY number",
    );
    let table: Vec<Vec<String>> =
        table.lines().map(|line| same(&line.split('\t').collect::<Vec<_>>())).collect();
    let files: Vec<Vec<String>> = rows(instance)
        .values()
        .map(|fields| same(&fields[..fields.len() - 1].iter().map(String::as_str).collect::<Vec<_>>()))
        .collect();
    let first = table.iter().zip(&files).find(|(table, file)| table != file);
    assert!(first.is_none(), "{first:?}");
    assert_eq!(table.len(), files.len());
    assert_eq!(database.ask("SELECT COUNT(DISTINCT record) FROM plant.multusd_record").trim(), "1");
    files.len()
}

/// Values that change for as long as this is there.
struct Publisher(Child);

impl Publisher {
    fn start(instance: &Instance) -> Publisher {
        let ctl = format!("{} multusctl --run-dir {}", harness::binary(), instance.run_dir().display());
        let script = format!(
            "n=0; while :; do n=$((n+1)); {ctl} publish tank=$n --unit °C; {ctl} publish \"t$((n%7))=$n\"; done"
        );
        let mut shell = Command::new("/bin/sh");
        Publisher(shell.args(["-c", &script]).stdin(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn no_row_is_lost_or_doubled_while_mariadb_is_stopped_killed_and_started_and_the_writers_are_killed() {
    let mut database = Database::new("kills");
    let address = format!("mysql://multusd:{PASSWORD}@127.0.0.1:{}/plant", database.port);
    // Files of some 80 rows each.
    let instance = start_with_database("recorder-db", &address, "files = 1000\n");
    let publisher = Publisher::start(&instance);
    let last = |instance: &Instance| *rows(instance).last_key_value().unwrap().0;
    instance.await_that("rows in the table", || database.last_row() > 20);
    // Nobody can see the password.
    let pid = instance.pid("recorder-mysql");
    for file in ["cmdline", "environ"] {
        let text = fs::read(format!("/proc/{pid}/{file}")).unwrap();
        assert!(!String::from_utf8_lossy(&text).contains(PASSWORD), "{file}");
    }
    assert!(!instance.ctl_ok(&["status", "--json"]).contains(PASSWORD));
    assert!(!instance.log().contains(PASSWORD));

    let mut random = multusd::sys::machine::random();
    for round in 0..4 {
        let stops = round % 3 == 0;
        if stops {
            database.end(if round == 0 { libc::SIGTERM } else { libc::SIGKILL });
            instance.await_program("recorder-mysql", "it says that the database is away", |program| {
                program.status_text.as_deref().is_some_and(|text| text.starts_with("database away since 2"))
            });
        }
        for kill in 0..3 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let until = last(&instance) + (random >> 33) % 20;
            instance.await_that("more rows", || last(&instance) >= until);
            let name = if kill == 2 { "recorder" } else { "recorder-mysql" };
            let pid = instance.await_state(name, "running").pid.unwrap();
            signal(pid, libc::SIGKILL);
            instance.await_program(name, "another process", |program| {
                program.state == "running" && program.pid.is_some_and(|now| now != pid)
            });
        }
        if stops {
            database.start();
        }
        let until = last(&instance);
        instance.await_that("they are in the table", || database.last_row() >= until);
    }
    drop(publisher);
    instance.ctl_ok(&["stop", "recorder", "--wait"]);
    let until = last(&instance);
    instance.await_that("all are in the table", || database.last_row() >= until);
    let count = compare(&instance, &database);
    println!("{count} rows");
    assert!(count > 200, "{count} rows");
}

#[test]
fn what_was_removed_before_the_database_had_it_is_said_and_the_rest_is_brought() {
    let mut database = Database::new("removed");
    database.end(libc::SIGTERM);
    let secret = database.dir.join("secret");
    fs::write(&secret, format!("{PASSWORD}\n")).unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    let address = format!("mysql://multusd@127.0.0.1:{}/plant", database.port);
    let more = format!("password_file = {}\nsize = 12KB\nfiles = 3\n", secret.display());
    let instance = start_with_database("recorder-removed", &address, &more);
    let publisher = Publisher::start(&instance);
    let first = || rows(&instance).first_key_value().map_or(1, |(number, _)| *number);
    instance.await_that("rows are removed", || first() > 1);
    drop(publisher);
    instance.ctl_ok(&["stop", "template-lamp", "recorder", "--wait"]);
    let (first, rows) = (first(), rows(&instance));
    database.start();
    let last = *rows.last_key_value().unwrap().0;
    instance.await_that("the rest is in the table", || database.last_row() == last);
    let brought = database.ask("SELECT MIN(number), COUNT(*) FROM plant.multusd_record");
    assert_eq!(brought.trim(), format!("{first}\t{}", rows.len()));
    // All files at once: who pauses at the end of each is never done where they are small and many.
    let statements = database.ask("SHOW GLOBAL STATUS LIKE 'Com_insert'");
    let statements: usize = statements.split_whitespace().nth(1).unwrap().parse().unwrap();
    assert_eq!(statements, rows.len().div_ceil(500), "{} rows", rows.len());
    let words = format!("{} rows were removed before the database had them", first - 1);
    instance.await_that(&words, || instance.log().contains(&words));
}
