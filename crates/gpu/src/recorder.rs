//! What the device is to do next: dispatches in one pass, submitted together when a result is wanted, or when they are enough.
//!
//! The host is never far ahead of the device: who gives up a pass waits for no more than was submitted. What is recorded of
//! such a pass is not taken back: it may begin with the end of the pass before, which counts.
//!
//! What kernels need of the host (ids, page tables, lists of rows) goes to one buffer, the *notes*. A submission has notes
//! of its own, uploaded just before it, and each operation its own part of them: so none is written over before it is read.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use metallic::backend::DeviceStats;
use metallic::memory::{ExpertStats, Lease};
use smallvec::SmallVec;
use wgpu::{BufferUsages, CommandEncoder, ComputePass, MapMode, PollType, SubmissionIndex};

use crate::error::{Error, Result};
use crate::kernels::{Call, Kernels};
use crate::memory::{GpuBuffer, Vram};
use crate::uploads::{Mapping, Uploads};

/// Words of the notes: more than any operation asks for at once, and one upload's.
pub(crate) const NOTES_WORDS: usize = 1 << 20;

/// Dispatches after which what is recorded is submitted: more than a token of the deepest models has.
const MAX_DISPATCHES: usize = 4096;

/// Multiplications after which it is, too: some 20 ms of a slow GPU, 3 s of software on two cores. A generated token takes
/// fewer in most models, a prompt's batch many times as many.
const MAX_MULTIPLICATIONS: u64 = 1 << 31;

/// Submissions that the device has not done: one that runs, and one that follows at once.
const MAX_IN_FLIGHT: usize = 2;

/// Bytes that are read back at a time.
const READ_BYTES: usize = 1 << 20;

/// Counts what a backend does; kept by those who want to know when the backend is in a model.
#[derive(Debug, Default)]
pub struct Counters {
    n_dispatches: AtomicU64,
    n_submissions: AtomicU64,
    n_waits: AtomicU64,
    swapped_bytes: AtomicU64,
    n_compiled: AtomicU64,
    compile_nanos: AtomicU64,
    experts: Mutex<ExpertStats>,
}

impl Counters {
    /// The counts so far.
    pub fn stats(&self) -> DeviceStats {
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        DeviceStats {
            n_dispatches: count(&self.n_dispatches),
            n_submissions: count(&self.n_submissions),
            n_waits: count(&self.n_waits),
            swapped_bytes: count(&self.swapped_bytes),
            experts: *self.experts.lock().unwrap_or_else(PoisonError::into_inner),
            n_compiled: count(&self.n_compiled),
            compile_time: Duration::from_nanos(count(&self.compile_nanos)),
        }
    }

    /// Counts what a cache was asked for: see [`ExpertStats::count`].
    pub(crate) fn found(&self, counts: (u64, u64), expert_bytes: u64) {
        self.experts.lock().unwrap_or_else(PoisonError::into_inner).count(counts, expert_bytes);
    }

    /// Counts a kernel that took so long to compile.
    pub(crate) fn compiled(&self, time: Duration) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.compile_nanos.fetch_add(nanos, Ordering::Relaxed);
        self.n_compiled.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a wait if there was one.
    pub(crate) fn waited(&self, waited: bool) {
        self.n_waits.fetch_add(waited.into(), Ordering::Relaxed);
    }
}

/// Something that an operation writes to the notes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Note<'a> {
    Numbers(&'a [u32]),
    Floats(&'a [f32]),
}

/// Commands that are recorded and not yet submitted.
pub(crate) struct Recorder {
    vram: Vram,
    pub(crate) uploads: Uploads,
    /// The pass that is open. Declared before the encoder that it belongs to.
    pass: Option<ComputePass<'static>>,
    encoder: Option<CommandEncoder>,
    n_recorded: usize,
    n_multiplications: u64,
    /// Submissions that the device may not have done, the oldest first.
    in_flight: VecDeque<SubmissionIndex>,
    /// What is recorded uses these, so they must not end before it is submitted.
    used: Vec<GpuBuffer>,
    notes: Vec<u32>,
    on_device: GpuBuffer,
    slots: Slots,
    read: wgpu::Buffer,
    counters: Arc<Counters>,
    _lease: Lease,
}

/// Places on the device for weights that are swapped in. A queue keeps the order of what it is given, so that a slot can be
/// written again as soon as its last use was submitted.
#[derive(Default)]
struct Slots {
    buffers: Vec<GpuBuffer>,
    /// The one that is next, and how many are in use by what is recorded.
    next: usize,
    n_recorded: usize,
}

impl Note<'_> {
    fn len(&self) -> usize {
        match self {
            Note::Numbers(numbers) => numbers.len(),
            Note::Floats(floats) => floats.len(),
        }
    }
}

fn encoder(vram: &Vram) -> CommandEncoder {
    let descriptor = wgpu::CommandEncoderDescriptor { label: Some("operations") };
    vram.device.device.create_command_encoder(&descriptor)
}

impl Recorder {
    /// Bytes that it takes.
    pub(crate) fn bytes() -> u64 {
        (4 * NOTES_WORDS + READ_BYTES) as u64 + Uploads::bytes()
    }

    pub(crate) fn new(vram: &Vram) -> Result<Self> {
        let usage = BufferUsages::MAP_READ | BufferUsages::COPY_DST;
        let counters = Arc::new(Counters::default());
        let (read, lease) = vram.allocate("results", READ_BYTES as u64, usage)?;
        Ok(Self {
            vram: vram.clone(),
            uploads: Uploads::new(vram, &counters)?,
            pass: None,
            encoder: None,
            n_recorded: 0,
            n_multiplications: 0,
            in_flight: VecDeque::with_capacity(MAX_IN_FLIGHT),
            used: Vec::new(),
            notes: Vec::with_capacity(NOTES_WORDS),
            on_device: vram.words("notes of kernels", NOTES_WORDS)?,
            slots: Slots::default(),
            read,
            counters,
            _lease: lease,
        })
    }

    /// The buffer that kernels read notes from.
    pub(crate) fn notes(&self) -> GpuBuffer {
        self.on_device.clone()
    }

    /// Begins an operation: where enough is recorded, that is submitted. Not in the midst of one, whose kernels may share
    /// notes.
    pub(crate) fn begin(&mut self) -> Result<()> {
        let is_enough = self.n_recorded >= MAX_DISPATCHES || self.n_multiplications >= MAX_MULTIPLICATIONS;
        if is_enough { self.submit() } else { Ok(()) }
    }

    /// Writes what one operation needs to the notes, and returns where each begins, in words. All at once: where they are
    /// full, what is recorded is submitted first.
    pub(crate) fn note<const N: usize>(&mut self, notes: [Note<'_>; N]) -> Result<[u32; N]> {
        let len: usize = notes.iter().map(Note::len).sum();
        if len > NOTES_WORDS {
            let [bytes, max_bytes] = [len, NOTES_WORDS].map(|words| 4 * words as u64);
            return Err(Error::TooLarge { what: "what an operation is told", bytes, max_bytes });
        }
        if self.notes.len() + len > NOTES_WORDS {
            self.submit()?;
        }
        Ok(notes.map(|note| {
            let first = self.notes.len() as u32;
            match note {
                Note::Numbers(numbers) => self.notes.extend_from_slice(numbers),
                Note::Floats(floats) => self.notes.extend(floats.iter().map(|x| x.to_bits())),
            }
            first
        }))
    }

    /// Records a kernel.
    pub(crate) fn record(&mut self, kernels: &mut Kernels, call: &Call<'_>) -> Result<()> {
        let Some(grid) = call.grid.size() else { return Ok(()) };
        let ready = kernels.ready(call)?;
        let encoder = self.encoder.get_or_insert_with(|| encoder(&self.vram));
        let pass = self
            .pass
            .get_or_insert_with(|| encoder.begin_compute_pass(&Default::default()).forget_lifetime());
        pass.set_pipeline(&ready.pipeline);
        pass.set_bind_group(0, &ready.bind_group, &[]);
        if !call.params.is_empty() {
            let params: SmallVec<[u8; 128]> =
                call.params.iter().flat_map(|word| word.to_le_bytes()).collect();
            pass.set_immediates(0, &params);
        }
        let [x, y, z] = grid;
        pass.dispatch_workgroups(x, y, z);
        self.counters.n_dispatches.fetch_add(1, Ordering::Relaxed);
        self.n_recorded += 1;
        self.n_multiplications += call.n_multiplications;
        self.used.extend(call.buffers.iter().map(|buffer| (*buffer).clone()));
        Ok(())
    }

    /// Makes `n_slots` slots for weights that are swapped in, each of so many bytes.
    pub(crate) fn make_slots(&mut self, n_slots: usize, n_bytes: usize) -> Result<()> {
        let slot = |_| self.vram.bytes("slots", n_bytes as u64);
        self.slots = Slots { buffers: (0..n_slots).map(slot).collect::<Result<_>>()?, ..Slots::default() };
        Ok(())
    }

    /// Brings weights to a slot, for the kernels that are recorded next. Not in the midst of an operation that has notes:
    /// where all slots are in use, what is recorded is submitted first.
    pub(crate) fn swap_in(&mut self, weights: &[u8]) -> Result<GpuBuffer> {
        if self.slots.n_recorded == self.slots.buffers.len() {
            self.submit()?;
        }
        let Slots { buffers, next, n_recorded } = &mut self.slots;
        let slot = buffers.get(*next).expect("slots were reserved").clone();
        *next = (*next + 1) % buffers.len();
        *n_recorded += 1;
        self.fill(weights, &slot, 0)?;
        Ok(slot)
    }

    /// Brings weights to a buffer, for the kernels that are recorded next; those that are recorded already must not use it.
    pub(crate) fn fill(&mut self, weights: &[u8], to: &GpuBuffer, offset: u64) -> Result<()> {
        self.counters.swapped_bytes.fetch_add(weights.len() as u64, Ordering::Relaxed);
        self.uploads.write(weights, to, offset)
    }

    /// Hands what is recorded to the device, when that is not behind.
    pub(crate) fn submit(&mut self) -> Result<()> {
        if self.encoder.is_some() {
            self.keep_up()?;
        }
        self.pass = None;
        self.slots.n_recorded = 0;
        let Some(encoder) = self.encoder.take() else { return self.vram.device.faults.check() };
        if !self.notes.is_empty() {
            let bytes: Vec<u8> = self.notes.iter().flat_map(|word| word.to_le_bytes()).collect();
            self.notes.clear();
            self.uploads.write(&bytes, &self.on_device, 0)?;
        }
        let commands = self.uploads.commands().into_iter().chain([encoder.finish()]);
        self.in_flight.push_back(self.vram.device.queue.submit(commands));
        self.uploads.submitted();
        (self.n_recorded, self.n_multiplications) = (0, 0);
        self.used.clear();
        self.counters.n_submissions.fetch_add(1, Ordering::Relaxed);
        self.vram.device.faults.check()
    }

    /// Waits until the device can be given more.
    fn keep_up(&mut self) -> Result<()> {
        if self.in_flight.len() < MAX_IN_FLIGHT {
            return Ok(());
        }
        let device = &self.vram.device;
        let oldest = PollType::Wait { submission_index: self.in_flight.pop_front(), timeout: None };
        let polled = device.device.poll(oldest);
        self.counters.waited(true);
        device.faults.check()?;
        polled.map(drop).map_err(|error| Error::Lost { reason: error.to_string() })
    }

    /// Writes to a buffer, from a byte on, after all that was recorded.
    pub(crate) fn write(&mut self, data: &[u8], to: &GpuBuffer, offset: u64) -> Result<()> {
        self.submit()?;
        self.uploads.write(data, to, offset)
    }

    /// Waits for all that was recorded, and reads floats from a buffer, beginning with its word number `first`.
    pub(crate) fn read(&mut self, from: &GpuBuffer, first: usize, values: &mut [f32]) -> Result<()> {
        self.read_words(from, first, values, f32::from_bits)
    }

    /// The same for words of any kind.
    pub(crate) fn read_words<T>(
        &mut self,
        from: &GpuBuffer,
        first: usize,
        values: &mut [T],
        of_word: impl Fn(u32) -> T,
    ) -> Result<()> {
        let mut offset = 4 * first as u64;
        for values in values.chunks_mut(READ_BYTES / 4) {
            let n_bytes = 4 * values.len() as u64;
            // With what makes them, so that a token needs no submission more.
            self.pass = None;
            let encoder = self.encoder.get_or_insert_with(|| encoder(&self.vram));
            encoder.copy_buffer_to_buffer(from.wgpu(), offset, &self.read, 0, n_bytes);
            self.submit()?;
            let mapping = Arc::new(Mapping::default());
            mapping.request(&self.read, MapMode::Read, n_bytes);
            self.counters.waited(mapping.wait(&self.vram)?);
            self.in_flight.clear();
            let mapped = self.read.get_mapped_range(0..n_bytes);
            let mapped = mapped.map_err(|error| Error::Command { reason: error.to_string() })?;
            for (value, bytes) in values.iter_mut().zip(mapped.as_chunks::<4>().0) {
                *value = of_word(u32::from_le_bytes(*bytes));
            }
            drop(mapped);
            self.read.unmap();
            offset += n_bytes;
        }
        self.vram.device.faults.check()
    }

    /// What counts.
    pub(crate) fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }
}

#[cfg(test)]
mod tests {
    use metallic::memory::Tier;

    use super::*;
    use crate::device::Device;
    use crate::kernels::{self, Grid};

    /// The operations are small, and only said to be large.
    #[test]
    fn the_host_is_never_far_ahead_of_the_device() {
        let Some(device) = Device::for_test() else { return };
        let vram = Vram { device: Arc::new(device), tier: Tier::named("vram", None) };
        let mut recorder = Recorder::new(&vram).expect("a recorder");
        let counters = Arc::clone(recorder.counters());
        let mut kernels = Kernels::new(&vram, &mut recorder.uploads, &counters).expect("kernels");
        let x = vram.words("x", 64).expect("a buffer");
        // Large enough by itself, or four together.
        for (n_operations, n_multiplications) in
            [(8, MAX_MULTIPLICATIONS), (32, MAX_MULTIPLICATIONS / 4), (32, 0)]
        {
            let before = recorder.counters.stats();
            for _ in 0..n_operations {
                recorder.begin().expect("room");
                let buffers = [&x];
                let call = Call::new(&kernels::CLEAR, &buffers, &[64], Grid::Values(64));
                recorder.record(&mut kernels, &Call { n_multiplications, ..call }).expect("recorded");
                assert!(recorder.in_flight.len() <= MAX_IN_FLIGHT);
            }
            let submitted = recorder.counters.stats().since(before).n_submissions;
            assert_eq!(submitted, if n_multiplications == 0 { 0 } else { 7 });
            recorder.read(&x, 0, &mut [0.0; 64]).expect("read");
            assert!(recorder.in_flight.is_empty(), "a read waits for all");
        }
    }
}
