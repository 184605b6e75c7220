//! A backend of Metallic on wgpu: Vulkan, Metal and DirectX 12.
//!
//! ```no_run
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use metallic::memory::Tier;
//! use metallic_gpu::{Choice, Device, Gpu};
//!
//! for adapter in metallic_gpu::adapters() {
//!     println!("{adapter}");
//! }
//! let device = Device::open(Choice::Best)?;
//! let gpu = Gpu::new(device, Tier::named("vram", Some(8 << 30)))?;
//! # let _ = gpu;
//! # Ok(()) }
//! ```
//!
//! Operations are recorded and submitted when a result is read; [`Gpu`] says how errors come out. Kernels are WGSL files in
//! `shaders/`; `kernels/table.rs` is the list of them.
#![deny(unsafe_code)]

mod backend;
mod copy_rate;
mod device;
mod device_memory;
mod error;
mod expert_cache;
mod faults;
mod kernels;
mod matrix;
mod memory;
mod packed_products;
mod recorder;
mod uploads;

pub use backend::{Gpu, GpuKvLayer, GpuRope};
pub use device::{AdapterReport, Choice, Device, DeviceFeatures, adapters};
pub use error::{Error, Result};
pub use kernels::KernelStore;
pub use matrix::GpuMatrix;
pub use memory::GpuBuffer;
pub use recorder::Counters;
pub use wgpu::{Backend as WgpuBackend, DeviceType};
