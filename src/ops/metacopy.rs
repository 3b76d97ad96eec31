//! Where the data of a metadata-only copy (the kernel's metacopy) lies: in the next layer below that
//! has the file, under its own name or where a redirect leads, and at last in the data-only layers.
//!
//! As in the kernel (fs/overlayfs/namei.c). What cannot be found, or is no regular file, is an
//! error: never zeros, never another file. Nothing is remembered but the descriptor.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use super::Union;
use super::config::VerityMode;
use super::redirect::Trail;
use crate::attr::{Attr, Kind};
use crate::error::{Errno, Error, Result, WhileDoing, best_effort};
use crate::layer::{Layer, LayerId, Look, MetRedirect, Place, Stat, look, metacopy_of};
use crate::marker::metacopy::{Digest, Metacopy};
use crate::marker::redirect::Redirect;
use crate::marker::xattr::{Marker, Namespace};
use crate::name::NameBuf;
use crate::tree::{DataAt, Inode};

/// Data that was found.
#[derive(Debug)]
pub(super) struct Data {
    /// A regular file, open for reading.
    pub(super) fd: OwnedFd,
    /// Its blocks, of 512 bytes.
    pub(super) blocks: u64,
}

fn missing(why: &str) -> Error {
    match Err::<(), _>(Errno::IO).while_doing(|| why) {
        Err(e) => e,
        Ok(()) => Errno::IO.into(),
    }
}

/// Whether a file may be a metadata-only copy: such a one is a hole, but for blocks of attributes.
fn may_be_metacopy(stat: &Stat) -> bool {
    let blocks = stat.attr.blocks;
    stat.attr.kind == Kind::File && blocks <= 128 && blocks.saturating_mul(512) < stat.attr.size
}

impl Union {
    /// What a look at a file tells of where its data lies; most are told by their blocks.
    pub(super) fn data_at(&self, place: &Place, stat: &Stat) -> DataAt {
        if !may_be_metacopy(stat) {
            return DataAt::Unknown;
        }
        match place.marker(Marker::Metacopy) {
            Ok(Some(_)) => DataAt::Below,
            // Who opens it asks again, and is told.
            Ok(None) | Err(_) => DataAt::Unknown,
        }
    }

    /// The attributes of `inode` in the view, with the blocks of its data wherever that lies.
    pub(super) fn shown_attr(&self, inode: &Arc<Inode>, stat: &Stat) -> Attr {
        let mut attr = self.view_attr(inode, stat);
        if inode.state().data == DataAt::Below
            && let Some(data) = best_effort("look at data", self.read_fd(inode))
            && data.is_lent()
            && let Ok(stat) = Stat::at(data.fd().as_fd(), b"")
        {
            attr.blocks = stat.attr.blocks;
        }
        attr
    }

    /// Finds the data of `inode`, a metadata-only copy that is open as `own`, whose marker is in
    /// `namespace`.
    pub(super) fn find_data(
        &self,
        inode: &Arc<Inode>,
        own: &Arc<OwnedFd>,
        namespace: Namespace,
    ) -> Result<Data> {
        let found = match self.try_find_data(inode, own, namespace) {
            // What is said of redirects that are refused, or mean nothing.
            Err(e) if matches!(e.errno(), Errno::PERM | Errno::INVAL | Errno::ACCESS) => {
                Err(Errno::IO).while_doing(|| e.to_string())
            }
            found => found,
        };
        found.while_doing(|| format!("{}: no data for a metadata-only copy", inode.path()))
    }

    fn try_find_data(
        &self,
        inode: &Arc<Inode>,
        own: &Arc<OwnedFd>,
        namespace: Namespace,
    ) -> Result<Data> {
        // The name before the redirect: a rename sets the redirect first.
        let (layer, parent, name) = {
            let state = inode.state();
            let alias = state.names.first().or(state.rare().past.as_ref());
            let alias = alias.ok_or(Errno::STALE)?;
            let (parent, name) = (Arc::clone(&alias.parent), NameBuf::from(&alias.name));
            (state.id.layer, parent, name)
        };
        let place = Place::File(Arc::clone(own));
        let marker = place.xattr(namespace.name(Marker::Metacopy).as_bytes())?;
        let marker = Metacopy::decode(&marker)
            .ok_or_else(|| missing("overlay.metacopy is malformed or of a newer version"))?;
        let size = place.stat()?.attr.size;
        if Some(layer) != self.upper_id() {
            let dir = self.dir_fd_again(&parent, layer)?;
            let wh_files = self.layer(layer)?.wh_files;
            if let Look::Object { hides: true, .. } = look(dir.as_fd(), &name, wh_files)? {
                return Err(missing("a .wh. file beside it hides what is below"));
            }
        }
        let fd = match self.redirect_of(&place, namespace)? {
            _ if !self.is_trusted(namespace) => self.data_for_users(&place, namespace)?,
            None => self.search(Trail::new(parent, Redirect::Name(name)), layer)?,
            Some(met) => {
                let target = self.follow(met, layer, || inode.path())?;
                self.search(Trail::new(parent, target), layer)?
            }
        };
        let found = Stat::at(fd.as_fd(), b"")?.attr;
        if found.size < size {
            return Err(missing("what lies below is shorter than the copy"));
        }
        self.check_digest(&fd, marker.digest.as_ref())?;
        let blocks = found.blocks;
        Ok(Data { fd, blocks })
    }

    /// Markers that anybody may write are followed only on request.
    fn is_trusted(&self, namespace: Namespace) -> bool {
        namespace == Namespace::Trusted || self.follow_user_metacopies
    }

    /// The redirect of a copy; where anybody may have written the one marker, or the other, they
    /// must be of one kind.
    pub(super) fn redirect_of(
        &self,
        place: &Place,
        namespace: Namespace,
    ) -> Result<Option<MetRedirect>, Errno> {
        let value = place.get_xattr(namespace.name(Marker::Redirect).as_bytes())?;
        Ok(value.map(|value| MetRedirect {
            namespace,
            target: Redirect::decode(&value),
        }))
    }

    /// As the kernel: where markers of users are not followed, the data-only layers may still be
    /// meant, for who mounts has named them.
    fn data_for_users(&self, place: &Place, namespace: Namespace) -> Result<OwnedFd> {
        match self.redirect_of(place, namespace)?.map(|met| met.target) {
            Some(Ok(Redirect::Path(path))) if !self.data_layers.is_empty() => self.data_only(&path),
            _ => Err(missing(&format!(
                "{} is not followed without --metacopy on",
                namespace.name(Marker::Metacopy)
            ))),
        }
    }

    /// Follows a trail through the layers below `layer` to the first file that has data.
    fn search(&self, mut trail: Trail, layer: LayerId) -> Result<OwnedFd> {
        trail.settle(self)?;
        let mut at = layer;
        while let Some(hit) = self.next_part(&mut trail, at)? {
            at = hit.layer;
            let place = Place::at(hit.dir, &hit.name);
            let mounted = !self.layer(at)?.private_mount && place.stat()?.mount_root;
            if hit.kind != Kind::File || mounted {
                return Err(missing("what lies below is no regular file"));
            }
            let fd = place.open_read().while_doing(|| "open a lower file")?;
            let Some(namespace) = metacopy_of(&fd)? else {
                return Ok(fd);
            };
            if !self.is_trusted(namespace) {
                return self.data_for_users(&place, namespace);
            }
            if let Some(met) = self.redirect_of(&place, namespace)? {
                trail.turn(self.follow(met, at, || "a copy below".to_owned())?);
            }
        }
        match trail.path() {
            Some(path) if !self.data_layers.is_empty() => self.data_only(path),
            _ => Err(missing("no layer below has the file")),
        }
    }

    /// The file at `path` in the first data-only layer that has it.
    fn data_only(&self, path: &[NameBuf]) -> Result<OwnedFd> {
        for layer in &self.data_layers {
            match open_data_only(layer, path) {
                Ok(Some(fd)) => return Ok(fd),
                Ok(None) | Err(Errno::NOENT | Errno::NOTDIR | Errno::XDEV) => {}
                Err(e) => return Err(e).while_doing(|| "open a file of a data-only layer"),
            }
        }
        Err(missing("no data-only layer has what its redirect names"))
    }

    /// Checks data that was found against the digest in the marker.
    fn check_digest(&self, fd: &OwnedFd, wanted: Option<&Digest>) -> Result<()> {
        match (self.verity, wanted) {
            (VerityMode::Off, _) | (VerityMode::On, None) => Ok(()),
            (VerityMode::Require, None) => Err(missing("the copy has no digest of its data")),
            (_, Some(wanted)) => match crate::sys::verity::measure(fd.as_fd()) {
                Ok((algorithm, bytes))
                    if algorithm == u16::from(wanted.algorithm) && bytes == wanted.bytes =>
                {
                    Ok(())
                }
                Ok(_) => Err(missing(
                    "the data has another fs-verity digest than the copy says",
                )),
                Err(_) => Err(missing(
                    "the data is not protected by fs-verity, as the copy says",
                )),
            },
        }
    }
}

/// Opens `path` in a data-only layer, one component at a time; `None` if it is no regular file.
fn open_data_only(layer: &Layer, path: &[NameBuf]) -> Result<Option<OwnedFd>, Errno> {
    let Some((last, parents)) = path.split_last() else {
        return Ok(None);
    };
    let mut dir = Arc::clone(&layer.root);
    for name in parents {
        dir = Arc::new(layer.open_dir_at(dir.as_fd(), name)?);
    }
    let stat = Stat::at(dir.as_fd(), last)?;
    if stat.attr.kind != Kind::File || (stat.mount_root && !layer.private_mount) {
        return Ok(None);
    }
    let fd = Place::at(dir, last).open_read()?;
    // One without data of its own is none: what it says of other layers is not asked here.
    match metacopy_of(&fd) {
        Ok(None) => Ok(Some(fd)),
        Ok(Some(_)) => Ok(None),
        Err(e) => Err(e.errno()),
    }
}
