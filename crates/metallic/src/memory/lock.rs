//! Keeping the system from swapping out what is in memory.

/// Locks all memory of the process that is in use now, and what of it is touched later. A failure is a warning that says
/// what would help: a locked model is faster under pressure, but an unlocked one gives the same answers.
#[cfg(target_os = "linux")]
pub(crate) fn lock_memory() {
    use rustix::mm::{MlockAllFlags, mlockall};

    // What was not touched yet is not read in: some of it may never be.
    match mlockall(MlockAllFlags::CURRENT | MlockAllFlags::ONFAULT) {
        Ok(()) => tracing::info!(address_space_kib = address_space_kib(), "memory is locked"),
        Err(error) => {
            let needed = address_space_kib().map_or(String::new(), |kib| format!("at least {kib} or "));
            tracing::warn!(
                "memory is not locked: {error}: raise the limit with `ulimit -l` to {needed}unlimited"
            );
        }
    }
}

/// What a limit is compared with: `VmSize` of `/proc/self/status` (proc(5)).
#[cfg(target_os = "linux")]
fn address_space_kib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmSize:"))?;
    line.trim().strip_suffix("kB")?.trim_end().parse().ok()
}

/// Only Linux locks what is in use without reading in the rest.
#[cfg(not(target_os = "linux"))]
pub(crate) fn lock_memory() {
    tracing::warn!("memory is not locked: there is no way to on this system");
}
