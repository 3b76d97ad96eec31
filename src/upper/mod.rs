//! Write side: the only code that changes a layer.
//!
//! Whatever takes more than one step is built in the workdir, made complete, and published by a
//! single rename or link. A crash between any two steps leaves the old view or the new one, and an
//! upper that the kernel's overlayfs mounts.

mod change;
mod copy;
mod form;
mod holder;
mod link_index;
mod owners;
mod probe;
mod rename;
mod safety;
mod stage;
mod whiteout;
mod workdir;

pub use change::{SetTime, set_owner, set_perm, set_times};
pub use copy::{Content, Copied, Source, allocate};
pub use form::Form;
pub use link_index::LinkIndex;
pub use link_index::Origins;
pub use owners::{OwnersAside, keep_aside};
pub use rename::{End, Move, Target};
pub use safety::{Durability, Safety};
pub use stage::{New, NewKind, Staged, writable_for_a_moment};
pub use workdir::{Leftovers, Upper, UpperOptions, leftovers};
