//! Makes a step concrete: random paths would miss most of what there is.
//!
//! Beside plain paths a step may have `?dN`, `?fN`, `?oN` in place of a path or of its start: the Nth
//! of all directories, of all other objects, of all objects, as things are when its turn comes. Nothing
//! of that is left in what a failure prints.

use crate::kit::operation::Op;
use crate::tree::Tree;

/// Directories at this depth get no more children.
const DEEPEST: usize = 3;

pub fn aim(tree: &Tree, op: &Op) -> Op {
    let mut op = op.clone();
    for path in op.paths_mut() {
        if let Some(pick) = path.strip_prefix('?') {
            *path = concrete(tree, pick);
        }
    }
    if let Some(slot) = op.slot_mut() {
        let open: Vec<usize> = (0..tree.open.len())
            .filter(|&n| tree.open[n].is_some())
            .collect();
        if !open.is_empty() {
            *slot = open[*slot % open.len()];
        }
    }
    op
}

fn concrete(tree: &Tree, pick: &str) -> String {
    let (pick, below) = pick.split_once('/').unwrap_or((pick, ""));
    let (kind, number) = pick.split_at(1);
    let fits = |path: &str, is_dir: bool| match kind {
        "d" => is_dir && (below.is_empty() || path.matches('/').count() + 1 < DEEPEST),
        "f" => !is_dir,
        _ => true,
    };
    let paths: Vec<String> = tree
        .paths()
        .into_iter()
        // The root only where something is to be made in it.
        .filter(|(path, id)| {
            (!path.is_empty() || !below.is_empty()) && fits(path, tree.is_dir(*id))
        })
        .map(|(path, _)| path)
        .collect();
    let number: usize = number.parse().unwrap();
    let start = match paths.len() {
        0 => "a",
        count => &paths[number % count],
    };
    format!("{start}/{below}").trim_matches('/').to_owned()
}
