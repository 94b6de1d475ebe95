//! Checks of the Unix sockets and of what the kernel says of who is at the other end.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixDatagram;

use crate::sys::control_client::{Client, Trouble};
use crate::sys::socket::{self, Peer, Received};
use crate::sys::{SysError, clock, poll};
use crate::time::{Instant, Millis};

use super::{Finding, MOMENT_MS, Place, Tried, expect, refused};

fn soon() -> Instant {
    clock::now() + Millis(MOMENT_MS.into())
}

fn trouble(operation: &'static str) -> impl FnOnce(Trouble) -> Finding {
    move |trouble| match trouble {
        Trouble::NoDaemon(errno) | Trouble::NotAllowed(errno) | Trouble::Failed(errno) => {
            Finding::Refused(SysError { operation, errno: errno as i32 })
        }
        Trouble::TimedOut => Finding::Failed("a call on a socket takes too long"),
        Trouble::Closed => Finding::Failed("the other end is closed"),
    }
}

/// Both ends of a connection to ourselves, and who the kernel says we are.
fn connect(place: &Place) -> Result<(Client, OwnedFd, Peer), Finding> {
    let path = place.path("control")?;
    let listener = socket::listen_control(&path)?;
    let client = Client::connect(&path, soon()).map_err(trouble("connect"))?;
    poll::wait_readable(listener.as_fd(), Some(MOMENT_MS));
    match socket::accept(listener.as_fd()) {
        Some((connection, peer)) => Ok((client, connection, peer)),
        None => Err(Finding::Failed("a connection is not accepted, or its peer not told")),
    }
}

pub fn control(place: &Place) -> Tried {
    let (client, connection, peer) = connect(place)?;
    expect(peer.pid == std::process::id(), "the process at the other end is told wrong")?;
    for packet in [b"one".as_slice(), b"of many"] {
        client.send(packet, soon()).map_err(trouble("sendmsg"))?;
    }
    let mut buffer = [0; 64];
    let first = socket::receive(connection.as_fd(), &mut buffer);
    let second = socket::receive(connection.as_fd(), &mut buffer);
    let are_whole = (first, second) == (Received::Packet(3), Received::Packet(7));
    expect(are_whole, "two packets do not arrive as two")?;
    expect(socket::send(connection.as_fd(), b"answer"), "an answer cannot be sent")?;
    let answer = client.receive(&mut buffer, soon()).map_err(trouble("recv"))?;
    expect(answer == b"answer", "an answer does not arrive as it was sent")
}

pub fn groups(place: &Place) -> Tried {
    let (_client, connection, _) = connect(place)?;
    // That there may be none is no matter; too many for us is: ERANGE.
    socket::peer_groups(connection.as_fd(), &mut [0; 128])?;
    Ok(())
}

pub fn notify(place: &Place) -> Tried {
    let path = place.path("notify")?;
    let socket = socket::listen_notify(&path, None)?;
    let sender = UnixDatagram::unbound().map_err(refused("socket"))?;
    sender.send_to(b"READY=1", &path).map_err(refused("sendto"))?;
    let mut buffer = [0; 64];
    let Some((length, peer)) = socket::peek_notification(socket.as_fd(), &mut buffer) else {
        return Err(Finding::Failed("a message does not arrive"));
    };
    expect(buffer[..length] == *b"READY=1", "a message does not arrive as it was sent")?;
    expect(peer.pid == std::process::id(), "the sender of a message is told wrong")?;
    expect(socket::take_notification(socket.as_fd()), "a message that was looked at is gone")?;
    expect(!socket::take_notification(socket.as_fd()), "a message that was taken is still there")
}

pub fn pair(_: &Place) -> Tried {
    let (ours, theirs) = socket::pair()?;
    let mut buffer = [0; 8];
    expect(socket::peek(ours.as_fd(), &mut buffer) == Received::Nothing, "something nobody sent is there")?;
    let mut theirs = File::from(theirs);
    theirs.write_all(b"3\n").map_err(refused("write"))?;
    expect(socket::peek(ours.as_fd(), &mut buffer) == Received::Packet(2), "what was sent does not arrive")?;
    socket::receive(ours.as_fd(), &mut buffer);
    drop(theirs);
    expect(socket::peek(ours.as_fd(), &mut buffer) == Received::Closed, "a closed end is not told")
}
