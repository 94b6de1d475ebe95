//! The two ways BusyBox starts multusd on a board, with the very files that packages install: the line of inittab, and the
//! script of /etc/init.d; and the configuration that comes with them.

use std::path::Path;

use super::guest::{Guest, guest_seconds};
use super::shipped::{await_in, executable};

/// The file of a package, by its path in the repository.
fn file(path: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// A guest in which multusd is where a package puts it, with the sample configuration on the boot partition.
fn installed(name: &str) -> Guest {
    let mut guest = Guest::restored(name);
    guest.put(executable("aarch64"), "/usr/sbin/multusd");
    guest.put(file("board/multusd.cfg"), "/boot/multusd.cfg");
    guest.ok("ln -s ../sbin/multusd /usr/bin/multusctl; mkdir -p /var/lib /var/log; ln -s ../run /var/run");
    guest
}

/// The number of the process of the sample's program, from what ps prints.
const HELLO: &str = "awk '/[e]cho I am alive/ { print $1 }'";

#[test]
fn init_respawns_multusd_by_its_line_and_the_sample_boots_without_an_error() {
    let mut guest = installed("init-inittab");
    guest.put(file("packaging/init/inittab.line"), "/etc/inittab");
    // BusyBox's own init, as the first process of a namespace: the guest's first one is a script of ours.
    guest.ok("(setsid unshare -p -f --mount-proc init >/tmp/init.log 2>&1 </dev/null &)");
    await_in(
        &mut guest,
        "ps -o pid,ppid | awk -v p=$(pidof unshare) '$2 == p { print $1 }' >/tmp/first && [ -s /tmp/first ]",
    );
    let inside = "nsenter -p -m -t $(cat /tmp/first)";
    await_in(&mut guest, &format!("{inside} multusctl status hello 2>/dev/null | grep -q running"));
    let pids = |guest: &mut Guest| {
        let guard = guest.ok(&format!("{inside} cat /run/multusd/multusd.pid"));
        (guard, guest.ok(&format!("{inside} ps | {HELLO}")))
    };
    let (first, hello) = pids(&mut guest);
    assert_eq!(
        guest.ok(&format!("{inside} sed -n 's/^PPid:\\t//p' /proc/{first}/status")),
        "1",
        "init's own"
    );
    await_in(&mut guest, &format!("{inside} multusctl log hello | grep -q 'I am alive'"));
    // Silent is how it starts without an error.
    assert_eq!(guest.ok("cat /tmp/init.log"), "");

    // Killed again and again, it is there again, with what it runs: nothing of before is left.
    let (mut last, mut before) = (first, hello);
    for _ in 0..3 {
        guest.ok(&format!("{inside} kill -9 {last}"));
        let is_another = format!("[ \"$({inside} cat /run/multusd/multusd.pid)\" != {last} ]");
        await_in(
            &mut guest,
            &format!("{is_another} && {inside} multusctl status hello 2>/dev/null | grep -q running"),
        );
        let (guard, hello) = pids(&mut guest);
        assert_ne!(guard, last);
        assert_eq!(guest.ok(&format!("{inside} sed -n 's/^PPid:\\t//p' /proc/{guard}/status")), "1");
        assert!(hello != before && hello.parse::<u32>().is_ok(), "one, and a new one: {hello}");
        (last, before) = (guard, hello);
    }

    // And with one it is not.
    guest.ok("echo 'comand = 1' >>/boot/multusd.cfg");
    guest.ok(&format!("{inside} kill -9 {last}"));
    await_in(&mut guest, "grep -q 'unknown key `comand`' /tmp/init.log");
}

/// An order of the script: its exit code and what it said.
fn script(guest: &mut Guest, word: &str) -> (i32, String) {
    match guest.order_within(guest_seconds(60), &format!("/etc/init.d/S15multusd {word}")) {
        Ok(reply) => (reply.code, reply.text().trim_end().into()),
        Err(ending) => guest.fail(ending),
    }
}

#[test]
fn the_init_script_starts_stops_reloads_and_tells_how_it_is() {
    let mut guest = installed("init-script");
    guest.put(file("packaging/init/S15multusd"), "/etc/init.d/S15multusd");
    guest.ok("chmod 755 /etc/init.d/S15multusd");
    let pid = |guest: &mut Guest| guest.ok("cat /var/run/multusd.pid");
    let is_up = "multusctl status hello 2>/dev/null | grep -q running";

    // Before: nothing runs, and that is said, and is no failure of a stop.
    assert_eq!(script(&mut guest, "status").0, 3);
    assert_eq!(script(&mut guest, "stop").0, 0);
    assert_ne!(script(&mut guest, "reload").0, 0);
    assert_eq!(script(&mut guest, "dance").0, 2);

    assert_eq!(script(&mut guest, "start"), (0, "Starting multusd: OK".into()));
    await_in(&mut guest, is_up);
    assert_eq!(script(&mut guest, "status").0, 0);
    let first = pid(&mut guest);
    assert_eq!(guest.ok("cat /run/multusd/multusd.pid"), first, "the same as multusd's own file says");
    let processes = guest.ok("pidof multusd");
    let (code, said) = script(&mut guest, "start");
    assert_eq!((code, pid(&mut guest)), (0, first.clone()), "{said}");
    assert_eq!(guest.ok("pidof multusd"), processes, "no second one");

    // Another program in the file, one that takes its time to stop: a reload brings it, the guard stays.
    guest.put_bytes(
        b"trap 'sleep 2; echo late >/tmp/late; exit' TERM\necho >/tmp/up\nwhile :; do sleep 0.1; done\n",
        0o755,
        "/slow",
    );
    guest.ok("printf '[program:slow]\\ncommand = /bin/sh /slow\\nstartsecs = 0\\n' >>/boot/multusd.cfg");
    assert_eq!(script(&mut guest, "reload").0, 0);
    await_in(&mut guest, "multusctl status slow 2>/dev/null | grep -q running && [ -e /tmp/up ]");
    assert_eq!(pid(&mut guest), first);

    // Down when it says so, and not before.
    assert_eq!(script(&mut guest, "stop"), (0, "Stopping multusd: OK".into()));
    assert_eq!(guest.ok("cat /tmp/late"), "late", "it waited for the slow one");
    assert_eq!(guest.ok(&format!("ls -d /proc/{first} /var/run/multusd.pid 2>/dev/null | wc -l")), "0");
    assert_eq!(guest.ok(&format!("ps | {HELLO}")), "");
    assert_eq!(script(&mut guest, "status").0, 3);

    // Started again, also from running; dead, and started once more.
    assert_eq!(script(&mut guest, "restart").0, 0);
    await_in(&mut guest, is_up);
    let second = pid(&mut guest);
    assert_eq!(script(&mut guest, "restart").0, 0);
    await_in(&mut guest, is_up);
    let third = pid(&mut guest);
    assert_ne!(second, third);
    let hello = guest.ok(&format!("ps | {HELLO}"));
    guest.ok(&format!("kill -9 {third}"));
    await_in(&mut guest, &format!("[ ! -e /proc/{third} ]"));
    assert_eq!(script(&mut guest, "status").0, 1, "dead, and its file is there");
    assert_eq!(script(&mut guest, "start").0, 0);
    await_in(&mut guest, is_up);
    let again = guest.ok(&format!("ps | {HELLO}"));
    assert!(again != hello && again.parse::<u32>().is_ok(), "one, and a new one: {again}");
    assert_eq!(script(&mut guest, "status").0, 0);
}
