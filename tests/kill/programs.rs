//! Programs that promise durability themselves, killed from under: SQLite with both kinds of journal, git.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::kill_daemon;
use crate::kills;
use crate::kit::{Lab, Subject, sys};

/// Runs a script whose lines `done N` acknowledge; kills the daemon while it runs, and answers the
/// last N.
fn interrupted(lab: &mut Lab, command: &mut Command, script: &str) -> u64 {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let mut input = child.stdin.take().unwrap();
    let output = BufReader::new(child.stdout.take().unwrap());
    let script = script.to_owned();
    // The program may end before it has read all.
    let feeder = std::thread::spawn(move || drop(input.write_all(script.as_bytes())));
    let reader = std::thread::spawn(move || {
        let lines = output.lines().map_while(Result::ok);
        let done = lines.filter_map(|line| line.strip_prefix("done ")?.trim().parse().ok());
        done.last().unwrap_or(0)
    });
    std::thread::sleep(Duration::from_millis(fastrand::u64(20..200)));
    kill_daemon(lab);
    end(&mut child);
    feeder.join().unwrap();
    reader.join().unwrap()
}

fn end(child: &mut Child) {
    let deadline = Instant::now() + Duration::from_secs(2);
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > deadline {
            child.kill().unwrap();
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn output(command: &mut Command) -> String {
    let done = command
        .output()
        .unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(
        done.status.success(),
        "{command:?}: {}: {said}",
        done.status
    );
    String::from_utf8(done.stdout).unwrap().trim().to_owned()
}

fn sqlite(base: &Path, query: &str) -> String {
    output(Command::new("sqlite3").arg(base).arg(query))
}

/// One transaction after another; a row of each is as long as its number says.
fn transactions(journal: &str, from: u64) -> String {
    let mut script =
        format!(".bail on\nPRAGMA journal_mode={journal};\nPRAGMA synchronous=FULL;\n");
    for n in from..from + 2000 {
        script += &format!(
            "BEGIN; INSERT INTO t VALUES({n}, randomblob(2000)); \
             INSERT INTO u VALUES({n}, hex(randomblob({}))); COMMIT;\n\
             SELECT 'done {n}';\n",
            n % 700
        );
    }
    script
}

fn killed_under_sqlite(journal: &str, arguments: &[&str]) {
    let mut lab = Lab::new().lower("").upper("");
    let base = lab.lower_dir(0).join("base");
    // The base is one of a lower: the first transaction copies it up.
    sqlite(
        &base,
        "CREATE TABLE t(n INTEGER PRIMARY KEY, b BLOB); CREATE TABLE u(n INTEGER PRIMARY KEY, s TEXT);",
    );
    lab = lab.mount_as(&Subject::ours(arguments));
    let mut safe = 0;
    for round in 0..kills(15) {
        let script = transactions(journal, safe + 1);
        let base = lab.at("base");
        let done = interrupted(&mut lab, Command::new("sqlite3").arg(&base), &script).max(safe);
        lab.remount();
        assert_eq!(
            sqlite(&base, "PRAGMA integrity_check"),
            "ok",
            "round {round}"
        );
        let counts = sqlite(
            &base,
            "SELECT count(*), max(n) FROM t; SELECT count(*), max(n) FROM u;",
        );
        let found: u64 = sqlite(&base, "SELECT count(*) FROM t").parse().unwrap();
        assert!(
            found == done || found == done + 1,
            "round {round}: {done} transactions were acknowledged, found {counts}"
        );
        let both = if found == 0 {
            "0|\n0|".to_owned()
        } else {
            format!("{found}|{found}\n{found}|{found}")
        };
        assert_eq!(counts, both, "round {round}: a transaction in part");
        safe = found;
    }
    assert!(safe > 0, "no transaction was ever acknowledged");
}

#[test]
fn sqlite_with_a_write_ahead_log() {
    killed_under_sqlite("WAL", &[]);
}

#[test]
fn sqlite_with_a_rollback_journal() {
    killed_under_sqlite("DELETE", &["--writeback"]);
}

#[test]
fn git_keeps_its_commits() {
    let mut lab = Lab::new().lower("").upper("");
    let origin = lab.lower_dir(0).join("repo");
    let git = |dir: &Path, words: &[&str]| {
        let mut command = Command::new("git");
        let who = [
            "-c",
            "user.name=t",
            "-c",
            "user.email=t@example.org",
            "-c",
            "core.fsync=all",
        ];
        command.arg("-C").arg(dir).args(who).args(words);
        output(&mut command)
    };
    sys::mkdir(&origin, 0o755).unwrap();
    git(&origin, &["init", "-q"]);
    sys::put(origin.join("file"), b"first").unwrap();
    git(&origin, &["add", "."]);
    git(&origin, &["commit", "-qm", "first"]);
    lab = lab.mount();
    let repo = lab.at("repo");
    let script = "n=$1; while n=$((n+1)); do echo $n > file && echo $n > f$((n % 7)) && git add . && \
                  git -c core.fsync=all -c user.name=t -c user.email=t@example.org commit -qm $n || exit; \
                  echo done $n; done";
    let mut safe = 1;
    for round in 0..kills(15) {
        let mut command = Command::new("sh");
        command
            .current_dir(&repo)
            .args(["-c", script, "sh"])
            .arg(safe.to_string());
        let done = interrupted(&mut lab, &mut command, "").max(safe);
        lab.remount();
        // A lock is what git itself leaves when it is interrupted.
        for lock in [
            "index.lock",
            "HEAD.lock",
            "refs/heads/master.lock",
            "refs/heads/main.lock",
        ] {
            if let Err(errno) = sys::unlink(repo.join(".git").join(lock)) {
                assert_eq!(errno.0, libc::ENOENT, "{lock}");
            }
        }
        git(&repo, &["fsck", "--full", "--strict"]);
        let found: u64 = git(&repo, &["rev-list", "--count", "HEAD"])
            .parse()
            .unwrap();
        assert!(
            found >= done,
            "round {round}: {done} commits acknowledged, {found} there"
        );
        git(&repo, &["reset", "-q", "--hard"]);
        safe = found;
    }
    assert!(safe > 1, "no commit was ever acknowledged");
}
