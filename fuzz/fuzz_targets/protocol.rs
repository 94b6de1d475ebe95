//! The decoder of the control protocol: no packet makes it panic, and what it accepts survives
//! being encoded and decoded again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use multusd::limits::PACKET_BYTES_MAX;
use multusd::protocol::{Reply, Request, decode, encode};

fuzz_target!(|data: &[u8]| {
    let mut buffer = [0; PACKET_BYTES_MAX];
    if let Some(mut request) = decode::<Request>(data) {
        let packet = encode(&mut request, &mut buffer).expect("a request fits a packet");
        assert_eq!(decode::<Request>(packet), Some(request));
    }
    if let Some(mut reply) = decode::<Reply>(data) {
        let packet = encode(&mut reply, &mut buffer).expect("a reply fits a packet");
        assert_eq!(decode::<Reply>(packet), Some(reply));
    }
});
