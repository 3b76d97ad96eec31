//! Layers that hold redirects: directories whose lower parts lie at other paths.

use crate::kit::{Lab, Subject, sys};
use crate::{both, ours};

#[test]
fn a_plain_name_is_one_in_the_same_directory() {
    let top = "d new trusted.overlay.redirect=old\nf new/top t\nw old\n\
               d a/in trusted.overlay.redirect=was\nw a/was";
    let low = "f old/f text\nf old/sub/g g\nf a/was/h h";
    both(&[top, low], |lab| {
        lab.expect_paths("a a/in a/in/h new new/f new/sub new/sub/g new/top");
        assert_eq!(sys::text(lab.at("new/f")), "text");
        assert_eq!(sys::lstat(lab.at("new")).unwrap().nlink, 1);
    });
}

#[test]
fn a_path_begins_at_the_root() {
    let top = "d a/b/new trusted.overlay.redirect=/x/y\nw x/y";
    both(&[top, "f x/y/f text\nf x/z z"], |lab| {
        lab.expect_paths("a a/b a/b/new a/b/new/f x x/z");
    });
}

#[test]
fn redirects_chain_from_layer_to_layer() {
    let layers = [
        "d c trusted.overlay.redirect=b\nw b\nf c/0 0",
        "d b trusted.overlay.redirect=/deep/a\nw deep\nf b/1 1",
        "f deep/a/2 2\nf b/not n",
        "d deep/a trusted.overlay.redirect=last\nf deep/a/3 3\nf last/not n",
        "f deep/last/4 4\nf deep/a/not n",
    ];
    both(&layers, |lab| {
        lab.expect_paths("c c/0 c/1 c/2 c/3 c/4 last last/not")
    });
}

#[test]
fn a_redirect_on_a_path_rewrites_it_for_the_layers_below() {
    let layers = [
        "d n trusted.overlay.redirect=/p/q/r",
        "d p trusted.overlay.redirect=/o/o\nd p/q trusted.overlay.redirect=s\nf p/q/r/1 1\n\
         w p/s\nw o",
        "f o/o/s/r/2 2\nf p/q/r/not n\nf o/o/q/r/not n",
    ];
    both(&layers, |lab| {
        lab.expect_paths("n n/1 n/2 p p/q p/q/r p/q/r/1 p/q/r/2");
    });
}

#[test]
fn names_below_are_found_in_the_parts_of_their_directory() {
    let layers = [
        "d new trusted.overlay.redirect=/old\nw old\nf new/sub/top t\n\
         d new/moved trusted.overlay.redirect=inner\nw new/inner\nd new/cut\no new/cut",
        "f old/sub/mid m\nf old/inner/i i\nf old/cut/hidden h\nw old/gone\nf new/not n",
        "f old/sub/low l\nf old/gone g\nd old/inner/j",
    ];
    both(&layers, |lab| {
        lab.expect_paths(
            "new new/cut new/moved new/moved/i new/moved/j new/sub new/sub/low new/sub/mid \
             new/sub/top",
        );
    });
}

#[test]
fn opaque_directories_and_whiteouts_end_a_path() {
    let top = "d a trusted.overlay.redirect=/p/a\nd b trusted.overlay.redirect=/p/b\n\
               d c trusted.overlay.redirect=/q/c\nd d trusted.overlay.redirect=/r/d\n\
               d e trusted.overlay.redirect=/s/e\nd f trusted.overlay.redirect=/none/f\nw p\nw r\nw s\nw t";
    let middle = "o p\nf p/a/1 1\nd p/b trusted.overlay.redirect=/t\nf p/b/1 1\n\
                  w q\nf r r\nf s/e e";
    let low = "f p/a/not n\nf p/b/not n\nf t/2 2\nf q/c/not n\nf r/d/not n\nf s/e/not n";
    both(&[top, middle, low], |lab| {
        lab.expect_paths("a a/1 b b/1 b/2 c d e f");
    });
}

/// Those of AUFS and OCI as well, which the kernel does not know.
#[test]
fn whiteouts_of_every_form_end_a_path() {
    for (what, shown) in [
        ("w. p", "n"),
        ("wx p", "n"),
        ("w. p/q", "n"),
        ("f p/q/1 1\nw. p", "n n/1"),
        ("f p/q/1 1\nw. p/q", "n n/1"),
        ("f p/q/1 1\no. p", "n n/1"),
        ("f p/q/1 1\nou p/q", "n n/1"),
    ] {
        let top = "d n trusted.overlay.redirect=/p/q\nw p";
        ours(&[top, what, "f p/q/not n"], |lab| lab.expect_paths(shown));
    }
}

#[test]
fn what_lies_in_a_redirected_directory_is_changed_like_anything_else() {
    let top = "d new trusted.overlay.redirect=/x/old\nw x\nf new/top t";
    let low = "f x/old/f text\nf x/old/sub/g g\nf x/old/sub/h h\nf x/old/link l\n\
               h x/old/sub/link x/old/link\nf x/old/gone g\nd x/old/empty\nf new/gone no";
    both(&[top, low], |lab| {
        sys::append(lab.at("new/f"), b" more").unwrap();
        assert_eq!(sys::text(lab.in_upper("new/f")), "text more");
        sys::chmod(lab.at("new/sub"), 0o700).unwrap();
        sys::put(lab.at("new/sub/own"), b"o").unwrap();
        sys::unlink(lab.at("new/gone")).unwrap();
        sys::rmdir(lab.at("new/empty")).unwrap();
        sys::rename(lab.at("new/sub/g"), lab.at("out")).unwrap();
        sys::append(lab.at("new/link"), b"!").unwrap();
        assert_eq!(sys::text(lab.at("new/sub/link")), "l!");
        fails!(sys::rmdir(lab.at("new")), ENOTEMPTY);
        lab.expect_paths(
            "new new/f new/link new/sub new/sub/h new/sub/link new/sub/own new/top out",
        );
        lab.remount();
        sys::put(lab.at("new/gone"), b"again").unwrap();
        sys::mkdir(lab.at("new/empty"), 0o755).unwrap();
        lab.remount();
        lab.expect_paths(
            "new new/empty new/f new/gone new/link new/sub new/sub/h new/sub/link new/sub/own \
             new/top out",
        );
        assert_eq!(sys::text(lab.at("new/sub/link")), "l!");
    });
}

/// A redirect could lead anywhere; it leads nowhere outside the layer, and through no symlink.
#[test]
fn redirects_of_no_meaning_are_errors() {
    if !Subject::default().is_ours() {
        return;
    }
    for (value, errno) in [
        ("/", libc::EINVAL),
        ("//old", libc::EINVAL),
        ("/old/", libc::EINVAL),
        ("a/old", libc::EINVAL),
        ("..", libc::EACCES),
        ("/a/../old", libc::EACCES),
        ("/../../etc", libc::EACCES),
        (".", libc::EACCES),
    ] {
        let top = format!("d new trusted.overlay.redirect={value}");
        let lab = Lab::new().lower(&top).lower("f old/f text\nf a/g g");
        let lab = lab.upper("").mount();
        assert!(sys::lstat(lab.at("new")).unwrap().is_dir(), "{value}");
        for result in [
            sys::list(lab.at("new")).map(drop),
            sys::lstat(lab.at("new/f")).map(drop),
            sys::put(lab.at("new/own"), b""),
            sys::rmdir(lab.at("new")),
        ] {
            assert_eq!(result.unwrap_err(), sys::Errno(errno), "{value}");
        }
        assert_eq!(sys::text(lab.at("a/g")), "g");
    }
}

#[test]
fn redirects_that_lead_nowhere_show_what_their_own_layer_has() {
    let long = "n".repeat(300);
    let values = [
        "none",
        "/none/deep",
        "link",
        "/link/f",
        "file",
        "/file/f",
        &long,
    ];
    for value in values {
        let top = format!("d new trusted.overlay.redirect={value}\nf new/own o");
        let low = "f old/f text\nl link old\nf file f\nf new/not n";
        both(&[&top, low], |lab| {
            lab.expect_paths("file link new new/own old old/f");
        });
    }
}

/// In the lowest layer and on a root nothing can be meant by it, and what is opaque is cut off.
#[test]
fn redirects_with_nothing_to_lead_to_are_ignored() {
    let top = "d . trusted.overlay.redirect=/old\no cut trusted.overlay.redirect=old\n\
               d cut trusted.overlay.redirect=old";
    let low = "f old/f text\nd new trusted.overlay.redirect=/\nf new/g g";
    both(&[top, low], |lab| {
        lab.expect_paths("cut new new/g old old/f")
    });
}

#[test]
fn a_redirect_that_is_not_to_be_followed_is_refused() {
    let top = "d new trusted.overlay.redirect=old\nw old\nf other/f f";
    let by_anybody = "d new user.overlay.redirect=old\nw old\nf other/f f";
    let low = "f old/f text";
    for (top, arguments, followed) in [
        (top, &[][..], true),
        (top, &["--redirect-dir", "off"], true),
        (top, &["--redirect-dir", "follow"], true),
        (top, &["--redirect-dir", "nofollow"], false),
        (top, &["-o", "redirect_dir=nofollow"], false),
        (by_anybody, &[], false),
        (by_anybody, &["--redirect-dir", "off"], false),
        (by_anybody, &["--redirect-dir", "follow"], true),
        (by_anybody, &["--redirect-dir", "on"], true),
    ] {
        for upper in [true, false] {
            let mut lab = Lab::new().lower(top).lower(low);
            if upper {
                lab = lab.upper("");
            }
            let lab = lab.mount_as(&Subject::ours(arguments));
            if followed {
                lab.expect_paths("new new/f other other/f");
                continue;
            }
            fails!(sys::list(lab.at("new")), EPERM);
            fails!(sys::lstat(lab.at("new/f")), EPERM);
            assert_eq!(sys::text(lab.at("other/f")), "f");
        }
    }
}

/// A `.wh.` file beside a directory hides what the layers below have, also at another path.
#[test]
fn a_dot_wh_file_beside_a_directory_ends_its_redirect() {
    let top = "d a/f trusted.overlay.redirect=b\nw. a/f\nw a/b";
    for upper in [false, true] {
        let mut lab = Lab::new().lower(top).lower("f a/b/hidden text");
        if upper {
            lab = lab.upper("");
        }
        let mut lab = lab.mount();
        lab.expect_paths("a a/f");
        lab.expect_same_after_remount();
    }
}

/// A directory that was moved is looked for where it lies, not below what its new parent is in a lower.
#[test]
fn a_redirected_directory_can_be_exchanged_into_one_that_a_lower_deletes() {
    let mut lab = Lab::new()
        .lower("d a trusted.overlay.redirect=c\nw b")
        .lower("f c/low text")
        .upper("f a/own text\nd b/a")
        .mount();
    sys::rename2(lab.at("a"), lab.at("b/a"), libc::RENAME_EXCHANGE).unwrap();
    assert_eq!(lab.ls("b/a"), ["low", "own"]);
    // (Its number is another one after a remount: the upper was made by hand, without origins.)
    let before = lab.tree();
    lab.remount();
    crate::snapshot::assert_same("before and after a remount", &before, &lab.tree());
}
