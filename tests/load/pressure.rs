//! Little memory, and programs that run out of the mount itself.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::kit::{Lab, Subject, finished, output, program, sys};

const PATIENCE: Duration = Duration::from_secs(300);

/// A memory cgroup, of version 2 or 1; removed on drop.
struct Group {
    dir: PathBuf,
}

impl Group {
    fn new(bytes: u64) -> Group {
        let name = format!("unionmount-test-{}", std::process::id());
        let v2 = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
        let (dir, file) = match v2 {
            true => {
                // Fails if it is on already.
                drop(std::fs::write(
                    "/sys/fs/cgroup/cgroup.subtree_control",
                    "+memory",
                ));
                (Path::new("/sys/fs/cgroup").join(name), "memory.max")
            }
            false => (
                Path::new("/sys/fs/cgroup/memory").join(name),
                "memory.limit_in_bytes",
            ),
        };
        std::fs::create_dir(&dir)
            .unwrap_or_else(|e| panic!("{}: {e}: no memory cgroup", dir.display()));
        let group = Group { dir };
        std::fs::write(group.dir.join(file), bytes.to_string()).unwrap();
        group
    }

    /// A shell in it, for a script and its arguments.
    fn shell(&self, script: &str) -> Command {
        let script = format!("echo $$ >{}/cgroup.procs; {script}", self.dir.display());
        let mut command = Command::new("sh");
        command.arg("-euc").arg(script).arg("sh");
        command
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        for _ in 0..200 {
            if std::fs::remove_dir(&self.dir).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        eprintln!("left behind: {}", self.dir.display());
    }
}

/// The daemon needs memory to write out what others wait for.
#[test]
fn dirty_pages_are_written_out_where_memory_is_short() {
    for more in ["", "--writeback"] {
        let mut lab = Lab::new().lower("f big size=300000000").upper("");
        let group = Group::new(96 << 20);
        let mut mount = group.shell("exec \"$@\"");
        mount.arg(program()).arg("--lower").arg(lab.lower_dir(0));
        mount
            .arg("--upper")
            .arg(lab.upper_dir())
            .arg("--work")
            .arg(lab.work_dir());
        mount.args(more.split_whitespace()).arg(lab.mnt());
        finished(&mut mount, PATIENCE).unwrap();
        let script = "cd \"$1\"; dd if=/dev/urandom of=new bs=1M count=300 status=none & 
            echo more >>big; cp big copy; wait; sync -f .; cksum <new; cat new copy >/dev/null; cksum <new";
        let said = output(group.shell(script).arg(lab.mnt()), PATIENCE);
        finished(
            Command::new(program()).arg("umount").arg(lab.mnt()),
            PATIENCE,
        )
        .unwrap();
        let said = said.unwrap();
        let sums: Vec<&str> = said.lines().collect();
        assert!(sums.len() == 2 && sums[0] == sums[1], "{more}: {said}");
        assert_eq!(sys::lstat(lab.in_upper("copy")).unwrap().size, 300_000_005);
        lab.is_unmounted();
    }
}

#[test]
fn a_program_of_the_mount_outlives_its_path() {
    let mut lab = Lab::new().lower("d bin\nf data text").upper("");
    for tool in ["sh", "cat", "sleep"] {
        std::fs::copy(
            format!("/bin/{tool}"),
            lab.lower_dir(0).join("bin").join(tool),
        )
        .unwrap();
    }
    lab.lowers_may_change();
    lab.remount_as(&Subject::default());
    // Its program and its working directory are in the mount, which is taken away meanwhile.
    let script =
        "echo ready >ready; ./bin/sleep 1; ./bin/cat data; echo more >>data; ./bin/cat data";
    let mut child = Command::new(lab.at("bin/sh"))
        .args(["-euc", script])
        .current_dir(lab.mnt())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    while !sys::exists(lab.at("ready")) {
        assert!(child.try_wait().unwrap().is_none(), "it has ended");
        std::thread::sleep(Duration::from_millis(5));
    }
    let daemons = lab.daemons().to_vec();
    sys::umount(lab.mnt(), libc::MNT_DETACH).unwrap();
    let done = child.wait_with_output().unwrap();
    assert!(done.status.success());
    assert_eq!(String::from_utf8_lossy(&done.stdout), "texttextmore\n");
    crate::kit::wait_gone(&daemons, PATIENCE).unwrap();
    lab.is_unmounted();
    lab.remount();
    assert_eq!(sys::text(lab.at("data")), "textmore\n");
}
