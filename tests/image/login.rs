//! Who may log in, and from where; the network and the time that come with it.

use std::fs;
use std::net::{TcpListener, UdpSocket};
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::Instant;

use super::card::Card;
use super::guest::guest_seconds;
use super::running::{Options, PROMPT};

/// Seconds from 1900, where NTP counts from, to 1970.
const NTP_EPOCH: u32 = 2_208_988_800;
/// 2031-01-01: later than any image.
const THEN: u32 = 1_924_992_000;

/// A network as QEMU makes one, with this machine's port leading to SSH.
fn network() -> (Options, u16) {
    // Free now; nobody else here asks for ports in between.
    let port =
        TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a port").port();
    let more = format!(
        "-netdev user,id=net,hostfwd=tcp:127.0.0.1:{port}-:22 -device virtio-net-pci,netdev=net,romfile="
    );
    let more = more.split_whitespace().map(String::from).collect();
    (Options { more, ..Options::default() }, port)
}

/// A pair of SSH keys in the test's folder.
fn key(card: &Card, name: &str) -> PathBuf {
    let path = card.folder.join(name);
    let made = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&path).status();
    assert!(made.expect("ssh-keygen").success());
    path
}

fn ssh(key: &PathBuf, port: u16, order: &str) -> Output {
    let mut command = Command::new("ssh");
    command.args([
        "-o",
        "StrictHostKeyChecking=no",
        "-o",
        "UserKnownHostsFile=/dev/null",
        "-o",
        "BatchMode=yes",
    ]);
    command.args(["-o", "IdentitiesOnly=yes", "-o", "ConnectTimeout=60", "-p", &port.to_string(), "-i"]);
    command.arg(key).args(["root@127.0.0.1", order]).output().expect("ssh")
}

#[test]
fn on_a_card_as_it_is_made_nobody_logs_in_and_nothing_listens() {
    let card = Card::flashed("locked", "qemu-virt");
    let (options, port) = network();
    let mut machine = card.power_on_with(&options);
    machine.said(guest_seconds(200), PROMPT);
    machine.send("\n");
    machine.said(guest_seconds(60), "Nobody can log in here");
    let said = machine.said(guest_seconds(60), PROMPT);
    assert!(!said.contains("login:"), "{said}");
    let tried = ssh(&key(&card, "key"), port, "true");
    assert_eq!(tried.status.code(), Some(255), "{}", String::from_utf8_lossy(&tried.stderr));
}

#[test]
fn a_key_on_the_card_opens_ssh_for_its_owner_alone_and_ntp_sets_the_clock() {
    // What listens at the guest's 10.0.2.2 is this machine.
    let clock = UdpSocket::bind("127.0.0.1:123").expect("port 123 (needs root, and no NTP server here)");
    std::thread::spawn(move || {
        let began = Instant::now();
        let mut question = [0; 48];
        while let Ok((_, from)) = clock.recv_from(&mut question) {
            // RFC 5905: version 4, server, stratum 1; the asker's time back, then ours twice.
            let mut answer = [0; 48];
            answer[..4].copy_from_slice(&[0x24, 1, question[2], 0xec]);
            answer[12..16].copy_from_slice(b"TEST");
            answer[24..32].copy_from_slice(&question[40..48]);
            let now = began.elapsed();
            let seconds = THEN.wrapping_add(NTP_EPOCH).wrapping_add(now.as_secs() as u32);
            let fraction = (u64::from(now.subsec_nanos()) << 32) / 1_000_000_000;
            for at in [16, 32, 40] {
                answer[at..at + 4].copy_from_slice(&seconds.to_be_bytes());
                answer[at + 4..at + 8].copy_from_slice(&(fraction as u32).to_be_bytes());
            }
            let _ = clock.send_to(&answer, from);
        }
    });
    // In [system], which begins with the password.
    let card = Card::configured("ssh", "qemu-virt", "timezone = Europe/Berlin\nntp = 10.0.2.2\n");
    card.put("/multusd.cfg", card.text("/multusd.cfg").replace(";hostname = ", "hostname = ").as_bytes());
    let (owner, stranger) = (key(&card, "owner"), key(&card, "stranger"));
    // As Notepad would leave it.
    let keys = fs::read_to_string(owner.with_extension("pub")).unwrap().replace('\n', "\r\n");
    card.put("/authorized_keys", keys.as_bytes());
    let (options, port) = network();
    let mut machine = card.boot_with(&options);
    machine.until(guest_seconds(120), "ip -o addr show scope global | grep -q 10.0.2.15");
    machine.until(guest_seconds(120), "netstat -ltn | grep -q :22");
    let shown = ssh(&owner, port, "hostname; multusctl status");
    let text = String::from_utf8_lossy(&shown.stdout);
    assert!(
        text.starts_with("pump-7\n") && text.contains("ssh"),
        "{text}{}",
        String::from_utf8_lossy(&shown.stderr)
    );
    let refused = ssh(&stranger, port, "true");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("Permission denied"));
    // The host's key lasts, so that nobody is warned of a changed one.
    let host_key =
        machine.ok("dropbearkey -y -f /data/ssh/dropbear_ed25519_host_key 2>/dev/null | grep ^ssh");
    machine.until(guest_seconds(120), "[ $(date +%s) -ge 1924992000 ]");
    assert_eq!(machine.ok("date +%Y-%m-%dT%H%z | cut -c1-10,14-"), "2031-01-01+0100");
    machine.power_off();
    let mut machine = card.boot_with(&options);
    machine.until(guest_seconds(120), "netstat -ltn | grep -q :22");
    assert!(ssh(&owner, port, "true").status.success());
    let again = machine.ok("dropbearkey -y -f /data/ssh/dropbear_ed25519_host_key 2>/dev/null | grep ^ssh");
    assert_eq!(again, host_key);
}
