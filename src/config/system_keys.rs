//! Rows: the machine itself, where an image of multusd's runs it (`multusd system`).

use super::assemble::Draft;
use super::keys::Kind::{Bool, Other};
use super::keys::{Key, key};
use super::value::Wrong;

pub(super) static SYSTEM: &[Key] = &[
    key!(
        "timezone",
        Other("a time zone such as Europe/Berlin", timezone),
        "UTC",
        "Europe/Berlin",
        "Time zone of what runs here, by its name in /usr/share/zoneinfo. Takes effect at boot, in an image of multusd's."
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
    fn a_password_is_a_hash_and_no_second_field() {
        let read = |text: &str| password(&mut Draft::default(), text).is_ok();
        assert!(read("$6$Zk3.lH2a$qJ9xVb0cWm/1"));
        assert!(read("$y$j9T$abcdefgh$0123456789/."));
        for bad in ["secret", "", "$6$", "$6$salt$hash:0:0:99999:7:::", "$6$salt$hash\nroot::0", "*"] {
            assert!(!read(bad), "{bad}");
        }
    }
}
