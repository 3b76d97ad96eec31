//! What a plain user's own rights would forbid the daemon and the view does not: modes without write
//! or search permission, on what the union has to copy, move and remove.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};

use crate::lab::Lab;
use crate::rootless::as_plain_user;

/// Runs `lower` in the lower, then `script` with shell functions `up` (mount, with further options)
/// and `down`, all as one plain user. The workdir is empty at the end.
fn plain(lower: &str, script: &str) -> String {
    let lab = Lab::new();
    if fs::metadata("/proc/self").unwrap().uid() == 0 {
        chown(lab.path("l1"), Some(65534), Some(65534)).unwrap();
    }
    let script = format!(
        "(cd l1; {lower})
        up() {{ $U \"$@\" --lower l1 --upper u --work w m; }}
        down() {{ $U umount m; }}
        {script}
        if left=$(ls -A w/work | grep -v '^incompat$'); then echo left in work: $left; exit 1; fi"
    );
    as_plain_user(&lab, &script).succeeds()
}

#[test]
fn hard_links_of_files_that_cannot_be_written() {
    for dialect in ["auto", "xattr", "file"] {
        plain(
            "echo o >a; ln a b; ln a c; ln a d; chmod 444 a; echo p >e; ln e f; ln e g",
            &format!(
                "up --whiteout {dialect}
                rm -f m/a
                mv m/b m/bb
                ln m/bb m/new
                test $(stat -c %h m/c) = 4
                echo n >m/e; chmod 444 m/e; rm -f m/f; mv m/g m/gg
                down; up --whiteout {dialect}
                test \"$(echo m/*)\" = 'm/bb m/c m/d m/e m/gg m/new m/one'
                test $(cat m/gg) = n
                test $(stat -c %h m/d) = 4
                down"
            ),
        );
    }
}

/// The daemon may not read the markers of such a file: its other names must not show the old one.
#[test]
fn hard_links_of_files_that_cannot_be_read() {
    let shown = plain(
        "echo old >a; ln a b",
        "up
        echo newer >m/a; chmod 200 m/a
        down; up
        stat -c %s m/b 2>&1 || true
        chmod 600 u/a
        down; up
        cat m/b
        down",
    );
    assert!(
        !shown.starts_with('4') && shown.ends_with("newer\n"),
        "{shown}"
    );
}

/// As the module cache of Go is removed.
#[test]
fn a_tree_of_directories_that_cannot_be_written() {
    plain(
        "mkdir -p d/e/f; echo x >d/f; echo x >d/e/f/g; chmod 444 d/f; chmod 555 d/e/f d/e d",
        "up
        chmod u+w m/d/f
        chmod -R u+w m/d
        rm -rf m/d
        test ! -e m/d
        down; up
        test ! -e m/d
        down
        chmod -R u+w l1/d",
    );
}

#[test]
fn directories_made_without_write_permission_over_deletions() {
    for dialect in ["auto", "xattr", "file"] {
        plain(
            "mkdir d e; echo x >d/f; echo x >e/f",
            &format!(
                "up --whiteout {dialect}
                rm -r m/d m/e
                mkdir -m 555 m/d
                test $(stat -c %a m/d) = 555
                mkdir -m 500 m/e
                down; up --whiteout {dialect}
                test $(stat -c %a m/d) = 555
                test $(stat -c %a m/e) = 500
                test -z \"$(ls -A m/d m/e | grep f)\"
                down"
            ),
        );
    }
}

/// To look at the directory itself takes no permission on it.
#[test]
fn a_directory_without_any_permission_can_be_looked_at() {
    for dialect in ["auto", "xattr", "file"] {
        let shown = plain(
            "mkdir d e; echo x >d/f",
            &format!(
                "up --whiteout {dialect}
                mkdir m/new
                chmod 0 m/d m/new
                stat -c '%n %a' m/d m/new
                down; up --whiteout {dialect}
                stat -c '%n %a' m/d m/new
                ls -l m >/dev/null
                chmod 755 m/d m/new
                test $(cat m/d/f) = x
                down"
            ),
        );
        assert_eq!(shown, "m/d 0\nm/new 0\nm/d 0\nm/new 0\n", "{dialect}");
    }
}

#[test]
fn a_leftover_deletion_that_cannot_be_read() {
    plain(
        "echo x >f",
        "up --whiteout file
        echo y >m/f
        down
        touch u/.wh.f; chmod 0 u/.wh.f
        up --whiteout file
        test $(cat m/f) = y
        rm m/f
        test ! -e m/f
        down",
    );
}

#[test]
fn an_emptied_directory_without_write_permission_goes() {
    for dialect in ["auto", "xattr", "file"] {
        plain(
            "mkdir d; echo x >d/f",
            &format!(
                "up --whiteout {dialect}
                rm -f m/d/f
                chmod 555 m/d
                rmdir m/d
                down; up --whiteout {dialect}
                test ! -e m/d
                down"
            ),
        );
    }
}

/// What cannot be read fails for itself; the rest works.
#[test]
fn names_that_cannot_be_read_do_not_hide_the_others() {
    plain(
        "mkdir secret open; echo x >secret/f; echo y >open/f; echo z >locked; chmod 0 secret locked",
        "up
        test \"$(ls m | tr '\\n' ' ')\" = 'locked one open secret '
        test \"$(cat m/open/f)\" = y
        test \"$(stat -c %a m/secret m/locked | tr '\\n' ' ')\" = '0 0 '
        ! ls m/secret 2>/dev/null
        ! cat m/locked 2>/dev/null
        echo new >m/open/g
        mkdir m/moved; chmod 555 m/moved; rm -r m/open; mv -T m/moved m/open
        down; up
        test -z \"$(ls m/open)\"
        down",
    );
}
