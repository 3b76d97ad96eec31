//! Many threads on one small namespace, with nothing of the kernel's to keep them apart: whatever
//! they do, nothing hangs, and what memory shows is what the disk has.

use std::fs;
use std::sync::mpsc::channel;
use std::time::Duration;

use unionmount::ops::{NewObject, Perm, RenameMode, WhiteoutChoice, WriteHow};

use crate::lab::{Lab, ROOT, caller};

const THREADS: u64 = 8;
const STEPS: u32 = 3000;

fn fill(dir: &std::path::Path) {
    for d in ["d0", "d1", "d0/d2"] {
        fs::create_dir(dir.join(d)).unwrap();
        for n in 0..4 {
            fs::write(dir.join(d).join(format!("n{n}")), "lower").unwrap();
        }
    }
    fs::hard_link(dir.join("d0/n0"), dir.join("d1/n9")).unwrap();
}

/// One random operation. Results are of no interest: any of them may come too late.
fn step(lab: &Lab, random: &mut fastrand::Rng) {
    let union = &lab.union;
    let dirs = ["", "d0", "d1", "d0/d2", "d1/d2", "d3"];
    let mut dir = || {
        let path = dirs[random.usize(0..dirs.len())];
        let mut ino = ROOT;
        for name in path.split('/').filter(|n| !n.is_empty()) {
            match union.lookup(ino, name.as_bytes()) {
                Ok(entry) => ino = entry.attr.ino,
                Err(_) => return ROOT,
            }
        }
        ino
    };
    let (a, b) = (dir(), dir());
    let names: [&[u8]; 8] = [b"n0", b"n1", b"n2", b"n3", b"n9", b"d2", b"d3", b"x"];
    let (n, m) = (names[random.usize(0..8)], names[random.usize(0..8)]);
    let perm = Perm {
        perm: 0o755,
        umask: 0,
    };
    let done = match random.u8(0..12) {
        0 => union
            .create(caller(), a, n, NewObject::File, perm)
            .map(drop),
        1 => union.create(caller(), a, n, NewObject::Dir, perm).map(drop),
        2 | 3 => union.unlink(a, n),
        4 => union.rmdir(a, n),
        5 | 6 => union.rename(a, n, b, m, RenameMode::Replace),
        7 => union.rename(a, n, b, m, RenameMode::Exchange),
        8 => union.lookup(a, n).and_then(|e| {
            let done = union.link(e.attr.ino, b, m).map(drop);
            union.forget(e.attr.ino, 1);
            done
        }),
        9 => union.lookup(a, n).and_then(|e| {
            let done = union
                .write(e.attr.ino, 0, b"written", &WriteHow::default())
                .map(drop);
            union.forget(e.attr.ino, 1);
            done
        }),
        10 => union.lookup(a, n).map(|e| union.forget(e.attr.ino, 1)),
        _ => union.read_dir(a, 0, false, &mut |_| true),
    };
    drop(done);
}

#[test]
fn memory_and_disk_agree_after_a_storm() {
    let forms = [
        WhiteoutChoice::CharDev,
        WhiteoutChoice::Xattr,
        WhiteoutChoice::File,
    ];
    for (n, form) in forms.into_iter().enumerate() {
        let lab = std::sync::Arc::new(Lab::new(form, &[&fill]));
        let (done, all) = channel();
        for thread in 0..THREADS {
            let (lab, done) = (std::sync::Arc::clone(&lab), done.clone());
            std::thread::spawn(move || {
                let mut random = fastrand::Rng::with_seed(thread + 100 * n as u64);
                for _ in 0..STEPS {
                    step(&lab, &mut random);
                }
                drop(lab);
                done.send(()).unwrap();
            });
        }
        for _ in 0..THREADS {
            all.recv_timeout(Duration::from_secs(120))
                .expect("a thread hangs");
        }
        let lab = std::sync::Arc::into_inner(lab).expect("a thread keeps the lab");
        let before = lab.tree();
        let lab = lab.reopen();
        assert_eq!(lab.tree(), before, "{form:?}");
    }
}
