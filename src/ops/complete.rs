//! Completes the metadata-only copies of the upper: each gets its data, so that the upper stands alone.
//!
//! In steps, so that whoever waits can be told how far it is.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};

use super::Union;
use super::copy_up::ALL;
use super::lookup::Count;
use super::metadata_copy::namespace_of;
use crate::attr::Kind;
use crate::error::{Errno, Result, WhileDoing};
use crate::layer::{Place, Readable, scan};
use crate::name::NameBuf;
use crate::tree::{Inode, ROOT};

/// Bytes of text about single failures that are told; all are counted. As JSON it has to fit an
/// extended attribute.
const TOLD: usize = 16 * 1024;

/// How far the completion is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Completed {
    /// Nothing is left to do.
    pub done: bool,
    /// Files that got their data.
    pub files: u64,
    /// Bytes that those hold.
    pub bytes: u64,
    /// Files that could not get it.
    pub failed: u64,
    /// Which, and why, for the first of them.
    pub failures: Vec<Failed>,
}

/// A file that could not get its data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failed {
    /// Its path in the view.
    pub path: String,
    /// What is in the way.
    pub error: String,
}

/// Whether changes of attributes copy no data, and how many just do so.
#[derive(Debug)]
pub(super) struct MetacopySwitch {
    on: AtomicBool,
    under_way: AtomicUsize,
}

/// A copy of attributes that is being made.
#[derive(Debug)]
pub(super) struct UnderWay<'a>(&'a MetacopySwitch);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::SeqCst);
    }
}

impl MetacopySwitch {
    pub(super) fn new(on: bool) -> MetacopySwitch {
        MetacopySwitch {
            on: AtomicBool::new(on),
            under_way: AtomicUsize::new(0),
        }
    }

    /// Whether it is on.
    pub(super) fn is_on(&self) -> bool {
        self.on.load(Ordering::Relaxed)
    }

    /// If it is on, announces a copy of attributes.
    pub(super) fn begin(&self) -> Option<UnderWay<'_>> {
        // SeqCst, here and below: either this count is seen by who switches it off, or that it is off
        // is seen here.
        self.under_way.fetch_add(1, Ordering::SeqCst);
        let under_way = UnderWay(self);
        self.on.load(Ordering::SeqCst).then_some(under_way)
    }

    /// Switches it off for good, and waits for what is under way.
    fn switch_off(&self) {
        self.on.store(false, Ordering::SeqCst);
        while self.under_way.load(Ordering::SeqCst) > 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// A walk through the upper.
#[derive(Debug, Default)]
pub(super) struct Completion {
    /// Directories to read yet.
    dirs: Vec<Vec<NameBuf>>,
    /// Copies that were found.
    files: Vec<Vec<NameBuf>>,
    so_far: Completed,
}

impl Union {
    /// Gives metadata-only copies of the upper their data, for about `patience`; call it until all is
    /// done. From the first call on no such copies are made any more.
    ///
    /// # Errors
    /// `EROFS` if the upper may not be written; those of reading it. A file that cannot be completed is told
    /// in the answer.
    pub fn complete(&self, patience: Duration) -> Result<Completed> {
        if self.upper.is_none() {
            return Ok(Completed {
                done: true,
                ..Completed::default()
            });
        }
        let upper = self.upper()?;
        let mut completion = self.completion.lock();
        if completion.is_none() {
            self.metacopy.switch_off();
        }
        let walk = completion.get_or_insert_with(|| Completion {
            dirs: vec![Vec::new()],
            ..Completion::default()
        });
        let end = Instant::now() + patience;
        loop {
            if let Some(path) = walk.files.pop() {
                self.complete_file(&path, &mut walk.so_far);
            } else if let Some(dir) = walk.dirs.pop() {
                self.find_copies(dir, walk)?;
            } else {
                break;
            }
            if Instant::now() >= end {
                return Ok(walk.so_far.clone());
            }
        }
        let done = Completed {
            done: true,
            ..completion.take().unwrap_or_default().so_far
        };
        drop(completion);
        if !upper.volatile {
            upper.sync().while_doing(|| "sync the upper")?;
        }
        Ok(done)
    }

    /// Reads a directory of the upper: its copies are to be completed, its directories to be read.
    fn find_copies(&self, path: Vec<NameBuf>, walk: &mut Completion) -> Result<()> {
        let upper = self.upper()?;
        let layer = self.layer(upper.layer)?;
        let mut dir = Arc::clone(&layer.root);
        for name in &path {
            dir = match layer.open_dir_at(dir.as_fd(), name) {
                Ok(fd) => Arc::new(fd),
                Err(Errno::NOENT | Errno::NOTDIR | Errno::XDEV) => return Ok(()), // gone since
                Err(e) => return Err(e).while_doing(|| "open a directory of the upper"),
            };
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let open = rustix::fs::openat(&dir, ".", flags, Mode::empty());
        let open = open.while_doing(|| "open a directory of the upper")?;
        let listing = scan(open.as_fd(), Readable::Yes, layer.wh_files)?;
        for entry in listing.entries {
            let place = || Place::at(Arc::clone(&dir), &entry.name);
            let list = match entry.kind {
                Kind::Dir => &mut walk.dirs,
                Kind::File if namespace_of(&place())?.is_some() => &mut walk.files,
                _ => continue,
            };
            let mut child = path.clone();
            child.push(entry.name);
            list.push(child);
        }
        Ok(())
    }

    fn complete_file(&self, path: &[NameBuf], so_far: &mut Completed) {
        let done = self.held(path).and_then(|inode| {
            let size = self.stat(&inode).map_or(0, |stat| stat.attr.size);
            let brought = self.bring_data(&inode, ALL);
            self.reap(inode);
            brought.map(|brought| brought.then_some(size))
        });
        match done {
            Ok(None) => {} // another name of one that is done
            Ok(Some(size)) => {
                so_far.files += 1;
                so_far.bytes += size;
            }
            Err(e) if e.errno() == Errno::NOENT => {} // gone since
            Err(e) => {
                so_far.failed += 1;
                let names: Vec<_> = path.iter().map(|n| n.escape_ascii().to_string()).collect();
                let failed = Failed {
                    path: format!("/{}", names.join("/")),
                    error: e.to_string(),
                };
                tracing::warn!("cannot complete {}: {}", failed.path, failed.error);
                let text = |f: &Failed| f.path.len() + f.error.len();
                let told: usize = so_far.failures.iter().chain([&failed]).map(text).sum();
                if told <= TOLD {
                    so_far.failures.push(failed);
                }
            }
        }
    }

    /// The inode at a path of the view, held.
    fn held(&self, path: &[NameBuf]) -> Result<Arc<Inode>> {
        let mut at = self.table.get(ROOT).ok_or(Errno::STALE)?;
        for (depth, name) in path.iter().enumerate() {
            let child = self.child(&at, name, Count::Held);
            if depth > 0 {
                self.reap(at);
            }
            (at, _) = child?;
        }
        Ok(at)
    }
}
