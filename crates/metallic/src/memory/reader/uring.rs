//! Reads made by the kernel, which takes requests and returns results through two rings: io_uring(7).
//!
//! The kernel is given a few requests at a time, in order: a disk shares itself out among all that it is given, and what
//! is wanted first would come with the last. A request is handed over as soon as it is made; that a batch would save
//! system calls matters nothing with some hundred requests a second. For the same reason registered buffers and files
//! gained nothing in measurements. A kernel thread that watches the ring would take a core from those that compute.

use std::collections::VecDeque;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;

use io_uring::{IoUring, Probe, opcode, types};

use super::{ModelFiles, N_READS, Read, Reader, ReaderKind};
use crate::memory::direct::Blocks;

/// Bytes of one request at most: the kernel takes no more than 2 GiB and reads less if more is asked for.
const MAX_REQUEST_BYTES: usize = 1 << 30;

/// A ring, and the reads that the kernel may be making.
///
/// What proves the `unsafe` below: from the moment when a request is put into the ring to that when its result is taken
/// out, its [`Read`] is in `under_way`, so that nobody else touches the slot's memory; and dropping this waits for
/// all of them first.
pub(super) struct UringReader {
    ring: IoUring,
    files: Arc<ModelFiles>,
    /// Reads that the kernel has not been given.
    waiting: VecDeque<Read>,
    /// By the index that the kernel knows a read by.
    under_way: [Option<(Read, Blocks)>; N_READS],
    /// Reads that have ended.
    ended: VecDeque<(Read, io::Result<()>)>,
}

impl UringReader {
    /// Sets up a ring. There will be at most `max_reads` reads at a time.
    ///
    /// # Errors
    /// The system's reason, if it does not allow that, or is too old to read so.
    pub(super) fn start(files: Arc<ModelFiles>, max_reads: usize) -> io::Result<Self> {
        let ring = IoUring::new(N_READS as u32)?;
        let mut probe = Probe::new();
        ring.submitter().register_probe(&mut probe)?;
        if !probe.is_supported(opcode::Read::CODE) {
            return Err(io::ErrorKind::Unsupported.into());
        }
        // Nothing yet, but where it is forbidden to submit, this says so.
        ring.submit()?;
        Ok(Self {
            ring,
            files,
            waiting: VecDeque::with_capacity(max_reads),
            under_way: [const { None }; N_READS],
            ended: VecDeque::with_capacity(max_reads),
        })
    }

    /// Gives the kernel as many of the waiting reads as it may have.
    fn request_waiting(&mut self) {
        while let Some(index) = self.under_way.iter().position(Option::is_none)
            && let Some(read) = self.waiting.pop_front()
        {
            let blocks = self.files.of(read.range).blocks(read.range.offset, read.range.n_bytes);
            self.under_way[index] = Some((read, blocks));
            self.request(index);
        }
    }

    /// Asks the kernel for what is missing of a read.
    fn request(&mut self, index: usize) {
        let (read, blocks) = self.under_way[index].as_mut().expect("a read that is under way");
        let (offset, place) = blocks.missing().expect("not all of it is read");
        let to = &mut read.slot.memory[place];
        let n_bytes = to.len().min(MAX_REQUEST_BYTES) as u32;
        let file = types::Fd(self.files.of(read.range).source().as_raw_fd());
        let entry = opcode::Read::new(file, to.as_mut_ptr(), n_bytes).offset(offset).build();
        let entry = entry.user_data(index as u64);
        // SAFETY: the memory is that of a slot in `under_way`, where it is until the result is there (see the type); the
        // file is open as long as `files` is there.
        let pushed = unsafe { self.ring.submission().push(&entry) };
        pushed.expect("the ring has room for all reads");
        // What is not taken now, because the call was interrupted say, stays in the ring, and `next_result` goes on.
        if let Err(error) = self.ring.submit() {
            tracing::debug!(%error, "a request is submitted later");
        }
    }

    /// A request that the kernel has ended, if there is one: the index of the read and how many bytes there are.
    fn result(&mut self) -> Option<(usize, io::Result<usize>)> {
        let entry = self.ring.completion().next()?;
        let result = match entry.result() {
            // The thread has ended that made the request, and took with it what had not begun.
            error if error == -libc::ECANCELED => Err(io::ErrorKind::Interrupted.into()),
            n_bytes => usize::try_from(n_bytes).map_err(|_| io::Error::from_raw_os_error(-n_bytes)),
        };
        Some((entry.user_data() as usize, result))
    }

    /// Waits for the kernel to end a request.
    ///
    /// # Errors
    /// The kernel does not serve the ring any more.
    fn next_result(&mut self) -> io::Result<(usize, io::Result<usize>)> {
        loop {
            if let Some(result) = self.result() {
                return Ok(result);
            }
            match self.ring.submit_and_wait(1) {
                Err(error) if !is_passing(&error) => return Err(error),
                _ => {}
            }
        }
    }

    /// Goes on with a read of which a request has ended.
    fn take(&mut self, (index, result): (usize, io::Result<usize>)) {
        let (_, blocks) = self.under_way[index].as_mut().expect("a result of a read that is under way");
        let result = blocks.count(result);
        if result.is_ok() && blocks.missing().is_some() {
            return self.request(index);
        }
        let (mut read, blocks) = self.under_way[index].take().expect("it is there");
        self.files.of(read.range).drop_cached(&blocks);
        read.slot.holds(blocks.start, read.range);
        self.ended.push_back((read, result));
        self.request_waiting();
    }
}

/// Whether it helps to ask again: the call was interrupted, or the kernel is short of something.
fn is_passing(error: &io::Error) -> bool {
    use io::ErrorKind::{Interrupted, ResourceBusy, WouldBlock};
    matches!(error.kind(), Interrupted | WouldBlock | ResourceBusy)
}

impl Reader for UringReader {
    fn kind(&self) -> ReaderKind {
        ReaderKind::IoUring
    }

    fn submit(&mut self, read: Read) {
        self.waiting.push_back(read);
        self.request_waiting();
        while let Some(result) = self.result() {
            self.take(result);
        }
    }

    fn wait(&mut self) -> (Read, io::Result<()>) {
        loop {
            if let Some(ended) = self.ended.pop_front() {
                return ended;
            }
            let result = self.next_result().expect("the kernel serves a ring that it has set up");
            self.take(result);
        }
    }
}

impl Drop for UringReader {
    fn drop(&mut self) {
        while self.under_way.iter().any(Option::is_some) {
            match self.next_result() {
                Ok((index, _)) => self.under_way[index] = None,
                // The kernel may still write to the slots; so their memory must stay.
                Err(_) => {
                    return std::mem::forget(std::mem::replace(
                        &mut self.under_way,
                        [const { None }; N_READS],
                    ));
                }
            }
        }
    }
}
