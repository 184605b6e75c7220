//! What happened, in numbers for Prometheus, of each model that is loaded. Its text format is described at
//! <https://prometheus.io/docs/instrumenting/exposition_formats/>.

use std::fmt::{Display, Write as _};
use std::time::Duration;

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};

use crate::host::Counts;
use crate::service::{Known, Service};

/// Seconds that divide times: from between two tokens of a small model to a long prompt's.
const BOUNDS: [f64; 12] = [0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0];

/// How often something took how long.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Histogram {
    /// How many took no longer than each bound, and longer than the one before.
    counts: [u64; BOUNDS.len()],
    n: u64,
    sum: f64,
}

impl Histogram {
    pub(crate) fn add(&mut self, time: Duration) {
        let seconds = time.as_secs_f64();
        if let Some(bucket) = BOUNDS.iter().position(|bound| seconds <= *bound) {
            self.counts[bucket] += 1;
        }
        self.n += 1;
        self.sum += seconds;
    }
}

/// Everything.
pub(crate) async fn all(State(service): State<Service>) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text(&service.known())).into_response()
}

fn text(known: &[Known]) -> String {
    let mut text = Text(String::new());
    let loaded: Vec<_> = known
        .iter()
        .filter_map(|known| {
            let (host, outline) = known.loaded.as_ref()?;
            Some((quoted(&known.name), host.counts(), host.n_sequences(), outline))
        })
        .collect();
    let mut each = |name: &str, kind: &str, help: &str, value: &dyn Fn(&Counts) -> f64| {
        text.head(name, kind, help);
        loaded.iter().for_each(|(model, counts, ..)| text.line(name, &[("model", model)], value(counts)));
    };
    each("requests_begun_total", "counter", "Requests that were begun.", &|counts| counts.n_begun as f64);
    each("requests_total", "counter", "Requests that have ended.", &|counts| counts.n_ended as f64);
    each("requests_failed_total", "counter", "Of them, those that failed.", &|counts| counts.n_failed as f64);
    each("requests", "gauge", "Requests that wait or are being answered.", &|counts| counts.n_open as f64);
    each("prompt_tokens_total", "counter", "Tokens of prompts that were read.", &|counts| {
        counts.n_read as f64
    });
    each("cached_tokens_total", "counter", "Tokens of prompts that were cached.", &|counts| {
        counts.n_cached as f64
    });
    each("generated_tokens_total", "counter", "Tokens of answers.", &|counts| counts.n_generated as f64);
    each("prompt_seconds_total", "counter", "Time in passes that read prompts.", &|counts| {
        counts.prefill.as_secs_f64()
    });
    each("generation_seconds_total", "counter", "Time in passes that made answers.", &|counts| {
        counts.decode.as_secs_f64()
    });
    each("disk_read_bytes_total", "counter", "Bytes of weights that were swapped in.", &|counts| {
        counts.disk_bytes as f64
    });
    each("disk_wait_seconds_total", "counter", "Time that computing waited for them.", &|counts| {
        counts.disk_wait.as_secs_f64()
    });

    text.head("queue", "gauge", "Requests that wait while others are answered.");
    for (model, counts, n_sequences, _) in &loaded {
        text.line("queue", &[("model", model)], counts.n_open.saturating_sub(*n_sequences));
    }
    for (name, help, histogram) in [
        (
            "first_token_seconds",
            "Time from a request to the first token of its answer.",
            (|counts| &counts.first_token) as fn(&Counts) -> &Histogram,
        ),
        ("token_seconds", "Time between the tokens of an answer.", |counts| &counts.between_tokens),
    ] {
        text.head(name, "histogram", help);
        for (model, counts, ..) in &loaded {
            text.histogram(name, model, histogram(counts));
        }
    }
    text.head("bytes", "gauge", "What lies where.");
    for (model, _, _, outline) in &loaded {
        for thing in &outline.things {
            let labels = [("model", &**model), ("tier", &thing.tier), ("thing", &thing.name)];
            text.line("bytes", &labels, thing.bytes);
        }
    }
    text.0
}

/// The text as it is written.
struct Text(String);

impl Text {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP metallic_{name} {help}\n# TYPE metallic_{name} {kind}");
    }

    fn line(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        let labels: Vec<_> = labels.iter().map(|(label, value)| format!("{label}=\"{value}\"")).collect();
        let _ = writeln!(self.0, "metallic_{name}{{{}}} {value}", labels.join(","));
    }

    fn histogram(&mut self, name: &str, model: &str, histogram: &Histogram) {
        let Histogram { counts, n, sum } = histogram;
        let bucket = format!("{name}_bucket");
        let mut below = 0;
        for (bound, count) in BOUNDS.iter().zip(counts) {
            below += count;
            self.line(&bucket, &[("model", model), ("le", &bound.to_string())], below);
        }
        self.line(&bucket, &[("model", model), ("le", "+Inf")], n);
        self.line(&format!("{name}_sum"), &[("model", model)], sum);
        self.line(&format!("{name}_count"), &[("model", model)], n);
    }
}

/// A label's value as the format has it.
fn quoted(value: &str) -> String {
    value.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_counts_what_is_no_longer_than_each_bound() {
        let mut histogram = Histogram::default();
        [1.0, 20.0, 20.0, 90_000.0]
            .into_iter()
            .for_each(|ms| histogram.add(Duration::from_secs_f64(ms / 1e3)));
        let mut text = Text(String::new());
        text.histogram("x", &quoted("a\"b\\"), &histogram);
        let lines: Vec<_> = text.0.lines().collect();
        assert_eq!(lines.len(), BOUNDS.len() + 3);
        assert_eq!(lines[0], r#"metallic_x_bucket{model="a\"b\\",le="0.0025"} 1"#);
        assert_eq!(lines[3], r#"metallic_x_bucket{model="a\"b\\",le="0.025"} 3"#);
        assert_eq!(lines[11], r#"metallic_x_bucket{model="a\"b\\",le="60"} 3"#);
        assert_eq!(lines[12], r#"metallic_x_bucket{model="a\"b\\",le="+Inf"} 4"#);
        assert_eq!(lines[14], r#"metallic_x_count{model="a\"b\\"} 4"#);
    }
}
