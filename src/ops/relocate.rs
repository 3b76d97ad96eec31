//! What a directory needs before it gets another name: one with lower parts a redirect to them, one
//! without a mark that keeps those of the new name out.
//!
//! Everything here is written before the rename and changes nothing in the view: the redirect names
//! the path that leads to the lower parts already, as the kernel writes it (`ovl_set_redirect`).

use std::sync::Arc;

use super::Union;
use super::redirect::redirect_on;
use crate::error::{Errno, Result};
use crate::layer::{MetRedirect, Place};
use crate::marker::redirect::{self, Redirect};
use crate::marker::xattr::Marker;
use crate::merge::RealPath;
use crate::tree::Inode;
use crate::upper::Upper;

/// Where a directory goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Destination {
    /// It stays in the same directory.
    pub(super) same_parent: bool,
    /// A lower shows the new name.
    pub(super) covered: bool,
}

impl Union {
    /// A directory that is to be moved lies in the upper, without what is in it.
    ///
    /// # Errors
    /// `EXDEV` if it has parts in a lower and no redirects are written.
    pub(super) fn prepare_dir(&self, inode: &Arc<Inode>) -> Result<()> {
        let dir = inode.dir().ok_or(Errno::NOTDIR)?;
        if !dir.stack().is_settled() {
            self.index(inode)?; // reads the markers
        }
        let stack = dir.stack();
        if !stack.is_merged() && Some(stack.top()) == self.upper_id() {
            return Ok(());
        }
        if !self.redirects.write {
            return Err(Errno::XDEV.into());
        }
        self.upper_dir(inode).map(drop)
    }

    /// Marks the directory of the upper at `place` before it moves. The caller holds the change locks
    /// of both its directories, and the rename lock unless they are one.
    pub(super) fn mark_mover(
        &self,
        upper: &Upper,
        inode: &Arc<Inode>,
        place: &Place,
        to: Destination,
    ) -> Result<()> {
        let own = inode.dir().ok_or(Errno::NOTDIR)?;
        let met = redirect_on(place)?;
        if !own.stack().is_merged() {
            // One that leads nowhere here might lead somewhere from there.
            return match to.covered || met.is_some() {
                true => upper.set_opaque(place),
                false => Ok(()),
            };
        }
        if !self.redirects.write {
            return Err(Errno::XDEV.into());
        }
        self.write_redirect(upper, inode, place, met, to.same_parent)?;
        self.keep_ways(inode)
    }

    /// Writes where the lower parts lie, unless that is known: as a name while the directory stays
    /// where it was found, else as a path.
    fn write_redirect(
        &self,
        upper: &Upper,
        inode: &Arc<Inode>,
        place: &Place,
        met: Option<MetRedirect>,
        same_parent: bool,
    ) -> Result<()> {
        let known = met.and_then(|met| met.target.ok());
        let (parent, name) = inode.parent().ok_or(Errno::NOENT)?;
        let redirect = match (known, same_parent) {
            (Some(Redirect::Path(_)), _) | (Some(_), true) => return Ok(()),
            (None, true) => Redirect::Name(name),
            (Some(Redirect::Name(old)), false) => self.path_below(upper, &parent, old)?,
            (None, false) => self.path_below(upper, &parent, name)?,
        };
        let value = redirect.encode();
        if value.len() > redirect::MAX || !upper.set_marker(place, Marker::Redirect, &value)? {
            return Err(Errno::XDEV.into());
        }
        Ok(())
    }

    /// From now on the lower parts of `inode` are reached by their real paths: its name is about to
    /// say nothing of them any more.
    fn keep_ways(&self, inode: &Arc<Inode>) -> Result<()> {
        let own = inode.dir().ok_or(Errno::NOTDIR)?;
        let _change = own.change.lock();
        let stack = own.stack();
        let lowers = stack.layers().iter().skip(1);
        let ways = lowers.map(|&layer| Ok((layer, self.real_path(inode, layer)?.into())));
        let ways = ways.collect::<Result<Vec<(_, RealPath)>>>()?;
        own.set_stack(stack.with_ways(ways));
        Ok(())
    }
}
