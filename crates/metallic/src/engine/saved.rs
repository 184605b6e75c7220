//! Prompts that were read once: what an engine knows of them goes to disk and comes back.

use std::io::Write;
use std::path::Path;

use super::Engine;
use super::cached::{Cached, common_prefix};
use crate::error::{Error, Result};

impl Engine {
    /// Writes what is known of a prompt, or of its first tokens: with the answer, where `whole`, as far as that was made. How many
    /// tokens that are; 0 if nothing is known, and then nothing is written. `digest` is that of the model's file.
    ///
    /// # Errors
    /// [`Error::NotSaved`]; [`Error::Write`], and those of reading a device's memory.
    pub fn save_prompt(
        &mut self,
        prompt: &[u32],
        whole: bool,
        digest: &str,
        out: &mut dyn Write,
    ) -> Result<usize> {
        if !self.model.can_share() {
            return Err(Error::NotSaved);
        }
        let known = |cached: &Cached| common_prefix(&cached.tokens[..cached.n_cached], prompt);
        let all = self.slots.iter().map(|slot| &slot.cached).chain(self.parked.iter());
        let Some(cached) = all.max_by_key(|cached| (known(cached), cached.n_cached)) else { return Ok(0) };
        let n_known = known(cached);
        let n_tokens = if whole && n_known == prompt.len() { cached.n_cached } else { n_known };
        if n_tokens > 0 {
            let tokens = &cached.tokens[..n_tokens];
            self.model.save_sequence(cached.sequence, tokens, &cached.read_as, digest, out)?;
        }
        Ok(n_tokens)
    }

    /// Reads a file that [`save_prompt`](Self::save_prompt) has written: requests that begin with its tokens go on after them. How
    /// many those are.
    ///
    /// # Errors
    /// [`Error::NotSaved`]; [`Error::SavedSequence`], if the file is damaged, or of another model, type of keys and values or
    /// instruction set; [`Error::CacheFull`]; [`Error::Read`].
    pub fn load_prompt(&mut self, path: &Path, digest: &str) -> Result<usize> {
        if !self.model.can_share() {
            return Err(Error::NotSaved);
        }
        let loaded = self.model.load_sequence(path, digest)?;
        let n_cached = loaded.tokens.len();
        let cached = Cached {
            sequence: loaded.sequence,
            tokens: loaded.tokens,
            n_cached,
            read_as: loaded.read_as,
            group: 0,
        };
        self.parked.push(cached, &mut self.model);
        Ok(n_cached)
    }
}
