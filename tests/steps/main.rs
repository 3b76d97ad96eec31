//! Every system call of every change, one at a time: the process dies before it, or the call fails.
//!
//! A change is run in a child under ptrace, so that there is no list of points to keep: a call that a
//! change makes tomorrow is tried tomorrow. What must hold when
//!
//! - the process dies: the layers, opened again, show the old tree or the new one, whole, to us and to
//!   kernel overlayfs, and the workdir is empty;
//! - the call fails: the caller is told that very error and sees the old tree, or it is done and the new
//!   one is there; asked again, it is done; and so it is on disk.

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
mod fault;
mod paths;
mod tracer;
mod union_tree;
