//! Files read past the page cache, where the system can.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::Path;

/// What direct reads are aligned to: at least the block of any disk.
pub(crate) const BLOCK_BYTES: usize = 4096;

/// A file open for reading through the page cache and, where the system can, past it.
pub(crate) struct DirectFile {
    pub(super) file: File,
    pub(super) direct: Option<File>,
}

impl DirectFile {
    #[cfg(target_os = "linux")]
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let direct = open_direct(path);
        if let Err(error) = &direct {
            tracing::info!(%error, path = %path.display(), "can't be read past the page cache");
        }
        Ok(Self { file: File::open(path)?, direct: direct.ok() })
    }

    #[cfg(not(target_os = "linux"))]
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { file: File::open(path)?, direct: None })
    }

    /// The file through the page cache.
    pub(crate) fn plain(&self) -> &File {
        &self.file
    }

    /// Room that the [blocks](Self::blocks) of any range of `n_bytes` need.
    pub(crate) fn room_for(n_bytes: usize) -> usize {
        n_bytes.next_multiple_of(BLOCK_BYTES) + BLOCK_BYTES
    }

    /// The longest range for which there is [room](Self::room_for) in `n_bytes`.
    pub(super) fn longest_in(n_bytes: usize) -> usize {
        (n_bytes / BLOCK_BYTES).saturating_sub(1) * BLOCK_BYTES
    }

    /// The whole blocks that hold a range, not yet read.
    pub(super) fn blocks(&self, offset: u64, n_bytes: usize) -> Blocks {
        let start = (offset % BLOCK_BYTES as u64) as usize;
        let step = if self.direct.is_some() { BLOCK_BYTES } else { 1 };
        Blocks { first: offset - start as u64, start, n_needed: start + n_bytes, n_read: 0, step }
    }

    /// What blocks are read from.
    pub(super) fn source(&self) -> &File {
        self.direct.as_ref().unwrap_or(&self.file)
    }

    /// Reads the blocks that hold a range. Returns where in `to`, which begins with a block in memory, the range
    /// begins.
    ///
    /// # Errors
    /// The system's reason, or that the file ends before.
    ///
    /// # Panics
    /// If `to` is shorter than [`room_for`](Self::room_for) says.
    pub(crate) fn read_blocks(&self, offset: u64, n_bytes: usize, to: &mut [u8]) -> io::Result<usize> {
        let mut blocks = self.blocks(offset, n_bytes);
        while let Some((offset, place)) = blocks.missing() {
            blocks.count(read_at(self.source(), offset, &mut to[place]))?;
        }
        self.drop_cached(&blocks);
        Ok(blocks.start)
    }

    /// Tells the system that reads are of what they ask for and no more.
    pub(super) fn forbid_readahead(&self) {
        #[cfg(target_os = "linux")]
        advise(&self.file, 0, None, rustix::fs::Advice::Random);
    }

    /// Takes blocks that were read out of the page cache, if they came that way: it counts against the limits of a
    /// container, and they won't be there any more when they are wanted next.
    pub(super) fn drop_cached(&self, blocks: &Blocks) {
        #[cfg(target_os = "linux")]
        if self.direct.is_none() {
            let n_bytes = std::num::NonZeroU64::new(blocks.n_read as u64);
            advise(&self.file, blocks.first, n_bytes, rustix::fs::Advice::DontNeed);
        }
        #[cfg(not(target_os = "linux"))]
        let _ = blocks;
    }
}

/// Opens a file past the page cache, and reads a block to see that this works: some file systems let it be opened so
/// and refuse to read.
#[cfg(target_os = "linux")]
fn open_direct(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;

    let flags = rustix::fs::OFlags::DIRECT.bits().cast_signed();
    let file = File::options().read(true).custom_flags(flags).open(path)?;
    read_at(&file, 0, &mut memmap2::MmapMut::map_anon(BLOCK_BYTES)?)?;
    Ok(file)
}

#[cfg(target_os = "linux")]
fn advise(file: &File, offset: u64, n_bytes: Option<std::num::NonZeroU64>, advice: rustix::fs::Advice) {
    if let Err(error) = rustix::fs::fadvise(file, offset, n_bytes, advice) {
        tracing::debug!(%error, ?advice, "not heeded");
    }
}

/// Whole blocks of a file on their way to memory that begins with a block.
#[derive(Clone, Debug)]
pub(super) struct Blocks {
    /// Where the first begins in the file.
    first: u64,
    /// Where in the first the range begins that is wanted.
    pub(super) start: usize,
    /// Bytes up to the end of that range.
    n_needed: usize,
    /// Bytes that are there, from which on reading goes on.
    n_read: usize,
    /// What `n_read` is a multiple of until all is read.
    step: usize,
}

impl Blocks {
    /// What is still to be read: where it begins in the file, and where in memory it goes.
    pub(super) fn missing(&self) -> Option<(u64, Range<usize>)> {
        let place = self.n_read..self.n_needed.next_multiple_of(BLOCK_BYTES);
        (self.n_read < self.n_needed).then_some((self.first + self.n_read as u64, place))
    }

    /// Takes note of what a read of [`missing`](Self::missing) returned. A read that was interrupted or put off is to
    /// be made again, and after a short one the rest.
    ///
    /// # Errors
    /// The system's reason, or that the file ends before.
    pub(super) fn count(&mut self, result: io::Result<usize>) -> io::Result<()> {
        let n_read = match result {
            Ok(n) => self.n_read + n,
            Err(error) if matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock) => {
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        // What a short read has left over of a block is read again: a direct read must begin with one.
        let usable = if n_read < self.n_needed { n_read / self.step * self.step } else { n_read };
        if usable == self.n_read {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file has been cut short"));
        }
        self.n_read = usable;
        Ok(())
    }
}

#[cfg(unix)]
pub(super) fn read_at(file: &File, offset: u64, to: &mut [u8]) -> io::Result<usize> {
    std::os::unix::fs::FileExt::read_at(file, to, offset)
}

#[cfg(windows)]
pub(super) fn read_at(file: &File, offset: u64, to: &mut [u8]) -> io::Result<usize> {
    std::os::windows::fs::FileExt::seek_read(file, to, offset)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_range_is_read_and_none_past_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bytes");
        let bytes: Vec<u8> = (0..3 * BLOCK_BYTES + 77).map(|i| (i * 7 % 251) as u8).collect();
        std::fs::write(&path, &bytes).unwrap();
        let file = DirectFile::open(&path).unwrap();
        for (offset, n_bytes) in
            [(0, 1), (1, BLOCK_BYTES), (4095, 2), (32, 9000), (0, bytes.len()), (12_000, 365)]
        {
            let mut room = memmap2::MmapMut::map_anon(DirectFile::room_for(n_bytes)).unwrap();
            let start = file.read_blocks(offset as u64, n_bytes, &mut room).unwrap();
            assert!(room[start..][..n_bytes] == bytes[offset..][..n_bytes], "{n_bytes} bytes at {offset}");
        }
        for (offset, n_bytes) in [(bytes.len() - 10, 11), (bytes.len(), 1), (1 << 20, 1)] {
            let mut room = memmap2::MmapMut::map_anon(DirectFile::room_for(n_bytes)).unwrap();
            let error = file.read_blocks(offset as u64, n_bytes, &mut room).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        }
    }

    #[test]
    fn reads_that_end_early_or_are_put_off_go_on_where_they_must() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bytes");
        std::fs::write(&path, [0; BLOCK_BYTES]).unwrap();
        let buffered = DirectFile { file: File::open(&path).unwrap(), direct: None };
        let direct = DirectFile { direct: Some(File::open(&path).unwrap()), ..buffered };
        let mut blocks = direct.blocks(5000, 10_000);
        assert_eq!((blocks.start, blocks.missing()), (904, Some((4096, 0..12_288))));
        for reason in [io::ErrorKind::Interrupted, io::ErrorKind::WouldBlock] {
            blocks.count(Err(reason.into())).unwrap();
        }
        blocks.count(Ok(4100)).unwrap();
        assert_eq!(blocks.missing(), Some((8192, 4096..12_288)));
        blocks.count(Ok(904 + 10_000 - 4096)).unwrap();
        assert_eq!(blocks.missing(), None);
        let mut blocks = direct.blocks(0, 5000);
        assert_eq!(blocks.count(Ok(4095)).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        assert_eq!(
            blocks.count(Err(io::ErrorKind::NotFound.into())).unwrap_err().kind(),
            io::ErrorKind::NotFound
        );

        let buffered = DirectFile { direct: None, ..direct };
        let mut blocks = buffered.blocks(5000, 10_000);
        for at in 0..10_904 {
            assert_eq!(blocks.missing(), Some((4096 + at, at as usize..12_288)));
            blocks.count(Ok(1)).unwrap();
        }
        assert_eq!(blocks.missing(), None);
        assert!(buffered.blocks(0, 1).count(Ok(0)).is_err());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn what_came_through_the_page_cache_does_not_stay_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bytes");
        let n_bytes = 64 * BLOCK_BYTES;
        std::fs::write(&path, vec![7; n_bytes]).unwrap();
        let file = File::open(&path).unwrap();
        file.sync_all().unwrap();
        // SAFETY: nobody else knows the file, and nobody changes it.
        let map = unsafe { memmap2::Mmap::map(&file) }.unwrap();
        let source = DirectFile { file, direct: None };
        advise(&source.file, 0, None, rustix::fs::Advice::DontNeed);
        if super::super::slab::cached_pieces(&map).contains(&true) {
            println!("skipped: a file system that keeps what it is told to drop");
            return;
        }
        source.forbid_readahead();
        let mut room = memmap2::MmapMut::map_anon(DirectFile::room_for(n_bytes)).unwrap();
        source.read_blocks(0, n_bytes, &mut room).unwrap();
        assert!(room[..n_bytes].iter().all(|byte| *byte == 7));
        assert!(!super::super::slab::cached_pieces(&map).contains(&true));
    }
}
