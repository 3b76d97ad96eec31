//! Memory side: the objects that the kernel knows, their names and numbers, and open descriptors.
//!
//! No system call is made here but the closing of descriptors.

mod fds;
mod inode;
mod names;
mod number;
mod table;

pub use fds::{FdCache, FdStats};
pub use inode::{
    Alias, DataAt, Dir, FactsSeen, Inode, Pin, Rare, RealId, State, UnionLink, XattrFact,
};
pub use names::Names;
pub use number::{Devices, ROOT};
pub use table::Table;
