//! Snippets of templates against what Python's jinja2 makes of them; `tools/jinja_snippets.py` writes them.

use metallic::text::{ChatTemplate, RenderOptions};
use serde::Deserialize;

#[derive(Deserialize)]
struct Snippets {
    variables: serde_json::Map<String, serde_json::Value>,
    now: String,
    /// Templates, and their text, if they have one.
    snippets: Vec<(String, Option<String>)>,
}

/// What is known to be otherwise: the first column of the table in the docs is what such snippets contain.
fn exceptions() -> Vec<&'static str> {
    let docs = include_str!("../../../../docs/chat-templates.md");
    let rows = docs.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` |"));
    rows.map(|(snippet, _)| snippet).collect()
}

#[test]
fn snippets_render_as_in_python_but_for_what_the_docs_name() {
    let Snippets { variables, now, snippets } =
        serde_json::from_str(include_str!("jinja.json")).expect("what the script wrote");
    let options =
        RenderOptions { variables, now: Some(now.parse().expect("a time")), ..RenderOptions::default() };
    let exceptions = exceptions();
    let mut n_met = vec![0; exceptions.len()];
    let mut wrong = Vec::new();
    for (source, expected) in &snippets {
        let found = ChatTemplate::new(source).and_then(|template| template.render(&[], &options));
        if found.as_ref().ok() == expected.as_ref() {
            continue;
        }
        match exceptions.iter().position(|exception| source.contains(exception)) {
            Some(at) => n_met[at] += 1,
            None => wrong.push(format!("{source:?}: expected {expected:?}, found {found:?}")),
        }
    }
    let n = wrong.len();
    assert!(n == 0, "{n} of {} snippets differ:\n{}", snippets.len(), wrong.join("\n"));
    for (exception, n) in exceptions.iter().zip(n_met) {
        assert!(n > 0, "the docs name {exception:?}, but it is as in Python");
    }
}
