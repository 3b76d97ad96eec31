//! Follows redirects: finds the parts of an object that lie at other paths in the layers below.
//!
//! As kernel overlayfs does (`ovl_lookup`): a plain name is looked for in the parts of the directory
//! that holds the object, a path from the root of every layer below; directories on that path stop
//! it by being opaque and rewrite it by redirects of their own. Every step is one component, and no
//! symlink is followed.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use super::{RedirectDir, Union};
use crate::attr::Kind;
use crate::error::{Errno, Result, WhileDoing};
use crate::layer::{LayerId, Look, MetRedirect, Place, dir_markers, look};
use crate::marker::redirect::Redirect;
use crate::marker::whiteout::Dialect;
use crate::marker::xattr::Namespace;
use crate::merge::{RealPath, Top};
use crate::name::{Name, NameBuf};
use crate::tree::{Inode, ROOT};
use crate::upper::Upper;

/// What is done with redirects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Redirects {
    /// Those that are followed; any other is refused.
    pub(super) follow: Followed,
    /// They are written; else a directory with lower parts cannot be renamed.
    pub(super) write: bool,
}

/// Which redirects are followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Followed {
    /// None.
    None,
    /// Those that only a privileged process can have written.
    Trusted,
    /// All.
    All,
}

impl Redirects {
    /// What a choice means with an upper.
    pub(super) fn of(choice: RedirectDir, upper: Option<&Upper>) -> Redirects {
        // What everybody can write may be there to show what its author could not reach.
        let cautious = match upper.and_then(|u| u.namespace) {
            Some(Namespace::User) => Followed::None,
            Some(Namespace::Trusted) | None => Followed::Trusted,
        };
        // Only overlayfs reads redirects, and not those that everybody can write: others who read
        // such an upper would miss what is in the lowers.
        let for_overlayfs =
            |u: &Upper| u.namespace == Some(Namespace::Trusted) && u.dialect != Dialect::File;
        Redirects {
            write: match choice {
                RedirectDir::Auto => upper.is_some_and(for_overlayfs),
                RedirectDir::On => upper.is_some_and(|u| u.namespace.is_some()),
                RedirectDir::Off | RedirectDir::Follow | RedirectDir::NoFollow => false,
            },
            follow: match choice {
                RedirectDir::Auto | RedirectDir::Off => cautious,
                RedirectDir::On | RedirectDir::Follow => Followed::All,
                RedirectDir::NoFollow => Followed::None,
            },
        }
    }
}

/// What is looked for from layer to layer.
#[derive(Debug)]
pub(super) struct Trail {
    /// The directory that holds the object in the view.
    parent: Arc<Inode>,
    sought: Redirect,
    /// No layer below counts.
    ended: bool,
}

/// The part of an object in one layer.
#[derive(Debug)]
pub(super) struct Hit {
    pub(super) layer: LayerId,
    pub(super) kind: Kind,
    /// The directory that really holds it, and its name there.
    pub(super) dir: Arc<OwnedFd>,
    pub(super) name: NameBuf,
    /// Its path in the layer.
    pub(super) path: RealPath,
}

impl Trail {
    /// A redirect was met on an object that `parent` has at a name.
    pub(super) fn new(parent: Arc<Inode>, target: Redirect) -> Trail {
        Trail {
            parent,
            sought: target,
            ended: false,
        }
    }

    /// Sees to it that the layers of the directory that holds the object are known.
    pub(super) fn settle(&self, union: &Union) -> Result<()> {
        let dir = self.parent.dir().ok_or(Errno::NOTDIR)?;
        if !dir.stack().is_settled() {
            union.index(&self.parent)?;
        }
        Ok(())
    }

    /// The path that is looked for, from the root of a layer.
    pub(super) fn path(&self) -> Option<&[NameBuf]> {
        match &self.sought {
            Redirect::Path(path) => Some(path),
            Redirect::Name(_) => None,
        }
    }

    /// Another one was met where the trail led to.
    pub(super) fn turn(&mut self, target: Redirect) {
        self.pass(target, 0);
    }

    /// The same on a directory that `behind` components come behind. A path leads on although
    /// something before it was opaque, as in the kernel.
    fn pass(&mut self, target: Redirect, behind: usize) {
        if matches!(target, Redirect::Path(_)) {
            self.ended = false;
        }
        self.sought = self.sought.turned(target, behind);
    }
}

impl Union {
    /// Where a redirect that was met on an object in `layer` leads, if it may be followed. `what`
    /// names the object for a person.
    ///
    /// # Errors
    /// `EPERM` if it may not; the kernel's for one that says nothing.
    pub(super) fn follow(
        &self,
        met: MetRedirect,
        layer: LayerId,
        what: impl Fn() -> String,
    ) -> Result<Redirect> {
        let followed = match self.redirects.follow {
            Followed::None => false,
            Followed::Trusted => met.namespace == Namespace::Trusted,
            Followed::All => true,
        };
        let target = match (followed, met.target) {
            (false, _) => Err(Errno::PERM),
            (true, target) => target,
        };
        target.while_doing(|| {
            let why = match followed {
                true => "says nothing",
                false => "is not followed (see redirect_dir)",
            };
            let marker = met.namespace.prefix();
            format!("{marker}redirect of {} in layer {layer} {why}", what())
        })
    }

    /// Whether a redirect in a layer means anything: nothing lies below the lowest that counts. A
    /// layer whose root is opaque hides those below from redirects too. (What is asked about was
    /// found through the root, so the stack of that is settled.)
    pub(super) fn has_layer_below(&self, layer: LayerId) -> bool {
        let root = self.table.get(ROOT);
        let stack = root.and_then(|root| root.dir().map(|dir| dir.stack()));
        stack.is_some_and(|stack| stack.layers().last().is_some_and(|last| *last > layer))
    }

    /// The next part on the trail, in the layers below `above`.
    ///
    /// # Errors
    /// Those of the layers; of redirects that are met on the way.
    pub(super) fn next_part(&self, trail: &mut Trail, above: LayerId) -> Result<Option<Hit>> {
        let mut at = above;
        while !trail.ended {
            let next = match trail.sought.clone() {
                Redirect::Name(name) => {
                    let stack = trail.parent.dir().ok_or(Errno::NOTDIR)?.stack();
                    let Some(layer) = stack.layers().iter().copied().find(|l| *l > at) else {
                        break;
                    };
                    at = layer;
                    self.part_named(trail, layer, &name)?
                }
                Redirect::Path(path) => {
                    if !self.has_layer_below(at) {
                        break;
                    }
                    at += 1;
                    self.part_at(trail, at, &path)?
                }
            };
            if next.is_some() {
                return Ok(next);
            }
        }
        Ok(None)
    }

    /// What the part of the trail's directory in `layer` has at `name`.
    fn part_named(&self, trail: &mut Trail, layer: LayerId, name: &Name) -> Result<Option<Hit>> {
        let dir = match self.dir_fd_again(&trail.parent, layer) {
            Err(Errno::NOENT | Errno::NOTDIR | Errno::XDEV) => return Ok(None),
            dir => dir?,
        };
        let mut path = self.real_path(&trail.parent, layer)?;
        path.push(name.into());
        let found = self.look_on_trail(trail, layer, &dir, name)?;
        Ok(found.map(|kind| Hit {
            layer,
            kind,
            dir,
            name: name.into(),
            path: path.into(),
        }))
    }

    /// What `layer` has at `path`. The path may be rewritten on the way, for the layers below.
    fn part_at(&self, trail: &mut Trail, layer: LayerId, path: &[NameBuf]) -> Result<Option<Hit>> {
        let own = self.layer(layer)?;
        let mut dir = Arc::clone(&own.root);
        for (at, name) in path.iter().enumerate() {
            let behind = path.len() - at - 1;
            let Some(kind) = self.look_on_trail(trail, layer, &dir, name)? else {
                return Ok(None);
            };
            if behind == 0 {
                return Ok(Some(Hit {
                    layer,
                    kind,
                    dir,
                    name: name.clone(),
                    path: path.into(),
                }));
            }
            if kind != Kind::Dir {
                trail.ended = true;
                return Ok(None);
            }
            let open = own.open_dir_at(dir.as_fd(), name);
            dir = Arc::new(open.while_doing(|| "follow a redirect")?);
            if !self.has_layer_below(layer) {
                continue;
            }
            let markers =
                dir_markers(&dir, own.wh_files).while_doing(|| "read markers on a path")?;
            trail.ended |= markers.opaque;
            if let Some(met) = markers.redirect {
                let target = self.follow(met, layer, || name.escape_ascii().to_string())?;
                trail.pass(target, behind);
            }
        }
        Ok(None)
    }

    /// The kind of what a directory of a layer has at `name`; whether layers below count is noted.
    fn look_on_trail(
        &self,
        trail: &mut Trail,
        layer: LayerId,
        dir: &OwnedFd,
        name: &Name,
    ) -> Result<Option<Kind>> {
        let wh_files = self.layer(layer)?.wh_files;
        let found = look(dir.as_fd(), name, wh_files).while_doing(|| "follow a redirect")?;
        Ok(match found {
            Look::Nothing => None,
            Look::Whiteout => {
                trail.ended = true;
                None
            }
            Look::Object { kind, hides } => {
                trail.ended |= hides;
                Some(kind)
            }
        })
    }

    /// The path of the part of `dir` in a lower, which never changes.
    pub(super) fn real_path(&self, dir: &Arc<Inode>, layer: LayerId) -> Result<Vec<NameBuf>> {
        let (mut names, mut at) = (Vec::new(), Arc::clone(dir));
        while at.ino != ROOT {
            // The name first: see `find_dir`.
            let (parent, name) = at.last_name().ok_or(Errno::STALE)?;
            let stack = at.dir().ok_or(Errno::NOTDIR)?.stack();
            if let Some(way) = stack.way(layer) {
                let mut path = way.to_vec();
                path.extend(names.into_iter().rev());
                return Ok(path);
            }
            names.push(name);
            at = parent;
        }
        names.reverse();
        Ok(names)
    }

    /// Whether a directory that only one layer has under its name has a redirect, so that it may be
    /// merged all the same. Looked for only on what was copied up, or lies beside that.
    pub(super) fn is_redirected(&self, top: &Top, copied_up: bool, place: &Place) -> Result<bool> {
        let Top::Dir(layers) = top else {
            return Ok(false);
        };
        match **layers {
            [layer] if copied_up && self.has_layer_below(layer) => {
                Ok(redirect_on(place)?.is_some())
            }
            _ => Ok(false),
        }
    }
}

/// The redirect on an object, as far as it may be read: not that of an object that its owner may not
/// read, where the daemon is no more than that.
pub(super) fn redirect_on(place: &Place) -> Result<Option<MetRedirect>> {
    match MetRedirect::at(place) {
        Err(Errno::ACCESS) => Ok(None),
        met => met.while_doing(|| "look for a redirect"),
    }
}
