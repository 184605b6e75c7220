//! Load a model, give it a prompt, print what it says as it says it.
//!
//!     cargo run --release --example generate -- MODEL.gguf "Once upon a time"

use std::io::Write;

use metallic::text::{EncodeOptions, Tokenizer};
use metallic::{Engine, Event, GgufFile, GgufLoader, Request};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, path, prompt] = &arguments[..] else {
        return Err("usage: generate MODEL.gguf PROMPT".into());
    };
    let file = GgufFile::open(path)?;
    let tokenizer = Tokenizer::from_gguf(&file.gguf())?;
    let prompt =
        tokenizer.encode(prompt, EncodeOptions { add_bos: true, add_eos: true, parse_special: true })?;
    let mut engine = Engine::new(GgufLoader::new(file).load()?, tokenizer);

    let request = Request { max_tokens: Some(100), ..Request::new(prompt) };
    engine.generate(request, |event| match event {
        Event::Text { text, .. } => {
            print!("{text}");
            let _ = std::io::stdout().flush();
        }
        Event::Finished { reason, stats, .. } => {
            println!("\n[{reason:?} after {} tokens]", stats.n_generated)
        }
        Event::Failed { error, .. } => eprintln!("{error}"),
        Event::Token { .. } => {} // the ids, for those who want them
    })?;
    Ok(())
}
