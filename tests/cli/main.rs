//! The real program, run as its users and other programs run it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]
#![allow(missing_docs)]

mod bad_input;
mod contract;
mod helper;
mod lab;
mod life;
mod orphans;
mod plain_user;
mod rootless;
mod usage;
