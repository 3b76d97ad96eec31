//! How much of everything there is, in a full and in a quick run.

/// Counts and bytes of the layers and of the work.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Files of the Debian-like root.
    pub tree_files: usize,
    /// Files in the tree that is removed, chowned and copied.
    pub bulk_files: usize,
    /// Files of the archive that is unpacked.
    pub archive_files: usize,
    /// Entries of the wide directory.
    pub wide_entries: usize,
    /// Files in the directory that is moved.
    pub moved_files: usize,
    /// Bytes of the big file.
    pub big_bytes: u64,
    /// Bytes of the file that is copied up while others wait.
    pub huge_bytes: u64,
    /// Operations of the loops that are timed per operation.
    pub operations: usize,
    /// Bytes that are written or read in pieces of 4 KiB.
    pub piece_bytes: u64,
    /// Translation units of the C project.
    pub units: usize,
    /// Transactions of SQLite without and with syncs.
    pub transactions: (usize, usize),
    /// Rounds unless the command line says otherwise.
    pub rounds: usize,
    /// Seconds after which a workload gets no further round, once it has `least_rounds`.
    pub budget: f64,
    pub least_rounds: usize,
}

pub const FULL: Sizes = Sizes {
    tree_files: 20_000,
    bulk_files: 11_000,
    archive_files: 5_000,
    wide_entries: 50_000,
    moved_files: 2_000,
    big_bytes: 512 << 20,
    huge_bytes: 2 << 30,
    operations: 20_000,
    piece_bytes: 32 << 20,
    units: 60,
    transactions: (2_000, 200),
    rounds: 5,
    budget: 30.0,
    least_rounds: 3,
};

pub const QUICK: Sizes = Sizes {
    tree_files: 5_000,
    bulk_files: 2_000,
    archive_files: 1_000,
    wide_entries: 10_000,
    moved_files: 500,
    big_bytes: 128 << 20,
    huge_bytes: 512 << 20,
    operations: 4_000,
    piece_bytes: 8 << 20,
    units: 16,
    transactions: (300, 50),
    rounds: 3,
    budget: 5.0,
    least_rounds: 1,
};
