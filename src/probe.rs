//! `multusd probe TARGET`: asks once, by connecting, whether something serves. This is what a built-in
//! `check` runs, as a process of its own whose time is limited by whoever started it.

use std::ffi::OsString;
use std::os::fd::{AsFd, OwnedFd};

use crate::config::{CheckTarget, Server};
use crate::sys::{SysError, console, poll, stream};

/// Answers are read up to here; the status is in their first line.
const ANSWER_BYTES_MAX: usize = 512;

/// Asks; 0: it is healthy. What is wrong is said on standard output, as every check says it.
pub fn main(arguments: &mut dyn Iterator<Item = OsString>) -> u8 {
    let word = arguments.next().unwrap_or_default().to_string_lossy().into_owned();
    let why = match CheckTarget::read(&word) {
        None => "write tcp:HOST:PORT, unix:PATH or http://HOST[:PORT]/PATH".into(),
        Some(Err(fault)) => fault.into(),
        Some(Ok(target)) => match ask(&target) {
            Ok(()) => return 0,
            Err(why) => why,
        },
    };
    let _ = console::output([&word, ": ", &why, "\n"].concat().as_bytes());
    1
}

fn ask(target: &CheckTarget) -> Result<(), String> {
    let sentence = |error: SysError| error.to_string();
    match target {
        CheckTarget::Tcp(server) => connect(server).map(drop).map_err(sentence),
        CheckTarget::Unix(path) => stream::connect_unix(path.as_ref()).map(drop).map_err(sentence),
        CheckTarget::Http { server, host, path } => {
            let connection = connect(server).map_err(sentence)?;
            let request =
                ["GET ", path, " HTTP/1.0\r\nHost: ", host, "\r\nConnection: close\r\n\r\n"].concat();
            stream::send(connection.as_fd(), request.as_bytes()).map_err(sentence)?;
            let mut answer = [0; ANSWER_BYTES_MAX];
            let mut length = 0;
            while length < answer.len() && !answer[..length].contains(&b'\n') {
                poll::wait_readable(connection.as_fd(), None);
                match stream::receive(connection.as_fd(), &mut answer[length..]).map_err(sentence)? {
                    0 => break,
                    count => length += count,
                }
            }
            judge(&answer[..length])
        }
    }
}

fn connect(server: &Server) -> Result<OwnedFd, SysError> {
    stream::connect(server.host, server.is_six, server.port)
}

/// `HTTP/1.1 200 OK`
fn judge(answer: &[u8]) -> Result<(), String> {
    let line = answer.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let line = String::from_utf8_lossy(line);
    let status = line.split(' ').nth(1).and_then(|word| word.parse::<u32>().ok());
    match status {
        Some(200..400) if line.starts_with("HTTP/") => Ok(()),
        _ if line.is_empty() => Err("no answer".into()),
        _ => Err(line.trim_end().to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_healthy_by_its_status() {
        for good in ["HTTP/1.1 200 OK\r\n", "HTTP/1.0 204 \r\nx: y\r\n", "HTTP/1.1 302 Found\r\n"] {
            assert_eq!(judge(good.as_bytes()), Ok(()));
        }
        for (bad, says) in [
            ("HTTP/1.1 503 Service Unavailable\r\n", "HTTP/1.1 503 Service Unavailable"),
            ("", "no answer"),
            ("SSH-2.0 200 x\r\n", "SSH-2.0 200 x"),
        ] {
            assert_eq!(judge(bad.as_bytes()), Err(says.to_string()));
        }
    }
}
