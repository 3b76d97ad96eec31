//! Reads and writes of file contents, in pieces of 4 KiB.

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

use anyhow::Result;
use rustix::fs::fsync;

use super::Workload;
use crate::layers::Which;
use crate::row::{Goal, each};
use crate::session::{Native, Session};

const PIECE: usize = 4096;

pub const ALL: &[Workload] = &[Workload {
    name: "pieces",
    layers: Which::Blank,
    native: Native::Shared,
    rows: &[
        each(
            "write-seq",
            "4 KiB sequential write",
            Goal::Writeback(1.0),
            1.0,
        ),
        each(
            "write-seq-close",
            "4 KiB sequential write, close included",
            Goal::None,
            1.0,
        ),
        each(
            "write-random",
            "4 KiB random write",
            Goal::Writeback(1.0),
            1.0,
        ),
        each("read-random", "4 KiB random read, warm", Goal::None, 1.0),
    ],
    run: pieces,
}];

fn offsets(pieces: usize, seed: u64) -> Vec<u64> {
    let mut all: Vec<u64> = (0..pieces as u64).map(|n| n * PIECE as u64).collect();
    fastrand::Rng::with_seed(seed).shuffle(&mut all);
    all
}

fn write_at_all(file: &File, offsets: &[u64]) -> Result<()> {
    let piece = [b'y'; PIECE];
    offsets
        .iter()
        .try_for_each(|&offset| Ok(file.write_all_at(&piece, offset)?))
}

pub fn read_at_all(file: &File, offsets: &[u64]) -> Result<()> {
    let mut piece = [0; PIECE];
    offsets
        .iter()
        .try_for_each(|&offset| Ok(file.read_exact_at(&mut piece, offset)?))
}

fn pieces(session: &mut Session<'_>) -> Result<()> {
    let count = session.sizes.piece_bytes as usize / PIECE;
    let mut offsets = offsets(count, 3);
    let mut sorted = offsets.clone();
    sorted.sort_unstable();
    session.mount()?;
    session.meet_daemon()?;
    let path = session.made("pieces");
    let file = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(&path)?;
    session.time("write-seq", count, |_| write_at_all(&file, &sorted))?;
    fsync(file.as_fd())?;
    session.time("write-random", count, |_| write_at_all(&file, &offsets))?;
    fsync(file.as_fd())?;
    read_at_all(&file, &sorted)?;
    offsets.reverse();
    session.time("read-random", count, |_| read_at_all(&file, &offsets))?;
    drop(file);
    let path = session.made("closed");
    session.time("write-seq-close", count, |_| {
        write_at_all(&File::create_new(&path)?, &sorted)
    })
}
