//! System calls that rustix lacks: the only unsafe code. One file per family.
#![allow(unsafe_code)]

pub mod attr;
pub mod cred;
pub mod daemon;
pub mod descriptor;
pub mod handle;
pub mod ioctl;
pub mod memory;
pub mod namespace;
pub mod signal;
pub mod sync;
pub mod verity;
