//! Rows: the machine itself, where an image of multusd's runs it (`multusd system`).

use super::assemble::Draft;
use super::keys::Kind::{Bool, Other};
use super::keys::{Key, key};
use super::value::Wrong;
use super::words;

pub(super) static SYSTEM: &[Key] = &[
    key!(
        "timezone",
        Other("a time zone such as Europe/Berlin", timezone),
        "UTC",
        "Europe/Berlin",
        "Time zone of what runs here, by its name in /usr/share/zoneinfo. Takes effect at boot, in an image of multusd's."
    ),
    key!(
        "ntp",
        Other("a list of servers", ntp),
        "(none)",
        "pool.ntp.org or 192.168.1.1, ntp.example.com",
        "Servers of the time, by name or address, separated by commas or spaces. With it the clock is set at boot and kept right, by a program that is called ntp. In an image of multusd's."
    ),
    key!(
        "root_password",
        Other("a hash as `mkpasswd -m sha512` prints it", password),
        "(none)",
        "$6$Zk3.lH2a$qJ9xVb0cWm/1",
        "With it root may log in on screen and serial line; without it nobody may. Takes effect at boot, in an image of multusd's."
    ),
    key!(
        "copy_programs",
        Bool(|d, v| d.system.copy_programs = v),
        "false",
        "true",
        "At boot the files in programs/ of the boot partition are copied to /data/programs, executable, each whole or not at all. In an image of multusd's."
    ),
];

/// Each becomes a line of another program's configuration.
fn ntp(draft: &mut Draft, text: &str) -> Result<(), Wrong> {
    let servers = words::names(text);
    let good = !servers.is_empty() && servers.iter().all(|server| words::is_server(server));
    draft.system.ntp = servers;
    if good { Ok(()) } else { Err(Wrong::Kind) }
}

fn timezone(draft: &mut Draft, text: &str) -> Result<(), Wrong> {
    let is_part = |part: &str| {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_+-".contains(&byte);
        !part.is_empty() && part.bytes().all(is_plain)
    };
    draft.system.timezone = Some(text.into());
    if text.len() < 64 && text.split('/').all(is_part) { Ok(()) } else { Err(Wrong::Kind) }
}

/// crypt(5): `$ID$…`, of characters that stand for nothing in /etc/shadow.
fn password(draft: &mut Draft, text: &str) -> Result<(), Wrong> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"$./=,_-".contains(&byte);
    draft.system.root_password = Some(text.into());
    let is_hash = text.starts_with('$') && text.matches('$').count() >= 3 && text.len() >= 20;
    if is_hash && text.len() < 256 && text.bytes().all(is_plain) { Ok(()) } else { Err(Wrong::Kind) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_zone_leads_nowhere_else() {
        let read = |text: &str| timezone(&mut Draft::default(), text).is_ok();
        for good in ["UTC", "Europe/Berlin", "America/Argentina/Buenos_Aires", "Etc/GMT+5"] {
            assert!(read(good), "{good}");
        }
        for bad in ["", "/etc/passwd", "../shadow", "Europe/../x", "a b", "Europe/"] {
            assert!(!read(bad), "{bad}");
        }
    }

    #[test]
    fn a_server_of_the_time_is_a_name_or_an_address_and_never_a_line_of_its_own() {
        let read = |text: &str| {
            let mut draft = Draft::default();
            ntp(&mut draft, text).ok().map(|()| draft.system.ntp)
        };
        assert_eq!(read("pool.ntp.org").unwrap(), ["pool.ntp.org"]);
        let all = ["192.168.1.1", "2001:db8::1", "::ffff:10.0.0.1", "ntp-1.example.com"];
        assert_eq!(read("192.168.1.1, 2001:db8::1 ::ffff:10.0.0.1,ntp-1.example.com").unwrap(), all);
        assert_eq!(read("a\nb").unwrap(), ["a", "b"], "a line end is a space");
        for bad in ["", ",", "*", "a;b", "a#b", "a\"b", "a\0", "fe80::1%eth0", "from", "-x"] {
            assert_eq!(read(bad).is_some(), bad == "from", "{bad}");
        }
        assert_eq!(read(&vec!["a".repeat(63); 4].join(".")), None);
    }

    #[test]
    fn a_password_is_a_hash_and_no_second_field() {
        let read = |text: &str| password(&mut Draft::default(), text).is_ok();
        assert!(read("$6$Zk3.lH2a$qJ9xVb0cWm/1"));
        assert!(read("$y$j9T$abcdefgh$0123456789/."));
        for bad in ["secret", "", "$6$", "$6$salt$hash:0:0:99999:7:::", "$6$salt$hash\nroot::0", "*"] {
            assert!(!read(bad), "{bad}");
        }
    }
}
