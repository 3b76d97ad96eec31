//! unionmount: a userspace union filesystem over FUSE.
//!
//! The program stacks read-only *lower* directories under one writable *upper* and shows them as
//! one tree. This library is the whole of it; `src/main.rs` only starts [`cli::run`].
//!
//! Dependencies go one way (`tests/direction.rs` enforces it):
//! cli -> fuse -> ops -> {merge, upper, tree} -> layer -> marker -> {error, name, attr, ids}, sys.

pub mod attr;
pub mod cli;
pub mod error;
pub mod fuse;
pub mod ids;
pub mod layer;
pub mod marker;
pub mod merge;
pub mod name;
pub mod ops;
pub mod sys;
pub mod tree;
pub mod upper;
