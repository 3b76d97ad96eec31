//! Content: reading, writing, sizes, holes, copying, mapping, direct I/O, in every way to do I/O.

use crate::kit::{Subject, sys};
use crate::{all_io, both};

const LOWER: &str =
    "f small hello\nf big pattern=300000\nf sparse size=1000000 at=500000:island\nf empty";

fn big() -> Vec<u8> {
    sys::pattern(1, 300_000)
}

#[test]
fn lower_files_read_whole_and_in_parts() {
    all_io(&[LOWER], |lab| {
        assert_eq!(sys::get(lab.at("big")).unwrap(), big());
        let fd = sys::open(lab.at("big"), libc::O_RDONLY, 0).unwrap();
        assert_eq!(sys::pread(&fd, 4095, 2).unwrap(), big()[4095..4097]);
        assert_eq!(sys::pread(&fd, 299_999, 100).unwrap(), big()[299_999..]);
        assert_eq!(sys::pread(&fd, 300_000, 100).unwrap(), b"");
        assert_eq!(sys::get(lab.at("empty")).unwrap(), b"");
    });
}

#[test]
fn writes_in_the_middle_at_the_end_and_beyond() {
    all_io(&[LOWER], |lab| {
        for name in ["big", "new"] {
            let at = lab.at(name);
            if name == "new" {
                sys::put(&at, &big()).unwrap();
            }
            let mut want = big();
            sys::overwrite(&at, 100_001, b"middle").unwrap();
            want[100_001..100_007].copy_from_slice(b"middle");
            sys::append(&at, b"end").unwrap();
            want.extend(b"end");
            sys::overwrite(&at, 400_000, b"beyond").unwrap();
            want.resize(400_000, 0);
            want.extend(b"beyond");
            assert!(sys::get(&at).unwrap() == want, "{name}");
            lab.remount();
            assert!(sys::get(&at).unwrap() == want, "{name} after a remount");
        }
    });
}

#[test]
fn truncation_to_any_size() {
    all_io(&[LOWER], |lab| {
        for size in [0, 1, 4096, 131_072, 299_999, 300_000, 300_001, 1_000_000] {
            let at = lab.at("big");
            sys::truncate(&at, size).unwrap();
            let mut want = big();
            want.resize(size as usize, 0);
            assert!(sys::get(&at).unwrap() == want, "to {size}");
            assert_eq!(sys::lstat(&at).unwrap().size, size);
            sys::unlink(&at).unwrap();
            sys::put(&at, &big()).unwrap();
        }
        fails!(sys::truncate(lab.at("none"), 0), ENOENT);
        fails!(sys::truncate(lab.mnt(), 0), EISDIR);
    });
}

/// One lower file each: the copy-up itself is the truncation.
#[test]
fn truncation_of_a_lower_file() {
    let sizes = [0, 1, 4096, 131_072, 299_999, 300_001, 1_000_000_u64];
    let lower: Vec<String> = sizes
        .iter()
        .map(|n| format!("f f{n} pattern=300000 mode=0640"))
        .collect();
    all_io(&[&lower.join("\n")], |lab| {
        for size in sizes {
            let at = lab.at(format!("f{size}"));
            sys::truncate(&at, size).unwrap();
            let mut want = big();
            want.resize(size as usize, 0);
            assert!(sys::get(&at).unwrap() == want, "to {size}");
            assert_eq!(sys::lstat(&at).unwrap().perm(), 0o640);
        }
    });
}

#[test]
fn opening_a_lower_file_with_o_trunc() {
    all_io(&[LOWER], |lab| {
        let fd = sys::open(lab.at("big"), libc::O_WRONLY | libc::O_TRUNC, 0).unwrap();
        assert_eq!(sys::fstat(&fd).unwrap().size, 0);
        sys::write(&fd, b"short").unwrap();
        assert_eq!(sys::text(lab.at("big")), "short");
        drop(
            sys::open(
                lab.at("small"),
                libc::O_RDWR | libc::O_TRUNC | libc::O_CREAT,
                0o600,
            )
            .unwrap(),
        );
        assert_eq!(sys::lstat(lab.at("small")).unwrap().size, 0);
        sys::put(lab.at("empty"), b"").unwrap();
    });
}

/// dpkg opens its lock files that way: nothing is cut, and the time is set.
#[test]
fn truncation_to_the_same_size_sets_the_time() {
    let lower = "f low-opened mtime=5\nf low-cut hello mtime=5\nf low-path hello mtime=5";
    all_io(&[lower], |lab| {
        for (name, data) in [("opened", ""), ("cut", "hello"), ("path", "hello")] {
            let new = lab.at(format!("up-{name}"));
            sys::put(&new, data.as_bytes()).unwrap();
            sys::set_mtime(&new, (5, 0)).unwrap();
        }
        for layer in ["low", "up"] {
            let opened = lab.at(format!("{layer}-opened"));
            drop(sys::open(&opened, libc::O_RDWR | libc::O_CREAT | libc::O_TRUNC, 0o600).unwrap());
            assert!(sys::lstat(&opened).unwrap().mtime.0 > 5, "{layer}: O_TRUNC");
            let cut = lab.at(format!("{layer}-cut"));
            let fd = sys::open(&cut, libc::O_RDWR, 0).unwrap();
            sys::ftruncate(&fd, 5).unwrap();
            assert!(sys::lstat(&cut).unwrap().mtime.0 > 5, "{layer}: ftruncate");
            // By path it may be either (with writeback FUSE keeps the time), but it must stay so.
            sys::truncate(lab.at(format!("{layer}-path")), 5).unwrap();
        }
    });
}

#[test]
fn appends_of_many_descriptors_lose_nothing() {
    all_io(&[LOWER], |lab| {
        let at = lab.at("small");
        std::thread::scope(|scope| {
            for writer in b'a'..b'e' {
                let at = &at;
                scope.spawn(move || {
                    let fd = sys::open(at, libc::O_WRONLY | libc::O_APPEND, 0).unwrap();
                    for _ in 0..100 {
                        assert_eq!(sys::write(&fd, &[writer; 10]).unwrap(), 10);
                    }
                });
            }
        });
        let data = sys::get(&at).unwrap();
        assert_eq!(data.len(), 5 + 4 * 100 * 10);
        for chunk in data[5..].chunks(10) {
            assert!(chunk.iter().all(|byte| *byte == chunk[0]), "a torn append");
        }
    });
}

#[test]
fn fallocate_in_its_four_modes() {
    all_io(&[LOWER], |lab| {
        let fd = sys::open(lab.at("big"), libc::O_RDWR, 0).unwrap();
        let (keep, punch) = (libc::FALLOC_FL_KEEP_SIZE, libc::FALLOC_FL_PUNCH_HOLE);
        let zero = libc::FALLOC_FL_ZERO_RANGE;
        let mut want = big();
        sys::fallocate(&fd, punch | keep, 10_000, 50_000).unwrap();
        want[10_000..60_000].fill(0);
        assert!(sys::get_fd(&fd).unwrap() == want, "punch");
        sys::fallocate(&fd, keep, 0, 900_000).unwrap();
        assert_eq!(sys::fstat(&fd).unwrap().size, 300_000);
        sys::fallocate(&fd, zero, 290_000, 20_000).unwrap();
        want.resize(310_000, 0);
        want[290_000..].fill(0);
        assert!(sys::get_fd(&fd).unwrap() == want, "zero");
        sys::fallocate(&fd, zero | keep, 0, 5).unwrap();
        want[..5].fill(0);
        sys::fallocate(&fd, 0, 400_000, 1).unwrap();
        want.resize(400_001, 0);
        assert!(sys::get_fd(&fd).unwrap() == want, "plain");
        fails!(sys::fallocate(&fd, 0, 0, 0), EINVAL);
        let reader = sys::open(lab.at("small"), libc::O_RDONLY, 0).unwrap();
        fails!(sys::fallocate(&reader, 0, 0, 10), EBADF);
    });
}

#[test]
fn holes_and_data_are_found() {
    all_io(&[LOWER], |lab| {
        let lower = sys::open(lab.at("sparse"), libc::O_RDONLY, 0).unwrap();
        sys::put(lab.at("new"), b"").unwrap();
        let new = sys::open(lab.at("new"), libc::O_RDWR, 0).unwrap();
        sys::ftruncate(&new, 1_000_000).unwrap();
        sys::pwrite(&new, 500_000, b"island").unwrap();
        for fd in [&lower, &new] {
            let data = sys::lseek(fd, 0, libc::SEEK_DATA).unwrap();
            assert!((400_000..=500_000).contains(&data), "data at {data}");
            let hole = sys::lseek(fd, data, libc::SEEK_HOLE).unwrap();
            assert!((500_006..600_000).contains(&hole), "hole at {hole}");
            assert_eq!(sys::lseek(fd, 0, libc::SEEK_HOLE).unwrap(), 0);
            fails!(sys::lseek(fd, hole, libc::SEEK_DATA), ENXIO);
            fails!(sys::lseek(fd, 1_000_000, libc::SEEK_HOLE), ENXIO);
            assert_eq!(sys::lseek(fd, -10, libc::SEEK_END).unwrap(), 999_990);
        }
    });
}

/// What was written a moment ago, and lies only in the page cache, is data.
#[test]
fn dirty_pages_are_data() {
    all_io(&[LOWER], |lab| {
        for round in 0..20 {
            let at = lab.at(format!("n{round}"));
            sys::put(&at, b"").unwrap();
            let fd = sys::open(&at, libc::O_RDWR, 0).unwrap();
            sys::pwrite(&fd, 8192, b"data").unwrap();
            let data = sys::lseek(&fd, 0, libc::SEEK_DATA).unwrap();
            assert!(data <= 8192, "data at {data}");
            assert!(sys::lseek(&fd, 8192, libc::SEEK_HOLE).unwrap() >= 8196);
        }
    });
}

#[test]
fn copy_file_range_between_all_kinds_of_files() {
    all_io(&[LOWER], |lab| {
        sys::put(lab.at("new"), b"0123456789").unwrap();
        let from = sys::open(lab.at("big"), libc::O_RDONLY, 0).unwrap();
        for name in ["new", "small", "empty", "fresh"] {
            let flags = libc::O_RDWR | libc::O_CREAT;
            let to = sys::open(lab.at(name), flags, 0o644).unwrap();
            let mut done = 0;
            while done < 100_000 {
                let n = sys::copy_file_range(
                    &from,
                    1000 + done,
                    &to,
                    3 + done,
                    100_000 - done as usize,
                );
                done += n.unwrap() as u64;
            }
            assert_eq!(
                sys::pread(&to, 3, 200_000).unwrap(),
                big()[1000..101_000],
                "{name}"
            );
        }
        assert_eq!(&sys::get(lab.at("new")).unwrap()[..3], b"012");
        let own = sys::open(lab.at("new"), libc::O_RDWR, 0).unwrap();
        fails!(sys::copy_file_range(&own, 0, &own, 10, 1000), EINVAL);
    });
}

#[test]
fn fsync_of_everything() {
    all_io(&[LOWER], |lab| {
        for name in ["small", "new"] {
            let fd = sys::open(lab.at(name), libc::O_RDWR | libc::O_CREAT, 0o644).unwrap();
            sys::pwrite(&fd, 0, b"synced").unwrap();
            sys::fdatasync(&fd).unwrap();
            sys::fsync(&fd).unwrap();
            let upper = sys::get(lab.in_upper(name)).unwrap();
            assert_eq!(upper, b"synced", "on disk after fsync");
        }
        let reader = sys::open(lab.at("big"), libc::O_RDONLY, 0).unwrap();
        sys::fsync(&reader).unwrap();
        assert!(
            !lab.in_upper("big").exists(),
            "fsync copied a lower file up"
        );
        let dir = sys::open(lab.mnt(), libc::O_RDONLY | libc::O_DIRECTORY, 0).unwrap();
        sys::fsync(&dir).unwrap();
    });
}

#[test]
fn direct_io() {
    all_io(&[LOWER], |lab| {
        // Aligned memory: a mapping starts at a page.
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        let none: std::os::fd::RawFd = -1;
        let mut page =
            sys::Map::new(&none, 4096, libc::PROT_READ | libc::PROT_WRITE, flags).unwrap();
        page.bytes_mut().fill(b'D');
        for name in ["big", "fresh"] {
            let flags = libc::O_RDWR | libc::O_CREAT | libc::O_DIRECT;
            let fd = sys::open(lab.at(name), flags, 0o644).unwrap();
            assert_eq!(sys::pwrite(&fd, 4096, page.bytes()).unwrap(), 4096);
            let cached = sys::open(lab.at(name), libc::O_RDONLY, 0).unwrap();
            assert_eq!(
                sys::pread(&cached, 4096, 4096).unwrap(),
                page.bytes(),
                "{name}"
            );
            sys::overwrite(lab.at(name), 4096, b"cached").unwrap();
            let seen = sys::pread(&fd, 4096, 0).unwrap();
            assert!(seen.is_empty());
        }
        assert_eq!(
            sys::pread(&sys::open(lab.at("big"), 0, 0).unwrap(), 0, 4096).unwrap(),
            big()[..4096]
        );
    });
}

#[test]
fn shared_mappings_agree_with_read_and_write() {
    all_io(&[LOWER], |lab| {
        for name in ["big", "new"] {
            if name == "new" {
                sys::put(lab.at(name), &big()).unwrap();
            }
            let fd = sys::open(lab.at(name), libc::O_RDWR, 0).unwrap();
            let mut map = sys::Map::shared(&fd, 300_000).unwrap();
            assert!(map.bytes() == big(), "{name}");
            sys::pwrite(&fd, 5000, b"written").unwrap();
            assert_eq!(
                &map.bytes()[5000..5007],
                b"written",
                "{name}: write seen in the mapping"
            );
            map.bytes_mut()[200_000..200_006].copy_from_slice(b"mapped");
            map.sync().unwrap();
            assert_eq!(
                sys::pread(&fd, 200_000, 6).unwrap(),
                b"mapped",
                "{name}: mapping read"
            );
            sys::truncate(lab.at(name), 299_000).unwrap();
            assert_eq!(sys::fstat(&fd).unwrap().size, 299_000);
            let mut want = big();
            want.truncate(299_000);
            want[5000..5007].copy_from_slice(b"written");
            want[200_000..200_006].copy_from_slice(b"mapped");
            drop(map);
            drop(fd);
            assert!(sys::get(lab.at(name)).unwrap() == want, "{name}");
        }
    });
}

#[test]
fn private_mappings_change_nothing() {
    all_io(&[LOWER], |lab| {
        let fd = sys::open(lab.at("big"), libc::O_RDONLY, 0).unwrap();
        let prot = libc::PROT_READ | libc::PROT_WRITE;
        let mut map = sys::Map::new(&fd, 300_000, prot, libc::MAP_PRIVATE).unwrap();
        map.bytes_mut()[..7].copy_from_slice(b"private");
        assert_eq!(sys::pread(&fd, 0, 7).unwrap(), big()[..7]);
        drop(map);
        assert!(!lab.in_upper("big").exists());
    });
}

/// Bigger than what a 32-bit offset holds.
#[test]
fn offsets_of_64_bits() {
    both(&["f huge size=5000000000 at=4999999990:end"], |lab| {
        let at = lab.at("huge");
        assert_eq!(sys::lstat(&at).unwrap().size, 5_000_000_000);
        let fd = sys::open(&at, libc::O_RDWR, 0).unwrap();
        assert_eq!(sys::pread(&fd, 4_999_999_990, 3).unwrap(), b"end");
        sys::pwrite(&fd, 6_000_000_000, b"far").unwrap();
        assert_eq!(sys::pread(&fd, 6_000_000_000, 9).unwrap(), b"far");
        assert_eq!(sys::pread(&fd, 4_999_999_990, 3).unwrap(), b"end");
        let blocks = sys::fstat(&fd).unwrap().blocks;
        assert!(blocks < 10_000, "the holes were filled: {blocks} blocks");
        drop(fd);
        // The whole is too long to be read at the end of the test.
        sys::unlink(&at).unwrap();
    });
}

#[test]
fn many_writers_of_one_file_and_readers_beside() {
    all_io(&[LOWER], |lab| {
        let at = lab.at("big");
        std::thread::scope(|scope| {
            for part in 0..4_u64 {
                let at = &at;
                scope.spawn(move || {
                    for n in 0..75_u64 {
                        let offset = part * 75_000 + n * 1000;
                        sys::overwrite(at, offset, &sys::pattern(9 + part, 1000)).unwrap();
                        assert_eq!(sys::get(at).unwrap().len(), 300_000);
                    }
                });
            }
        });
        let data = sys::get(&at).unwrap();
        for (n, block) in data.chunks(1000).enumerate() {
            assert!(block == sys::pattern(9 + n as u64 / 75, 1000), "block {n}");
        }
    });
}

/// Reading through a descriptor that was opened for reading before the copy-up.
#[test]
fn an_old_descriptor_sees_new_data() {
    all_io(&[LOWER], |lab| {
        let old = sys::open(lab.at("small"), libc::O_RDONLY, 0).unwrap();
        assert_eq!(sys::pread(&old, 0, 9).unwrap(), b"hello");
        sys::overwrite(lab.at("small"), 0, b"HELLO, you").unwrap();
        assert_eq!(sys::pread(&old, 0, 20).unwrap(), b"HELLO, you");
        assert_eq!(sys::fstat(&old).unwrap().size, 10);
        sys::truncate(lab.at("small"), 2).unwrap();
        assert_eq!(sys::pread(&old, 0, 20).unwrap(), b"HE");
    });
}

/// Better than kernel overlayfs, whose old mapping keeps the old data.
#[test]
fn an_old_mapping_sees_new_data() {
    for subject in Subject::modes() {
        crate::on(&[subject], &[LOWER], true, |lab| {
            if lab.subject().is_kernel() {
                return;
            }
            let old = sys::open(lab.at("small"), libc::O_RDONLY, 0).unwrap();
            let map = sys::Map::new(&old, 5, libc::PROT_READ, libc::MAP_SHARED).unwrap();
            assert_eq!(map.bytes(), b"hello");
            drop(old);
            sys::overwrite(lab.at("small"), 0, b"HELLO").unwrap();
            assert_eq!(map.bytes(), b"HELLO");
        });
    }
}

/// Also what was never written by a call.
#[test]
fn what_a_mapping_wrote_into_a_hole_is_data() {
    for subject in [
        Subject::Kernel,
        Subject::default(),
        Subject::with(&["--writeback"]),
    ] {
        let lab = crate::Lab::new().lower("f low size=1000000").upper("");
        let lab = lab.mount_as(&subject);
        sys::put(lab.at("new"), b"").unwrap();
        sys::truncate(lab.at("new"), 1_000_000).unwrap();
        sys::chmod(lab.at("low"), 0o600).unwrap();
        for name in ["new", "low"] {
            let fd = sys::open(lab.at(name), libc::O_RDWR, 0).unwrap();
            let mut map = sys::Map::shared(&fd, 1_000_000).unwrap();
            map.bytes_mut()[500_000] = b'x';
            let data = sys::lseek(&fd, 0, libc::SEEK_DATA);
            assert!(
                matches!(data, Ok(0..=500_000)),
                "{subject:?}: {name}: data at {data:?}"
            );
            let other = sys::open(lab.at(name), libc::O_RDONLY, 0).unwrap();
            let data = sys::lseek(&other, 0, libc::SEEK_DATA);
            assert!(
                matches!(data, Ok(0..=500_000)),
                "{subject:?}: {name}: data at {data:?}"
            );
            drop(map);
        }
    }
}

/// Nothing is cut off, and yet it is a change.
#[test]
fn truncating_an_empty_lower_file_moves_its_mtime() {
    all_io(&["f empty\nf small text"], |lab| {
        for name in ["empty", "small"] {
            let before = sys::lstat(lab.at(name)).unwrap();
            sys::put(lab.at(name), b"").unwrap();
            let after = sys::lstat(lab.at(name)).unwrap();
            assert!(after.mtime > before.mtime, "{name}: {:?}", after.mtime);
            assert_eq!(after.size, 0);
        }
    });
    both(&["f empty"], |lab| {
        let before = sys::lstat(lab.at("empty")).unwrap();
        sys::truncate(lab.at("empty"), 0).unwrap();
        assert!(sys::lstat(lab.at("empty")).unwrap().mtime > before.mtime);
    });
}

#[test]
fn what_a_mapping_wrote_into_a_hole_of_a_lower_file_is_data() {
    for subject in [
        Subject::Kernel,
        Subject::default(),
        Subject::with(&["--writeback"]),
    ] {
        let lab = crate::Lab::new()
            .lower("f low size=1000000")
            .upper("")
            .mount_as(&subject);
        let fd = sys::open(lab.at("low"), libc::O_RDWR, 0).unwrap();
        let mut map = sys::Map::shared(&fd, 1_000_000).unwrap();
        map.bytes_mut()[500_000] = b'x';
        let data = sys::lseek(&fd, 0, libc::SEEK_DATA);
        assert!(
            matches!(data, Ok(0..=500_000)),
            "{subject:?}: data at {data:?}"
        );
    }
}
