//! Runs work in a child and stops at the n-th system call of it.

use std::io::Read;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// What happens at one of the counted calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// Nothing, at none.
    Never,
    /// The child is killed before the call of that number (from 0).
    Kill(usize),
    /// The call is not made and fails so.
    Fail(usize, i32),
}

/// A system call as the child makes it.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    pub number: i64,
    pub arguments: [u64; 6],
}

/// How it went.
#[derive(Debug)]
pub struct Ran {
    /// The calls that counted, up to the one at which the child was killed.
    pub calls: Vec<Call>,
    /// What the child wrote; nothing if it was killed.
    pub said: Vec<u8>,
}

/// Marks the part of the work whose calls count.
pub struct Marks(());

impl Marks {
    pub fn counted<T>(&self, work: impl FnOnce() -> T) -> T {
        stop();
        let result = work();
        stop();
        result
    }
}

fn stop() {
    // Safety: a signal to itself; the tracer sees it and goes on.
    unsafe { libc::raise(libc::SIGSTOP) };
}

fn check(result: i64) -> i64 {
    assert!(result >= 0, "{:?}", std::io::Error::last_os_error());
    result
}

/// Runs `work` in a child; what it answers is what the child says.
pub fn run(at: At, counts: impl Fn(&Call) -> bool, work: impl FnOnce(&Marks) -> Vec<u8>) -> Ran {
    let mut ends = [0; 2];
    // Safety: the array is large enough; both descriptors are new and owned here.
    let (reader, writer) = unsafe {
        check(i64::from(libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC)));
        (OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1]))
    };
    // Safety: the child has this thread only. What others held at this moment stays held in it: the
    // allocator takes care of that itself, and the code under test shares nothing with other threads.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        child(&writer, work);
    }
    check(i64::from(pid));
    drop(writer);
    // Beside: a pipe holds no more than 64 KiB.
    let reader = std::thread::spawn(move || {
        let mut said = Vec::new();
        std::fs::File::from(reader)
            .read_to_end(&mut said)
            .map(|_| said)
    });
    let mut tracee = Tracee { pid, alive: true };
    let calls = tracee.follow(at, counts);
    let said = reader.join().unwrap().unwrap();
    Ran { calls, said }
}

fn child(writer: &OwnedFd, work: impl FnOnce(&Marks) -> Vec<u8>) -> ! {
    // Safety: plain system calls on values that live.
    unsafe { libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) };
    stop();
    let work = std::panic::AssertUnwindSafe(|| work(&Marks(())));
    let status = match std::panic::catch_unwind(work) {
        Ok(said) => {
            let mut rest = &said[..];
            while !rest.is_empty() {
                // Safety: the bytes live for the whole call.
                let n =
                    unsafe { libc::write(writer.as_raw_fd(), rest.as_ptr().cast(), rest.len()) };
                rest = &rest[usize::try_from(n).unwrap_or(rest.len())..];
            }
            0
        }
        Err(_) => 101,
    };
    // Safety: it ends this process and nothing else. Not exit: the test harness is not ours to end.
    unsafe { libc::_exit(status) }
}

struct Tracee {
    pid: i32,
    alive: bool,
}

impl Tracee {
    /// Waits for the next stop; `None` when it has ended.
    fn wait(&mut self) -> Option<i32> {
        let mut status = 0;
        // Safety: the status lives.
        check(i64::from(unsafe {
            libc::waitpid(self.pid, &raw mut status, libc::__WALL)
        }));
        if libc::WIFSTOPPED(status) {
            return Some(libc::WSTOPSIG(status));
        }
        self.alive = false;
        assert!(
            libc::WIFSIGNALED(status) || libc::WEXITSTATUS(status) == 0,
            "the child panicked"
        );
        None
    }

    fn go(&self, how: libc::c_uint) {
        // Safety: the child is stopped and traced by this thread.
        check(unsafe { libc::ptrace(how, self.pid, 0, 0) });
    }

    fn follow(&mut self, at: At, counts: impl Fn(&Call) -> bool) -> Vec<Call> {
        assert_eq!(self.wait(), Some(libc::SIGSTOP), "the child did not start");
        let options = libc::PTRACE_O_TRACESYSGOOD | libc::PTRACE_O_EXITKILL;
        // Safety: as in `go`.
        check(unsafe { libc::ptrace(libc::PTRACE_SETOPTIONS, self.pid, 0, options) });
        self.go(libc::PTRACE_CONT);
        assert_eq!(
            self.wait(),
            Some(libc::SIGSTOP),
            "the child did not come to the change"
        );
        let (mut calls, mut failing) = (Vec::new(), None);
        let mut how = libc::PTRACE_SYSCALL;
        loop {
            self.go(how);
            match self.wait() {
                None => return calls,
                // The end of the counted part.
                Some(libc::SIGSTOP) => how = libc::PTRACE_CONT,
                Some(signal) if signal == libc::SIGTRAP | 0x80 => {}
                Some(signal) => panic!("signal {signal} in the child"),
            }
            if how == libc::PTRACE_CONT {
                continue;
            }
            match (self.entered(), failing.take()) {
                (None, Some(errno)) => self.answer(errno),
                (Some(call), _) if counts(&call) => {
                    let n = calls.len();
                    calls.push(call);
                    match at {
                        At::Kill(at) if at == n => {
                            self.kill();
                            return calls;
                        }
                        At::Fail(at, errno) if at == n => {
                            self.skip();
                            failing = Some(errno);
                        }
                        _ => {}
                    }
                }
                _ => {}
            }
        }
    }

    /// The call that the child is about to make, if it stopped for that.
    fn entered(&self) -> Option<Call> {
        // Safety: all zero is a valid value of this struct.
        let mut info: libc::ptrace_syscall_info = unsafe { std::mem::zeroed() };
        let size = std::mem::size_of_val(&info);
        // Safety: the kernel writes at most `size` bytes to a struct that lives.
        check(unsafe {
            libc::ptrace(libc::PTRACE_GET_SYSCALL_INFO, self.pid, size, &raw mut info)
        });
        if info.op != libc::PTRACE_SYSCALL_INFO_ENTRY {
            return None;
        }
        // Safety: `op` says which member counts.
        let entry = unsafe { info.u.entry };
        let number = i64::try_from(entry.nr).unwrap();
        Some(Call {
            number,
            arguments: entry.args,
        })
    }

    fn registers(&self) -> libc::user_regs_struct {
        // Safety: as in `entered`.
        let mut registers: libc::user_regs_struct = unsafe { std::mem::zeroed() };
        // Safety: as in `entered`.
        check(unsafe { libc::ptrace(libc::PTRACE_GETREGS, self.pid, 0, &raw mut registers) });
        registers
    }

    fn set_registers(&self, registers: &libc::user_regs_struct) {
        // Safety: the kernel reads a struct that lives.
        check(unsafe {
            libc::ptrace(
                libc::PTRACE_SETREGS,
                self.pid,
                0,
                std::ptr::from_ref(registers),
            )
        });
    }

    /// Makes the call that is about to be made none.
    fn skip(&self) {
        let mut registers = self.registers();
        registers.orig_rax = u64::MAX;
        self.set_registers(&registers);
    }

    /// Puts an error in place of what the call answered.
    fn answer(&self, errno: i32) {
        let mut registers = self.registers();
        registers.rax = i64::from(-errno).cast_unsigned();
        self.set_registers(&registers);
    }

    fn kill(&mut self) {
        // Safety: our own child, not yet waited for.
        unsafe { libc::kill(self.pid, libc::SIGKILL) };
        while self.wait().is_some() {}
    }
}

impl Drop for Tracee {
    fn drop(&mut self) {
        if self.alive {
            self.kill();
        }
    }
}

impl Call {
    /// Whether a crash before it can leave another state on disk than a crash after it.
    pub fn changes(&self) -> bool {
        let flags = self.arguments[2];
        let creates =
            (libc::O_CREAT | libc::O_TMPFILE | libc::O_TRUNC) as u64 & !(libc::O_DIRECTORY as u64);
        match self.number {
            libc::SYS_openat => flags & creates != 0,
            number => CHANGING.contains(&number),
        }
    }

    /// Whether it asks the layers for something, so that it can fail.
    pub fn can_fail(&self) -> bool {
        self.changes() || ASKING.contains(&self.number)
    }

    pub fn opens(&self) -> bool {
        self.number == libc::SYS_openat
    }

    pub fn name(&self) -> String {
        let names = NAMES.iter().find(|(number, _)| *number == self.number);
        names.map_or_else(
            || format!("call {}", self.number),
            |(_, name)| (*name).to_owned(),
        )
    }
}

const CHANGING: &[i64] = &[
    libc::SYS_mkdirat,
    libc::SYS_mknodat,
    libc::SYS_symlinkat,
    libc::SYS_linkat,
    libc::SYS_unlinkat,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_fchmodat2,
    libc::SYS_fchown,
    libc::SYS_fchownat,
    libc::SYS_utimensat,
    libc::SYS_setxattr,
    libc::SYS_lsetxattr,
    libc::SYS_fsetxattr,
    libc::SYS_removexattr,
    libc::SYS_lremovexattr,
    libc::SYS_fremovexattr,
    libc::SYS_write,
    libc::SYS_pwrite64,
    libc::SYS_ftruncate,
    libc::SYS_fallocate,
    libc::SYS_copy_file_range,
    libc::SYS_sendfile,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_syncfs,
    libc::SYS_sync_file_range,
    libc::SYS_ioctl,
];

const ASKING: &[i64] = &[
    libc::SYS_openat,
    libc::SYS_statx,
    libc::SYS_newfstatat,
    libc::SYS_fstat,
    libc::SYS_getdents64,
    libc::SYS_readlinkat,
    libc::SYS_pread64,
    libc::SYS_read,
    libc::SYS_lseek,
    libc::SYS_getxattr,
    libc::SYS_lgetxattr,
    libc::SYS_fgetxattr,
    libc::SYS_listxattr,
    libc::SYS_llistxattr,
    libc::SYS_flistxattr,
    libc::SYS_name_to_handle_at,
];

macro_rules! names {
    ($($name:ident),* $(,)?) => { &[$((libc::$name, stringify!($name))),*] };
}

const NAMES: &[(i64, &str)] = names![
    SYS_mkdirat,
    SYS_mknodat,
    SYS_symlinkat,
    SYS_linkat,
    SYS_unlinkat,
    SYS_renameat,
    SYS_renameat2,
    SYS_fchmod,
    SYS_fchmodat,
    SYS_fchmodat2,
    SYS_fchown,
    SYS_fchownat,
    SYS_utimensat,
    SYS_setxattr,
    SYS_lsetxattr,
    SYS_fsetxattr,
    SYS_removexattr,
    SYS_lremovexattr,
    SYS_fremovexattr,
    SYS_write,
    SYS_pwrite64,
    SYS_ftruncate,
    SYS_fallocate,
    SYS_copy_file_range,
    SYS_sendfile,
    SYS_fsync,
    SYS_fdatasync,
    SYS_syncfs,
    SYS_sync_file_range,
    SYS_ioctl,
    SYS_openat,
    SYS_statx,
    SYS_newfstatat,
    SYS_fstat,
    SYS_getdents64,
    SYS_readlinkat,
    SYS_pread64,
    SYS_read,
    SYS_lseek,
    SYS_getxattr,
    SYS_lgetxattr,
    SYS_fgetxattr,
    SYS_listxattr,
    SYS_llistxattr,
    SYS_flistxattr,
    SYS_name_to_handle_at,
];
