//! fuser on one side, [`crate::ops`] on the other: decode, call, encode; decides nothing.
//!
//! The only module that knows fuser, whose next release changes signatures.

mod adapter;
mod control;
mod convert;
mod counters;
mod failures;
mod linger;
mod listings;
mod notices;
mod pool;
mod readers;
mod server;
mod shared;
mod weight;

pub use server::{IoMode, ServeOptions, Server, default_threads};
