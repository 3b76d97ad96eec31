//! Cases that once failed, as they were printed when they had been shrunk, or that show a rule of the
//! model. A new failure is pasted here as a test of its own.

use crate::case::{Step, check};
use crate::kit::operation::Op::*;
use crate::with;
use Step::{Do, Remount};

/// The kernel knows the count from before the copy-up; a remount tells the other.
#[test]
fn a_directory_that_is_copied_up_may_tell_its_old_count() {
    let layers: &[&[&str]] = &[&["f c/a", "p a"]];
    let steps = vec![
        Do(Chown {
            at: "c/a".into(),
            uid: 0,
            gid: 1,
        }),
        Remount,
    ];
    check(&with(&[&[]]), layers, steps);
}

/// Whether a layer is opaque is only known when the directory is listed.
#[test]
fn an_opaque_directory_may_have_one_link_until_it_is_listed() {
    let layers: &[&[&str]] = &[&["of a/b", "d a/b/a"], &["d a/b/a"]];
    check(&with(&[&[]]), layers, vec![]);
}

#[test]
fn hidden_names_count_as_links() {
    let layers: &[&[&str]] = &[&["w b"], &["f a x", "h b a", "h c a"]];
    let steps = vec![
        Do(Stat { at: "a".into() }),
        Do(Unlink { at: "c".into() }),
        Do(Stat { at: "a".into() }),
    ];
    check(&with(&[&[]]), layers, steps);
}

/// The path of a redirect was looked for below layers whose root is opaque.
#[test]
fn an_opaque_root_ends_a_redirect() {
    let layers: &[&[&str]] = &[
        &["o .", "d f trusted.overlay.redirect=/a", "w a"],
        &["d a/a/a mode=0755 uid=0 gid=0"],
    ];
    check(&with(&[&[]]), layers, vec![]);
    let layers: &[&[&str]] = &[
        &["d f trusted.overlay.redirect=/a", "w a"],
        &["o .", "f a/shown x"],
        &["f a/hidden x"],
    ];
    check(&with(&[&[]]), layers, vec![Remount]);
}
