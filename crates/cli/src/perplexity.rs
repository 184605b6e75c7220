//! `metallic perplexity`: how well a model predicts a text.
//!
//! The measure of llama.cpp's `llama-perplexity`, so that values compare: the text's tokens are cut into
//! chunks of the context's size; each is evaluated by itself, with BOS in the place of its first token
//! where the vocabulary begins texts with one; the tokens of the second half, which have at least half a
//! context before them, are scored. With the negative log-likelihoods x of n scored tokens, perplexity is
//! exp(mean x), and its standard error is that times the standard error of the mean,
//! √((mean x² − (mean x)²) / (n − 1)).

use std::io::{self, Write as _};
use std::path::Path;

use metallic::sampling::Softmax;
use metallic::text::EncodeOptions;
use metallic::{MemoryBudget, Model};

use crate::args::{EngineArgs, PerplexityArgs, RateArgs};
use crate::budget;
use crate::failure::{Failure, Kind, Result};
use crate::fetch::Fetcher;
use crate::input::{self, Limit};
use crate::model_file::{self, Planned, SMALLER_CONTEXT, kind_of};
use crate::terminal::human_bytes;

/// The share of the budget that the text may have: each of its bytes may be a token of four, in a list that grows twofold.
const TEXT_SHARE: u64 = 16;

/// What a byte of one word takes while it is encoded.
const ENCODER_BYTES: u64 = 44;

/// Scores the text and prints the perplexity.
pub(crate) fn run(args: &PerplexityArgs, fetcher: &Fetcher<'_>) -> Result<()> {
    let path = fetcher.locate(args.model.name())?.path;
    let file = model_file::open(&path)?;
    let tokenizer = model_file::tokenizer(&file)?;
    let text = input::file(&args.text, Limit::share(&args.compute, TEXT_SHARE))?;
    let mut budget = budget::to_run_in(&args.compute);
    if let Some(budget) = budget {
        refuse_long_words(&args.text, &text, budget)?;
    }
    let mut tokens = model_file::encode(&tokenizer, &text, EncodeOptions::default())?;
    drop(text);
    let n_ctx = args.ctx_size as usize;
    let n_chunks = (tokens.len() / n_ctx).min(args.chunks.map_or(usize::MAX, |n| n as usize));
    if n_chunks == 0 {
        let what =
            format!("{} has {} tokens, less than one chunk of {n_ctx}", args.text.display(), tokens.len());
        return Err(Failure::new(Kind::General, what).advice("take a longer text or a smaller -c"));
    }

    tokens.truncate(n_chunks * n_ctx);
    tokens.shrink_to_fit();
    // They stay beside the model.
    if let Some(budget) = &mut budget {
        budget.ram_bytes = budget.ram_bytes.saturating_sub(size_of_val(&tokens[..]) as u64);
    }
    let engine = EngineArgs {
        ctx_size: Some(args.ctx_size),
        threads: args.threads,
        n_sequences: 1,
        guesses: false,
        compute: args.compute.clone(),
    };
    let (given, terminal) = (RateArgs::default(), fetcher.terminal);
    let planned = Planned::new(file, &engine, budget, SMALLER_CONTEXT, &given, terminal)?;
    let mut model = planned.load(&engine, terminal)?;
    let bos = tokenizer.bos().filter(|_| tokenizer.adds_bos());
    let bar = fetcher.terminal.step_bar("perplexity", n_chunks as u64);
    let mut score = Score::default();
    for (i, chunk) in tokens.chunks_exact_mut(n_ctx).enumerate() {
        if let Some(bos) = bos {
            chunk[0] = bos;
        }
        score.add_chunk(&mut model, chunk)?;
        let running = format!("perplexity {:.4}", score.perplexity());
        tracing::info!("chunk {}: {running}", i + 1);
        bar.set_message(running);
        bar.inc(1);
    }
    bar.finish_and_clear();
    if !score.sum.is_finite() {
        let what = "the perplexity is infinite: the model rules out a token that is in the text";
        return Err(Failure::new(Kind::General, what));
    }
    let (perplexity, error) = (score.perplexity(), score.standard_error());
    writeln!(
        io::stdout(),
        "perplexity {perplexity:.4} ± {error:.4} ({n_chunks} chunks of {n_ctx} tokens, {} scored)",
        score.n
    )
    .map_err(Failure::output)
}

/// Refuses a text with a word that would take more than half of the budget to encode. White space between words may be
/// one, too.
fn refuse_long_words(path: &Path, text: &str, budget: MemoryBudget) -> Result<()> {
    let is_space = u8::is_ascii_whitespace;
    let words = text.as_bytes().chunk_by(|a, b| is_space(a) == is_space(b));
    let longest = words.map(<[u8]>::len).max().unwrap_or(0);
    let most = budget.ram_bytes / 2 / ENCODER_BYTES;
    if longest as u64 <= most {
        return Ok(());
    }
    let what = format!(
        "{} has a word of {longest} bytes, and a budget of {} has room to encode one of {most}",
        path.display(),
        human_bytes(budget.ram_bytes)
    );
    Err(Failure::new(Kind::General, what).advice("break it into words or allow more with --ram"))
}

/// Sums over the scored tokens.
#[derive(Clone, Debug, Default)]
struct Score {
    n: u64,
    /// Of the negative log-likelihoods.
    sum: f64,
    /// Of their squares.
    sum_of_squares: f64,
}

impl Score {
    fn add_chunk(&mut self, model: &mut Model, chunk: &[u32]) -> Result<()> {
        // The last position has no token after it to score.
        let scored = chunk.len() / 2..chunk.len() - 1;
        let evaluated = model.evaluate(chunk, scored, &mut |position, logits| {
            self.add(-Softmax::new(logits).logprob(logits[chunk[position + 1] as usize]));
        });
        evaluated.map_err(|e| Failure::new(kind_of(&e), "can't evaluate the text").because(e))
    }

    fn add(&mut self, x: f64) {
        self.n += 1;
        self.sum += x;
        self.sum_of_squares += x * x;
    }

    fn mean(&self) -> f64 {
        self.sum / self.n as f64
    }

    fn perplexity(&self) -> f64 {
        self.mean().exp()
    }

    fn standard_error(&self) -> f64 {
        let variance = self.sum_of_squares / self.n as f64 - self.mean() * self.mean();
        // Rounding can make the variance of equal numbers negative.
        self.perplexity() * (variance.max(0.0) / (self.n as f64 - 1.0).max(1.0)).sqrt()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn perplexity_and_its_error_by_hand() {
        let mut score = Score::default();
        [1.0, 2.0, 3.0].into_iter().for_each(|x| score.add(x));
        assert!((score.perplexity() - 2_f64.exp()).abs() < 1e-12);
        // Mean square 14/3, variance 2/3, over n − 1 = 2.
        assert!((score.standard_error() - 2_f64.exp() * (1_f64 / 3.0).sqrt()).abs() < 1e-12);
    }
}
