//! How much memory a device has, and how much of it this process may have now. wgpu does not say, so the driver is asked
//! through wgpu's door to it.
//!
//! Vulkan tells of now by `VK_EXT_memory_budget` only, which not all drivers have. Metal says what it recommends a process to
//! have, which takes no account of other programs. Of DirectX and Metal the code is type-checked and has not run.
#![allow(unsafe_code, reason = "the drivers' own objects are reached through wgpu's unsafe door alone")]

/// A device's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DeviceMemory {
    /// Bytes that it has.
    pub(crate) total_bytes: u64,
    /// Where the driver tells of now.
    pub(crate) budget: Option<Budget>,
}

/// What this process may have of a memory, at this moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Budget {
    /// Bytes that it may have, with those that it has: never more than there are.
    pub(crate) bytes: u64,
    /// Bytes that it has.
    pub(crate) used_bytes: u64,
}

impl DeviceMemory {
    /// What the driver says of a memory of so many bytes, of which it may promise more than there are.
    fn new(total_bytes: u64, budget: Option<Budget>) -> Self {
        let within = |budget: Budget| Budget { bytes: budget.bytes.min(total_bytes), ..budget };
        Self { total_bytes, budget: budget.map(within) }
    }
}

/// What the driver of an adapter says now; `None` if it can't be asked.
pub(crate) fn ask(adapter: &wgpu::Adapter) -> Option<DeviceMemory> {
    #[cfg(not(target_vendor = "apple"))]
    let memory = vulkan(adapter);
    #[cfg(target_vendor = "apple")]
    let memory = metal(adapter);
    #[cfg(windows)]
    let memory = memory.or_else(|| direct_x(adapter));
    memory
}

/// Of Vulkan, the largest heap that is local to the device.
#[cfg(not(target_vendor = "apple"))]
fn vulkan(adapter: &wgpu::Adapter) -> Option<DeviceMemory> {
    use ash::{ext::memory_budget, vk};

    // SAFETY: what it returns is only asked, and not kept.
    let vulkan = unsafe { adapter.as_hal::<wgpu::hal::api::Vulkan>() }?;
    let (shared, device) = (vulkan.shared_instance(), vulkan.raw_physical_device());
    let (instance, properties) = (shared.raw_instance(), vulkan.physical_device_capabilities().properties());
    // Not wgpu's list, from which it takes this extension of Mesa's driver for AMD: that one miscounts what is imported from
    // other programs, and we import nothing.
    // SAFETY: the device is one of this instance's, and both live while `vulkan` does.
    let extensions = unsafe { instance.enumerate_device_extension_properties(device) }.unwrap_or_default();
    let version = shared.instance_api_version().min(properties.api_version);
    let tells_budgets = version >= vk::API_VERSION_1_1
        && extensions.iter().any(|one| one.extension_name_as_c_str() == Ok(memory_budget::NAME));
    let mut budgets = vk::PhysicalDeviceMemoryBudgetPropertiesEXT::default();
    let memory = if tells_budgets {
        let mut memory = vk::PhysicalDeviceMemoryProperties2::default().push_next(&mut budgets);
        // SAFETY: device and instance as above, both of the version that brought the function; and the device has the
        // extension whose structure is to be filled.
        unsafe { instance.get_physical_device_memory_properties2(device, &mut memory) };
        memory.memory_properties
    } else {
        // SAFETY: as above, of a function that all versions have.
        unsafe { instance.get_physical_device_memory_properties(device) }
    };
    let heaps = memory.memory_heaps.iter().take(memory.memory_heap_count as usize).enumerate();
    let local = heaps.filter(|(_, heap)| heap.flags.contains(vk::MemoryHeapFlags::DEVICE_LOCAL));
    let (i, heap) = local.max_by_key(|(_, heap)| heap.size)?;
    let is_software = properties.device_type == vk::PhysicalDeviceType::CPU;
    // Mesa's software driver calls used what its heap lacks of the free main memory, less than nothing included.
    let used_bytes = if is_software { 0 } else { budgets.heap_usage[i] };
    let budget = tells_budgets.then_some(Budget { bytes: budgets.heap_budget[i], used_bytes });
    Some(DeviceMemory::new(heap.size, budget))
}

/// Of DirectX, the segment that is local to the device.
#[cfg(windows)]
fn direct_x(adapter: &wgpu::Adapter) -> Option<DeviceMemory> {
    // SAFETY: what it returns is only asked, and not kept.
    let direct_x = unsafe { adapter.as_hal::<wgpu::hal::api::Dx12>() }?;
    // The default is `DXGI_MEMORY_SEGMENT_GROUP_LOCAL`.
    let info = direct_x.raw_adapter().query_video_memory_info(Default::default()).ok()?;
    // SAFETY: the adapter lives while `direct_x` does.
    let described = unsafe { direct_x.raw_adapter().GetDesc2() }.ok()?;
    // Where it shares main memory, hardly any is the device's own.
    let total_bytes = (described.DedicatedVideoMemory as u64).max(info.Budget);
    Some(DeviceMemory::new(total_bytes, Some(Budget { bytes: info.Budget, used_bytes: info.CurrentUsage })))
}

/// Of Metal, what the system recommends that a process has.
#[cfg(target_vendor = "apple")]
fn metal(adapter: &wgpu::Adapter) -> Option<DeviceMemory> {
    use objc2_metal::MTLDevice as _;

    // SAFETY: what it returns is only asked, and not kept.
    let metal = unsafe { adapter.as_hal::<wgpu::hal::api::Metal>() }?;
    let device = metal.raw_device();
    let (bytes, used_bytes) = (device.recommendedMaxWorkingSetSize(), device.currentAllocatedSize() as u64);
    Some(DeviceMemory::new(bytes, Some(Budget { bytes, used_bytes })))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_driver_promises_more_than_there_is() {
        let budget = Some(Budget { bytes: 120, used_bytes: 7 });
        assert_eq!(DeviceMemory::new(100, budget).budget, Some(Budget { bytes: 100, used_bytes: 7 }));
        assert_eq!(DeviceMemory::new(200, budget).budget, budget);
        assert_eq!(DeviceMemory::new(200, None).budget, None);
    }
}
