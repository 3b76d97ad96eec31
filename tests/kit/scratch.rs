//! A directory that is unique to one test and lies where a union's upper can lie.

use std::path::{Path, PathBuf};

use super::sys;

/// Removed on drop.
pub struct Scratch {
    dir: tempfile::TempDir,
}

impl Scratch {
    /// Panics with what is missing when the place cannot hold an upper: a test never passes by not
    /// running.
    pub fn new() -> Scratch {
        let parent =
            std::env::var_os("UNIONMOUNT_TEST_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
        Scratch::within(&parent)
    }

    /// One in directory `parent`.
    pub fn within(parent: &Path) -> Scratch {
        // Modes in tests are meant as under the usual umask, whoever runs them.
        sys::umask(0o022);
        let dir = tempfile::Builder::new()
            .prefix("unionmount-test-")
            .tempdir_in(parent)
            .unwrap_or_else(|e| panic!("no scratch directory in {}: {e}", parent.display()));
        sys::chmod(dir.path(), 0o755).unwrap();
        let scratch = Scratch { dir };
        scratch.probe();
        scratch
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    fn probe(&self) {
        let remedy = "set UNIONMOUNT_TEST_DIR to a directory on ext4, xfs, btrfs or tmpfs \
                      and run the tests as root";
        let file = self.path().join("probe");
        sys::put(&file, b"").unwrap();
        for name in ["user.probe", "trusted.probe"] {
            sys::setxattr(&file, name, b"1", 0)
                .unwrap_or_else(|e| panic!("{}: {name}: {e:?}; {remedy}", file.display()));
        }
        let whiteout = self.path().join("probe-whiteout");
        sys::mknod(&whiteout, libc::S_IFCHR, 0)
            .unwrap_or_else(|e| panic!("{}: whiteout: {e:?}; {remedy}", whiteout.display()));
        sys::unlink(&whiteout).unwrap();
        sys::unlink(&file).unwrap();
        assert!(
            sys::open("/dev/fuse", libc::O_RDWR, 0).is_ok(),
            "/dev/fuse cannot be opened: load the fuse module, or give the container the device"
        );
    }
}
