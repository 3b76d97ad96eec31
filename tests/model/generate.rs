//! Strategies: layers and steps from few names, so that they meet.

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::strategy::{NewTree, ValueTree};
use proptest::test_runner::TestRunner;

use crate::case::{Case, Step};
use crate::kit::apply::SLOTS;
use crate::kit::operation::{Bytes, Op};
use crate::shrink::List;

/// Steps of one case at most; half of that on average.
const STEPS: usize = 240;

/// Attributes that users set; the second and third are stored escaped.
const XATTRS: [&str; 5] = [
    "user.a",
    "trusted.overlay.opaque",
    "user.overlay.redirect",
    "trusted.t",
    "user.a",
];

/// Lines of a layer at most; half of that on average.
const LINES: usize = 20;

/// A part of a case: all are in one list, so that they shrink together.
#[derive(Clone, Debug)]
enum Part {
    Line { layer: usize, line: Line },
    Step(Step),
}

#[derive(Debug)]
pub struct Cases;

pub struct CaseTree(List<BoxedTree<Part>>);

type BoxedTree<T> = Box<dyn ValueTree<Value = T>>;

impl Strategy for Cases {
    type Tree = CaseTree;
    type Value = Case;

    fn new_tree(&self, runner: &mut TestRunner) -> NewTree<Self> {
        let mut count = |range: std::ops::RangeInclusive<usize>| {
            range.new_tree(runner).map(|tree| tree.current())
        };
        let layers = count(1..=4)?;
        let (lines, steps) = (count(0..=LINES * layers)?, count(0..=STEPS)?);
        let line = (0..layers, line()).prop_map(|(layer, line)| Part::Line { layer, line });
        let (line, step) = (line.boxed(), step().prop_map(Part::Step).boxed());
        let mut parts = Vec::new();
        for n in 0..lines + steps {
            let part = if n < lines { &line } else { &step };
            parts.push(part.new_tree(runner)?);
        }
        Ok(CaseTree(List::new(parts)))
    }
}

impl ValueTree for CaseTree {
    type Value = Case;

    fn current(&self) -> Case {
        let (mut layers, mut steps) = (BTreeMap::<usize, Vec<Line>>::new(), Vec::new());
        for part in self.0.current() {
            match part {
                Part::Line { layer, line } => layers.entry(layer).or_default().push(line),
                Part::Step(step) => steps.push(step),
            }
        }
        if layers.is_empty() {
            layers.insert(0, Vec::new());
        }
        Case {
            layers: layers.into_values().map(fit).collect(),
            steps,
        }
    }

    fn simplify(&mut self) -> bool {
        self.0.simplify()
    }

    fn complicate(&mut self) -> bool {
        self.0.complicate()
    }
}

/// What is meant to have a name: `a` and `b` are mostly directories, `f` and `g` mostly not, and `c`
/// is anything, so that most paths lead somewhere and some meet another type.
#[derive(Clone, Copy)]
enum Leaf {
    Dir,
    File,
    Any,
}

fn name(leaf: Leaf) -> impl Strategy<Value = &'static str> {
    let (dirs, files, marks) = match leaf {
        Leaf::Dir => (12, 1, 1),
        Leaf::File => (1, 16, 1),
        Leaf::Any => (8, 10, 1),
    };
    prop_oneof![
        dirs => select(&["a", "a", "b"][..]),
        files => select(&["f", "f", "g"][..]),
        2 => Just("c"),
        marks => Just(".wh.f"),
    ]
}

/// A path whose directories may exist.
fn path_to(leaf: Leaf) -> impl Strategy<Value = String> {
    let dir = || prop_oneof![12 => Just("a"), 5 => Just("b"), 1 => Just("c")];
    let above = prop_oneof![
        6 => vec(dir(), 0),
        6 => vec(dir(), 1),
        1 => vec(dir(), 2),
    ];
    (above, name(leaf)).prop_map(|(mut names, name)| {
        names.push(name);
        names.join("/")
    })
}

/// A path that says itself where it leads.
fn literal() -> impl Strategy<Value = String> {
    path_to(Leaf::Any)
}

/// What exists, but for some; see `aim`.
fn existing(kind: &'static str, leaf: Leaf) -> impl Strategy<Value = String> {
    prop_oneof![
        1 => path_to(leaf),
        4 => any::<u8>().prop_map(move |n| format!("?{kind}{n}")),
    ]
}

fn dir() -> impl Strategy<Value = String> {
    existing("d", Leaf::Dir)
}

fn file() -> impl Strategy<Value = String> {
    existing("f", Leaf::File)
}

fn path() -> impl Strategy<Value = String> {
    existing("o", Leaf::Any)
}

fn path_or_root() -> impl Strategy<Value = String> {
    prop_oneof![12 => path(), 1 => Just(String::new())]
}

/// A name in a directory that exists, but for some.
fn new(leaf: Leaf) -> impl Strategy<Value = String> {
    let within = (any::<u8>(), name(leaf)).prop_map(|(n, name)| format!("?d{n}/{name}"));
    prop_oneof![1 => path_to(leaf), 3 => within]
}

/// One line of a layer, in the words of `kit::plant`, before it is known whether it fits.
#[derive(Clone, Debug)]
struct Line {
    kind: &'static str,
    path: String,
    rest: String,
}

/// A name of a layer that is no `.wh.` name: those are written by a kind of line of their own.
fn plain(leaf: Leaf) -> impl Strategy<Value = String> {
    path_to(leaf).prop_map(|path| path.replace(".wh.", ""))
}

fn line() -> impl Strategy<Value = Line> {
    let line = prop_oneof![
        6 => (Just("d"), plain(Leaf::Dir), owner_and_mode(&["0755", "0700", "2775", "0711"])),
        9 => (Just("f"), plain(Leaf::File), content()),
        2 => (Just("l"), plain(Leaf::File), target()),
        2 => (Just("h"), plain(Leaf::File), any::<u8>().prop_map(|n| n.to_string())),
        1 => (select(&["p", "s", "c", "b"][..]), plain(Leaf::File), Just(String::new())),
        4 => (select(&["w", "w.", "wx"][..]), plain(Leaf::Any), Just(String::new())),
        // Without the mark on its directory; an object of some size is none.
        1 => (Just("f"), plain(Leaf::Any), select(&[
            "user.overlay.whiteout=",
            "trusted.overlay.whiteout=y",
            "x user.overlay.whiteout=",
        ][..]).prop_map(str::to_owned)),
        2 => (select(&["o", "ou", "of", "o."][..]), plain(Leaf::Dir), Just(String::new())),
        1 => (select(&["o", "o."][..]), Just(".".to_owned()), Just(String::new())),
        3 => (Just("r"), plain(Leaf::Dir), redirect()),
        // Not opaque, and opaque to an overlay within.
        1 => (Just("d"), plain(Leaf::Dir), select(&[
            "trusted.overlay.opaque=x",
            "user.overlay.opaque=yes",
            "trusted.overlay.overlay.opaque=y",
            "user.fuseoverlayfs.opaque=n",
        ][..]).prop_map(str::to_owned)),
    ];
    line.prop_map(|(kind, path, rest)| Line { kind, path, rest })
}

/// As in the attribute: a plain name, or a path from the root.
fn redirect() -> impl Strategy<Value = String> {
    prop_oneof![
        2 => select(&["a", "b", "c"][..]).prop_map(str::to_owned),
        3 => plain(Leaf::Dir).prop_map(|path| format!("/{path}")),
    ]
}

fn owner_and_mode(modes: &'static [&'static str]) -> impl Strategy<Value = String> {
    (
        select(modes),
        prop_oneof![3 => Just(0), 1 => Just(1000)],
        xattr_word(),
    )
        .prop_map(|(mode, uid, xattr)| format!("mode={mode} uid={uid} gid={uid} {xattr}"))
}

fn xattr_word() -> impl Strategy<Value = &'static str> {
    prop_oneof![
        4 => Just(""),
        1 => select(&["user.a=1", "user.a=2", "trusted.t=3"][..]),
    ]
}

fn content() -> impl Strategy<Value = String> {
    let data = select(
        &[
            "",
            "x",
            "text",
            "pattern=4096",
            "pattern=5000",
            "size=9000 at=4096:i",
        ][..],
    );
    let modes = &["0644", "0600", "4755", "2755", "0444", "0000"];
    (data, owner_and_mode(modes)).prop_map(|(data, rest)| format!("{data} {rest}"))
}

fn target() -> impl Strategy<Value = String> {
    literal()
}

/// The lines that can be planted one after the other; hard links get a file to be linked to, and the
/// old name of a directory with a redirect a whiteout, as an overlay would have left it.
fn fit(lines: Vec<Line>) -> Vec<String> {
    let mut taken: BTreeMap<String, bool> = BTreeMap::new();
    let mut files: Vec<String> = Vec::new();
    let mut out = Vec::new();
    for Line { kind, path, rest } in lines {
        if kind == "r" {
            out.extend(fit_redirect(&path, &rest, &mut taken));
            continue;
        }
        let above: Vec<&str> = path.match_indices('/').map(|(n, _)| &path[..n]).collect();
        let is_dir = matches!(kind, "d" | "o" | "ou" | "of" | "o.");
        // A `.wh.` file lies beside the name that it is about.
        let free = kind == "w." || taken.get(&path).is_none_or(|&dir| dir && is_dir);
        if !free || above.iter().any(|&dir| taken.get(dir) == Some(&false)) {
            continue;
        }
        let rest = match (kind, files.len()) {
            ("h", 0) => continue,
            ("h", count) => files[rest.parse::<usize>().unwrap() % count].clone(),
            ("c", _) => "1:3".to_owned(),
            ("b", _) => "7:0".to_owned(),
            _ => rest,
        };
        taken.extend(above.iter().map(|&dir| (dir.to_owned(), true)));
        if kind != "w." {
            taken.insert(path.clone(), is_dir);
        }
        if kind == "f" {
            files.push(path.clone());
        }
        out.push(format!("{kind} {path} {rest}").trim_end().to_owned());
    }
    out
}

fn fit_redirect(path: &str, value: &str, taken: &mut BTreeMap<String, bool>) -> Vec<String> {
    let above = |path: &str| -> Vec<String> {
        let slashes = path.match_indices('/');
        slashes.map(|(n, _)| path[..n].to_owned()).collect()
    };
    let old = match value.strip_prefix('/') {
        Some(old) => old.to_owned(),
        None => above(path)
            .last()
            .map_or(value.to_owned(), |dir| format!("{dir}/{value}")),
    };
    let dirs = [above(path), above(&old)].concat();
    let free = !taken.contains_key(path)
        && !taken.contains_key(&old)
        && old != path
        && dirs
            .iter()
            .all(|dir| *dir != old && taken.get(dir) != Some(&false));
    if !free {
        return Vec::new();
    }
    taken.extend(dirs.into_iter().map(|dir| (dir, true)));
    taken.insert(path.to_owned(), true);
    taken.insert(old.clone(), false);
    vec![
        format!("d {path} trusted.overlay.redirect={value}"),
        format!("w {old}"),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        40 => change_names().prop_map(Step::Do),
        30 => change_objects().prop_map(Step::Do),
        12 => look().prop_map(Step::Do),
        40 => use_slots().prop_map(Step::Do),
        1 => Just(Step::Remount),
        1 => Just(Step::Forget),
    ]
}

fn mode() -> impl Strategy<Value = u32> {
    // Nothing sticky: fs.protected_regular and its like refuse things there, even to root.
    select(
        &[
            0o644, 0o755, 0o600, 0o777, 0o444, 0, 0o4755, 0o2755, 0o6711, 0o2644,
        ][..],
    )
}

fn bytes() -> impl Strategy<Value = Bytes> {
    let len = prop_oneof![4 => 0..20usize, 4 => 0..6000usize, 1 => 0..20_000usize];
    (1..10u64, len).prop_map(|(seed, len)| Bytes { seed, len })
}

fn offset() -> impl Strategy<Value = u64> {
    prop_oneof![2 => Just(0), 4 => 0..6000u64, 1 => 0..30_000u64, 1 => select(&[4096, 8192][..])]
}

fn fallocate_mode() -> impl Strategy<Value = i32> {
    let (keep, punch) = (libc::FALLOC_FL_KEEP_SIZE, libc::FALLOC_FL_PUNCH_HOLE);
    let zero = libc::FALLOC_FL_ZERO_RANGE;
    select(vec![0, keep, punch | keep, zero, zero | keep])
}

fn owner() -> impl Strategy<Value = (u32, u32)> {
    let id = || select(&[0, 1, 1000, 65_534][..]);
    // Never -1 twice: such a chown changes nothing but clears suid, and FUSE is not told of it.
    prop_oneof![
        (id(), id()),
        id().prop_map(|id| (id, u32::MAX)),
        id().prop_map(|id| (u32::MAX, id)),
    ]
}

fn value() -> impl Strategy<Value = Vec<u8>> {
    select(&["y", "", "1", "/a"][..]).prop_map(|text| text.as_bytes().to_vec())
}

fn change_names() -> impl Strategy<Value = Op> {
    let flags = select(vec![0, 0, 0, libc::RENAME_NOREPLACE, libc::RENAME_EXCHANGE]);
    let node = select(vec![
        (libc::S_IFIFO, (0, 0)),
        (libc::S_IFSOCK, (0, 0)),
        (libc::S_IFREG, (0, 0)),
        (libc::S_IFCHR, (1, 3)),
        (libc::S_IFCHR, (0, 0)),
    ]);
    prop_oneof![
        28 => (new(Leaf::File), mode(), any::<bool>())
            .prop_map(|(at, mode, exclusive)| Op::Create { at, mode, exclusive }),
        20 => (new(Leaf::Dir), mode()).prop_map(|(at, mode)| Op::Mkdir { at, mode }),
        4 => (new(Leaf::Any), node, mode())
            .prop_map(|(at, (kind, device), mode)| Op::Mknod { at, mode: kind | mode, device }),
        5 => (target(), new(Leaf::Any)).prop_map(|(target, at)| Op::Symlink { target, at }),
        10 => (path(), new(Leaf::File)).prop_map(|(from, to)| Op::Link { from, to }),
        10 => path().prop_map(|at| Op::Unlink { at }),
        6 => dir().prop_map(|at| Op::Rmdir { at }),
        1 => dir().prop_map(|at| Op::RemoveTree { at }),
        14 => (path(), path(), flags.clone())
            .prop_map(|(from, to, flags)| Op::Rename { from, to, flags }),
        14 => (file(), new(Leaf::File), flags.clone())
            .prop_map(|(from, to, flags)| Op::Rename { from, to, flags }),
        10 => (dir(), new(Leaf::Dir), flags)
            .prop_map(|(from, to, flags)| Op::Rename { from, to, flags }),
    ]
}

fn change_objects() -> impl Strategy<Value = Op> {
    let flags = select(vec![0, 0, libc::XATTR_CREATE, libc::XATTR_REPLACE]);
    prop_oneof![
        12 => (file(), offset(), bytes())
            .prop_map(|(at, offset, bytes)| Op::Write { at, offset, bytes }),
        8 => (file(), bytes()).prop_map(|(at, bytes)| Op::Append { at, bytes }),
        6 => (file(), bytes()).prop_map(|(at, bytes)| Op::Rewrite { at, bytes }),
        8 => (file(), offset()).prop_map(|(at, size)| Op::Truncate { at, size }),
        5 => (file(), fallocate_mode(), offset(), offset()).prop_map(|(at, mode, offset, len)| {
            Op::Fallocate { at, mode, offset, len: 1 + len }
        }),
        5 => (file(), file(), offset(), offset(), 1..9000usize).prop_map(
            |(from, to, from_offset, to_offset, len)| {
                Op::CopyRange { from, to, from_offset, to_offset, len }
            }
        ),
        10 => (path_or_root(), mode()).prop_map(|(at, mode)| Op::Chmod { at, mode }),
        8 => (path_or_root(), owner()).prop_map(|(at, (uid, gid))| Op::Chown { at, uid, gid }),
        4 => (path_or_root(), 0..1_500_000_000_i64)
            .prop_map(|(at, sec)| Op::Utimens { at, mtime: (sec, 5) }),
        10 => (path_or_root(), select(&XATTRS[..]), value(), flags)
            .prop_map(|(at, name, value, flags)| Op::SetXattr { at, name, value, flags }),
        5 => (path_or_root(), select(&XATTRS[..]))
            .prop_map(|(at, name)| Op::RemoveXattr { at, name }),
    ]
}

fn look() -> impl Strategy<Value = Op> {
    prop_oneof![
        path_or_root().prop_map(|at| Op::Stat { at }),
        file().prop_map(|at| Op::Read { at }),
        prop_oneof![3 => dir(), 1 => Just(String::new())].prop_map(|at| Op::List { at }),
        file().prop_map(|at| Op::Readlink { at }),
        path_or_root().prop_map(|at| Op::ListXattr { at }),
        (path_or_root(), select(&XATTRS[..])).prop_map(|(at, name)| Op::GetXattr { at, name }),
    ]
}

fn use_slots() -> impl Strategy<Value = Op> {
    let slot = || 0..SLOTS;
    let flags = select(vec![
        libc::O_RDONLY,
        libc::O_RDWR,
        libc::O_WRONLY,
        libc::O_RDWR | libc::O_APPEND,
        libc::O_WRONLY | libc::O_APPEND,
        libc::O_RDWR | libc::O_TRUNC,
    ]);
    prop_oneof![
        30 => (slot(), file(), flags).prop_map(|(slot, at, flags)| Op::Open { slot, at, flags }),
        18 => (slot(), offset(), 0..9000usize)
            .prop_map(|(slot, offset, len)| Op::FdRead { slot, offset, len }),
        20 => (slot(), offset(), bytes())
            .prop_map(|(slot, offset, bytes)| Op::FdWrite { slot, offset, bytes }),
        8 => (slot(), 0..9000usize, bytes())
            .prop_map(|(slot, offset, bytes)| Op::FdMapWrite { slot, offset, bytes }),
        8 => slot().prop_map(|slot| Op::FdStat { slot }),
        7 => (slot(), offset()).prop_map(|(slot, size)| Op::FdTruncate { slot, size }),
        4 => (slot(), fallocate_mode(), offset(), offset())
            .prop_map(|(slot, mode, offset, len)| {
                Op::FdFallocate { slot, mode, offset, len: 1 + len }
            }),
        4 => (slot(), mode()).prop_map(|(slot, mode)| Op::FdChmod { slot, mode }),
        3 => (slot(), owner()).prop_map(|(slot, (uid, gid))| Op::FdChown { slot, uid, gid }),
        2 => (slot(), 0..1_500_000_000_i64)
            .prop_map(|(slot, sec)| Op::FdUtimens { slot, mtime: (sec, 5) }),
        3 => (slot(), select(&XATTRS[..]), value())
            .prop_map(|(slot, name, value)| Op::FdSetXattr { slot, name, value }),
        2 => slot().prop_map(|slot| Op::FdSync { slot }),
        3 => slot().prop_map(|slot| Op::Close { slot }),
    ]
}
