//! What a device's memory gives at best: what bounds products that read weights once.

use std::time::{Duration, Instant};

use wgpu::PollType;

use crate::backend::Gpu;
use crate::error::{Error, Result};

/// How long copies are timed.
const TIME: Duration = Duration::from_millis(50);

/// Copies that the device is given before it is waited for, at most: starting them takes a while.
const MAX_COPIES: u32 = 64;

impl Gpu {
    /// Bytes a second that copies of `n_bytes` within the device's memory read and write together, at best. Takes twice
    /// `n_bytes` of it meanwhile.
    ///
    /// # Errors
    /// No memory, or a lost device.
    pub fn copy_rate(&mut self, n_bytes: u64) -> Result<f64> {
        // wgpu copies whole words.
        let n_bytes = n_bytes - n_bytes % 4;
        let vram = self.vram();
        let (from, to) = (vram.bytes("a copy", n_bytes)?, vram.bytes("a copy", n_bytes)?);
        let device = &vram.device;
        let copies = |n_copies: u32| {
            let mut encoder = device.device.create_command_encoder(&Default::default());
            for _ in 0..n_copies {
                encoder.copy_buffer_to_buffer(from.wgpu(), 0, to.wgpu(), 0, n_bytes);
            }
            let started = Instant::now();
            device.queue.submit([encoder.finish()]);
            let polled = device.device.poll(PollType::wait_indefinitely());
            device.faults.check()?;
            polled.map_err(|error| Error::Lost { reason: error.to_string() })?;
            Ok(started.elapsed())
        };
        // The first touches the memory.
        copies(1)?;
        let (mut best, mut n_copies, began) = (Duration::MAX, 1, Instant::now());
        while began.elapsed() < TIME {
            let taken = copies(n_copies)?;
            best = best.min(taken / n_copies);
            if taken < TIME / 10 {
                n_copies = (2 * n_copies).min(MAX_COPIES);
            }
        }
        Ok(2.0 * n_bytes as f64 / best.as_secs_f64().max(f64::MIN_POSITIVE))
    }
}
