//! Large anonymous memory, on huge pages where the system has them, and files read into it.
//!
//! A mapped file lies in pages of 4 KiB, and every new page costs the processor a walk through its tables.
//! A copy on huge pages is read faster. It is made once, at load, by several readers: what the page cache
//! holds is copied from there, and the rest is read past it. The kernel reads ahead all the same where it is
//! asked what it holds, so that a cold file still passes through its cache.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError, mpsc};
use std::thread;

use memmap2::{Mmap, MmapMut};

use crate::error::{Error, Result};

/// Bytes read at a time: a few requests of this size keep a disk busy.
const CHUNK_BYTES: usize = 4 << 20;

/// Readers, each with one request under way.
const READERS: usize = 4;

/// Memory from which on huge pages are asked for: of a smaller piece much might lie in a page that is never
/// used.
#[cfg(target_os = "linux")]
const MIN_HUGE_BYTES: usize = 8 << 20;

/// Zeros, which begin with a page and take no memory before they are touched.
///
/// # Errors
/// [`Error::OutOfMemory`] if the system refuses.
pub(crate) fn zeros(what: &'static str, n_bytes: usize) -> Result<MmapMut> {
    anonymous(n_bytes).map_err(|_| Error::OutOfMemory { what, bytes: n_bytes as u64 })
}

fn anonymous(n_bytes: usize) -> io::Result<MmapMut> {
    let map = MmapMut::map_anon(n_bytes)?;
    #[cfg(target_os = "linux")]
    if n_bytes >= MIN_HUGE_BYTES
        && let Err(error) = map.advise(memmap2::Advice::HugePage)
    {
        tracing::debug!(%error, "no huge pages");
    }
    Ok(map)
}

/// Reads the `n_bytes` of a file. `progress` is called with the bytes of each piece that has arrived.
///
/// # Errors
/// What opening or reading reports, no memory, or a file that isn't `n_bytes` long any more.
pub(super) fn read(path: &Path, n_bytes: usize, progress: &mut dyn FnMut(u64)) -> io::Result<Mmap> {
    let source = Source::open(path)?;
    if source.file.metadata()?.len() != n_bytes as u64 {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it has changed since it was opened"));
    }
    let mut slab = anonymous(n_bytes)?;
    let chunks = Mutex::new(slab.chunks_mut(CHUNK_BYTES).enumerate());
    let failed = AtomicBool::new(false);
    thread::scope(|scope| {
        let (done, pieces) = mpsc::channel();
        for _ in 0..READERS {
            let (done, chunks, source, failed) = (done.clone(), &chunks, &source, &failed);
            scope.spawn(move || {
                while !failed.load(Ordering::Relaxed) {
                    let next = chunks.lock().unwrap_or_else(PoisonError::into_inner).next();
                    let Some((i, chunk)) = next else { break };
                    let result = source.read((i * CHUNK_BYTES) as u64, chunk).map(|()| chunk.len() as u64);
                    failed.fetch_or(result.is_err(), Ordering::Relaxed);
                    // Nobody listens any more once a piece has failed.
                    let _ = done.send(result);
                }
            });
        }
        drop(done);
        pieces.into_iter().try_for_each(|piece| piece.map(&mut *progress))
    })?;
    slab.make_read_only()
}

/// A file open for reading through the page cache and, where the system can, past it.
struct Source {
    file: File,
    #[cfg(target_os = "linux")]
    direct: Option<File>,
}

#[cfg(target_os = "linux")]
impl Source {
    fn open(path: &Path) -> io::Result<Self> {
        use std::os::unix::fs::OpenOptionsExt;

        let flags = rustix::fs::OFlags::DIRECT.bits().cast_signed();
        let direct = File::options().read(true).custom_flags(flags).open(path);
        if let Err(error) = &direct {
            tracing::info!(%error, path = %path.display(), "read through the page cache");
        }
        Ok(Self { file: File::open(path)?, direct: direct.ok() })
    }

    /// Fills `chunk`, which lies at `offset`, a multiple of the page size.
    fn read(&self, offset: u64, chunk: &mut [u8]) -> io::Result<()> {
        use std::os::unix::fs::FileExt;

        let cached = self.read_cached(offset, chunk) / PAGE_BYTES * PAGE_BYTES;
        let (offset, rest) = (offset + cached as u64, &mut chunk[cached..]);
        let whole_pages = rest.len() / PAGE_BYTES * PAGE_BYTES;
        let (pages, tail) = rest.split_at_mut(whole_pages);
        self.direct.as_ref().unwrap_or(&self.file).read_exact_at(pages, offset)?;
        self.file.read_exact_at(tail, offset + whole_pages as u64)
    }

    /// Reads from the start of `chunk` what the page cache holds, up to the first gap. Returns how much.
    fn read_cached(&self, offset: u64, chunk: &mut [u8]) -> usize {
        use rustix::io::{ReadWriteFlags, preadv2};

        let mut n = 0;
        while n < chunk.len() {
            let rest = &mut [io::IoSliceMut::new(&mut chunk[n..])];
            match preadv2(&self.file, rest, offset + n as u64, ReadWriteFlags::NOWAIT) {
                // A file system that can't say what is cached refuses; then nothing is.
                Ok(0) | Err(_) => break,
                Ok(read) => n += read,
            }
        }
        n
    }
}

/// What direct reads are aligned to: at least the block of any disk.
#[cfg(target_os = "linux")]
const PAGE_BYTES: usize = 4096;

#[cfg(not(target_os = "linux"))]
impl Source {
    fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { file: File::open(path)? })
    }

    #[cfg(unix)]
    fn read(&self, offset: u64, chunk: &mut [u8]) -> io::Result<()> {
        std::os::unix::fs::FileExt::read_exact_at(&self.file, chunk, offset)
    }

    #[cfg(windows)]
    fn read(&self, mut offset: u64, mut chunk: &mut [u8]) -> io::Result<()> {
        use std::os::windows::fs::FileExt;

        while !chunk.is_empty() {
            match self.file.seek_read(chunk, offset)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                n => (offset, chunk) = (offset + n as u64, &mut chunk[n..]),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slab_holds_the_file_whatever_its_length() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bytes");
        for n_bytes in [1, 4095, 4096, 4097, CHUNK_BYTES, 2 * CHUNK_BYTES + 12_345] {
            let bytes: Vec<u8> = (0..n_bytes).map(|i| (i * 7 % 251) as u8).collect();
            std::fs::write(&path, &bytes).unwrap();
            let mut done = 0;
            let slab = read(&path, n_bytes, &mut |n| done += n).unwrap();
            assert!(slab[..] == bytes);
            assert_eq!(done, n_bytes as u64);
            assert!(read(&path, n_bytes + 1, &mut |_| ()).is_err());
        }
    }
}
