//! Memory for experts that stay, of tensors whose experts are swapped in.
//!
//! What is read goes to a slot of the stream first, is used there, and is then copied to its place: beside the disk a
//! copy costs little, and so neither slots nor reads know of experts.

use memmap2::MmapMut;

use super::expert_places::{ExpertPolicy, Places, Residence};
use super::ledger::{Leased, Tier};
use super::reader::FileRange;
use super::slab;
use crate::error::Result;

/// What places for experts are for, in plans.
pub(crate) const EXPERT_CACHE: &str = "expert cache";

/// What a cache of experts has been asked for so far. An expert counts once for each of its matrices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExpertStats {
    /// Times that it was in memory.
    pub hits: u64,
    /// Times that it had to be read.
    pub misses: u64,
    /// Bytes that were in memory and would have been read.
    pub hit_bytes: u64,
    /// Bytes that had to be read.
    pub miss_bytes: u64,
}

impl ExpertStats {
    /// Counts a pass that wanted so many, of `expert_bytes` each.
    pub fn count(&mut self, (hits, misses): (u64, u64), expert_bytes: u64) {
        self.hits += hits;
        self.misses += misses;
        self.hit_bytes += hits * expert_bytes;
        self.miss_bytes += misses * expert_bytes;
    }

    /// With what another cache was asked for.
    #[must_use]
    pub(crate) fn and(self, other: Self) -> Self {
        Self {
            hits: self.hits + other.hits,
            misses: self.misses + other.misses,
            hit_bytes: self.hit_bytes + other.hit_bytes,
            miss_bytes: self.miss_bytes + other.miss_bytes,
        }
    }

    /// What was added since `before`.
    #[must_use]
    pub(crate) fn since(self, before: Self) -> Self {
        Self {
            hits: self.hits - before.hits,
            misses: self.misses - before.misses,
            hit_bytes: self.hit_bytes - before.hit_bytes,
            miss_bytes: self.miss_bytes - before.miss_bytes,
        }
    }

    /// The share of the bytes that were in memory; `None` before anything was asked for.
    pub fn hit_rate(&self) -> Option<f64> {
        let bytes = self.hit_bytes + self.miss_bytes;
        (bytes > 0).then(|| self.hit_bytes as f64 / bytes as f64)
    }
}

/// A tensor of experts in a file, and how many of them there are places for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CachedTensor {
    pub(crate) range: FileRange,
    pub(crate) n_experts: usize,
    pub(crate) n_places: usize,
}

/// Experts of all tensors that have places.
pub(crate) struct ExpertCache {
    /// By place in the files.
    tensors: Vec<Tensor>,
    memory: Leased<MmapMut>,
    stats: ExpertStats,
}

struct Tensor {
    range: FileRange,
    expert_bytes: usize,
    /// Where its places begin in memory.
    start: usize,
    places: Places,
}

impl ExpertCache {
    /// Allocates all places.
    ///
    /// # Errors
    /// [`Error::OverBudget`](crate::Error::OverBudget); [`Error::OutOfMemory`](crate::Error::OutOfMemory) if the system
    /// refuses.
    pub(crate) fn new(mut tensors: Vec<CachedTensor>, policy: ExpertPolicy, ram: &Tier) -> Result<Self> {
        tensors.sort_unstable_by_key(|tensor| (tensor.range.shard, tensor.range.offset));
        let mut n_bytes = 0;
        let with_places = |CachedTensor { range, n_experts, n_places }: CachedTensor| {
            let (start, expert_bytes) = (n_bytes, range.n_bytes / n_experts);
            n_bytes += n_places * expert_bytes;
            Tensor { range, expert_bytes, start, places: Places::new(policy, n_experts, n_places) }
        };
        let tensors: Vec<Tensor> = tensors.into_iter().map(with_places).collect();
        if n_bytes > 0 {
            tracing::info!(n_bytes, n_tensors = tensors.len(), %policy, "experts are cached");
        }
        let memory = slab::zeros(ram, EXPERT_CACHE, n_bytes)?;
        Ok(Self { tensors, memory, stats: ExpertStats::default() })
    }

    /// Begins a pass that wants some experts of the tensor at `range`, each with its number of rows. None of those that
    /// are here gives way before the next pass.
    pub(crate) fn begin(&mut self, range: FileRange, wanted: impl Iterator<Item = (usize, usize)> + Clone) {
        let Some((tensor, _)) = self.find(range) else { return };
        let Tensor { places, expert_bytes, .. } = &mut self.tensors[tensor];
        self.stats.count(places.begin(wanted), *expert_bytes as u64);
    }

    /// The expert that is at `range` in the files, or a part of one, if it is here.
    pub(crate) fn get(&self, range: FileRange) -> Option<&[u8]> {
        let (tensor, offset) = self.find(range)?;
        let Tensor { expert_bytes, start, places, .. } = &self.tensors[tensor];
        match places.residence(offset / expert_bytes) {
            Residence::Held(place) => {
                let start = start + place * expert_bytes + offset % expert_bytes;
                Some(&self.memory[start..][..range.n_bytes])
            }
            _ => None,
        }
    }

    /// Keeps what was read from `range`, a part of an expert, if the expert has a place: `copy` is given the part's. The
    /// parts of one come in order.
    pub(crate) fn keep(&mut self, range: FileRange, copy: impl FnOnce(&mut [u8])) {
        let Some((tensor, offset)) = self.find(range) else { return };
        let Tensor { expert_bytes, start, places, .. } = &mut self.tensors[tensor];
        let (expert, in_expert) = (offset / *expert_bytes, offset % *expert_bytes);
        if let Residence::ToFill(place) = places.residence(expert) {
            copy(&mut self.memory[*start + place * *expert_bytes + in_expert..][..range.n_bytes]);
            if in_expert + range.n_bytes == *expert_bytes {
                places.filled(expert);
            }
        }
    }

    /// Forgets what was to be kept and has not come: for whoever ends a pass early.
    pub(crate) fn forget(&mut self) {
        self.tensors.iter_mut().for_each(|tensor| tensor.places.forget());
    }

    /// What it has been asked for so far.
    pub(crate) fn stats(&self) -> ExpertStats {
        self.stats
    }

    /// The tensor that holds a range, by number, and where in it the range begins.
    fn find(&self, range: FileRange) -> Option<(usize, usize)> {
        let begins_before =
            |tensor: &Tensor| (tensor.range.shard, tensor.range.offset) <= (range.shard, range.offset);
        let i = self.tensors.partition_point(begins_before).checked_sub(1)?;
        let tensor = &self.tensors[i].range;
        let offset = range.offset - tensor.offset;
        (tensor.shard == range.shard && offset < tensor.n_bytes as u64).then_some((i, offset as usize))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXPERT_BYTES: usize = 12;

    fn range(shard: usize, offset: u64, n_bytes: usize) -> FileRange {
        FileRange { shard, offset, n_bytes }
    }

    fn expert(tensor: FileRange, expert: usize) -> FileRange {
        FileRange { offset: tensor.offset + (expert * EXPERT_BYTES) as u64, n_bytes: EXPERT_BYTES, ..tensor }
    }

    /// Uses experts as a backend does, in chunks of 5 bytes, and returns those that were here.
    fn pass(cache: &mut ExpertCache, tensor: FileRange, wanted: &[usize]) -> Vec<usize> {
        cache.begin(tensor, wanted.iter().map(|expert| (*expert, 1)));
        let mut here = Vec::new();
        for &number in wanted {
            let at = expert(tensor, number);
            let content: Vec<u8> =
                (at.offset..).take(EXPERT_BYTES).map(|offset| (offset % 251) as u8).collect();
            if let Some(bytes) = cache.get(at) {
                assert_eq!(bytes, content);
                // As where the matrices of gate and up share a tensor.
                let part = FileRange { offset: at.offset + 7, n_bytes: EXPERT_BYTES - 7, ..at };
                assert_eq!(cache.get(part), Some(&content[7..]));
                here.push(number);
                continue;
            }
            for (i, chunk) in content.chunks(5).enumerate() {
                assert_eq!(cache.get(at), None, "not before all of it has come");
                let part = FileRange { offset: at.offset + 5 * i as u64, n_bytes: chunk.len(), ..at };
                cache.keep(part, |place| place.copy_from_slice(chunk));
            }
        }
        here
    }

    #[test]
    fn what_was_kept_is_found_and_is_what_was_read() {
        let tensors = [range(1, 500, 4 * EXPERT_BYTES), range(0, 100, 8 * EXPERT_BYTES), range(1, 48, 36)];
        let cached = [(tensors[0], 4, 2), (tensors[1], 8, 3), (tensors[2], 3, 1)];
        let cached = cached.map(|(range, n_experts, n_places)| CachedTensor { range, n_experts, n_places });
        let mut cache = ExpertCache::new(cached.to_vec(), ExpertPolicy::Lru, &Tier::ram(None)).unwrap();
        assert_eq!(cache.memory.len(), 6 * EXPERT_BYTES);
        assert!(pass(&mut cache, tensors[0], &[0, 3]).is_empty());
        assert!(pass(&mut cache, tensors[1], &[1, 2, 5, 7]).is_empty());
        assert!(pass(&mut cache, tensors[2], &[2]).is_empty());
        assert_eq!(pass(&mut cache, tensors[0], &[0, 2]), [0]);
        assert_eq!(pass(&mut cache, tensors[1], &[1, 2, 5, 7]), [1, 2, 5]);
        assert_eq!(pass(&mut cache, tensors[2], &[2]), [2]);
        assert_eq!(pass(&mut cache, tensors[0], &[2, 3]), [2]);
        let stats = cache.stats();
        assert_eq!((stats.hits, stats.misses), (6, 10));
        assert_eq!((stats.hit_bytes, stats.miss_bytes), (72, 120));
        assert_eq!(stats.hit_rate(), Some(0.375));
        // What no tensor holds is nobody's.
        for elsewhere in [range(0, 99, 1), range(0, 196, 12), range(1, 84, 12), range(2, 500, 12)] {
            cache.begin(elsewhere, std::iter::once((0, 1)));
            cache.keep(elsewhere, |_| panic!("there is no place"));
            assert_eq!(cache.get(elsewhere), None);
        }
        assert_eq!(cache.stats(), stats);
    }

    #[test]
    fn what_came_in_part_is_not_there() {
        let tensor = range(0, 0, 4 * EXPERT_BYTES);
        let cached = vec![CachedTensor { range: tensor, n_experts: 4, n_places: 1 }];
        let mut cache = ExpertCache::new(cached, ExpertPolicy::Lru, &Tier::ram(None)).unwrap();
        cache.begin(tensor, std::iter::once((1, 1)));
        cache.keep(range(0, 12, 5), |place| place.fill(9));
        cache.forget();
        assert_eq!(cache.get(expert(tensor, 1)), None);
        assert!(pass(&mut cache, tensor, &[2]).is_empty());
        assert_eq!(pass(&mut cache, tensor, &[2]), [2]);
    }
}
