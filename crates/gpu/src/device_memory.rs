//! How much memory a device has. wgpu does not say, so Vulkan is asked; Metal and DirectX are not yet.

/// Bytes of the largest heap that is local to the device.
#[cfg(not(target_vendor = "apple"))]
#[allow(unsafe_code, reason = "the driver's own objects are reached through wgpu's unsafe door alone")]
pub(crate) fn bytes(adapter: &wgpu::Adapter) -> Option<u64> {
    /// `VK_MEMORY_HEAP_DEVICE_LOCAL_BIT`.
    const DEVICE_LOCAL: u32 = 1;
    // SAFETY: what it returns is only read, and not kept.
    let vulkan = unsafe { adapter.as_hal::<wgpu::hal::api::Vulkan>() }?;
    let instance = vulkan.shared_instance().raw_instance();
    // SAFETY: the device is one of this instance's, and both live while `vulkan` does.
    let memory = unsafe { instance.get_physical_device_memory_properties(vulkan.raw_physical_device()) };
    let heaps = memory.memory_heaps.iter().take(memory.memory_heap_count as usize);
    heaps.filter(|heap| heap.flags.as_raw() & DEVICE_LOCAL != 0).map(|heap| heap.size).max()
}

/// Not known.
#[cfg(target_vendor = "apple")]
pub(crate) fn bytes(_: &wgpu::Adapter) -> Option<u64> {
    None
}
