//! What work took of the disk and of memory, for `--stats` and benchmarks.

use std::time::{Duration, Instant};

use metallic::Model;
use metallic::backend::DeviceStats;
use metallic::memory::{ExpertStats, StreamStats};

use crate::memory::{control_group_peak_bytes, major_faults, peak_memory_bytes};
use crate::terminal::human_bytes;

/// How many of `n` there are in a second; `None` if the clock saw no time pass.
pub(crate) fn per_second(n: f64, time: Duration) -> Option<f64> {
    (!time.is_zero()).then(|| n / time.as_secs_f64())
}

/// A rate in thousand millions for people, with so many decimals.
pub(crate) fn giga(rate: Option<f64>, decimals: usize) -> String {
    rate.map_or("unknown".to_owned(), |rate| format!("{:.decimals$}", rate / 1e9))
}

/// What was counted when some work began.
pub(crate) struct Meter {
    began: Instant,
    stream: Option<StreamStats>,
    device: Option<DeviceStats>,
    major_faults: Option<u64>,
}

/// What some work took.
#[derive(Clone, Debug)]
pub(crate) struct Cost {
    pub(crate) time: Duration,
    /// Where weights were swapped in.
    pub(crate) stream: Option<StreamStats>,
    /// Where a GPU computes.
    pub(crate) device: Option<DeviceStats>,
    pub(crate) major_faults: Option<u64>,
    /// Of the process since its start, as is the next.
    pub(crate) peak_bytes: Option<u64>,
    pub(crate) control_group_peak_bytes: Option<u64>,
}

impl Meter {
    pub(crate) fn start(model: &Model) -> Self {
        Meter {
            began: Instant::now(),
            stream: model.stream_stats(),
            device: model.device_stats(),
            major_faults: major_faults(),
        }
    }

    pub(crate) fn stop(self, model: &Model) -> Cost {
        Cost {
            time: self.began.elapsed(),
            stream: model.stream_stats().zip(self.stream).map(|(now, before)| now.since(before)),
            device: model.device_stats().zip(self.device).map(|(now, before)| now.since(before)),
            major_faults: major_faults().zip(self.major_faults).map(|(now, before)| now - before),
            peak_bytes: peak_memory_bytes(),
            control_group_peak_bytes: control_group_peak_bytes(),
        }
    }
}

impl Cost {
    /// A line for each thing that can be told.
    pub(crate) fn lines(&self) -> Vec<String> {
        let disk = self.stream.map(|stream| disk_line(&stream, self.time));
        let experts = self.stream.and_then(|stream| expert_line(&stream.experts, "in memory", "read"));
        let of_device =
            self.device.and_then(|device| expert_line(&device.experts, "on the GPU", "brought to it"));
        [
            Some(disk.unwrap_or_else(|| "disk: all weights are in memory".to_owned())),
            experts,
            self.device.map(device_line),
            of_device,
            self.memory_line(),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    fn memory_line(&self) -> Option<String> {
        let peak = self.peak_bytes.map(|bytes| format!("peak {}", human_bytes(bytes)));
        let group = self.control_group_peak_bytes;
        let group = group.map(|bytes| format!("peak of the control group {}", human_bytes(bytes)));
        let faults = self.major_faults.map(|n| format!("{n} major page faults"));
        let parts: Vec<String> = [peak, group, faults].into_iter().flatten().collect();
        (!parts.is_empty()).then(|| format!("memory: {}", parts.join(", ")))
    }
}

fn device_line(stats: DeviceStats) -> String {
    let DeviceStats {
        n_dispatches,
        n_submissions,
        n_waits,
        swapped_bytes,
        experts: _,
        n_compiled,
        compile_time,
    } = stats;
    let swapped = match swapped_bytes {
        0 => String::new(),
        bytes => format!(", {} of weights swapped in", human_bytes(bytes)),
    };
    let compiled = match n_compiled {
        0 => String::new(),
        n => format!(", {n} kernels compiled in {:.1} s", compile_time.as_secs_f64()),
    };
    format!(
        "GPU: {n_dispatches} kernels in {n_submissions} submissions, waited for {n_waits} times{swapped}{compiled}"
    )
}

fn disk_line(stream: &StreamStats, time: Duration) -> String {
    let way = if stream.direct { "past" } else { "through" };
    let rate = giga(per_second(stream.read_bytes as f64, time), 2);
    format!(
        "disk: {} read by {} {way} the page cache, {rate} GB/s; {:.1} of {:.1} s spent waiting for it",
        human_bytes(stream.read_bytes),
        stream.reader.name(),
        stream.waited.as_secs_f64(),
        time.as_secs_f64(),
    )
}

fn expert_line(experts: &ExpertStats, there: &str, brought: &str) -> Option<String> {
    let rate = 100.0 * experts.hit_rate()?;
    let ExpertStats { hits, misses, .. } = experts;
    Some(format!(
        "experts: {rate:.1} % of their bytes were {there}; {hits} matrices found, {misses} {brought}"
    ))
}

#[cfg(test)]
mod tests {
    use metallic::memory::ReaderKind;

    use super::*;

    #[test]
    fn lines_tell_what_is_known() {
        let experts = ExpertStats { hits: 3, misses: 9, hit_bytes: 25, miss_bytes: 75 };
        let (read_bytes, waited) = (3 << 30, Duration::from_millis(1500));
        let stream = StreamStats { reader: ReaderKind::Threads, direct: true, read_bytes, waited, experts };
        let cost = Cost {
            time: Duration::from_secs(2),
            stream: Some(stream),
            device: None,
            major_faults: Some(7),
            peak_bytes: Some(1 << 30),
            control_group_peak_bytes: None,
        };
        let name = ReaderKind::Threads.name();
        let disk = format!(
            "disk: 3.0 GiB read by {name} past the page cache, 1.61 GB/s; 1.5 of 2.0 s spent waiting for it"
        );
        let in_memory = "experts: 25.0 % of their bytes were in memory; 3 matrices found, 9 read";
        assert_eq!(cost.lines(), [&disk, in_memory, "memory: peak 1.0 GiB, 7 major page faults"]);
        let resident =
            Cost { stream: None, major_faults: None, control_group_peak_bytes: Some(2 << 30), ..cost };
        let memory = "memory: peak 1.0 GiB, peak of the control group 2.0 GiB";
        assert_eq!(resident.lines(), ["disk: all weights are in memory", memory]);
        let device = DeviceStats {
            n_dispatches: 40,
            n_submissions: 3,
            n_waits: 2,
            swapped_bytes: 3 << 20,
            experts,
            n_compiled: 7,
            compile_time: Duration::from_millis(1200),
        };
        let gpu = "GPU: 40 kernels in 3 submissions, waited for 2 times, 3.0 MiB of weights swapped in, \
                   7 kernels compiled in 1.2 s";
        let experts = "experts: 25.0 % of their bytes were on the GPU; 3 matrices found, 9 brought to it";
        assert_eq!(Cost { device: Some(device), ..resident }.lines()[1..3], [gpu, experts]);
    }
}
