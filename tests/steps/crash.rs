//! The process dies before one of the calls.

use unionmount::marker::whiteout::Dialect;

use crate::cases::{self, CHANGING, Case, MAKING, MOVING, REMOVING, SYNCING};
use crate::kit::snapshot::{self, Snapshot};
use crate::kit::{Lab, Look, Subject, sys};
use crate::paths::Paths;
use crate::tracer::{At, Call, run};

/// What is seen of layers, by us and by the kernel; the kernel is not asked about what it does not read.
struct Views {
    ours: Snapshot,
    kernel: Option<Snapshot>,
}

fn look(lab: &Lab, since: i64) -> Snapshot {
    // Directories get the time of a copy-up that did not end: docs/SEMANTICS.md, copy-up.
    let look = Look {
        since: Some(since),
        ..Look::default()
    };
    let reading = lab.read(look);
    // Numbers in the kernel's listings need origin markers, which a planted upper has not.
    assert!(
        reading.faults.is_empty() || lab.subject().is_kernel(),
        "{:?}: {:#?}",
        lab.subject(),
        reading.faults
    );
    reading.snapshot
}

fn views(lab: &mut Lab, dialect: Dialect, since: i64) -> Views {
    lab.remount_as(&Subject::ours(&["--whiteout", dialect.as_str()]));
    let left = sys::names(lab.work_dir().join("work"));
    assert!(left.len() <= 1, "left in the workdir: {left:?}");
    let ours = look(lab, since);
    let kernel = (dialect == Dialect::CharDev).then(|| {
        lab.remount_as(&Subject::Kernel);
        look(lab, since)
    });
    lab.umount();
    Views { ours, kernel }
}

/// Runs the case on new layers up to `at`; answers them and the calls up to there.
fn tried(case: &Case, dialect: Dialect, at: At) -> (Lab, Vec<Call>) {
    let lab = cases::lab(dialect);
    let ran = run(at, Call::changes, |marks| {
        let paths = Paths::open(&lab, dialect);
        let done = marks.counted(|| (case.act)(&paths));
        format!("{done:?}").into_bytes()
    });
    if at == At::Never {
        assert_eq!(
            String::from_utf8_lossy(&ran.said),
            "Ok(())",
            "{}",
            case.name
        );
    }
    (lab, ran.calls)
}

/// Where a crash may leave a third state: docs/SEMANTICS.md, names and links.
fn may_be_halfway(case: &Case, dialect: Dialect) -> bool {
    dialect != Dialect::CharDev && case.name.starts_with("rename")
}

fn all_points_of(cases: &[Case], dialect: Dialect) {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let since = i64::try_from(now.unwrap().as_secs()).unwrap() - 1;
    let old = views(&mut cases::lab(dialect), dialect, since);
    let (mut points, mut faults) = (0, Vec::new());
    for case in cases {
        let (mut lab, calls) = tried(case, dialect, At::Never);
        assert!(!calls.is_empty(), "{}: nothing was counted", case.name);
        let new = views(&mut lab, dialect, since);
        assert!(old.ours != new.ours, "{} changes nothing", case.name);
        for (n, call) in calls.iter().enumerate() {
            let (mut lab, _) = tried(case, dialect, At::Kill(n));
            let found = views(&mut lab, dialect, since);
            let matches = |view: &Views| found.ours == view.ours && found.kernel == view.kernel;
            if !matches(&old) && !matches(&new) && !may_be_halfway(case, dialect) {
                let what = format!("{}, killed before call {n}, {}", case.name, call.name());
                faults.push(tell(&what, &old, &new, &found));
            }
            points += 1;
        }
    }
    eprintln!("{points} points");
    assert!(
        faults.is_empty(),
        "{} of {points}:\n{}",
        faults.len(),
        faults.join("\n")
    );
}

fn tell(what: &str, old: &Views, new: &Views, found: &Views) -> String {
    let kernel = |views: &Views| views.kernel.clone().unwrap_or_default();
    format!(
        "{what}:\nour view, from the old:\n{:#?}\nfrom the new:\n{:#?}\nthe kernel's, from the old:\n{:#?}\nfrom the new:\n{:#?}",
        snapshot::diff(&old.ours, &found.ours),
        snapshot::diff(&new.ours, &found.ours),
        snapshot::diff(&kernel(old), &kernel(found)),
        snapshot::diff(&kernel(new), &kernel(found)),
    )
}

#[test]
fn making() {
    all_points_of(MAKING, Dialect::CharDev);
}

#[test]
fn removing() {
    all_points_of(REMOVING, Dialect::CharDev);
}

#[test]
fn moving() {
    all_points_of(MOVING, Dialect::CharDev);
}

#[test]
fn changing() {
    all_points_of(CHANGING, Dialect::CharDev);
    all_points_of(SYNCING, Dialect::CharDev);
}

#[test]
fn with_deletions_as_attributes() {
    for cases in [MAKING, REMOVING, MOVING] {
        all_points_of(cases, Dialect::Xattr);
    }
}

#[test]
fn with_deletions_as_files() {
    for cases in [MAKING, REMOVING, MOVING] {
        all_points_of(cases, Dialect::File);
    }
}
