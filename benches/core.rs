//! The core without a mount: what a lookup, a merge and a scan cost, by the number of layers and of
//! names. `cargo bench --bench core`; layers lie in the directory for temporary files (`TMPDIR`).

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing
)]

use std::fs;
use std::hint::black_box;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use rustix::fs::{CWD, FileType, Mode, XattrFlags};
use tempfile::TempDir;
use unionmount::attr::Kind;
use unionmount::layer::{LayerId, ListEntry, Listing, Readable, scan};
use unionmount::marker::whiteout::WhFiles;
use unionmount::merge::{Impure, Index, merge};
use unionmount::ops::{Config, Union};

const ROOT: u64 = 1;

/// A read-only union of `layers` directories. Each has `d` with a name of its own and a name that
/// all have; the lowest one has 100 names more.
fn union_of(layers: usize) -> (TempDir, Union) {
    let dir = TempDir::new().unwrap();
    let lowers: Vec<PathBuf> = (0..layers)
        .map(|n| dir.path().join(format!("l{n}")))
        .collect();
    for (n, lower) in lowers.iter().enumerate() {
        fs::create_dir_all(lower.join("d")).unwrap();
        fs::write(lower.join(format!("d/own{n}")), "").unwrap();
        fs::write(lower.join("d/common"), "").unwrap();
    }
    for n in 0..100 {
        fs::write(lowers[layers - 1].join(format!("d/low{n}")), "").unwrap();
    }
    let config = Config {
        lowers,
        read_only: true,
        ..Config::default()
    };
    let union = Union::open(&config).unwrap();
    (dir, union)
}

/// A name in a directory of many layers: the first lookup there reads all of them, those after it
/// none, whether there is such a name or not.
fn lookups(c: &mut Criterion) {
    let mut group = c.benchmark_group("lookup");
    for layers in [1, 10, 100, 500] {
        let (_dir, union) = union_of(layers);
        let lookup_dir = || union.lookup(ROOT, b"d").unwrap().attr.ino;
        group.bench_function(BenchmarkId::new("first", layers), |b| {
            b.iter_batched(
                || {
                    // Forgetting the directory drops its listing and its descriptors.
                    union.forget(lookup_dir(), u64::MAX);
                    lookup_dir()
                },
                |d| {
                    let ino = union.lookup(d, b"low7").unwrap().attr.ino;
                    union.forget(ino, 1);
                },
                BatchSize::PerIteration,
            );
        });
        let d = lookup_dir();
        union.lookup(d, b"low7").unwrap();
        group.bench_function(BenchmarkId::new("known", layers), |b| {
            b.iter(|| union.lookup(d, black_box(b"low7")).unwrap());
        });
        group.bench_function(BenchmarkId::new("forgotten", layers), |b| {
            b.iter(|| {
                let ino = union.lookup(d, black_box(b"common")).unwrap().attr.ino;
                union.forget(ino, 1);
            });
        });
        group.bench_function(BenchmarkId::new("missing", layers), |b| {
            b.iter(|| union.lookup(d, black_box(b"none")).is_err());
        });
    }
    group.finish();
}

/// A listing of `names` files: every second name is in all layers, the others are the layer's own.
fn listing(layer: usize, names: usize) -> Listing {
    let entry = |n: usize| {
        let own = if n.is_multiple_of(2) { 0 } else { layer };
        ListEntry {
            name: format!("name-{own}-{n}").into_bytes().into(),
            kind: Kind::File,
        }
    };
    Listing {
        entries: (0..names).map(entry).collect(),
        ..Listing::default()
    }
}

/// Many listings become one, and that an index.
fn merging(c: &mut Criterion) {
    let mut group = c.benchmark_group("merge");
    for (layers, names) in [(1, 1000), (10, 100), (10, 1000), (100, 100), (500, 100)] {
        let listings: Vec<(LayerId, Listing)> = (0..layers)
            .map(|n| (n as LayerId, listing(n, names)))
            .collect();
        let id = |what| BenchmarkId::new(what, format!("{layers}x{names}"));
        group.throughput(Throughput::Elements((layers * names) as u64));
        group.bench_function(id("listings"), |b| {
            b.iter_batched(
                || listings.clone(),
                |listings| merge(listings, None),
                BatchSize::LargeInput,
            );
        });
        group.bench_function(id("index"), |b| {
            b.iter_batched(
                || merge(listings.clone(), None),
                |merged| Index::new(7, Impure::default(), merged),
                BatchSize::LargeInput,
            );
        });
    }
    group.finish();
}

/// How entries of a directory are made for [`scanning`]; an error: this machine cannot.
type Fill = fn(&Path, usize) -> Result<(), rustix::io::Errno>;

fn plain(dir: &Path, n: usize) -> Result<(), rustix::io::Errno> {
    fs::write(dir.join(format!("name-{n}")), "").unwrap();
    Ok(())
}

fn wh_file(dir: &Path, n: usize) -> Result<(), rustix::io::Errno> {
    fs::write(dir.join(format!(".wh.name-{n}")), "").unwrap();
    Ok(())
}

fn device(dir: &Path, n: usize) -> Result<(), rustix::io::Errno> {
    let path = dir.join(format!("name-{n}"));
    rustix::fs::mknodat(CWD, path, FileType::CharacterDevice, Mode::empty(), 0)
}

/// As unionmount makes them: all whiteouts are one object.
fn linked_device(dir: &Path, n: usize) -> Result<(), rustix::io::Errno> {
    if n == 0 {
        return device(dir, 0);
    }
    rustix::fs::link(dir.join("name-0"), dir.join(format!("name-{n}")))
}

fn with_xattr(dir: &Path, n: usize) -> Result<(), rustix::io::Errno> {
    let flags = XattrFlags::empty();
    if n == 0 {
        rustix::fs::setxattr(dir, "user.overlay.opaque", b"x", flags)?;
    }
    let path = dir.join(format!("name-{n}"));
    fs::write(&path, "").unwrap();
    rustix::fs::setxattr(path, "user.overlay.whiteout", b"", flags)
}

/// Reading a directory of 1000 names of one layer and telling objects from deletions.
fn scanning(c: &mut Criterion) {
    const NAMES: usize = 1000;
    let kinds: [(&str, Fill); 5] = [
        ("files", plain),
        ("wh_files", wh_file),
        ("devices", device),
        ("linked_devices", linked_device),
        ("xattr_whiteouts", with_xattr),
    ];
    let mut group = c.benchmark_group("scan");
    group.throughput(Throughput::Elements(NAMES as u64));
    for (kind, fill) in kinds {
        let dir = TempDir::new().unwrap();
        if let Err(e) = (0..NAMES).try_for_each(|n| fill(dir.path(), n)) {
            println!("scan/{kind}: left out, they cannot be made here: {e}");
            continue;
        }
        let fd = fs::File::open(dir.path()).unwrap();
        let listing = scan(fd.as_fd(), Readable::No, WhFiles::Meant).unwrap();
        let deleted = listing.whiteouts.len() + listing.wh_files.len();
        let found = [listing.entries.len(), deleted];
        assert_eq!(found[usize::from(kind != "files")], NAMES, "{kind}");
        group.bench_function(kind, |b| {
            b.iter(|| scan(fd.as_fd(), Readable::No, WhFiles::Meant).unwrap());
        });
    }
    group.finish();
}

criterion_group!(benches, lookups, merging, scanning);
criterion_main!(benches);
