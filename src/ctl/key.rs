//! `key NAME`: makes a key that two machines share (`[dido:NAME]`), shows it, or takes it from the other machine. It is shown when
//! that is asked for and at no other time; what is there is not lost by mistake.

use std::path::Path;

use super::{Call, Exit, Failure, Outcome, fail, print};
use crate::config::child::{account, is_key, key_digits, key_path};
use crate::sys::users::Accounts;
use crate::sys::{SysError, file, machine, poll, process};

/// Bytes of a file or of standard input that holds a key: 64 digits, a line end, and room for white space.
const TEXT_BYTES_MAX: usize = 128;
/// Whose keys these are.
const CHILD: &str = "dido";

/// `key NAME`
pub fn key(call: &Call) -> Outcome {
    let name = call.arguments[0].as_str();
    // Digits where a name should be are a key, which is never said.
    if key_digits(name).is_some() || !is_key(name) {
        return fail(Exit::Usage, "key NAME: letters, digits, dots, - and _; or a path that begins with /");
    }
    if call.show && (call.set || call.force) {
        return fail(Exit::Usage, "--show changes nothing; write it alone");
    }
    let path = key_path(name);
    let failed =
        |error: SysError| Failure { exit: Exit::Failed, text: [&path, ": ", &error.to_string()].concat() };
    if call.show {
        let bytes = file::read_bounded(Path::new(&path), TEXT_BYTES_MAX).map_err(failed)?;
        return match understood(&bytes) {
            Some(digits) => print(&[&digits, "\n"].concat()),
            None => fail(Exit::Failed, [&path, ": these are not 64 hexadecimal digits"].concat()),
        };
    }
    if file::exists(&path) && !call.force {
        return fail(
            Exit::Failed,
            [&path, " is there already; with --force it is replaced, and whoever has the old one is not heard any more"]
                .concat(),
        );
    }
    let digits = if call.set { given()? } else { made().map_err(failed)? };
    write(Path::new(&path), &digits).map_err(failed)?;
    if call.set {
        return print(&[&path, " is written\n"].concat());
    }
    print(
        &[
            &path,
            " is made. The other machine gets the same one:\n    multusctl key --show ",
            name,
            " | ssh root@OTHER multusctl key --set ",
            name,
            "\nand both name it behind the other's address: peer = 192.168.0.100:9190 ",
            name,
            "\n",
        ]
        .concat(),
    )
}

fn understood(bytes: &[u8]) -> Option<String> {
    let digits = str::from_utf8(bytes).ok()?.trim();
    key_digits(digits).map(|_| digits.to_ascii_lowercase())
}

/// From standard input.
fn given() -> Result<String, Failure> {
    let mut bytes = [0; TEXT_BYTES_MAX];
    let mut length = 0;
    while let Some(more @ 1..) = file::read_some(poll::borrow(0), &mut bytes[length..]) {
        length += more;
        if bytes[..length].contains(&b'\n') {
            break;
        }
    }
    let wrong = || Failure {
        exit: Exit::Failed,
        text: "standard input: a key is 64 hexadecimal digits, as --show says them".into(),
    };
    understood(&bytes[..length]).ok_or_else(wrong)
}

fn made() -> Result<String, SysError> {
    let mut digits = String::new();
    for _ in 0..4 {
        for byte in machine::kernel_random()?.to_ne_bytes() {
            digits.extend(
                [byte >> 4, byte & 15].map(|digit| char::from(b"0123456789abcdef"[usize::from(digit)])),
            );
        }
    }
    Ok(digits)
}

/// So that the child can read it and nobody else, and only root can write it.
fn write(path: &Path, digits: &str) -> Result<(), SysError> {
    if let Some(directory) = path.parent() {
        file::make_directory(directory, 0o755)?;
    }
    file::replace(path, [digits, "\n"].concat().as_bytes())?;
    if !process::is_root() {
        return Ok(());
    }
    let (name, number) = account(CHILD);
    let group = Accounts::read().identity(&name, None).map_or(number, |identity| identity.group);
    file::set_owner(path, 0, group)?;
    file::set_mode(path, 0o640)
}
