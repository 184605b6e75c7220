//! How fast a file's tokenizer encodes texts, on one thread: the best and the median of several runs.
//!
//!     cargo run --release --example tokenizer_speed -- MODEL.gguf TEXT...

use std::time::Instant;

use metallic::GgufFile;
use metallic::text::{EncodeOptions, Tokenizer};

const RUNS: usize = 7;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let model = arguments.next().ok_or("usage: tokenizer_speed MODEL.gguf TEXT...")?;
    let file = GgufFile::open(model)?;
    let start = Instant::now();
    let tokenizer = Tokenizer::from_gguf(&file.gguf())?;
    println!("load\t{:.0} ms", start.elapsed().as_secs_f64() * 1e3);
    for path in arguments {
        let text = std::fs::read_to_string(&path)?;
        let options = EncodeOptions { add_bos: false, add_eos: false, parse_special: false };
        let mut seconds = Vec::new();
        let mut n_tokens = 0;
        for _ in 0..RUNS {
            let start = Instant::now();
            n_tokens = tokenizer.encode(&text, options)?.len();
            seconds.push(start.elapsed().as_secs_f64());
        }
        seconds.sort_by(f64::total_cmp);
        let rate = |seconds: f64| text.len() as f64 / 1e6 / seconds;
        println!(
            "{path}\t{n_tokens} tokens\t{:.1} MB/s\tmedian {:.1}",
            rate(seconds[0]),
            rate(seconds[RUNS / 2])
        );
    }
    Ok(())
}
