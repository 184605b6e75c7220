//! How many bytes a process may hold: a number that was given, or what the system has to spare.

use std::fmt;

#[cfg(target_os = "linux")]
use super::control_groups;

/// The most memory that a process is to hold, all together: weights, keys and values, buffers, code and
/// stacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryBudget {
    /// Bytes of main memory.
    pub ram_bytes: u64,
    /// Where the number comes from.
    pub source: BudgetSource,
}

/// Where a [`MemoryBudget`] comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BudgetSource {
    /// Somebody chose it.
    Given,
    /// A control group of the process leaves less than the machine has, as that of a container may.
    ControlGroup,
    /// The memory of the machine that is available.
    Machine,
}

/// Of the memory available, one part in this many is left to others: to programs that grow while a model runs,
/// and to what the kernel keeps for us but nobody can plan to the byte, such as page tables, sockets and
/// requests under way.
const RESERVE_SHARE: u64 = 16;

/// The least that is left, about what a shell, its tools and their kernel memory take where all memory is
/// little; but no more than half.
const MIN_RESERVE_BYTES: u64 = 64 << 20;

/// The most that is left: what others need does not grow with the machine.
const MAX_RESERVE_BYTES: u64 = 1 << 30;

/// What this process and the kernel hold for it before it loads anything: the system counts it as used, and plans count
/// it as well. 2 to 5 MB were measured.
const OWN_BYTES: u64 = 8 << 20;

impl MemoryBudget {
    /// A budget that somebody chose. Nothing is taken off it.
    pub fn given(ram_bytes: u64) -> Self {
        Self { ram_bytes, source: BudgetSource::Given }
    }

    /// What the system has to spare at this moment, less a sixteenth for others (at least 64 MiB and at most
    /// 1 GiB, but no more than half): the least of the machine's available memory and of what each control group of the process leaves
    /// (Linux, cgroup v1 and v2, all ancestors). The page cache counts as available, since the system drops it
    /// for whoever needs memory. What this process holds already counts as taken, so this is to be asked before
    /// anything large is allocated.
    ///
    /// `None` where the system does not tell.
    pub fn auto() -> Option<Self> {
        let Self { ram_bytes: available_bytes, source } = Self::available(0)?;
        let budget = Self { ram_bytes: less_reserve(available_bytes), source };
        tracing::debug!(available_bytes, ram_bytes = budget.ram_bytes, %source, "memory");
        Some(budget)
    }

    /// The most that the system lets this process hold at this moment: as [`auto`](Self::auto), but nothing is left to
    /// others, and what the process took when it started is not counted as taken.
    ///
    /// `None` where the system does not tell.
    pub fn allowed() -> Option<Self> {
        Self::available(OWN_BYTES)
    }

    /// What the system has to spare, and up to `own_bytes` of what is taken.
    fn available(own_bytes: u64) -> Option<Self> {
        let machine = available_on_machine()
            .map(|bytes| Self { ram_bytes: bytes.saturating_add(own_bytes), source: BudgetSource::Machine });
        #[cfg(target_os = "linux")]
        let groups = control_groups::available_bytes(own_bytes)
            .map(|ram_bytes| Self { ram_bytes, source: BudgetSource::ControlGroup });
        #[cfg(not(target_os = "linux"))]
        let groups = None;
        machine.into_iter().chain(groups).min_by_key(|budget| budget.ram_bytes)
    }

    /// The lesser of two budgets.
    #[must_use]
    pub fn at_most(self, other: Self) -> Self {
        if other.ram_bytes < self.ram_bytes { other } else { self }
    }
}

/// Bytes that can be allocated on the whole machine without swapping.
#[cfg(target_os = "linux")]
fn available_on_machine() -> Option<u64> {
    mem_available(&std::fs::read_to_string("/proc/meminfo").ok()?)
}

/// `MemAvailable` of `/proc/meminfo` (proc(5)), in bytes.
#[cfg(target_os = "linux")]
fn mem_available(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim_end().parse().ok()?;
    kib.checked_mul(1024)
}

/// Bytes that can be allocated on the whole machine, as far as its system tells.
#[cfg(not(target_os = "linux"))]
fn available_on_machine() -> Option<u64> {
    let mut system = sysinfo::System::new().ok()?;
    system.refresh_memory();
    // Zero stands for unknown.
    Some(system.available_memory()).filter(|bytes| *bytes > 0)
}

fn less_reserve(available_bytes: u64) -> u64 {
    let reserve = (available_bytes / RESERVE_SHARE).clamp(MIN_RESERVE_BYTES, MAX_RESERVE_BYTES);
    available_bytes - reserve.min(available_bytes / 2)
}

impl fmt::Display for BudgetSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Given => "as given",
            Self::ControlGroup => "what a control group leaves",
            Self::Machine => "what the machine has to spare",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reserve_is_left_and_never_more_than_there_is() {
        const MIB: u64 = 1 << 20;
        for (available, budget) in [
            (0, 0),
            (60, 30),
            (128, 64),
            (130, 66),
            (1024, 960),
            (4096, 3840),
            (16 << 10, 15 << 10),
            (64 << 10, 63 << 10),
        ] {
            assert_eq!(less_reserve(available * MIB), budget * MIB, "{available} MiB");
        }
        assert_eq!(less_reserve(u64::MAX), u64::MAX - MAX_RESERVE_BYTES);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn meminfo_of_any_kind() {
        let meminfo =
            "MemTotal:       24607104 kB\nMemFree:  1 kB\nMemAvailable:   19789040 kB\nBuffers: 2 kB\n";
        assert_eq!(mem_available(meminfo), Some(19_789_040 << 10));
        for malformed in ["", "MemAvailable:", "MemAvailable: kB", "MemAvailable: -1 kB", "MemAvailable: 12"]
        {
            assert_eq!(mem_available(malformed), None, "{malformed:?}");
        }
        assert_eq!(mem_available(&format!("MemAvailable: {} kB", u64::MAX)), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_machine_has_memory_to_spare() {
        let budget = MemoryBudget::auto().unwrap();
        assert!(budget.ram_bytes > 0 && budget.source != BudgetSource::Given, "{budget:?}");
        let allowed = MemoryBudget::allowed().unwrap();
        assert!(allowed.ram_bytes > budget.ram_bytes && allowed.source != BudgetSource::Given, "{allowed:?}");
        let given = MemoryBudget::given(7);
        assert_eq!((given.ram_bytes, given.at_most(allowed), allowed.at_most(given)), (7, given, given));
        assert_eq!(MemoryBudget::given(u64::MAX).at_most(allowed), allowed);
    }
}
