//! Compiled kernels that are kept from one run to the next.
//!
//! A driver may take seconds to compile the kernels of a model. Vulkan gives out what became of them, to be handed in again;
//! other interfaces don't, or keep it by themselves.
#![allow(unsafe_code, reason = "wgpu takes compiled kernels from a caller who vouches for them")]

use std::sync::atomic::{AtomicBool, Ordering};

use sha2::{Digest as _, Sha256};
use wgpu::{AdapterInfo, ErrorFilter, Features, PipelineCache, PipelineCacheDescriptor};

use super::{COMMON, KERNELS, KV_TYPES, Part, QUANTS};

/// Keeps compiled kernels from one run to the next. They are programs, which the driver runs: they must be kept where
/// nobody but the user can change them.
pub trait KernelStore: Send + Sync {
    /// What was kept last under a name. Of anything else that it returns, nothing is used.
    fn load(&self, name: &str) -> Option<Vec<u8>>;

    /// Keeps some bytes under a name that can be a file's, if it can.
    fn save(&self, name: &str, bytes: &[u8]);
}

/// The compiled kernels of a device, which go back to their store when they are dropped.
pub(crate) struct KernelCache {
    cache: PipelineCache,
    store: Box<dyn KernelStore>,
    name: String,
    origin: Sha256,
    /// The seal of those that came from the store.
    loaded: Option<Seal>,
    is_used: AtomicBool,
}

/// The SHA-256 of compiled kernels and their origin, which is kept before them.
type Seal = [u8; 32];

impl KernelCache {
    /// Those that a store has of this device and driver, and of these kernels; `None` where the driver gives none out.
    pub(crate) fn open(
        device: &wgpu::Device,
        info: &AdapterInfo,
        store: Box<dyn KernelStore>,
    ) -> Option<Self> {
        if !device.features().contains(Features::PIPELINE_CACHE) {
            return None;
        }
        // Two drivers for one device have a file each, two versions of a driver one: the latest.
        let [a, b, c, d, ..] = Seal::from(Sha256::digest(&info.driver));
        let name = format!("{}_{a:02x}{b:02x}{c:02x}{d:02x}", wgpu::util::pipeline_cache_key(info)?);
        let origin = origin(info);
        let kept = store.load(&name);
        let sealed = kept.as_deref().and_then(|bytes| unsealed(&origin, bytes));
        let taken = sealed.and_then(|(seal, data)| Some((Some(seal), create(device, Some(data))?)));
        let (loaded, cache) = match taken {
            Some(taken) => taken,
            None => (None, create(device, None)?),
        };
        Some(Self { cache, store, name, origin, loaded, is_used: AtomicBool::new(false) })
    }

    /// For what is to be compiled.
    pub(super) fn pipelines(&self) -> &PipelineCache {
        self.is_used.store(true, Ordering::Relaxed);
        &self.cache
    }
}

impl Drop for KernelCache {
    fn drop(&mut self) {
        if !self.is_used.load(Ordering::Relaxed) {
            return;
        }
        // A lost device has none.
        let Some(data) = self.cache.get_data() else { return };
        let sealed = sealed(&self.origin, &data);
        if self.loaded.is_none_or(|loaded| !sealed.starts_with(&loaded)) {
            self.store.save(&self.name, &sealed);
        }
    }
}

/// What compiled kernels depend on. The driver checks for itself what it is given; here, other versions of the kernels are
/// not taken over, so that what is kept does not grow from version to version.
fn origin(info: &AdapterInfo) -> Sha256 {
    let mut origin = Sha256::new();
    let mut add = |text: &str| {
        origin.update((text.len() as u64).to_le_bytes());
        origin.update(text);
    };
    [&info.name, &info.driver, &info.driver_info].into_iter().for_each(|text| add(text));
    let decoders = QUANTS.iter().map(|(_, part)| part).chain(KV_TYPES.iter().map(|format| &format.decoder));
    let parts = KERNELS.iter().flat_map(|kernel| kernel.parts).chain(decoders).chain([&COMMON]);
    let with_its_own = |part: &'static Part| part.parts.iter().chain([part]);
    parts.flat_map(with_its_own).for_each(|part| add(part.source));
    KERNELS.iter().for_each(|kernel| add(kernel.source));
    origin
}

fn seal(origin: &Sha256, data: &[u8]) -> Seal {
    origin.clone().chain_update(data).finalize().into()
}

/// Compiled kernels with their seal before them.
fn sealed(origin: &Sha256, data: &[u8]) -> Vec<u8> {
    [&seal(origin, data)[..], data].concat()
}

/// The seal and the compiled kernels, if they are whole and of this origin.
fn unsealed<'b>(origin: &Sha256, bytes: &'b [u8]) -> Option<(Seal, &'b [u8])> {
    let (found, data) = bytes.split_first_chunk()?;
    (*found == seal(origin, data)).then_some((*found, data))
}

/// A cache that begins with what an earlier one has given out.
fn create(device: &wgpu::Device, data: Option<&[u8]>) -> Option<PipelineCache> {
    let invalid = device.push_error_scope(ErrorFilter::Validation);
    let memory = device.push_error_scope(ErrorFilter::OutOfMemory);
    let descriptor = PipelineCacheDescriptor { label: Some("kernels"), data, fallback: true };
    // SAFETY: the data must be what `get_data` has returned, of whatever device and driver: wgpu and the driver look at
    // their headers, and with `fallback` begin with nothing where they are of another. Data come from `unsealed` alone, whose
    // seal is a SHA-256 that `drop` has put before what `get_data` returned. So bytes that were damaged, cut short, or
    // written by anything else do not pass. Who makes a seal on purpose and can write where the user's store is kept, as
    // `KernelStore` demands that nobody else can, could change this program as well.
    let cache = unsafe { device.create_pipeline_cache(&descriptor) };
    let errors = [memory.pop(), invalid.pop()].map(pollster::block_on);
    errors.into_iter().flatten().next().is_none().then_some(cache)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn adapter(driver_info: &str) -> AdapterInfo {
        let mut info = AdapterInfo::new(wgpu::DeviceType::Other, wgpu::Backend::Vulkan);
        info.driver_info = driver_info.to_owned();
        info
    }

    #[test]
    fn what_is_damaged_or_of_another_driver_is_not_taken() {
        let origin = origin(&adapter("1.0"));
        let whole = sealed(&origin, b"compiled kernels");
        assert_eq!(unsealed(&origin, &whole).unwrap().1, b"compiled kernels");
        for i in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[i] ^= 1;
            assert!(unsealed(&origin, &damaged).is_none(), "byte {i}");
            assert!(unsealed(&origin, &whole[..i]).is_none(), "{i} bytes");
        }
        assert!(unsealed(&origin, &[&whole[..], &[0]].concat()).is_none());
        assert!(unsealed(&self::origin(&adapter("1.1")), &whole).is_none());
    }
}
