//! What all test targets share: scratch directories, layers from text, mounts, whole-tree snapshots.

#![allow(dead_code, unreachable_pub, unused_imports, unsafe_code, missing_docs)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]
#![allow(clippy::undocumented_unsafe_blocks, clippy::missing_panics_doc)]

pub mod apply;
pub mod debian;
mod lab;
mod layer;
mod mounts;
pub mod operation;
mod scratch;
pub mod snapshot;
mod subject;
pub mod sys;
pub mod tools;

pub use lab::Lab;
pub use layer::{acl, capability, plant};
pub use mounts::{Mounts, must};
pub use scratch::Scratch;
pub use snapshot::{Look, Reading, Snapshot};
pub use subject::{
    Layers, Subject, finished, is_alive, output, processes_about, program, wait_gone,
};
pub use sys::{Errno, Map, Res};

/// Asserts that a call fails with the errno given by its bare name.
#[macro_export]
macro_rules! fails {
    ($call:expr, $errno:ident) => {
        match $call {
            Err(errno) => assert_eq!(
                errno,
                $crate::kit::Errno(libc::$errno),
                "{} failed, but not as it should",
                stringify!($call)
            ),
            Ok(_) => panic!(
                "{} worked; expected {}",
                stringify!($call),
                stringify!($errno)
            ),
        }
    };
}
