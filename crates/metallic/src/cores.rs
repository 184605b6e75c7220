//! How many threads are worth starting.

use std::thread;

/// The number of threads that compute best: as many as there are physical cores among the processors that
/// this process may use, and no more than its quota lets run at once.
///
/// Two threads of one core share its arithmetic and its caches, so the second gains nothing here. Where
/// the system doesn't say which processors share a core, each counts as one.
pub fn default_threads() -> usize {
    let at_once = thread::available_parallelism().map_or(1, usize::from);
    physical_cores().map_or(at_once, |n_cores| n_cores.clamp(1, at_once))
}

/// Distinct cores among the processors of the affinity mask.
#[cfg(target_os = "linux")]
fn physical_cores() -> Option<usize> {
    use rustix::thread::{CpuSet, sched_getaffinity};

    let allowed = sched_getaffinity(None).ok()?;
    let allowed = (0..CpuSet::MAX_CPU).filter(|cpu| allowed.is_set(*cpu));
    let siblings = allowed.map(|cpu| {
        let path = format!("/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list");
        std::fs::read_to_string(path).ok()
    });
    // A list names all processors of a core, so those of one core have the same.
    let mut lists = siblings.collect::<Option<Vec<_>>>()?;
    lists.sort_unstable();
    lists.dedup();
    Some(lists.len())
}

#[cfg(not(target_os = "linux"))]
fn physical_cores() -> Option<usize> {
    None
}

#[cfg(test)]
mod tests {
    #[test]
    fn there_is_at_least_one_thread_and_none_without_a_processor() {
        let n = super::default_threads();
        assert!(n >= 1 && n <= std::thread::available_parallelism().unwrap().get());
    }
}
