//! Enforces the direction of dependencies: which module may use which, by the `use` lines of src/.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// What each module may use (besides itself). `sys` wraps system calls and is open to all who act.
const MAY_USE: &[(&str, &[&str])] = &[
    ("attr", &[]),
    ("error", &[]),
    ("ids", &[]),
    ("name", &[]),
    ("sys", &["attr", "error"]),
    ("marker", &["attr", "error", "ids", "name"]),
    ("layer", &["attr", "error", "marker", "name", "sys"]),
    ("merge", &["attr", "error", "layer", "marker", "name"]),
    (
        "upper",
        &["attr", "error", "layer", "marker", "name", "sys"],
    ),
    ("tree", &["attr", "error", "layer", "merge", "name"]),
    (
        "ops",
        &[
            "attr", "error", "ids", "layer", "marker", "merge", "name", "sys", "tree", "upper",
        ],
    ),
    ("fuse", &["attr", "error", "name", "ops", "tree"]),
    ("cli", &["error", "fuse", "ids", "ops", "sys"]),
];

/// Of `merge`, `tree` may use only this: a directory's layers.
const TREE_OF_MERGE: &str = "crate::merge::Stack";

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

/// The top-level module of a source file; `None` for the roots of the crate.
fn module(src: &Path, file: &Path) -> Option<String> {
    let first = file.strip_prefix(src).unwrap().components().next().unwrap();
    let name = Path::new(first.as_os_str())
        .file_stem()
        .unwrap()
        .to_str()
        .unwrap();
    (name != "lib" && name != "main").then(|| name.to_owned())
}

/// The modules named behind `crate::` in a line of code.
fn uses(line: &str) -> Vec<&str> {
    let code = line.split("//").next().unwrap_or_default();
    let names = code.split("crate::").skip(1);
    names
        .map(|rest| {
            rest.split(|c: char| !c.is_alphanumeric() && c != '_')
                .next()
                .unwrap()
        })
        .filter(|name| !name.is_empty())
        .collect()
}

#[test]
fn modules_use_only_what_lies_below_them() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let allowed: BTreeMap<&str, BTreeSet<&str>> = MAY_USE
        .iter()
        .map(|(m, may)| (*m, may.iter().copied().collect()))
        .collect();
    let mut files = Vec::new();
    sources(&src, &mut files);
    let mut wrong = Vec::new();
    let mut seen = BTreeSet::new();
    for file in &files {
        let Some(own) = module(&src, file) else {
            continue;
        };
        let may = allowed
            .get(own.as_str())
            .unwrap_or_else(|| panic!("{own}: not in the table"));
        seen.insert(own.clone());
        for (n, line) in std::fs::read_to_string(file).unwrap().lines().enumerate() {
            for used in uses(line) {
                let only_stack = own == "tree" && used == "merge" && line.contains(TREE_OF_MERGE);
                let bad = used != own && (!may.contains(used) || used == "merge" && own == "tree");
                if bad && !only_stack {
                    wrong.push(format!("{}:{}: {}", file.display(), n + 1, line.trim()));
                }
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "against the direction:\n{}",
        wrong.join("\n")
    );
    assert_eq!(
        seen.len(),
        MAY_USE.len(),
        "the table names modules that are not there"
    );
}

#[test]
fn unsafe_code_is_in_sys_only_and_libc_too() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&src, &mut files);
    for file in files
        .iter()
        .filter(|f| module(&src, f).as_deref() != Some("sys"))
    {
        let text = std::fs::read_to_string(file).unwrap();
        for (n, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            let bad = code.contains("unsafe ") || code.contains("libc::");
            assert!(!bad, "{}:{}: {}", file.display(), n + 1, line.trim());
        }
    }
}

#[test]
fn every_file_says_its_reason_first() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    sources(&root.join("src"), &mut files);
    sources(&root.join("tests"), &mut files);
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(
            text.starts_with("//! "),
            "{}: no //! line first",
            file.display()
        );
        assert!(text.is_ascii(), "{}: not ASCII", file.display());
    }
}
