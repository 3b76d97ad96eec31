//! Many threads on one small namespace: whatever they do, nothing hangs, and as long as they are kept
//! apart as the kernel does, what memory shows is what the disk has.

use std::collections::HashMap;
use std::fs;
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, RwLock};
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

/// What the kernel keeps apart: it reads a directory and finds names in it under a shared lock, and
/// changes it under an exclusive one. Without it, one thread could look at an object while another
/// removes it and a third makes one with its number.
#[derive(Default)]
struct Kernel {
    absent: bool,
    locks: Mutex<HashMap<u64, Arc<RwLock<()>>>>,
    renames: Mutex<()>,
}

impl Kernel {
    fn lock(&self, ino: u64) -> Arc<RwLock<()>> {
        Arc::clone(self.locks.lock().unwrap().entry(ino).or_default())
    }

    fn reads<T>(&self, dir: u64, f: impl FnOnce() -> T) -> T {
        if self.absent {
            return f();
        }
        let lock = self.lock(dir);
        let _shared = lock.read().unwrap();
        f()
    }

    fn changes<T>(&self, a: u64, b: u64, f: impl FnOnce() -> T) -> T {
        if self.absent {
            return f();
        }
        let (first, second) = (self.lock(a.min(b)), self.lock(a.max(b)));
        let _renames = (a != b).then(|| self.renames.lock().unwrap());
        let _first = first.write().unwrap();
        let _second = (a != b).then(|| second.write().unwrap());
        f()
    }
}

/// One random operation. Results are of no interest: any of them may come too late.
fn step(lab: &Lab, kernel: &Kernel, random: &mut fastrand::Rng) {
    let union = &lab.union;
    let dirs = ["", "d0", "d1", "d0/d2", "d1/d2", "d3"];
    let mut dir = || {
        let path = dirs[random.usize(0..dirs.len())];
        let mut ino = ROOT;
        for name in path.split('/').filter(|n| !n.is_empty()) {
            match kernel.reads(ino, || union.lookup(ino, name.as_bytes())) {
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
    let lookup = || kernel.reads(a, || union.lookup(a, n));
    let create = |object| {
        kernel.changes(a, a, || {
            union.create(caller(), a, n, object, perm).map(drop)
        })
    };
    let rename = |mode| kernel.changes(a, b, || union.rename(a, n, b, m, mode));
    let done = match random.u8(0..12) {
        0 => create(NewObject::File),
        1 => create(NewObject::Dir),
        2 | 3 => kernel.changes(a, a, || union.unlink(a, n)),
        4 => kernel.changes(a, a, || union.rmdir(a, n)),
        5 | 6 => rename(RenameMode::Replace),
        7 => rename(RenameMode::Exchange),
        8 => lookup().and_then(|e| {
            let done = kernel.changes(b, b, || union.link(e.attr.ino, b, m).map(drop));
            union.forget(e.attr.ino, 1);
            done
        }),
        9 => lookup().and_then(|e| {
            let done = union
                .write(e.attr.ino, 0, b"written", &WriteHow::default())
                .map(drop);
            union.forget(e.attr.ino, 1);
            done
        }),
        10 => lookup().map(|e| union.forget(e.attr.ino, 1)),
        _ => kernel.reads(a, || union.read_dir(a, 0, false, &mut |_| true)),
    };
    drop(done);
}

fn storm(form: WhiteoutChoice, seed: u64, kernel: Kernel) -> Lab {
    let (lab, kernel) = (Arc::new(Lab::new(form, &[&fill])), Arc::new(kernel));
    let (done, all) = channel();
    for thread in 0..THREADS {
        let (lab, kernel, done) = (Arc::clone(&lab), Arc::clone(&kernel), done.clone());
        std::thread::spawn(move || {
            let mut random = fastrand::Rng::with_seed(thread + seed);
            for _ in 0..STEPS {
                step(&lab, &kernel, &mut random);
            }
            drop(lab);
            done.send(()).unwrap();
        });
    }
    for _ in 0..THREADS {
        all.recv_timeout(Duration::from_secs(120))
            .expect("a thread hangs or has panicked");
    }
    Arc::into_inner(lab).expect("a thread keeps the lab")
}

const FORMS: [WhiteoutChoice; 3] = [
    WhiteoutChoice::CharDev,
    WhiteoutChoice::Xattr,
    WhiteoutChoice::File,
];

#[test]
fn memory_and_disk_agree_after_a_storm() {
    for (n, form) in FORMS.into_iter().enumerate() {
        let lab = storm(form, 100 * n as u64, Kernel::default());
        let before = lab.tree();
        let lab = lab.reopen();
        assert_eq!(lab.tree(), before, "{form:?}");
    }
}

#[test]
fn nothing_hangs_or_panics_without_the_kernel() {
    for (n, form) in FORMS.into_iter().enumerate() {
        let kernel = Kernel {
            absent: true,
            ..Kernel::default()
        };
        drop(storm(form, 100 * n as u64, kernel));
    }
}
