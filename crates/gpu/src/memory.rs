//! Memory of the device: charged to an account before the driver is asked.
//!
//! Each thing has a buffer of its own, which wgpu places in blocks that many share: wgpu tracks hazards by the buffer, and
//! forbids a kernel to read one part of a buffer and to write another.

use std::sync::Arc;

use metallic::memory::{Lease, Tier};
use wgpu::{BufferUsages, ErrorFilter};

use crate::device::Device;
use crate::error::{Error, Result};

/// Buffers are as many bytes as a multiple of this: what they are aligned to. The account is charged for what was asked.
const GRAIN_BYTES: u64 = 16;

/// Memory of the device, and the bytes that were charged for it. Clones share it.
#[derive(Clone)]
pub struct GpuBuffer {
    allocation: Arc<Allocation>,
    len: usize,
}

struct Allocation {
    buffer: wgpu::Buffer,
    _lease: Lease,
}

impl Drop for Allocation {
    fn drop(&mut self) {
        // Bind groups that are kept for later would keep the memory.
        self.buffer.destroy();
    }
}

/// Where memory comes from: a device, and the account of its memory.
#[derive(Clone)]
pub(crate) struct Vram {
    pub(crate) device: Arc<Device>,
    pub(crate) tier: Tier,
}

impl Vram {
    /// `len` words that kernels see, all zero.
    pub(crate) fn words(&self, what: &'static str, len: usize) -> Result<GpuBuffer> {
        self.bytes(what, (len as u64).saturating_mul(4))
    }

    /// Whether kernels can see so many words at once.
    pub(crate) fn check_words(&self, what: &'static str, len: usize) -> Result<()> {
        let (bytes, max_bytes) = ((len as u64).saturating_mul(4), self.device.max_binding_bytes());
        if bytes > max_bytes { Err(Error::TooLarge { what, bytes, max_bytes }) } else { Ok(()) }
    }

    /// As many words as hold so many bytes, all zero.
    pub(crate) fn bytes(&self, what: &'static str, n_bytes: u64) -> Result<GpuBuffer> {
        let max_bytes = self.device.max_binding_bytes();
        if n_bytes > max_bytes {
            return Err(Error::TooLarge { what, bytes: n_bytes, max_bytes });
        }
        let usage = BufferUsages::STORAGE | BufferUsages::COPY_DST | BufferUsages::COPY_SRC;
        let (buffer, lease) = self.allocate(what, n_bytes, usage)?;
        let len = n_bytes.div_ceil(4) as usize;
        Ok(GpuBuffer { allocation: Arc::new(Allocation { buffer, _lease: lease }), len })
    }

    /// A buffer of any kind. Those that are mapped count as well: drivers may place them in the device's memory.
    pub(crate) fn allocate(
        &self,
        what: &'static str,
        bytes: u64,
        usage: BufferUsages,
    ) -> Result<(wgpu::Buffer, Lease)> {
        let lease = self.tier.lease(what, bytes).map_err(Error::Host)?;
        let device = &self.device.device;
        let invalid = device.push_error_scope(ErrorFilter::Validation);
        let memory = device.push_error_scope(ErrorFilter::OutOfMemory);
        let buffer = device.create_buffer(&wgpu::BufferDescriptor {
            label: Some(what),
            size: bytes.max(1).next_multiple_of(GRAIN_BYTES),
            usage,
            mapped_at_creation: false,
        });
        let (memory, invalid) = (pollster::block_on(memory.pop()), pollster::block_on(invalid.pop()));
        match (memory, invalid) {
            (Some(_), _) => Err(Error::OutOfMemory { what, bytes }),
            (_, Some(error)) => {
                // A lost device makes invalid buffers.
                self.device.faults.check()?;
                Err(Error::Command { reason: error.to_string() })
            }
            (None, None) => Ok((buffer, lease)),
        }
    }
}

impl GpuBuffer {
    /// Values in it.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Makes sure that it has so many values.
    ///
    /// # Panics
    /// If not: kernels would leave out what is beyond its end without a word.
    pub(crate) fn expect(&self, len: usize) -> &Self {
        assert!(len <= self.len, "{len} values of a buffer of {}", self.len);
        self
    }

    pub(crate) fn wgpu(&self) -> &wgpu::Buffer {
        &self.allocation.buffer
    }
}
