//! Models split into several files, as `gguf-split` of llama.cpp writes them.
//!
//! The first shard holds all metadata; each has its own directory and data, and says in `split.no` (from 0),
//! `split.count` and `split.tensors.count` (of all shards) where it belongs. Names count from 1:
//! `model-00001-of-00003.gguf`.

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::index::Index;
use crate::reader::{Gguf, insert_unique};

pub(crate) const NO_KEY: &str = "split.no";
pub(crate) const COUNT_KEY: &str = "split.count";
pub(crate) const N_TENSORS_KEY: &str = "split.tensors.count";

/// Digits of a number in a shard's name, at least.
const NAME_DIGITS: usize = 5;

/// The parts of a shard's file name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShardName<'a> {
    /// What all shards' names begin with.
    pub prefix: &'a str,
    /// The shard's number, from 0 (the name has it from 1).
    pub no: u16,
    /// The number of shards.
    pub count: u16,
}

/// The file name of shard `no` (from 0) of `count`.
///
/// ```
/// assert_eq!(metallic_gguf::split::shard_name("model", 0, 3), "model-00001-of-00003.gguf");
/// ```
pub fn shard_name(prefix: &str, no: u16, count: u16) -> String {
    format!("{prefix}-{:0NAME_DIGITS$}-of-{count:0NAME_DIGITS$}.gguf", u32::from(no) + 1)
}

/// Takes a shard's file name apart; `None` if it is not the name of a shard.
pub fn parse_shard_name(file_name: &str) -> Option<ShardName<'_>> {
    let (rest, count) = file_name.strip_suffix(".gguf")?.rsplit_once("-of-")?;
    let (prefix, number) = rest.rsplit_once('-')?;
    let parse = |digits: &str| -> Option<u16> {
        let well_formed = digits.len() >= NAME_DIGITS && digits.bytes().all(|b| b.is_ascii_digit());
        if well_formed { digits.parse().ok() } else { None }
    };
    let (number, count) = (parse(number)?, parse(count)?);
    if number > count {
        return None;
    }
    Some(ShardName { prefix, no: number.checked_sub(1)?, count })
}

/// Whether a file is a model by itself. So is one that shards were merged to: `gguf-split` leaves their keys in it, with
/// a count of 0. Whatever else such keys say, and whatever the file is called, is of no account.
///
/// # Errors
/// [`Error::WrongType`] or [`Error::OutOfRange`] for a count that is none.
pub fn is_whole(gguf: &Gguf<'_>) -> Result<bool> {
    Ok(gguf.metadata().optional::<u16>(COUNT_KEY)?.is_none_or(|count| count <= 1))
}

/// Puts the shards of a model together, given in order. A single file that [is whole](is_whole) passes.
///
/// # Errors
/// [`Error::ShardCount`], [`Error::ShardNumber`], [`Error::ShardTensors`], [`Error::ShardByteOrder`] and
/// [`Error::DuplicateTensor`] if the files are not all shards of one model; [`Error::MissingKey`] if one of
/// several doesn't say which shard it is.
pub fn join<'a>(shards: Vec<Gguf<'a>>) -> Result<Gguf<'a>> {
    let n_shards = shards.len() as u64;
    let mut shards = shards.into_iter();
    let first = shards.next().ok_or(Error::ShardCount { declared: 1, found: 0 })?;
    if n_shards == 1 && is_whole(&first)? {
        return Ok(first);
    }
    check_place(&first, 0, n_shards)?;
    let declared: u64 = first.metadata().required(N_TENSORS_KEY)?;
    let mut files = first.files.to_vec();
    let mut index = Index::clone(&first.index);
    for (place, shard) in (1..).zip(shards) {
        check_place(&shard, place, n_shards)?;
        if shard.byte_order() != first.byte_order() {
            return Err(Error::ShardByteOrder { shard: place, found: shard.byte_order() });
        }
        append(&mut index, &shard, files.len())?;
        files.extend_from_slice(&shard.files);
    }
    let found = index.tensors.len() as u64;
    if found != declared {
        return Err(Error::ShardTensors { declared, found });
    }
    Ok(Gguf { index: Arc::new(index), files: files.into() })
}

fn check_place(shard: &Gguf<'_>, place: u64, n_shards: u64) -> Result<()> {
    let declared = shard.metadata().required::<u16>(COUNT_KEY)?.into();
    if declared != n_shards {
        return Err(Error::ShardCount { declared, found: n_shards });
    }
    let found = shard.metadata().required::<u16>(NO_KEY)?.into();
    if found != place {
        return Err(Error::ShardNumber { place, found });
    }
    Ok(())
}

fn append(index: &mut Index, shard: &Gguf<'_>, files_before: usize) -> Result<()> {
    for (tensor, info) in shard.tensors().zip(&shard.index.tensors) {
        insert_unique(&mut index.names, tensor.name(), index.tensors.len())
            .ok_or_else(|| Error::DuplicateTensor { tensor: tensor.name().to_owned() })?;
        let mut info = info.clone();
        info.shard += files_before;
        index.tensors.push(info);
    }
    index.others.extend(shard.index.files().cloned());
    Ok(())
}
