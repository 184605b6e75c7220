//! Reads made by threads, each of which has one under way: where there is nothing better.

use std::io;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use super::{ModelFiles, N_READS, READER_STACK_BYTES, Read, Reader, ReaderKind};

/// Threads that take reads from one queue and put them into another.
pub(super) struct ReadThreads {
    submitted: Option<SyncSender<Read>>,
    ended: Receiver<(Read, io::Result<()>)>,
    threads: Vec<JoinHandle<()>>,
}

impl ReadThreads {
    /// Starts them, for at most `max_reads` at a time.
    ///
    /// # Errors
    /// What the system says, if it refuses a thread.
    pub(super) fn start(files: &Arc<ModelFiles>, max_reads: usize) -> io::Result<Self> {
        let n_threads = N_READS.min(max_reads);
        let (submitted, reads) = sync_channel::<Read>(max_reads);
        let (end, ended) = sync_channel(max_reads);
        let reads = Arc::new(Mutex::new(reads));
        let mut this = Self { submitted: Some(submitted), ended, threads: Vec::with_capacity(n_threads) };
        for i in 0..n_threads {
            let (files, reads, end) = (Arc::clone(files), Arc::clone(&reads), end.clone());
            let work = move || {
                loop {
                    let next = reads.lock().unwrap_or_else(PoisonError::into_inner).recv();
                    let Ok(mut read) = next else { return };
                    let result = read.slot.fill(&files, read.range);
                    if end.send((read, result)).is_err() {
                        return;
                    }
                }
            };
            let thread = thread::Builder::new().name(format!("reader-{i}")).stack_size(READER_STACK_BYTES);
            this.threads.push(thread.spawn(work)?);
        }
        Ok(this)
    }
}

impl Reader for ReadThreads {
    fn kind(&self) -> ReaderKind {
        ReaderKind::Threads
    }

    fn submit(&mut self, read: Read) {
        let sent = self.submitted.as_ref().map(|submitted| submitted.send(read));
        assert!(matches!(sent, Some(Ok(()))), "readers run as long as this");
    }

    fn wait(&mut self) -> (Read, io::Result<()>) {
        self.ended.recv().expect("readers run as long as this")
    }
}

impl Drop for ReadThreads {
    fn drop(&mut self) {
        self.submitted = None;
        // A reader panics only by a defect, which has been reported; there is nothing to add here.
        self.threads.drain(..).for_each(|thread| drop(thread.join()));
    }
}
