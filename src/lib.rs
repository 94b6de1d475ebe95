//! multusd: a fail-safe supervisor for embedded Linux. This page is the map of the house.
//!
//! - [`supervisor`] DECIDES. Pure; facts in, orders out.
//! - [`config`] READS TEXT. Pure; bytes in, tables or errors with their line out.
//! - [`log_text`]: the text of logs, written and read. Pure.
//! - [`protocol`]: what `multusctl` and the daemon say to each other. Pure.
//! - [`child`]: the bundled children, processes of our own image that are supervised like any program.
//! - [`guard`] KEEPS ALIVE. Parent of every process; no policy.
//! - [`daemon`] ACTS. The one loop, the one interpreter of [`supervisor::Action`].
//! - [`sys`] TOUCHES THE KERNEL. The only unsafe code.
//! - [`ctl`] is `multusctl`.
//! - [`self_test`] TRIES THE KERNEL on the machine it runs on: will it carry multusd?
//! - [`client`]: what a program that multusd runs says to it.
//! - [`applets`]: which of all this is run.
//! - [`limits`], [`time`], [`packed`]: known to all.
#![deny(unsafe_code)]

pub mod applets;
pub mod child;
pub mod client;
pub mod config;
pub mod ctl;
pub mod daemon;
pub mod guard;
pub mod limits;
pub mod log_text;
pub mod packed;
pub mod probe;
pub mod protocol;
pub mod self_test;
pub mod service;
pub mod supervisor;
pub mod sys;
pub mod time;
