//! Command lines in all dialects: any words are understood or refused with one line, without a panic.

#![no_main]

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use libfuzzer_sys::fuzz_target;

const NAMES: [&str; 3] = ["unionmount", "mount.fuse.unionmount", "fuse-overlayfs"];

fuzz_target!(|input: (u8, Vec<Vec<u8>>)| {
    let (name, words) = input;
    let name = NAMES[usize::from(name) % NAMES.len()];
    let words = words
        .into_iter()
        .map(|word| word.into_iter().filter(|b| *b != 0).collect());
    let words = words.map(OsString::from_vec);
    let args: Vec<OsString> = std::iter::once(OsString::from(name)).chain(words).collect();
    if let Err(complaint) = unionmount::cli::understand(&args) {
        assert!(!complaint.trim().is_empty());
    }
});
