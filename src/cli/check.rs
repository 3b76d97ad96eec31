//! Looks at every directory that a mount names, before anything is changed: one clear complaint.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, accessat};

use super::failure::{Failure, reason};
use super::mount::given_descriptor;
use super::mountinfo::{self, Identity, is_dead};
use super::plan::MountPlan;

/// Makes the paths of `plan` absolute and checks that they can be used, together.
pub(crate) fn check(plan: &mut MountPlan) -> Result<(), Failure> {
    if given_descriptor(&plan.mountpoint).is_none() {
        plan.mountpoint = check_mountpoint(&plan.mountpoint)?;
    }
    let mut layers = Vec::with_capacity(plan.config.lowers.len() + 2);
    let writable = !plan.config.read_only;
    if let Some(upper) = &mut plan.config.upper {
        for (what, path) in [
            (What::Upper, &mut upper.upper),
            (What::Work, &mut upper.work),
        ] {
            let seen = Seen::look(what, path)?;
            *path = seen.given.clone();
            layers.push(seen);
        }
    }
    if let [upper, work] = layers.as_slice()
        && !upper.mount.same_mount(work.mount)
    {
        return Err(Failure::new(format!(
            "cannot use {work}: it is not on the filesystem (and mount) of {upper} \
             (choose a work directory beside the upper directory)"
        )));
    }
    for layer in &layers {
        layer.permits(if writable { ACCESS_WRITE } else { ACCESS_READ })?;
    }
    let lowers = plan
        .config
        .lowers
        .iter_mut()
        .map(|path| (What::Lower, path));
    let data = plan.config.data.iter_mut().map(|path| (What::Data, path));
    for (what, path) in lowers.chain(data) {
        let seen = Seen::look(what, path)?;
        seen.permits(ACCESS_READ)?;
        *path = seen.given.clone();
        layers.push(seen);
    }
    check_apart(&layers)?;
    if let Some(file) = &mut plan.log.file {
        *file = absolute(file)?;
    }
    Ok(())
}

const ACCESS_READ: Access = Access::READ_OK.union(Access::EXEC_OK);
const ACCESS_WRITE: Access = ACCESS_READ.union(Access::WRITE_OK);

/// What a directory is given as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Lower,
    Data,
    Upper,
    Work,
}

impl What {
    fn name(self) -> &'static str {
        match self {
            What::Lower => "lower",
            What::Data => "data",
            What::Upper => "upper",
            What::Work => "work",
        }
    }
}

/// A directory that was found.
#[derive(Debug)]
struct Seen {
    what: What,
    /// As given, made absolute.
    given: PathBuf,
    /// Without symlinks.
    canonical: PathBuf,
    object: ObjectId,
    mount: Identity,
}

/// Device and inode.
type ObjectId = (u64, u64);

impl std::fmt::Display for Seen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} directory {:?}", self.what.name(), self.given)
    }
}

impl Seen {
    fn look(what: What, path: &Path) -> Result<Seen, Failure> {
        let fail = |e: io::Error| {
            let remedy = match e.kind() {
                io::ErrorKind::NotFound => format!("create it, or correct --{}", what.name()),
                io::ErrorKind::PermissionDenied => "run as a user who may enter it".to_owned(),
                _ => format!("correct --{}", what.name()),
            };
            let name = what.name();
            Failure::new(format!(
                "cannot use {name} directory {path:?}: {} ({remedy})",
                reason(e)
            ))
        };
        let given = absolute(path)?;
        let canonical = std::fs::canonicalize(&given).map_err(fail)?;
        let (object, is_dir) = identify(&canonical).map_err(fail)?;
        if !is_dir {
            return Err(fail(rustix::io::Errno::NOTDIR.into()));
        }
        let mount = Identity::of(&canonical).map_err(fail)?;
        Ok(Seen {
            what,
            given,
            canonical,
            object,
            mount,
        })
    }

    fn permits(&self, access: Access) -> Result<(), Failure> {
        accessat(CWD, &self.canonical, access, AtFlags::EACCESS).map_err(|e| {
            let remedy = match e {
                rustix::io::Errno::ROFS => "choose one on a writable filesystem",
                _ if access.contains(Access::WRITE_OK) => "run as a user who may write to it",
                _ => "run as a user who may read it",
            };
            Failure::new(format!("cannot use {self}: {} ({remedy})", reason(e)))
        })
    }
}

fn identify(path: &Path) -> io::Result<(ObjectId, bool)> {
    use std::os::unix::fs::MetadataExt;
    let meta = std::fs::metadata(path)?;
    Ok(((meta.dev(), meta.ino()), meta.is_dir()))
}

fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    std::path::absolute(path)
        .map_err(|e| Failure::new(format!("cannot make {path:?} absolute: {}", reason(e))))
}

fn check_mountpoint(path: &Path) -> Result<PathBuf, Failure> {
    let fail = |why: String, remedy: &str| {
        Failure::new(format!("cannot mount on {path:?}: {why} ({remedy})"))
    };
    let found = std::fs::canonicalize(path).and_then(|c| Ok((identify(&c)?.1, c)));
    match found {
        Ok((true, canonical)) => Ok(canonical),
        Ok((false, _)) => Err(fail("not a directory".to_owned(), "name a directory")),
        Err(e) if is_dead(&e) => Err(fail(
            "a FUSE mount whose daemon is gone is there".to_owned(),
            "remove it with unionmount umount",
        )),
        Err(e) => {
            let remedy = match e.kind() {
                io::ErrorKind::NotFound => "create it",
                io::ErrorKind::NotADirectory => "name a directory",
                _ => "choose another one",
            };
            Err(fail(reason(e), remedy))
        }
    }
}

/// No layer may be, contain or lie in another one: what is written to one would change the other
/// behind the union's back. Kernel overlayfs refuses the same among lowers (ELOOP).
fn check_apart(layers: &[Seen]) -> Result<(), Failure> {
    let mut by_object: HashMap<ObjectId, &Seen> = HashMap::with_capacity(layers.len());
    for layer in layers {
        if let Some(other) = by_object.insert(layer.object, layer) {
            let (a, b) = (other.what.name(), layer.what.name());
            let given = &layer.given;
            return Err(Failure::new(if a == b {
                format!("cannot use {a} directory {given:?} twice (drop one of them)")
            } else {
                format!("cannot use {given:?} as {a} and as {b} directory (choose two directories)")
            }));
        }
    }
    let mut ancestors = Ancestors::default();
    for layer in layers {
        for object in ancestors.within_mount(&layer.canonical, layer.mount) {
            if let Some(outer) = by_object.get(&object) {
                return Err(Failure::new(format!(
                    "cannot use {layer}: it is inside {outer} (choose separate directories)"
                )));
            }
        }
    }
    check_apart_on_disk(layers)
}

/// The same where the path that was given does not show it: one of them is a bind mount of a directory
/// in the other.
fn check_apart_on_disk(layers: &[Seen]) -> Result<(), Failure> {
    // Without it nothing can be told.
    let entries = mountinfo::entries().unwrap_or_default();
    let located = layers.iter().filter_map(|layer| {
        let location = mountinfo::location(&entries, &layer.canonical)?;
        Some((location, layer))
    });
    let by_location: HashMap<_, &Seen> = located.collect();
    for ((device, path), layer) in &by_location {
        for above in path.ancestors().skip(1) {
            if let Some(outer) = by_location.get(&(device.clone(), above.to_owned())) {
                return Err(Failure::new(format!(
                    "cannot use {layer}: through a bind mount it is inside {outer} (choose separate \
                     directories)"
                )));
            }
        }
    }
    Ok(())
}

/// The directories above the layers, each looked at once (there may be hundreds of layers).
#[derive(Debug, Default)]
struct Ancestors {
    known: HashMap<PathBuf, Option<(ObjectId, Identity)>>,
}

impl Ancestors {
    /// What lies above `path` as far as its own filesystem goes: a mount inside a layer does not
    /// belong to it.
    fn within_mount(&mut self, path: &Path, mount: Identity) -> Vec<ObjectId> {
        let mut found = Vec::new();
        for ancestor in path.ancestors().skip(1) {
            let known = self.known.entry(ancestor.to_owned()).or_insert_with(|| {
                Some((identify(ancestor).ok()?.0, Identity::of(ancestor).ok()?))
            });
            match known {
                Some((object, at)) if !at.wholly_different(mount) => found.push(*object),
                _ => break,
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(what: What, path: &str) -> Seen {
        Seen::look(what, Path::new(path)).unwrap()
    }

    #[test]
    fn layers_must_be_apart() {
        let dir = env!("CARGO_MANIFEST_DIR");
        let src = concat!(env!("CARGO_MANIFEST_DIR"), "/src");
        let cli = concat!(env!("CARGO_MANIFEST_DIR"), "/src/cli/../cli");
        let tests = concat!(env!("CARGO_MANIFEST_DIR"), "/tests");
        for (a, b, complaint) in [
            ((What::Lower, src), (What::Lower, tests), None),
            ((What::Lower, src), (What::Lower, src), Some("twice")),
            (
                (What::Upper, src),
                (What::Lower, src),
                Some("as upper and as lower"),
            ),
            (
                (What::Upper, cli),
                (What::Lower, dir),
                Some("is inside lower directory"),
            ),
            (
                (What::Upper, dir),
                (What::Lower, cli),
                Some("is inside upper directory"),
            ),
            (
                (What::Upper, src),
                (What::Work, cli),
                Some("is inside upper directory"),
            ),
        ] {
            let got = check_apart(&[seen(a.0, a.1), seen(b.0, b.1)]);
            match (got, complaint) {
                (Ok(()), None) => {}
                (Err(e), Some(part)) => assert!(e.to_string().contains(part), "{e}"),
                (got, _) => panic!("{a:?} {b:?}: {got:?}"),
            }
        }
    }
}
