//! Every promise of the union, through a real mount: one file per topic, kernel overlayfs beside it
//! wherever it makes the same promise.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]
#![allow(unreachable_pub)]

#[macro_use]
#[path = "../kit/mod.rs"]
mod kit;

mod acls;
mod attributes;
mod changing;
mod check;
mod copy_up;
mod data;
mod deviations;
mod dialects;
mod full;
mod fuse_overlayfs_defects;
mod hard_links;
mod hostile;
mod identity;
mod layer_kinds;
mod limits;
mod listing;
mod memory;
mod metacopy;
mod mounting;
mod names;
mod nested;
mod numbers;
mod objects;
mod opaque;
mod open_files;
mod owners;
mod owners_in_attributes;
mod privileges;
mod protection;
mod races;
mod redirects;
mod removal;
mod rename;
mod rename_table;
mod renamed_directories;
mod requests;
mod safety;
mod turns;
mod whiteouts;
mod who_may;
mod work;
mod xattr_layers;
mod xattr_table;
mod xattrs;

use kit::{Lab, Look, Subject, snapshot};

/// Runs a test on kernel overlayfs and on the subject; afterwards nothing may change by a remount,
/// and kernel overlayfs must show the same tree on the same layers.
fn both(lowers: &[&str], test: impl Fn(&mut Lab)) {
    on(&Subject::and_kernel(), lowers, true, test);
}

/// The same in each of the subject's ways to do I/O.
fn all_io(lowers: &[&str], test: impl Fn(&mut Lab)) {
    on(&Subject::all_io(), lowers, true, test);
}

/// The same for other users than root.
fn for_all_users(lowers: &[&str], test: impl Fn(&mut Lab)) {
    let subject = Subject::with(&["--allow-other"]);
    let writeback = Subject::with(&["--allow-other", "--writeback"]);
    on(&[Subject::Kernel, subject, writeback], lowers, true, test);
}

/// Only on the subject: what kernel overlayfs does not do, or layers that it does not understand.
fn ours(lowers: &[&str], test: impl Fn(&mut Lab)) {
    on(&[Subject::default()], lowers, false, test);
}

fn on(subjects: &[Subject], lowers: &[&str], kernel_agrees: bool, test: impl Fn(&mut Lab)) {
    for subject in subjects {
        let mut lab = Lab::new();
        for text in lowers {
            lab = lab.lower(text);
        }
        let mut lab = lab.upper("").mount_as(subject);
        test(&mut lab);
        lab.expect_same_after_remount();
        if kernel_agrees && !subject.is_kernel() {
            let tree = lab.tree();
            lab.remount_as(&Subject::Kernel);
            snapshot::assert_same(
                "ours (<) and the kernel on our upper (>)",
                &tree,
                &lab.tree(),
            );
        }
    }
}
