//! The most memory that this process has occupied.

/// Peak resident set of this process, in bytes, where the system tells. It counts mapped model pages
/// that were in memory, so it is what the model and everything around it really took.
///
/// Linux: `VmHWM` of `/proc/self/status` (proc(5)); `getrusage` would also count the parent's memory
/// from before the program was executed.
#[cfg(target_os = "linux")]
pub(crate) fn peak_memory_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim_end().parse().ok()?;
    kib.checked_mul(1024)
}

/// Peak resident set of this process, in bytes: `ru_maxrss` of getrusage(2), in bytes on Apple's
/// systems and in kibibytes on the others.
#[cfg(all(unix, not(target_os = "linux")))]
pub(crate) fn peak_memory_bytes() -> Option<u64> {
    use nix::sys::resource::{UsageWho, getrusage};
    let unit = if cfg!(target_vendor = "apple") { 1 } else { 1024 };
    let peak = getrusage(UsageWho::RUSAGE_SELF).ok()?.max_rss();
    u64::try_from(peak).ok()?.checked_mul(unit)
}

/// Not told on Windows: its call has no safe wrapper in a crate we use.
#[cfg(not(unix))]
pub(crate) fn peak_memory_bytes() -> Option<u64> {
    None
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn the_peak_grows_with_what_is_touched() {
        const MORE: usize = 64 << 20;
        let before = peak_memory_bytes().unwrap();
        let touched = std::hint::black_box(vec![1_u8; MORE]);
        let after = peak_memory_bytes().unwrap();
        assert!(touched.len() == MORE && before > 0 && after > before + MORE as u64 / 2, "{before} {after}");
    }
}
