//! What is said of a test: a row of a table, or a JSON object with the names that `llama-bench` gives.

use std::io::{self, Write};
use std::time::Duration;

use metallic::engine::Stats;
use metallic::model::{Capacity, TokenWork};
use metallic::{GgufFile, Isa};
use serde::Serialize;

use super::{Measured, Rates, Test};
use crate::args::BenchSpec;
use crate::failure::{Result, one_line};
use crate::model_file;
use crate::table::{Align, Table};
use crate::terminal::{Style, Terminal, human_bytes};

/// The model that is measured.
pub(super) struct Subject {
    filename: String,
    /// The file's name without folder and ending.
    name: String,
    architecture: String,
    n_bytes: u64,
    n_params: u64,
    work: TokenWork,
    isa: Isa,
}

impl Subject {
    pub(super) fn new(file: &GgufFile, isa: Isa) -> Result<Self> {
        let (gguf, path) = (file.gguf(), file.path());
        let unusable = |e| model_file::unusable(path, e);
        let work = TokenWork::from_gguf(&gguf).map_err(unusable)?;
        let config = metallic::model::read_config(&gguf).map_err(unusable)?;
        Ok(Subject {
            filename: path.display().to_string(),
            name: path.file_stem().unwrap_or_default().display().to_string(),
            architecture: config.architecture,
            n_bytes: gguf.tensors().map(|tensor| tensor.n_bytes()).sum(),
            n_params: gguf.tensors().map(|tensor| tensor.n_elements()).sum(),
            work,
            isa,
        })
    }
}

/// A test that was run.
#[derive(Serialize)]
pub(super) struct Row {
    engine: &'static str,
    engine_version: &'static str,
    model_filename: String,
    #[serde(skip)]
    model_name: String,
    #[serde(skip)]
    test: Test,
    model_type: String,
    model_size: u64,
    model_n_params: u64,
    n_batch: usize,
    n_ubatch: usize,
    n_threads: u16,
    type_k: &'static str,
    type_v: &'static str,
    n_prompt: usize,
    n_gen: usize,
    n_depth: usize,
    n_parallel: usize,
    /// What guessed, where an engine generated.
    spec: Option<&'static str>,
    n_guessed: Option<usize>,
    n_accepted: Option<usize>,
    /// Tokens a pass over the weights, and rows that it computed, guesses included; of a sequence.
    tokens_per_pass: Option<f64>,
    rows_per_pass: Option<f64>,
    test_time: String,
    avg_ns: u64,
    stddev_ns: u64,
    avg_ts: f64,
    stddev_ts: f64,
    samples_ns: Vec<u64>,
    samples_ts: Vec<f64>,
    /// Of the CPU.
    isa: &'static str,
    /// What computed beside the CPU.
    devices: Vec<String>,
    /// Gigabytes a second that plain reads of memory reached just before, where there was room to measure it.
    read_gb_s: Option<f64>,
    /// Gigabytes a second that copies within the GPU's memory read and wrote just before.
    gpu_copy_gb_s: Option<f64>,
    /// Thousand million operations a second that the GPU reached just before, in a product like the model's of many tokens.
    gpu_product_gop_s: Option<f64>,
    /// Gigabytes of weights a second, of generation.
    weights_gb_s: Option<f64>,
    /// Bytes of weights swapped in for each token, where some are.
    streamed_bytes_per_token: Option<f64>,
    /// Gigabytes of them a second.
    streamed_gb_s: Option<f64>,
    /// The share of the time that computing waited for them.
    stream_waited: Option<f64>,
    /// What reads them, and whether past the page cache.
    stream_reader: Option<&'static str>,
    stream_direct: Option<bool>,
    /// Gigabytes a second that reads of the file alone reached just before.
    disk_gb_s: Option<f64>,
    /// What streaming reached of that.
    disk_share: Option<f64>,
    /// Matrices of experts that were in memory, those that were read, and the share of the former in bytes.
    expert_hits: Option<u64>,
    expert_misses: Option<u64>,
    expert_hit_rate: Option<f64>,
    /// Of the process since its start, loading included.
    peak_memory_bytes: Option<u64>,
    /// Of the control group that limits it, where there is one.
    control_group_peak_bytes: Option<u64>,
    /// During the repetitions.
    major_faults: Option<u64>,
    /// Thousand millions of multiplications and additions a second, in products with weights.
    gop_s: f64,
}

impl Row {
    pub(super) fn new(
        subject: &Subject,
        test: Test,
        n_threads: u16,
        capacity: Capacity,
        rates: Rates,
        began: jiff::Timestamp,
        measured: Measured,
    ) -> Self {
        let Measured { samples, cost, devices, guesses } = measured;
        // Passes count once for each sequence, and no first token of an answer is among those generated.
        let per_pass = |n: fn(&Stats) -> usize| {
            guesses.filter(|stats| stats.n_passes > 0).map(|stats| n(&stats) as f64 / stats.n_passes as f64)
        };
        let stream = cost.stream;
        let Capacity { n_batch, kv_type, .. } = capacity;
        let n_parallel = test.n_parallel as f64;
        let n_tokens = (test.n_prompt + test.n_gen) as f64 * n_parallel;
        let samples_ns: Vec<u64> = samples.iter().map(|time| time.as_nanos() as u64).collect();
        let samples_ts: Vec<f64> = samples.iter().map(|time| n_tokens / time.as_secs_f64()).collect();
        let (n_samples, total_s) = (samples.len() as f64, samples.iter().sum::<Duration>().as_secs_f64());
        let (avg_ns, stddev_ns) = mean_and_deviation(samples_ns.iter().map(|ns| *ns as f64));
        let (avg_ts, stddev_ts) = mean_and_deviation(samples_ts.iter().copied());
        let streamed_rate = stream.map(|stats| stats.read_bytes as f64 / total_s);
        let experts = stream.map(|stats| stats.experts).filter(|experts| experts.hit_rate().is_some());
        let TokenWork { layers, head } = subject.work;
        // A prompt takes logits of its last token alone.
        let n_logits = (test.n_prompt.min(1) + test.n_gen) as f64 * n_parallel;
        let multiply_adds = layers.multiply_adds as f64 * n_tokens + head.multiply_adds as f64 * n_logits;
        let weight_bytes = (layers.weight_bytes + head.weight_bytes) as f64;
        Row {
            engine: "metallic",
            engine_version: env!("CARGO_PKG_VERSION"),
            model_filename: subject.filename.clone(),
            model_name: subject.name.clone(),
            test,
            model_type: subject.architecture.clone(),
            model_size: subject.n_bytes,
            model_n_params: subject.n_params,
            n_batch,
            n_ubatch: n_batch,
            n_threads,
            type_k: kv_type.name(),
            type_v: kv_type.name(),
            n_prompt: test.n_prompt,
            n_gen: test.n_gen,
            n_depth: test.n_depth,
            n_parallel: test.n_parallel,
            spec: test.spec.map(BenchSpec::name),
            n_guessed: guesses.map(|stats| stats.n_guessed),
            n_accepted: guesses.map(|stats| stats.n_accepted),
            tokens_per_pass: per_pass(|stats| stats.n_generated),
            rows_per_pass: per_pass(|stats| stats.n_rows),
            test_time: began.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            avg_ns: avg_ns as u64,
            stddev_ns: stddev_ns as u64,
            avg_ts,
            stddev_ts,
            samples_ns,
            samples_ts,
            isa: subject.isa.name(),
            devices,
            read_gb_s: rates.memory.map(|rate| rate / 1e9),
            gpu_copy_gb_s: rates.gpu.copy_bytes.map(|rate| rate / 1e9),
            gpu_product_gop_s: rates.gpu.prefill_ops.map(|rate| rate / 1e9),
            weights_gb_s: (test.n_prompt == 0)
                .then_some(weight_bytes * avg_ts / n_parallel.min(n_batch as f64) / 1e9),
            streamed_bytes_per_token: stream.map(|stats| stats.read_bytes as f64 / (n_tokens * n_samples)),
            streamed_gb_s: streamed_rate.map(|rate| rate / 1e9),
            stream_waited: stream.map(|stats| stats.waited.as_secs_f64() / total_s),
            stream_reader: stream.map(|stats| stats.reader.name()),
            stream_direct: stream.map(|stats| stats.direct),
            disk_gb_s: rates.disk.map(|rate| rate / 1e9),
            disk_share: streamed_rate.zip(rates.disk).map(|(rate, disk)| rate / disk),
            expert_hits: experts.map(|experts| experts.hits),
            expert_misses: experts.map(|experts| experts.misses),
            expert_hit_rate: experts.and_then(|experts| experts.hit_rate()),
            peak_memory_bytes: cost.peak_bytes,
            control_group_peak_bytes: cost.control_group_peak_bytes,
            major_faults: cost.major_faults,
            gop_s: 2.0 * multiply_adds / n_tokens * avg_ts / 1e9,
        }
    }

    /// The CPU's instruction set, and what computed beside it.
    fn computed_by(&self) -> String {
        let devices = self.devices.iter().map(|device| one_line(device));
        std::iter::once(self.isa.to_owned()).chain(devices).collect::<Vec<_>>().join(" + ")
    }

    /// How fast weights were swapped in, if they were.
    fn swapped_in(&self) -> Option<String> {
        let (rate, waited) = (self.streamed_gb_s?, 100.0 * self.stream_waited?);
        let of_disk = self.disk_gb_s.map_or(String::new(), |disk| format!(" of {disk:.2}"));
        let experts =
            self.expert_hit_rate.map(|rate| format!(", {:.0} % of experts in memory", 100.0 * rate));
        Some(format!("{rate:.2}{of_disk} swapped in, {waited:.0} % waiting{}", experts.unwrap_or_default()))
    }
}

/// Writes an array of the rows.
pub(super) fn write_json(out: &mut impl Write, rows: &[Row]) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut *out, rows)?;
    writeln!(out)
}

/// Writes the rows in columns.
pub(super) fn write_table(out: &mut impl Write, rows: &[Row], terminal: &Terminal) -> io::Result<()> {
    let mut table = Table::new([
        ("MODEL", Align::Left),
        ("SIZE", Align::Right),
        ("PARAMS", Align::Right),
        ("COMPUTED BY", Align::Left),
        ("THREADS", Align::Right),
        ("TEST", Align::Left),
        ("T/S", Align::Right),
        ("GB/S", Align::Right),
        ("GOP/S", Align::Right),
    ]);
    for row in rows {
        let weights = match (row.swapped_in(), row.weights_gb_s) {
            (Some(swapped_in), _) => swapped_in,
            (None, Some(rate)) => {
                let (read, whose) =
                    if row.devices.is_empty() { (row.read_gb_s, "") } else { (row.gpu_copy_gb_s, " (GPU)") };
                let read = read.map_or("unknown".to_owned(), |read| format!("{read:.1}"));
                format!("{rate:.1} of {read}{whose}")
            }
            (None, None) => "-".to_owned(),
        };
        table.push([
            one_line(&row.model_name),
            human_bytes(row.model_size),
            format!("{:.1} M", row.model_n_params as f64 / 1e6),
            row.computed_by(),
            row.n_threads.to_string(),
            row.test.name(),
            format!("{:.2} ± {:.2}", row.avg_ts, row.stddev_ts),
            weights,
            match row.gpu_product_gop_s.filter(|_| row.n_prompt > 0) {
                Some(product) => format!("{:.1} of {product:.1} (GPU)", row.gop_s),
                None => format!("{:.1}", row.gop_s),
            },
        ]);
    }
    table.write(out, |heading| terminal.paint(Style::Bold, heading))
}

/// The mean, and the standard deviation of a sample (divided by n − 1; 0 of a single value).
fn mean_and_deviation(values: impl Iterator<Item = f64> + Clone) -> (f64, f64) {
    let n = values.clone().count() as f64;
    let mean = values.clone().sum::<f64>() / n;
    let squares: f64 = values.map(|value| (value - mean) * (value - mean)).sum();
    (mean, (squares / (n - 1.0).max(1.0)).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mean_and_deviation_by_hand() {
        assert_eq!(mean_and_deviation([2.0, 4.0, 6.0].into_iter()), (4.0, 2.0));
        assert_eq!(mean_and_deviation([3.0].into_iter()), (3.0, 0.0));
    }
}
