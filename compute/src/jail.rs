//! What confines a worker process, beyond WASM itself: should a guest escape its sandbox, it finds a process
//! that can compute, talk to its node over two pipes, and use one folder.
//!
//! Four bars, each applied as far as the kernel has it, and reported:
//! - *no new privileges*: no set-uid program can give any back;
//! - *limits*: few descriptors, no core dumps (a dump would hold what other tasks left in memory);
//! - *landlock*: of all files, the scratch folder and (to read) the compiled programs and randomness; no TCP, no
//!   signals out;
//! - *seccomp*: the system calls in [`ALLOWED`] and no others. No sockets, no exec, no fork, no ptrace.
//!   What is not allowed fails with `EPERM` rather than killing, so that a libc that merely tries something
//!   newer falls back.

use std::path::Path;

use landlock::{
    ABI, Access, AccessFs, AccessNet, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetStatus, Scope,
    path_beneath_rules,
};
use rustix::process::{Resource, Rlimit, setrlimit};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};
use serde::{Deserialize, Serialize};

/// Descriptors of a worker: two pipes and what its guest opens.
const MAX_DESCRIPTORS: u64 = 512;
/// The newest landlock that is asked for; older kernels give what they have.
const LANDLOCK_ABI: ABI = ABI::V6;

/// How far one bar of the jail holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Bar {
    /// As meant.
    Full,
    /// As far as this kernel can.
    Partial,
    /// The kernel has no such thing, or refused.
    Absent,
}

/// What confines the worker processes of this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JailReport {
    /// System calls.
    pub seccomp: Bar,
    /// Files.
    pub landlock: Bar,
    /// Descriptors and core dumps.
    pub limits: Bar,
}

/// Restricts files. Applies to the calling thread and those it starts, so it comes before any other thread.
pub(crate) fn confine_files(scratch: &Path, cache: &Path) -> Bar {
    let restrict = || -> Result<RulesetStatus, landlock::RulesetError> {
        let read = AccessFs::ReadFile | AccessFs::ReadDir;
        let all = AccessFs::from_all(LANDLOCK_ABI);
        let ruleset = Ruleset::default()
            .handle_access(all)?
            .handle_access(AccessNet::from_all(LANDLOCK_ABI))?
            .scope(Scope::from_all(LANDLOCK_ABI))?
            .create()?
            .add_rules(path_beneath_rules([scratch], all & !AccessFs::Execute))?
            .add_rules(path_beneath_rules([cache], read))?
            // A statically linked program takes its randomness from here, as it cannot look `getrandom` up.
            .add_rules(path_beneath_rules(["/dev/random", "/dev/urandom"], AccessFs::ReadFile))?;
        Ok(ruleset.restrict_self()?.ruleset)
    };
    match restrict() {
        Ok(RulesetStatus::FullyEnforced) => Bar::Full,
        Ok(RulesetStatus::PartiallyEnforced) => Bar::Partial,
        Ok(RulesetStatus::NotEnforced) | Err(_) => Bar::Absent,
    }
}

/// Restricts resources of the process.
pub(crate) fn confine_resources() -> Bar {
    let limit = |resource, value| setrlimit(resource, Rlimit { current: Some(value), maximum: Some(value) });
    match (limit(Resource::Core, 0), limit(Resource::Nofile, MAX_DESCRIPTORS)) {
        (Ok(()), Ok(())) => Bar::Full,
        (Err(_), Err(_)) => Bar::Absent,
        _ => Bar::Partial,
    }
}

/// Restricts system calls, of all threads, and thereby ends the starting of threads and of programs.
pub(crate) fn confine_calls() -> Bar {
    let apply = || -> Result<(), seccompiler::Error> {
        let rules = ALLOWED.iter().chain(ALLOWED_HERE).map(|call| (*call, Vec::new())).collect();
        let denied = SeccompAction::Errno(libc::EPERM.unsigned_abs());
        let target = std::env::consts::ARCH.try_into()?;
        let filter: BpfProgram =
            SeccompFilter::new(rules, denied, SeccompAction::Allow, target)?.try_into()?;
        seccompiler::apply_filter_all_threads(&filter)
    };
    if apply().is_ok() { Bar::Full } else { Bar::Absent }
}

/// What a guest's run needs of the kernel.
const ALLOWED: &[libc::c_long] = &[
    // The two pipes and the runtime that waits on them.
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_close,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_ppoll,
    libc::SYS_fcntl,
    libc::SYS_eventfd2,
    // Memory, and the images of programs that guests start from.
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mprotect,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_brk,
    libc::SYS_memfd_create,
    libc::SYS_membarrier,
    // Files: those of the scratch folder, which landlock sees to. No links across folders, no device nodes.
    libc::SYS_openat,
    libc::SYS_openat2,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_fstatfs,
    libc::SYS_lseek,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_preadv,
    libc::SYS_pwritev,
    libc::SYS_preadv2,
    libc::SYS_pwritev2,
    libc::SYS_ftruncate,
    libc::SYS_fallocate,
    libc::SYS_fadvise64,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_getdents64,
    libc::SYS_mkdirat,
    libc::SYS_unlinkat,
    libc::SYS_renameat2,
    libc::SYS_symlinkat,
    libc::SYS_readlinkat,
    libc::SYS_utimensat,
    libc::SYS_dup,
    // Time, chance, and waiting.
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_gettimeofday,
    libc::SYS_getrandom,
    libc::SYS_futex,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    // Signals: WASM traps are signals that wasmtime handles.
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_restart_syscall,
    // The process itself. `tgkill` reaches no other process: it must name one's own thread group in `abort`,
    // and landlock's scope keeps signals in.
    libc::SYS_getpid,
    libc::SYS_getppid,
    libc::SYS_gettid,
    libc::SYS_tgkill,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

/// Older forms of the same, which only this architecture has.
#[cfg(target_arch = "x86_64")]
const ALLOWED_HERE: &[libc::c_long] = &[
    libc::SYS_open,
    libc::SYS_stat,
    libc::SYS_lstat,
    libc::SYS_access,
    libc::SYS_poll,
    libc::SYS_epoll_wait,
    libc::SYS_mkdir,
    libc::SYS_rmdir,
    libc::SYS_unlink,
    libc::SYS_rename,
    libc::SYS_renameat,
    libc::SYS_readlink,
    libc::SYS_time,
];
/// Other architectures began with the newer calls.
#[cfg(not(target_arch = "x86_64"))]
const ALLOWED_HERE: &[libc::c_long] = &[];
