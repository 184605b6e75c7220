//! Jinja's filters, as its version 3.1 has them.

mod select;
mod sequences;
mod text;
mod wrap;

use minijinja::value::{Kwargs, Rest};
use minijinja::{Environment, Error, State, Value};

use super::arguments::Arguments;
use super::sequences::Generator;
use super::{html, python_json};

/// What a filter does with a value and its arguments.
type Filter = fn(&mut State<'_, '_>, &Value, &Arguments) -> Result<Value, Error>;

/// Those whose results are generators.
const LAZY: [&str; 4] = ["batch", "items", "slice", "unique"];

/// Names, parameters, and what they do.
const FILTERS: &[(&str, &[&str], Filter)] = &[
    ("abs", &[], text::abs),
    ("attr", &["name"], sequences::attr),
    ("batch", &["linecount", "fill_with"], sequences::batch),
    ("capitalize", &[], text::capitalize),
    ("center", &["width"], text::center),
    ("count", &[], sequences::length),
    ("d", &["default_value", "boolean"], sequences::default),
    ("default", &["default_value", "boolean"], sequences::default),
    ("dictsort", &["case_sensitive", "by", "reverse"], sequences::dict_sort),
    ("e", &[], html::escape_filter),
    ("escape", &[], html::escape_filter),
    ("filesizeformat", &["binary"], text::file_size),
    ("first", &[], sequences::first),
    ("float", &["default"], text::float),
    ("forceescape", &[], html::force_escape),
    ("groupby", &["attribute", "default", "case_sensitive"], sequences::group_by),
    ("indent", &["width", "first", "blank"], text::indent),
    ("int", &["default", "base"], text::int),
    ("items", &[], sequences::items_of),
    ("join", &["d", "attribute"], sequences::join),
    ("last", &[], sequences::last),
    ("length", &[], sequences::length),
    ("list", &[], sequences::list),
    ("lower", &[], text::lower),
    ("max", &["case_sensitive", "attribute"], sequences::max),
    ("min", &["case_sensitive", "attribute"], sequences::min),
    ("pprint", &[], wrap::pretty),
    ("random", &[], sequences::random),
    ("replace", &["old", "new", "count"], text::replace),
    ("reverse", &[], sequences::reverse),
    ("round", &["precision", "method"], text::round),
    ("safe", &[], html::safe),
    ("slice", &["slices", "fill_with"], sequences::slice),
    ("sort", &["reverse", "case_sensitive", "attribute"], sequences::sort),
    ("string", &[], text::string),
    ("striptags", &[], html::strip_tags),
    ("sum", &["attribute", "start"], sequences::sum),
    ("title", &[], text::title),
    ("tojson", python_json::OPTIONS, python_json::to_json),
    ("trim", &["chars"], text::trim),
    ("truncate", &["length", "killwords", "end", "leeway"], text::truncate),
    ("unique", &["case_sensitive", "attribute"], sequences::unique),
    ("upper", &[], text::upper),
    ("urlencode", &[], html::url_encode),
    ("wordcount", &[], text::word_count),
    ("wordwrap", &["width", "break_long_words", "wrapstring", "break_on_hyphens"], wrap::words),
    ("xmlattr", &["autospace"], html::xml_attributes),
];

pub(super) fn add_to(environment: &mut Environment<'static>) {
    for &(name, parameters, filter) in FILTERS {
        let apply = move |state: &mut State<'_, '_>, value: Value, by_place: Rest<Value>, by_name: Kwargs| {
            let arguments = Arguments::bind(name, parameters, &by_place, &by_name)?;
            let result = filter(state, &value, &arguments);
            if LAZY.contains(&name) { Ok(Generator::lazy(result)) } else { result }
        };
        environment.add_filter(name, apply);
    }
    environment.add_filter("format", text::format);
    select::add_to(environment);
}
