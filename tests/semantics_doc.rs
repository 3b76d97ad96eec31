//! docs/SEMANTICS.md names a test for every promise, the other pages for many: each of them
//! must exist.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeSet;
use std::path::Path;

/// The `file::function` references of a text: words in backquotes that name a Rust file.
fn references(text: &str) -> BTreeSet<(String, String)> {
    let quoted = text.split('`').skip(1).step_by(2);
    let pairs = quoted.filter_map(|word| word.split_once("::"));
    pairs
        .filter(|(file, _)| file.ends_with(".rs"))
        .map(|(file, function)| (file.to_owned(), function.to_owned()))
        .collect()
}

/// Whether a source has a test of the name: `#[test]`, perhaps other attributes, and the function.
fn has_test(source: &str, function: &str) -> bool {
    let head = format!("fn {function}()");
    let lines: Vec<&str> = source.lines().map(str::trim).collect();
    lines.iter().enumerate().any(|(at, line)| {
        let above = lines.iter().take(at).rev();
        let mut attributes = above.take_while(|line| line.starts_with("#["));
        line.starts_with(&head) && attributes.any(|line| *line == "#[test]")
    })
}

#[test]
fn every_named_test_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut named = BTreeSet::new();
    for (page, at_least) in [
        ("SEMANTICS.md", 50),
        ("COMPAT.md", 8),
        ("CONTAINERS.md", 1),
        ("RELIABILITY.md", 4),
    ] {
        let text = std::fs::read_to_string(root.join("docs").join(page)).unwrap();
        let found = references(&text);
        assert!(found.len() > at_least, "{page}: only {}", found.len());
        named.extend(found);
    }
    let missing: Vec<String> = named
        .into_iter()
        .filter(|(file, function)| {
            let source = std::fs::read_to_string(root.join(file)).unwrap_or_default();
            !has_test(&source, function)
        })
        .map(|(file, function)| format!("{file}::{function}"))
        .collect();
    assert!(missing.is_empty(), "no such tests: {missing:#?}");
}

/// Every promise is a list item, and has a test or says that it has none.
#[test]
fn every_promise_names_a_test() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(root.join("docs/SEMANTICS.md")).unwrap();
    for item in text.split("\n- ").skip(1) {
        let item = item.split("\n\n").next().unwrap_or_default();
        let joined = item.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(
            !references(&joined).is_empty() || joined.contains("No test"),
            "without a test: {joined}"
        );
    }
}

#[test]
fn references_and_tests_are_recognized() {
    let found = references("a `tests/x.rs::f`, `src/y.rs::g` and `ops::Union`");
    assert_eq!(found.len(), 2);
    assert!(has_test("#[test]\n    fn f() {\n", "f"));
    assert!(!has_test("#[test]\nfn f(lab: &Lab) {\n", "f"));
    assert!(!has_test("fn f() {\n", "f"));
}
