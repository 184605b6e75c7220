//! From the host to the device, through a ring of mapped buffers.
//!
//! `Queue::write_buffer` allocates a buffer of the data's size with each call, and loses the device where it can't; here
//! memory is bounded, and where the device is behind, the host waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use metallic::memory::Lease;
use wgpu::{BufferUsages, CommandBuffer, MapMode, PollType};

use crate::error::{Error, Result};
use crate::memory::{GpuBuffer, Vram};
use crate::recorder::Counters;

/// Slots of the ring: one is filled while others are copied from.
const N_SLOTS: usize = 4;

/// Bytes of a slot.
const SLOT_BYTES: usize = 4 << 20;

/// wgpu copies whole words.
const WORD: usize = 4;

/// wgpu maps from multiples of this on.
const MAP_ALIGNMENT: usize = 8;

/// The ring.
pub(crate) struct Uploads {
    vram: Vram,
    slots: Vec<Slot>,
    /// The slot that is being filled, and how far it is.
    current: usize,
    filled: usize,
    /// What is to be copied out of it.
    copies: Vec<Copy>,
    counters: Arc<Counters>,
}

struct Slot {
    buffer: wgpu::Buffer,
    mapping: Arc<Mapping>,
    _lease: Lease,
}

struct Copy {
    from: usize,
    to: GpuBuffer,
    offset: u64,
    n_bytes: usize,
}

impl Copy {
    /// Whether what goes to byte `offset` of a buffer goes on where this ends.
    fn is_before(&self, to: &GpuBuffer, offset: u64) -> bool {
        self.to.wgpu() == to.wgpu() && self.offset + self.n_bytes as u64 == offset
    }
}

/// Whether a buffer can be used by the host; the driver says so when it can.
#[derive(Default)]
pub(crate) struct Mapping(AtomicU8);

const PENDING: u8 = 0;
const MAPPED: u8 = 1;
const FAILED: u8 = 2;

impl Mapping {
    /// Asks for a buffer's first bytes to be mapped when the device has done what it was told.
    pub(crate) fn request(self: &Arc<Self>, buffer: &wgpu::Buffer, mode: MapMode, n_bytes: u64) {
        self.0.store(PENDING, Ordering::Release);
        let mapping = Arc::clone(self);
        buffer.map_async(mode, 0..n_bytes, move |result| {
            mapping.0.store(if result.is_ok() { MAPPED } else { FAILED }, Ordering::Release);
        });
    }

    /// Waits until it is. True if that took waiting.
    pub(crate) fn wait(&self, vram: &Vram) -> Result<bool> {
        let mut waited = false;
        loop {
            match self.0.load(Ordering::Acquire) {
                MAPPED => return Ok(waited),
                PENDING => {}
                _ => {
                    vram.device.faults.check()?;
                    return Err(Error::Command { reason: "a buffer could not be mapped".to_owned() });
                }
            }
            waited = true;
            let polled = vram.device.device.poll(PollType::wait_indefinitely());
            vram.device.faults.check()?;
            polled.map_err(|error| Error::Lost { reason: error.to_string() })?;
        }
    }
}

impl Uploads {
    /// Bytes that they take.
    pub(crate) const fn bytes() -> u64 {
        (N_SLOTS * SLOT_BYTES) as u64
    }

    pub(crate) fn new(vram: &Vram, counters: &Arc<Counters>) -> Result<Self> {
        let slot = |_| {
            let usage = BufferUsages::MAP_WRITE | BufferUsages::COPY_SRC;
            let (buffer, lease) = vram.allocate("uploads", SLOT_BYTES as u64, usage)?;
            let mapping = Arc::new(Mapping::default());
            mapping.request(&buffer, MapMode::Write, SLOT_BYTES as u64);
            Ok(Slot { buffer, mapping, _lease: lease })
        };
        let slots = (0..N_SLOTS).map(slot).collect::<Result<_>>()?;
        let (vram, counters) = (vram.clone(), Arc::clone(counters));
        Ok(Self { vram, slots, current: 0, filled: 0, copies: Vec::new(), counters })
    }

    /// Copies `data` to `to` from byte `offset` on, before anything that is submitted after this. Where the data end inside
    /// a word, zeros fill it, unless the next go on from there.
    pub(crate) fn write(&mut self, mut data: &[u8], to: &GpuBuffer, mut offset: u64) -> Result<()> {
        while !data.is_empty() {
            let goes_on = self.copies.last().is_some_and(|last| last.is_before(to, offset));
            if !goes_on {
                self.filled = self.filled.next_multiple_of(MAP_ALIGNMENT);
            }
            if self.filled == SLOT_BYTES {
                self.flush()?;
                continue;
            }
            let slot = &self.slots[self.current];
            self.counters.waited(slot.mapping.wait(&self.vram)?);
            if !goes_on {
                self.copies.push(Copy { from: self.filled, to: to.clone(), offset, n_bytes: 0 });
            }
            let (now, rest) = data.split_at(data.len().min(SLOT_BYTES - self.filled));
            let begin = self.filled - self.filled % MAP_ALIGNMENT;
            let end = (self.filled + now.len()).next_multiple_of(WORD);
            let mapped = slot.buffer.get_mapped_range_mut(begin as u64..end as u64);
            let mut mapped = mapped.map_err(|error| Error::Command { reason: error.to_string() })?;
            let written = self.filled - begin..self.filled - begin + now.len();
            mapped.slice(written.clone()).copy_from_slice(now);
            mapped.slice(written.end..).copy_from_slice(&[0; WORD][..end - begin - written.end]);
            drop(mapped);
            self.copies.last_mut().expect("the one that is added to").n_bytes += now.len();
            self.filled += now.len();
            offset += now.len() as u64;
            data = rest;
        }
        Ok(())
    }

    /// Has what was written so far copied now.
    pub(crate) fn flush(&mut self) -> Result<()> {
        let commands = self.commands();
        self.vram.device.queue.submit(commands);
        self.submitted();
        self.vram.device.faults.check()
    }

    /// The copies that are due, which must be submitted next.
    pub(crate) fn commands(&mut self) -> Option<CommandBuffer> {
        if self.copies.is_empty() {
            return None;
        }
        let slot = &self.slots[self.current];
        slot.buffer.unmap();
        let descriptor = wgpu::CommandEncoderDescriptor { label: Some("uploads") };
        let mut encoder = self.vram.device.device.create_command_encoder(&descriptor);
        for Copy { from, to, offset, n_bytes } in &self.copies {
            let n_bytes = n_bytes.next_multiple_of(WORD) as u64;
            encoder.copy_buffer_to_buffer(&slot.buffer, *from as u64, to.wgpu(), *offset, n_bytes);
        }
        Some(encoder.finish())
    }

    /// Says that [`commands`](Self::commands) were submitted.
    pub(crate) fn submitted(&mut self) {
        if self.copies.is_empty() {
            return;
        }
        let slot = &self.slots[self.current];
        slot.mapping.request(&slot.buffer, MapMode::Write, SLOT_BYTES as u64);
        self.copies.clear();
        self.current = (self.current + 1) % N_SLOTS;
        self.filled = 0;
    }
}

#[cfg(test)]
mod tests {
    use metallic::memory::Tier;

    use super::*;
    use crate::device::Device;
    use crate::recorder::Recorder;

    /// Pieces of any length, some longer than a slot, beside others: what goes on where the last ended is copied with it.
    #[test]
    fn pieces_that_follow_each_other_need_not_end_with_a_word() {
        let Some(device) = Device::for_test() else { return };
        let vram = Vram { device: Arc::new(device), tier: Tier::named("vram", None) };
        let mut recorder = Recorder::new(&vram).expect("a recorder");
        let bytes: Vec<u8> =
            (0..3 * SLOT_BYTES as u32 / 2).map(|i| (i.wrapping_mul(i) / 7 % 251) as u8).collect();
        let buffers = [(); 2].map(|()| vram.bytes("bytes", bytes.len() as u64).expect("a buffer"));
        for (buffer, pieces) in buffers.iter().zip([&[1, 2, 10, 4097, SLOT_BYTES - 5][..], &[SLOT_BYTES - 1]])
        {
            let mut start = 0;
            for len in pieces.iter().chain([&bytes.len()]) {
                let end = bytes.len().min(start + len);
                recorder.uploads.write(&bytes[start..end], buffer, start as u64).expect("written");
                start = end;
            }
        }
        for buffer in &buffers {
            let mut words = vec![0; bytes.len() / 4];
            recorder.read_words(buffer, 0, &mut words, |word| word).expect("read");
            assert!(words.iter().flat_map(|word| word.to_le_bytes()).eq(bytes.iter().copied()));
        }
    }
}
