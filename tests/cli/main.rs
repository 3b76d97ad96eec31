//! The real program, run as its users and other programs run it.

mod bad_input;
mod helper;
mod lab;
mod life;
mod rootless;
mod usage;
