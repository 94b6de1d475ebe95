//! Brings the record of multusd's `[recorder]` to a database. It follows the recorder's files, whose rows have numbers that grow
//! by one, and asks the database which it has: so no death of anybody loses a row or makes it twice. What the database is not
//! there for waits in the files.
//!
//! It is supervised like any program. The thread that serves beats; the one that waits for the database must come round in time,
//! or the beats end.
#![forbid(unsafe_code)]

mod bring;
mod follow;

use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use multusd::child::life::{Life, live};
use multusd::child::recorder::{self, Address, KEYS};
use multusd::config::Settings;
use multusd::packed;
use multusd::sys::{SysError, clock, console, file, machine, poll};
use multusd::time::{Instant, Millis};

/// The database's calls have timeouts far below: who has not come round by then never will.
const BUSY_MAX: Millis = Millis::from_secs(180);

/// What the two threads tell each other.
pub struct Shared {
    /// What is to be in `multusctl status`.
    status: Mutex<String>,
    /// Since when the database is waited for, CLOCK_MONOTONIC nanoseconds; 0: it is not.
    busy: AtomicU64,
    wake: std::os::fd::OwnedFd,
}

impl Shared {
    /// Says how it is.
    pub fn say(&self, words: String) {
        if let Ok(mut status) = self.status.lock() {
            *status = words;
        }
        let _ = file::write_some(self.wake.as_fd(), b".");
    }

    /// The database is waited for from now on, or is not.
    pub fn is_busy(&self, busy: bool) {
        self.busy.store(if busy { clock::now().0 } else { 0 }, SeqCst);
    }

    fn is_stuck(&self) -> bool {
        let since = self.busy.load(SeqCst);
        since != 0 && clock::now().since(Instant(since)) > BUSY_MAX
    }
}

fn main() -> std::process::ExitCode {
    let bytes = file::read_memory(poll::borrow(0)).unwrap_or_default();
    let settings =
        packed::from_bytes::<Settings>(&bytes).filter(|settings| settings.word == "recorder-mysql");
    let Some(settings) = settings else {
        console::complain("multusd-recorder-mysql: only multusd runs this");
        return 2.into();
    };
    live(c"multusd-recorder-mysql", |life| serve(life, &settings)).into()
}

fn serve(life: &mut Life, settings: &Settings) -> Result<(), SysError> {
    let einval = SysError { operation: "database", errno: 22 };
    let address = Address::read(settings.text(KEYS, "database")).ok_or(einval)?;
    let directory = recorder::directory(settings).ok_or(einval)?;
    let file = settings.text(KEYS, "password_file");
    let login = bring::Login {
        user: address.user.into(),
        password: address.password.unwrap_or(file).into(),
        host: address.host.into(),
        port: address.port,
        database: address.database.into(),
        machine: match settings.text(KEYS, "machine") {
            "" => machine::host_name(),
            name => name.into(),
        },
    };
    let (read, wake) = file::pipe(true)?;
    let shared = Arc::new(Shared { status: Mutex::default(), busy: AtomicU64::new(0), wake });
    let told = shared.clone();
    std::thread::spawn(move || bring::bring(&login, &directory, &told));
    life.watch(read.as_fd(), 0)?;
    life.multusd.ready()?;
    loop {
        let Some(events) = life.wait(None)? else { return Ok(()) };
        if events.contains(&0) {
            file::read_some(read.as_fd(), &mut [0; 64]);
            let words = shared.status.lock().map(|status| status.clone()).unwrap_or_default();
            life.multusd.status(&words)?;
        }
        if shared.is_stuck() {
            return Err(SysError { operation: "database", errno: 110 });
        }
    }
}
