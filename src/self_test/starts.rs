//! Checks of how a program is started: with a recipe and a slot, as the daemon starts one.

use std::ffi::{CStr, CString};
use std::os::fd::AsRawFd;
use std::rc::Rc;

use crate::sys::page::Page;
use crate::sys::process::{self, Identity, Recipe, Stage, Wiring};
use crate::sys::{SysError, file};

use super::Place;
use super::verdict::{Verdict, ends, fork, got, must, refused, tell};

/// What the program that is started for a check ends with.
const PROGRAM_CODE: i32 = 42;

/// What this binary is when a check starts it.
pub fn be_the_program() -> u8 {
    // Only / has it.
    let is_there = file::exists("proc/self");
    if is_there && std::env::var_os("AS").is_some() { PROGRAM_CODE as u8 } else { 1 }
}

fn recipe(path: &CStr) -> Recipe {
    let argv = [c"multusd", c"self-test", c"--as-program"].iter().map(|word| CString::from(*word)).collect();
    let shared: Rc<[CString]> = Rc::new([]);
    let mut recipe = Recipe::new(vec![path.into()], argv, vec![c"AS=program".into()], &shared);
    recipe.directory = Some(c"/".into());
    recipe
}

/// Found in a file of /proc that tells of the process which looks.
type Sight = (&'static str, &'static str);

fn is_seen(sight: &Sight) -> bool {
    let text = got(file::read(sight.0.as_ref()));
    text.windows(sight.1.len()).any(|part| part == sight.1.as_bytes())
}

/// Starts it. Returns the exit code and where it got stuck, if it did. Sights are looked for in the
/// process that could not become the program, with everything done that comes before.
fn start(recipe: &Recipe, sights: &[Sight]) -> (i32, Option<(u8, i32)>) {
    let page = got(Page::create());
    let slot = page.job(0);
    let null = got(file::null());
    let wiring = Wiring {
        standard: [null.as_raw_fd(); 3],
        extra: &[],
        cgroup: None,
        inherited: &|_| (),
        born_in_cgroup: false,
        watch: None,
        life: None,
    };
    let serial = slot.announce(1);
    if fork() == 0 {
        if slot.claim(serial, std::process::id()) {
            process::turn_into(slot, recipe, &wiring);
        }
        must(sights.iter().all(is_seen), "something was set without effect");
        process::end(0)
    }
    (ends(1), slot.failure())
}

fn stuck(stage: u8, errno: i32) -> ! {
    let operation = Stage::from_number(stage).map_or("start", Stage::operation);
    refused(&SysError { operation, errno })
}

/// Gets as far as a program that is not there, and no further.
fn prepare(recipe: &Recipe, sights: &[Sight]) {
    match start(recipe, sights).1 {
        Some((stage, libc::ENOENT)) if stage == Stage::Exec as u8 => {}
        Some((stage, errno)) => stuck(stage, errno),
        None => tell(Verdict::Failed, "nothing was started"),
    }
}

fn nowhere() -> Recipe {
    recipe(c"/nowhere/multusd")
}

pub fn exec(_: &Place) {
    prepare(&nowhere(), &[]);
    match start(&recipe(c"/proc/self/exe"), &[]) {
        (_, Some((stage, errno))) => stuck(stage, errno),
        (code, None) => must(code == PROGRAM_CODE, "it did not end as told"),
    }
}

pub fn limits(_: &Place) {
    let mut recipe = nowhere();
    // RLIMIT_NOFILE
    recipe.limits = vec![(7, 61, 62)];
    recipe.umask = Some(0o27);
    recipe.no_new_privs = true;
    recipe.oom_score = Some(c"1000".into());
    prepare(
        &recipe,
        &[
            ("/proc/self/limits", "Max open files            61                   62 "),
            ("/proc/self/status", "NoNewPrivs:\t1\n"),
            ("/proc/self/oom_score_adj", "1000\n"),
        ],
    );
}

pub fn scheduling(_: &Place) {
    let mut recipe = nowhere();
    // What anybody may have.
    recipe.nice = Some(19);
    // SCHED_BATCH
    recipe.scheduling = Some((3, 0));
    recipe.affinity = Some(u128::MAX);
    // Best effort, the lowest level.
    recipe.io_priority = Some((2, 7));
    // Priority and nice (proc(5)). By this path, because qemu-user has a file of its own
    // invention for the usual one.
    prepare(&recipe, &[("/proc/thread-self/stat", " 39 19 ")]);
}

fn as_nobody() -> Recipe {
    if !process::is_root() {
        tell(Verdict::Absent, "only root may try this")
    }
    let mut recipe = nowhere();
    // nobody, on nearly every system; where it is not, a number is as good.
    recipe.identity = Some(Identity { user: 65_534, group: 65_534, groups: vec![65_534] });
    recipe
}

pub fn identity(_: &Place) {
    let status = "/proc/self/status";
    prepare(
        &as_nobody(),
        &[
            (status, "Uid:\t65534\t65534\t65534\t65534\n"),
            (status, "Gid:\t65534\t65534\t65534\t65534\n"),
            (status, "Groups:\t65534 \n"),
        ],
    );
}

pub fn capabilities(_: &Place) {
    let mut recipe = as_nobody();
    // CAP_NET_BIND_SERVICE, which is left to root nearly everywhere.
    recipe.capabilities = Some(1 << 10);
    let all = "CapInh:\t0000000000000400\nCapPrm:\t0000000000000400\nCapEff:\t0000000000000400\n\
               CapBnd:\t0000000000000400\nCapAmb:\t0000000000000400\n";
    prepare(&recipe, &[("/proc/self/status", all)]);
}
