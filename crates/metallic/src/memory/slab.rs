//! Large anonymous memory, on huge pages where the system has them, and files read into it.
//!
//! A mapped file lies in pages of 4 KiB, and every new page costs the processor a walk through its tables.
//! A copy on huge pages is read faster. It is made once, at load, by several readers: what the page cache
//! holds is copied from there, and the rest is read past it.
//!
//! Linux tells what it holds by mincore(2). cachestat(2) is quicker, but young, and blind on overlays;
//! reading with `RWF_NOWAIT` reads ahead, so that a cold file would pass through the cache after all.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError, mpsc};
use std::thread;

use memmap2::{Mmap, MmapMut};

use super::direct::{BLOCK_BYTES, DirectFile};
use super::ledger::{Leased, Tier};
use super::reader::{FileRange, MAX_READ_BYTES, ModelFiles, N_READS, READER_STACK_BYTES};
use crate::error::{Error, Result};

/// What is taken from the page cache or read past it as one: large enough for a disk to be quick.
#[cfg(target_os = "linux")]
const PIECE_BYTES: usize = 256 << 10;

/// Memory from which on huge pages are asked for: of a smaller piece much might lie in a page that is never
/// used.
const MIN_HUGE_BYTES: usize = 8 << 20;

/// Zeros, which begin with a page and take no memory before they are touched.
///
/// # Errors
/// [`Error::OverBudget`]; [`Error::OutOfMemory`] if the system refuses.
pub(crate) fn zeros(ram: &Tier, what: &'static str, n_bytes: usize) -> Result<Leased<MmapMut>> {
    leased(ram, what, n_bytes, n_bytes >= MIN_HUGE_BYTES)
}

/// The same for memory of which all will be used, on huge pages whatever its size: neighbours may share one.
///
/// # Errors
/// As [`zeros`].
pub(super) fn huge_zeros(ram: &Tier, what: &'static str, n_bytes: usize) -> Result<Leased<MmapMut>> {
    leased(ram, what, n_bytes, true)
}

fn leased(ram: &Tier, what: &'static str, n_bytes: usize, huge: bool) -> Result<Leased<MmapMut>> {
    let bytes = n_bytes as u64;
    let lease = ram.lease(what, bytes)?;
    Ok(lease.of(anonymous(n_bytes, huge).map_err(|_| Error::OutOfMemory { what, bytes })?))
}

fn anonymous(n_bytes: usize, huge: bool) -> io::Result<MmapMut> {
    let map = MmapMut::map_anon(n_bytes)?;
    #[cfg(target_os = "linux")]
    if huge && let Err(error) = map.advise(memmap2::Advice::HugePage) {
        tracing::debug!(%error, "no huge pages");
    }
    #[cfg(not(target_os = "linux"))]
    let _ = huge;
    Ok(map)
}

/// Reads a mapped file. `progress` is called with the bytes of each piece that has arrived.
///
/// # Errors
/// What opening or reading reports, no memory, or a file that isn't as long as its map any more.
pub(super) fn read(path: &Path, map: &Mmap, progress: &mut dyn FnMut(u64)) -> io::Result<Mmap> {
    let source = DirectFile::open(path)?;
    if source.file.metadata()?.len() != map.len() as u64 {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it has changed since it was opened"));
    }
    let mut slab = anonymous(map.len(), map.len() >= MIN_HUGE_BYTES)?;
    let chunks = slab.chunks_mut(MAX_READ_BYTES).enumerate();
    let mut n_past_cache = 0;
    read_in_parallel(
        chunks,
        &|(i, chunk)| source.read_piece(map, i * MAX_READ_BYTES, chunk).map(|past| (chunk.len(), past)),
        &mut |(n_bytes, past)| {
            n_past_cache += past;
            progress(n_bytes as u64);
        },
    )?;
    let through_cache_bytes = map.len() - n_past_cache;
    tracing::info!(path = %path.display(), through_cache_bytes, past_cache_bytes = n_past_cache, "read");
    slab.make_read_only()
}

/// Bytes that a range read by [`read_ranges`] takes.
pub(crate) fn bytes_for(n_bytes: usize) -> usize {
    DirectFile::room_for(n_bytes)
}

/// Bytes of the longest range that takes no more than `n_bytes`.
pub(crate) fn longest_in(n_bytes: usize) -> usize {
    DirectFile::longest_in(n_bytes)
}

/// Reads some ranges of a model's files past the page cache. Returns the memory and where each range begins in it.
/// `progress` is called with the bytes of each piece that has arrived.
///
/// # Errors
/// [`Error::Stream`] names the range that could not be read; [`Error::OverBudget`]; [`Error::OutOfMemory`].
pub(super) fn read_ranges(
    ram: &Tier,
    files: &ModelFiles,
    ranges: &[FileRange],
    progress: &mut dyn FnMut(u64),
) -> Result<(Leased<Mmap>, Vec<usize>)> {
    let total = ranges.iter().map(|range| bytes_for(range.n_bytes)).sum();
    let what = "resident weights";
    let mut slab = zeros(ram, what, total)?;
    let mut starts = Vec::with_capacity(ranges.len());
    let mut pieces = Vec::new();
    let (mut rest, mut region_start) = (&mut slab[..], 0);
    for range in ranges {
        let (region, after) = std::mem::take(&mut rest).split_at_mut(bytes_for(range.n_bytes));
        let in_block = (range.offset % BLOCK_BYTES as u64) as usize;
        starts.push(region_start + in_block);
        (rest, region_start) = (after, region_start + region.len());
        let (first, n_bytes) = (range.offset - in_block as u64, in_block + range.n_bytes);
        for (i, to) in region.chunks_mut(MAX_READ_BYTES).enumerate() {
            let done = i * MAX_READ_BYTES;
            if done < n_bytes {
                let n_bytes = MAX_READ_BYTES.min(n_bytes - done);
                pieces.push((FileRange { offset: first + done as u64, n_bytes, ..*range }, to));
            }
        }
    }
    read_in_parallel(
        pieces.into_iter(),
        &|(range, to)| match files.read_blocks(range, to) {
            Ok(_) => Ok(range.n_bytes as u64),
            Err(source) => Err(files.error(range, source)),
        },
        progress,
    )?;
    let slab = slab.try_map(MmapMut::make_read_only);
    Ok((slab.map_err(|_| Error::OutOfMemory { what, bytes: total as u64 })?, starts))
}

/// Reads pieces on a few threads. `arrived` is called, on this one, with what each read returned; the first that fails
/// ends it. Where the system refuses threads, fewer read, and without any this one does.
fn read_in_parallel<P: Send, R: Send, E: Send>(
    pieces: impl Iterator<Item = P> + Send,
    read: &(dyn Fn(P) -> Result<R, E> + Sync),
    arrived: &mut dyn FnMut(R),
) -> Result<(), E> {
    let pieces = Mutex::new(pieces);
    let next = || pieces.lock().unwrap_or_else(PoisonError::into_inner).next();
    let failed = AtomicBool::new(false);
    thread::scope(|scope| {
        let (done, results) = mpsc::channel();
        for i in 0..N_READS {
            let (done, next, failed) = (done.clone(), &next, &failed);
            let work = move || {
                while !failed.load(Ordering::Relaxed) {
                    let Some(piece) = next() else { break };
                    let result = read(piece);
                    failed.fetch_or(result.is_err(), Ordering::Relaxed);
                    // Nobody listens any more once a piece has failed.
                    let _ = done.send(result);
                }
            };
            let thread = thread::Builder::new().name(format!("reader-{i}")).stack_size(READER_STACK_BYTES);
            if let Err(error) = thread.spawn_scoped(scope, work) {
                tracing::info!(%error, "files are read by {i} threads");
                break;
            }
        }
        drop(done);
        results.into_iter().try_for_each(|result| result.map(&mut *arrived))?;
        // Nothing is left where there were threads.
        std::iter::from_fn(next).try_for_each(|piece| read(piece).map(&mut *arrived))
    })
}

#[cfg(target_os = "linux")]
impl DirectFile {
    /// Fills `chunk`, which lies at `offset` in the file, a multiple of [`MAX_READ_BYTES`]. Returns how much was
    /// read past the page cache.
    fn read_piece(&self, map: &Mmap, offset: usize, chunk: &mut [u8]) -> io::Result<usize> {
        use std::os::unix::fs::FileExt;

        let Some(direct) = &self.direct else {
            return self.file.read_exact_at(chunk, offset as u64).map(|()| 0);
        };
        let cached = cached_pieces(&map[offset..][..chunk.len()]);
        let (mut start, mut n_past_cache) = (0, 0);
        for run in cached.chunk_by(|a, b| a == b) {
            let end = (start + run.len() * PIECE_BYTES).min(chunk.len());
            // The rest of the last block can't be read directly.
            let n_direct = if run[0] { 0 } else { (end - start) / BLOCK_BYTES * BLOCK_BYTES };
            let (past, through) = chunk[start..end].split_at_mut(n_direct);
            direct.read_exact_at(past, (offset + start) as u64)?;
            self.file.read_exact_at(through, (offset + start + n_direct) as u64)?;
            (start, n_past_cache) = (end, n_past_cache + n_direct);
        }
        Ok(n_past_cache)
    }
}

/// Of each piece of a mapped file, whether the page cache holds all of it. Linux tells that of files which the
/// process might write to; of others it says yes. `range` begins with a page of the map.
#[cfg(target_os = "linux")]
pub(super) fn cached_pieces(range: &[u8]) -> Vec<bool> {
    let page_bytes = rustix::param::page_size();
    assert!(range.as_ptr().addr().is_multiple_of(page_bytes));
    let mut pages = vec![0u8; range.len().div_ceil(page_bytes)];
    // SAFETY: `range` is mapped and begins with a page, and `pages` has a byte for each page of it, which is
    // what mincore(2) writes.
    let status = unsafe { libc::mincore(range.as_ptr().cast_mut().cast(), range.len(), pages.as_mut_ptr()) };
    if status != 0 {
        tracing::debug!(error = %io::Error::last_os_error(), "can't tell what the page cache holds");
    }
    pages.chunks(PIECE_BYTES / page_bytes).map(|pages| pages.iter().all(|page| page & 1 == 1)).collect()
}

#[cfg(not(target_os = "linux"))]
impl DirectFile {
    #[cfg(unix)]
    fn read_piece(&self, _map: &Mmap, offset: usize, chunk: &mut [u8]) -> io::Result<usize> {
        std::os::unix::fs::FileExt::read_exact_at(&self.file, chunk, offset as u64).map(|()| 0)
    }

    #[cfg(windows)]
    fn read_piece(&self, _map: &Mmap, offset: usize, mut chunk: &mut [u8]) -> io::Result<usize> {
        use std::os::windows::fs::FileExt;

        let mut offset = offset as u64;
        while !chunk.is_empty() {
            match self.file.seek_read(chunk, offset)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                n => (offset, chunk) = (offset + n as u64, &mut chunk[n..]),
            }
        }
        Ok(0)
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    fn write_and_map(path: &Path, n_bytes: usize) -> Mmap {
        let bytes: Vec<u8> = (0..n_bytes).map(|i| (i * 7 % 251) as u8).collect();
        std::fs::write(path, &bytes).unwrap();
        // SAFETY: nobody else knows the file, and the tests only lengthen it.
        unsafe { Mmap::map(&File::open(path).unwrap()) }.unwrap()
    }

    #[test]
    fn the_slab_holds_the_file_whatever_its_length() {
        let folder = tempfile::tempdir().unwrap();
        for n_bytes in [1, 4095, 4096, 4097, MAX_READ_BYTES, 2 * MAX_READ_BYTES + 12_345] {
            let path = folder.path().join(n_bytes.to_string());
            let map = write_and_map(&path, n_bytes);
            let mut done = 0;
            let slab = read(&path, &map, &mut |n| done += n).unwrap();
            assert!(slab[..] == map[..]);
            assert_eq!(done, n_bytes as u64);
            File::options().append(true).open(&path).unwrap().set_len(n_bytes as u64 + 1).unwrap();
            assert!(read(&path, &map, &mut |_| ()).is_err());
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn what_the_page_cache_lacks_is_read_past_it() {
        use rustix::fs::{Advice, fadvise};
        use std::os::unix::fs::FileExt;

        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bytes");
        let map = write_and_map(&path, 2 * MAX_READ_BYTES + 3 * PIECE_BYTES + 1);
        let file = File::open(&path).unwrap();
        file.sync_all().unwrap();
        fadvise(&file, 0, None, Advice::DontNeed).unwrap();
        if cached_pieces(&map).contains(&true) {
            println!("skipped: a file system that keeps what it is told to drop");
            return;
        }
        fadvise(&file, 0, None, Advice::Random).unwrap();
        let mut last = [0; PIECE_BYTES];
        file.read_exact_at(&mut last, (MAX_READ_BYTES - PIECE_BYTES) as u64).unwrap();

        let slab = read(&path, &map, &mut |_| ()).unwrap();
        let cached = cached_pieces(&map);
        assert!(slab[..] == map[..]);
        // The byte after the last whole block is a piece, too, and can't be read past the cache.
        let n_pieces = MAX_READ_BYTES / PIECE_BYTES;
        for (piece, cached) in cached.into_iter().enumerate() {
            assert_eq!(cached, piece == n_pieces - 1 || piece == 2 * n_pieces + 3, "piece {piece}");
        }
    }
}
