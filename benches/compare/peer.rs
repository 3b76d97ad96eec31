//! Who is compared: finding the programs, and mounting layers with each of them.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use rustix::fs::CWD;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, fsconfig_create,
    fsconfig_set_string, fsmount, fsopen, move_mount,
};

use crate::arguments::Arguments;
use crate::scratch::succeed;

/// What kernel overlayfs is mounted with: what it does by default on an unconfigured kernel.
pub const KERNEL_OPTIONS: &[(&str, &str)] = &[
    ("redirect_dir", "off"),
    ("metacopy", "off"),
    ("index", "off"),
    ("xino", "auto"),
];

/// One column of the table.
#[derive(Clone, Debug)]
pub struct Peer {
    /// What `--peer` and the JSON call it.
    pub name: String,
    pub version: String,
    pub kind: Kind,
}

#[derive(Clone, Debug)]
pub enum Kind {
    /// No union: a directory that holds what the union would show.
    Native,
    Kernel,
    FuseOverlayfs {
        program: PathBuf,
    },
    Unionmount {
        program: PathBuf,
        options: Vec<String>,
    },
}

/// A peer that is not in the table, and why.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct Missing {
    pub name: String,
    pub why: String,
}

/// The directories of one mount.
#[derive(Debug)]
pub struct Layers<'a> {
    pub lowers: &'a [PathBuf],
    pub upper: &'a Path,
    pub work: &'a Path,
    pub mnt: &'a Path,
}

impl Peer {
    pub fn is_native(&self) -> bool {
        matches!(self.kind, Kind::Native)
    }

    /// The control program of a mount of ours.
    pub fn control(&self) -> Option<&Path> {
        match &self.kind {
            Kind::Unionmount { program, .. } => Some(program),
            _ => None,
        }
    }

    pub fn has_daemon(&self) -> bool {
        matches!(
            self.kind,
            Kind::FuseOverlayfs { .. } | Kind::Unionmount { .. }
        )
    }

    /// Mounts; returns when the mount is usable.
    pub fn mount(&self, layers: &Layers<'_>) -> Result<()> {
        match &self.kind {
            Kind::Native => bail!("a plain directory is not mounted"),
            Kind::Kernel => mount_kernel(layers),
            Kind::FuseOverlayfs { program, .. } => {
                let mut options = OsString::from("lowerdir=");
                options.push(joined(layers.lowers));
                options.push(",upperdir=");
                options.push(layers.upper);
                options.push(",workdir=");
                options.push(layers.work);
                succeed(Command::new(program).arg("-o").arg(options).arg(layers.mnt))
            }
            Kind::Unionmount { program, options } => succeed(
                Command::new(program)
                    .arg("--lower")
                    .arg(joined(layers.lowers))
                    .arg("--upper")
                    .arg(layers.upper)
                    .arg("--work")
                    .arg(layers.work)
                    .args(options)
                    .arg(layers.mnt),
            ),
        }
    }
}

fn joined(lowers: &[PathBuf]) -> OsString {
    let mut all = OsString::new();
    for lower in lowers {
        if !all.is_empty() {
            all.push(":");
        }
        all.push(lower);
    }
    all
}

/// With fsconfig(2): mount(2) takes one page of options, too little for hundreds of lowers.
fn mount_kernel(layers: &Layers<'_>) -> Result<()> {
    let fs = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).context("fsopen overlay")?;
    let set = |key: &str, value: &Path| {
        fsconfig_set_string(&fs, key, value)
            .with_context(|| format!("overlayfs: {key}={}", value.display()))
    };
    for lower in layers.lowers {
        set("lowerdir+", lower)?;
    }
    set("upperdir", layers.upper)?;
    set("workdir", layers.work)?;
    for (key, value) in KERNEL_OPTIONS {
        set(key, Path::new(value))?;
    }
    fsconfig_create(&fs).context("overlayfs refuses the layers")?;
    let mount = fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    move_mount(&mount, "", CWD, layers.mnt, flags).context("move_mount of overlayfs")
}

/// The peers that this machine has, in the order of the columns, and those it lacks.
pub fn find(arguments: &Arguments) -> Result<(Vec<Peer>, Vec<Missing>)> {
    let mut peers = vec![
        Peer {
            name: "native".into(),
            version: "a plain directory".into(),
            kind: Kind::Native,
        },
        Peer {
            name: "kernel".into(),
            version: kernel_version(),
            kind: Kind::Kernel,
        },
    ];
    let mut missing = Vec::new();
    let found = fuse_overlayfs_programs();
    for major in [1, 2] {
        let name = format!("fuse-overlayfs-{major}");
        match found
            .iter()
            .find(|(_, version)| starts_with(version, major))
        {
            Some((program, version)) => peers.push(Peer {
                name,
                version: version.clone(),
                kind: Kind::FuseOverlayfs {
                    program: program.clone(),
                },
            }),
            None => missing.push(Missing {
                name,
                why: format!("no fuse-overlayfs {major}.x on PATH or beside cargo's programs"),
            }),
        }
    }
    peers.extend(ours(arguments)?);
    if let Some(wanted) = &arguments.peer {
        let wanted: BTreeSet<&str> = wanted.split(',').collect();
        for name in &wanted {
            if !peers.iter().any(|peer| peer.name == *name) {
                bail!("--peer {name}: not one of {}", names(&peers));
            }
        }
        peers.retain(|peer| wanted.contains(peer.name.as_str()));
    }
    Ok((peers, missing))
}

fn names(peers: &[Peer]) -> String {
    let names: Vec<&str> = peers.iter().map(|peer| peer.name.as_str()).collect();
    names.join(", ")
}

/// The union of this package as it is, with `--writeback`, and what the command line adds.
fn ours(arguments: &Arguments) -> Result<Vec<Peer>> {
    let built = PathBuf::from(env!("CARGO_BIN_EXE_unionmount"));
    let mut all = vec![
        unionmount("unionmount", built.clone(), Vec::new())?,
        unionmount("unionmount-wb", built.clone(), vec!["--writeback".into()])?,
    ];
    if let Some(options) = &arguments.options {
        let options = options.split_whitespace().map(str::to_owned).collect();
        all.push(unionmount("unionmount-options", built, options)?);
    }
    for binary in &arguments.binary {
        let (name, program) = binary
            .split_once('=')
            .with_context(|| format!("--binary {binary}: not NAME=PATH"))?;
        all.push(unionmount(name, program.into(), Vec::new())?);
    }
    Ok(all)
}

fn unionmount(name: &str, program: PathBuf, options: Vec<String>) -> Result<Peer> {
    let said = version_text(&program)?;
    let mut version = said.trim().to_owned();
    for option in &options {
        version.push(' ');
        version.push_str(option);
    }
    Ok(Peer {
        name: name.to_owned(),
        version,
        kind: Kind::Unionmount { program, options },
    })
}

/// Every fuse-overlayfs with its version, in the order of the places that are looked at.
fn fuse_overlayfs_programs() -> Vec<(PathBuf, String)> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let under = |variable: &str, rest: &str| {
        std::env::var_os(variable).map(|dir| PathBuf::from(dir).join(rest))
    };
    let places = std::env::split_paths(&path)
        .chain(under("UNIONMOUNT_TOOLS", "bin"))
        .chain(under("HOME", ".cargo/bin"))
        .chain([Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools/bin")]);
    let mut seen = BTreeSet::new();
    places
        .filter_map(|place| place.join("fuse-overlayfs").canonicalize().ok())
        .filter(|program| seen.insert(program.clone()))
        .filter_map(|program| {
            let text = version_text(&program).ok()?;
            let version = text
                .lines()
                .find_map(|line| line.strip_prefix("fuse-overlayfs: version "))?;
            Some((program, version.trim().to_owned()))
        })
        .collect()
}

fn starts_with(version: &str, major: u32) -> bool {
    version.split('.').next() == Some(major.to_string().as_str())
}

fn version_text(program: &Path) -> Result<String> {
    let done = Command::new(program)
        .arg("--version")
        .output()
        .with_context(|| format!("cannot run {}", program.display()))?;
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}

fn kernel_version() -> String {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    release.trim().to_owned()
}
