//! What a check asks that needs no program: `tcp:HOST:PORT`, `unix:PATH`, `http://HOST[:PORT]/PATH`.

use core::net::SocketAddr;

/// Whom to ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CheckTarget<'a> {
    /// Healthy: it accepts a connection.
    Tcp(SocketAddr),
    /// The same on a Unix socket.
    Unix(&'a str),
    /// Healthy: it answers with a status of 200 to 399.
    Http {
        /// Where it is.
        address: SocketAddr,
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
            return Some(address(rest).map(CheckTarget::Tcp).ok_or(ADDRESS));
        }
        if let Some(path) = word.strip_prefix("unix:") {
            // sockaddr_un(7): 108 bytes with the zero byte.
            let fits = path.starts_with('/') && path.len() < 108;
            return Some(if fits {
                Ok(CheckTarget::Unix(path))
            } else {
                Err("needs an absolute path of less than 108 bytes")
            });
        }
        if word.starts_with("https://") {
            return Some(Err("https is not spoken here; use a command such as curl"));
        }
        let rest = word.strip_prefix("http://")?;
        let slash = rest.find('/').unwrap_or(rest.len());
        let (host, path) = rest.split_at(slash);
        let has_port = host.rsplit(':').next().is_some_and(|port| port != host && !port.ends_with(']'));
        let found = if has_port { address(host) } else { address(&[host, ":80"].concat()) };
        let path = if path.is_empty() { "/" } else { path };
        Some(found.map(|address| CheckTarget::Http { address, host, path }).ok_or(ADDRESS))
    }
}

fn address(text: &str) -> Option<SocketAddr> {
    match text.strip_prefix("localhost:") {
        Some(port) => ["127.0.0.1:", port].concat().parse().ok(),
        None => text.parse().ok(),
    }
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
        let local: SocketAddr = "127.0.0.1:80".parse().unwrap();
        for word in ["tcp:127.0.0.1:80", "tcp:localhost:80"] {
            assert_eq!(CheckTarget::read(word), Some(Ok(CheckTarget::Tcp(local))));
        }
        let six: SocketAddr = "[::1]:8080".parse().unwrap();
        for (word, address, host, path) in [
            ("http://127.0.0.1", local, "127.0.0.1", "/"),
            ("http://localhost/a?b:c", local, "localhost", "/a?b:c"),
            ("http://[::1]:8080/h", six, "[::1]:8080", "/h"),
        ] {
            assert_eq!(
                CheckTarget::read(word),
                Some(Ok(CheckTarget::Http { address, host, path })),
                "{word}"
            );
        }
        for wrong in [
            "tcp:80",
            "tcp:example.org:80",
            "http://example.org/",
            "unix:a",
            "https://127.0.0.1/",
            "tcp:localhost:99999",
        ] {
            assert!(matches!(CheckTarget::read(wrong), Some(Err(_))), "{wrong}");
        }
    }
}
