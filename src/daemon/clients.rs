//! Connections to the control socket: who gets a place, who gives one up, and what is done where there is no
//! descriptor for one more. No client is waited for, and a wake-up does a bounded piece of work for each.
//!
//! Who sends what is no request is told so and disconnected; who takes no reply is disconnected. Where all places
//! are taken, the client that has been silent for longest gives way, and is told why.

use std::os::fd::{BorrowedFd, OwnedFd};

use crate::limits::{CONTROL_CLIENT_COUNT_MAX, PACKET_BYTES_MAX};
use crate::protocol::{self, Refusal, Reply};
use crate::sys::page::Keep;
use crate::sys::poll::{self, Interest};
use crate::sys::reserve;
use crate::sys::socket::{self, Peer, Received};

use super::control::refused;
use super::renew::Asker;
use super::{Daemon, Token, borrow};

/// A connection.
pub struct Client {
    connection: OwnedFd,
    /// Whose it is.
    user: u32,
    /// May change things.
    pub allowed: bool,
    /// Lower than that of every client that was heard later.
    heard: u64,
    /// Wants news from this sequence number on.
    pub subscribed: Option<u64>,
    /// Has not taken the news there are.
    is_behind: bool,
    /// Reads what programs write as they write it.
    pub follows: bool,
}

/// Requests taken from one client per wake-up: the longest takes some 50 µs, and others wait, deadlines too.
const REQUESTS_AT_ONCE: usize = 2;

/// Connections taken at a time; those that still wait wake us again.
const ACCEPTS_AT_ONCE: usize = CONTROL_CLIENT_COUNT_MAX;

/// Places for clients that may only look: anyone may connect, and must not keep out who may do more.
const ONLOOKER_COUNT_MAX: usize = CONTROL_CLIENT_COUNT_MAX / 2;

/// Those of them that one user may have.
const ONLOOKER_SHARE: usize = ONLOOKER_COUNT_MAX / 2;

impl Daemon {
    pub(super) fn accept_clients(&mut self) {
        let Some(listener) = self.page.kept(Keep::Control) else { return };
        for _ in 0..ACCEPTS_AT_ONCE {
            match socket::accept(poll::borrow(listener)) {
                Ok(None) => return,
                Ok(Some((connection, peer))) => self.take_client(connection, &peer),
                // No descriptor is left. One was kept for this; after that a silent client's.
                Err(_) if reserve::release_one() => {}
                Err(_) if self.end_oldest(&|client| !client.allowed) || self.end_oldest(&|_| true) => {}
                Err(_) => {
                    // It would wake us for ever. Listened to again when a client leaves, at the latest after a pause.
                    self.poller.remove(poll::borrow(listener));
                    self.is_deaf = true;
                    return self.try_again_soon();
                }
            }
        }
    }

    /// After [`Daemon::accept_clients`] had to stop.
    pub(super) fn listen_again(&mut self) {
        if std::mem::take(&mut self.is_deaf) {
            self.watch_control();
        }
    }

    fn take_client(&mut self, connection: OwnedFd, peer: &Peer) {
        let allowed = self.is_allowed(&connection, peer);
        let Some(index) = self.place_for(allowed, peer.user) else { return refuse_place(&connection) };
        let heard = self.next_turn();
        self.watch(borrow(&connection), Token::Client(index), Interest::Read);
        let user = peer.user;
        let (subscribed, is_behind, follows) = (None, false, false);
        self.clients[index] =
            Some(Client { connection, user, allowed, heard, subscribed, is_behind, follows });
    }

    /// A number above every client's.
    fn next_turn(&self) -> u64 {
        self.clients.iter().flatten().map(|client| client.heard + 1).max().unwrap_or(0)
    }

    fn is_allowed(&self, connection: &OwnedFd, peer: &Peer) -> bool {
        let own = nix::unistd::geteuid().as_raw();
        peer.user == 0
            || peer.user == own
            || self
                .in_force
                .control_group
                .is_some_and(|group| peer.group == group || socket::peer_has_group(borrow(connection), group))
    }

    /// A free place for one more client, maybe one that was another's until now; `None`: it is one too many.
    fn place_for(&mut self, allowed: bool, user: u32) -> Option<usize> {
        let count = |of: &dyn Fn(&Client) -> bool| self.clients.iter().flatten().filter(|c| of(c)).count();
        let own = |client: &Client| client.user == user;
        let onlooker = |client: &Client| !client.allowed;
        let is_free = if allowed {
            let is_free = count(&|_| true) < CONTROL_CLIENT_COUNT_MAX;
            is_free
                || self.end_oldest(&onlooker)
                || self.end_any(&onlooker)
                || self.end_oldest(&|_| true)
                || self.end_any(&|client| client.follows)
        } else if count(&own) >= ONLOOKER_SHARE {
            self.end_oldest(&own)
        } else {
            count(&onlooker) < ONLOOKER_COUNT_MAX || self.end_oldest(&onlooker)
        };
        self.clients.iter().position(Option::is_none).filter(|_| is_free)
    }

    /// Disconnects the one that has been silent for longest, of these; false: none of them is silent. Not silent is
    /// whoever has asked something, and a subscriber that takes its news.
    fn end_oldest(&mut self, of: &dyn Fn(&Client) -> bool) -> bool {
        let clients = self.clients.iter().enumerate();
        let silent = clients.filter_map(|(index, client)| Some((client.as_ref()?, index))).filter(
            |(client, index)| {
                of(client)
                    && (client.subscribed.is_none() || client.is_behind)
                    && !client.follows
                    && !self.reload.is_for(*index)
                    && self.renewing != Some(Asker::Client(*index))
                    && !matches!(socket::peek(borrow(&client.connection), &mut [0]), Received::Packet(_))
            },
        );
        let Some((_, index)) = silent.min_by_key(|(client, _)| client.heard) else { return false };
        self.give_way(index);
        true
    }

    /// Disconnects one of these, whatever it is about: who may only look gives way to who may do more, who reads what
    /// programs write (and asks for nothing) to everybody.
    fn end_any(&mut self, of: &dyn Fn(&Client) -> bool) -> bool {
        let found = self.clients.iter().position(|client| client.as_ref().is_some_and(of));
        found.map(|index| self.give_way(index)).is_some()
    }

    fn give_way(&mut self, index: usize) {
        if let Some(client) = &self.clients[index] {
            refuse_place(&client.connection);
        }
        self.disconnect(index);
    }

    // Not part of the loop's frame: replies are large, and the loop's stack is memory for good.
    #[inline(never)]
    pub(super) fn serve(&mut self, index: usize) {
        let mut packet = [0; PACKET_BYTES_MAX];
        for _ in 0..REQUESTS_AT_ONCE {
            let turn = self.next_turn();
            let Some(client) = &mut self.clients[index] else { return };
            let allowed = client.allowed;
            let length = match socket::receive(borrow(&client.connection), &mut packet) {
                Received::Nothing => return,
                Received::Closed => return self.disconnect(index),
                Received::Packet(length) => length,
            };
            client.heard = turn;
            let request = protocol::decode(&packet[..length]);
            let is_garbage = request.is_none();
            let reply = match request {
                Some(request) => self.answer(index, allowed, request),
                None => {
                    Some(refused(Refusal::BadRequest, format_args!("not a request of protocol version 1")))
                }
            };
            if let Some(mut reply) = reply {
                self.send(index, &mut reply);
            }
            if is_garbage {
                return self.disconnect(index);
            }
        }
    }

    pub(super) fn send(&mut self, index: usize, reply: &mut Reply) {
        let Some(client) = &self.clients[index] else { return };
        if !reply_to(&client.connection, reply) {
            self.disconnect(index);
        }
    }

    /// The same with descriptors, of which the client gets copies.
    pub(super) fn send_with(&mut self, index: usize, reply: &mut Reply, along: &[BorrowedFd]) {
        let Some(client) = &self.clients[index] else { return };
        let mut buffer = [0; PACKET_BYTES_MAX];
        let packet = protocol::encode(reply, &mut buffer);
        if !packet.is_some_and(|packet| socket::send_with(borrow(&client.connection), packet, along)) {
            self.disconnect(index);
        }
    }

    fn disconnect(&mut self, index: usize) {
        if let Some(client) = self.clients[index].take() {
            self.poller.remove(borrow(&client.connection));
        }
        self.reload.forget_client(index);
        // Its place may be another's when the job is done; nobody waits for the outcome, so there is none.
        self.renewing.take_if(|asker| *asker == Asker::Client(index));
        self.count_followers();
        // There is a descriptor again.
        reserve::fill();
        self.listen_again();
    }

    /// Sends what happened to those who asked for it. One who does not read loses news, never us, and is the first
    /// to give way.
    pub(super) fn tell_subscribers(&mut self) {
        for client in self.clients.iter_mut().flatten() {
            while let Client { connection, subscribed: Some(from), is_behind, .. } = client {
                let (events, next) = self.news.page(*from);
                *is_behind = !events.is_empty() && !reply_to(connection, &mut Reply::Events { events });
                if next == *from || *is_behind {
                    break;
                }
                *from = next;
            }
        }
    }
}

fn refuse_place(connection: &OwnedFd) {
    let words = format_args!("too many control connections; try again");
    reply_to(connection, &mut refused(Refusal::Failed, words));
}

fn reply_to(connection: &OwnedFd, reply: &mut Reply) -> bool {
    let mut buffer = [0; PACKET_BYTES_MAX];
    protocol::encode(reply, &mut buffer).is_some_and(|packet| socket::send(borrow(connection), packet))
}
