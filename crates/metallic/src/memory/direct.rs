//! Files read past the page cache, where the system can.

use std::fs::File;
use std::io;
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
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        use std::os::unix::fs::OpenOptionsExt;

        let flags = rustix::fs::OFlags::DIRECT.bits().cast_signed();
        let direct = File::options().read(true).custom_flags(flags).open(path);
        if let Err(error) = &direct {
            tracing::info!(%error, path = %path.display(), "can't be read past the page cache");
        }
        Ok(Self { file: File::open(path)?, direct: direct.ok() })
    }

    #[cfg(not(target_os = "linux"))]
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { file: File::open(path)?, direct: None })
    }

    /// Room that [`read_blocks`](Self::read_blocks) needs for any range of `n_bytes`.
    pub(super) fn room_for(n_bytes: usize) -> usize {
        n_bytes.next_multiple_of(BLOCK_BYTES) + BLOCK_BYTES
    }

    /// Reads the whole blocks that hold a range. Returns where in `to`, which begins with a block in memory, the
    /// range begins.
    ///
    /// # Errors
    /// The system's reason, or that the file ends before.
    ///
    /// # Panics
    /// If `to` is shorter than [`room_for`](Self::room_for) says.
    pub(super) fn read_blocks(&self, offset: u64, n_bytes: usize, to: &mut [u8]) -> io::Result<usize> {
        let start = (offset % BLOCK_BYTES as u64) as usize;
        let (first, n_needed) = (offset - start as u64, start + n_bytes);
        let to = &mut to[..n_needed.next_multiple_of(BLOCK_BYTES)];
        let file = self.direct.as_ref().unwrap_or(&self.file);
        let cut_short = || io::Error::new(io::ErrorKind::UnexpectedEof, "the file has been cut short");
        let mut n_read = 0;
        while n_read < n_needed {
            match read_at(file, first + n_read as u64, &mut to[n_read..]) {
                Ok(0) => return Err(cut_short()),
                // What a short read has left over of a block is read again: the next must begin with one.
                Ok(n) if n_read + n < n_needed => {
                    let whole = (n_read + n) / BLOCK_BYTES * BLOCK_BYTES;
                    if whole == n_read {
                        return Err(cut_short());
                    }
                    n_read = whole;
                }
                Ok(n) => n_read += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(start)
    }
}

#[cfg(unix)]
fn read_at(file: &File, offset: u64, to: &mut [u8]) -> io::Result<usize> {
    std::os::unix::fs::FileExt::read_at(file, to, offset)
}

#[cfg(windows)]
fn read_at(file: &File, offset: u64, to: &mut [u8]) -> io::Result<usize> {
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
}
