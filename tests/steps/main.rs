//! Every system call of every change, one at a time: the process dies before it.
//!
//! A change is run in a child under ptrace, so that there is no list of points to keep: a call that a
//! change makes tomorrow is tried tomorrow. The layers, opened again, must show the old tree or the
//! new one, whole, to us and to kernel overlayfs, and the workdir must be empty.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]
#![allow(unreachable_pub, unsafe_code)]

#[path = "../kit/mod.rs"]
mod kit;

mod cases;
mod crash;
mod paths;
mod tracer;
