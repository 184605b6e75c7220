//! Lines that were entered, kept from one chat to the next.
//!
//! The file is rustyline's second format: a line that says so, then an entry a line, with line feeds and backslashes
//! escaped. But each entry is appended when it is entered, under a lock: rustyline's own file history writes the whole
//! file anew where it believes that it holds all entries, and so loses those of another chat.

use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};

const HEADER: &str = "#V2";

/// Entries that are loaded, and that stay when the file is made shorter.
pub(super) const MAX_ENTRIES: usize = 1000;

/// A file longer than this is made shorter: some hundreds of times what a thousand questions take.
const MAX_BYTES: u64 = 4 << 20;

/// The file.
#[derive(Debug)]
pub(super) struct History {
    path: PathBuf,
}

impl History {
    /// The file of this name, which need not exist.
    pub(super) fn at(path: PathBuf) -> Self {
        Self { path }
    }

    /// The latest entries, the oldest first.
    pub(super) fn load(&self) -> io::Result<Vec<String>> {
        let mut file = match File::options().read(true).write(true).open(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            file => file?,
        };
        file.lock()?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<&str> = text.lines().filter(|line| !line.is_empty() && *line != HEADER).collect();
        let latest = &lines[lines.len().saturating_sub(MAX_ENTRIES)..];
        if bytes.len() as u64 > MAX_BYTES {
            file.set_len(0)?;
            file.rewind()?;
            file.write_all(format!("{HEADER}\n{}\n", latest.join("\n")).as_bytes())?;
        }
        Ok(latest.iter().map(|line| unescape(line)).collect())
    }

    /// Adds an entry, at once and whole.
    pub(super) fn append(&self, entry: &str) -> io::Result<()> {
        self.path.parent().map_or(Ok(()), fs::create_dir_all)?;
        let mut file = open_private(&self.path)?;
        file.lock()?;
        let header = if file.metadata()?.len() == 0 { format!("{HEADER}\n") } else { String::new() };
        file.write_all(format!("{header}{}\n", escape(entry)).as_bytes())
    }
}

/// Opens a file to append to it, which this user alone can read. (Windows locks only what can be read.)
#[cfg(unix)]
fn open_private(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
    let file = File::options().read(true).append(true).create(true).mode(0o600).open(path)?;
    file.set_permissions(fs::Permissions::from_mode(0o600))?;
    Ok(file)
}

/// Opens a file to append to it. The user's folders are private here.
#[cfg(not(unix))]
fn open_private(path: &Path) -> io::Result<File> {
    File::options().read(true).append(true).create(true).open(path)
}

fn escape(entry: &str) -> String {
    entry.replace('\\', "\\\\").replace('\n', "\\n")
}

fn unescape(line: &str) -> String {
    let mut entry = String::with_capacity(line.len());
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some('n') => entry.push('\n'),
                Some(c) => entry.push(c),
                None => entry.push('\\'),
            },
            c => entry.push(c),
        }
    }
    entry
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_of_two_chats_are_all_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new").join("history");
        let (a, b) = (History::at(path.clone()), History::at(path.clone()));
        assert_eq!(a.load().unwrap(), [""; 0]);
        for (history, entry) in [(&a, "one"), (&b, "two\nlines \\n"), (&a, "three")] {
            history.append(entry).unwrap();
        }
        assert_eq!(b.load().unwrap(), ["one", "two\nlines \\n", "three"]);
        assert_eq!(fs::read_to_string(path).unwrap(), "#V2\none\ntwo\\nlines \\\\n\nthree\n");
    }

    #[test]
    fn a_long_file_is_made_shorter() {
        let folder = tempfile::tempdir().unwrap();
        let history = History::at(folder.path().join("history"));
        let long = "x".repeat(1 << 20);
        for i in 0..5 {
            history.append(&format!("{i}{long}")).unwrap();
        }
        for i in 0..MAX_ENTRIES {
            history.append(&i.to_string()).unwrap();
        }
        assert_eq!(history.load().unwrap().len(), MAX_ENTRIES);
        assert!(fs::metadata(&history.path).unwrap().len() < 1 << 20);
        history.append("last").unwrap();
        assert_eq!(history.load().unwrap()[MAX_ENTRIES - 1], "last");
    }
}
