//! Daemons end with the mount namespace that holds their mount, and find their way back to it.

use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::lab::{Lab, PROGRAM, outcome};
use crate::rootless::as_plain_user;

/// Longest that the end of a daemon may take after that of its namespace.
const LIMIT: Duration = Duration::from_secs(20);

/// Whether `pid` runs and is a daemon of ours; not by its name alone, which others may have.
fn runs(pid: u32) -> bool {
    let of = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}"));
    let dead = |stat: String| {
        let state = stat.rsplit(')').next().unwrap_or_default();
        state.trim_start().starts_with(['Z', 'X'])
    };
    of("comm").is_ok_and(|name| name.trim_end() == "unionmount") && !of("stat").is_ok_and(dead)
}

/// Mounts in 100 namespaces made by `unshare FLAGS`, uses the mounts, and abandons them.
fn abandoned(flags: &str) {
    let lab = Lab::new();
    let script = format!(
        "for n in $(seq 100); do
            mkdir u$n w$n
            unshare {flags} sh -euc '
                $U --lower l1:l2 --upper u'$n' --work w'$n' m
                cat m/one >/dev/null
                echo x >m/new
                $U inspect m' >said
            sed -n 's/^pid *//p' said
            grep -q '^namespace *left' said
        done"
    );
    let mut command = lab.command("sh", "-euc");
    command.arg(script).env("U", PROGRAM);
    let said = outcome(command).succeeds();
    let pids: Vec<u32> = said.lines().map(|pid| pid.parse().unwrap()).collect();
    assert_eq!(pids.len(), 100, "{said}");
    let deadline = Instant::now() + LIMIT;
    let left = || pids.iter().filter(|pid| runs(**pid)).count();
    while left() > 0 {
        assert!(Instant::now() < deadline, "{} daemons still run", left());
        sleep(Duration::from_millis(20));
    }
    for n in 1..=100 {
        let written = fs::read_to_string(lab.path(&format!("u{n}/new")));
        assert_eq!(written.unwrap(), "x\n");
    }
}

#[test]
fn a_hundred_abandoned_mount_namespaces() {
    abandoned("-m");
}

#[test]
fn a_hundred_abandoned_user_namespaces() {
    abandoned("-Urm");
}

/// Away from its mount, the daemon unmounts it all the same.
#[test]
fn a_signal_unmounts_from_afar() {
    let lab = Lab::new();
    let script = "
        $U --lower l1 --upper u --work w m
        daemon=$($U inspect m | sed -n 's/^pid *//p')
        test $(readlink /proc/$daemon/ns/mnt) != $(readlink /proc/self/ns/mnt)
        echo x >m/new
        kill $daemon
        n=0
        while kill -0 $daemon 2>/dev/null; do n=$((n+1)); test $n -lt 200; sleep 0.05; done
        ! grep ' '$PWD/m' ' /proc/self/mounts
        cat u/new";
    assert_eq!(lab.in_user_namespace(script).succeeds(), "x\n");
}

/// A process that still uses it does not keep it in the tree.
#[test]
fn a_signal_detaches_what_is_busy_from_afar() {
    let lab = Lab::new();
    let script = "
        $U --lower l1 --upper u --work w --writeback m
        daemon=$($U inspect m | sed -n 's/^pid *//p')
        exec 7>m/late; echo x >&7
        kill $daemon
        n=0
        while grep -q ' '$PWD/m' ' /proc/self/mounts; do n=$((n+1)); test $n -lt 200; sleep 0.05; done
        cat u/late";
    assert_eq!(lab.in_user_namespace(script).succeeds(), "x\n");
}

/// The kernel sets it when the protocol is agreed on, and by then /sys is out of reach.
#[test]
fn it_reads_ahead_by_a_mebibyte_from_afar() {
    let lab = Lab::new();
    let script = "
        $U --lower l1 m
        $U inspect m | grep -q '^namespace *left'
        cat /sys/class/bdi/$(mountpoint -d m)/read_ahead_kb
        $U umount m";
    let mut command = lab.command("unshare", "-m sh -euc");
    command.arg(script).env("U", PROGRAM);
    assert_eq!(outcome(command).succeeds(), "1024\n");
}

/// No daemon keeps the mount of another one alive: `umount` returns when the daemon is gone.
#[test]
fn daemons_of_one_namespace_do_not_hold_each_other() {
    let lab = Lab::new();
    let script = "
        mkdir n
        $U --lower l1 m
        $U --lower l2 n
        $U umount m
        cat n/two
        $U umount n";
    assert_eq!(lab.in_user_namespace(script).succeeds(), "2");
}

#[test]
fn where_it_may_not_leave_it_says_so() {
    let lab = Lab::new();
    let script = "
        $U --lower l1 m
        $U inspect m
        $U umount m";
    let said = as_plain_user(&lab, script).succeeds();
    assert!(said.contains("not left: without CAP_SYS_ADMIN"), "{said}");
}

/// As in a container: other processes, process 1 among them, live on.
#[test]
fn a_namespace_within_a_container() {
    let lab = Lab::new();
    let script = "
        unshare -m sh -euc '$U --lower l1 m; $U inspect m' >said
        grep -q '^namespace *left' said
        daemon=$(sed -n 's/^pid *//p' said)
        n=0
        while kill -0 $daemon 2>/dev/null; do n=$((n+1)); test $n -lt 200; sleep 0.05; done";
    let mut command = lab.command("unshare", "-Urmpf --mount-proc sh -euc");
    command.arg(script).env("U", PROGRAM);
    outcome(command).succeeds();
}

/// A daemon in a chroot could not find its way back: it stays, where it was, and unmounts.
#[test]
fn a_chroot_is_not_left() {
    for chroot in ["mkdir r", "mkdir r; mount -t tmpfs none r"] {
        let lab = Lab::new();
        let script = format!(
            "{chroot}
            for dir in bin dev etc lib lib64 proc usr; do
                [ ! -d /$dir ] || {{ mkdir r/$dir; mount --rbind /$dir r/$dir; }}
            done
            mkdir r/l r/m; echo x >r/l/f; cp $U r/program
            chroot r /program --lower /l /m
            chroot r /program inspect /m >said
            cat r/m/f
            kill $(sed -n 's/^pid *//p' said)
            n=0
            while grep -q ' '$PWD/r/m' ' /proc/self/mounts; do n=$((n+1)); test $n -lt 600; sleep 0.05; done
            grep '^namespace' said"
        );
        let said = lab.in_user_namespace(&script).succeeds();
        assert!(said.starts_with("x\nnamespace"), "{said}");
        assert!(said.contains("not left: "), "{said}");
    }
}

/// The namespace of process 1 ends with the machine, or with all that runs in the container.
#[test]
fn the_first_namespace_is_not_left() {
    let lab = Lab::new();
    let script = "
        $U --lower l1 m
        $U inspect m
        $U umount m";
    let mut command = lab.command("unshare", "-Urmpf --mount-proc sh -euc");
    command.arg(script).env("U", PROGRAM);
    let said = outcome(command).succeeds();
    assert!(said.contains("not left: it is that of process 1"), "{said}");
}
