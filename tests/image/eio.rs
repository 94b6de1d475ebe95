//! A card that fails: every read is answered with an error from one moment on, with nothing of it left in memory but what
//! runs. Outputs go safe, what is bundled starts again, and the supervisor is replaced.

use super::card::Card;
use super::guest::guest_seconds;
use super::running::Options;

/// The line of the output: 5 of the PL061.
const LINE: u32 = 5;

/// A pump that runs for ever, and who breaks things.
const PROGRAMS: &str = "
[output:relay]
gpio = 9030000.pl061:5
safe = low
running = on

[program:pump]
command = /bin/sleep 1000000
outputs = relay

[program:breaker]
command = /bin/sh /boot/breaker
";

/// What is done in the guest, by programs that are in its memory: nothing else can be started there later.
const BREAKER: &str = r#"
mkdir -p /run/bin
cp /bin/busybox /run/bin/busybox
/run/bin/busybox --install -s /run/bin
cp /usr/sbin/multusd /run/bin/multusctl
cat >/run/breaker <<'END'
say() { echo "breaker: $*" >/dev/console; }
state() { multusctl status | awk -v name="$1" '$1 == name { print $2, $3 }'; }
await() { until eval "$1"; do usleep 20000; done; }
supervisor() { grep -l superv /proc/[0-9]*/comm | cut -d/ -f3; }
await '[ "$(state pump | cut -d" " -f1)" = running ] && [ "$(state log | cut -d" " -f1)" = running ]'
pump=$(state pump | cut -d' ' -f2)
log=$(state log | cut -d' ' -f2)
say "ready; the supervisor is $(supervisor)"
await 'echo 3 >/proc/sys/vm/drop_caches; ! head -c 4096 /dev/vda2 >/dev/null 2>&1'
await '! cat /usr/share/zoneinfo/Asia/Tokyo >/dev/null 2>&1'
say "nothing can be read"
/bin/sleep 0 2>/dev/null && say "and yet it starts"
kill -9 "$pump"
await '[ "$(state pump | cut -d" " -f1)" != running ]'
say "the pump is $(state pump | cut -d' ' -f1)"
kill -9 "$log"
await '[ "$(state log | cut -d" " -f1)" = running ] && [ "$(state log | cut -d" " -f2)" != "$log" ]'
say "log is back"
former=$(supervisor)
kill -9 "$former"
await '[ -n "$(supervisor)" ] && [ "$(supervisor)" != "$former" ] && multusctl status >/run/status; grep -q "supervisor replaced" /run/status'
say "the supervisor is back"
sleep 1000000
END
PATH=/run/bin exec /run/bin/sh /run/breaker
"#;

#[test]
fn with_a_card_that_cannot_be_read_outputs_go_safe_and_what_is_bundled_starts() {
    let card = Card::flashed("eio", "qemu-virt");
    card.put("/multusd.cfg", (card.text("/multusd.cfg") + PROGRAMS).as_bytes());
    card.put("/breaker", BREAKER.as_bytes());
    let file = format!("driver=file,filename={},node-name=file", card.path().display());
    let drive = ["-blockdev", &file, "-blockdev", "driver=raw,file=file,node-name=card"];
    let drive = Some(drive.map(String::from).to_vec());
    let mut machine = card.power_on_with(&Options { drive, ..Options::default() });
    machine.said(guest_seconds(120), "breaker: ready");
    machine.await_line(LINE, true, guest_seconds(30));
    let errors = r#"{"driver":"blkdebug","node-name":"broken","image":"card",
        "inject-error":[{"event":"none","iotype":"read","errno":5}]}"#;
    machine.qmp("blockdev-add", &errors.replace('\n', " "));
    let disk = "/machine/peripheral-anon/device[0]";
    machine.qmp("qom-set", &format!(r#"{{"path":"{disk}","property":"drive","value":"broken"}}"#));
    let said = machine.said(guest_seconds(120), "breaker: the pump is ");
    assert!(said.contains("breaker: nothing can be read"), "{said}");
    assert!(!said.contains("and yet it starts"), "{said}");
    machine.await_line(LINE, false, guest_seconds(5));
    machine.said(guest_seconds(30), "breaker: log is back");
    machine.said(guest_seconds(60), "breaker: the supervisor is back");
    assert!(!machine.line(LINE), "its program cannot be started, so it stays safe");
}
