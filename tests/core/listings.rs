//! Listings in memory come and go (`--cache-size`): what is shown stays the same.

use std::fs;
use std::path::Path;

use unionmount::ops::{NewObject, RenameMode, WhiteoutChoice};

use crate::lab::Lab;

const DIRS: usize = 24;
const NAMES: usize = 100;

fn top(dir: &Path) {
    for d in 0..DIRS {
        let dir = dir.join(format!("d{d}"));
        fs::create_dir(&dir).unwrap();
        for n in (0..NAMES).step_by(2) {
            fs::write(dir.join(format!("n{n}")), "top").unwrap();
            fs::write(dir.join(format!(".wh.n{}", n + 1)), "").unwrap();
        }
    }
}

fn bottom(dir: &Path) {
    for d in 0..DIRS {
        let dir = dir.join(format!("d{d}"));
        fs::create_dir(&dir).unwrap();
        for n in 0..NAMES {
            fs::write(dir.join(format!("n{n}")), "bottom").unwrap();
        }
        fs::create_dir_all(dir.join("deep/er")).unwrap();
        fs::write(dir.join("a name of more than 22 bytes"), "long").unwrap();
    }
}

/// One directory's listing takes about 5 KiB.
#[test]
fn a_small_cache_shows_the_same_and_stays_small() {
    let lab = Lab::new(WhiteoutChoice::Auto, &[&top, &bottom]);
    let whole = lab.tree();
    let all = lab.union.stats();
    assert_eq!(all.indexes as usize, 1 + 3 * DIRS);
    let mut lab = lab;
    for limit in [0, 1, 16 << 10, 64 << 10] {
        lab = lab.reopen_with_cache(limit);
        assert_eq!(lab.tree(), whole, "a cache of {limit}");
        for round in 0..3 {
            for d in (0..DIRS).map(|d| d * 7 % DIRS) {
                let dir = format!("d{d}");
                assert_eq!(lab.list(&dir).len(), NAMES / 2 + 2, "{dir}, round {round}");
                assert!(lab.find(&format!("{dir}/n{}", 2 * round)).is_ok());
                assert!(lab.find(&format!("{dir}/n{}", 2 * round + 1)).is_err());
                let now = lab.union.stats();
                assert_eq!(now.index_limit, limit);
                // The one that was used last stays, whatever the limit.
                assert!(now.index_bytes <= limit || now.indexes == 1, "{now:?}");
            }
        }
        let now = lab.union.stats();
        assert!(now.indexes < all.indexes, "{now:?}");
        assert!(now.index_bytes < all.index_bytes);
    }
}

/// Changes of directories whose listings are dropped in between.
#[test]
fn a_small_cache_loses_no_change() {
    let lab = Lab::new(WhiteoutChoice::Auto, &[&top, &bottom]).reopen_with_cache(8 << 10);
    for d in 0..DIRS {
        let at = |name: &str| format!("d{d}/{name}");
        let beside = |name: &str| format!("d{}/{name}", (d + 1) % DIRS);
        lab.write(&at("new"), "new");
        lab.create(&at("made"), NewObject::Dir).unwrap();
        lab.unlink(&beside("n0")).unwrap();
        lab.write(&at("n2"), "changed");
        lab.rename(&at("n4"), &beside("moved"), RenameMode::Replace)
            .unwrap();
        lab.rmdir(&at("deep/er")).unwrap();
    }
    let tree = lab.tree();
    for d in 0..DIRS {
        let what = |name: &str| tree.get(&format!("/d{d}/{name}")).map(String::as_str);
        assert_eq!(what("new"), Some("file 1 \"new\""));
        assert_eq!(what("made"), Some("dir"));
        assert_eq!(what("n0"), None);
        assert_eq!(what("n2"), Some("file 1 \"changed\""));
        assert_eq!((what("n4"), what("moved")), (None, Some("file 1 \"top\"")));
        assert_eq!((what("deep"), what("deep/er")), (Some("dir"), None));
    }
    assert_eq!(lab.reopen().tree(), tree);
}

/// What a directory gains while it is in memory counts.
#[test]
fn a_growing_directory_pushes_others_out() {
    let lab = Lab::new(WhiteoutChoice::Auto, &[&top, &bottom]).reopen_with_cache(32 << 10);
    for d in 0..4 {
        lab.list(&format!("d{d}"));
    }
    assert!(lab.union.stats().indexes >= 4);
    for n in 0..400 {
        lab.create(&format!("d3/new{n}"), NewObject::File).unwrap();
    }
    lab.union.housekeep();
    let now = lab.union.stats();
    assert!(now.index_bytes > 32 << 10 && now.indexes == 1, "{now:?}");
    assert_eq!(lab.list("d3").len(), NAMES / 2 + 2 + 400);
}
