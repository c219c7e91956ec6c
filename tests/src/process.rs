//! What the kernel says about processes, and what is said to them.

use std::fs;

use rustix::process::{Pid, Signal, kill_process};

/// Sends `signal` to a process that this test started and has not waited for yet.
pub(crate) fn send(pid: u32, signal: Signal) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).expect("a process id of a child");
    kill_process(pid, signal).expect("a child can be sent a signal");
}

/// The living processes of a group; those that are dead and only not waited for yet are not among them.
pub(crate) fn members(group: u32) -> Vec<u32> {
    let folders = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = folders.filter_map(|folder| folder.file_name().to_str()?.parse().ok());
    pids.filter(|pid| is_alive_in(*pid, group)).collect()
}

fn is_alive_in(pid: u32, group: u32) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    // The name, in parentheses, may hold anything; behind it come state, parent and group.
    let mut fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let (state, of_group) = (fields.next(), fields.nth(1));
    state.is_some_and(|state| state != "Z" && state != "X") && of_group == Some(&group.to_string())
}

/// The most memory that a process had resident so far, in bytes.
pub(crate) fn peak_resident_bytes(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}
