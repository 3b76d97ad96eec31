//! Read side: how the listings of several layers become one directory, and its index in memory.
//!
//! Pure: no I/O here, no locks but the cache's own.

mod cache;
mod index;
mod listing;
mod stack;

pub use cache::{CacheSize, DirIndex, IndexCache};
pub use index::{COOKIE_FIRST, Entry, Found, Impure, Index, Top, Witnesses};
pub use listing::merge;
pub use stack::{RealPath, Stack};
