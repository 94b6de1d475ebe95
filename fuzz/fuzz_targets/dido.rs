//! The reader of dido's packets: no bytes make it panic, neither sealed nor open ones, and what it understands means the same
//! when it is sealed and opened again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use multusd::child::dido::packet::{Head, is_one, open, read, seal};

const KEY: [u8; 32] = [7; 32];

fuzz_target!(|data: &[u8]| {
    // As it comes from the network: nobody has this key.
    let mut packet = data.to_vec();
    assert!(open(&KEY, &mut packet).is_none());
    assert_eq!(packet, data);
    is_one(data);
    // As it comes from somebody who has: the body alone is anything.
    let opened = [&[0; 25], data, &[0; 16]].concat();
    let Some(body) = read(&opened) else { return };
    let head = Head { session: [1; 16], count: 2 };
    let Some(mut again) = seal(&KEY, &head, &body) else { return };
    assert_eq!(open(&KEY, &mut again), Some(head));
    assert_eq!(read(&again), Some(body));
});
