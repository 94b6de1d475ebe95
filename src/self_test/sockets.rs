//! Checks of the Unix sockets and of what the kernel says of who is at the other end.

use std::os::fd::AsFd;
use std::path::Path;

use crate::sys::SysError;
use crate::sys::control_client::{Client, Trouble};
use crate::sys::socket::{self, Peer, Received};

use super::Place;
use super::verdict::{Verdict, got, is_readable, must, refused, soon, tell};

fn through<T>(result: Result<T, Trouble>) -> T {
    match result {
        Ok(value) => value,
        Err(Trouble::NoDaemon(errno) | Trouble::NotAllowed(errno) | Trouble::Failed(errno)) => {
            refused(&SysError { operation: "socket", errno: errno as i32 })
        }
        Err(_) => tell(Verdict::Failed, "the other end is closed, or slow"),
    }
}

fn is_self(peer: &Peer) {
    must(peer.pid == std::process::id(), "the peer is told wrong");
}

pub fn control(_: &Place) {
    let path = Path::new("control");
    let listener = got(socket::listen_control(path));
    let client = through(Client::connect(path, soon()));
    is_readable(listener.as_fd());
    let Ok(Some((connection, peer))) = socket::accept(listener.as_fd()) else {
        tell(Verdict::Failed, "not accepted, or the peer not told")
    };
    let connection = connection.as_fd();
    is_self(&peer);
    through(client.send(b"one", soon()));
    through(client.send(b"of many", soon()));
    let mut buffer = [0; 8];
    for length in [3, 7] {
        let packet = socket::receive(connection, &mut buffer);
        must(packet == Received::Packet(length), "two packets are not two");
    }
    socket::send(connection, b"answer");
    must(through(client.receive(&mut buffer, soon())) == b"answer", "an answer is another");
}

pub fn notify(_: &Place) {
    let path = Path::new("notify");
    let socket = got(socket::listen_notify(path, None));
    got(socket::notify(got(socket::connect_notify(path)).as_fd(), b"READY=1"));
    let mut buffer = [0; 8];
    match socket::peek_notification(socket.as_fd(), &mut buffer) {
        Some((7, peer)) => is_self(&peer),
        _ => tell(Verdict::Failed, "a message does not arrive"),
    }
    must(socket::take_notification(socket.as_fd()), "a message is gone");
}
