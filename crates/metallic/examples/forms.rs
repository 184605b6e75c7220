//! What keeping to a form costs: tokens a second without one and with each of several, in turns.
//!
//!     cargo run --release --example forms -- MODEL.gguf [FILE.gbnf]

use metallic::engine::{Grammar, Grammars};
use metallic::sampling::SamplingParams;
use metallic::text::{EncodeOptions, Tokenizer};
use metallic::{Engine, Event, GgufFile, GgufLoader, Request};
use serde_json::json;

const N_TOKENS: usize = 128;
const N_TURNS: u64 = 9;

/// Lists of texts and of lists, which refer to themselves.
const LISTS: &str = r#"
root  ::= "[" item ("," ws item){99,} "]"
item  ::= text | "[" ws (item ("," ws item)*)? "]"
text  ::= "\"" ([^"\\\x00-\x1F\x7F] | "\\" (["\\/bfnrt] | "u" [0-9a-fA-F]{4}))* "\""
ws    ::= [ \n]{0,2}
"#;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, path, more @ ..] = &arguments[..] else {
        return Err("usage: forms MODEL.gguf [FILE.gbnf]".into());
    };
    let file = GgufFile::open(path)?;
    let tokenizer = Tokenizer::from_gguf(&file.gguf())?;
    let options = EncodeOptions { add_bos: true, add_eos: true, parse_special: true };
    let prompt = tokenizer.encode("A list of all animals, and what they eat, as JSON: ", options)?;
    let grammars = Grammars::new(&tokenizer)?;
    let mut engine = Engine::new(GgufLoader::new(file).context_length(512).load()?, tokenizer);

    let animal = json!({"type": "object", "required": ["name", "food"],
        "properties": {"name": {"type": "string"}, "food": {"type": "array", "items": {"type": "string"}}}});
    let mut forms = vec![
        ("none".to_owned(), None),
        (
            "schema".to_owned(),
            Some(Grammar::JsonSchema(json!({"type": "array", "items": animal, "minItems": 99}))),
        ),
        ("regex".to_owned(), Some(Grammar::Regex(r"([A-Z][a-z]+( [a-z]+){3,12}[.!?] ){99}".to_owned()))),
        ("gbnf".to_owned(), Some(Grammar::Gbnf(LISTS.to_owned()))),
    ];
    for path in more {
        forms.push((path.clone(), Some(Grammar::Gbnf(std::fs::read_to_string(path)?))));
    }
    let mut rates = vec![Vec::new(); forms.len()];
    let mut said = vec![String::new(); forms.len()];
    for turn in 0..N_TURNS {
        for (index, (_, form)) in forms.iter().enumerate() {
            let form = form.as_ref().map(|form| grammars.compile(form)).transpose()?;
            let sampling = SamplingParams { seed: Some(turn), ..SamplingParams::default() };
            let request = Request { sampling, form, ignore_eos: index == 0, ..Request::new(prompt.clone()) };
            said[index].clear();
            engine.generate(Request { max_tokens: Some(N_TOKENS), ..request }, |event| match event {
                Event::Text { text, .. } => said[index].push_str(&text),
                Event::Finished { stats, .. } => rates[index].extend(stats.decode_rate()),
                Event::Failed { error, .. } => eprintln!("{error}"),
                Event::Token { .. } => {}
            })?;
        }
    }
    let mut median = rates.into_iter().map(|mut rates| {
        rates.sort_by(f64::total_cmp);
        rates.get(rates.len() / 2).copied().unwrap_or_default()
    });
    let none = median.next().unwrap_or_default();
    println!("none: {none:.1} tokens/s");
    for ((name, _), (rate, said)) in forms.iter().zip(std::iter::once(none).chain(median).zip(&said)).skip(1)
    {
        let start: String = said.chars().take(60).collect();
        println!("{name}: {rate:.1} tokens/s, {:+.1} % time a token; {start:?}", 100.0 * (none / rate - 1.0));
    }
    Ok(())
}
