//! The core on real directories without any mount: `Union`'s operations called as fuser would.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod basics;
mod forgetting;
mod lab;
mod listings;
mod threads;
