//! Each module of the engine imports only those that the table of ARCHITECTURE.md lets it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// What all may import but those that it does.
const OPEN: &str = "error";
/// Made for tests, from whatever they need.
const FOR_TESTS: &str = "testing";

#[test]
fn modules_import_only_those_below_them() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let architecture = fs::read_to_string(root.join("../../ARCHITECTURE.md")).expect("ARCHITECTURE.md");
    let allowed = table(&architecture);
    let mut wrong = Vec::new();
    let mut seen = BTreeMap::new();
    for path in sources(&root.join("src")) {
        let inside = path.strip_prefix(root.join("src")).expect("a source").with_extension("");
        let mut module: Vec<&str> = inside.iter().map(|part| part.to_str().expect("a name")).collect();
        if module.last() == Some(&"mod") {
            module.pop();
        }
        let own = module[0];
        if own == "lib" || own == FOR_TESTS {
            continue;
        }
        let Some(may) = allowed.get(own) else { panic!("the table has no row for {own}") };
        *seen.entry(own.to_owned()).or_insert(0) += 1;
        for imported in imports(&without_tests(&fs::read_to_string(&path).expect("text")), &module) {
            let is_open = imported == OPEN && !allowed[OPEN].contains(&own.to_owned());
            if imported != own && !is_open && !may.contains(&imported) {
                wrong.push(format!("{} imports {imported}", path.display()));
            }
        }
    }
    assert_eq!(wrong, [""; 0], "against the table of ARCHITECTURE.md");
    assert!(allowed.keys().eq(seen.keys()), "rows {:?} for modules {:?}", allowed.keys(), seen.keys());
    assert_no_circle(&allowed);
}

/// Rows of the table whose heads are `module` and `may import`.
fn table(text: &str) -> BTreeMap<String, Vec<String>> {
    let names =
        |cell: &str| -> Vec<String> { cell.split('`').skip(1).step_by(2).map(str::to_owned).collect() };
    let lines =
        text.lines().skip_while(|line| !(line.starts_with("| module |") && line.contains("| may import |")));
    let mut rows = BTreeMap::new();
    for line in lines.skip(2).take_while(|line| line.starts_with('|')) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').collect();
        for module in names(cells[0]) {
            rows.insert(module, names(cells[cells.len() - 1]));
        }
    }
    assert!(rows.len() > 5, "no table of modules");
    rows
}

/// Every module can be put above those that it may import.
fn assert_no_circle(allowed: &BTreeMap<String, Vec<String>>) {
    let mut left: Vec<&String> = allowed.keys().collect();
    while !left.is_empty() {
        let n = left.len();
        let above = left.clone();
        left.retain(|module| allowed[*module].iter().any(|below| above.contains(&below)));
        assert!(left.len() < n, "{left:?} import each other");
    }
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.file_name().is_some_and(|name| name != "tests.rs") {
            found.push(path);
        }
    }
    found
}

/// The code of a file, without comments and the tests at its end.
fn without_tests(text: &str) -> String {
    let text = text.split("#[cfg(test)]\nmod tests {").next().expect("a part");
    text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

/// The modules below the root that paths in the source of `module` name.
fn imports(text: &str, module: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for (at, path) in ["crate::", "super::"].iter().flat_map(|path| text.match_indices(path)) {
        if text[..at].ends_with(|c: char| c.is_alphanumeric() || "_:".contains(c)) {
            continue; // the end of another name, or a later part of a path
        }
        let names = text[at..].trim_start_matches("super::");
        let n_up = (text.len() - at - names.len()) / "super::".len();
        // `crate::` is the root, and so are as many steps up as the module lies deep.
        if path == "crate::" || n_up >= module.len() {
            found.extend(first_names(names.trim_start_matches("crate::")));
        }
    }
    found
}

/// `a` of `a::b`, and all first names of `{a::b, c}`.
fn first_names(path: &str) -> Vec<String> {
    let name = |path: &str| -> String {
        path.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
    };
    let Some(group) = path.strip_prefix('{') else { return vec![name(path)] };
    let mut depth = 0;
    let parts = group.split(|c| {
        depth += i32::from(c == '{') - i32::from(c == '}');
        c == ',' && depth == 0 || depth < 0
    });
    parts.map_while(|part| Some(name(part)).filter(|name| !name.is_empty())).collect()
}

#[test]
fn what_is_imported_is_found_however_it_is_written() {
    let text = "use crate::memory::{self, Tier};\nuse super::super::plan::MemoryPlan;\nuse super::decoder;\n\
                use crate::{error::Result, backend::{Cpu, KvType}};\nlet x = crate::engine::Engine::new();\n\
                metallic_crate::not::this();";
    let mut found = imports(text, &["model", "arch"]);
    found.sort_unstable();
    assert_eq!(found, ["backend", "engine", "error", "memory", "plan"]);
    // Of a module right below the root, one step up is the root.
    assert_eq!(imports("use super::plan;", &["model"]), ["plan"]);
    let code = without_tests("use a;\n// use crate::b;\n#[cfg(test)]\nmod tests {\n    use crate::c;\n}");
    assert_eq!(code, "use a;");
}
