//! A sequence on disk: the keys and values of tokens that then need not be read again.
//!
//! | bytes | |
//! |---|---|
//! | 8 | `MAGIC` |
//! | 4, 4 | lengths of the description in bytes, and of the sequence in tokens |
//! | | the [`Description`], as JSON |
//! | 4 each | the tokens |
//! | | zeros, up to a multiple of 4096 |
//! | | the keys and values: of each layer, of each page, as its backend hands them over |
//! | 4 each | CRC-32 of each MiB of these, and of all that is before them |
//!
//! Numbers are little-endian. Keys and values are read past the page cache, where they would take memory from the model.

use std::io::{self, Read, Write};
use std::path::Path;

use memmap2::MmapMut;
use serde::{Deserialize, Serialize};

use super::kv_cache::PAGE_LEN;
use super::{Model, ReadAs, Role, SequenceId};
use crate::error::{Error, Result};
use crate::memory::DirectFile;

const MAGIC: &[u8; 8] = b"MTLSEQ\x01\n";

/// What is summed, and read, at a time.
const CHUNK_BYTES: usize = 1 << 20;

/// Where keys and values begin is a multiple of this.
const ALIGNMENT: u64 = 4096;

/// Bytes of a description at most: a run of tokens has some twenty.
const MAX_DESCRIPTION: usize = 1 << 20;

/// What keys and values depend on, beside the tokens.
#[derive(Debug, Serialize, Deserialize, PartialEq, Eq)]
struct Description {
    /// The digest of the model's file.
    model: String,
    /// What has computed each part.
    arithmetic: String,
    kv_type: String,
    /// Whether rotations are those of a context that is longer than the model was first trained for.
    is_long: bool,
    page_len: usize,
    /// Of the keys and values.
    n_bytes: u64,
    /// As what tokens were read: where a run ends, and the length of the prompt that it was part of, if it was.
    runs: Vec<(usize, Option<usize>)>,
}

/// A sequence that was read from disk.
pub(crate) struct Loaded {
    pub(crate) sequence: SequenceId,
    pub(crate) tokens: Vec<u32>,
    pub(crate) read_as: ReadAs,
}

impl Model {
    /// What the keys and values of a sequence of so many tokens depend on; without its runs.
    fn described(&self, digest: &str, n_tokens: usize) -> Description {
        let segments = self.ways.iter().flat_map(|way| &way.segments);
        let arithmetic: Vec<String> = segments
            .map(|segment| {
                let arithmetic = self.stages[segment.stage].arithmetic();
                format!("{} to {}: {arithmetic}", segment.parts.start, segment.parts.end)
            })
            .collect();
        let layers = 0..self.config.layers.len();
        let page_bytes =
            layers.filter_map(|layer| self.stages.iter().find_map(|stage| stage.page_bytes(layer)));
        Description {
            model: digest.to_owned(),
            arithmetic: arithmetic.join("; "),
            kv_type: self.capacity.kv_type.name().to_owned(),
            is_long: self.n_ctx() > self.config.original_context,
            page_len: PAGE_LEN,
            n_bytes: n_tokens.div_ceil(PAGE_LEN) as u64 * page_bytes.map(|bytes| bytes as u64).sum::<u64>(),
            runs: Vec::new(),
        }
    }

    /// Writes a sequence of these tokens, or the first of them that it holds.
    ///
    /// # Errors
    /// The system's, and those of reading a device's memory.
    ///
    /// # Panics
    /// If the model's sequences have states.
    pub(crate) fn save_sequence(
        &mut self,
        id: SequenceId,
        tokens: &[u32],
        read_as: &ReadAs,
        digest: &str,
        out: &mut dyn Write,
    ) -> Result<()> {
        assert!(self.can_share(), "states are not saved");
        let mut read_as = read_as.clone();
        read_as.truncate(tokens.len());
        let run = |(end, role)| match role {
            Role::Generated => (end, None),
            Role::Prompt { len } => (end, Some(len)),
        };
        let description =
            Description { runs: read_as.runs().map(run).collect(), ..self.described(digest, tokens.len()) };
        let failed = |source| Error::Write { what: "a prompt", source };
        let head = head(&description, tokens).map_err(failed)?;
        out.write_all(&head).map_err(failed)?;
        let mut sums = Sums::default();
        let pages = self.pages.pages(id)[..tokens.len().div_ceil(PAGE_LEN)].to_vec();
        for layer in 0..self.config.layers.len() {
            for stage in self.stages.iter_mut().filter(|stage| stage.page_bytes(layer).is_some()) {
                stage.save_pages(layer, &pages, &mut |bytes| {
                    sums.add(bytes);
                    out.write_all(bytes).map_err(failed)
                })?;
            }
        }
        let mut sums = sums.finish();
        sums.push(crc32fast::hash(&head));
        sums.iter().try_for_each(|sum| out.write_all(&sum.to_le_bytes())).map_err(failed)
    }

    /// Reads a sequence that was [saved](Self::save_sequence) by the same model, of a file with this digest.
    ///
    /// # Errors
    /// [`Error::SavedSequence`], where the file is another's or damaged; [`Error::CacheFull`]; the system's.
    ///
    /// # Panics
    /// If the model's sequences have states.
    pub(crate) fn load_sequence(&mut self, path: &Path, digest: &str) -> Result<Loaded> {
        assert!(self.can_share(), "states are not saved");
        let wrong = |reason: String| Error::SavedSequence { path: path.to_owned(), reason };
        let failed = |source: io::Error| match source.kind() {
            io::ErrorKind::UnexpectedEof => wrong("it has been cut short".to_owned()),
            _ => Error::Read { path: path.to_owned(), source },
        };
        let file = DirectFile::open(path).map_err(|source| Error::Open { path: path.to_owned(), source })?;
        let head = Head::read(&mut file.plain(), self.n_ctx()).map_err(failed)?.map_err(&wrong)?;
        let Head { description, tokens, n_bytes: start, sum } = head;
        let Description { model, arithmetic, kv_type, is_long, page_len, n_bytes, runs } = &description;
        let expected = self.described(digest, tokens.len());
        if *model != expected.model {
            return Err(wrong("it is of another model".to_owned()));
        }
        for (what, found, expected) in [
            ("is computed by", arithmetic, &expected.arithmetic),
            ("has keys and values of type", kv_type, &expected.kv_type),
        ] {
            if found != expected {
                return Err(wrong(format!("it {what} {found}, and here that is {expected}")));
            }
        }
        if *is_long != expected.is_long {
            let n_ctx = self.n_ctx();
            return Err(wrong(format!(
                "in a context of {n_ctx} positions are rotated otherwise than it has them"
            )));
        }
        let n_vocab = self.config.n_vocab;
        let mut read_as = ReadAs::default();
        for (end, len) in runs {
            read_as.push(*end, len.map_or(Role::Generated, |len| Role::Prompt { len }));
        }
        let ends = || read_as.runs().map(|(end, _)| end);
        let is_whole = ends().is_sorted() && ends().last() == Some(tokens.len());
        if !is_whole
            || (*page_len, *n_bytes) != (expected.page_len, expected.n_bytes)
            || tokens.iter().any(|token| *token as usize >= n_vocab)
        {
            return Err(wrong("it contradicts itself".to_owned()));
        }
        let sums = read_sums(&file, start + n_bytes, *n_bytes).map_err(failed)?;
        if sums.last() != Some(&sum) {
            return Err(wrong("it is damaged".to_owned()));
        }

        let sequence = self.create_sequence();
        let mut chunks = Chunks::new(&file, start, *n_bytes, &sums).map_err(failed)?;
        let loaded = self.fill(sequence, tokens.len(), &mut |bytes| match chunks.read(bytes) {
            Ok(true) => Ok(()),
            Ok(false) => Err(wrong("it is damaged".to_owned())),
            Err(error) => Err(failed(error)),
        });
        match loaded {
            Ok(()) => Ok(Loaded { sequence, tokens, read_as }),
            Err(error) => {
                self.release_sequence(sequence);
                Err(error)
            }
        }
    }

    /// Fills the pages of a new sequence.
    fn fill(
        &mut self,
        id: SequenceId,
        n_tokens: usize,
        source: &mut dyn FnMut(&mut [u8]) -> Result<()>,
    ) -> Result<()> {
        self.pages.reserve(id, 0..n_tokens)?;
        let pages = self.pages.pages(id).to_vec();
        for layer in 0..self.config.layers.len() {
            for stage in self.stages.iter_mut().filter(|stage| stage.page_bytes(layer).is_some()) {
                stage.load_pages(layer, &pages, source)?;
            }
        }
        Ok(())
    }
}

/// All before the keys and values.
fn head(description: &Description, tokens: &[u32]) -> io::Result<Vec<u8>> {
    let description = serde_json::to_vec(description)?;
    let lengths = [description.len(), tokens.len()].map(|n| (n as u32).to_le_bytes());
    let mut head = [MAGIC, &lengths.concat()[..], &description].concat();
    head.extend(tokens.iter().flat_map(|token| token.to_le_bytes()));
    head.resize(head.len().next_multiple_of(ALIGNMENT as usize), 0);
    Ok(head)
}

/// The same as it was read.
struct Head {
    description: Description,
    tokens: Vec<u32>,
    n_bytes: u64,
    sum: u32,
}

impl Head {
    /// The inner error is why there is none for a context of so many tokens.
    fn read(file: &mut impl Read, n_ctx: usize) -> io::Result<Result<Self, String>> {
        let mut fixed = [0; 16];
        file.read_exact(&mut fixed)?;
        let (magic, lengths) = fixed.split_at(8);
        let number = |bytes: &[u8]| bytes.iter().rev().fold(0_usize, |n, byte| n << 8 | usize::from(*byte));
        let (n_description, n_tokens) = (number(&lengths[..4]), number(&lengths[4..]));
        if magic != MAGIC || n_description > MAX_DESCRIPTION {
            return Ok(Err("it is no prompt that was saved, or of another version".to_owned()));
        }
        if n_tokens > n_ctx {
            return Ok(Err(format!("it has {n_tokens} tokens, and the context {n_ctx}")));
        }
        let n_bytes = (16 + n_description as u64 + 4 * n_tokens as u64).next_multiple_of(ALIGNMENT);
        let mut head = fixed.to_vec();
        file.take(n_bytes - 16).read_to_end(&mut head)?;
        if head.len() as u64 != n_bytes {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let (description, rest) = head[16..].split_at(n_description);
        let tokens = rest[..4 * n_tokens].chunks_exact(4).map(|bytes| number(bytes) as u32).collect();
        Ok(match serde_json::from_slice(description) {
            Ok(description) => Ok(Self { description, tokens, n_bytes, sum: crc32fast::hash(&head) }),
            Err(error) => Err(format!("it is damaged ({error})")),
        })
    }
}

/// The sums after keys and values.
fn read_sums(file: &DirectFile, offset: u64, n_bytes: u64) -> io::Result<Vec<u32>> {
    let n_sums = n_bytes.div_ceil(CHUNK_BYTES as u64) as usize + 1;
    let mut room = MmapMut::map_anon(DirectFile::room_for(4 * n_sums))?;
    let start = file.read_blocks(offset, 4 * n_sums, &mut room)?;
    let sums = room[start..][..4 * n_sums].chunks_exact(4);
    Ok(sums.map(|bytes| u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])).collect())
}

/// The sums of bytes that come in pieces of any length.
#[derive(Default)]
struct Sums {
    hasher: crc32fast::Hasher,
    n_bytes: usize,
    sums: Vec<u32>,
}

impl Sums {
    fn add(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let (now, rest) = bytes.split_at(bytes.len().min(CHUNK_BYTES - self.n_bytes));
            self.hasher.update(now);
            self.n_bytes += now.len();
            bytes = rest;
            if self.n_bytes == CHUNK_BYTES {
                self.end_chunk();
            }
        }
    }

    fn end_chunk(&mut self) {
        self.sums.push(std::mem::take(&mut self.hasher).finalize());
        self.n_bytes = 0;
    }

    fn finish(mut self) -> Vec<u32> {
        if self.n_bytes > 0 {
            self.end_chunk();
        }
        self.sums
    }
}

/// Keys and values as they are read, each chunk checked before any of it is used.
struct Chunks<'a> {
    file: &'a DirectFile,
    offset: u64,
    n_left: u64,
    sums: std::slice::Iter<'a, u32>,
    room: MmapMut,
    /// What is left of the chunk.
    chunk: std::ops::Range<usize>,
}

impl<'a> Chunks<'a> {
    fn new(file: &'a DirectFile, offset: u64, n_bytes: u64, sums: &'a [u32]) -> io::Result<Self> {
        let room = MmapMut::map_anon(DirectFile::room_for(CHUNK_BYTES))?;
        Ok(Self { file, offset, n_left: n_bytes, sums: sums.iter(), room, chunk: 0..0 })
    }

    /// Fills room with the bytes that follow. False if a chunk is not what was written.
    fn read(&mut self, mut to: &mut [u8]) -> io::Result<bool> {
        while !to.is_empty() {
            if self.chunk.is_empty() {
                let n_bytes = self.n_left.min(CHUNK_BYTES as u64) as usize;
                let start = self.file.read_blocks(self.offset, n_bytes, &mut self.room)?;
                self.chunk = start..start + n_bytes;
                (self.offset, self.n_left) = (self.offset + n_bytes as u64, self.n_left - n_bytes as u64);
                if self.sums.next() != Some(&crc32fast::hash(&self.room[self.chunk.clone()])) {
                    return Ok(false);
                }
            }
            let n_bytes = to.len().min(self.chunk.len());
            let (now, rest) = to.split_at_mut(n_bytes);
            now.copy_from_slice(&self.room[self.chunk.start..][..n_bytes]);
            self.chunk.start += n_bytes;
            to = rest;
        }
        Ok(true)
    }
}
