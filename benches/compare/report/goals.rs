//! What unionmount is to reach, and whether it did.

use super::Results;
use crate::row::{Goal, Row, Unit, three_digits};

/// Figures of a run differ from those of the next by a few percent: "not slower" allows for that.
const NOISE: f64 = 1.05;

/// Where fuse-overlayfs 2 is this close to the kernel, nobody can be several times faster.
const CLOSE_TO_KERNEL: f64 = 3.0;

/// One thing that was asked of a row.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// What was asked, in few words.
    pub asked: String,
    pub met: bool,
}

impl Verdict {
    /// All that was asked of a row and could be measured.
    pub fn of(results: &Results, row: &Row) -> Vec<Verdict> {
        let mut all = Vec::new();
        against_kernel(results, row, &mut all);
        against_fuse_overlayfs(results, row, &mut all);
        all
    }

    pub fn show(all: &[Verdict]) -> String {
        let each = all.iter().map(|verdict| {
            let word = if verdict.met { "OK" } else { "MISS" };
            format!("{} {word}", verdict.asked)
        });
        each.collect::<Vec<_>>().join(", ")
    }
}

fn against_kernel(results: &Results, row: &Row, all: &mut Vec<Verdict>) {
    let mut ask = |asked: String, met: Option<bool>| {
        if let Some(met) = met {
            all.push(Verdict { asked, met });
        }
    };
    let ratio = |peer: &str| results.ratio(row.slug, peer);
    match row.goal {
        Goal::None => {}
        Goal::Kernel(most) => ask(
            format!("<={most}"),
            ratio("unionmount").map(|ratio| ratio <= most),
        ),
        Goal::Writeback(most) => {
            ask(
                format!("wb <={most}"),
                ratio("unionmount-wb").map(|ratio| ratio <= most),
            );
            let ours = results.median(row.slug, "unionmount");
            let old = results.median(row.slug, "fuse-overlayfs-1");
            ask(
                "< f-o 1".into(),
                ours.zip(old).map(|(ours, old)| ours < old),
            );
        }
        Goal::Value(most) => ask(
            format!("<={}", row.unit.show(most)),
            results
                .median(row.slug, "unionmount")
                .map(|value| value <= most),
        ),
    }
}

fn against_fuse_overlayfs(results: &Results, row: &Row, all: &mut Vec<Verdict>) {
    let ours = results.median(row.slug, "unionmount");
    let theirs = results.median(row.slug, "fuse-overlayfs-2");
    let (Some(ours), Some(theirs)) = (ours, theirs) else {
        return;
    };
    if row.beats == 0.0 || row.unit == Unit::Times {
        return;
    }
    let close = results
        .ratio(row.slug, "fuse-overlayfs-2")
        .is_some_and(|ratio| ratio <= CLOSE_TO_KERNEL);
    let times = theirs / ours;
    if row.beats > 1.0 && !close {
        let asked = format!("{}x f-o ({})", row.beats, three_digits(times));
        let met = times >= row.beats;
        all.push(Verdict { asked, met });
    } else {
        let asked = format!(">= f-o ({})", three_digits(times));
        let met = times * NOISE >= 1.0;
        all.push(Verdict { asked, met });
    }
}
