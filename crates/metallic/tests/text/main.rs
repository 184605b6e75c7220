//! Tokenizers and chat templates against answers that were computed elsewhere.

mod answers;
mod chat_templates;
mod ends;
mod golden;
mod jinja_snippets;
mod leniency;
#[path = "../models/oracles.rs"]
#[allow(dead_code)] // each test program uses a part
mod oracles;
mod small_vocabularies;
mod tokenizers;
#[path = "../models/warnings.rs"]
mod warnings;
