//! Which devices there are, and opening one.

use std::fmt;
use std::sync::Arc;

use wgpu::{CooperativeScalarType, DeviceType, Features};

use crate::device_memory::{self, Budget};
use crate::error::{Error, Result};
use crate::faults::Faults;
use crate::kernels::{KernelCache, KernelStore};
use crate::packed_products;

/// Blocks of device memory that buffers share: small, so that little is taken that no buffer uses.
const MEMORY_BLOCK_BYTES: std::ops::Range<u64> = (1 << 20)..(8 << 20);

/// Bytes of parameters that a kernel may have: what Vulkan promises.
pub(crate) const MAX_IMMEDIATE_BYTES: u32 = 128;

/// A device, as its driver describes it.
#[derive(Clone, Debug)]
pub struct AdapterReport {
    /// Its place in the list of all.
    pub index: usize,
    /// Its name.
    pub name: String,
    /// Whether it is a card, a part of the CPU, or software.
    pub device_type: DeviceType,
    /// The interface to it.
    pub backend: wgpu::Backend,
    /// The driver, with its version.
    pub driver: String,
    /// Bytes of memory of its own, or of that which it shares with the CPU; `None` where the driver can't be asked.
    pub memory_bytes: Option<u64>,
    /// Bytes of it that this process may have at the moment, with those that it has: what others have is left out; `None`
    /// where the driver does not tell.
    pub available_bytes: Option<u64>,
    /// Bytes that a kernel may see of one buffer.
    pub max_binding_bytes: u64,
    /// Bytes of the largest buffer.
    pub max_buffer_bytes: u64,
    /// Bytes that the invocations of a workgroup share.
    pub workgroup_bytes: u32,
    /// Invocations that run in step: the fewest and the most.
    pub subgroup_sizes: [u32; 2],
    /// What kernels may make use of.
    pub features: DeviceFeatures,
}

/// What kernels may make use of where a device has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeviceFeatures {
    /// Operations across a subgroup.
    pub subgroup: bool,
    /// Arithmetic on half-precision floats.
    pub f16: bool,
    /// Numbers in a row of the small square matrices of half-precision floats that a subgroup multiplies, with sums of 32 bits;
    /// `None` where it multiplies none, or others (experimental in wgpu).
    pub matrix_side: Option<u32>,
    /// Products of four bytes at a time that are faster than others: as drivers for Vulkan tell, and no others do.
    pub packed_products: bool,
    /// Buffers that both the host and kernels see.
    pub mappable_buffers: bool,
    /// Parameters that are passed with a dispatch. All kernels need it.
    pub immediates: bool,
}

/// Which device is meant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Choice<'a> {
    /// The one that is likely to be fastest: a card before a part of the CPU before software.
    #[default]
    Best,
    /// That of this number in [`adapters`].
    Index(usize),
    /// The only one whose name contains this, whatever the case.
    Name(&'a str),
}

/// A device that is open.
pub struct Device {
    /// To ask its driver again.
    adapter: wgpu::Adapter,
    pub(crate) device: wgpu::Device,
    pub(crate) queue: wgpu::Queue,
    pub(crate) faults: Arc<Faults>,
    /// What the driver has compiled, where it gives that out and it is kept.
    pub(crate) kernels: Option<KernelCache>,
    report: AdapterReport,
}

/// The devices that drivers show, in their order.
pub fn adapters() -> Vec<AdapterReport> {
    enumerate().iter().enumerate().map(|(index, adapter)| AdapterReport::of(index, adapter)).collect()
}

fn enumerate() -> Vec<wgpu::Adapter> {
    let backends = wgpu::Instance::enabled_backend_features();
    let descriptor = wgpu::InstanceDescriptor {
        backends,
        flags: wgpu::InstanceFlags::empty(),
        ..wgpu::InstanceDescriptor::new_without_display_handle()
    };
    pollster::block_on(wgpu::Instance::new(descriptor).enumerate_adapters(backends))
}

impl AdapterReport {
    fn of(index: usize, adapter: &wgpu::Adapter) -> Self {
        let (info, limits, features) = (adapter.get_info(), adapter.limits(), adapter.features());
        let memory = device_memory::ask(adapter);
        Self {
            index,
            name: info.name,
            device_type: info.device_type,
            backend: info.backend,
            driver: [info.driver, info.driver_info].join(" "),
            memory_bytes: memory.map(|memory| memory.total_bytes),
            available_bytes: memory.and_then(|memory| memory.budget).map(|budget| budget.bytes),
            max_binding_bytes: limits.max_storage_buffer_binding_size,
            max_buffer_bytes: limits.max_buffer_size,
            workgroup_bytes: limits.max_compute_workgroup_storage_size,
            subgroup_sizes: [info.subgroup_min_size, info.subgroup_max_size],
            features: DeviceFeatures {
                subgroup: features.contains(Features::SUBGROUP),
                f16: features.contains(Features::SHADER_F16),
                matrix_side: matrix_side(adapter),
                packed_products: packed_products::are_fast(adapter),
                mappable_buffers: features.contains(Features::MAPPABLE_PRIMARY_BUFFERS),
                immediates: features.contains(Features::IMMEDIATES),
            },
        }
    }

    /// What it is, in a word.
    pub fn kind(&self) -> &'static str {
        match self.device_type {
            DeviceType::DiscreteGpu => "card",
            DeviceType::IntegratedGpu => "integrated",
            DeviceType::VirtualGpu => "virtual",
            DeviceType::Cpu => "software",
            DeviceType::Other => "other",
        }
    }

    /// Whether it is a program on the CPU.
    pub fn is_software(&self) -> bool {
        self.device_type == DeviceType::Cpu
    }

    /// Whether its memory is not main memory.
    pub fn has_own_memory(&self) -> bool {
        matches!(self.device_type, DeviceType::DiscreteGpu | DeviceType::VirtualGpu)
    }

    /// How likely it is to be the fastest: the lowest is.
    fn rank(&self) -> u8 {
        match self.device_type {
            DeviceType::DiscreteGpu => 0,
            DeviceType::IntegratedGpu => 1,
            DeviceType::VirtualGpu => 2,
            DeviceType::Other => 3,
            DeviceType::Cpu => 4,
        }
    }
}

impl fmt::Display for AdapterReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { index, name, backend, driver, .. } = self;
        write!(f, "{index}: {name} ({}, {backend:?}, {})", self.kind(), driver.trim())
    }
}

impl Choice<'_> {
    /// The device's place in the list.
    ///
    /// # Errors
    /// [`Error::NoAdapter`], [`Error::NotOne`].
    fn among(self, reports: &[AdapterReport]) -> Result<usize> {
        let Some(best) = reports.iter().min_by_key(|report| report.rank()) else {
            let backends = wgpu::Instance::enabled_backend_features().iter_names();
            return Err(Error::NoAdapter { backends: backends.map(|(name, _)| name).collect() });
        };
        let (wanted, matches): (String, Vec<usize>) = match self {
            Choice::Best => return Ok(best.index),
            Choice::Index(index) => (index.to_string(), (index..reports.len()).take(1).collect()),
            Choice::Name(name) => {
                let lower = name.to_lowercase();
                let is_named = |report: &&AdapterReport| report.name.to_lowercase().contains(&lower);
                (name.to_owned(), reports.iter().filter(is_named).map(|report| report.index).collect())
            }
        };
        match matches[..] {
            [index] => Ok(index),
            _ => Err(Error::NotOne {
                wanted,
                n_matches: matches.len(),
                known: reports.iter().map(ToString::to_string).collect(),
            }),
        }
    }
}

impl Device {
    /// Opens a device, with all that it allows.
    ///
    /// # Errors
    /// None or several are meant, it lacks what all kernels need, or its driver refuses.
    pub fn open(choice: Choice<'_>) -> Result<Self> {
        let mut adapters = enumerate();
        let reports: Vec<_> =
            adapters.iter().enumerate().map(|(index, adapter)| AdapterReport::of(index, adapter)).collect();
        let index = choice.among(&reports)?;
        let (adapter, report) = (adapters.swap_remove(index), reports[index].clone());
        if !report.features.immediates || adapter.limits().max_immediate_size < MAX_IMMEDIATE_BYTES {
            return Err(Error::Lacks { adapter: report.name, feature: "128 bytes of immediate data" });
        }
        let flags = adapter.get_downlevel_capabilities().flags;
        if !flags.contains(wgpu::DownlevelFlags::SHADER_F16_IN_F32) {
            return Err(Error::Lacks {
                adapter: report.name,
                feature: "conversion from half-precision floats",
            });
        }
        let mut optional = Features::SUBGROUP | Features::SHADER_F16 | Features::PIPELINE_CACHE;
        let mut experimental_features = wgpu::ExperimentalFeatures::disabled();
        if report.features.matrix_side.is_some() {
            optional |= Features::EXPERIMENTAL_COOPERATIVE_MATRIX;
            experimental_features = matrices_are_allowed();
        }
        let descriptor = wgpu::DeviceDescriptor {
            label: Some("metallic"),
            required_features: Features::IMMEDIATES | (adapter.features() & optional),
            required_limits: adapter.limits(),
            experimental_features,
            memory_hints: wgpu::MemoryHints::Manual {
                suballocated_device_memory_block_size: MEMORY_BLOCK_BYTES,
            },
            ..wgpu::DeviceDescriptor::default()
        };
        let opened = pollster::block_on(adapter.request_device(&descriptor));
        let (device, queue) =
            opened.map_err(|source| Error::Open { adapter: report.name.clone(), source })?;
        let faults = Arc::new(Faults::default());
        faults.watch(&device);
        Ok(Self { adapter, device, queue, faults, kernels: None, report })
    }

    /// Takes the kernels that an earlier run has compiled from a store, and when the device is closed keeps there what has
    /// been added; nothing where the driver gives out none.
    pub fn keep_kernels(&mut self, store: Box<dyn KernelStore>) {
        self.kernels = KernelCache::open(&self.device, &self.adapter.get_info(), store);
    }

    /// What the driver says of it.
    pub fn report(&self) -> &AdapterReport {
        &self.report
    }

    /// Makes sure that so many bytes more can be had of its memory now, as far as the driver tells.
    ///
    /// # Errors
    /// [`Error::Occupied`].
    pub(crate) fn check_room(&self, needed_bytes: u64) -> Result<()> {
        let memory = device_memory::ask(&self.adapter);
        check_room(&self.report, needed_bytes, memory.and_then(|memory| memory.budget))
    }

    /// Bytes of device memory that wgpu has taken for it, unused parts of blocks included; `None` where it can't tell.
    pub fn reserved_bytes(&self) -> Option<u64> {
        self.device.generate_allocator_report().map(|report| report.total_reserved_bytes)
    }

    /// Loses it, as a reset or a pulled cable would: for tests.
    #[doc(hidden)]
    pub fn lose(&self) {
        // wgpu calls a device that is destroyed no loss.
        self.faults.lose("a test has destroyed it");
        self.device.destroy();
    }

    /// Any device, for a test. Where there is none the test is skipped, which it says, or fails with `METALLIC_REQUIRE_GPU`.
    #[cfg(test)]
    pub(crate) fn for_test() -> Option<Self> {
        let opened = Self::open(Choice::Best);
        if let Err(error) = &opened {
            assert!(std::env::var_os("METALLIC_REQUIRE_GPU").is_none(), "no GPU: {error}");
            println!("skipped: {error}");
        }
        opened.ok()
    }

    /// Bytes of the largest buffer that a kernel can see.
    pub(crate) fn max_binding_bytes(&self) -> u64 {
        let limits = self.device.limits();
        limits.max_storage_buffer_binding_size.min(limits.max_buffer_size)
    }
}

/// See [`DeviceFeatures::matrix_side`].
fn matrix_side(adapter: &wgpu::Adapter) -> Option<u32> {
    let needed = Features::EXPERIMENTAL_COOPERATIVE_MATRIX | Features::SHADER_F16 | Features::SUBGROUP;
    let all = adapter.features().contains(needed).then(|| adapter.cooperative_matrix_properties());
    let sides = all.into_iter().flatten().filter_map(|matrices| {
        let sides = [matrices.m_size, matrices.n_size, matrices.k_size];
        let is_square = [8, 16].iter().any(|side| sides == [*side; 3]);
        let types = (matrices.ab_type, matrices.cr_type);
        (is_square && types == (CooperativeScalarType::F16, CooperativeScalarType::F32)).then_some(sides[0])
    });
    sides.max()
}

#[allow(unsafe_code, reason = "wgpu wants a word of consent")]
fn matrices_are_allowed() -> wgpu::ExperimentalFeatures {
    // SAFETY: the condition is to know that wgpu's part of it may have bugs. Kernels with small matrices load and store them inside
    // their own shared memory alone, at constant strides, in control flow that is the same for all invocations; and
    // their results are compared with those of plain kernels before they are used (`Gpu::prove_rounding`).
    unsafe { wgpu::ExperimentalFeatures::enabled() }
}

/// See [`Device::check_room`].
fn check_room(report: &AdapterReport, needed_bytes: u64, budget: Option<Budget>) -> Result<()> {
    match budget.map(|budget| budget.bytes.saturating_sub(budget.used_bytes)) {
        Some(free_bytes) if needed_bytes > free_bytes => {
            Err(Error::Occupied { adapter: report.name.clone(), needed_bytes, free_bytes })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(index: usize, name: &str, device_type: DeviceType) -> AdapterReport {
        AdapterReport {
            index,
            name: name.to_owned(),
            device_type,
            backend: wgpu::Backend::Vulkan,
            driver: String::new(),
            memory_bytes: None,
            available_bytes: None,
            max_binding_bytes: 0,
            max_buffer_bytes: 0,
            workgroup_bytes: 0,
            subgroup_sizes: [8, 8],
            features: DeviceFeatures::default(),
        }
    }

    #[test]
    fn a_choice_is_one_device_or_an_error_that_lists_all() {
        let software = report(0, "llvmpipe (LLVM 15)", DeviceType::Cpu);
        let card = report(1, "Radeon RX 7900", DeviceType::DiscreteGpu);
        let all = [software, card, report(2, "Radeon Graphics", DeviceType::IntegratedGpu)];
        assert_eq!(Choice::Best.among(&all).unwrap(), 1);
        assert_eq!(Choice::Index(2).among(&all).unwrap(), 2);
        assert_eq!(Choice::Name("LLVMpipe").among(&all).unwrap(), 0);
        assert!(matches!(Choice::Best.among(&[]), Err(Error::NoAdapter { .. })));
        for (choice, count) in [(Choice::Name("radeon"), 2), (Choice::Name("arc"), 0), (Choice::Index(3), 0)]
        {
            match choice.among(&all) {
                Err(Error::NotOne { n_matches, known, .. }) => {
                    assert_eq!((n_matches, known.len()), (count, 3), "{choice:?}");
                }
                other => panic!("{choice:?}: {other:?}"),
            }
        }
    }

    /// Of 1000 bytes that the plan was made for, somebody has taken 300.
    #[test]
    fn memory_that_others_have_taken_since_is_an_error_with_both_numbers() {
        let card = report(0, "a card", DeviceType::DiscreteGpu);
        let now = Some(Budget { bytes: 700, used_bytes: 100 });
        check_room(&card, 600, now).unwrap();
        check_room(&card, u64::MAX, None).unwrap();
        let error = check_room(&card, 601, now).unwrap_err();
        assert!(matches!(error, Error::Occupied { needed_bytes: 601, free_bytes: 600, .. }), "{error}");
        let more_than_it_may = Some(Budget { bytes: 100, used_bytes: 700 });
        assert!(check_room(&card, 0, more_than_it_may).is_ok());
        assert!(matches!(check_room(&card, 1, more_than_it_may), Err(Error::Occupied { free_bytes: 0, .. })));
    }
}
