//! Checks of how a program is started: with a recipe and a slot, as the daemon starts one.

use std::ffi::CString;
use std::fs;
use std::os::fd::AsRawFd;
use std::rc::Rc;

use crate::sys::page::{Page, Slot};
use crate::sys::process::{self, Identity, Recipe, Stage, Wiring};
use crate::sys::{SysError, file};

use super::processes::Ends;
use super::{Finding, Place, Tried, expect, refused};

/// What the program that is started for a check ends with, and what it finds in its environment.
const PROGRAM_CODE: u8 = 42;
const VARIABLE: (&str, &str) = ("MULTUSD_SELF_TEST", "as=program");

/// What this binary is when a check starts it.
pub fn be_the_program() -> u8 {
    let has_variable = std::env::var_os(VARIABLE.0).is_some_and(|value| value == VARIABLE.1);
    let is_there = std::env::current_dir().is_ok_and(|directory| directory.as_os_str() == "/");
    if has_variable && is_there { PROGRAM_CODE } else { 1 }
}

/// A recipe for a program of these paths, the first that is there.
fn recipe(paths: Vec<CString>) -> Recipe {
    let argv = [c"multusd", c"self-test", c"--as-program"].map(CString::from).to_vec();
    let variable = CString::new([VARIABLE.0, "=", VARIABLE.1].concat()).unwrap_or_default();
    let shared: Rc<[CString]> = Rc::new([]);
    let mut recipe = Recipe::new(paths, argv, vec![variable], &shared);
    recipe.directory = Some(c"/".into());
    recipe
}

/// Starts it. Returns the exit code and where it got stuck, if it did. `look` looks around in the process
/// that could not become the program, with everything done that comes before.
fn start(recipe: &Recipe, look: fn() -> bool) -> Result<(u8, Option<SysError>), Finding> {
    let page = Page::create()?;
    let slot: &Slot = page.job(0);
    let null = file::null()?;
    let wiring = Wiring {
        standard: [null.as_raw_fd(); 3],
        extra: None,
        cgroup: None,
        born_in_cgroup: false,
        life: None,
    };
    let serial = slot.announce(1);
    let pid = process::fork(|| {
        if slot.claim(serial, std::process::id()) {
            process::turn_into(slot, recipe, &wiring);
        }
        if look() { 127 } else { 126 }
    })?;
    let (_, code) = Ends::default().of(pid)?;
    let failure = slot.failure().map(|(stage, errno)| SysError {
        operation: Stage::from_number(stage).map_or("start", Stage::operation),
        errno,
    });
    Ok((code, failure))
}

/// Does all that comes before the program, which is not there; then `look` must find it done.
fn prepare(recipe: &Recipe, look: fn() -> bool, otherwise: &'static str) -> Tried {
    match start(recipe, look)? {
        (code, Some(SysError { operation: "execve", errno: libc::ENOENT })) => expect(code == 127, otherwise),
        (_, Some(error)) => Err(error.into()),
        (_, None) => Err(Finding::Failed("a program that is not there was started")),
    }
}

fn nowhere() -> Recipe {
    recipe(vec![c"/nowhere/multusd".into()])
}

/// This file has such a line.
fn has_line(path: &str, is_it: impl Fn(&str) -> bool) -> bool {
    fs::read_to_string(path).is_ok_and(|text| text.lines().any(is_it))
}

pub fn failure(_: &Place) -> Tried {
    prepare(&nowhere(), || true, "")?;
    let mut recipe = nowhere();
    recipe.directory = Some(c"/nowhere".into());
    let (_, failure) = start(&recipe, || true)?;
    let is_told = failure == Some(SysError { operation: "chdir", errno: libc::ENOENT });
    expect(is_told, "a directory that is not there is not told")
}

pub fn exec(_: &Place) -> Tried {
    let own = std::env::current_exe().map_err(refused("readlink /proc/self/exe"))?;
    let own = CString::new(own.into_os_string().into_encoded_bytes()).unwrap_or_default();
    // The second where the file was replaced or removed since.
    match start(&recipe(vec![own, c"/proc/self/exe".into()]), || true)? {
        (_, Some(error)) => Err(error.into()),
        (PROGRAM_CODE, None) => Ok(()),
        (code, None) => Err(Finding::Failed(
            ["the program ended with code ", &code.to_string(), " instead of 42"].concat().leak(),
        )),
    }
}

pub fn limits(_: &Place) -> Tried {
    let mut recipe = nowhere();
    // RLIMIT_NOFILE
    recipe.limits = vec![(7, 61, 62)];
    recipe.umask = Some(0o27);
    recipe.no_new_privs = true;
    recipe.oom_score = Some(c"1000".into());
    let look = || {
        has_line("/proc/self/limits", |line| {
            line.starts_with("Max open files            61                   62 ")
        }) && has_line("/proc/self/status", |line| line == "NoNewPrivs:\t1")
            && has_line("/proc/self/oom_score_adj", |line| line == "1000")
    };
    prepare(&recipe, look, "a limit, no_new_privs or oom_score_adj was set without effect")
}

pub fn scheduling(_: &Place) -> Tried {
    let mut recipe = nowhere();
    // What anybody may have.
    recipe.nice = Some(19);
    // SCHED_BATCH
    recipe.scheduling = Some((3, 0));
    recipe.affinity = Some(u128::MAX);
    // Best effort, the lowest level.
    recipe.io_priority = Some((2, 7));
    let look = || {
        // nice is the seventeenth field after the name in parentheses (proc(5)). By this path, because
        // qemu-user has a file of its own invention for the usual one.
        has_line("/proc/thread-self/stat", |line| {
            line.rsplit(')').next().and_then(|rest| rest.split_ascii_whitespace().nth(16)) == Some("19")
        })
    };
    prepare(&recipe, look, "nice was set without effect")
}

/// nobody, on nearly every system; where it is not, a number is as good.
const NOBODY: u32 = 65_534;

fn as_nobody() -> Recipe {
    let mut recipe = nowhere();
    recipe.identity = Some(Identity { user: NOBODY, group: NOBODY, groups: vec![NOBODY] });
    recipe
}

fn need_root() -> Tried {
    if process::is_root() { Ok(()) } else { Err(Finding::Absent("only root may try this")) }
}

pub fn identity(_: &Place) -> Tried {
    need_root()?;
    let look = || {
        has_line("/proc/self/status", |line| line == "Uid:\t65534\t65534\t65534\t65534")
            && has_line("/proc/self/status", |line| line == "Gid:\t65534\t65534\t65534\t65534")
            && has_line("/proc/self/status", |line| line.trim_end() == "Groups:\t65534")
    };
    prepare(&as_nobody(), look, "user or groups were changed without effect")
}

pub fn capabilities(_: &Place) -> Tried {
    need_root()?;
    let mut recipe = as_nobody();
    // CAP_NET_BIND_SERVICE, which is left to root nearly everywhere.
    recipe.capabilities = Some(1 << 10);
    let look = || {
        ["CapEff:\t0000000000000400", "CapBnd:\t0000000000000400", "CapAmb:\t0000000000000400"]
            .iter()
            .all(|wanted| has_line("/proc/self/status", |line| line == *wanted))
    };
    prepare(&recipe, look, "capabilities were changed without effect")
}
