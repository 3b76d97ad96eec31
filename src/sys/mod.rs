//! System calls that rustix lacks: the only unsafe code. One file per family.
#![allow(unsafe_code)]

pub mod daemon;
pub mod signal;
