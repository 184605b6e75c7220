//! `--prompt-cache`: what was computed of a prompt, on disk for the next time.

use std::io::BufWriter;
use std::path::{Path, PathBuf};

use metallic::Error;

use crate::args::PromptCacheArgs;
use crate::failure::{Failure, Kind, Result};
use crate::fetch::Fetcher;
use crate::model_file::kind_of;
use crate::output_file::{OutputFile, Target};
use crate::session::{Answer, Opened, Session};
use crate::terminal::human_bytes;

/// What writing keys and values is buffered by: they come in large pieces.
const BUFFER: usize = 64 << 10;

/// A file with a prompt, or for one.
pub(crate) struct PromptCache<'a> {
    args: &'a PromptCacheArgs,
    path: &'a Path,
    /// The model's file, and its digest.
    model: PathBuf,
    digest: String,
}

impl<'a> PromptCache<'a> {
    /// The file that is to be used, if one is; refused is what can't be one.
    pub(crate) fn new(args: &'a PromptCacheArgs, model: &Opened<'_>) -> Result<Option<Self>> {
        let Some(path) = &args.prompt_cache else { return Ok(None) };
        if args.prompt_cache_ro && !path.exists() {
            let what = format!("there is no {}", path.display());
            return Err(Failure::new(Kind::Usage, what)
                .advice("without --prompt-cache-ro it is made when the prompt has been read"));
        }
        let cache = Self { args, path, model: model.path().to_owned(), digest: model.digest() };
        if !args.prompt_cache_ro {
            cache.target()?;
        }
        Ok(Some(cache))
    }

    fn target(&self) -> Result<Target> {
        Target::check(self.path, &[&self.model], true).map(Target::private)
    }

    /// Has the model know what is in the file.
    pub(crate) fn recall(&self, session: &mut Session<'_>, fetcher: &Fetcher<'_>) -> Result<()> {
        if !self.path.exists() {
            return Ok(());
        }
        match session.engine().load_prompt(self.path, &self.digest) {
            Ok(n_tokens) => {
                tracing::info!("{n_tokens} tokens that were read before come from {}", self.path.display());
                Ok(())
            }
            Err(error) if self.args.prompt_cache_lenient && matches!(error, Error::SavedSequence { .. }) => {
                fetcher.terminal.note(format_args!("the prompt is read anew: {error}"));
                Ok(())
            }
            Err(error) => {
                let is_unfit = matches!(error, Error::SavedSequence { .. });
                let advice = "name another file, or with --prompt-cache-lenient let it be replaced";
                let kind = if is_unfit { Kind::Usage } else { kind_of(&error) };
                Err(Failure::of(kind, error).maybe_advice(is_unfit.then(|| advice.to_owned())))
            }
        }
    }

    /// Writes what is known of a prompt, unless all of that came from the file.
    pub(crate) fn keep(
        &self,
        prompt: &[u32],
        answer: &Answer,
        session: &mut Session<'_>,
        fetcher: &Fetcher<'_>,
    ) -> Result<()> {
        let is_known = answer.stats.n_cached + 1 >= prompt.len();
        if self.args.prompt_cache_ro || (is_known && self.path.exists() && !self.args.prompt_cache_all) {
            return Ok(());
        }
        let whole = self.args.prompt_cache_all;
        let file = self.target()?.create(fetcher.interrupt)?;
        let mut out = BufWriter::with_capacity(BUFFER, file.file());
        let saved = session.engine().save_prompt(prompt, whole, &self.digest, &mut out);
        let n_tokens = saved.map_err(|error| match error {
            Error::Write { source, .. } => file.failure(source),
            error => Failure::of(kind_of(&error), error),
        })?;
        out.into_inner().map_err(|error| file.failure(error.into_error()))?;
        let n_bytes = file.file().metadata().map_or(0, |metadata| metadata.len());
        if n_tokens > 0 {
            OutputFile::finish_all(vec![file])?;
            fetcher.terminal.note(format_args!(
                "kept {n_tokens} tokens in {} ({})",
                self.path.display(),
                human_bytes(n_bytes)
            ));
        }
        Ok(())
    }
}
