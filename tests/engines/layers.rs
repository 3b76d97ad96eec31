//! The layers of an image as its archives hold them, to be compared.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::exceptions;
use crate::kit::snapshot::{self, diff};
use crate::kit::{Look, Snapshot, output, sys};
use crate::machine::Machine;

/// One layer: its archive's names as they are listed, and what they unpack to.
pub struct Layer {
    names: Vec<String>,
    tree: Snapshot,
}

/// The layers of an image but the lowest, which is the base. Times from `since` on are one.
pub fn above_base(machine: &Machine, image: &str, since: i64) -> Vec<Layer> {
    let dir = machine.path(&format!("pushed-{image}"));
    let to = format!("dir:{}", dir.display());
    sys::mkdir(&dir, 0o777).unwrap();
    sys::chmod(&dir, 0o777).unwrap();
    machine.run(
        "buildah push -q --disable-compression",
        &[&format!("localhost/{image}"), &to],
    );
    let manifest = sys::text(dir.join("manifest.json"));
    let manifest: serde_json::Value = serde_json::from_str(&manifest).unwrap();
    let layers = manifest["layers"].as_array().unwrap();
    let archives = layers.iter().skip(1).map(|layer| {
        let digest = layer["digest"].as_str().unwrap();
        dir.join(digest.strip_prefix("sha256:").unwrap())
    });
    archives.map(|archive| unpack(&archive, since)).collect()
}

fn unpack(archive: &Path, since: i64) -> Layer {
    let to = archive.with_extension("unpacked");
    sys::mkdir(&to, 0o755).unwrap();
    let tar = |arguments: &[&str]| {
        let mut command = Command::new("tar");
        command.arg("-f").arg(archive).arg("-C").arg(&to);
        output(command.args(arguments), Duration::from_secs(60)).unwrap()
    };
    let listed = tar(&["--list"]);
    // In an archive a directory may come back after others, and its time is to be that of its entry.
    let whole = ["--delay-directory-restore", "--preserve-permissions"];
    tar(&[&["--extract", "--xattrs", "--xattrs-include=*"], &whole[..]].concat());
    let mut names: Vec<String> = listed.lines().map(str::to_owned).collect();
    names.sort();
    let look = Look {
        since: Some(since),
        dir_mtime: true,
        ..Look::default()
    };
    let mut tree = snapshot::read(&to, look).snapshot;
    // Of the directory that it was unpacked in.
    tree.entries.remove(&Vec::new());
    exceptions::apply(&mut tree);
    Layer { names, tree }
}

/// What differs between two images, a line each.
pub fn differences(left: &[Layer], right: &[Layer]) -> Vec<String> {
    let mut out = Vec::new();
    if left.len() != right.len() {
        out.push(format!("{} layers | {} layers", left.len(), right.len()));
    }
    for (n, (left, right)) in left.iter().zip(right).enumerate() {
        let lines = diff(&left.tree, &right.tree);
        out.extend(lines.iter().map(|line| format!("layer {n}: {line}")));
        let only = |a: &Layer, b: &Layer, sign: &str| -> Vec<String> {
            let names = a.names.iter().filter(|name| !b.names.contains(name));
            names
                .map(|name| format!("layer {n}: {sign} archived {name}"))
                .collect()
        };
        out.extend(only(left, right, "<"));
        out.extend(only(right, left, ">"));
        if left.names.len() != right.names.len() {
            out.push(format!(
                "layer {n}: {} | {} archived",
                left.names.len(),
                right.names.len()
            ));
        }
    }
    out
}
