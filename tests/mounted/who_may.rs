//! What other users of the machine, and users of the mount, may do: what mode bits say, and no more.

use std::process::Command;

use crate::kit::sys::as_user;
use crate::kit::{Lab, Subject, output, sys};

const LOWER: &str = "d . mode=0755\nf open text mode=0644\nf own text mode=0600 uid=1000 gid=1000\n\
    f group text mode=0640 uid=0 gid=1000\nf closed text mode=0600\nd drop mode=1777\nf drop/root text mode=0644\n\
    d private mode=0700 uid=1001\nf private/f text mode=0644 uid=1001";

fn others() -> Subject {
    Subject::with(&["--allow-other"])
}

#[test]
fn mode_bits_are_obeyed_on_both_sides() {
    let mut labs = [Subject::Kernel, others()]
        .map(|subject| Lab::new().lower(LOWER).upper("").mount_as(&subject));
    let answers = labs.each_mut().map(|lab| {
        as_user(1000, 1000, || {
            let names = [
                "open",
                "own",
                "group",
                "closed",
                "drop/root",
                "private/f",
                "drop/new",
                "new",
            ];
            let mut all = Vec::new();
            for name in names {
                let path = lab.at(name);
                all.push(format!("read {name}: {:?}", sys::get(&path).map(|_| ())));
                all.push(format!("append {name}: {:?}", sys::append(&path, b"!")));
                all.push(format!("make {name}: {:?}", sys::put(&path, b"text")));
                all.push(format!("chmod {name}: {:?}", sys::chmod(&path, 0o4755)));
                all.push(format!("chown {name}: {:?}", sys::lchown(&path, 0, 0)));
                all.push(format!(
                    "user.x {name}: {:?}",
                    sys::setxattr(&path, "user.x", b"1", 0)
                ));
                all.push(format!(
                    "trusted.x {name}: {:?}",
                    sys::setxattr(&path, "trusted.x", b"1", 0)
                ));
                all.push(format!(
                    "caps {name}: {:?}",
                    sys::setxattr(&path, "security.capability", b"1", 0)
                ));
                all.push(format!(
                    "link {name}: {:?}",
                    sys::link(&path, lab.at(format!("drop/l{}", name.len())))
                ));
                all.push(format!(
                    "rename {name}: {:?}",
                    sys::rename(&path, lab.at("drop/moved"))
                ));
                all.push(format!("unlink {name}: {:?}", sys::unlink(&path)));
            }
            all.push(format!(
                "device: {:?}",
                sys::mknod(
                    lab.at("drop/dev"),
                    libc::S_IFCHR | 0o666,
                    sys::makedev(1, 3)
                )
            ));
            all.push(format!(
                "list private: {:?}",
                sys::list(lab.at("private")).map(|_| ())
            ));
            all
        })
    });
    for (kernel, ours) in answers[0].iter().zip(&answers[1]) {
        assert_eq!(kernel, ours, "kernel overlayfs, and ours");
    }
}

/// Nothing that a user of the mount does is a marker, a deletion or a way into the workdir.
#[test]
fn what_users_make_is_only_what_it_looks_like() {
    let lower = "d . mode=0777\nd mine mode=0777 uid=1000 gid=1000\nf mine/lower text mode=0666 uid=1000 gid=1000";
    let mut lab = Lab::new().lower(lower).upper("").mount_as(&others());
    as_user(1000, 1000, || {
        for (namespace, allowed) in [("trusted", false), ("user", true)] {
            for marker in [
                "opaque", "redirect", "metacopy", "origin", "whiteout", "layer", "nlink",
            ] {
                let name = format!("{namespace}.overlay.{marker}");
                let set = sys::setxattr(lab.at("mine"), &name, b"y", 0);
                assert_eq!(set.is_ok(), allowed, "{name}: {set:?}");
            }
        }
        fails!(sys::mknod(lab.at("mine/gone"), libc::S_IFCHR, 0), EPERM);
        for name in [".wh.lower", ".wh..wh..opq", "#0", "work", "index"] {
            sys::put(lab.at("mine").join(name), b"").unwrap();
        }
        assert_eq!(sys::text(lab.at("mine/lower")), "text");
    });
    lab.expect_same_after_remount();
    assert_eq!(sys::text(lab.at("mine/lower")), "text");
    // The daemon's own questions are not for them.
    as_user(1000, 1000, || {
        for question in [
            "unionmount.inspect",
            "unionmount.stats",
            "unionmount.sync",
            "unionmount.refresh@1",
        ] {
            fails!(sys::getxattr(lab.mnt(), question), EPERM);
        }
    });
}

#[test]
fn setuid_and_devices_follow_the_flags_of_the_mount() {
    let mut lab = Lab::new().lower("d . mode=0755").upper("");
    let id = lab.lower_dir(0).join("id");
    std::fs::copy("/usr/bin/id", &id).unwrap();
    sys::chmod(&id, 0o4755).unwrap();
    sys::mknod(
        lab.lower_dir(0).join("null"),
        libc::S_IFCHR | 0o666,
        sys::makedev(1, 3),
    )
    .unwrap();
    lab.lowers_may_change();
    for (options, uid, opens) in [("suid,dev", "0", true), ("nosuid,nodev", "1000", false)] {
        lab.remount_as(&Subject::with(&["--allow-other", "-o", options]));
        let mut command = Command::new("setpriv");
        command
            .env_clear()
            .args(["--reuid=1000", "--regid=1000", "--clear-groups"]);
        let said = output(
            command.arg(lab.at("id")).arg("-u"),
            std::time::Duration::from_secs(30),
        );
        assert_eq!(said.unwrap().trim(), uid, "{options}");
        let opened = sys::open(lab.at("null"), libc::O_RDONLY, 0);
        assert_eq!(opened.is_ok(), opens, "{options}");
    }
}
