//! The most memory that this process has occupied, and what it waited for.

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

/// Page faults that had to wait for a disk: `majflt` of `/proc/self/stat` (proc(5)), of all threads.
#[cfg(target_os = "linux")]
pub(crate) fn major_faults() -> Option<u64> {
    major_faults_in(&std::fs::read_to_string("/proc/self/stat").ok()?)
}

/// The twelfth field. The second, a name in parentheses, may hold anything.
#[cfg(target_os = "linux")]
fn major_faults_in(stat: &str) -> Option<u64> {
    stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(9)?.parse().ok()
}

/// Page faults that had to wait for a disk: `ru_majflt` of getrusage(2).
#[cfg(all(unix, not(target_os = "linux")))]
pub(crate) fn major_faults() -> Option<u64> {
    use nix::sys::resource::{UsageWho, getrusage};
    u64::try_from(getrusage(UsageWho::RUSAGE_SELF).ok()?.major_page_faults()).ok()
}

/// Not told on Windows, as the peak.
#[cfg(not(unix))]
pub(crate) fn major_faults() -> Option<u64> {
    None
}

/// Peak of the control group that limits this process, in bytes, where there is one.
pub(crate) fn control_group_peak_bytes() -> Option<u64> {
    #[cfg(target_os = "linux")]
    return metallic::memory::control_group_peak_bytes();
    #[cfg(not(target_os = "linux"))]
    None
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn major_faults_are_told_whatever_the_program_is_called() {
        let stat = "3123 (a) b (c) R 2 3 3 34816 3 4194304 990 11 42 13 0 0";
        assert_eq!(major_faults_in(stat), Some(42));
        assert_eq!(major_faults_in("3123 (sh"), None);
        assert!(major_faults().is_some());
    }

    #[test]
    fn the_peak_grows_with_what_is_touched() {
        const MORE: usize = 64 << 20;
        let before = peak_memory_bytes().unwrap();
        let touched = std::hint::black_box(vec![1_u8; MORE]);
        let after = peak_memory_bytes().unwrap();
        assert!(touched.len() == MORE && before > 0 && after > before + MORE as u64 / 2, "{before} {after}");
    }
}
