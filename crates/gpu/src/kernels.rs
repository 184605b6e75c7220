//! Kernels: what each is made of, and pipelines made of them as they are needed.
//!
//! A kernel is a WGSL file in `shaders/` and a line of [`table`]. Its text is put after that of the parts it uses: in
//! WGSL, the order of declarations does not matter. Numbers that are known when it is compiled are `override`s, those of
//! a dispatch are in `var<immediate>`, and each buffer has a binding, in the order of [`Kernel::bindings`].

mod cache;
mod table;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use metallic::GgmlType;
use metallic_kernels::registry;
use smallvec::SmallVec;
use wgpu::{BindGroup, BindGroupLayout, BufferBindingType, ComputePipeline, ErrorFilter, PipelineLayout};

pub(crate) use self::cache::KernelCache;
pub use self::cache::KernelStore;
pub(crate) use self::table::*;
use crate::device::{Device, MAX_IMMEDIATE_BYTES};
use crate::error::{Error, Result};
use crate::memory::{GpuBuffer, Vram};
use crate::recorder::Counters;
use crate::uploads::Uploads;

/// Workgroups in a dimension of a dispatch, as WebGPU promises.
const MAX_GROUPS: u32 = 65_535;

/// Invocations of a workgroup in kernels that compute each value by itself.
const GROUP_LEN: u32 = 256;

/// Bind groups that are kept at most: some for each operation of a model of many layers.
const MAX_BIND_GROUPS: usize = 16 << 10;

/// How a kernel uses a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Access {
    Read,
    Write,
}

/// The binding of [`Part::codes`], after those of any kernel.
const CODES_BINDING: u32 = 8;

/// WGSL that kernels are put together with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part {
    pub(crate) name: &'static str,
    pub(crate) source: &'static str,
    /// What it uses itself.
    pub(crate) parts: &'static [Part],
    /// The type whose table of codes it reads.
    pub(crate) codes: Option<GgmlType>,
}

/// A kernel.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kernel {
    pub(crate) name: &'static str,
    pub(crate) source: &'static str,
    /// What it uses beside `common.wgsl`, and beside the decoder that a call names.
    pub(crate) parts: &'static [Part],
    pub(crate) bindings: &'static [Access],
}

/// One run of a kernel.
pub(crate) struct Call<'a> {
    pub(crate) kernel: &'a Kernel,
    /// What reads the weights, or the keys and values, for kernels that are the same for all types.
    pub(crate) decoder: Option<&'a Part>,
    /// Values of `override`s.
    pub(crate) constants: &'a [(&'static str, u32)],
    /// In the order of the kernel's bindings. None twice.
    pub(crate) buffers: &'a [&'a GpuBuffer],
    /// Words of `var<immediate>`, in order; of floats, their bits.
    pub(crate) params: &'a [u32],
    pub(crate) grid: Grid,
    /// Multiplications that it takes, where those are most of a pass: in products with matrices.
    pub(crate) n_multiplications: u64,
}

impl<'a> Call<'a> {
    /// Of a kernel that needs no decoder and has no constants.
    pub(crate) fn new(
        kernel: &'a Kernel,
        buffers: &'a [&'a GpuBuffer],
        params: &'a [u32],
        grid: Grid,
    ) -> Self {
        Self { kernel, decoder: None, constants: &[], buffers, params, grid, n_multiplications: 0 }
    }
}

/// How many workgroups a kernel runs in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Grid {
    /// So many, which the kernel numbers by `group_number`.
    Groups(usize),
    /// As many as compute so many values, an invocation for each: `value_number`.
    Values(usize),
    /// So many times so many: the second is at most [`MAX_GROUPS`], and `workgroup_id.z`.
    GroupsOf(usize, usize),
}

impl Grid {
    /// Workgroups in each dimension: the first two together are at least as many as are wanted. `None` if none are.
    pub(crate) fn size(self) -> Option<[u32; 3]> {
        let (n_groups, z) = match self {
            Grid::Groups(n) => (n, 1),
            Grid::Values(n) => (n.div_ceil(GROUP_LEN as usize), 1),
            Grid::GroupsOf(n, z) => (n, z),
        };
        let n_groups = u32::try_from(n_groups).expect("fewer groups than values in a buffer");
        if n_groups == 0 || z == 0 {
            return None;
        }
        let y = n_groups.div_ceil(MAX_GROUPS);
        Some([n_groups.div_ceil(y), y, z as u32])
    }
}

/// A kernel that is compiled, and the buffers of a call.
pub(crate) struct Ready {
    pub(crate) pipeline: Arc<Pipeline>,
    pub(crate) bind_group: BindGroup,
}

pub(crate) type Constants = SmallVec<[(&'static str, u32); 2]>;

/// What a pipeline is made of.
#[derive(PartialEq, Eq, Hash)]
struct PipelineKey {
    kernel: &'static str,
    decoder: &'static str,
    constants: Constants,
}

pub(crate) struct Pipeline {
    pipeline: ComputePipeline,
    layout: Arc<Layout>,
}

impl std::ops::Deref for Pipeline {
    type Target = ComputePipeline;

    fn deref(&self) -> &ComputePipeline {
        &self.pipeline
    }
}

struct Layout {
    number: usize,
    bindings: BindGroupLayout,
    pipeline: PipelineLayout,
}

/// All pipelines of a device that were needed so far, and the bind groups.
pub(crate) struct Kernels {
    device: Arc<Device>,
    counters: Arc<Counters>,
    pipelines: HashMap<PipelineKey, Arc<Pipeline>>,
    /// Kernels with the same bindings (and whether they read codes) share a layout, and so bind groups.
    layouts: HashMap<(&'static [Access], bool), Arc<Layout>>,
    bind_groups: HashMap<(usize, SmallVec<[wgpu::Buffer; 8]>), BindGroup>,
    /// What codes stand for, of each type that has them.
    codes: Vec<(GgmlType, GpuBuffer)>,
}

impl Kernels {
    /// Bytes that they take of the device.
    pub(crate) fn bytes() -> u64 {
        codes().map(|(_, words)| words.len() as u64).sum()
    }

    /// None yet, but for what they all need.
    ///
    /// # Errors
    /// No memory.
    pub(crate) fn new(vram: &Vram, uploads: &mut Uploads, counters: &Arc<Counters>) -> Result<Self> {
        let codes = codes().map(|(ggml_type, words)| {
            let buffer = vram.bytes("what codes stand for", words.len() as u64)?;
            uploads.write(&words, &buffer, 0)?;
            Ok((ggml_type, buffer))
        });
        Ok(Self {
            device: Arc::clone(&vram.device),
            counters: Arc::clone(counters),
            codes: codes.collect::<Result<_>>()?,
            pipelines: HashMap::new(),
            layouts: HashMap::new(),
            bind_groups: HashMap::new(),
        })
    }

    /// What it takes to run `call`.
    ///
    /// # Errors
    /// [`Error::Compile`].
    pub(crate) fn ready(&mut self, call: &Call<'_>) -> Result<Ready> {
        let pipeline = self.pipeline(call)?;
        assert_eq!(call.buffers.len(), call.kernel.bindings.len(), "a buffer for each binding");
        let codes = call.decoder.and_then(|decoder| self.codes_of(decoder)).cloned();
        let codes = codes.as_ref().map(|codes| (CODES_BINDING, codes));
        let bound = (0..).zip(call.buffers.iter().copied()).chain(codes);
        let bound: SmallVec<[(u32, &GpuBuffer); 8]> = bound.collect();
        let buffers = bound.iter().map(|(_, buffer)| buffer.wgpu().clone()).collect();
        if self.bind_groups.len() >= MAX_BIND_GROUPS {
            self.bind_groups.clear();
        }
        let device = &self.device.device;
        let make = || bind_group(device, call.kernel.name, &pipeline.layout.bindings, &bound);
        let group = self.bind_groups.entry((pipeline.layout.number, buffers)).or_insert_with(make);
        Ok(Ready { bind_group: group.clone(), pipeline })
    }

    /// The table that a decoder reads.
    fn codes_of(&self, decoder: &Part) -> Option<&GpuBuffer> {
        let wanted = decoder.codes?;
        self.codes.iter().find(|(ggml_type, _)| *ggml_type == wanted).map(|(_, buffer)| buffer)
    }

    /// The pipeline of a call, compiled now if it is the first of its kind.
    fn pipeline(&mut self, call: &Call<'_>) -> Result<Arc<Pipeline>> {
        let key = PipelineKey {
            kernel: call.kernel.name,
            decoder: call.decoder.map_or("", |decoder| decoder.name),
            constants: call.constants.iter().copied().collect(),
        };
        if let Some(pipeline) = self.pipelines.get(&key) {
            return Ok(Arc::clone(pipeline));
        }
        let has_codes = call.decoder.is_some_and(|decoder| decoder.codes.is_some());
        let layout = self.layout(call.kernel.bindings, has_codes);
        let started = Instant::now();
        let pipeline = compile(&self.device, call.kernel, call.decoder, call.constants, &layout)?;
        self.counters.compiled(started.elapsed());
        let pipeline = Arc::new(Pipeline { pipeline, layout });
        self.pipelines.insert(key, Arc::clone(&pipeline));
        Ok(pipeline)
    }

    fn layout(&mut self, bindings: &'static [Access], has_codes: bool) -> Arc<Layout> {
        let number = self.layouts.len();
        let make = || Arc::new(Layout::new(&self.device.device, number, bindings, has_codes));
        Arc::clone(self.layouts.entry((bindings, has_codes)).or_insert_with(make))
    }
}

impl Layout {
    fn new(device: &wgpu::Device, number: usize, bindings: &[Access], has_codes: bool) -> Self {
        let entry = |(binding, access): (u32, &Access)| wgpu::BindGroupLayoutEntry {
            binding,
            visibility: wgpu::ShaderStages::COMPUTE,
            ty: wgpu::BindingType::Buffer {
                ty: BufferBindingType::Storage { read_only: *access == Access::Read },
                has_dynamic_offset: false,
                min_binding_size: None,
            },
            count: None,
        };
        let codes = has_codes.then_some((CODES_BINDING, &Access::Read));
        let entries: Vec<_> = (0..).zip(bindings).chain(codes).map(entry).collect();
        let descriptor = wgpu::BindGroupLayoutDescriptor { label: None, entries: &entries };
        let bindings = device.create_bind_group_layout(&descriptor);
        let pipeline = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label: None,
            bind_group_layouts: &[Some(&bindings)],
            immediate_size: MAX_IMMEDIATE_BYTES,
        });
        Self { number, bindings, pipeline }
    }
}

fn bind_group(
    device: &wgpu::Device,
    label: &str,
    layout: &BindGroupLayout,
    buffers: &[(u32, &GpuBuffer)],
) -> BindGroup {
    let entries = buffers.iter().map(|&(binding, buffer)| {
        let resource = buffer.wgpu().as_entire_binding();
        wgpu::BindGroupEntry { binding, resource }
    });
    let entries: Vec<_> = entries.collect();
    device.create_bind_group(&wgpu::BindGroupDescriptor { label: Some(label), layout, entries: &entries })
}

/// The tables of [`Part::codes`]: a word for each four weights of a code, or for a code that stands for one.
fn codes() -> impl Iterator<Item = (GgmlType, Vec<u8>)> {
    QUANTS.iter().filter_map(|(_, decoder)| {
        let codes = registry::codes(decoder.codes?).expect("a type that has codes");
        let weights = &codes.weights;
        let words = match codes.per_code {
            1 => weights.iter().flat_map(|weight| i32::from(*weight).to_le_bytes()).collect(),
            _ => weights.iter().map(|weight| *weight as u8).collect(),
        };
        Some((decoder.codes?, words))
    })
}

/// The whole text of a kernel. What parts enable comes before all else, as WGSL wants it.
pub(crate) fn source(kernel: &Kernel, decoder: Option<&Part>) -> String {
    let parts =
        [&COMMON].into_iter().chain(kernel.parts).chain(decoder.into_iter().flat_map(|part| part.parts));
    let texts = parts.chain(decoder).map(|part| part.source).chain([kernel.source]);
    let (enabled, others): (Vec<_>, Vec<_>) =
        texts.flat_map(str::lines).partition(|line| line.starts_with("enable "));
    [enabled, others].concat().join("\n")
}

fn compile(
    device: &Device,
    kernel: &Kernel,
    decoder: Option<&Part>,
    constants: &[(&'static str, u32)],
    layout: &Layout,
) -> Result<ComputePipeline> {
    let name = decoder.map_or(kernel.name.to_owned(), |decoder| format!("{}/{}", kernel.name, decoder.name));
    let internal = device.device.push_error_scope(ErrorFilter::Internal);
    let invalid = device.device.push_error_scope(ErrorFilter::Validation);
    let module = device.device.create_shader_module(wgpu::ShaderModuleDescriptor {
        label: Some(&name),
        source: wgpu::ShaderSource::Wgsl(source(kernel, decoder).into()),
    });
    let constants: Vec<_> = constants.iter().map(|(name, value)| (*name, f64::from(*value))).collect();
    let pipeline = device.device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
        label: Some(&name),
        layout: Some(&layout.pipeline),
        module: &module,
        entry_point: Some("main"),
        compilation_options: wgpu::PipelineCompilationOptions {
            constants: &constants,
            zero_initialize_workgroup_memory: false,
        },
        cache: device.kernels.as_ref().map(KernelCache::pipelines),
    });
    let errors = [invalid.pop(), internal.pop()].map(pollster::block_on);
    match errors.into_iter().flatten().next() {
        None => Ok(pipeline),
        Some(error) => {
            device.faults.check()?;
            Err(Error::Compile { kernel: name, reason: error.to_string() })
        }
    }
}
