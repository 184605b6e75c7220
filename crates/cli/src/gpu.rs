//! The GPU that is to compute, if one is.

use std::io::{self, Write};
use std::sync::Arc;

use metallic::GgufLoader;
use metallic::backend::Backend;
use metallic::memory::Tier;
use metallic::plan::Offload;
pub(crate) use metallic_gpu::Gpu;
use metallic_gpu::{AdapterReport, Choice, Counters, Device};
use serde_json::json;

use crate::args::{ComputeArgs, DeviceName, DevicesArgs, GpuLayers};
use crate::failure::{Failure, Kind, Result, one_line};
use crate::kernel_store::KernelFolder;
use crate::table::{Align, Table};
use crate::terminal::{Style, Terminal, human_bytes};

/// Of a card's memory this is left to others: its driver, a desktop, and what of blocks no buffer fills.
const RESERVED_BYTES: u64 = 512 << 20;

/// What GPUs count while they compute.
#[derive(Clone, Default)]
pub(crate) struct GpuCounters(Vec<Arc<Counters>>);

impl GpuCounters {
    /// Kernels that were compiled so far.
    pub(crate) fn n_compiled(&self) -> u64 {
        self.0.iter().map(|counters| counters.stats().n_compiled).sum()
    }
}

/// Has the loader use the GPUs that the arguments name: of layers that were asked for by number the last of them takes all
/// that the others have no room for.
pub(crate) fn offload<'p>(
    mut loader: GgufLoader<'p>,
    args: &ComputeArgs,
) -> Result<(GgufLoader<'p>, GpuCounters)> {
    let gpus = open(args)?;
    let counters = GpuCounters(gpus.iter().map(Gpu::counters).collect());
    let n_gpus = gpus.len();
    for (i, gpu) in gpus.into_iter().enumerate() {
        let n_layers = match args.gpu_layers {
            GpuLayers::Auto | GpuLayers::All => None,
            GpuLayers::Last(n) => Some(n as usize),
        };
        let swaps = args.gpu_layers != GpuLayers::Auto && i + 1 == n_gpus;
        let n_cpu_moe = if args.cpu_moe { usize::MAX } else { args.n_cpu_moe as usize };
        loader = loader.offload(gpu, Offload { n_layers, swaps, n_cpu_moe });
    }
    Ok((loader, counters))
}

/// Bytes of a copy that stands for reading a GPU's memory: more than its caches hold.
const COPY_BYTES: u64 = 64 << 20;

/// Bytes of its memory that measuring takes at most, beside a model that may be meant to fill it: less than what is left to
/// others.
const MEASURING_BYTES: u64 = RESERVED_BYTES / 2;

/// Measures each GPU that the arguments name, in few bytes of its memory; once what is named twice.
pub(crate) fn measure<T: Clone>(
    args: &ComputeArgs,
    mut measure: impl FnMut(&mut Gpu) -> Result<T>,
) -> Result<Vec<T>> {
    let mut measured: Vec<(usize, T)> = Vec::new();
    for (name, asked) in args.gpus() {
        let Some(device) = device(&name)? else { return Ok(Vec::new()) };
        let index = device.report().index;
        let known = measured.iter().find(|(known, _)| *known == index).map(|(_, rates)| rates.clone());
        let rates = match known {
            Some(rates) => rates,
            None => measure(&mut backend(device, asked.unwrap_or(MEASURING_BYTES).min(MEASURING_BYTES))?)?,
        };
        measured.push((index, rates));
    }
    Ok(measured.into_iter().map(|(_, rates)| rates).collect())
}

/// Bytes of a GPU's memory that may still be taken.
pub(crate) fn room_bytes(gpu: &Gpu) -> u64 {
    gpu.memory().map_or(0, |memory| memory.limit_bytes() - memory.used_bytes())
}

/// The bytes a second that copies within a GPU's memory read and write, unless there is no room for them.
pub(crate) fn copy_rate(gpu: &mut Gpu) -> Result<Option<f64>> {
    let n_bytes = COPY_BYTES.min(room_bytes(gpu) / 2);
    let copied = (n_bytes > 0).then(|| gpu.copy_rate(n_bytes)).transpose();
    copied.map_err(|error| failure("can't measure the GPU".to_owned(), error))
}

/// The GPUs, unless the CPU is to compute alone.
fn open(args: &ComputeArgs) -> Result<Vec<Gpu>> {
    let mut gpus: Vec<(Gpu, u64)> = Vec::new();
    for (name, asked) in args.gpus() {
        let Some(device) = device(&name)? else { return Ok(Vec::new()) };
        let report = device.report();
        let same = gpus.iter().filter(|(gpu, _)| gpu.device().report().index == report.index);
        let vram = vram(report, asked, same.map(|(_, vram)| vram).sum())?;
        gpus.push((backend(device, vram)?, vram));
    }
    Ok(gpus.into_iter().map(|(gpu, _)| gpu).collect())
}

/// A device by its name, with kernels that earlier runs have compiled. Without a name it is any but a software driver, which a
/// CPU is faster without; that there is none is told.
fn device(name: &DeviceName) -> Result<Option<Device>> {
    let choice = match name {
        DeviceName::Index(index) => Choice::Index(*index),
        DeviceName::Name(name) => Choice::Name(name),
        DeviceName::Cpu | DeviceName::Auto => {
            let is_hardware = |report: &AdapterReport| !report.is_software();
            if !metallic_gpu::adapters().iter().any(is_hardware) {
                tracing::warn!("no GPU was found: the CPU computes (--device names a software driver)");
                return Ok(None);
            }
            Choice::Best
        }
    };
    let mut device = Device::open(choice).map_err(|error| failure("can't use a GPU".to_owned(), error))?;
    if let Some(folder) = KernelFolder::of_user() {
        device.keep_kernels(Box::new(folder));
    }
    Ok(Some(device))
}

/// A backend on a device, within so many bytes of its memory.
fn backend(device: Device, vram: u64) -> Result<Gpu> {
    let name = device.report().to_string();
    let gpu = Gpu::new(device, Tier::named("GPU memory", Some(vram)));
    gpu.map_err(|error| failure(format!("can't use {name}"), error))
}

/// How much of a device's memory may be taken, of which `taken` bytes are: what was asked for, if as much may be had now and
/// that is enough to begin with.
fn vram(report: &AdapterReport, asked: Option<u64>, taken: u64) -> Result<u64> {
    let bytes = match asked {
        Some(asked) => within(report, asked, taken).map(|()| asked)?,
        None => all_but_reserved(report)?.saturating_sub(taken),
    };
    let least = Gpu::least_bytes();
    if bytes < least {
        let what = format!("can't use {report} within {} of its memory", human_bytes(bytes));
        let reason = format!("what any model needs there takes {} ({least} bytes)", human_bytes(least));
        return Err(Failure::new(Kind::General, what).because(reason).advice("allow more with --vram"));
    }
    Ok(bytes)
}

/// Refuses what a device does not have, or has not at the moment.
fn within(report: &AdapterReport, asked: u64, taken: u64) -> Result<()> {
    let all = asked.saturating_add(taken);
    let refuse = |has: String, advice| {
        let what = format!("--vram asks for {}, and {report} has {has}", human_bytes(all));
        Err(Failure::new(Kind::General, what).advice(advice))
    };
    match (report.memory_bytes, report.available_bytes) {
        (Some(memory), _) if all > memory => {
            refuse(human_bytes(memory), "leave some of it to the driver, or choose another --device")
        }
        (_, Some(available)) if all > available => refuse(
            format!("{} free at the moment", human_bytes(available)),
            "end what else uses it, ask for less, or choose another --device",
        ),
        _ => Ok(()),
    }
}

/// What may be had of a device's memory now, but for what others will need. Where it shares main memory there is no such
/// bound.
fn all_but_reserved(report: &AdapterReport) -> Result<u64> {
    match report.available_bytes.or(report.memory_bytes) {
        Some(bytes) if report.has_own_memory() => Ok(bytes.saturating_sub(RESERVED_BYTES)),
        _ => Err(Failure::new(Kind::Usage, format!("how much memory of {report} may be used is not known"))
            .advice("say how much with --vram")),
    }
}

/// Whether a GPU that a model is on is lost, so that the model must be loaded again.
pub(crate) fn has_lost(error: &metallic::Error) -> bool {
    let metallic::Error::Backend { source } = error else { return false };
    source.downcast_ref().is_some_and(metallic_gpu::Error::is_device_lost)
}

/// What to do about an error of a GPU that a model is on, if it is one.
pub(crate) fn advice(error: &metallic::Error) -> Option<&'static str> {
    let metallic::Error::Backend { source } = error else { return None };
    Some(match source.downcast_ref()? {
        metallic_gpu::Error::Lost { .. } => "run it again, or compute on the CPU: --device cpu",
        metallic_gpu::Error::Occupied { .. } => {
            "run it again for a plan of what is free, end what else uses the GPU, or allow less with --vram"
        }
        _ => "compute on the CPU: --device cpu",
    })
}

fn failure(what: String, error: metallic_gpu::Error) -> Failure {
    let advice = match error {
        metallic_gpu::Error::NotOne { .. } | metallic_gpu::Error::NoAdapter { .. } => {
            "`metallic devices` lists them"
        }
        metallic_gpu::Error::Host(_) => "allow more with --vram",
        _ => "compute without it: --device cpu",
    };
    Failure::new(Kind::General, what).because(error).advice(advice)
}

/// Lists the devices.
pub(crate) fn run(args: &DevicesArgs, terminal: &Terminal) -> Result<()> {
    let adapters = metallic_gpu::adapters();
    let mut out = io::stdout().lock();
    if args.json {
        let adapters: Vec<_> = adapters.iter().map(as_json).collect();
        let written = serde_json::to_writer_pretty(&mut out, &adapters).map_err(io::Error::from);
        return written.and_then(|()| writeln!(out)).map_err(Failure::output);
    }
    if adapters.is_empty() {
        terminal.note(format_args!(
            "no GPU was found: no driver is installed, or it shows none; see docs/gpu.md"
        ));
        return Ok(());
    }
    let mut table = Table::new([
        ("INDEX", Align::Right),
        ("NAME", Align::Left),
        ("TYPE", Align::Left),
        ("MEMORY", Align::Right),
        ("FREE", Align::Right),
        ("SUBGROUPS", Align::Right),
        ("CAN", Align::Left),
        ("DRIVER", Align::Left),
    ]);
    let bytes = |bytes: Option<u64>| bytes.map_or("unknown".to_owned(), human_bytes);
    for report in &adapters {
        let [least, most] = report.subgroup_sizes;
        table.push([
            report.index.to_string(),
            one_line(&report.name),
            report.kind().to_owned(),
            bytes(report.memory_bytes),
            bytes(report.available_bytes),
            if least == most { least.to_string() } else { format!("{least} to {most}") },
            abilities(report).join(", "),
            format!("{:?}, {}", report.backend, one_line(report.driver.trim())),
        ]);
    }
    table.write(&mut out, |line| terminal.paint(Style::Bold, line)).map_err(Failure::output)
}

/// What kernels could use beside what all devices have.
fn abilities(report: &AdapterReport) -> Vec<&'static str> {
    let features = report.features;
    let all = [
        (features.subgroup, "subgroups"),
        (features.f16, "f16"),
        (features.matrix_side.is_some(), "matrices"),
        (features.packed_products, "packed products"),
        (features.mappable_buffers, "mapped buffers"),
    ];
    all.into_iter().filter(|(has, _)| *has).map(|(_, name)| name).collect()
}

fn as_json(report: &AdapterReport) -> serde_json::Value {
    json!({
        "index": report.index,
        "name": report.name,
        "type": report.kind(),
        "backend": format!("{:?}", report.backend).to_lowercase(),
        "driver": report.driver.trim(),
        "memory_bytes": report.memory_bytes,
        "available_bytes": report.available_bytes,
        "shares_main_memory": !report.has_own_memory(),
        "max_binding_bytes": report.max_binding_bytes,
        "max_buffer_bytes": report.max_buffer_bytes,
        "workgroup_bytes": report.workgroup_bytes,
        "subgroup_sizes": report.subgroup_sizes,
        "can": abilities(report),
    })
}

#[cfg(test)]
mod tests {
    use metallic_gpu::{DeviceFeatures, DeviceType, WgpuBackend};

    use super::*;

    const GIB: u64 = 1 << 30;

    fn report(device_type: DeviceType, memory: Option<u64>, available: Option<u64>) -> AdapterReport {
        AdapterReport {
            index: 0,
            name: "a card".to_owned(),
            device_type,
            backend: WgpuBackend::Vulkan,
            driver: String::new(),
            memory_bytes: memory,
            available_bytes: available,
            max_binding_bytes: 0,
            max_buffer_bytes: 0,
            workgroup_bytes: 0,
            subgroup_sizes: [32, 32],
            features: DeviceFeatures::default(),
        }
    }

    #[test]
    fn what_is_free_now_bounds_what_is_taken() {
        let card = report(DeviceType::DiscreteGpu, Some(8 * GIB), Some(5 * GIB));
        assert_eq!(vram(&card, None, 0).unwrap(), 5 * GIB - RESERVED_BYTES);
        assert_eq!(vram(&card, None, GIB).unwrap(), 4 * GIB - RESERVED_BYTES);
        assert_eq!(vram(&card, Some(5 * GIB), 0).unwrap(), 5 * GIB);
        for (asked, taken, said) in [
            (6 * GIB, 0, "asks for 6.0 GiB, and 0: a card (card, Vulkan, ) has 5.0 GiB free at the moment"),
            (3 * GIB, 3 * GIB, "asks for 6.0 GiB"),
            (9 * GIB, 0, "asks for 9.0 GiB, and 0: a card (card, Vulkan, ) has 8.0 GiB:"),
        ] {
            let error = vram(&card, Some(asked), taken).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
    }

    #[test]
    fn memory_that_is_shared_or_unknown_is_taken_as_asked_alone() {
        let silent = report(DeviceType::DiscreteGpu, Some(8 * GIB), None);
        assert_eq!(vram(&silent, None, 0).unwrap(), 8 * GIB - RESERVED_BYTES);
        for report in [
            report(DeviceType::IntegratedGpu, Some(8 * GIB), Some(5 * GIB)),
            report(DeviceType::DiscreteGpu, None, None),
        ] {
            assert!(vram(&report, None, 0).unwrap_err().to_string().contains("--vram"));
            assert_eq!(vram(&report, Some(GIB), 0).unwrap(), GIB);
        }
    }

    #[test]
    fn what_to_do_is_said_of_each_error_of_a_gpu() {
        let lost = metallic::Error::from(metallic_gpu::Error::Lost { reason: "reset".to_owned() });
        assert!(has_lost(&lost) && crate::model_file::kind_of(&lost) == Kind::DeviceLost);
        assert!(advice(&lost).unwrap().contains("run it again"));
        let (adapter, needed_bytes, free_bytes) = ("a card".to_owned(), 7, 5);
        let occupied = metallic_gpu::Error::Occupied { adapter, needed_bytes, free_bytes };
        let occupied = metallic::Error::from(occupied);
        assert!(!has_lost(&occupied) && advice(&occupied).unwrap().contains("less with --vram"));
        let other = metallic::Error::ContextTooLong { n_ctx: 2, max: 1 };
        assert!(!has_lost(&other) && advice(&other).is_none());
    }
}
