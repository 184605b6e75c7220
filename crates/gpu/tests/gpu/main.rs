//! The backend on whatever device there is; a software driver will do.
#![allow(clippy::unwrap_used, reason = "clippy knows functions with `#[test]` alone as tests")]

mod conformance;
mod consistency;
mod experts;
mod interrupts;
mod ledger;
mod limits;
mod oracles;
mod real_models;
mod swapping;

use metallic::memory::Tier;
use metallic_gpu::{Choice, Device, Gpu};

/// A backend with so much memory. Where there is no device, the test that asks says that it is skipped; with
/// `METALLIC_REQUIRE_GPU` that is a failure. `METALLIC_GPU` is a part of a device's name.
pub(crate) fn gpu_within(limit_bytes: Option<u64>) -> Option<(Gpu, Tier)> {
    let name = std::env::var("METALLIC_GPU").ok();
    let device = match Device::open(name.as_deref().map_or(Choice::Best, Choice::Name)) {
        Ok(device) => device,
        Err(error) => {
            assert!(std::env::var_os("METALLIC_REQUIRE_GPU").is_none(), "no GPU: {error}");
            println!("skipped: {error}");
            return None;
        }
    };
    let vram = Tier::named("vram", limit_bytes);
    Some((Gpu::new(device, vram.clone()).expect("a backend"), vram))
}

/// The same with as much as the device gives.
pub(crate) fn gpu() -> Option<Gpu> {
    gpu_within(None).map(|(gpu, _)| gpu)
}
