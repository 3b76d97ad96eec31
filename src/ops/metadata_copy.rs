//! Metadata-only copies (the kernel's metacopy) in the upper: a change of attributes copies no data,
//! which follows when it is needed, into the same real object.
//!
//! As in the kernel: until its marker is removed a copy has its data below, whatever was written to
//! it; the marker goes when all data is on disk. Names and open descriptors never notice.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::MutexGuard;
use rustix::fs::{OFlags, XattrFlags};

use super::Union;
use super::complete::UnderWay;
use super::config::VerityMode;
use super::copy_up::{ALL, Want};
use super::file::FileFd;
use super::metacopy::Data;
use crate::attr::{Attr, Kind};
use crate::error::{Errno, Result, WhileDoing, best_effort};
use crate::layer::{MetRedirect, Place, Stat, metacopy_named, metacopy_of};
use crate::marker::metacopy::{Digest, Metacopy};
use crate::marker::redirect::Redirect;
use crate::marker::xattr::{Marker, Namespace};
use crate::name::{Name, NameBuf};
use crate::tree::{DataAt, Inode, ROOT};
use crate::upper::{Content, SetTime, Source, Upper, set_perm, set_times, writable_for_a_moment};

/// File capabilities, which any write takes away.
const CAPABILITY: &[u8] = b"security.capability";

/// A regular file of a lower that is to be copied up.
#[derive(Debug)]
pub(super) struct LowerFile<'a> {
    place: Place,
    names: Vec<NameBuf>,
    take: Take,
    /// Held until the copy has landed.
    _under_way: Option<UnderWay<'a>>,
}

/// What is copied of a file.
#[derive(Debug)]
enum Take {
    /// So many bytes of its data too.
    Data {
        from: Arc<OwnedFd>,
        len: u64,
        sparse: bool,
    },
    /// Its attributes, and this marker.
    Attributes(Vec<u8>),
}

impl LowerFile<'_> {
    /// The same for who copies.
    pub(super) fn source<'a>(
        &'a self,
        attr: &'a Attr,
        markers: &'a [(Marker, Vec<u8>)],
    ) -> Source<'a> {
        let content = match &self.take {
            Take::Data { from, len, sparse } => Content::File {
                from,
                len: *len,
                sparse: *sparse,
            },
            Take::Attributes(marker) => Content::Below(marker),
        };
        Source {
            place: &self.place,
            attr,
            names: &self.names,
            content,
            markers,
        }
    }

    /// Where the data of the copy is.
    pub(super) fn lands_with(&self) -> DataAt {
        match self.take {
            Take::Data { .. } => DataAt::Here,
            Take::Attributes(_) => DataAt::Below,
        }
    }
}

/// Where a name is to lead once it is renamed or linked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    /// To the same directory.
    Beside,
    /// Anywhere.
    Anywhere,
}

fn is_sparse(blocks: u64, size: u64) -> bool {
    blocks.saturating_mul(512) < size
}

impl Union {
    /// Opens a file of a lower and decides what is copied of it.
    pub(super) fn lower_file(
        &self,
        upper: &Upper,
        inode: &Arc<Inode>,
        place: &Place,
        stat: &Stat,
        want: Want,
    ) -> Result<LowerFile<'_>> {
        let own = place.open_read().while_doing(|| "open a lower file")?;
        let own = Arc::new(own);
        let place = Place::File(Arc::clone(&own));
        let names = place
            .list_xattrs()
            .while_doing(|| "list attributes of a lower")?;
        let (from, blocks) = match metacopy_named(&names) {
            None => (own, stat.attr.blocks),
            Some(namespace) => {
                let Data { fd, blocks } = self.find_data(inode, &own, namespace)?;
                (Arc::new(fd), blocks)
            }
        };
        let size = stat.attr.size;
        let under_way = match want {
            Want::Attributes if size > 0 && upper.namespace.is_some() => self.metacopy.begin(),
            _ => None,
        };
        let marker = under_way.as_ref().and_then(|_| self.marker_of(&from));
        let take = match (marker, want) {
            (Some(marker), _) => Take::Attributes(marker.encode()),
            (None, want) => Take::Data {
                len: match want {
                    Want::Attributes => size,
                    Want::Data(keep) => size.min(keep),
                },
                sparse: is_sparse(blocks, size),
                from,
            },
        };
        Ok(LowerFile {
            place,
            names,
            take,
            _under_way: under_way,
        })
    }

    /// The marker of a copy whose data is `data`; `None`: its data must come along, for it has no
    /// digest.
    fn marker_of(&self, data: &OwnedFd) -> Option<Metacopy> {
        if self.verity == VerityMode::Off {
            return Some(Metacopy::default());
        }
        let measured = crate::sys::verity::measure(data.as_fd()).ok();
        let digest = measured.and_then(|(algorithm, bytes)| {
            let algorithm = u8::try_from(algorithm).ok()?;
            Some(Digest { algorithm, bytes })
        });
        (digest.is_some() || self.verity == VerityMode::On).then_some(Metacopy { digest })
    }

    /// Keeps the data of a metadata-only copy from being brought while its attributes are changed:
    /// they are put back then.
    pub(super) fn hold_attributes<'a>(&self, inode: &'a Inode) -> Option<MutexGuard<'a, ()>> {
        let may_be = inode.kind == Kind::File && inode.state().data != DataAt::Here;
        may_be.then(|| inode.copying.lock())
    }

    /// Brings the first `keep` bytes of the data of a metadata-only copy in the upper, and cuts off
    /// the rest; whether it was one.
    pub(super) fn bring_data(&self, inode: &Arc<Inode>, keep: u64) -> Result<bool> {
        let upper = self.upper()?;
        let _copying = inode.copying.lock();
        if inode.state().data == DataAt::Here {
            return Ok(false);
        }
        let (own, id) = self.with_place(inode, |place| {
            let id = inode.id();
            let open = || place.open_quiet(OFlags::RDWR);
            let own = match open() {
                Err(Errno::ACCESS) => writable_for_a_moment(place, open)?,
                result => result?,
            };
            match self.real_id(id.layer, &Stat::at(own.as_fd(), b"")?) == id {
                true => Ok((Arc::new(own), id)),
                false => Err(Errno::STALE),
            }
        })?;
        let namespace = metacopy_of(&own)?;
        if let Some(namespace) = namespace {
            inode.state_mut().data = DataAt::Below;
            let data = self.find_data(inode, &own, namespace)?;
            let place = Place::File(Arc::clone(&own));
            let attr = place.stat()?.attr;
            inode.state_mut().rare_mut().held_times = Some((attr.atime, attr.mtime));
            let filled = fill(upper, &data, &own, &attr, keep);
            inode.xattrs.doubt();
            let settled = filled.and_then(|()| unmark(upper, &place));
            inode.xattrs.doubt();
            inode.state_mut().rare_mut().held_times = None;
            settled?;
            self.counters
                .copied_bytes
                .fetch_add(attr.size.min(keep), Ordering::Relaxed);
        }
        inode.state_mut().data = DataAt::Here;
        self.remember_fd(inode, FileFd::new(own, id, true));
        Ok(namespace.is_some())
    }

    /// Before `name` of an object of the upper in `dir` is renamed, or it gets another one: a
    /// metadata-only copy is told where its data lies. One that cannot be told gets its data.
    pub(super) fn point_to_data(
        &self,
        upper: &Upper,
        inode: &Arc<Inode>,
        (dir, name): (&Arc<Inode>, &Name),
        reach: Reach,
    ) -> Result<()> {
        if inode.kind != Kind::File || inode.state().data == DataAt::Here {
            return Ok(());
        }
        let told = {
            let _copying = inode.copying.lock();
            let place = self.place(inode)?;
            let Some(namespace) = namespace_of(&place)? else {
                inode.state_mut().data = DataAt::Here;
                return Ok(());
            };
            let linked = inode.linked.load(Ordering::Relaxed);
            let absolute = reach == Reach::Anywhere || linked;
            let met = self.redirect_of(&place, namespace)?;
            let redirect = match met.map(|met| met.target) {
                None => Redirect::Name(name.into()),
                Some(Ok(redirect)) => redirect,
                Some(Err(_)) => {
                    return Err(Errno::IO).while_doing(|| {
                        format!("{}: overlay.redirect has no meaning", inode.path())
                    });
                }
            };
            let redirect = match redirect {
                Redirect::Name(name) if absolute => self.path_below(upper, dir, name)?,
                redirect => redirect,
            };
            let value = redirect.encode();
            Some(namespace) == upper.namespace
                && upper
                    .set_marker(&place, Marker::Redirect, &value)
                    .is_ok_and(|set| set)
        };
        match told {
            true => Ok(()),
            false => self.bring_data(inode, ALL).map(drop),
        }
    }

    /// The path of `name` in `dir` in the layers below the upper: that of the view, but for what
    /// was renamed in the upper.
    pub(super) fn path_below(
        &self,
        upper: &Upper,
        dir: &Arc<Inode>,
        name: NameBuf,
    ) -> Result<Redirect> {
        let mut names = vec![name];
        let mut at = Arc::clone(dir);
        while at.ino != ROOT {
            // The name first: a rename sets the redirect first.
            let (parent, own) = at.last_name().ok_or(Errno::STALE)?;
            let in_upper = at.dir().is_some_and(|d| d.stack().top() == upper.layer);
            let met = match in_upper {
                true => MetRedirect::at(&Place::Fd(self.dir_fd_again(&at, upper.layer)?))?,
                false => None,
            };
            match met.map(|met| met.target) {
                None => names.push(own),
                Some(Ok(Redirect::Name(other))) => names.push(other),
                Some(Ok(Redirect::Path(path))) => {
                    names.extend(path.into_iter().rev());
                    break;
                }
                Some(Err(e)) => return Err(e).while_doing(|| "read a redirect"),
            }
            at = parent;
        }
        names.reverse();
        Ok(Redirect::Path(names))
    }
}

/// Under which prefix an object carries the marker.
pub(super) fn namespace_of(place: &Place) -> Result<Option<Namespace>, Errno> {
    for namespace in Namespace::ALL {
        let name = namespace.name(Marker::Metacopy).as_bytes();
        if place.get_xattr(name)?.is_some() {
            return Ok(Some(namespace));
        }
    }
    Ok(None)
}

/// Copies the data, and gives the copy back what writing changes; it is only written here.
fn fill(upper: &Upper, data: &Data, own: &Arc<OwnedFd>, attr: &Attr, keep: u64) -> Result<()> {
    let place = Place::File(Arc::clone(own));
    let capability = place.get_xattr(CAPABILITY)?;
    let len = attr.size.min(keep);
    let sparse = is_sparse(data.blocks, attr.size);
    let filled = upper
        .fill(&data.fd, own, len, sparse)
        .while_doing(|| "copy data into a metadata-only copy");
    let cut = || match len < attr.size {
        // Its size says how much of the data counts: right before the marker goes, and after.
        true => rustix::fs::ftruncate(own, len).while_doing(|| "cut a metadata-only copy"),
        false => Ok(()),
    };
    let filled = filled.and_then(|()| cut());
    if attr.perm & 0o6000 != 0 {
        set_perm(&place, attr.perm).while_doing(|| "keep the mode of a copy")?;
    }
    if let Some(value) = capability {
        let set = place.set_xattr(CAPABILITY, &value, XattrFlags::empty());
        match set {
            Err(Errno::PERM | Errno::OPNOTSUPP) => {
                best_effort("keep the capabilities of a copy", set);
            }
            set => set.while_doing(|| "keep the capabilities of a copy")?,
        }
    }
    set_times(&place, SetTime::To(attr.atime), SetTime::To(attr.mtime))
        .while_doing(|| "keep the times of a copy")?;
    filled
}

/// A metadata-only copy has its data now: takes the markers away, that of the kind first.
fn unmark(upper: &Upper, place: &Place) -> Result<()> {
    let remove = |namespace: Namespace, marker: Marker| -> Result<()> {
        // Not to be asked for where there is none: who may not write a namespace may not do that.
        match place.get_xattr(namespace.name(marker).as_bytes())? {
            Some(_) => upper.remove_marker(place, namespace, marker),
            None => Ok(()),
        }
    };
    for namespace in Namespace::ALL {
        remove(namespace, Marker::Metacopy)?;
    }
    for namespace in Namespace::ALL {
        best_effort(
            "remove the redirect of a copy",
            remove(namespace, Marker::Redirect),
        );
    }
    Ok(())
}
