//! The backend on whatever device there is; a software driver will do.
#![allow(clippy::unwrap_used, reason = "clippy knows functions with `#[test]` alone as tests")]

mod best;
mod conformance;
mod consistency;
mod experts;
mod interrupts;
mod kernel_store;
mod ledger;
mod lending;
mod limits;
mod lost;
mod oracles;
mod real_models;
mod swapping;

use metallic::memory::Tier;
use metallic_gpu::{Choice, Device, Gpu};

/// A device. Where there is none, the test that asks says that it is skipped; with `METALLIC_REQUIRE_GPU` that is a failure.
/// `METALLIC_GPU` is a part of a device's name.
pub(crate) fn device() -> Option<Device> {
    let name = std::env::var("METALLIC_GPU").ok();
    match Device::open(name.as_deref().map_or(Choice::Best, Choice::Name)) {
        Ok(device) => Some(device),
        Err(error) => {
            assert!(std::env::var_os("METALLIC_REQUIRE_GPU").is_none(), "no GPU: {error}");
            println!("skipped: {error}");
            None
        }
    }
}

/// A backend on it with so much memory, which counts as its own.
pub(crate) fn gpu_within(limit_bytes: Option<u64>) -> Option<(Gpu, Tier)> {
    let device = device()?;
    let vram = Tier::named("vram", limit_bytes);
    Some((Gpu::new(device, vram.clone()).expect("a backend").with_own_memory(), vram))
}

/// The same with as much as the device gives.
pub(crate) fn gpu() -> Option<Gpu> {
    gpu_within(None).map(|(gpu, _)| gpu)
}
