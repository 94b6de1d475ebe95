//! What a check asks that needs no program: `tcp:HOST:PORT`, `unix:PATH`, `http://HOST[:PORT]/PATH`.

/// A server's address: digits and colons only (names are not looked up), and its port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Server<'a> {
    /// As inet_pton(3) takes it, without brackets.
    pub host: &'a str,
    /// It is one of IP version 6.
    pub is_six: bool,
    /// 1 to 65535.
    pub port: u16,
}

/// Whom to ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CheckTarget<'a> {
    /// Healthy: it accepts a connection.
    Tcp(Server<'a>),
    /// The same on a Unix socket.
    Unix(&'a str),
    /// Healthy: it answers with a status of 200 to 399.
    Http {
        /// Where it is.
        server: Server<'a>,
        /// As the header `Host` has it.
        host: &'a str,
        /// The path, from its slash on.
        path: &'a str,
    },
}

/// Why a word that begins as one of these is none.
pub type Fault = &'static str;

const ADDRESS: Fault = "needs an address and a port, for example 127.0.0.1:80, [::1]:80 or localhost:80 (names are not looked up)";

impl<'a> CheckTarget<'a> {
    /// Reads a word; `None`: it is a command's.
    pub fn read(word: &'a str) -> Option<Result<CheckTarget<'a>, Fault>> {
        if let Some(rest) = word.strip_prefix("tcp:") {
            return Some(server(rest, None).map(CheckTarget::Tcp).ok_or(ADDRESS));
        }
        if let Some(path) = word.strip_prefix("unix:") {
            // sockaddr_un(7): 108 bytes with the zero byte.
            let fits = path.starts_with('/') && path.len() < 108;
            let path = if fits {
                Ok(CheckTarget::Unix(path))
            } else {
                Err("needs an absolute path of less than 108 bytes")
            };
            return Some(path);
        }
        if word.starts_with("https://") {
            return Some(Err("https is not spoken here; use a command such as curl"));
        }
        let rest = word.strip_prefix("http://")?;
        let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let path = if path.is_empty() { "/" } else { path };
        Some(server(host, Some(80)).map(|server| CheckTarget::Http { server, host, path }).ok_or(ADDRESS))
    }
}

/// `ADDRESS:PORT`, `[ADDRESS]:PORT`; without a port that `port`.
pub(super) fn server(text: &str, port: Option<u16>) -> Option<Server<'_>> {
    let (host, is_six, rest) = match text.strip_prefix('[') {
        Some(text) => {
            let (host, rest) = text.split_once(']')?;
            (host, true, rest)
        }
        None => {
            let (host, rest) = text.split_at(text.find(':').unwrap_or(text.len()));
            (if host == "localhost" { "127.0.0.1" } else { host }, false, rest)
        }
    };
    let port = match rest.strip_prefix(':') {
        Some(digits) => digits.parse().ok(),
        None if rest.is_empty() => port,
        None => None,
    };
    let sign =
        |byte: u8| if is_six { byte == b':' || byte.is_ascii_hexdigit() } else { byte.is_ascii_digit() };
    let is_address = !host.is_empty() && host.bytes().all(|byte| byte == b'.' || sign(byte));
    Some(Server { host, is_six, port: port? }).filter(|server| is_address && server.port != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_target_is_a_command() {
        for word in ["/usr/bin/ping", "tcpcheck", "http", "unix"] {
            assert_eq!(CheckTarget::read(word), None);
        }
    }

    #[test]
    fn targets_have_an_address_and_a_port() {
        let local = Server { host: "127.0.0.1", is_six: false, port: 80 };
        for word in ["tcp:127.0.0.1:80", "tcp:localhost:80"] {
            assert_eq!(CheckTarget::read(word), Some(Ok(CheckTarget::Tcp(local))));
        }
        let six = Server { host: "::1", is_six: true, port: 8080 };
        for (word, server, host, path) in [
            ("http://127.0.0.1", local, "127.0.0.1", "/"),
            ("http://localhost/a?b:c", local, "localhost", "/a?b:c"),
            ("http://[::1]:8080/h", six, "[::1]:8080", "/h"),
        ] {
            assert_eq!(CheckTarget::read(word), Some(Ok(CheckTarget::Http { server, host, path })), "{word}");
        }
        for wrong in [
            "tcp:80",
            "tcp:example.org:80",
            "tcp:127.0.0.1:0",
            "tcp:127.0.0.1",
            "tcp:[::1:80",
            "http://example.org/",
            "http://127.0.0.1x/",
            "unix:a",
            "https://127.0.0.1/",
            "tcp:localhost:99999",
        ] {
            assert!(matches!(CheckTarget::read(wrong), Some(Err(_))), "{wrong}");
        }
    }
}
