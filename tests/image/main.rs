//! Tests that boot the image of an SD card, as `board/image` makes it: `cargo test --test image`. The driver is
//! that of `tests/qemu`; `card.rs` has what a card needs besides.
#![allow(dead_code, reason = "the driver offers more than today's tests use")]

#[path = "../qemu/boot.rs"]
mod boot;
mod boots;
mod broken;
#[path = "../qemu/cache.rs"]
mod cache;
mod card;
mod config_txt;
#[path = "../qemu/cpio.rs"]
mod cpio;
mod eio;
#[path = "../qemu/ending.rs"]
mod ending;
mod firmware;
mod flashing;
mod foreign;
#[path = "../qemu/guest.rs"]
mod guest;
#[path = "../harness/mod.rs"]
mod harness;
mod login;
#[path = "../qemu/machine.rs"]
mod machine;
mod pi3;
mod powercut;
#[path = "../qemu/qmp.rs"]
mod qmp;
mod resets;
mod running;
mod scripts;
#[path = "../qemu/wire.rs"]
mod wire;
mod writes;
